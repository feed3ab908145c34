"""Gives a map task its rows: from its splits of input, the base store of an earlier run, or the phase before.

Also applies the rules of reading: records without a document, the poison list, the exclude list, the sample.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from curation.engine.planning.exclude_list import url_key
from curation.engine.planning.map_spec import MapPhase, MapSpec
from curation.engine.tasks import column_store
from curation.engine.tasks.scrub import Scrubber
from curation.engine.tasks.source_changes import check_unchanged
from curation.engine.tasks.task_cost import part
from curation.engine.tasks.task_documents import BASE, CHUNK, TaskDocuments
from curation.step import UnreadableFile
from curation.storage import Storage

# A chunk is complete from 1 MB on: below, what a chunk costs whatever its size is more than 3 % of a run. Batches are
# not joined above 4 MB, so that memory stays bounded by bytes.
CHUNK_BYTES, MAX_CHUNK_BYTES = 1 << 20, 4 << 20
READER_ROWS = 256  # of a reader's batch: a reader of tables does not look at bytes


@dataclass
class InputRows:
    """The rows of one task, in chunks of ascending row numbers; after them their number, and what could not be read."""

    phase: MapPhase
    spec: MapSpec
    storage: Storage
    scrub: Scrubber
    rows: int = 0
    unread: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._poison = {bytes.fromhex(i): reason for i, reason in self.spec.poison}
        self._excluded_urls = {url_key(u): why for u, why in self.phase.excluded.urls.items()}

    def chunks(
        self, previous: TaskDocuments | None, base: column_store.Reader | None, writer: column_store.Writer | None
    ) -> Iterator[tuple[np.ndarray, pa.RecordBatch, bool]]:
        """(row numbers, base columns, whether `text` is among them).

        previous: the documents of the phase before, if there is one. base: the base store, if an earlier run wrote
        it; then no input is opened. writer: where to write it if not.
        """
        if previous is not None:
            yield from self._from_phase_before(previous)
        elif base is not None and self.spec.probe is None:
            for table in base.all_rows():
                rows = table.column("row").to_numpy()
                self.rows += len(rows)
                yield rows, table.drop_columns(["row"]).combine_chunks().to_batches()[0], False
            self.unread = [dict(u) for u in self.spec.unread]
        else:
            yield from self._from_input(writer)

    def _from_phase_before(self, previous: TaskDocuments) -> Iterator[tuple[np.ndarray, pa.RecordBatch, bool]]:
        self.rows = previous.state.rows
        steps = [name for name in previous.state.signals if name in self.phase.types]  # no features
        columns = [f.name for f in BASE if f.name not in ("row", "drop")] + steps
        for lo in range(0, self.rows, CHUNK):
            rows = previous.kept_rows(lo, min(lo + CHUNK, self.rows))
            if self.spec.probe is not None:
                rows = rows[(rows >= self.spec.probe[0]) & (rows < self.spec.probe[1])]
            if len(rows):
                yield rows, previous.take(pa.array(rows), columns), False

    def _from_input(self, writer: column_store.Writer | None) -> Iterator[tuple[np.ndarray, pa.RecordBatch, bool]]:
        for lo, raw in self.read():
            rows = np.arange(lo, lo + raw.num_rows, dtype=np.int64)
            self.rows = lo + raw.num_rows
            if self.spec.probe is not None:
                keep = (rows >= self.spec.probe[0]) & (rows < self.spec.probe[1])
                rows, raw = rows[keep], raw.filter(pa.array(keep))
                if not len(rows):
                    continue
            batch = self.scrub.base(_with_url_key(raw))
            if writer is not None:
                arrays = [pa.array(rows), *(batch.column(f.name).cast(f.type) for f in BASE if f.name != "row")]
                writer.add(pa.RecordBatch.from_arrays(arrays, schema=BASE))
            yield rows, batch, True

    def read(self) -> Generator[tuple[int, pa.RecordBatch], None, None]:
        """The rows of all splits in chunks, each with the number of its first row. Small batches are joined across
        files: what a batch costs whatever its size (a query of rules, calls into Arrow) is 20 ms and more, and files
        of few records made batches of 7 documents. What cannot be read goes to `unread`."""
        pending: list[pa.RecordBatch] = []
        first = rows = size = 0
        for lo, batch in self._batches():
            grown = size + batch.nbytes
            if pending and (
                grown > MAX_CHUNK_BYTES
                or rows + batch.num_rows > self.phase.batch_rows
                or batch.schema != pending[0].schema
            ):
                yield first, _join(pending)
                pending, rows, grown = [], 0, batch.nbytes
            first = lo if not pending else first
            pending.append(batch)
            rows, size = rows + batch.num_rows, grown
            if size >= CHUNK_BYTES or rows >= self.phase.batch_rows:
                yield first, _join(pending)
                pending, rows, size = [], 0, 0
        if pending:
            yield first, _join(pending)

    def _batches(self) -> Generator[tuple[int, pa.RecordBatch], None, None]:
        """The reader's batches with the number of their first row."""
        source = self.phase.sources[self.spec.source]
        rows = min(self.phase.batch_rows, READER_ROWS)
        lo = 0
        for split in self.spec.splits:
            try:
                batches = iter(
                    source.reader.read(
                        split, source.root, collection=source.collection, domain=source.domain, rows=rows
                    )
                )
                while (batch := _next(batches)) is not None:
                    if self.spec.limit is not None and lo + batch.num_rows >= self.spec.limit:
                        yield lo, batch.slice(0, self.spec.limit - lo)
                        check_unchanged(source.root, split)
                        return
                    if batch.num_rows:
                        yield lo, batch
                        lo += batch.num_rows
                check_unchanged(source.root, split)
            except (UnreadableFile, PermissionError, FileNotFoundError) as e:
                if isinstance(e, UnreadableFile):
                    check_unchanged(source.root, split)  # a file that is written anew is cut off for a while
                else:
                    e = UnreadableFile(split.path, type(e).__name__, 0, split.size)
                reason = self.scrub.reason(e.reason)
                self.unread.append({"path": e.path, "reason": reason, "offset": e.offset, "length": e.length})

    def read_rules(self, batch: pa.RecordBatch) -> tuple[list[str | None], list[str | None]]:
        """The rule of reading that drops each row (None: it stays), and the value that decided, as JSON."""
        drop = batch.column("drop")
        rules: list[str | None] = pc.struct_field(drop, "rule").to_pylist()
        values: list[str | None] = pc.struct_field(drop, "value").to_pylist()
        ids = batch.column("doc_id").to_pylist()
        urls = batch.column("url_key").to_pylist() if self._excluded_urls else [None] * len(ids)
        for i, doc in enumerate(ids):
            if rules[i] is None:
                if doc in self._poison:
                    rules[i], values[i] = "poison", self._poison[doc]
                elif doc in self.phase.excluded.doc_ids:
                    rules[i], values[i] = "exclude", self.phase.excluded.doc_ids[doc]
                elif (key := urls[i]) is not None and key in self._excluded_urls:
                    rules[i], values[i] = "exclude", self._excluded_urls[key]
                elif self.phase.sample is not None and not in_sample(doc, self.phase.sample, self.phase.seed):
                    rules[i] = "sample"
        return rules, [None if v is None else json.dumps(v, ensure_ascii=False) for v in values]


def _next(batches: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
    with part("read"):
        return next(batches, None)


def _join(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0]
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0]


def in_sample(doc_id: bytes, share: float, seed: int) -> bool:
    """Whether a document is in a sample of this share: by seeded hash, so a smaller sample is part of a larger one."""
    return xxhash.xxh3_64_intdigest(doc_id, seed) < share * 2.0**64


def _with_url_key(batch: pa.RecordBatch) -> pa.RecordBatch:
    keys = [None if u is None else url_key(u) for u in batch.column("url").to_pylist()]
    return batch.append_column("url_key", pa.array(keys, pa.uint64()))
