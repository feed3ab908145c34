"""The kernel's telephone numbers are those of phonenumbers, for any text, region and limit of tries.

Covers: digit_automata.py, numbering_plans.py, phone_candidates.py, phone_decision.py, phone_kernel.py,
possible_regions_kernel.py
"""

from __future__ import annotations

import random

import numpy as np
import phonenumbers
import pytest

from curation.safety.pii.telephone.phone_numbers import MAX_TRIES, find_phone_numbers

PRESIDIO = ("US", "GB", "DE", "FR", "IL", "IN", "CA", "BR")
ALPHABET = "0123456789" * 4 + "  --..()/+[]x~:,%$a\u2013\xa0é#;"


def ours(text: str, regions: tuple[str, ...], limit: int = 0) -> list[tuple[int, int]]:
    data = text.encode()
    windows = np.array([[0, len(data)]], np.int64)
    rows = find_phone_numbers(np.frombuffer(data, np.uint8), windows, regions, limit)
    return [(start, end) for _, start, end in rows.tolist()]


def theirs(text: str, regions: tuple[str, ...], limit: int = 1 << 40) -> list[tuple[int, int]]:
    """Of the library, one region after the other; without numbers inside others."""
    found = {(m.start, m.end) for r in regions for m in phonenumbers.PhoneNumberMatcher(text, r, max_tries=limit)}
    kept: list[tuple[int, int]] = []
    for start, end in sorted(found, key=lambda f: (f[0], -f[1])):
        if not kept or end > max(e for _, e in kept):
            kept.append((start, end))
    return kept


@pytest.mark.parametrize(
    "regions",
    [PRESIDIO, ("CN", "JP", "RU", "AR", "MX"), ("GG", "AG", "GA", "SM", "AU", "IT")],
    ids=["presidio", "rewritten prefixes", "several regions with one calling code"],
)
def test_numbers_are_those_of_the_library(regions: tuple[str, ...]) -> None:
    """Random digits and punctuation, and real numbers of all regions with a character changed."""
    rng = random.Random(7)
    examples = [e for r in sorted(phonenumbers.SUPPORTED_REGIONS) if (e := phonenumbers.example_number(r))]
    for _ in range(250):
        if rng.random() < 0.4:
            text = "".join(rng.choice(ALPHABET) for _ in range(rng.randint(4, 60)))
        else:
            written = list(phonenumbers.format_number(rng.choice(examples), rng.choice([0, 1, 2])))
            if rng.random() < 0.5:
                written[rng.randrange(len(written))] = rng.choice(ALPHABET)
            text = rng.choice(["", "a", "(", "0", "00", "011", "1 "]) + "".join(written) + rng.choice(["", " 5", "/12"])
        assert ours(text, regions) == theirs(text, regions), text


def test_the_limit_of_tries_is_the_librarys() -> None:
    text = "".join(f"{i % 97} {i % 7}-" for i in range(300)) + " 212-555-5555"
    for limit in (1, 50, 400, 5_000):
        assert ours(text, ("US", "GB"), limit) == theirs(text, ("US", "GB"), limit)
    assert MAX_TRIES == 65_535


def test_dates_pages_and_neighbours_as_the_library_has_them() -> None:
    for text in (
        "2012-01-02 08:00", "3/10/2011 212-555-5555", "211-227 (2003) 212-555-5555", "€2125555555 2125555555%",
        "a2125555555", "+1+1 212 555 5555", "++1 212 555 5555", "(212 555 5555", "2125555555 ext. 12", "12345678#12",
    ):  # fmt: skip
        assert ours(text, PRESIDIO) == theirs(text, PRESIDIO), text


def test_tables_of_numbers_do_not_reach_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(1)
    text = "\n".join(
        f"+1 212 555 {rng.randint(1000, 9999)} {rng.random() * 99:.3f} ({rng.randint(1, 99)})" for _ in range(200)
    )
    expected = theirs(text, PRESIDIO)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the library was asked")

    monkeypatch.setattr(phonenumbers, "PhoneNumberMatcher", refuse)
    assert ours(text, PRESIDIO) == expected


LABELS = (" ext. ", "x", " x", "#", ";ext=", " extension ", "ext", " доб ", "~", " - ", ",,", "ｘ", "/x", "x.", "eXt")


@pytest.mark.parametrize("regions", [PRESIDIO, ("CN", "JP", "RU", "AR", "MX"), ("US", "DE")])
def test_extensions_are_those_of_the_library(regions: tuple[str, ...]) -> None:
    """Numbers, parts of numbers and any digits, each with a label and more digits after it."""
    rng = random.Random(11)
    examples = [e for r in sorted(phonenumbers.SUPPORTED_REGIONS) if (e := phonenumbers.example_number(r))]
    for _ in range(40):
        text = ""
        for _ in range(rng.randint(1, 3)):
            if rng.random() < 0.5:
                text += phonenumbers.format_number(rng.choice(examples), rng.choice([0, 1, 2]))
            else:
                text += "".join(rng.choice("0123456789 -.()/+") for _ in range(rng.randint(1, 14)))
            text += rng.choice(LABELS) + "".join(rng.choice("0123456789") for _ in range(rng.randint(0, 6)))
            text += rng.choice(["", "#", " "])
        assert ours(text, regions) == theirs(text, regions), text


def test_the_library_is_asked_for_regions_that_may_have_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(3)
    sizes = "\n".join(f"{rng.randint(100, 9999)}x{rng.randint(100, 9999)}" for _ in range(100))
    numbers = "\n".join(f"+1 212 {rng.randint(200, 999)} {rng.randint(1000, 9999)} ext. {i}" for i in range(100))
    expected = [theirs(text, PRESIDIO) for text in (sizes, numbers)]
    asked, real = [], phonenumbers.PhoneNumberMatcher

    def counted(*a: object, **k: object) -> object:
        asked.append(a)
        return real(*a, **k)

    monkeypatch.setattr(phonenumbers, "PhoneNumberMatcher", counted)
    assert ours(sizes, PRESIDIO) == expected[0] and len(asked) < 40  # of 800
    asked.clear()
    assert ours(numbers, PRESIDIO) == expected[1] and len(asked) <= 100  # one region answers for all
