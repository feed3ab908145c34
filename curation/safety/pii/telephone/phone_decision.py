"""Kernels that decide whether digits are a valid telephone number, as phonenumbers' `parse` and `is_valid_number` do.

The functions follow phonenumbers' (phonenumberutil.py, named in each), over the tables of numbering_plans.py. Each
returns a negative number if a table lacks what it needs: MISSING_STATE of a state, MISSING_CODE of a calling code.
`ASK` is for the one thing that is left to the library: national prefixes that are rewritten (Brazil's carrier codes).
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

from curation.kernels import kernel
from curation.safety.pii.telephone.digit_automata import CAPTURED, CAPTURED_AT_END, ENDS, ENDS_AT_END
from curation.safety.pii.telephone.numbering_plans import (
    CALLING_CODE,
    GENERAL,
    INTERNATIONAL_PREFIX,
    MAX_LENGTH,
    NATIONAL_PREFIX,
    NO_PLAN,
    NOT_ADDED,
    POSSIBLE,
    PREFIX_REQUIRED,
    REWRITES,
    TOO_LONG,
    VALID,
)

NO, YES, ASK, YES_WITH_PREFIX = 0, 1, 2, 3
MISSING_STATE = -2  # and below: -2 - (state * 10 + digit)
MISSING_CODE = -(1 << 40)  # and above: -(1 << 40) + calling code
_MAX_NATIONAL_DIGITS = 17

# Types of the tables: see NumberingPlans and DigitAutomata.
STEP, VALUE, PLANS, LENGTHS = nb.int32[:, ::1], nb.int64[::1], nb.int64[:, ::1], nb.int8[:, ::1]
CODES, DIGITS = nb.int64[::1], nb.int8[::1]


@kernel(nb.int64(STEP, nb.int64, DIGITS, nb.int64, nb.int64))
def walk(step, state, digits, first, end):  # type: ignore[no-untyped-def]
    """The state after digits[first:end]; 0 if no pattern goes on."""
    for i in range(first, end):
        following = np.int64(step[state, digits[i]])
        if following < 0:
            return MISSING_STATE - (state * 10 + digits[i])
        if following == 0:
            return following
        state = following
    return state


@kernel(nb.types.UniTuple(nb.int64, 2)(STEP, VALUE, nb.int64, DIGITS, nb.int64, nb.int64))  # type: ignore[no-untyped-call]
def prefix_end(step, value, state, digits, first, end):  # type: ignore[no-untyped-def]
    """(where re.match of a prefix ends, or -1; not 0 if its last group took part), or (a missing state, 0)."""
    stop = -1
    captured: Any = 0
    i = first
    while True:
        said = value[state]
        if i == end and said & ENDS_AT_END:
            return i, np.int64(said & CAPTURED_AT_END)
        if said & ENDS:
            stop = i
            captured = np.int64(said & CAPTURED)
        if i == end:
            return stop, captured
        following = np.int64(step[state, digits[i]])
        if following < 0:
            return MISSING_STATE - (state * 10 + digits[i]), 0
        if following == 0:
            return stop, captured
        state = following
        i += 1


@kernel(nb.int64(STEP, VALUE, PLANS, nb.int64, DIGITS, nb.int64, nb.int64))
def strip_national_prefix(step, value, plans, plan, digits, first, end):  # type: ignore[no-untyped-def]
    """Where the number begins after its national prefix: `first` if there is none, -1 if the library must be asked, or
    a missing state. (_maybe_strip_national_prefix_carrier_code)"""
    start = plans[plan, NATIONAL_PREFIX]
    if start == 0 or first == end:
        return first
    stop, captured = prefix_end(step, value, start, digits, first, end)
    if stop < -1:
        return stop
    if stop < 0:
        return first
    if captured and plans[plan, REWRITES]:
        return -1
    whole = walk(step, plans[plan, GENERAL], digits, first, end)
    if whole < 0:
        return whole
    if value[whole]:
        rest = walk(step, plans[plan, GENERAL], digits, stop, end)
        if rest < 0:
            return rest
        if not value[rest]:
            return first
    return stop


@kernel(nb.types.UniTuple(nb.int64, 2)(CODES, DIGITS, nb.int64, nb.int64))  # type: ignore[no-untyped-call]
def calling_code(main_plan, digits, first, end):  # type: ignore[no-untyped-def]
    """(calling code, its digits), or (0, 0). (_extract_country_code)"""
    if first >= end or digits[first] == 0:
        return 0, 0
    code: Any = 0
    for n in range(1, min(3, end - first) + 1):
        code = code * 10 + digits[first + n - 1]
        if main_plan[code] != NO_PLAN:
            return code, n
    return 0, 0


@kernel(nb.int64(STEP, VALUE, PLANS, LENGTHS, CODES, nb.int64, nb.int64, DIGITS, nb.int64, nb.int64, nb.boolean))
def _is_valid(step, value, plans, lengths, numbers, plan, code, digits, first, end, domestic):  # type: ignore[no-untyped-def]
    """Whether digits[first:end] is valid for a calling code with this plan; the second half of `parse`, and `_verify`.

    domestic   whether the number was written without a calling code; then digits[0:end] is all of it
    """
    if end - first < 2:
        return NO
    stop = strip_national_prefix(step, value, plans, plan, digits, first, end)
    if stop == -1:
        return ASK
    if stop < 0:
        return stop
    fits = lengths[plan, min(end - stop, MAX_LENGTH)]
    if fits in (POSSIBLE, TOO_LONG):
        first = stop
    if end - first < 2 or end - first > _MAX_NATIONAL_DIGITS:
        return NO
    state = walk(step, numbers[code], digits, first, end)
    if state < 0:
        return state
    if not value[state] & VALID:
        return NO
    return YES if not domestic or not value[state] & PREFIX_REQUIRED else YES_WITH_PREFIX


@kernel(nb.int64(STEP, VALUE, PLANS, LENGTHS, CODES, CODES, nb.int64, nb.boolean, DIGITS, nb.int64))
def decide(step, value, plans, lengths, main_plan, numbers, plan, plus, digits, end):  # type: ignore[no-untyped-def]
    """Whether digits[0:end], after a + or not, are a valid number for somebody in the region of a plan; YES_WITH_PREFIX
    if they are where a national prefix is before them (`has_prefix`).

    (parse, _maybe_extract_country_code, _verify with leniency VALID)
    """
    first = 0
    code = 0
    size = 0
    if plus:
        if end <= 2:
            return NO
        code, size = calling_code(main_plan, digits, 0, end)
        first = size
    if code == 0:
        stop = -1
        if plans[plan, INTERNATIONAL_PREFIX]:
            stop, _ = prefix_end(step, value, plans[plan, INTERNATIONAL_PREFIX], digits, 0, end)
            if stop < -1:
                return stop
            if stop >= 0 and stop < end and digits[stop] == 0:
                stop = -1  # no calling code begins with 0
        if stop >= 0:
            if end - stop <= 2:
                return NO
            code, size = calling_code(main_plan, digits, stop, end)
            if code == 0:
                return NO
            first = stop + size
        else:
            own = plans[plan, CALLING_CODE]
            size = 1 if own < 10 else 2 if own < 100 else 3
            written: Any = 0
            for i in range(min(size, end)):
                written = written * 10 + digits[i]
            if end >= size and written == own:
                stop = strip_national_prefix(step, value, plans, plan, digits, size, end)
                if stop == -1:
                    return ASK
                if stop < 0:
                    return stop
                whole = walk(step, plans[plan, GENERAL], digits, 0, end)
                if whole < 0:
                    return whole
                rest = walk(step, plans[plan, GENERAL], digits, stop, end)
                if rest < 0:
                    return rest
                too_long = lengths[plan, min(end, MAX_LENGTH)] == TOO_LONG
                if too_long or (not value[whole] and value[rest]):
                    code = own
                    first = stop
    if code:
        main = main_plan[code]
        if main == NOT_ADDED:
            return MISSING_CODE + code
        return _is_valid(step, value, plans, lengths, numbers, main, code, digits, first, end, False)
    if plus:  # a + before what is no calling code
        return NO
    own = plans[plan, CALLING_CODE]
    return _is_valid(step, value, plans, lengths, numbers, plan, own, digits, 0, end, True)


@kernel(nb.int64(STEP, VALUE, PLANS, CODES, nb.int64, DIGITS, nb.int64))
def has_prefix(step, value, plans, main_plan, plan, digits, end):  # type: ignore[no-untyped-def]
    """Whether digits[0:end] begin with the national prefix of a plan's country.
    (_is_national_prefix_present_if_required)"""
    main = main_plan[plans[plan, CALLING_CODE]]
    stop = strip_national_prefix(step, value, plans, main, digits, 0, end)
    if stop == -1:
        return ASK
    if stop < 0:
        return stop
    if stop == 0:  # none, unless the pattern has matched nothing (Argentina's may)
        stop, _ = prefix_end(step, value, plans[main, NATIONAL_PREFIX], digits, 0, end)
        return YES if stop == 0 else NO
    return YES
