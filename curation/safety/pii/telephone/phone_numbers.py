"""Finds telephone numbers as phonenumbers does, for several regions at once: the kernel's driver.

phone_kernel.py decides by itself; this module adds to its tables what a text needs, and asks the library about the few
candidates that the kernel leaves to it. The findings equal those of the library for each region; tests compare.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import numpy as np

from curation.safety.pii.telephone import phone_kernel as kernel
from curation.safety.pii.telephone.numbering_plans import NumberingPlans
from curation.safety.pii.telephone.phone_candidates import character_table
from curation.safety.pii.telephone.phone_decision import MISSING_CODE, MISSING_STATE
from curation.safety.pii.telephone.possible_regions_kernel import regions_of_blocks

MAX_TRIES = 65_535  # phonenumbers' own default of max_tries


def find_phone_numbers(
    data: np.ndarray[Any, Any], windows: np.ndarray[Any, Any], regions: tuple[str, ...], limit: int = 0
) -> np.ndarray[Any, Any]:
    """Rows (window, first character, character after the last), sorted, of the numbers in parts of texts.

    data     bytes, UTF-8
    windows  rows (first byte, byte after the last) of the parts; a number is found as if its window were a text
    limit    failed tries in a window after which phonenumbers gives up (MAX_TRIES); 0: it never does
    A number that lies in another is left out.
    """
    plans = _numbering_plans(regions)
    size = int((windows[:, 1] - windows[:, 0]).max(initial=0)) + 1
    chars = np.empty(size, np.int32)
    state = np.zeros(8, np.int64)
    positions, budgets, tries = (np.zeros(len(regions), np.int64) for _ in range(3))
    spans, digits = np.zeros((len(regions), 2), np.int64), np.zeros(64, np.int8)
    found = np.empty((1024 + len(regions), 3), np.int64)
    why = kernel.IS_MISSING
    window, text = -1, ""  # the window of the last question, decoded
    while why != kernel.DONE:
        add = plans.automata
        tables = (
            *(add.step, add.value, plans.plans, plans.lengths, plans.main_plan, plans.numbers),
            *(plans.region_plans, plans.first_digits, plans.brackets),
        )
        why = kernel.search(
            data, windows, character_table(), tables, limit, state, chars, positions, budgets, spans, tries,
            digits, found,
        )  # fmt: skip
        if why == kernel.IS_MISSING:
            _add_missing(plans, int(state[kernel.MISSING]))
        elif why == kernel.IS_FULL:
            found = np.concatenate([found, np.empty_like(found)])
        elif why == kernel.ASKS:
            if state[kernel.WINDOW] != window:
                window = int(state[kernel.WINDOW])
                text = chars[: state[kernel.CHARACTERS]].tobytes().decode("utf-32-le")
            missing = _ask_library(text, chars, tables, digits, regions, limit, state, positions, budgets, found)
            if missing:
                _add_missing(plans, missing)
    return _without_contained(found[: state[kernel.FOUND]])


def _add_missing(plans: NumberingPlans, missing: int) -> None:
    if missing <= MISSING_STATE and missing > MISSING_CODE + 1_000:
        plans.automata.extend(*divmod(MISSING_STATE - missing, 10))
    else:
        plans.add_calling_code(missing - MISSING_CODE)


def _without_contained(found: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The spans that no other of their window contains, sorted."""
    if not len(found):
        return found
    found = found[np.lexsort((-found[:, 2], found[:, 1], found[:, 0]))]
    # ends of all windows in one sequence, so that a running maximum never reaches into the next window
    shift = found[:, 0] * (int(found[:, 2].max()) + 1)
    ends = np.maximum.accumulate(found[:, 2] + shift)
    keep = np.ones(len(found), bool)
    keep[1:] = found[1:, 2] + shift[1:] > ends[:-1]
    kept: np.ndarray[Any, Any] = found[keep]
    return kept


@functools.cache
def _numbering_plans(regions: tuple[str, ...]) -> NumberingPlans:
    return NumberingPlans(regions)


# -- what the kernel leaves to the library ----------------------------------------------------------------------------


