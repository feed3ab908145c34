"""The kernel that scans a raw page for what would cost its parser quadratic time (hostile_pages.py)."""

from __future__ import annotations

import numba as nb
import numpy as np

from curation.extract.html_tag_kernels import FNV_PRIME, FNV_START
from curation.kernels import BYTES, kernel

# What a tag is: cannot hold others of its kind; formatting; formatting that ends an open one of its name; body; html
NOT_NESTED, FORMATTING, ALONE, BODY, HTML = 1, 2, 4, 8, 16

_HASHES = nb.types.Array(nb.uint64, 1, "C", readonly=True)
_KINDS = nb.types.Array(nb.int64, 1, "C", readonly=True)
_SLOTS = 1 << 12
_EQUAL_FORMATTING = 3  # of equal formatting elements at most three are kept open ("Noah's Ark clause", HTML 13.2.4.3)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_HALF, _TOP = np.uint64(32), np.uint64(52)


@kernel((BYTES, nb.int64, _HASHES, _KINDS, nb.int64, nb.int64[:, ::1]))
def scan_tags(data, n, known, kinds, max_attributes, cuts):  # type: ignore[no-untyped-def]
    """Returns (rows for `cuts`, elements that formatting opens again, elements looked at while formatting is closed).

    Every `<` before a letter counts as a tag, also in scripts and comments.

    cuts   filled with (first byte, byte after the last) of attributes beyond `max_attributes` of a tag; for body and
           html, whose attributes all go to one element, of all their tags together. Rows that do not fit are not stored
    """
    opened = np.zeros(_SLOTS, np.int64)  # elements open, by the hash of their name
    kept = np.zeros(_SLOTS, np.int64)  # of these, formatting that is opened again: without more than three equal ones
    epoch = np.zeros(_SLOTS, np.int64)
    equal = np.zeros(_SLOTS, np.int64)  # formatting elements by the hash of the whole tag
    equal_epoch = np.full(_SLOTS, -1, np.int64)
    total = 0
    formatting = 0
    repeated = 0
    steps = 0
    found = 0
    body_attributes = 0
    html_attributes = 0
    i = 0
    while i < n:
        if data[i] != 60:
            i += 1
            continue
        i += 1
        closing = i < n and data[i] == 47
        if closing:
            i += 1
        if i >= n or not 97 <= data[i] | 32 <= 122:
            continue
        name = FNV_START
        while i < n and data[i] != 62 and data[i] != 47 and data[i] != 32 and not 9 <= data[i] <= 13:
            c = data[i]
            name = (name ^ np.uint64(c | 32 if 65 <= c <= 90 else c)) * FNV_PRIME
            i += 1
        kind = 0
        low = 0
        high = len(known) - 1
        while low <= high:
            middle = (low + high) // 2
            if known[middle] == name:
                kind = kinds[middle]
                break
            if known[middle] < name:
                low = middle + 1
            else:
                high = middle - 1
        whole = name
        compared = kind & FORMATTING != 0
        attributes = body_attributes if kind & BODY else html_attributes if kind & HTML else 0
        cut = -1
        while i < n and data[i] != 62:
            c = data[i]
            if c == 47 or c == 32 or 9 <= c <= 13:
                i += 1
                continue
            attributes += 1
            if attributes > max_attributes and cut < 0:
                cut = i
            first = i
            while i < n and data[i] != 62 and data[i] != 47 and data[i] != 32 and not 9 <= data[i] <= 13:
                if data[i] == 61 and i > first:  # at the start of a name it belongs to it
                    break
                if compared:
                    whole = (whole ^ np.uint64(data[i])) * FNV_PRIME
                i += 1
            while i < n and (data[i] == 32 or 9 <= data[i] <= 13):
                i += 1
            if i < n and data[i] == 61:
                i += 1
                while i < n and (data[i] == 32 or 9 <= data[i] <= 13):
                    i += 1
                if i < n and (data[i] == 34 or data[i] == 39):
                    quote = data[i]
                    i += 1
                    while i < n and data[i] != quote:
                        if compared:
                            whole = (whole ^ np.uint64(data[i])) * FNV_PRIME
                        i += 1
                    i += 1
                else:
                    while i < n and data[i] != 62 and data[i] != 32 and not 9 <= data[i] <= 13:
                        if compared:
                            whole = (whole ^ np.uint64(data[i])) * FNV_PRIME
                        i += 1
        i = min(i, n)
        if kind & BODY:
            body_attributes = attributes
        elif kind & HTML:
            html_attributes = attributes
        if cut >= 0:
            end = i
            while end > cut and data[end - 1] == 45:  # of `-->`, where this is no tag but in a comment
                end -= 1
            if found < len(cuts):
                cuts[found, 0] = cut
                cuts[found, 1] = end
            found += 1
        name = (name ^ (name >> _HALF)) * _MIX  # short names differ in few bits
        slot = np.int64(name >> _TOP)
        if closing:
            if kind & FORMATTING:
                steps += total
            if opened[slot]:
                opened[slot] -= 1
                total -= 1
                if kept[slot] > opened[slot]:
                    kept[slot] -= 1
                    formatting -= 1
                if not opened[slot]:
                    epoch[slot] += 1
            continue
        if kind & NOT_NESTED:
            repeated += formatting
            continue
        if not kind & FORMATTING:
            repeated += formatting
        elif kind & ALONE and opened[slot]:  # ends the open one first
            steps += total
            continue
        else:
            whole = (whole ^ (whole >> _HALF)) * _MIX
            at = np.int64(whole >> _TOP)
            if equal_epoch[at] != epoch[slot]:
                equal_epoch[at] = epoch[slot]
                equal[at] = 0
            if equal[at] < _EQUAL_FORMATTING:
                equal[at] += 1
                kept[slot] += 1
                formatting += 1
        opened[slot] += 1
        total += 1
    return found, repeated, steps
