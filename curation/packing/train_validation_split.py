"""Splits documents into training and validation by a hash of their text.

    split hash  keyed hash of the xxh3-128 of the text; documents of one leakage group share one (leakage_groups.py)
    validation  split hash < fraction * 2^64, or the smallest of a domain; but never the largest of any domain

The split depends on the split hash alone, in every domain, so documents with equal hashes are never separated. The same
text in a later crawl is on the same side, and a larger fraction keeps what a smaller one chose. Every domain with two
different hashes has at least one on each side, however small it is (unless its smallest is the largest of another
domain). A new document may become the smallest or the largest of a domain; beyond 1/fraction documents that hardly
matters.

The smallest and the largest hash of each domain must be known before any document is assigned: two small stages find
them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.packing.leakage_groups import LEAKAGE_GROUPS, keyed_split_hashes, split_hashes
from curation.seeded_hash import U64
from curation.step import Corpus, Documents, Stage

TRAIN, VALIDATION = "train", "validation"

# A domain, or (if domain is null) the split hash of a text in a leakage group, for the task that has the text.
_DOMAINS = pa.schema(
    [
        ("to", pa.uint32()),
        ("domain", pa.string()),
        ("documents", pa.int64()),
        ("text_bytes", pa.int64()),
        ("lowest", pa.uint64()),
        ("highest", pa.uint64()),
        ("task", pa.uint32()),
        ("text", pa.uint64()),
        ("split_hash", pa.uint64()),
    ]
)


@dataclass(frozen=True)
class SplitRule:
    """Decides which documents of a task are for validation.

    lowest, highest      the smallest and the largest split hash of every domain
    texts, group_hashes  split hashes of this task's texts that are in leakage groups (sorted), and those of the groups
    """

    lowest: U64
    highest: U64
    texts: U64
    group_hashes: U64

    def validation_mask(self, texts: pa.Array, seed: int, fraction: float) -> npt.NDArray[np.bool_]:
        """Which of these texts are for validation: bool [n]."""
        found = replace_by_group(split_hashes(texts, seed), self.texts, self.group_hashes)
        return is_validation(found, self.lowest, self.highest, fraction)


def replace_by_group(own: U64, texts: U64, shared: U64) -> U64:
    """The split hash of each text: its own, or that of its leakage group."""
    if not len(texts):
        return own
    at = np.minimum(np.searchsorted(texts, own), len(texts) - 1)
    return np.where(texts[at] == own, shared[at], own)


def is_validation(hashes: U64, lowest: npt.ArrayLike, highest: npt.ArrayLike, fraction: float) -> npt.NDArray[np.bool_]:
    """Which documents are for validation, by the smallest and the largest hashes of all domains; fraction 0: none."""
    if fraction <= 0:
        return np.zeros(len(hashes), bool)
    below = np.uint64(min(int(fraction * 2.0**64), 2**64 - 1))
    low, high = (np.isin(hashes, np.asarray(ends, np.uint64)) for ends in (lowest, highest))
    return ((hashes < below) | low) & ~high


class Route(Protocol):
    """Assigns documents to other domains than those of their sources; reads `columns` and `domain` of a batch."""

    @property
    def columns(self) -> Sequence[str]: ...

    def __call__(self, batch: pa.RecordBatch) -> pa.Array: ...


def survey_stages(corpus: Corpus, route: Route | None = None) -> tuple[Stage, Stage]:
    """Two stages that send to every task of documents one row per domain: its count, bytes and extreme split hashes.

    The first takes rows of `LEAKAGE_GROUPS`, if there are any; after the second, each task has its own again.
    The counters of the second are `documents/<domain>` and `text_bytes/<domain>`.
    """
    first = Stage("survey", partial(_survey, corpus.seed, route), _DOMAINS, 1, at="documents")
    return first, Stage("extremes", partial(_extremes, corpus.tasks), _DOMAINS, corpus.tasks, counters=_count)


def document_domains(batch: pa.RecordBatch, route: Route | None) -> list[str]:
    """The domain of each row."""
    return [d or "" for d in (batch.column("domain") if route is None else route(batch)).to_pylist()]


def _survey(
    seed: int, route: Route | None, rows: Iterator[pa.RecordBatch], documents: Documents
) -> Iterator[pa.RecordBatch]:
    grouped = pa.Table.from_batches(rows, LEAKAGE_GROUPS)
    texts, shared = _sort_by_text(grouped)
    found: dict[str, list[int]] = {}
    more = list(route.columns) if route else []
    for batch in documents.batches(["domain", "text_hash", "bytes", *more]):
        own = replace_by_group(keyed_split_hashes(batch.column("text_hash"), seed), texts, shared).tolist()
        sizes = batch.column("bytes").fill_null(0).to_pylist()
        for domain, size, split_hash in zip(document_domains(batch, route), sizes, own, strict=True):
            _add_to_domain(found, domain, 1, size, split_hash, split_hash)
    yield _domain_rows(found, 0)
    n = grouped.num_rows
    columns = [pa.array(np.zeros(n, np.uint32)), *(pa.nulls(n, f.type) for f in list(_DOMAINS)[1:6])]
    columns += [pa.array(np.full(n, documents.task, np.uint32)), grouped["text"], grouped["split_hash"]]
    yield from pa.table(columns, schema=_DOMAINS).to_batches()


def _sort_by_text(grouped: pa.Table) -> tuple[U64, U64]:
    texts, shared = (grouped[name].to_numpy() for name in ("text", "split_hash"))
    order = np.argsort(texts)
    return texts[order], shared[order]


def _add_to_domain(found: dict[str, list[int]], domain: str, count: int, size: int, lowest: int, highest: int) -> None:
    known = found.setdefault(domain, [0, 0, lowest, highest])
    known[0] += count
    known[1] += size
    known[2] = min(known[2], lowest)
    known[3] = max(known[3], highest)


def _domain_rows(found: Mapping[str, list[int]], to: int) -> pa.RecordBatch:
    names = sorted(found)
    columns = [pa.array([found[d][k] for d in names], _DOMAINS.field(k + 2).type) for k in range(4)]
    marks = pa.array([to] * len(names), pa.uint32())
    rest = [pa.nulls(len(names), f.type) for f in list(_DOMAINS)[6:]]
    return pa.RecordBatch.from_arrays([marks, pa.array(names, pa.string()), *columns, *rest], schema=_DOMAINS)


def _extremes(tasks: int, rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    found: dict[str, list[int]] = {}
    for batch in rows:
        of_texts = pc.is_null(batch.column("domain"))
        for row in batch.filter(pc.invert(of_texts)).to_pylist():
            _add_to_domain(found, row["domain"], row["documents"], row["text_bytes"], row["lowest"], row["highest"])
        back = batch.filter(of_texts)
        yield back.set_column(0, _DOMAINS.field("to"), back.column("task"))
    for task in range(tasks):
        yield _domain_rows(found, task)


def _count(batch: pa.RecordBatch) -> Mapping[str, int]:
    counters: dict[str, int] = {}
    for row in batch.to_pylist():
        if row["to"] == 0 and row["domain"] is not None:  # every task gets the same rows; count them once
            counters[f"documents/{row['domain']}"] = row["documents"]
            counters[f"text_bytes/{row['domain']}"] = row["text_bytes"]
    return counters


def read_split_rule(rows: Iterator[pa.RecordBatch]) -> SplitRule:
    """The split rule, from the rows that the stage `extremes` sent to a task of documents."""
    table = pa.Table.from_batches(rows, _DOMAINS)
    of_texts = pc.is_null(table["domain"])
    known = table.filter(pc.invert(of_texts))
    lowest, highest = (known[name].to_numpy().astype(np.uint64) for name in ("lowest", "highest"))
    return SplitRule(lowest, highest, *_sort_by_text(table.filter(of_texts)))
