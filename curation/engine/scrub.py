"""Nothing unscrubbed is stored: every string on its way to a file passes the pipeline's own scrubbing step first."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from curation import record
from curation.engine import apply
from curation.step import MapStep


@dataclass(frozen=True)
class Scrub:
    """The scrubbing step of a pipeline (or none) at its position; signals of steps before it may hold raw text."""

    step: MapStep | None
    position: int

    def strings(self, strings: pa.Array) -> pa.Array:
        if self.step is None:
            return strings
        ready = apply.opened(self.step, ("scrub", self.step.name))
        with apply.without_sockets(self.step.name):
            return ready.scrub(strings).cast(strings.type)

    def text(self, text: str) -> str:
        """One string: a reason, say, that may quote what it complains of."""
        return str(self.strings(pa.array([text], pa.string()))[0].as_py())

    def base(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """A batch with `url` and `meta` scrubbed. Done when reading, so that steps see what is stored."""
        if self.step is None:
            return batch
        for name in ("url", "meta"):
            batch = record.with_column(batch, name, self.strings(batch.column(name)))
        return batch

    def signals(self, signals: pa.StructArray, position: int) -> pa.StructArray:
        """Strings that a step took from text not yet scrubbed (a title), before anyone sees them."""
        if self.step is None or position >= self.position:
            return signals
        kind = signals.type
        arrays = [signals.field(i) for i in range(kind.num_fields)]
        arrays = [self.strings(a) if pa.types.is_string(a.type) else a for a in arrays]
        mask = pc.is_null(signals) if signals.null_count else None
        return pa.StructArray.from_arrays(arrays, fields=list(kind), mask=mask)
