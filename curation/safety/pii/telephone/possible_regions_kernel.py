"""Kernel that says for which regions a candidate with an extension may have a number, so that only these are asked.

phonenumbers tries pieces of a candidate, each from the beginning or after punctuation up to a digit, without its
extension if it has one. So a number is made of one or more blocks of digits that follow one another, and where no such
run of blocks is valid for a region the library finds none. A piece that ends with the extension loses it if three
digits are before, so the last block follows no others then. Of three letters or more the library makes digits, as on a
keypad (1-800-FLOWERS): then a block is one of digits and letters, too.
"""

from __future__ import annotations

import numba as nb

from curation.kernels import kernel
from curation.safety.pii.telephone.numbering_plans import MAX_LENGTH
from curation.safety.pii.telephone.phone_candidates import CHARS, DIGIT, DIGIT_VALUE, KINDS
from curation.safety.pii.telephone.phone_decision import DIGITS, NO, decide
from curation.safety.pii.telephone.phone_kernel import TABLES

_KEYPAD = (2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6, 7, 7, 7, 7, 8, 8, 8, 9, 9, 9, 9)  # of a to z


@kernel(nb.boolean(CHARS, KINDS, nb.int64, nb.boolean))
def _is_in_block(chars, kinds, i, letters):  # type: ignore[no-untyped-def]
    return kinds[chars[i]] & DIGIT != 0 or (letters and 97 <= (chars[i] | 32) <= 122)


@kernel(nb.int64(CHARS, KINDS, nb.int64, nb.int64, nb.int64, nb.boolean, nb.boolean, nb.int64, TABLES, DIGITS))
def regions_of_blocks(chars, kinds, start, end, extension, letters, plus, mask, tables, digits):  # type: ignore[no-untyped-def]
    """A bit for each region of `mask` for which blocks of chars[start:end] may be a number; negative if a table lacks
    something.

    extension where the extension begins, with its label; `end` if there is none
    letters   whether a block is one of digits and letters
    plus      whether a plus sign may be before a block
    digits    room for those of a number
    """
    step, value, plans, lengths, main_plan, numbers, region_plans, first_digits, _ = tables
    possible = 0
    for first in range(start, end):
        if not _is_in_block(chars, kinds, first, letters):
            continue
        if first > start and _is_in_block(chars, kinds, first - 1, letters):
            continue
        size = 0
        before = 0  # digits before the extension
        for i in range(first, end):
            if i == extension:
                before = size
            if not _is_in_block(chars, kinds, i, letters):
                continue
            if size == len(digits):
                break
            k = kinds[chars[i]]
            digits[size] = (k >> DIGIT_VALUE) & 15 if k & DIGIT else _KEYPAD[(chars[i] | 32) - 97]
            size += 1
            if i + 1 < end and _is_in_block(chars, kinds, i + 1, letters):
                continue
            if before >= 3 and kinds[chars[i]] & DIGIT:
                break
            bare = mask if size < 3 else mask & first_digits[min(size, MAX_LENGTH), digits[0]]
            for r in range(len(region_plans)):
                if possible >> r & 1:
                    continue
                for sign in range(2):
                    if (sign and not plus) or not (mask if sign else bare) >> r & 1:
                        continue
                    said = decide(
                        step, value, plans, lengths, main_plan, numbers, region_plans[r], sign == 1, digits, size
                    )
                    if said < 0:
                        return said
                    if said != NO:
                        possible |= 1 << r
                        break
            if possible == mask:
                return possible
    return possible
