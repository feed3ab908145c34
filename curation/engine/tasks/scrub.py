"""Scrubs personal data from every string before it is stored, with the pipeline's own scrubbing step.

Strings reach a file in more ways than as `text`: as columns of a reader, as signals of steps that run before the
scrubbing step, as reasons of drops, and in error messages, since many quote what they fail on.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from curation import document
from curation.core.errors import DamagedFile, UserError
from curation.engine.planning.map_spec import Poisoned
from curation.engine.tasks import run_steps
from curation.engine.tasks.source_changes import SourceChanged
from curation.engine.tasks.task_cost import part
from curation.step import MapStep, UnreadableFile

# Characters of a reason that are kept. Cut after scrubbing: half of a value would not be recognized.
MAX_REASON_CHARS = 300


class ScrubbedError(Exception):
    """Replaces an error whose message quoted personal data: its type, its scrubbed message and its traceback."""


@dataclass(frozen=True)
class Scrubber:
    """The scrubbing step of a pipeline (or None) and its position: signals of earlier steps may contain raw text."""

    step: MapStep | None
    position: int

    def strings(self, strings: pa.Array) -> pa.Array:
        if self.step is None or strings.null_count == len(strings):
            return strings
        ready = run_steps.open_step(self.step, ("scrub", repr(self.step)))
        with run_steps.without_sockets(self.step.name), part("scrub"):
            return ready.scrub(strings).cast(strings.type)

    def text(self, text: str) -> str:
        """One string scrubbed, such as a reason that quotes the text."""
        return str(self.strings(pa.array([text], pa.string()))[0].as_py())

    def reason(self, text: str) -> str:
        """One reason, scrubbed and then cut."""
        scrubbed = self.text(text)
        return scrubbed if len(scrubbed) <= MAX_REASON_CHARS else scrubbed[:MAX_REASON_CHARS] + "…"

    def base(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """A batch with the strings of its reader scrubbed: `url`, `meta`, those in `read` and `drop` (a server can name
        anything as charset, a reason may quote). Done when reading, so that steps see what is stored."""
        if self.step is None:
            return batch
        for name in ("url", "meta", "read", "drop"):
            if name in batch.schema.names:
                batch = document.with_column(batch, name, self._deep(batch.column(name)))
        return batch

    def signals(self, signals: pa.StructArray, position: int) -> pa.StructArray:
        """Signals with their strings scrubbed if the step saw unscrubbed text (a title, say)."""
        return self._deep(signals) if self.step is not None and position < self.position else signals

    def _deep(self, array: pa.Array) -> pa.Array:
        """The array with all strings in it scrubbed, however nested; other types as they are."""
        kind = array.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            seen = array.dictionary_encode()  # charsets, media types: few values, many rows
            return self.strings(seen.dictionary.cast(kind)).take(seen.indices)
        mask = pc.is_null(array) if array.null_count else None
        if pa.types.is_struct(kind):
            arrays = [self._deep(array.field(i)) for i in range(kind.num_fields)]
            return pa.StructArray.from_arrays(arrays, fields=list(kind), mask=mask)
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            flat = self._deep(array.flatten())
            offsets = pc.subtract(array.offsets, array.offsets[0])
            lengths = pc.fill_null(pc.list_value_length(array), 0)
            if mask is not None:  # what a null spans is not in `flatten`
                import numpy as np

                offsets = pa.array(np.concatenate([[0], np.cumsum(lengths.to_numpy())]), array.offsets.type)
            cls = pa.ListArray if pa.types.is_list(kind) else pa.LargeListArray
            return cls.from_arrays(offsets, flat, type=kind, mask=mask)
        return array

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Replaces the message of an exception raised inside by one that may be logged, if scrubbing changes it."""
        try:
            yield
        except Exception as error:
            if self.step is None:
                raise
            # it names a step and a call only, and the scrubbing step may be the one that opened the socket
            if isinstance(error, run_steps.SocketOpened):
                raise run_steps.SocketOpened(str(error)) from None
            try:
                clean = self._clean(error)
            except Exception:  # scrubbing itself fails: then only the type is reported
                clean = ScrubbedError(
                    f"{type(error).__name__} (its message is withheld, because scrubbing it fails too)"
                )
            if clean is error:
                raise
            raise clean from None

    def _clean(self, error: Exception) -> Exception:
        messages = list(_messages(error))
        if isinstance(error, DamagedFile):  # names a file of the run alone
            return error
        if isinstance(error, Poisoned) or self.strings(pa.array(messages, pa.string())).to_pylist() == messages:
            return error
        message = self.text(str(error))
        if isinstance(error, UnreadableFile):
            return UnreadableFile(error.path, self.text(error.reason), error.offset, error.length)
        if isinstance(error, (UserError, SourceChanged)):
            return type(error)(message)
        if isinstance(error, OSError):  # the driver distinguishes these by type and number
            return OSError(message) if error.errno is None else OSError(error.errno, message)
        trace = "".join(traceback.format_tb(error.__traceback__)[-3:])
        return ScrubbedError(f"{type(error).__name__}: {message}\n{trace}")


def _messages(error: BaseException | None) -> Iterator[str]:
    """The messages of an error and of those that led to it, which a traceback shows too."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield f"{type(error).__name__}: {error}".encode("utf-8", "replace").decode()
        error = error.__cause__ or error.__context__
