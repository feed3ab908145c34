"""Assigns documents to the groups of a mix: SQL predicates over signals that give them another domain in the shards.

`mix.groups` names them in order; a document is of the first group whose predicate is TRUE, else of its source's domain.
So a mix can weight languages, quality bands or how often a page was crawled, and documents/ does not change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from curation.config import rules


class Grouping:
    """Domain of each document of a batch. Opens a DuckDB connection on first use, which is not pickled."""

    def __init__(self, groups: Mapping[str, str], schema: pa.Schema) -> None:
        """`schema`: the base columns and structs of signals that a predicate may refer to."""
        self.groups = dict(groups)
        used = {c.partition(".")[0] for name, sql in groups.items() for c in rules.parse(name, sql, "").columns}
        self.schema = pa.schema([f for f in schema if f.name in used])
        self._decider: rules.Decider | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_decider": None}

    @property
    def columns(self) -> list[str]:
        """The columns that a batch needs, beside `domain`."""
        return [n for n in self.schema.names if n != "domain"]

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        """The domains of the batch's rows."""
        if self._decider is None:
            # a decision names the first rule that is not TRUE: here the first group that is
            asked = {name: f"({sql}\n) IS NOT TRUE" for name, sql in self.groups.items()}
            self._decider = rules.Decider(asked, self.schema)
        found, _ = self._decider.decide(batch)
        names = list(self.groups)
        own = batch.column("domain").to_pylist()
        return pa.array([names[i] if i >= 0 else d for i, d in zip(found.tolist(), own, strict=True)], pa.string())
