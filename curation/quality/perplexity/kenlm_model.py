"""A reference language model, opened: KenLM's file, and the way text has to be cut for it.

A KenLM binary is mapped into memory and shared by all processes of a machine. An ARPA file is text: every process would
parse it and hold its own copy, so it is first turned into a binary that is kept beside the pulled models
(`kenlm_binary`); the figures are the same, bit by bit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from curation import models
from curation.core.errors import UserError
from curation.quality.ngram import tokenize_text
from curation.quality.perplexity import ccnet_normalization, kenlm_binary

_ENDING = re.compile(r"(\.arpa)?(\.bin|\.binary|\.klm|\.mmap|\.gz)?$")


def load(name_or_path: str) -> Any:
    """A KenLM model, opened. Raises UserError for a file that is none."""
    import kenlm

    path = models.resolve(name_or_path)
    config = kenlm.Config()
    config.show_progress = False
    config.arpa_complain = kenlm.ARPALoadComplain.NONE  # its advice to convert to binary, on stderr
    try:
        return kenlm.Model(kenlm_binary.mapped(path), config)
    except (OSError, RuntimeError) as e:
        raise UserError(f"model {name_or_path}: {path} is neither an ARPA file nor a KenLM binary ({e})") from e


def perplexity(log10_probability: float, tokens: int) -> float:
    """10^(-log10 p / tokens)."""
    return float(10.0 ** min(-log10_probability / tokens, 300.0))  # an odd model's -99s must not overflow a float


def tokenizer_beside(name: str) -> str:
    """Where the SentencePiece model of a KenLM model is by cc_net's naming: `en.arpa.bin` has `en.sp.model`."""
    return _ENDING.sub("", name, count=1) + ".sp.model"


class WordModel:
    """A model over words, cut as `ngram_text` says; a line is a sentence and a paragraph."""

    def __init__(self, name: str, form: tokenize_text.Form) -> None:
        self.kenlm, self._form = load(name), form

    def cut(self, texts: pa.Array) -> Iterator[tuple[list[bytes], int]]:
        """For each text the sentences to score, and its tokens."""
        return tokenize_text.cut(texts, self._form)

    def paragraphs(self, lines: Sequence[bytes], scores: Sequence[float], text: str) -> list[tuple[float, int]]:
        """(perplexity, tokens) of each line, from the scores that its document's sentences had."""
        counts = [line.count(b" ") + 2 for line in lines]
        return [(perplexity(score, n), n) for score, n in zip(scores, counts, strict=True)]


class CcnetModel:
    """A model over SentencePiece's pieces of text normalised by cc_net; a document is one sentence."""

    def __init__(self, name: str, tokenizer: str) -> None:
        self.kenlm = load(name)
        path = models.resolve(tokenizer)
        try:
            self._tokenizer = ccnet_normalization.load_tokenizer(path)
        except (OSError, RuntimeError) as e:
            raise UserError(f"model {tokenizer}: {path} is no SentencePiece model ({e})") from e

    def cut(self, texts: pa.Array) -> Iterator[tuple[list[str], int]]:
        """For each text its pieces in one line, none if there are none, and how many they are with the line's end."""
        for line in ccnet_normalization.pieces(self._tokenizer, [text or "" for text in texts.to_pylist()]):
            yield ([line], len(line.split()) + 1) if line else ([], 0)

    def paragraphs(self, lines: Sequence[str], scores: Sequence[float], text: str) -> list[tuple[float, int]]:
        """(perplexity, tokens) of each line of the text, scored by itself, as cc_net's SentencesLM does."""
        found = ccnet_normalization.pieces(self._tokenizer, text.split("\n"))
        counts = [(line, len(line.split()) + 1) for line in found if line]
        return [(perplexity(self.kenlm.score(line), n), n) for line, n in counts]
