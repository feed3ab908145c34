"""Reads a run's Parquet tables (ledger, documents) batch by batch."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from curation.checked_parquet import CheckedFile
from curation.storage import Storage

BATCH_ROWS = 1 << 15


def read_batches(
    store: Storage, directory: str, columns: list[str] | None = None, rows: int = BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """The rows of all Parquet files of a directory of the run, in the order of the file names, `rows` at a time."""
    for name in store.names(directory):
        if name.endswith(".parquet"):
            with CheckedFile(store, f"{directory}/{name}") as f:
                yield from pq.ParquetFile(f).iter_batches(batch_size=rows, columns=columns, use_threads=False)
