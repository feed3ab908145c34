"""Holds findings of personal data as columns: a megabyte of log lines has 100,000, too many for a Python object each.

On `1.2.3.4 ` repeated, tuples took two thirds of the time, most of it in Python's garbage collector.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from curation.document import string_buffers

Column = np.ndarray[Any, Any]
Row = tuple[int, int, int, int, float]  # a finding: text, start, end, entity, score


@dataclass(frozen=True)
class Texts:
    """Texts as Arrow holds them: text i is data[offsets[i]:offsets[i + 1]], UTF-8; a null is an empty text."""

    data: Column
    offsets: Column

    @classmethod
    def of(cls, texts: pa.Array) -> Texts:
        return cls(*string_buffers(texts))

    def __len__(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True)
class Findings:
    """Findings sorted by text, start, end, entity and score, none twice."""

    entities: tuple[str, ...]  # sorted
    text: Column
    start: Column  # in characters of its text
    end: Column
    entity: Column  # index in `entities`
    score: Column

    def __len__(self) -> int:
        return len(self.text)

    @classmethod
    def sort(
        cls, entities: tuple[str, ...], text: Column, start: Column, end: Column, entity: Column, score: Column
    ) -> Findings:
        """`entity` is an index in `entities`, in whatever order they are given."""
        names = tuple(sorted(entities))
        rank = np.array([names.index(e) for e in entities], np.int64)
        columns = [text, start, end, rank[entity] if len(entity) else entity, score]
        if len(text):
            order = np.lexsort(columns[::-1])
            columns = [c[order] for c in columns]
            new = np.ones(len(text), bool)
            new[1:] = np.logical_or.reduce([c[1:] != c[:-1] for c in columns])
            columns = [c[new] for c in columns]
        return cls(names, *columns)

    @property
    def columns(self) -> tuple[Column, Column, Column, Column, Column]:
        """In the order of a Row."""
        return self.text, self.start, self.end, self.entity, self.score

    def where(self, mask: Column) -> Findings:
        return Findings(self.entities, *(c[mask] for c in self.columns))

    def rows(self) -> Iterator[Row]:
        return zip(*(c.tolist() for c in self.columns), strict=True)

    def with_entities(self, more: Sequence[str]) -> Findings:
        return Findings.sort((*self.entities, *more), *self.columns)

    def with_rows(self, rows: Sequence[Row]) -> Findings:
        more = np.array(rows, np.float64).reshape(-1, 5)  # exact: positions are far below 2**53
        both = [np.concatenate([c, more[:, i].astype(c.dtype)]) for i, c in enumerate(self.columns)]
        return Findings.sort(self.entities, *both)

    def byte_positions(self, texts: Texts) -> tuple[Column, Column]:
        """First byte of each finding, and the byte after its last, in the texts' data."""
        from curation.safety.pii.finding_kernels import byte_positions

        first, last = np.empty(len(self), np.int64), np.empty(len(self), np.int64)
        byte_positions(texts.data, texts.offsets, self.text, self.start, self.end, first, last)
        return first, last
