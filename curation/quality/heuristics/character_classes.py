"""Classifies characters for the heuristics, and decodes UTF-8 to code points with their classes.

A class is a set of flags, one uint16 per code point: letter, digit, white space, line break, punctuation that comes off
a word, and so on. They follow Unicode's general categories, with the few exceptions that tokenizing needs.
"""

from __future__ import annotations

import unicodedata
from typing import Any

import numba as nb
import numpy as np

from curation.kernels import BYTES, kernel
from curation.words import UNSPACED_SCRIPTS

SPACE, BREAK = 1, 2  # white space; characters at which str.splitlines ends a line
ALPHA, DIGIT, LOWER, UPPER = 4, 8, 16, 32  # any letter; 0-9; cased letters
WORD = 64  # letters, marks and numbers: a word with one of them counts
UNSPACED = 128  # letters of scripts without spaces
PEEL, PREFIX = 256, 512  # split off at both ends of a chunk; at its start only
ICON = 1024  # symbols that are words of their own anywhere
TERMINAL = 2048  # ends a sentence
PUNCTUATION = 4096
CURRENCY = 8192
QUOTE = 16384
ANCHOR = 32768  # j, k, m and v: each of C4's phrases has one of them, but only one letter in 24 of English text is one

_CODE_POINTS = 0x110000
_BREAKS = "\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029"
_QUOTES = "'\"”“`‘´’‚„»«「」『』"


def character_classes() -> np.ndarray[Any, np.dtype[np.uint16]]:
    """The flags of every code point: uint16[0x110000]. Takes about 0.1 s, so it is built once per process.

    Planes 4 to 13 and the private planes have no assigned characters that matter and get no flags.
    """
    import regex

    table = np.zeros(_CODE_POINTS, np.uint16)
    by_category = {
        "Lu": ALPHA | WORD | UPPER,
        "Ll": ALPHA | WORD | LOWER,
        "Lt": ALPHA | WORD | UPPER,
        "Lm": ALPHA | WORD,
        "Lo": ALPHA | WORD,
        **dict.fromkeys(("Mn", "Mc", "Me", "Nd", "Nl", "No"), WORD),
        **dict.fromkeys(("Ps", "Pe", "Pi", "Pf", "Po"), PUNCTUATION | PEEL),
        **dict.fromkeys(("Pd", "Pc"), PUNCTUATION),
        "So": ICON | PEEL,
        "Sc": PREFIX | CURRENCY,
    }
    for block in (range(0x40000), range(0xE0000, 0xE0200)):
        table[block.start : block.stop] = [by_category.get(unicodedata.category(chr(c)), 0) for c in block]
    everything = "".join(map(chr, (*range(0xD800), *range(0xE000, 0x20000))))
    for c in map(ord, regex.findall(r"\p{Sentence_Terminal}", everything)):
        table[c] |= TERMINAL
    for c in map(ord, "。．｡！？"):  # full-width; the first two are not in every version of the property
        table[c] |= TERMINAL
    for c in map(ord, "/\\@.%§"):
        table[c] &= ~np.uint16(PEEL)
    for c in map(ord, "–—_<>`´"):
        table[c] |= PEEL
    for c in map(ord, "%=+§"):
        table[c] |= PREFIX
    for c in map(ord, _QUOTES):
        table[c] |= QUOTE
    for c in range(ord("0"), ord("9") + 1):
        table[c] |= DIGIT
    for c in map(ord, "jkmvJKMV"):
        table[c] |= ANCHOR
    for c in (c for c in range(0x3001) if chr(c).isspace()):
        table[c] = SPACE
    for c in map(ord, _BREAKS):
        table[c] |= BREAK | SPACE
    for first, last, _ in UNSPACED_SCRIPTS:
        span = table[first : last + 1]
        span[(span & ALPHA) != 0] |= UNSPACED
    return table


@kernel((BYTES, nb.int64, nb.int64, nb.uint16[::1], nb.int32[::1], nb.uint16[::1]))
def decode(data, lo, hi, table, code, flags):  # type: ignore[no-untyped-def]
    """Decodes UTF-8 bytes [lo, hi) to code points and their flags; returns how many. Arrow has validated the bytes."""
    n = 0
    i = lo
    while i < hi:
        c = np.int32(data[i])
        if c < 0x80:
            i += 1
        elif c < 0xE0:
            c = ((c & 0x1F) << 6) | (np.int32(data[i + 1]) & 0x3F)
            i += 2
        elif c < 0xF0:
            c = ((c & 0x0F) << 12) | ((np.int32(data[i + 1]) & 0x3F) << 6) | (np.int32(data[i + 2]) & 0x3F)
            i += 3
        else:
            c = ((c & 0x07) << 18) | ((np.int32(data[i + 1]) & 0x3F) << 12)
            c |= ((np.int32(data[i + 2]) & 0x3F) << 6) | (np.int32(data[i + 3]) & 0x3F)
            i += 4
        code[n] = c
        flags[n] = table[c]
        n += 1
    return n


@kernel("UniTuple(int64, 2)(uint16[::1], int64, int64)")
def strip_range(flags, lo, hi):  # type: ignore[no-untyped-def]
    """[lo, hi) without surrounding white space; an empty range if there is nothing else."""
    while lo < hi and flags[lo] & SPACE:
        lo += 1
    while hi > lo and flags[hi - 1] & SPACE:
        hi -= 1
    return lo, hi
