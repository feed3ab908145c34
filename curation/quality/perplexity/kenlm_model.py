"""Opens a reference language model: the KenLM file, and the tokenization that belongs to it.

A KenLM binary is mapped into memory and shared by all processes of a machine. An ARPA file is text, which every process
would parse and copy, so it is first converted to a binary in the model cache (kenlm_binary.py); the scores are the
same, bit for bit.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from curation import models
from curation.core.errors import UserError
from curation.quality.ngram import tokenize_text
from curation.quality.perplexity import ccnet_normalization, kenlm_binary

_MOST_WORDS = 1 << 18  # remembered as known or not; about 25 MB
_ENDING = re.compile(r"(\.arpa)?(\.bin|\.binary|\.klm|\.mmap|\.gz)?$")


def load_kenlm(name_or_path: str) -> Any:
    """Opens a KenLM model. Raises UserError for a file that is not one."""
    import kenlm

    path = models.resolve(name_or_path)
    config = kenlm.Config()
    config.show_progress = False
    config.arpa_complain = kenlm.ARPALoadComplain.NONE  # no advice on stderr to convert to binary
    try:
        return kenlm.Model(kenlm_binary.cached_binary(path), config)
    except (OSError, RuntimeError) as e:
        raise UserError(f"model {name_or_path}: {path} is neither an ARPA file nor a KenLM binary ({e})") from e


def perplexity(log10_probability: float, tokens: int) -> float:
    """10^(-log10 p / tokens)."""
    # a model with probabilities of 10^-99 must not overflow a float
    return float(10.0 ** min(-log10_probability / tokens, 300.0))


def default_tokenizer_path(name: str) -> str:
    """Path of the SentencePiece model of a KenLM model by cc_net's naming: `en.arpa.bin` has `en.sp.model`."""
    return _ENDING.sub("", name, count=1) + ".sp.model"


class WordModel:
    """A model over words as tokenize_text.py splits them; a line is a sentence and a paragraph."""

    def __init__(self, name: str, form: tokenize_text.Form) -> None:
        self.kenlm, self._form = load_kenlm(name), form
        self.known = functools.lru_cache(_MOST_WORDS)(self.kenlm.__contains__)  # word -> bool

    def tokenize(self, texts: pa.Array) -> Iterator[tuple[list[bytes], int]]:
        """For each text the sentences to score, and its number of tokens."""
        return tokenize_text.tokenize(texts, self._form)

    def paragraphs(self, lines: Sequence[bytes], scores: Sequence[float], text: str) -> list[tuple[float, int]]:
        """(perplexity, tokens) of each line, from the scores of the document's sentences."""
        counts = [line.count(b" ") + 2 for line in lines]
        return [(perplexity(score, n), n) for score, n in zip(scores, counts, strict=True)]


class CcnetModel:
    """A model over SentencePiece pieces of text normalized as in cc_net; a document is one sentence."""

    def __init__(self, name: str, tokenizer: str) -> None:
        self.kenlm = load_kenlm(name)
        self.known = functools.lru_cache(_MOST_WORDS)(self.kenlm.__contains__)  # word -> bool
        path = models.resolve(tokenizer)
        try:
            self._tokenizer = ccnet_normalization.load_tokenizer(path)
        except (OSError, RuntimeError) as e:
            raise UserError(f"model {tokenizer}: {path} is not a SentencePiece model ({e})") from e

    def tokenize(self, texts: pa.Array) -> Iterator[tuple[list[str], int]]:
        """For each text one line of its pieces (none for an empty text), and their number plus the line end."""
        for line in ccnet_normalization.pieces(self._tokenizer, [text or "" for text in texts.to_pylist()]):
            yield ([line], len(line.split()) + 1) if line else ([], 0)

    def paragraphs(self, lines: Sequence[str], scores: Sequence[float], text: str) -> list[tuple[float, int]]:
        """(perplexity, tokens) of each line of the text, scored separately, as cc_net's SentencesLM does."""
        found = ccnet_normalization.pieces(self._tokenizer, text.split("\n"))
        counts = [(line, len(line.split()) + 1) for line in found if line]
        return [(perplexity(self.kenlm.score(line), n), n) for line, n in counts]
