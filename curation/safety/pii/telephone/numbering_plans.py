"""Holds the numbering plans of libphonenumber's metadata as tables that a kernel reads.

A plan is the metadata of one region (or of a calling code without one, such as 800). Plans, and the machine that says
which numbers of a calling code are valid, are added when a text first has such a number. What the tables mean is
phonenumbers' own (phonenumberutil.py): `parse`, `is_valid_number` and `_is_national_prefix_present_if_required`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from curation.safety.pii.telephone.digit_automata import DigitAutomata

# Columns of `plans`: the calling code; first states of the machines for the general pattern, for a national prefix and
# for an international prefix (0: no such prefix); whether a national prefix may be rewritten and not just removed.
CALLING_CODE, GENERAL, NATIONAL_PREFIX, INTERNATIONAL_PREFIX, REWRITES = range(5)
# phonenumbers' ValidationResult of a number of so many digits.
POSSIBLE, LOCAL_ONLY, TOO_SHORT, INVALID_LENGTH, TOO_LONG = range(5)
MAX_LENGTH = 32  # column of all longer numbers
# What the machine of a calling code says of a national number.
VALID, PREFIX_REQUIRED = 1, 2
NO_PLAN, NOT_ADDED = -1, -2

_KINDS = ("premium_rate", "toll_free", "shared_cost", "voip", "personal_number", "pager", "uan", "voicemail")


class NumberingPlans:
    """The tables for the plans of some regions, and of all calling codes that numbers with a + turned out to have."""

    def __init__(self, regions: tuple[str, ...]) -> None:
        from phonenumbers.phonenumberutil import COUNTRY_CODE_TO_REGION_CODE

        self.automata = DigitAutomata()
        self.plans = np.zeros((0, 5), np.int64)
        self.lengths = np.zeros((0, MAX_LENGTH + 1), np.int8)
        self.main_plan = np.full(1000, NO_PLAN, np.int64)  # by calling code: the plan of its main region
        self.numbers = np.zeros(1000, np.int64)  # by calling code: first state of the machine of valid numbers
        for code in COUNTRY_CODE_TO_REGION_CODE:
            self.main_plan[code] = NOT_ADDED
        self.possible: dict[int, set[int]] = {}  # by calling code: the lengths of numbers of its regions
        self._known: dict[tuple[int, str], int] = {}
        self.region_plans = np.array([self._add_plan(*_calling_code(r)) for r in regions], np.int64)
        # brackets of a candidate, as digits: 0 opens, 1 closes, 2 is anything else (phonenumbers' _MATCHING_BRACKETS)
        self.brackets = self.automata.add_language([("0?(?:2+1)?2+(?:02+1){0,3}2*", "match", False)], _any)
        for code in {int(c) for c in self.plans[:, CALLING_CODE]}:
            self.add_calling_code(code)
        # By number of digits and first digit: a bit for each region that may have such a number without a +. Most
        # candidates of a table of numbers end here.
        firsts = np.array([self._first_digits(int(p)) for p in self.region_plans], np.int64)
        bits = 1 << np.arange(len(regions), dtype=np.int64)
        self.first_digits = np.stack([bits @ (firsts >> d & 1) for d in range(10)], 1)

    def add_calling_code(self, code: int) -> None:
        """Adds the plan of the code's main region, and the machine for the numbers of all its regions."""
        from phonenumbers.phonenumberutil import COUNTRY_CODE_TO_REGION_CODE

        regions = COUNTRY_CODE_TO_REGION_CODE[code]
        self.main_plan[code] = self._add_plan(code, regions[0])
        metadata = [(r, _metadata(code, r)) for r in regions]
        patterns, sets = [], []
        for region, m in metadata:
            named = (
                "general_desc",
                *_KINDS,
                "fixed_line",
                *(() if m.same_mobile_and_fixed_line_pattern else ("mobile",)),
            )
            there = [(k, getattr(m, k)) for k in named if getattr(m, k) is not None]
            for kind, desc in there:
                if desc.national_number_pattern:
                    patterns.append((desc.national_number_pattern, (region, kind), False))
            if m.leading_digits is not None:
                patterns.append((m.leading_digits, (region, "leading"), True))
            sets.append((region, {k: frozenset(d.possible_length) for k, d in there}, m.leading_digits is not None))
        formats = []
        for i, form in enumerate(metadata[0][1].number_format if regions[0] != "001" else ()):
            leading = form.leading_digits_pattern[-1] if form.leading_digits_pattern else ""
            patterns += [(leading, ("leading", i), True), (form.pattern, ("format", i), False)]
            formats.append(_requires_prefix(form))
        self.possible[code] = {n for _, m in metadata for n in m.general_desc.possible_length}
        self.numbers[code] = self.automata.add_language(patterns, _number_value(sets, formats))

    def _first_digits(self, plan: int) -> list[int]:
        """By number of digits: a bit for each first digit."""
        code = int(self.plans[plan, CALLING_CODE])

        def goes_on(start: int) -> int:
            for digit in range(10) if start else ():
                self.automata.extend(start, digit)
            return sum(1 << d for d in range(10) if start and self.automata.step[start, d])

        prefixes = goes_on(int(self.plans[plan, NATIONAL_PREFIX])) | goes_on(
            int(self.plans[plan, INTERNATIONAL_PREFIX])
        )
        prefixes |= 1 << int(str(code)[0])
        bare = goes_on(int(self.numbers[code]))
        return [prefixes | (bare if n == MAX_LENGTH or n in self.possible[code] else 0) for n in range(MAX_LENGTH + 1)]

    def _add_plan(self, code: int, region: str) -> int:
        key = (code, region)
        if key in self._known:
            return self._known[key]
        m = _metadata(code, region)
        add = self.automata
        pattern = m.general_desc.national_number_pattern
        row = [
            code,
            add.add_language([(pattern, "match", False)] if pattern else [], _any),
            add.add_prefix(m.national_prefix_for_parsing) if m.national_prefix_for_parsing else 0,
            add.add_prefix(m.international_prefix) if m.international_prefix else 0,
            bool(m.national_prefix_transform_rule),
        ]
        self.plans = np.concatenate([self.plans, np.array([row], np.int64)])
        possible, local = m.general_desc.possible_length, m.general_desc.possible_length_local_only
        classes = [_length_class(n, possible, local) for n in range(MAX_LENGTH + 1)]
        self.lengths = np.concatenate([self.lengths, np.array([classes], np.int8)])
        self._known[key] = len(self.plans) - 1
        return self._known[key]


