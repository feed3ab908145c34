"""Removes the lines that C4 would not keep (`c4_line_filter`); whether the document stays is for rules to decide.

C4 (Raffel et al. 2020, section 2.2) removes lines and drops documents in one pass; `heuristics` computes its statistics
and changes nothing. This step does the other half, for recipes that continue with the remaining lines, as FineWeb does:
its own rules see the text after C4's. A line is kept as in C4's published code: three words or more, none over 1,000
characters, no "javascript", no policies, terminal punctuation at its end (unless `terminal` is off, as in FineWeb);
citations such as [1] and [edit] and white space around a line are removed. C4 counts words between white space; in
scripts without spaces they are estimated from the letters (six of Han, twelve of Thai are three words), where C4's own
rule would remove every line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from curation.document import string_buffers, with_column
from curation.step import MapStep


@dataclass
class C4LineFilter(MapStep):
    """Rewrites the text to the lines that C4 keeps. Signals: `lines` that were not blank, and how many were `kept`.

    terminal  whether a line must end in . ? ! " or ' (C4: yes; FineWeb: no)
    """

    terminal: bool = True
    name: str = "c4_line_filter"

    version: ClassVar[str] = "2"  # words of scripts without spaces
    rewrites: ClassVar[bool] = True
    _classes: Any = field(init=False, repr=False, compare=False, default=None)

    @property
    def signals(self) -> pa.Schema:
        return pa.schema([("lines", pa.int64()), ("kept", pa.int64())])

    def packages(self) -> Sequence[str]:
        return ("numba", "regex")

    def rules(self) -> Mapping[str, str]:
        """Drops documents with no line left."""
        return {"empty": f"{self.name}.kept > 0"}

    def open(self) -> None:
        """Compiles the kernels unless they are cached, and builds the table of character classes."""
        import curation.quality.heuristics.c4_kernels  # noqa: F401
        from curation.quality.heuristics.character_classes import character_classes

        self._classes = character_classes()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_classes": None}

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch with the remaining text and the signals; a null text becomes an empty one."""
        import numpy as np

        from curation.quality.heuristics.c4_kernels import write_kept_lines
        from curation.quality.heuristics.character_classes import decode

        if self._classes is None:
            self.open()
        data, where = string_buffers(batch.column("text"))
        rows = batch.num_rows
        longest = int(np.diff(where).max()) if rows else 0
        code, flags = np.empty(longest + 1, np.int32), np.empty(longest + 1, np.uint16)
        out = np.empty(int(where[-1] - where[0]) + rows + 1 if rows else 1, np.uint8)
        ends, counts = np.zeros(rows + 1, np.int64), np.zeros((rows, 2), np.int64)
        for i in range(rows):
            n = decode(data, where[i], where[i + 1], self._classes, code, flags)
            ends[i + 1] = write_kept_lines(code, flags, n, not self.terminal, out, ends[i], counts[i])
        kept = pa.LargeStringArray.from_buffers(rows, pa.py_buffer(ends), pa.py_buffer(out[: ends[-1]]))
        fields = list(self.signals)
        signals = pa.StructArray.from_arrays([pa.array(counts[:, i]) for i in range(2)], fields=fields)
        return with_column(with_column(batch, "text", kept), self.name, signals)
