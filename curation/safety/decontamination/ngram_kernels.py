"""Kernels of decontamination: hash the n-grams of a text, look them up, count the words of evaluation items covered.

Words are those of curation/words.py. An n-gram's hash is a polynomial over its words' hashes, rolled along:
H' = (H - w_old * B^(n-1)) * B + w_new mod 2^64, mixed before use.

A *unit* is a field of an evaluation item; its words have places in one array, one unit after the other. A document's
n-gram that a unit has covers n of the unit's places. A passage of the document is a series of such n-grams, each at
most `gap` words after the one before; a unit's score is the number of its places that one passage covers. Each place
has a weight, the rarer its word among all units the higher, by which a short passage is judged.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

from curation.kernels import BYTES, OFFSETS, kernel
from curation.word_hashes import hash_words, mix

_BASE = np.uint64(0x9E3779B97F4A7C15)
_ONE = np.uint64(1)

HASHES = nb.types.Array(nb.uint64, 1, "C", readonly=True)
ITEMS = nb.types.Array(nb.int32, 1, "C", readonly=True)
WEIGHTS = nb.types.Array(nb.uint16, 1, "C", readonly=True)
FLAGS = nb.types.Array(nb.boolean, 1, "C", readonly=True)
# ngram_index.Index.arrays()
INDEX = (HASHES, ITEMS, ITEMS, ITEMS, ITEMS, ITEMS, WEIGHTS, ITEMS, ITEMS, ITEMS, FLAGS, ITEMS)

# A passage of two thirds of `least` words or more counts if it covers this share of the unit's weight. On the MMLU
# questions that defaults were chosen on, the first 70 % of the words are found for .925, .918 and .917 of them at 0.5,
# 0.55 and 0.6, without a false alarm among 9,367 texts; for .891 without short passages, and for .933 with all of them
# and five false alarms ("what is the difference between").
RARE = 0.55


@kernel("int64(uint64[::1], int64, int64, uint64[::1])")
def ngrams(word, count, size, out):  # type: ignore[no-untyped-def]
    """Hashes of all runs of `size` words into `out`, none of them 0 (a free slot); returns how many."""
    if count < size:
        return 0
    power = _ONE
    h = np.uint64(0)
    for k in range(size):
        h = h * _BASE + word[k]
        if k:
            power *= _BASE
    out[0] = mix(h) | _ONE
    for k in range(size, count):
        h = (h - word[k - size] * power) * _BASE + word[k]
        out[k - size + 1] = mix(h) | _ONE
    return count - size + 1


@kernel((HASHES, nb.uint64[::1], nb.int32[::1]))
def fill(grams, table, slot_of):  # type: ignore[no-untyped-def]
    """Puts distinct hashes into an empty open-addressing table, its length a power of two; slot -> index of a hash."""
    mask = np.uint64(len(table) - 1)
    for g in range(len(grams)):
        slot = grams[g] & mask
        while table[slot]:
            slot = (slot + _ONE) & mask
        table[slot] = grams[g]
        slot_of[slot] = g


@kernel("int64(Array(uint64, 1, 'C', readonly=True), Array(int32, 1, 'C', readonly=True), uint64)")
def find(table, slot_of, gram):  # type: ignore[no-untyped-def]
    """The index of an n-gram's hash in the table, or -1."""
    mask = np.uint64(len(table) - 1)
    slot = gram & mask
    while table[slot] and table[slot] != gram:
        slot = (slot + _ONE) & mask
    return np.int64(slot_of[slot]) if table[slot] else np.int64(-1)


@kernel("int64(int64)")
def passage_gap(size):  # type: ignore[no-untyped-def]
    """The largest distance in words between the beginnings of two n-grams of a passage: a changed word in each of three
    n-grams in a row does not end it."""
    return 4 * size


@kernel("boolean(int64, int64, int64, int64, int64)")
def is_match(words, weight, least, size, total_weight):  # type: ignore[no-untyped-def]
    """Whether a passage that covers so many words of a unit, of that weight, is more than a phrase."""
    return words >= least or (words >= size and 3 * words >= 2 * least and weight >= RARE * total_weight)


