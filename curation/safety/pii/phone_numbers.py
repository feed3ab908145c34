"""Telephone numbers as presidio finds them: phonenumbers' own search, made for eight countries at once.

presidio searches a text as if from each of eight countries. phonenumbers cuts a text into *candidates* (digits and
punctuation, perhaps an extension) by one pattern, tries each, and goes on behind it, or behind the number that it found
in it. So the searches are the same up to where one finds a number. Here they go together as long as they stand at the
same place, and a candidate is tried once as what it is: with the one character before it and the three after it, which
is all that phonenumbers ever looks at (is it a letter, a currency sign, the minutes of a time?).

On the crawl 37,311 candidates are 20,902 different ones, and most of those are not even parsed, by a count of their
digits, if neither an extension nor a plus sign is in them:
- four or more, from Germany, and seven or more, from the other seven, as no valid number is shorter (`1640` is German);
- at most 31: phonenumbers refuses more than 17 digits behind all that it strips, which is at most an international
  prefix (4 from these countries), a country code (3) and a national prefix (7, Japan's 0037680).
The tests take these figures out of phonenumbers' own metadata.
"""

from __future__ import annotations

import functools
import re
from typing import Any

SHORTEST, SHORTEST_ELSEWHERE, LONGEST = 4, 7, 31
_SHORT = "DE"
GIVES_UP = 65_535  # phonenumbers' own default of max_tries

# Without any of these a candidate has neither a plus sign nor an extension (`x12`, `#3`, `;ext=4`, `~5`).
_PLAIN = re.compile(r"[\d\-.()/\[\] ]*")
_NOT_DIGITS = re.compile(r"\D+")


def find(text: str, regions: tuple[str, ...], leniency: int) -> set[tuple[int, int]] | None:
    """Where phonenumbers finds numbers in a text from any of the regions: (start, end), in characters.

    None where it might give up before the end: it counts what it tries in vain, and stops at 65,535. Here the tries of
    all regions count together, which can only be more.
    """
    pattern, second = _patterns()
    found: set[tuple[int, int]] = set()
    tries = 0
    waiting = {0: regions}  # who searches on from where
    while waiting:
        index = min(waiting)
        searching = waiting.pop(index)
        match = pattern.search(text, index)
        if match is None:
            continue
        start, end = match.span()
        another = second.search(match.group())
        if another:
            end = start + another.start()
        before, after = text[max(0, start - 1) : start], text[end : end + 3]
        numbers, vain = _numbers(before, text[start:end], after, regions, leniency)
        tries += vain
        if tries >= GIVES_UP:
            return None
        for region in searching:
            on = end
            if region in numbers:
                lo, hi = numbers[region]
                found.add((start + lo, start + hi))
                on = start + hi
            waiting[on] = (*waiting.get(on, ()), region)
    return found


@functools.cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    from phonenumbers import phonenumbermatcher, phonenumberutil

    return phonenumbermatcher._PATTERN, phonenumberutil._SECOND_NUMBER_START_PATTERN


@functools.lru_cache(maxsize=262_144)
def _numbers(
    before: str, candidate: str, after: str, regions: tuple[str, ...], leniency: int
) -> tuple[dict[str, tuple[int, int]], int]:
    """For each region that sees a number in the candidate, where in it; and how often one of them tries in vain."""
    found: dict[str, tuple[int, int]] = {}
    vain = 0
    for region in sorted(regions, key=lambda r: r != _SHORT):  # the one that parses most goes first
        matcher = _matcher()(before + candidate + after, region, leniency=leniency, max_tries=GIVES_UP)
        match = matcher._extract_match(candidate, len(before))
        if match is not None:
            found[region] = (match.start - len(before), match.end - len(before))
        vain = max(vain, GIVES_UP - matcher._max_tries + 1)
        if not matcher.parsed:  # nothing in it has the digits of a number, so it has none from elsewhere either
            break
        short = len(_NOT_DIGITS.sub("", candidate)) < SHORTEST_ELSEWHERE
        if match is None and short and _PLAIN.fullmatch(candidate):  # nor has this one
            break
    return found, vain


@functools.cache
def _matcher() -> Any:
    from phonenumbers import PhoneNumberMatcher

    class Counting(PhoneNumberMatcher):  # type: ignore[misc, unused-ignore]
        """phonenumbers' matcher, which does not parse what has too few or too many digits to be a number."""

        parsed = False

        def _parse_and_verify(self, candidate: str, offset: int) -> Any:
            digits = len(_NOT_DIGITS.sub("", candidate))
            if digits < SHORTEST:
                return None
            shortest = SHORTEST if self.preferred_region == _SHORT else SHORTEST_ELSEWHERE
            if not shortest <= digits <= LONGEST and _PLAIN.fullmatch(candidate):
                return None
            self.parsed = True
            return super()._parse_and_verify(candidate, offset)

    return Counting
