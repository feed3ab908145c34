"""Splits text into the sentences and words of an n-gram model, the same way for training and for scoring.

A perplexity is meaningful only if the text is split as the model's training text was. Two forms: `words` lowers case
(each character by itself), writes every digit as 0, makes each punctuation mark or symbol a token of its own (a run of
the same one counts once, so that a ruler of eighty dashes is not eighty well-predicted words), and keeps letters, marks
and digits together; a letter of a script without spaces is a token by itself (curation/words.py), since a run of them
between two marks of punctuation hardly ever comes twice. `spaces` leaves the text unchanged and splits at white space,
as KenLM's lmplz does: for models trained elsewhere. In both, a line of the text is a sentence, and lines without a word
are ignored. (A third form, cc_net's, is in perplexity/ccnet_normalization.py.)

The model's own symbols <unk>, <s> and </s> count as white space, as with lmplz --skip_symbols.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Literal

import pyarrow as pa

from curation import document

Form = Literal["words", "spaces"]

RESERVED = frozenset((b"<unk>", b"<s>", b"</s>"))
_BATCH = 1024  # texts split at once,
_BYTES = 1 << 20  # or bytes of text


def tokenize(texts: pa.Array, form: Form = "words") -> Iterator[tuple[list[bytes], int]]:
    """For each text its sentences (UTF-8, tokens joined by one space, none empty) and its tokens: words and sentences.

    texts: string or large_string, NFC as the document schema has it; a null counts as an empty text.
    """
    import numpy as np

    from curation.quality.ngram import tokenize_kernel

    letters, where = document.string_buffers(texts)
    rows = len(texts)
    if not rows:
        return
    out = np.empty(2 * int(where[-1] - where[0]) + 1, np.uint8)
    ends, tokens = np.empty(rows, np.int64), np.empty(rows, np.int64)
    if form == "words":
        size = tokenize_kernel.tokenize_words(letters, where, tokenize_kernel.character_table(), out, ends, tokens)
    else:
        size = tokenize_kernel.tokenize_spaces(letters, where, out, ends, tokens)
    written, begin = out[:size].data, 0
    for end, count in zip(ends.tolist(), tokens.tolist(), strict=True):
        yield (bytes(written[begin:end]).split(b"\n") if count else []), count
        begin = end


def normalise(text: str, form: Form = "words") -> list[str]:
    """The sentences of a text: tokens joined by one space, a sentence a line, none empty.

    >>> normalise("Hello, World 42!\\n\\n-----")
    ['hello , world 00 !', '-']
    """
    (cut_text,) = tokenize(pa.array([document.clean_text(text)], pa.large_string()), form)
    return [line.decode() for line in cut_text[0]]


def sentences(texts: Iterable[str], form: Form = "words") -> Iterator[bytes]:
    """The sentences of many texts one after the other, as `normalise` splits them, in UTF-8."""
    cleaned = (document.clean_text(text) for text in texts)
    for batch in batches(cleaned):
        for lines, _ in tokenize(pa.array(batch, pa.large_string()), form):
            yield from lines


def facts_path(model: str) -> str:
    """The file beside a model that says how its text was split, and what is in it."""
    return f"{model}.json"


def stored_form(model: str) -> str | None:
    """The form of the text that a model was trained on; None for a model made elsewhere."""
    try:
        with open(facts_path(model), encoding="utf-8") as f:
            return str(json.load(f)["form"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Groups of up to `_BATCH` texts, fewer where they are long: the kernels' output takes twice their bytes."""
    iterator = iter(texts)
    while first := list(islice(iterator, 1)):
        size = len(first[0])
        for text in islice(iterator, _BATCH - 1):
            first.append(text)
            size += len(text)
            if size >= _BYTES:
                break
        yield first
