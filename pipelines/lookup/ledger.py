"""Reads a run's Parquet tables (ledger, documents) batch by batch."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from curation.checked_parquet import CheckedFile
from curation.engine.results.publish import newest_tree
from curation.storage import Storage

BATCH_ROWS = 1 << 15


def ledger_directory(store: Storage) -> str | None:
    """The directory of the newest ledger, of a finished run or one that stopped; None if there is none."""
    tree = newest_tree(store)
    return None if tree is None else f"{tree}/ledger"


def read_ledger(store: Storage, columns: list[str] | None = None, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
    """The rows of the newest ledger, see `read_batches`."""
    return read_batches(store, ledger_directory(store) or "result/ledger", columns, rows)


def read_batches(
    store: Storage, directory: str, columns: list[str] | None = None, rows: int = BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """The rows of all Parquet files of a directory of the run, in the order of the file names, `rows` at a time."""
    for name in store.names(directory):
        if name.endswith(".parquet"):
            with CheckedFile(store, f"{directory}/{name}") as f:
                yield from pq.ParquetFile(f).iter_batches(batch_size=rows, columns=columns, use_threads=False)
