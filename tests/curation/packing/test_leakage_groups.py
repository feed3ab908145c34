"""The split parts nothing that belongs together: the same text, the same address, duplicates that were let stay."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curation.packing import train_validation_split
from curation.packing.leakage_groups import leakage_group_stages, split_hashes
from tests.curation.stages import corpus_of, cut, documents, run

SEED = 17


def sides(table: pa.Table, fraction: float, tasks: int = 1, clusters: tuple[str, ...] = ()) -> list[bool]:
    """Which documents of a table are for validation, by the stages that come before tokenizing."""
    parts = cut(table, tasks, tasks if tasks > 1 else None)
    corpus = corpus_of(parts, SEED)

    def plan():
        yield from leakage_group_stages(corpus, int(fraction * corpus.documents), clusters)
        first, second = train_validation_split.survey_stages(corpus)
        yield first
        yield second

    rows = run(plan(), parts).rows
    found: dict[bytes, bool] = {}
    for task, part in enumerate(parts):
        mine = train_validation_split.read_split_rule(iter(rows.filter(pc.equal(rows["to"], task)).to_batches()))
        held = mine.validation_mask(part["text"].combine_chunks(), SEED, fraction)
        found |= dict(zip(part["doc_id"].to_pylist(), held.tolist(), strict=True))
    return [found[i] for i in table["doc_id"].to_pylist()]


def crawl(rows: list[tuple[str, str | None, str, int | None]]) -> pa.Table:
    """Documents of (text, url, domain, number of the document that this one is a duplicate of)."""
    table = documents([r[0] for r in rows], url=[r[1] for r in rows], domain=[r[2] for r in rows])
    ids = [i.hex() for i in table["doc_id"].to_pylist()]
    of = [None if r[3] is None or r[3] % len(rows) == i else ids[r[3] % len(rows)] for i, r in enumerate(rows)]
    near = [{"of": o, "copies": None if o else 1 + of.count(i)} for o, i in zip(of, ids, strict=True)]
    kind = pa.struct([("of", pa.string()), ("copies", pa.int64())])
    return table.append_column("near", pa.array(near, kind))


# few texts, addresses and domains: nearly every document is related to another, often by a chain
ROWS = st.lists(
    st.tuples(
        st.integers(0, 11).map(lambda i: f"text {i}"),
        st.sampled_from([None, "", " ", *(f"http://example.org/{i}" for i in range(9))]),
        st.sampled_from(["web", "code", "books"]),
        st.one_of(st.none(), st.none(), st.integers(0, 30)),
    ),
    min_size=1,
    max_size=30,
)


def related(a: dict[str, Any], b: dict[str, Any]) -> bool:
    address = bool(a["url"] and a["url"].strip()) and a["url"] == b["url"]
    kept = {a["near"]["of"] or a["doc_id"].hex(), b["near"]["of"] or b["doc_id"].hex()}
    return a["text"] == b["text"] or address or len(kept) == 1


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ROWS, st.sampled_from([0.1, 0.4, 0.95]), st.integers(2, 4))
def test_relatives_are_never_parted_however_they_lie(rows, fraction, tasks):
    table = crawl(rows)
    found = sides(table, fraction, clusters=("near",))
    assert sides(table, fraction, tasks, ("near",)) == found
    for (a, held), (b, other) in combinations(zip(table.to_pylist(), found, strict=True), 2):
        assert held == other or not related(a, b)


def test_the_same_page_under_two_spellings_of_its_address_and_another_text():
    rows = [(f"text {i}", f"http://example.org/{i}", "web", None) for i in range(300)]
    again = [(f"newer text {i}", f"https://www.example.org/{i}/?utm_source=x#top", "later", None) for i in range(300)]
    found = sides(crawl(rows + again), 0.2)
    assert found[:300] == found[300:] and 30 < sum(found[:300]) < 90


def test_a_document_without_relatives_is_placed_by_its_own_number():
    rows = [(f"text {i}", None, "web", None) for i in range(500)]
    table = crawl(rows)
    number = split_hashes(table["text"].combine_chunks(), SEED)
    expected = ((number < 0.1 * 2.0**64) | (number == number.min())) & (number != number.max())
    assert sides(table, 0.1) == expected.tolist()
    more = sides(table, 0.2)
    assert all(b or not a for a, b in zip(expected.tolist(), more, strict=True)) and sum(more) > expected.sum()


def test_families_are_held_out_as_often_as_others():
    """2,000 families of five and 2,000 documents alone; 0.1 of either, within four standard deviations."""
    rows = [(f"text {i}", f"http://example.org/{i % 2000}", "web", None) for i in range(10_000)]
    rows += [(f"alone {i}", None, "web", None) for i in range(2000)]
    found = sides(crawl(rows), 0.1)
    for held in (sum(found[:2000]), sum(found[10_000:])):
        assert abs(held - 200) < 4 * (2000 * 0.1 * 0.9) ** 0.5


def test_a_family_larger_than_validation_stays_in_training():
    rows = [(f"text {i}", "http://example.org/", "web", None) for i in range(60)]
    rows += [(f"alone {i}", None, "web", None) for i in range(140)]
    for fraction in (0.05, 0.2):
        found = sides(crawl(rows), fraction)
        assert not any(found[:60]) and any(found[60:])


def test_every_domain_of_two_families_has_one_on_each_side():
    rows = [(f"{domain} {i % 2}", None, domain, None) for domain in ("a", "b", "c") for i in range(4)]
    found = sides(crawl(rows), 0.01)
    for start in (0, 4, 8):
        assert set(found[start : start + 4]) == {True, False}
    shared = sides(crawl([(f"text {i}", None, d, None) for d in ("a", "b") for i in range(2)]), 0.01)
    assert shared[:2] == shared[2:] and set(shared) == {True, False}, "the same texts, in two domains"


def test_where_nobody_is_related_nothing_more_is_done():
    parts = cut(crawl([(f"text {i}", f"http://example.org/{i}", "web", None) for i in range(50)]), 3)
    assert run(leakage_group_stages(corpus_of(parts), 5, ("near",)), parts).names == ["leakage_keys", "shared_keys"]