def _ask_library(
    text: str,
    chars: np.ndarray[Any, Any],
    tables: tuple[Any, ...],
    digits: np.ndarray[Any, Any],
    regions: tuple[str, ...],
    limit: int,
    state: np.ndarray[Any, Any],
    positions: np.ndarray[Any, Any],
    budgets: np.ndarray[Any, Any],
    found: np.ndarray[Any, Any],
) -> int:
    """Has the library look at a candidate, and writes into the kernel's arrays what the kernel would have written.
    Returns what a table lacks, and has done nothing then; else 0.

    text   of the window
    """
    window, _, _, count, start, _, mask, _ = state.tolist()
    match = _patterns()[0].match(text, start)
    assert match is not None
    # what phonenumbers reads around a candidate: the character before; the minutes of a time after it
    before, candidate, after = text[max(0, start - 1) : start], match.group(), text[match.end() : match.end() + 3]
    another = _patterns()[1].search(candidate)
    if another:
        after = (candidate[another.start() :] + after)[:3]
        candidate = candidate[: another.start()]
    if not limit:  # with one, the tries that fail are counted, and only the library knows them
        possible = _possible_regions(candidate, chars, start, mask, tables, digits)
        if possible < 0:
            return possible
        if none := mask & ~possible:
            positions[_regions_of(none, regions)[0]] = start + len(candidate)
            if not possible:
                return 0
            mask = possible
    which, asked = _regions_of(mask, regions)
    if not limit or (left := int(budgets[which].min())) > kernel.MAX_TRIES_OF_CANDIDATE:
        ends, failed, spans = _numbers_in_candidate(before, candidate, after, asked)
    else:
        ends, failed, spans = _numbers_in_candidate.__wrapped__(before, candidate, after, asked, left)
    if limit:
        budgets[which] -= failed
    positions[which] = ends + start
    for first, last in spans:
        found[count] = window, start + first, start + last
        count += 1
    state[kernel.FOUND] = count
    return 0


def _possible_regions(
    candidate: str,
    chars: np.ndarray[Any, Any],
    start: int,
    mask: int,
    tables: tuple[Any, ...],
    digits: np.ndarray[Any, Any],
) -> int:
    """The bits of `mask` of regions for which the candidate may have a number; negative if a table lacks something."""
    letters = sum(c.isalpha() for c in candidate)
    if ";" in candidate or (letters > 2 and not candidate.isascii()):  # a context; other letters than the keypad's
        return mask
    extension = _patterns()[2].search(candidate)
    at = len(candidate) if extension is None or len(re.findall(r"\d+", extension.group())) > 1 else extension.start()
    where = (chars, character_table(), start, start + len(candidate), start + at)
    plus = "+" in candidate or "\uff0b" in candidate
    possible: int = regions_of_blocks(*where, False, plus, mask, tables, digits)
    if possible < 0 or letters < 3 or possible == mask:
        return possible
    more: int = regions_of_blocks(*where, True, plus, mask & ~possible, tables, digits)
    return more if more < 0 else possible | more


@functools.lru_cache(maxsize=1_024)
def _regions_of(mask: int, regions: tuple[str, ...]) -> tuple[Any, tuple[str, ...]]:
    """An index of the regions that have a bit, in arrays by region; and their names."""
    which = [i for i in range(len(regions)) if mask >> i & 1]
    return slice(None) if len(which) == len(regions) else np.array(which), tuple(regions[i] for i in which)


@functools.cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Of a candidate; of where a second number begins in it; of its extension, as `parse` cuts it off."""
    from phonenumbers import phonenumbermatcher, phonenumberutil

    return phonenumbermatcher._PATTERN, phonenumberutil._SECOND_NUMBER_START_PATTERN, phonenumberutil._EXTN_PATTERN


@functools.lru_cache(maxsize=65_536)
def _numbers_in_candidate(
    before: str, candidate: str, after: str, regions: tuple[str, ...], max_tries: int = MAX_TRIES
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], set[tuple[int, int]]]:
    """By region: where its search goes on in the candidate, and the failed tries; and the numbers found."""
    from phonenumbers import PhoneNumberMatcher

    ends: list[int] = []
    tries: list[int] = []
    found: set[tuple[int, int]] = set()
    for i, region in enumerate(regions):
        if i and tries[0] == 0 and candidate[0] in "+\uff0b" and (0, len(candidate)) in found:
            # all of it is a number with a calling code, which is the same for each region
            ends.append(len(candidate))
            tries.append(0)
            continue
        matcher = PhoneNumberMatcher(before + candidate + after, region, max_tries=max_tries)
        match = matcher._extract_match(candidate, len(before))
        failed = max_tries - matcher._max_tries
        if match is None:
            ends.append(len(candidate))
            tries.append(failed + 1)
        else:
            found.add((match.start - len(before), match.end - len(before)))
            ends.append(match.end - len(before))
            tries.append(failed)
    return np.array(ends, np.int64), np.array(tries, np.int64), found
