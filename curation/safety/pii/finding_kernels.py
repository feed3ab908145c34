"""Kernels over findings: their bytes, which are personal, which overlap, and texts with all of them replaced."""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

from curation.kernels import BYTES, OFFSETS, kernel

INTS, FLOATS, FLAGS = nb.int64[::1], nb.float64[::1], nb.uint8[::1]
SPARED, PERSONAL, ASK = 0, 1, 2
# What is_personal needs to know of an entity.
OTHER, ADDRESS, TELEPHONE, ASKED = 0, 1, 2, 3
_MIN_PHONE_DIGITS = 7


@kernel((BYTES, OFFSETS, INTS, INTS, INTS, INTS, INTS))
def byte_positions(data, offsets, text, start, end, first, last):  # type: ignore[no-untyped-def]
    """Fills `first` and `last` for findings that are sorted by text and start."""
    before: Any = -1
    at: Any = 0
    character: Any = 0
    for f in range(len(text)):
        if text[f] != before:
            before = text[f]
            at = offsets[before]
            character = 0
        stop = offsets[before + 1]
        while character < start[f]:
            at += 1
            while at < stop and data[at] & 0xC0 == 0x80:
                at += 1
            character += 1
        first[f] = at
        to = at
        for _ in range(end[f] - start[f]):
            to += 1
            while to < stop and data[to] & 0xC0 == 0x80:
                to += 1
        last[f] = to


@kernel(nb.int64(BYTES, nb.int64, nb.int64))
def _is_public_address(data, first, last):  # type: ignore[no-untyped-def]
    """ASK where ipaddress has to say: IPv6, 192.0.0.0/24 (which has exceptions), what a custom recognizer found."""
    a: Any = 0
    b: Any = 0
    c: Any = 0
    part = 0
    size = 0
    value: Any = 0
    for i in range(first, last):
        d = data[i]
        if d == 47:
            if part != 3 or size == 0 or i + 1 == last:
                return ASK
            for k in range(i + 1, last):
                if not 48 <= data[k] <= 57 or (k > i + 1 and data[i + 1] > 50):
                    return ASK
            if last - i > 3:
                return ASK
            break
        if d == 46 and size and part < 3:
            if part == 0:
                a = value
            elif part == 1:
                b = value
            else:
                c = value
            part += 1
            value = 0
            size = 0
        elif 48 <= d <= 57 and (size == 0 or value):
            value = value * 10 + (np.int64(d) - 48)
            size += 1
            if value > 255:
                return ASK
        else:
            return ASK
    if part != 3 or size == 0:
        return ASK
    if a == 192 and b == 0 and c == 0:
        return ASK
    if a == 0 or a == 10 or a == 127 or a >= 240 or (a == 169 and b == 254) or (a == 172 and 16 <= b < 32):
        return SPARED
    if (a == 192 and b == 168) or (a == 198 and (b == 18 or b == 19)) or (a == 100 and 64 <= b < 128):
        return SPARED
    documentation = (a == 192 and b == 0 and c == 2) or (a == 198 and b == 51 and c == 100)
    return SPARED if documentation or (a == 203 and b == 0 and c == 113) else PERSONAL


@kernel((BYTES, INTS, INTS, INTS, FLOATS, nb.float64, FLAGS))
def find_personal(data, first, last, kind, score, least, said):  # type: ignore[no-untyped-def]
    """Fills `said` with SPARED, PERSONAL, or ASK, where actions.is_personal decides. `kind`: OTHER, ADDRESS, ..."""
    for f in range(len(first)):
        if score[f] < least:
            said[f] = SPARED
        elif kind[f] == ADDRESS:
            said[f] = _is_public_address(data, first[f], last[f])
        elif kind[f] == TELEPHONE:
            digits = 0
            plain = True
            for i in range(first[f], last[f]):
                digits += 48 <= data[i] <= 57
                plain = plain and data[i] < 0x80
            said[f] = PERSONAL if digits >= _MIN_PHONE_DIGITS else SPARED if plain else ASK
        else:
            said[f] = ASK if kind[f] == ASKED else PERSONAL


@kernel((INTS, INTS, INTS, INTS, FLOATS, nb.float64, FLAGS))
def leave_out_inside_addresses(text, start, end, kind, score, least, said):  # type: ignore[no-untyped-def]
    """Sets `said` to SPARED for telephone numbers inside an IP address, whether that is replaced or not."""
    furthest: Any = -1
    ahead = 0  # addresses up to here are in `furthest`
    for f in range(len(text)):
        if f == 0 or text[f] != text[f - 1]:
            furthest = -1
            ahead = f
        while ahead < len(text) and text[ahead] == text[f] and start[ahead] <= start[f]:
            if kind[ahead] == ADDRESS and score[ahead] >= least:
                furthest = max(furthest, end[ahead])
            ahead += 1
        if kind[f] == TELEPHONE and end[f] <= furthest:
            said[f] = SPARED


@kernel(nb.int64(INTS, INTS, INTS, INTS, FLOATS))
def merge(text, start, end, entity, score):  # type: ignore[no-untyped-def]
    """Merges overlapping findings in place; returns how many are left. See actions.merge_overlaps."""
    count = 0
    best_start: Any = 0
    best_end: Any = 0
    for f in range(len(text)):
        last = count - 1
        if count and text[f] == text[last] and start[f] < end[last]:
            # the better one: by score, length, start, alphabet; the former is that of entity[last] and score[last]
            longer = (end[f] - start[f]) - (best_end - best_start)
            better = score[f] > score[last]
            if score[f] == score[last]:
                earlier = best_start - start[f]
                better = longer > 0 or (longer == 0 and (earlier > 0 or (earlier == 0 and entity[f] < entity[last])))
            if better:
                best_start, best_end = start[f], end[f]
                entity[last] = entity[f]
                score[last] = score[f]
            end[last] = max(end[last], end[f])
        else:
            best_start, best_end = start[f], end[f]
            text[count] = text[f]
            start[count] = start[f]
            end[count] = end[f]
            entity[count] = entity[f]
            score[count] = score[f]
            count += 1
    return count


@kernel((BYTES, OFFSETS, INTS, INTS, INTS, INTS, BYTES, INTS, FLAGS, INTS))
def write_replaced(data, offsets, text, first, last, which, pieces, piece_offsets, out, out_offsets):  # type: ignore[no-untyped-def]
    """Writes all texts with finding f, data[first[f]:last[f]], replaced by piece which[f]; findings do not overlap."""
    f = 0
    to: Any = 0
    for t in range(len(offsets) - 1):
        out_offsets[t] = to
        at = offsets[t]
        while f < len(text) and text[f] == t:
            for i in range(at, first[f]):
                out[to] = data[i]
                to += 1
            for i in range(piece_offsets[which[f]], piece_offsets[which[f] + 1]):
                out[to] = pieces[i]
                to += 1
            at = last[f]
            f += 1
        for i in range(at, offsets[t + 1]):
            out[to] = data[i]
            to += 1
    out_offsets[len(offsets) - 1] = to
