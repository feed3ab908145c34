r"""Kernel that finds IPv4 addresses and US_SSNs in windows of plain ASCII, exactly as presidio's patterns do.

Logs and tables have tens of thousands a megabyte. A window with another character, or with the colons of IPv6, is left
to presidio. The patterns in short (`\b` is where a letter, digit or `_` meets another character):

IP_ADDRESS  \bN.N.N.N(/0 to /32)?\b, N of one to three digits and up to 255, without leading zeros; score 0.6
US_SSN  \b3-2-4\b digits with the same `-`, `.` or blank twice, 0.5; \b5-4\b, \b3-6\b and \b9\b digits, 0.05; none whose
        digits are all the same, has a group of zeros, an area of 000 or 666, or is a known example
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

from curation.kernels import BYTES, kernel
from curation.safety.pii.window_kernel import ENTITIES

_IP, _SSN = ENTITIES.index("IP_ADDRESS"), ENTITIES.index("US_SSN")
MIN_BYTES = 7  # of a finding
_ROWS = nb.int64[:, ::1]


@kernel(nb.boolean(BYTES, nb.int64, nb.int64, nb.int64))
def _is_word(data, i, lo, hi):  # type: ignore[no-untyped-def]
    return lo <= i < hi and (48 <= data[i] <= 57 or 97 <= (data[i] | 32) <= 122 or data[i] == 95)


@kernel(nb.int64(BYTES, nb.int64, nb.int64))
def _digits_end(data, i, hi):  # type: ignore[no-untyped-def]
    while i < hi and 48 <= data[i] <= 57:
        i += 1
    return i


@kernel(nb.types.UniTuple(nb.int64, 2)(BYTES, nb.int64, nb.int64, nb.int64))  # type: ignore[no-untyped-call]
def _ipv4_end(data, at, lo, hi):  # type: ignore[no-untyped-def]
    """(end of the pattern's match that begins at `at`, or -1; 1 if it is an address)."""
    i = at
    valid = 1
    for part in range(4):
        stop = _digits_end(data, i, min(hi, i + 4))
        size = stop - i
        if size == 0 or size > 3:
            return -1, 0
        value: Any = 0
        for k in range(i, stop):
            value = value * 10 + (np.int64(data[k]) - 48)
        if value > 255:
            return -1, 0
        if size > 1 and data[i] == 48:
            valid = 0
        i = stop
        if part < 3:
            if i == hi or data[i] != 46:
                return -1, 0
            i += 1
    if _is_word(data, i, lo, hi):
        return -1, 0
    if i < hi and data[i] == 47:
        stop = _digits_end(data, i + 1, hi)
        size = stop - i - 1
        two = size == 2 and (data[i + 1] <= 50 or (data[i + 1] == 51 and data[i + 2] <= 50))
        if (size == 1 or two) and not _is_word(data, stop, lo, hi):
            i = stop
    return i, valid


@kernel(nb.boolean(BYTES, nb.int64, nb.int64))
def _is_ssn(data, at, end):  # type: ignore[no-untyped-def]
    number: Any = 0
    digits = 0
    same = True
    separator: Any = 0
    for i in range(at, end):
        c = data[i]
        if 48 <= c <= 57:
            number = number * 10 + (np.int64(c) - 48)
            digits += 1
            same = same and c == data[at]
        elif separator and c != separator:
            return False
        else:
            separator = c
    if same or number // 10_000 % 100 == 0 or number % 10_000 == 0:
        return False
    area = number // 1_000_000
    return area != 0 and area != 666 and number != 123456789 and number != 987654320 and number != 78051120


@kernel(nb.types.Tuple((nb.int64, nb.float64))(BYTES, nb.int64, nb.int64, nb.int64))  # type: ignore[no-untyped-call]
def _ssn_end(data, at, lo, hi):  # type: ignore[no-untyped-def]
    """(end of the match that begins at `at`, or -1; its score)."""
    i = _digits_end(data, at, hi)
    a = i - at
    if a == 9:
        return (-1, 0.0) if _is_word(data, i, lo, hi) else (i, 0.05)
    if i == hi or (data[i] != 45 and data[i] != 46 and data[i] != 32):
        return -1, 0.0
    j = _digits_end(data, i + 1, hi)
    b = j - i - 1
    if data[i] == 45 and ((a == 5 and b == 4) or (a == 3 and b == 6)):
        return (-1, 0.0) if _is_word(data, j, lo, hi) else (j, 0.05)
    if a != 3 or b != 2 or j == hi or (data[j] != 45 and data[j] != 46 and data[j] != 32):
        return -1, 0.0
    k = _digits_end(data, j + 1, hi)
    return (-1, 0.0) if k - j - 1 != 4 or _is_word(data, k, lo, hi) else (k, 0.5)


@kernel(nb.int64(BYTES, _ROWS, _ROWS, nb.float64[::1], nb.uint8[::1]))
def find_plain_numbers(data, windows, rows, scores, left):  # type: ignore[no-untyped-def]
    """Writes (text, kind, start, end) and the score of each finding; returns how many. Positions are in characters.

    windows  as find_windows fills them
    rows     has room for a finding every MIN_BYTES of the windows
    left     set to 1 for windows that are left to presidio
    """
    count = 0
    for w in range(len(windows)):
        kind, lo, hi = windows[w, 1], windows[w, 2], windows[w, 3]
        left[w] = kind != _IP and kind != _SSN
        colons = 0
        for i in range(lo, hi):
            if data[i] >= 0x80:
                left[w] = 1
            if data[i] == 58:
                colons += 1
                if kind == _IP and (colons == 6 or (i > lo and data[i - 1] == 58)):
                    left[w] = 1
            if left[w]:
                break
        if left[w]:
            continue
        i = lo
        while i < hi:
            if not 48 <= data[i] <= 57 or _is_word(data, i - 1, lo, hi):
                i += 1
                continue
            end = np.int64(-1)
            score = 0.6
            if kind == _IP:
                end, valid = _ipv4_end(data, i, lo, hi)
                said = valid == 1
            else:
                end, score = _ssn_end(data, i, lo, hi)
                said = end > 0 and _is_ssn(data, i, end)
            if end > 0 and said:
                rows[count, 0] = windows[w, 0]
                rows[count, 1] = kind
                rows[count, 2] = windows[w, 4] + i - lo
                rows[count, 3] = windows[w, 4] + end - lo
                scores[count] = score
                count += 1
            i = end if end > 0 else i + 1
    return count
