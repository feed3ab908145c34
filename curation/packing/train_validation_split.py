"""Training or validation: decided by what a document says, not by where it was found.

    number      keyed hash of the xxh3-128 of the text; documents that must not be parted have one number (related.py)
    validation  number < fraction * 2^64, or it is the smallest of a domain; but never the largest of any domain

A side hangs on the number alone, in every domain: what has one number is never parted. The same text found again in a
later crawl falls on the same side, a larger fraction keeps what a smaller one chose, and every domain with two
different numbers has at least one on each side, however small it is (but where its smallest is another domain's
largest). Where the smallest or the largest decides, new documents may take its place; beyond 1/fraction documents that
hardly ever matters.

The smallest and the largest need to be known before any document can be placed: two small stages find them.
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

from curation.packing.leakage_groups import RELATED, text_numbers
from curation.seeded_hash import U64
from curation.step import Corpus, Documents, Stage

TRAIN, VALIDATION = "train", "validation"

# A domain, or (without one) the number of a text that has relatives, on its way to the task that has it.
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
        ("number", pa.uint64()),
    ]
)


@dataclass(frozen=True)
class Sides:
    """What decides the side of a document: the smallest and the largest number of every domain, and the numbers of the
    texts of this task that have relatives (`texts` sorted)."""

    lowest: U64
    highest: U64
    texts: U64
    numbers: U64

    def of(self, texts: pa.Array, seed: int, fraction: float) -> npt.NDArray[np.bool_]:
        """Which of these texts are for validation."""
        found = replaced(text_numbers(texts, seed), self.texts, self.numbers)
        return validation(found, self.lowest, self.highest, fraction)


def replaced(own: U64, texts: U64, numbers: U64) -> U64:
    """The number of each text: its own, or the one that it shares with its relatives."""
    if not len(texts):
        return own
    at = np.minimum(np.searchsorted(texts, own), len(texts) - 1)
    return np.where(texts[at] == own, numbers[at], own)


def validation(numbers: U64, lowest: npt.ArrayLike, highest: npt.ArrayLike, fraction: float) -> npt.NDArray[np.bool_]:
    """Which documents are for validation, by the smallest and the largest numbers of all domains. A fraction of 0 means
    none at all."""
    if fraction <= 0:
        return np.zeros(len(numbers), bool)
    below = np.uint64(min(int(fraction * 2.0**64), 2**64 - 1))
    low, high = (np.isin(numbers, np.asarray(ends, np.uint64)) for ends in (lowest, highest))
    return ((numbers < below) | low) & ~high


class Route(Protocol):
    """Gives documents another domain than their source's; looks at `columns` and `domain` of a batch."""

    @property
    def columns(self) -> Sequence[str]: ...

    def __call__(self, batch: pa.RecordBatch) -> pa.Array: ...


def survey_stages(corpus: Corpus, route: Route | None = None) -> tuple[Stage, Stage]:
    """Two stages: every task of documents is sent one row a domain, with its count, bytes and extremes.

    The first may be sent rows of `RELATED`; every task gets its own of them again behind the second.
    The counters of the second is `documents/<domain>` and `text_bytes/<domain>`.
    """
    first = Stage("survey", partial(_survey, corpus.seed, route), _DOMAINS, 1, at="documents")
    return first, Stage("extremes", partial(_extremes, corpus.tasks), _DOMAINS, corpus.tasks, counters=_count)


def domains(batch: pa.RecordBatch, route: Route | None) -> list[str]:
    """The domain of each row."""
    return [d or "" for d in (batch.column("domain") if route is None else route(batch)).to_pylist()]


def _survey(
    seed: int, route: Route | None, rows: Iterator[pa.RecordBatch], documents: Documents
) -> Iterator[pa.RecordBatch]:
    related = pa.Table.from_batches(rows, RELATED)
    texts, number = _sorted(related)
    found: dict[str, list[int]] = {}
    more = [c for c in route.columns if c != "text"] if route else []
    for batch in documents.batches(["domain", "text", *more]):
        own = replaced(text_numbers(batch.column("text"), seed), texts, number).tolist()
        sizes = pc.binary_length(batch.column("text")).fill_null(0).to_pylist()
        for domain, size, h in zip(domains(batch, route), sizes, own, strict=True):
            _merge(found, domain, 1, size, h, h)
    yield _rows(found, 0)
    n = related.num_rows
    columns = [pa.array(np.zeros(n, np.uint32)), *(pa.nulls(n, f.type) for f in list(_DOMAINS)[1:6])]
    columns += [pa.array(np.full(n, documents.task, np.uint32)), related["text"], related["number"]]
    yield from pa.table(columns, schema=_DOMAINS).to_batches()


def _sorted(related: pa.Table) -> tuple[U64, U64]:
    texts, number = (related[name].to_numpy() for name in ("text", "number"))
    order = np.argsort(texts)
    return texts[order], number[order]


def _merge(found: dict[str, list[int]], domain: str, count: int, size: int, lowest: int, highest: int) -> None:
    known = found.setdefault(domain, [0, 0, lowest, highest])
    known[0] += count
    known[1] += size
    known[2] = min(known[2], lowest)
    known[3] = max(known[3], highest)


def _rows(found: Mapping[str, list[int]], to: int) -> pa.RecordBatch:
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
            _merge(found, row["domain"], row["documents"], row["text_bytes"], row["lowest"], row["highest"])
        back = batch.filter(of_texts)
        yield back.set_column(0, _DOMAINS.field("to"), back.column("task"))
    for task in range(tasks):
        yield _rows(found, task)


def _count(batch: pa.RecordBatch) -> Mapping[str, int]:
    counters: dict[str, int] = {}
    for row in batch.to_pylist():
        if row["to"] == 0 and row["domain"] is not None:  # every task gets the same rows: they count once
            counters[f"documents/{row['domain']}"] = row["documents"]
            counters[f"text_bytes/{row['domain']}"] = row["text_bytes"]
    return counters


def read_sides(rows: Iterator[pa.RecordBatch]) -> Sides:
    """What the survey sent to a task of documents."""
    table = pa.Table.from_batches(rows, _DOMAINS)
    of_texts = pc.is_null(table["domain"])
    known = table.filter(pc.invert(of_texts))
    lowest, highest = (known[name].to_numpy().astype(np.uint64) for name in ("lowest", "highest"))
    return Sides(lowest, highest, *_sorted(table.filter(of_texts)))
