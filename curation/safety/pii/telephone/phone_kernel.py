"""Kernel that finds telephone numbers as phonenumbers' PhoneNumberMatcher does, for all regions in one pass.

phonenumbers finds *candidates* (digits and punctuation, perhaps an extension), tries each whole, then its parts (after
a slash, in brackets, after a hyphen between blanks, a dot, a blank), and goes on after the candidate, or after the
number that it found in it. So the searches for different regions are identical up to where one finds a number; here
they run together as long as they are at the same position.

A candidate is left to the library (`ASKS`) if it may have an extension or a carrier code, or has a `~` or a letter-like
dash: rules for those are long, and such numbers few.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from curation.kernels import BYTES, kernel
from curation.safety.pii.telephone.numbering_plans import MAX_LENGTH
from curation.safety.pii.telephone.phone_candidates import (
    BLANK,
    CHARS,
    CLOSES,
    DIGIT,
    DIGIT_VALUE,
    KINDS,
    LEAD,
    OPENS,
    PLUS,
    REFUSED,
    is_date,
    is_reference,
    next_candidate,
)
from curation.safety.pii.telephone.phone_decision import (
    ASK,
    CODES,
    DIGITS,
    LENGTHS,
    MISSING_STATE,
    PLANS,
    STEP,
    VALUE,
    YES,
    YES_WITH_PREFIX,
    calling_code,
    decide,
    has_prefix,
)

_MAX_PIECE = 250  # characters that phonenumbers parses
_MAX_DIGITS = 64  # no prefixes are so long that fewer than 18 digits of these remain
MAX_TRIES_OF_CANDIDATE = 1_024  # a candidate has 84 characters of punctuation at most, and six ways to split it

DONE, ASKS, IS_MISSING, IS_FULL = 0, 1, 2, 3
# Places of `state`: the window; whether it is decoded; its characters; found so far; the candidate, and a bit for each
# region it is asked for; what is missing.
WINDOW, _DECODED, CHARACTERS, FOUND, START, END, REGIONS, MISSING = range(8)


_SPANS = nb.int64[:, ::1]
TABLES = nb.types.Tuple(  # type: ignore[no-untyped-call]
    (STEP, VALUE, PLANS, LENGTHS, CODES, CODES, CODES, PLANS, nb.int64)
)


@kernel(nb.int64(CHARS, KINDS, nb.int64, nb.int64, nb.int64, nb.boolean, nb.int64, TABLES, DIGITS))
def _regions_of_piece(chars, kinds, n, first, end, brackets, mask, tables, digits):  # type: ignore[no-untyped-def]
    """A bit for each region of `mask` in which chars[first:end] is a number; negative if a table lacks something, and
    -1 if the library has to be asked. (_parse_and_verify)"""
    step, value, plans, lengths, main_plan, numbers, region_plans, first_digits, bracket_start = tables
    size = 0
    begin = -1
    plus = False
    for i in range(first, end):
        k = kinds[chars[i]]
        if k & DIGIT:
            if size == _MAX_DIGITS:
                return 0
            digits[size] = (k >> DIGIT_VALUE) & 15
            size += 1
            if begin < 0:
                begin = i
        elif k & PLUS:
            if begin < 0:
                begin = i
                plus = True
            elif not kinds[chars[i - 1]] & PLUS or size:
                return 0
    if size < 3 or end - first > _MAX_PIECE:
        return 0
    if first > 0 and not kinds[chars[first]] & LEAD and kinds[chars[first - 1]] & REFUSED:
        return 0
    if end < n and kinds[chars[end]] & REFUSED:
        return 0
    if not plus:
        mask &= first_digits[min(size, MAX_LENGTH), digits[0]]
        if not mask:
            return 0
    if brackets:
        state = bracket_start
        for i in range(first, end):
            k = kinds[chars[i]]
            bracket = 0 if k & OPENS else 1 if k & CLOSES else 2
            following = np.int64(step[state, bracket])
            if following < 0:
                return MISSING_STATE - (state * 10 + bracket)
            state = following
        if not value[state] or is_reference(chars, kinds, first, end):
            return 0
    if plus and calling_code(main_plan, digits, 0, size)[0]:  # the same for all regions
        said = decide(step, value, plans, lengths, main_plan, numbers, region_plans[0], plus, digits, size)
        return said if said < 0 else -1 if said == ASK else mask if said == YES else 0
    found = 0
    for r in range(len(region_plans)):
        if mask >> r & 1:
            said = decide(step, value, plans, lengths, main_plan, numbers, region_plans[r], plus, digits, size)
            if said == YES_WITH_PREFIX:
                said = has_prefix(step, value, plans, main_plan, region_plans[r], digits, size)
            if said == ASK:
                return -1
            if said < 0:
                return said
            if said == YES:
                found |= 1 << r
    return found


@kernel(nb.int64(CHARS, KINDS, nb.int64, nb.int64))
def _trimmed(chars, kinds, first, end):  # type: ignore[no-untyped-def]
    while end > first and not kinds[chars[end - 1]] & DIGIT:
        end -= 1
    return end


@kernel(nb.int64(CHARS, KINDS, nb.int64, nb.int64, nb.int64, nb.int64, nb.int64, TABLES, DIGITS, _SPANS, CODES))
def _search_candidate(chars, kinds, n, start, end, mask, budget, tables, digits, spans, tries):  # type: ignore[no-untyped-def]
    """Finds the numbers in a candidate: spans[r] and the failed tries before it, for the regions of the mask that is
    returned; negative as _regions_of_piece. (_extract_match, _extract_inner_match)

    The other regions of `mask` have tries[r] failed tries.
    """
    failed = 0
    found = 0
    left = mask
    if not is_date(chars, kinds, start, end, n):
        brackets = False
        ways = 1  # a bit for each that the candidate may have: the whole; then the six ways to split
        for i in range(start, end):
            c = chars[i]
            k = kinds[c]
            brackets = brackets or k & (OPENS | CLOSES) != 0
            if k & BLANK:
                ways |= 8 | 64
            elif c == 47:
                ways |= 2
            elif c == 40:
                ways |= 4
            elif c == 46:
                ways |= 32
            elif 0x2012 <= c <= 0x2015 or c == 0xFF0D:
                ways |= 16
        for way in range(7):
            if not ways >> way & 1:
                continue
            one = True
            for i in range(start, end):
                c = chars[i]
                k = kinds[c]
                first = i
                stop = end
                if way == 0:
                    if i > start:
                        break
                elif failed >= budget:
                    break
                elif way == 1:
                    if c != 47:
                        continue
                    while chars[first] == 47:
                        first += 1
                elif way == 2:
                    if c != 40:
                        continue
                    stop = i + 1
                    while stop < end and chars[stop] != 40:
                        stop += 1
                elif way == 3:
                    after = kinds[chars[i + 1]] if i + 1 < end else np.int32(0)
                    if not ((k & BLANK and i + 1 < end and chars[i + 1] == 45) or (c == 45 and after & BLANK)):
                        continue
                    first = i + 2
                    while kinds[chars[first]] & BLANK:
                        first += 1
                elif way == 4:
                    if not (0x2012 <= c <= 0x2015 or c == 0xFF0D):
                        continue
                    first = i + 1
                    while kinds[chars[first]] & BLANK:
                        first += 1
                elif way == 5:
                    if c != 46:
                        continue
                    while chars[first] == 46:
                        first += 1
                    while kinds[chars[first]] & BLANK:
                        first += 1
                    stop = first
                    while stop < end and chars[stop] != 46:
                        stop += 1
                else:
                    if not k & BLANK:
                        continue
                    while kinds[chars[first]] & BLANK:
                        first += 1
                    stop = first
                    while stop < end and not kinds[chars[stop]] & BLANK:
                        stop += 1
                for before in range(2):
                    if way == 0 and before:
                        break
                    if before == 0 and way and not one:
                        continue
                    a = start if before == 0 else first
                    b = stop if way == 0 else _trimmed(chars, kinds, a, i if before == 0 else stop)
                    got = _regions_of_piece(chars, kinds, n, a, b, brackets, left, tables, digits)
                    if got < 0:
                        return got
                    for r in range(len(tries)):
                        if got >> r & 1:
                            spans[r, 0] = a
                            spans[r, 1] = b
                            tries[r] = failed
                    found |= got
                    left &= ~got
                    if left == 0:
                        return found
                    failed += way != 0
                one = False
    for r in range(len(tries)):
        if left >> r & 1:
            tries[r] = failed + 1
    return found


@kernel(nb.int64(BYTES, _SPANS, KINDS, TABLES, nb.int64, CODES, CHARS, CODES, CODES, _SPANS, CODES, DIGITS, _SPANS))
def search(data, windows, kinds, tables, limit, state, chars, positions, budgets, spans, tries, digits, found):  # type: ignore[no-untyped-def]
    """Goes through windows of texts and writes the numbers to `found`; says why it stopped.

    data       bytes of texts, UTF-8
    windows    rows (first byte, byte after the last)
    limit      failed tries in a window after which phonenumbers gives up; 0: it never does
    state      where it is (WINDOW and the following); all 0 at first, and to go on where it was
    chars      room for the characters of the longest window
    positions  by region: where its search is in the window; -1: at the end
    budgets    by region: tries that are left
    spans, tries, digits  room for one candidate
    found      rows (window, first character, character after the last)
    """
    for w in range(state[0], len(windows)):
        state[0] = w
        if not state[1]:
            n = 0
            i = windows[w, 0]
            while i < windows[w, 1]:
                c = np.int32(data[i])
                if c < 0x80:
                    i += 1
                elif c < 0xE0:
                    c = ((c & 31) << 6) | (np.int32(data[i + 1]) & 63)
                    i += 2
                elif c < 0xF0:
                    c = ((c & 15) << 12) | ((np.int32(data[i + 1]) & 63) << 6) | (np.int32(data[i + 2]) & 63)
                    i += 3
                else:
                    c = ((c & 7) << 18) | ((np.int32(data[i + 1]) & 63) << 12)
                    c |= ((np.int32(data[i + 2]) & 63) << 6) | (np.int32(data[i + 3]) & 63)
                    i += 4
                chars[n] = c
                n += 1
            state[1] = 1
            state[2] = n
            positions[:] = 0
            budgets[:] = limit if limit else 1 << 60
        n = state[2]
        while True:
            at = np.int64(-1)
            for r in range(len(positions)):
                if positions[r] >= 0 and budgets[r] <= 0:
                    positions[r] = -1
                if positions[r] >= 0 and (at < 0 or positions[r] < at):
                    at = positions[r]
            if at < 0:
                break
            mask = 0
            budget = np.int64(1 << 60)
            for r in range(len(positions)):
                # near the limit one region at a time: each has its own
                if positions[r] == at and (mask == 0 or min(budget, budgets[r]) > MAX_TRIES_OF_CANDIDATE):
                    mask |= 1 << r
                    budget = min(budget, budgets[r])
            start, end, asked = next_candidate(chars, kinds, n, at)
            if start < 0:
                for r in range(len(positions)):
                    if mask >> r & 1:
                        positions[r] = -1
                continue
            if state[3] + len(positions) > len(found):
                return IS_FULL
            got = np.int64(-1)
            if not asked:
                got = np.int64(
                    _search_candidate(chars, kinds, n, start, end, mask, budget, tables, digits, spans, tries)
                )
            if got == -1:
                state[4] = start
                state[5] = end
                state[6] = mask
                return ASKS
            if got < 0:
                state[7] = got
                return IS_MISSING
            for r in range(len(positions)):
                if mask >> r & 1:
                    budgets[r] -= tries[r]
                    positions[r] = end
                    if got >> r & 1:
                        stop = spans[r, 1]
                        positions[r] = stop
                        last = state[3] - 1
                        if last < 0 or found[last, 0] != w or found[last, 1] != spans[r, 0] or found[last, 2] != stop:
                            found[last + 1, 0] = w
                            found[last + 1, 1] = spans[r, 0]
                            found[last + 1, 2] = stop
                            state[3] += 1
        state[1] = 0
    state[0] = len(windows)
    return DONE
