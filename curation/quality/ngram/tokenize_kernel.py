"""Kernels that split text into the sentences and words of an n-gram model: UTF-8 in and out, one table look-up per
character.

A table entry is one 64-bit number: the class of the character in the top byte, the length of its normalized form in the
next, the form itself (at most six bytes of UTF-8) below. The kernel reads Arrow's text buffer once per batch and writes
the normalized sentences one after the other, words separated by one space and sentences by a newline. The tests compare
it with plain Python, character by character.
"""

from __future__ import annotations

import functools
import unicodedata
from typing import Any

import numba as nb
import numpy as np

from curation.kernels import BYTES, OFFSETS, kernel
from curation.words import is_unspaced

# Classes: part of a word; removed; white space; end of a sentence; punctuation, of which a run of the same is one word;
# a letter of a script without spaces, a word by itself; a combining mark, part of whatever word is before it
WORD, REMOVED, SPACE, LINE, MARK, LETTER, COMBINING = range(7)
_CLASS, _LENGTH = 56, 48  # bits at which the class and the length begin
_LETTER = np.uint64(WORD << 8 | 1)  # the upper bytes of an entry that is part of a word and one byte long
_PLANES = 0x40000  # code points below have an entry each,
_TAGS = range(0xE0000, 0xE0200)  # then these; all others are unassigned or private, and count as white space
_UNASSIGNED = _PLANES + len(_TAGS)


def normalize_character(character: str) -> tuple[int, str]:
    """The class of a character in form `words`, and its normalized form."""
    if character == "\n":
        return LINE, ""
    if character == "\0":
        return REMOVED, ""
    lower = character.lower()
    category = unicodedata.category(lower[0])
    if category[0] == "M":
        return COMBINING, lower
    if category[0] == "L":
        return LETTER if is_unspaced(ord(character)) else WORD, lower
    if category[0] == "N":
        return WORD, "0" if category == "Nd" else lower
    if category[0] in "PS":
        return MARK, lower
    if category == "Cf":  # joiners, soft hyphens, byte order marks
        return REMOVED, ""
    return SPACE, ""  # separators, control characters, unassigned


@functools.cache
def character_table() -> np.ndarray[Any, np.dtype[np.uint64]]:
    """The table entries of all characters, uint64[0x40201]; built once per process, in about 0.2 s."""
    out = np.full(_UNASSIGNED + 1, SPACE << _CLASS, np.uint64)
    for block, first in ((range(_PLANES), 0), (_TAGS, _PLANES)):
        for point in block:
            if not 0xD800 <= point <= 0xDFFF:
                kind, written = normalize_character(chr(point))
                data = written.encode()
                assert len(data) <= 6, f"the normalized form of U+{point:04X} does not fit into its entry"
                packed = kind << _CLASS | len(data) << _LENGTH | int.from_bytes(data, "little")
                out[first + point - block.start] = packed
    return out