@kernel("boolean(Array(uint8, 1, 'C', readonly=True), int64, int64, int64[:, ::1], int64, int64, int64)")
def is_whole_line(data, lo, hi, bounds, count, k, size):  # type: ignore[no-untyped-def]
    """Whether words k to k + size - 1 of the text data[lo:hi] are all words of their line or lines.

    bounds  of the text's `count` words, as `hash_words` fills it
    """
    before = bounds[k - 1, 1] if k else lo
    after = bounds[k + size, 0] if k + size < count else hi
    begins = k == 0
    for i in range(before, bounds[k, 0]):
        begins = begins or data[i] == 10
    ends = k + size == count
    for i in range(bounds[k + size - 1, 1], after):
        ends = ends or data[i] == 10
    return begins and ends


@kernel(
    (
        *(nb.int64, nb.int64, nb.int64, nb.int64, WEIGHTS, nb.int64[::1], nb.int64[::1], nb.int64[::1], nb.int64[::1]),
        nb.int64[::1],
    )
)
def extend_passage(unit, k, at, size, weights, covered, passage, last, now, heavy):  # type: ignore[no-untyped-def]
    """Adds a document's n-gram to the passage of a unit; returns whether a new passage begins with it.

    k         the document's word at which the n-gram begins
    at        the unit's place at which it begins, and `size` its length in words
    covered   the last passage that covered each place; passage: of each unit, numbered through. The last entry of
              `passage` is the number of passages so far
    last      the word at which the unit's last n-gram began, -1: none
    now, heavy  places covered by its passage, and their weight
    """
    begins = last[unit] < 0 or k - last[unit] > passage_gap(size)
    if begins:
        passage[-1] += 1
        passage[unit] = passage[-1]
        now[unit] = 0
        heavy[unit] = 0
    last[unit] = k
    for p in range(at, at + size):
        if covered[p] != passage[unit]:
            covered[p] = passage[unit]
            now[unit] += weights[p] > 0
            heavy[unit] += weights[p]
    return begins


@kernel((BYTES, OFFSETS, nb.uint32[::1], *INDEX, nb.int64, nb.int64[:, ::1]))
def search(  # type: ignore[no-untyped-def]
    data, offsets, characters, table, slot_of, first, unit_of, place, size_of, weights, totals, total_weights, least,
    line_only, sizes, longest, out,
):  # fmt: skip
    """Looks up every n-gram of every document; fills `out`, one row per document.

    table, slot_of           from `fill`: the distinct n-grams of all units
    first, unit_of, place    n-gram g is in unit_of[e] from place[e], for e in first[g]:first[g + 1]
    size_of                  length of a unit's n-grams in words
    weights                  of each place whose word counts, 0 where only common phrases cover it
    totals, total_weights    places of each unit that count, and their weight
    least                    places of a unit that a passage must cover to be a match whatever it weighs
    line_only                whether a unit's words must be a whole line
    sizes                    the n-gram lengths in use
    longest                  bytes of the longest document
    out                      (n-grams of the document that some unit has; the unit with the largest share of its places
                             covered by one passage, the first of equals, or -1; how many places that passage covers)
    """
    word = np.empty(longest + 1, np.uint64)
    gram = np.empty(longest + 1, np.uint64)
    covered = np.zeros(len(weights), np.int64)  # these five: see extend_passage
    passage = np.zeros(len(totals) + 1, np.int64)
    last = np.full(len(totals), -1, np.int64)
    now = np.zeros(len(totals), np.int64)
    heavy = np.zeros(len(totals), np.int64)
    most = np.zeros(len(totals), np.int64)  # places covered by the best passage of this document
    weighs = np.zeros(len(totals), np.int64)
    touched = np.empty(len(totals), np.int64)
    bounds = np.empty((longest + 1 if line_only.any() else 0, 2), np.int64)
    for d in range(len(offsets) - 1):
        count = hash_words(data, offsets[d], offsets[d + 1], characters, word, None)
        bounded = False  # places of words are looked up in the few documents with the words of a unit that needs them
        overlap = 0
        units = 0
        for s in range(len(sizes)):
            for k in range(ngrams(word, count, np.int64(sizes[s]), gram)):
                g = find(table, slot_of, gram[k])
                if g < 0:
                    continue
                overlap += 1
                for e in range(first[g], first[g + 1]):
                    unit = unit_of[e]
                    if line_only[unit]:
                        if not bounded:
                            hash_words(data, offsets[d], offsets[d + 1], characters, word, bounds)
                            bounded = True
                        if not is_whole_line(data, offsets[d], offsets[d + 1], bounds, count, k, size_of[unit]):
                            continue
                    if last[unit] < 0:
                        touched[units] = unit
                        units += 1
                        most[unit] = 0
                    extend_passage(unit, k, place[e], size_of[unit], weights, covered, passage, last, now, heavy)
                    if now[unit] > most[unit]:
                        most[unit] = now[unit]
                        weighs[unit] = heavy[unit]
        best: Any = -1
        for t in range(units):
            unit = np.int64(touched[t])
            last[unit] = -1
            if not is_match(most[unit], weighs[unit], least[unit], size_of[unit], total_weights[unit]):
                continue
            if best < 0:
                best = unit
            else:
                ours = most[unit] * totals[best]
                theirs = most[best] * totals[unit]
                if ours > theirs or (ours == theirs and unit < best):
                    best = unit
        out[d, 0] = overlap
        out[d, 1] = best
        out[d, 2] = most[best] if best >= 0 else 0


