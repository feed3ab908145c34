"""Kernels that split a text into lines and hash them, and the line statistics of FineWeb's rules."""

from __future__ import annotations

from curation.kernels import kernel
from curation.quality.heuristics.character_classes import BREAK, SPACE, TERMINAL
from curation.quality.heuristics.hash_table import clear_table, hash_characters, seen_before


@kernel("UniTuple(int64, 2)(int32[::1], uint16[::1], int64, int32[::1], int32[::1])")
def line_ends(code, flags, n, breaks, newlines):  # type: ignore[no-untyped-def]
    """Finds the ends of lines by two definitions; returns how many there are of each.

    `breaks`: as str.splitlines, but every break is an end, so \r\n gives two; the end of a text without a final break
    is one as well. `newlines`: as text.split("\n"); so there is always one, and the last is n.
    """
    all_ = 0
    some = 0
    for i in range(n):
        if flags[i] & BREAK:
            breaks[all_] = i
            all_ += 1
            if code[i] == 10:
                newlines[some] = i
                some += 1
    if n and not flags[n - 1] & BREAK:
        breaks[all_] = n
        all_ += 1
    newlines[some] = n
    return all_, some + 1


@kernel("void(int32[::1], int32[::1], int64, uint64[::1])")
def line_hashes(code, newlines, lines, out):  # type: ignore[no-untyped-def]
    lo = 0
    for line in range(lines):
        out[line] = hash_characters(code, lo, newlines[line])
        lo = newlines[line] + 1


@kernel("void(uint16[::1], int64, int64, int32[::1], int64, uint64[::1], uint64[::1], float64[::1])")
def fineweb_statistics(flags, n, count, newlines, full, line_hash, table, out):  # type: ignore[no-untyped-def]
    """Penedo et al. 2024, section 3.6: statistics of lines that are not blank, split at newlines only."""
    mask = clear_table(full, table)
    lines = 0
    ending = 0
    short = 0
    double = 0
    hi = -1
    for line in range(full):
        lo = hi + 1
        hi = newlines[line]
        at = lo
        while at < hi and flags[at] & SPACE:
            at += 1
        if at < hi:
            lines += 1
            if flags[hi - 1] & TERMINAL:
                ending += 1
            if hi - lo <= 30:
                short += 1
            if seen_before(line_hash[line], table, mask):
                double += hi - lo
    breaks = full - 1
    out[0] = ending / lines if lines else 0.0
    out[1] = short / lines if lines else 0.0
    out[2] = double / (n - breaks) if n > breaks else 0.0
    out[3] = breaks / count if count else 0.0
