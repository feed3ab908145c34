"""Replacing findings in columns: the same as one finding after the other, by the rules of actions.py.

Covers: finding_columns.py, finding_kernels.py
"""

from __future__ import annotations

import ipaddress
import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.safety.pii.actions import MIN_SCORE, is_personal, replacement
from curation.safety.pii.finding_columns import Findings, Texts
from curation.safety.pii.replace_findings import describe_spans, merge_overlaps, replace_in_texts, to_replace

ENTITIES = ("PHONE_NUMBER", "IP_ADDRESS", "EMAIL_ADDRESS", "US_SSN")
Finding = tuple[int, int, str, float]


def columns(rows: Sequence[Sequence[Finding]], entities: tuple[str, ...] = ENTITIES) -> Findings:
    flat = [(t, s, e, entities.index(n), x) for t, row in enumerate(rows) for s, e, n, x in row]
    some = np.array(flat, np.float64).reshape(-1, 5)
    return Findings.sort(entities, *(some[:, i].astype(np.int64) for i in range(4)), some[:, 4].copy())


def tuples(found: Findings, count: int) -> list[list[Finding]]:
    rows: list[list[Finding]] = [[] for _ in range(count)]
    for text, start, end, entity, score in found.rows():
        rows[text].append((start, end, found.entities[entity], score))
    return rows


def one_by_one_merged(found: list[Finding]) -> list[Finding]:
    merged: list[Finding] = []
    best: Finding | None = None
    for f in sorted(found):
        if merged and best is not None and f[0] < merged[-1][1]:
            best = min(best, f, key=lambda g: (-g[3], g[0] - g[1], g[0], g[2]))
            merged[-1] = (merged[-1][0], max(merged[-1][1], f[1]), best[2], best[3])
        else:
            best = f
            merged.append(f)
    return merged


def one_by_one(text: str, found: list[Finding]) -> tuple[str, list[list[Any]]]:
    addresses = [f for f in found if f[2] == "IP_ADDRESS" and f[3] >= MIN_SCORE]
    acted = [
        f
        for f in found
        if f[3] >= MIN_SCORE and is_personal(f[2], text[f[0] : f[1]], f[3])
        and not (f[2] == "PHONE_NUMBER" and any(a[0] <= f[0] and f[1] <= a[1] for a in addresses))
    ]  # fmt: skip
    merged = one_by_one_merged(acted)
    new = text
    for start, end, entity, _ in reversed(merged):
        new = new[:start] + replacement(entity, text[start:end], "mask", b"") + new[end:]
    keys = {f[:3] for f in acted}
    spans = [[e, s, t, "mask"] for s, t, e, _ in merged]
    spans += [[e, s, t, "spared"] for s, t, e, _ in found if (s, t, e) not in keys]
    return new, sorted(spans, key=lambda s: (s[1], s[2], s[0]))


texts_ = st.lists(
    st.tuples(
        st.text("0123456789.:@-aé漢fex", min_size=1, max_size=30),
        st.lists(
            st.tuples(
                st.integers(0, 29),
                st.integers(1, 15),
                st.sampled_from(ENTITIES),
                st.sampled_from((0.05, 0.4, 0.5, 1.0)),
            ),
            max_size=8,
        ),
    ),
    max_size=4,
)


@settings(max_examples=300, deadline=None)
@given(texts_)
def test_columns_say_what_one_finding_after_the_other_says(drawn: list[tuple[str, list[Any]]]) -> None:
    texts = [text for text, _ in drawn]
    rows = [
        sorted({(s, min(len(text), s + n), e, x) for s, n, e, x in found if s < len(text)}) for text, found in drawn
    ]
    kept = Texts.of(pa.array(texts, pa.large_string()))
    found = columns(rows)
    assert tuples(found, len(texts)) == rows
    acted_on = to_replace(found, kept)
    merged = merge_overlaps(found.where(acted_on))
    spans, spared = describe_spans(found, acted_on, merged, {}, len(texts))
    new = replace_in_texts(kept, merged, {}, b"").to_pylist()
    for i, text in enumerate(texts):
        expected, spans_of_it = one_by_one(text, rows[i])
        assert (new[i], json.loads(spans[i] or "[]")) == (expected, spans_of_it)
        assert spared[i] == sum(s[3] == "spared" for s in spans_of_it)


def test_overlapping_findings_leave_nothing_standing() -> None:
    names = ("A", "B", "C", "D")
    found = columns([[(0, 5, "A", 0.5), (3, 9, "B", 0.9), (8, 10, "C", 0.4), (12, 14, "D", 1.0)]], names)
    assert tuples(merge_overlaps(found), 1) == [[(0, 10, "B", 0.9), (12, 14, "D", 1.0)]]
    assert tuples(merge_overlaps(columns([[(0, 5, "B", 0.5), (0, 5, "A", 0.5)]], names)), 1) == [[(0, 5, "A", 0.5)]]


def test_public_addresses_are_those_of_ipaddress() -> None:
    """At the edges of every special network, and at random."""
    rng = random.Random(5)
    special = """0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24
        192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4"""
    numbers = [rng.getrandbits(32) for _ in range(500)]
    for network in map(ipaddress.ip_network, special.split()):
        first, last = int(network[0]), int(network[-1])
        numbers += [n for n in (first - 1, first, first + 1, last - 1, last, last + 1) if 0 <= n < 1 << 32]
    values = [str(ipaddress.IPv4Address(n)) for n in numbers]
    values += [f"{v}/{rng.randrange(33)}" for v in values[:50]]
    values += ["::1", "2001:db8::1", "2a00:1450:4001::1", "2001:4860:4860::8888", "::ffff:8.8.8.8", "::FFFF:10.0.0.1"]
    values += ["0:0:0:0:0:ffff:8.8.8.8", "fe80::1%eth0", "2::1", "200::1:2:3", "3fff::1:2", "2001::", "::2001:1:2"]
    values += [
        "1.2.3",
        "1.2.3.4.5",
        "01.2.3.4",
        "1..2.3",
        "1.2.3.4/",
        "1.2.3.4/32",
        "1.2.3.4/33",
        "10.2.3.4/8x",
        "a",
        "256.1.1.1",
        "ab:cd",
        "1.2.3.4/3/3",
    ]
    found = columns([[(0, len(v), "IP_ADDRESS", 0.6)] for v in values])
    said = to_replace(found, Texts.of(pa.array(values, pa.large_string())))
    assert said.tolist() == [is_personal("IP_ADDRESS", v, 0.6) for v in values]


@pytest.mark.parametrize("texts", [[], [None, ""], ["no finding"]])
def test_nothing_to_replace(texts: list[str | None]) -> None:
    kept = Texts.of(pa.array(texts, pa.large_string()))
    found = columns([])
    assert replace_in_texts(kept, merge_overlaps(found), {}, b"").to_pylist() == [t or "" for t in texts]
    assert describe_spans(found, to_replace(found, kept), found, {}, len(texts))[0] == [None] * len(texts)