@kernel((BYTES, OFFSETS, nb.uint64[::1], nb.uint8[::1], nb.int64[::1], nb.int64[::1]))
def tokenize_words(data, offsets, character_table, out, ends, tokens):  # type: ignore[no-untyped-def]
    """Form `words`: normalizes the texts data[offsets[i]:offsets[i + 1]] (valid UTF-8) into `out`, of twice their bytes
    + 1 (a mark gets a space before it, and two bytes of a capital can have three of a small letter: never more).

    ends[i]: end of text i in `out` (its last sentence has no newline); tokens[i]: number of its words and sentences.
    """
    at = 0
    for row in range(offsets.shape[0] - 1):
        begin = at
        count = 0
        words = 0  # of this sentence
        start = -1  # of the word that is being written
        alone = False  # that word is a letter of a script without spaces, with marks at most
        before = np.uint64(0)  # the mark that was the last word, 0 for any other
        i = offsets[row]
        stop = offsets[row + 1]
        while i < stop:
            c = np.int64(data[i])
            if c < 0x80:
                i += 1
            elif c < 0xE0:
                c = ((c & 0x1F) << 6) | (np.int64(data[i + 1]) & 0x3F)
                i += 2
            elif c < 0xF0:
                c = ((c & 0x0F) << 12) | ((np.int64(data[i + 1]) & 0x3F) << 6) | (np.int64(data[i + 2]) & 0x3F)
                i += 3
            else:
                c = (
                    ((c & 0x07) << 18)
                    | ((np.int64(data[i + 1]) & 0x3F) << 12)
                    | ((np.int64(data[i + 2]) & 0x3F) << 6)
                    | (np.int64(data[i + 3]) & 0x3F)
                )
                i += 4
                if c >= _PLANES:
                    c = np.int64(_PLANES + c - 0xE0000 if 0xE0000 <= c < 0xE0200 else _UNASSIGNED)
            entry = character_table[c]
            kind = entry >> np.uint64(_CLASS)
            if kind == WORD or kind >= MARK:
                if kind == MARK:
                    start = -1
                    if entry == before:
                        continue
                if kind == LETTER or (alone and kind == WORD):
                    start = -1
                alone = kind == LETTER or (alone and kind == COMBINING)
                if start < 0:  # a word begins
                    if words:
                        out[at] = 32
                        at += 1
                    elif at > begin:
                        out[at] = 10
                        at += 1
                    words += 1
                    before = np.uint64(0)
                    if kind == MARK:
                        before = entry
                    else:
                        start = at
                length = (entry >> np.uint64(_LENGTH)) & np.uint64(0xFF)
                out[at] = entry & np.uint64(0xFF)
                at += 1
                while length > 1:
                    entry >>= np.uint64(8)
                    out[at] = entry & np.uint64(0xFF)
                    at += 1
                    length -= np.uint64(1)
                if kind == WORD:  # most of any text: the rest of a word in ASCII
                    while i < stop and data[i] < 0x80:
                        entry = character_table[data[i]]
                        if entry >> np.uint64(_LENGTH) != _LETTER:
                            break
                        out[at] = entry & np.uint64(0xFF)
                        at += 1
                        i += 1
                    if i < stop and data[i] == 32:  # and the space after it
                        start = -1
                        i += 1
            elif kind == SPACE:
                start = -1
                alone = False
            elif kind == LINE:
                if words:
                    count += words + 1
                    words = 0
                start = -1
                alone = False
                before = np.uint64(0)
        if words:
            count += words + 1
        ends[row] = at
        tokens[row] = count
    return at


@kernel((BYTES, OFFSETS, nb.uint8[::1], nb.int64[::1], nb.int64[::1]))
def tokenize_spaces(data, offsets, out, ends, tokens):  # type: ignore[no-untyped-def]
    """Form `spaces`: ASCII white space and NUL separate words, and so do <s>, </s> and <unk>. Arguments as above."""
    at = 0
    for row in range(offsets.shape[0] - 1):
        begin = at
        count = 0
        words = 0
        start = -1
        i = offsets[row]
        stop = offsets[row + 1]
        while i <= stop:
            c = data[i] if i < stop else 10  # the end of the text ends its line
            if c == 32 or 9 <= c <= 13 or c == 0:
                if start >= 0:
                    size = at - start
                    special = 3 <= size <= 5 and out[start] == 60 and out[at - 1] == 62  # < and >
                    if special:
                        if size == 3:  # <s>
                            special = out[start + 1] == 115
                        elif size == 4:  # </s>
                            special = out[start + 1] == 47 and out[start + 2] == 115
                        else:  # <unk>
                            special = out[start + 1] == 117 and out[start + 2] == 110 and out[start + 3] == 107
                    if special:
                        at = start - 1 if start > begin else start  # with the space or newline before it
                    else:
                        words += 1
                    start = -1
                if c == 10 and words:
                    count += words + 1
                    words = 0
            else:
                if start < 0:
                    if at > begin:
                        out[at] = 32 if words else 10
                        at += 1
                    start = at
                out[at] = c
                at += 1
            i += 1
        ends[row] = at
        tokens[row] = count
    return at