def _calling_code(region: str) -> tuple[int, str]:
    import phonenumbers

    return phonenumbers.country_code_for_region(region), region


def _metadata(code: int, region: str) -> Any:
    from phonenumbers import PhoneMetadata

    return PhoneMetadata.metadata_for_region_or_calling_code(code, region)


def _any(labels: frozenset[Any], length: int) -> int:
    return int(bool(labels))


def _length_class(length: int, possible: tuple[int, ...], local: tuple[int, ...]) -> int:
    if length in local:
        return LOCAL_ONLY
    if length in possible:
        return POSSIBLE
    return TOO_SHORT if length < possible[0] else TOO_LONG if length > possible[-1] else INVALID_LENGTH


def _requires_prefix(form: Any) -> bool:
    """Whether a number of this format is written with its national prefix."""
    from phonenumbers import phonenumberutil

    rule = form.national_prefix_formatting_rule
    optional = form.national_prefix_optional_when_formatting
    return bool(rule) and not optional and not phonenumberutil._formatting_rule_has_first_group_only(rule)


def _number_value(
    regions: list[tuple[str, dict[str, frozenset[int]], bool]], formats: list[bool]
) -> Callable[[frozenset[Any], int], int]:
    def matches(labels: frozenset[Any], length: int, region: str, lengths: dict[str, frozenset[int]]) -> bool:
        """Whether the number is of a known kind: phonenumbers' _number_type_helper."""
        fitting = {
            k for k, possible in lengths.items() if (region, k) in labels and (not possible or length in possible)
        }
        return "general_desc" in fitting and len(fitting) > 1

    def value(labels: frozenset[Any], length: int) -> int:
        valid = False
        for region, lengths, leading in regions:
            # the first region whose leading digits these are, or whose number it is, decides
            if len(regions) == 1 or not leading:
                valid = matches(labels, length, region, lengths)
            elif (region, "leading") in labels:
                valid = matches(labels, length, region, lengths)
                break
            if valid:
                break
        required = False
        for i, needed in enumerate(formats):
            if ("leading", i) in labels and ("format", i) in labels:
                required = needed
                break
        return VALID * valid | PREFIX_REQUIRED * required

    return value
