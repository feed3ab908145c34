"""Finds telephone numbers as presidio does, but searches for all of its eight countries in one pass.

presidio runs phonenumbers' search once for each of eight countries. phonenumbers finds *candidates* (digits and
punctuation, perhaps an extension) by one pattern, tries each, and continues after it, or after the number that it found
in it. So the searches are identical up to where one finds a number. Here they run together as long as they are at the
same position, and a candidate is tried once, with the one character before it and the three after it, which is all that
phonenumbers reads around it (is it a letter, a currency sign, the minutes of a time?).

On the crawl 37,311 candidates are 20,902 different ones. Most of those need no parsing: without an extension or a plus
sign, a candidate must have
- at least four digits for Germany and seven for the other countries, as no valid number is shorter (`1640` is German);
- at most 31: phonenumbers refuses more than 17 digits after what it strips, which is at most an international prefix (4
  digits in these countries), a country code (3) and a national prefix (7, Japan's 0037680).
The tests derive these numbers from phonenumbers' own metadata.
"""

from __future__ import annotations

import functools
import re
from typing import Any

MIN_DIGITS_DE, MIN_DIGITS, MAX_DIGITS = 4, 7, 31
_SHORT_NUMBER_REGION = "DE"
MAX_TRIES = 65_535  # phonenumbers' own default of max_tries

# Without any of these a candidate has neither a plus sign nor an extension (`x12`, `#3`, `;ext=4`, `~5`).
_NO_EXTENSION = re.compile(r"[\d\-.()/\[\] ]*")
_NOT_DIGITS = re.compile(r"\D+")


def find_phone_numbers(text: str, regions: tuple[str, ...], leniency: int) -> set[tuple[int, int]] | None:
    """(start, end) of the numbers that phonenumbers finds in a text for any of the regions, in characters.

    None if it might stop before the end: it stops after 65,535 failed tries. Here the tries of all regions are counted
    together, so this errs on the safe side.
    """
    pattern, second = _patterns()
    found: set[tuple[int, int]] = set()
    tries = 0
    searches = {0: regions}  # position -> regions that continue there
    while searches:
        index = min(searches)
        searching = searches.pop(index)
        match = pattern.search(text, index)
        if match is None:
            continue
        start, end = match.span()
        another = second.search(match.group())
        if another:
            end = start + another.start()
        before, after = text[max(0, start - 1) : start], text[end : end + 3]
        numbers, failed_tries = _numbers_in_candidate(before, text[start:end], after, regions, leniency)
        tries += failed_tries
        if tries >= MAX_TRIES:
            return None
        for region in searching:
            on = end
            if region in numbers:
                lo, hi = numbers[region]
                found.add((start + lo, start + hi))
                on = start + hi
            searches[on] = (*searches.get(on, ()), region)
    return found


@functools.cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    from phonenumbers import phonenumbermatcher, phonenumberutil

    return phonenumbermatcher._PATTERN, phonenumberutil._SECOND_NUMBER_START_PATTERN


@functools.lru_cache(maxsize=262_144)
def _numbers_in_candidate(
    before: str, candidate: str, after: str, regions: tuple[str, ...], leniency: int
) -> tuple[dict[str, tuple[int, int]], int]:
    """(region -> position of the number in the candidate, the largest number of failed tries of a region)."""
    found: dict[str, tuple[int, int]] = {}
    failed_tries = 0
    # the region with the shortest numbers first
    for region in sorted(regions, key=lambda r: r != _SHORT_NUMBER_REGION):
        matcher = _matcher_class()(before + candidate + after, region, leniency=leniency, max_tries=MAX_TRIES)
        match = matcher._extract_match(candidate, len(before))
        if match is not None:
            found[region] = (match.start - len(before), match.end - len(before))
        failed_tries = max(failed_tries, MAX_TRIES - matcher._max_tries + 1)
        if not matcher.parsed:  # no part has enough digits for the first region, so for no other either
            break
        short = len(_NOT_DIGITS.sub("", candidate)) < MIN_DIGITS
        if match is None and short and _NO_EXTENSION.fullmatch(candidate):  # too short for the other regions
            break
    return found, failed_tries


@functools.cache
def _matcher_class() -> Any:
    from phonenumbers import PhoneNumberMatcher

    class PrecheckedMatcher(PhoneNumberMatcher):  # type: ignore[misc, unused-ignore]
        """phonenumbers' matcher without parsing candidates that have too few or too many digits."""

        parsed = False

        def _parse_and_verify(self, candidate: str, offset: int) -> Any:
            digits = len(_NOT_DIGITS.sub("", candidate))
            if digits < MIN_DIGITS_DE:
                return None
            shortest = MIN_DIGITS_DE if self.preferred_region == _SHORT_NUMBER_REGION else MIN_DIGITS
            if not shortest <= digits <= MAX_DIGITS and _NO_EXTENSION.fullmatch(candidate):
                return None
            self.parsed = True
            return super()._parse_and_verify(candidate, offset)

    return PrecheckedMatcher
