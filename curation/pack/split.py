"""Training or validation: decided by what a document says, not by where it was found.

    number      h = keyed hash of the xxh3-128 of the text
    validation  h < fraction * 2^64, or h is the smallest of its domain; but never the largest of its domain

So the same text found again in a later crawl falls on the same side, a larger fraction keeps what a smaller one chose,
and every domain with two different texts has at least one on each side, however small it is. Near-duplicates cannot
straddle: deduplication has left one document of each, and it stands for them. (Where the smallest or the largest
decides, new documents may take its place; beyond 1/fraction documents that hardly ever matters.)

The smallest and the largest need to be known before any document can be placed: two small stages find them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from ..keyed import U64, keyed
from ..step import Corpus, Documents, Stage

TRAIN, VALIDATION = "train", "validation"

_DOMAINS = pa.schema(
    [
        ("to", pa.uint32()),
        ("domain", pa.string()),
        ("documents", pa.int64()),
        ("text_bytes", pa.int64()),
        ("lowest", pa.uint64()),
        ("highest", pa.uint64()),
    ]
)

# domain -> (lowest, highest) number of its documents
Extremes = Mapping[str, tuple[int, int]]


def numbers(texts: pa.Array, seed: int) -> U64:
    """The number of each text."""
    hashes = [xxhash.xxh3_128_digest((t or "").encode()) for t in texts.to_pylist()]
    return keyed(pa.array(hashes, pa.binary(16)), seed, "split")


def validation(numbers: U64, lowest: int, highest: int, fraction: float) -> npt.NDArray[np.bool_]:
    """Which documents of one domain are for validation. A fraction of 0 means none at all."""
    if fraction <= 0:
        return np.zeros(len(numbers), bool)
    below = np.uint64(min(int(fraction * 2.0**64), 2**64 - 1))
    chosen: npt.NDArray[np.bool_] = ((numbers < below) | (numbers == lowest)) & (numbers != highest)
    return chosen


class Route(Protocol):
    """Gives documents another domain than their source's; looks at `columns` and `domain` of a batch."""

    @property
    def columns(self) -> Sequence[str]: ...

    def __call__(self, batch: pa.RecordBatch) -> pa.Array: ...


def survey_stages(corpus: Corpus, route: Route | None = None) -> tuple[Stage, Stage]:
    """Two stages: every task of documents is sent one row a domain, with its count, bytes and extremes.

    The tally of the second is `documents/<domain>` and `text_bytes/<domain>`.
    """
    first = Stage("survey", partial(_survey, corpus.seed, route), _DOMAINS, 1, at="documents")
    return first, Stage("extremes", partial(_extremes, corpus.tasks), _DOMAINS, corpus.tasks, tally=_count)


def domains(batch: pa.RecordBatch, route: Route | None) -> list[str]:
    """The domain of each row."""
    return [d or "" for d in (batch.column("domain") if route is None else route(batch)).to_pylist()]


def _survey(
    seed: int, route: Route | None, rows: Iterator[pa.RecordBatch], documents: Documents
) -> Iterator[pa.RecordBatch]:
    found: dict[str, list[int]] = {}
    more = [c for c in route.columns if c != "text"] if route else []
    for batch in documents.batches(["domain", "text", *more]):
        number = numbers(batch.column("text"), seed).tolist()
        sizes = pc.binary_length(batch.column("text")).fill_null(0).to_pylist()
        for domain, size, h in zip(domains(batch, route), sizes, number, strict=True):
            _merge(found, domain, 1, size, h, h)
    yield _rows(found, 0)


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
    return pa.RecordBatch.from_arrays([marks, pa.array(names, pa.string()), *columns], schema=_DOMAINS)


def _extremes(tasks: int, rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    found: dict[str, list[int]] = {}
    for batch in rows:
        for row in batch.to_pylist():
            _merge(found, row["domain"], row["documents"], row["text_bytes"], row["lowest"], row["highest"])
    for task in range(tasks):
        yield _rows(found, task)


def _count(batch: pa.RecordBatch) -> Mapping[str, int]:
    tally: dict[str, int] = {}
    for row in batch.to_pylist():
        if row["to"] == 0:  # every task gets the same rows: they count once
            tally[f"documents/{row['domain']}"] = row["documents"]
            tally[f"text_bytes/{row['domain']}"] = row["text_bytes"]
    return tally


def read_extremes(rows: Iterator[pa.RecordBatch]) -> Extremes:
    """What the survey sent to a task of documents."""
    return {row["domain"]: (row["lowest"], row["highest"]) for batch in rows for row in batch.to_pylist()}
