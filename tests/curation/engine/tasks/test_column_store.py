"""Column stores: rows added in any order are read by row, and the size of batches does not show in the bytes.

Covers: chunk.py, task_documents.py, content_named.py
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.engine.tasks import column_store
from curation.storage import Storage

SCHEMA = pa.schema([("row", pa.int64()), ("text", pa.large_string())])


def _batch(rows: list[int]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [pa.array(rows, pa.int64()), pa.array([f"text {r}" * (r % 7) for r in rows], pa.large_string())], schema=SCHEMA
    )


def _write(storage: Storage, path: str, rows: list[int], size: int) -> None:
    writer = column_store.Writer(storage, path, SCHEMA)
    for start in range(0, len(rows), size):
        writer.add(_batch(rows[start : start + size]))
    writer.close()


@settings(deadline=None, max_examples=30)
@given(st.sets(st.integers(0, 4000)), st.sets(st.integers(0, 4000)), st.integers(1, 900), st.integers(0, 4000))
def test_generations_are_one_store(tmp_path_factory, first, second, size, lo) -> None:
    second = second - first
    storage = Storage(str(tmp_path_factory.mktemp("c")))
    names = []
    for name, rows in (("a", first), ("b", second)):
        if rows:
            _write(storage, name, sorted(rows), size)
            names.append(name)
    expected = [r for r in sorted(first | second) if lo <= r < lo + 500]
    table = column_store.Reader(storage, names).read(lo, lo + 500)
    assert (table.column("row").to_pylist() if table is not None else []) == expected
    rows = np.arange(lo, lo + 500)
    values, found = column_store.align(rows, table, "text", pa.large_string())
    assert rows[found].tolist() == expected
    assert values.to_pylist() == [f"text {r}" * (r % 7) if r in expected else None for r in rows.tolist()]


def test_the_size_of_batches_does_not_show(tmp_path) -> None:
    storage = Storage(str(tmp_path))
    rows = list(range(5000))
    for size in (1, 64, 1023, 1024, 5000):
        _write(storage, f"f{size}", rows, size)
    contents = {storage.read_bytes(f"f{size}") for size in (1, 64, 1023, 1024, 5000)}
    assert len(contents) == 1


def test_groups_end_by_bytes_too(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(column_store, "GROUP_BYTES", 100)
    storage = Storage(str(tmp_path))
    _write(storage, "f", list(range(50)), 50)
    reader = column_store.Reader(storage, ["f"])
    assert len(reader._files[0].bounds) > 5
    assert reader.read(10, 20).column("row").to_pylist() == list(range(10, 20))
