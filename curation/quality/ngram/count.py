"""Counts the n-grams of a text, out of core: every n-gram of the highest order once, in suffix order, with its count.

Words are numbered by first appearance while the text is read and the numbers spooled to disk; when the vocabulary is
known it is sorted, so that the numbers (and with them the model file) do not depend on the order of the text. Then the
spool is read again in blocks: an n-gram is packed, last word first, into as few 64-bit keys as its words' bits need,
the block is sorted and counted, and written as a run; the runs are merged. "Suffix order" (by last word, then the one
before it, ...) makes the rest simple: n-grams that share a suffix are adjacent at every order.

Sentences are as in lmplz: <s> precedes the first word as often as the order needs, </s> follows the last, and words
spelled like <s>, </s> or <unk> are white space. Two differences: vertical tabs and form feeds separate words here, as
they do when kenlm's Python package scores a text, and a last line without a newline counts like any other.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TypeVar

import numpy as np

from curation.quality.ngram.disk_arrays import Array, Column
from curation.quality.ngram.tokenize_text import RESERVED

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

UNK, BOS, EOS = 0, 1, 2  # numbers of <unk>, <s> and </s>, in any vocabulary


@dataclass(frozen=True)
class NumberedText:
    """A text as word numbers: `tokens` holds provisional numbers, `final` maps them to positions in `words`."""

    tokens: Column
    final: Array  # uint32
    words: list[bytes]  # <unk>, <s>, </s>, then all others sorted by their bytes
    sentences: int


class _WordNumbers(dict[bytes, int]):
    """word -> number in order of first appearance; reserved spellings are 0, so that they can be left out."""

    def __missing__(self, word: bytes) -> int:
        number = self[word] = len(self)
        return number


_CHUNK = 1 << 20  # bytes of text that are numbered at once


def read_text(lines: Iterable[bytes], path: str, workers: int = 1) -> NumberedText:
    """Numbers the words of `lines` (one sentence each), spooling to `path`, 4 bytes per word. `workers` processes split
    chunks into words; this one looks up each different word of a chunk once."""
    numbers = _WordNumbers(dict.fromkeys(sorted(RESERVED), 0))
    tokens = Column(path, np.uint32)
    sentences = 0
    for words, local, some in _parallel_map(_number_words, _chunks(lines), workers, _processes):
        places = np.array([0, 1, EOS, *map(numbers.__getitem__, words)], np.uint32)
        tokens.append(places[local])
        sentences += some
    spelled = list(numbers)[len(RESERVED) :]
    order = sorted(range(len(spelled)), key=spelled.__getitem__)
    final = np.arange(len(numbers), dtype=np.uint32)
    final[3 + np.array(order, np.int64)] = np.arange(3, len(numbers), dtype=np.uint32)
    return NumberedText(tokens, final, [b"<unk>", b"<s>", b"</s>", *(spelled[i] for i in order)], sentences)


def _processes(workers: int) -> Executor:
    # spawned on every platform: a fork of a process with threads (Arrow's, numba's) may hang
    return ProcessPoolExecutor(workers, get_context("spawn"))


def _chunks(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    chunk: list[bytes] = []
    size = 0
    for line in lines:
        chunk.append(line)
        size += len(line) + 1
        if size >= _CHUNK:
            yield chunk
            chunk, size = [], 0
    yield chunk


def _number_words(lines: list[bytes]) -> tuple[list[bytes], Array, int]:
    """The words of lines in order of appearance; the lines as numbers (from 3 on into them, 2 ends a line); and how
    many lines they are."""
    numbers = _WordNumbers(dict.fromkeys(sorted(RESERVED), 0))
    number = numbers.__getitem__
    block: list[int] = []
    for line in lines:
        block.extend(map(number, line.replace(b"\0", b" ").split()))
        block.append(EOS)
    array = np.array(block, np.uint32)
    return list(numbers)[len(RESERVED) :], array[array != 0], len(lines)


def _parallel_map(
    work: Callable[[_Item], _Result], items: Iterable[_Item], workers: int, pool: Callable[[int], Executor]
) -> Iterator[_Result]:
    """work(item) of every item, in order, with at most `workers` + 1 of them submitted at a time."""
    if workers == 1:
        yield from map(work, items)
        return
    with pool(workers) as executor:
        running: deque[Future[_Result]] = deque()
        for item in items:
            running.append(executor.submit(work, item))
            if len(running) > workers:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


@dataclass(frozen=True)
class Packing:
    """How n-grams become keys: `per` words of `bits` bits in each of `keys` uint64, the last word most significant."""

    order: int
    bits: int

    @property
    def per(self) -> int:
        return 64 // self.bits

    @property
    def keys(self) -> int:
        return -(-self.order // self.per)

    def pack(self, back: list[Array]) -> list[Array]:
        """back[j]: the words j places before the last. Returns the keys, most significant first."""
        keys = []
        for at in range(0, self.order, self.per):
            key = np.zeros(len(back[0]), np.uint64)
            for word in back[at : at + self.per]:
                key = (key << np.uint64(self.bits)) | word.astype(np.uint64)
            keys.append(key)
        return keys

    def unpack(self, keys: list[Array]) -> list[Array]:
        """The inverse of `pack`, as uint32."""
        back = []
        mask = np.uint64((1 << self.bits) - 1)
        for at, key in zip(range(0, self.order, self.per), keys, strict=True):
            here = min(self.per, self.order - at)
            back += [((key >> np.uint64(self.bits * (here - 1 - i))) & mask).astype(np.uint32) for i in range(here)]
        return back


_MERGE_WIDTH = 64  # runs merged at once

Counted = tuple[list[Array], Array]  # keys, and the count (int64) of each


def count(text: NumberedText, packing: Packing, folder: str, block: int, workers: int = 1) -> Iterator[Counted]:
    """Blocks of distinct n-grams with counts, sorted over all blocks; at most `block` are sorted in memory at once, by
    `workers` threads together (numpy sorts without Python's lock)."""
    rows = text.tokens.rows
    block = max(block // workers, 1024)

    def sort(tokens: tuple[int, int, Array]) -> Counted:
        keys = packing.pack(_ngram_words(text, *tokens, packing.order))
        return _sort_and_count(keys, np.ones(len(keys[0]), np.int64))

    def pieces() -> Iterator[tuple[int, int, Array]]:
        for at in range(0, max(rows, 1), block):
            stop, before = min(at + block, rows), min(packing.order - 1, at)
            yield at, stop, text.tokens.read(at - before, stop)

    runs: list[_Run] = []
    for number, counted in enumerate(_parallel_map(sort, pieces(), workers, ThreadPoolExecutor)):
        if rows <= block:  # everything fits into memory
            yield counted
            return
        runs.append(_Run(os.path.join(folder, f"run-{number}"), packing.keys, 0))
        runs[-1].columns.append(_to_rows(counted))
        while len(runs) >= _MERGE_WIDTH and runs[-_MERGE_WIDTH].level == runs[-1].level:
            # merge as many runs of one level as may be open at a time into one of the next level
            several, runs = runs[-_MERGE_WIDTH:], runs[:-_MERGE_WIDTH]
            level = several[0].level + 1
            merged = _Run(os.path.join(folder, f"run-{number}-{level}"), packing.keys, level)
            for part in _merge_runs(several, block):
                merged.columns.append(_to_rows(part))
            runs.append(merged)
    yield from _merge_runs(runs, block)


def _ngram_words(text: NumberedText, start: int, stop: int, read: Array, order: int) -> list[Array]:
    """For tokens [start, stop): the words 0, 1, ... order - 1 places back; <s> where the sentence began later. `read`:
    those tokens and, as far as there are any, the order - 1 before them."""
    before = min(order - 1, start)
    tokens = text.final[read]
    tokens = np.concatenate([np.full(order - 1 - before, EOS, np.uint32), tokens])
    n = stop - start
    back = [tokens[order - 1 :]]
    outside = np.zeros(n, bool)
    for j in range(1, order):
        word = tokens[order - 1 - j : order - 1 - j + n]
        outside |= word == EOS
        back.append(np.where(outside, np.uint32(BOS), word))
    return back


def _sort_and_count(keys: list[Array], counts: Array) -> Counted:
    """Sorts n-grams and adds the counts of equal ones."""
    order = np.lexsort(keys[::-1]) if len(keys) > 1 else np.argsort(keys[0], kind="stable")
    keys, counts = [key[order] for key in keys], counts[order]
    if not len(counts):
        return keys, counts
    new = np.zeros(len(counts), bool)
    new[0] = True
    for key in keys:
        new[1:] |= key[1:] != key[:-1]
    starts = np.flatnonzero(new)
    return [key[starts] for key in keys], np.add.reduceat(counts, starts)


def _to_rows(counted: Counted) -> Array:
    keys, counts = counted
    return np.stack([*keys, counts.view(np.uint64)], axis=1)


class _Run:
    """A sorted run on disk, and the part of it that is in memory."""

    def __init__(self, path: str, keys: int, level: int) -> None:
        self.level = level  # how often its rows were merged
        self.columns = Column(path, np.uint64, keys + 1)
        self.at = 0
        self.rows: Array = np.empty((0, keys + 1), np.uint64)

    def fill(self, size: int) -> None:
        if not len(self.rows) and self.at < self.columns.rows:
            self.rows = self.columns.read(self.at, self.at + size)
            self.at += len(self.rows)

    @property
    def more(self) -> bool:
        """Whether there are rows after those in memory."""
        return self.at < self.columns.rows

    def take(self, bound: Array | None) -> Array:
        """The rows in memory up to and including `bound`; all for None."""
        stop = len(self.rows) if bound is None else _rows_up_to(self.rows, bound)
        taken, self.rows = self.rows[:stop], self.rows[stop:]
        return taken


def _rows_up_to(rows: Array, bound: Array) -> int:
    """How many (sorted) rows have keys up to `bound`, compared column by column."""
    low, high = 0, len(rows)
    for column in range(rows.shape[1] - 1):
        part = rows[low:high, column]
        low, high = (
            low + int(np.searchsorted(part, bound[column])),
            low + int(np.searchsorted(part, bound[column], "right")),
        )
    return high


def _merge_runs(runs: list[_Run], block: int) -> Iterator[Counted]:
    """Merges runs block by block, and deletes them: rows up to the smallest last row in memory are complete."""
    size = max(block // len(runs), 1024)
    while True:
        for run in runs:
            run.fill(size)
        last = [tuple(run.rows[-1, :-1].tolist()) for run in runs if run.more]
        bound = np.array(min(last), np.uint64) if last else None
        taken = np.concatenate([run.take(bound) for run in runs])
        if not len(taken):
            break
        yield _sort_and_count(
            [np.ascontiguousarray(taken[:, k]) for k in range(taken.shape[1] - 1)], taken[:, -1].view(np.int64)
        )
    for run in runs:
        run.columns.drop()
