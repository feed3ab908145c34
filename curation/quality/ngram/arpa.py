"""Writes ARPA files with a compiled kernel, because they are hundreds of megabytes of text.

Base-10 logarithms have seven decimals without trailing zeros: KenLM reads them as float32, which is no more precise.
Rows are in suffix order, words in the order of their bytes, so equal models are equal files.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from curation.kernels import kernel
from curation.quality.ngram.disk_arrays import Array

_DECIMALS = 7


class ArpaWriter:
    """Renders rows of n-grams over one vocabulary."""

    def __init__(self, words: list[bytes]) -> None:
        self._bytes = np.frombuffer(b"".join(words), np.uint8)
        self._ends = np.cumsum(np.array([len(w) for w in words], np.int64))

    def render(self, ngrams: Array, probability: Array, backoff: Array) -> memoryview:
        """Lines "log10 p <tab> words [<tab> log10 b]".

        ngrams: (n, order) uint32, n >= 0; both others: (n,) float64, logarithms of at most 0; `backoff` of the last
        order is empty.
        """
        ends = np.concatenate([np.zeros(1, np.int64), self._ends])
        letters = int((ends[1:] - ends[:-1])[ngrams].sum())
        out = np.empty(letters + len(ngrams) * (ngrams.shape[1] + 2 + 2 * 24), np.uint8)
        size = _render_rows(ngrams, probability, backoff, self._bytes, ends, out)
        return out[:size].data


@kernel()
def _render_number(value: float, out: Any, at: int) -> int:
    scaled = np.int64(np.rint(-value * 10.0**_DECIMALS))
    if scaled == 0:
        out[at] = 48
        return at + 1
    out[at] = 45
    at += 1
    whole, rest = scaled // 10**_DECIMALS, scaled % 10**_DECIMALS
    power = 1
    while power * 10 <= whole:
        power *= 10
    while power > 0:
        out[at] = 48 + (whole // power) % 10
        at += 1
        power //= 10
    if rest == 0:
        return at
    out[at] = 46
    at += 1
    power = 10 ** (_DECIMALS - 1)
    while rest > 0:
        out[at] = 48 + rest // power
        at += 1
        rest %= power
        power //= 10
    return at


@kernel()
def _render_rows(ngrams: Any, probability: Any, backoff: Any, letters: Any, ends: Any, out: Any) -> int:
    at = 0
    for row in range(ngrams.shape[0]):
        at = _render_number(probability[row], out, at)
        out[at] = 9
        at += 1
        for j in range(ngrams.shape[1]):
            if j > 0:
                out[at] = 32
                at += 1
            for i in range(ends[ngrams[row, j]], ends[ngrams[row, j] + 1]):
                out[at] = letters[i]
                at += 1
        if backoff.shape[0] > 0:
            out[at] = 9
            at += 1
            at = _render_number(backoff[row], out, at)
        out[at] = 10
        at += 1
    return at