@kernel((BYTES, OFFSETS, nb.uint32[::1], HASHES, ITEMS, ITEMS, nb.int64, nb.int64[::1]))
def count_documents(data, offsets, characters, table, slot_of, sizes, longest, counts):  # type: ignore[no-untyped-def]
    """Adds to `counts[g]` the number of documents that have n-gram g. The arrays as in `search`."""
    word = np.empty(longest + 1, np.uint64)
    gram = np.empty(longest + 1, np.uint64)
    seen = np.full(len(counts), -1, np.int64)
    for d in range(len(offsets) - 1):
        count = hash_words(data, offsets[d], offsets[d + 1], characters, word, None)
        for s in range(len(sizes)):
            for k in range(ngrams(word, count, np.int64(sizes[s]), gram)):
                g = find(table, slot_of, gram[k])
                if g >= 0 and seen[g] != d:
                    seen[g] = d
                    counts[g] += 1


@kernel((BYTES, nb.uint32[::1], *INDEX, nb.float64, nb.boolean[::1], nb.int64[:, ::1]))
def mark_passages(  # type: ignore[no-untyped-def]
    data, characters, table, slot_of, first, unit_of, place, size_of, weights, totals, total_weights, least,
    line_only, sizes, share, marked, bounds,
):  # fmt: skip
    """Marks the words of one text that belong to a passage covering `share` of a unit; returns how many words it has.

    A passage's words are all those from its first n-gram to its last. The arrays as in `search`; `marked` must be
    zeros, `bounds` is filled as by `hash_words`."""
    word = np.empty(len(data) + 1, np.uint64)
    gram = np.empty(len(data) + 1, np.uint64)
    covered = np.zeros(len(weights), np.int64)
    passage = np.zeros(len(totals) + 1, np.int64)
    begin = np.zeros(len(totals), np.int64)
    last = np.full(len(totals), -1, np.int64)
    now = np.zeros(len(totals), np.int64)
    heavy = np.zeros(len(totals), np.int64)
    count = hash_words(data, 0, len(data), characters, word, bounds)
    for s in range(len(sizes)):
        for k in range(ngrams(word, count, np.int64(sizes[s]), gram)):
            g = find(table, slot_of, gram[k])
            if g < 0:
                continue
            for e in range(first[g], first[g + 1]):
                unit = unit_of[e]
                n = np.int64(size_of[unit])
                if line_only[unit] and not is_whole_line(data, 0, len(data), bounds, count, k, n):
                    continue
                if extend_passage(unit, k, place[e], n, weights, covered, passage, last, now, heavy):
                    begin[unit] = k
                found = is_match(now[unit], heavy[unit], least[unit], n, total_weights[unit])
                if found and now[unit] >= share * totals[unit]:
                    marked[begin[unit] : k + n] = True
                    begin[unit] = k + 1  # the words before are marked
    return count
