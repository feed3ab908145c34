"""A changed byte of a checked Parquet file is refused before it is parsed; other readers read the file as ever."""

from __future__ import annotations

import random
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation import checked_parquet
from curation.checked_parquet import CheckedFile
from curation.core.errors import DamagedFile
from curation.storage import Storage


def _table(rows: int = 900) -> pa.Table:
    rng = random.Random(1)
    scores = pa.array([rng.choice([None, 1.5, rng.random()]) for _ in range(rows)])
    codes = pa.array([rng.choice(["en", "de", None]) for _ in range(rows)])
    signals = pa.StructArray.from_arrays([scores, codes], ["score", "code"])
    return pa.table({"row": pa.array(range(rows), pa.int64()), "language": signals})


def _write(store: Storage, path: str, table: pa.Table, group: int = 300) -> None:
    with store.create(path) as (f, _), checked_parquet.Writer(f, table.schema, compression="zstd") as writer:
        writer.write_table(table, row_group_size=group)


def _read(store: Storage, path: str) -> pa.Table:
    with CheckedFile(store, path) as f:
        parquet = pq.ParquetFile(f)
        return pa.concat_tables(
            parquet.read_row_group(i, use_threads=False) for i in range(parquet.metadata.num_row_groups)
        )


def test_a_changed_byte_anywhere_is_refused(tmp_path: Path) -> None:
    store, table = Storage(str(tmp_path)), _table()
    _write(store, "f", table)
    data = (tmp_path / "f").read_bytes()
    assert _read(store, "f").equals(table)
    rng = random.Random(2)
    for at in [*range(0, len(data), 7), *range(len(data) - 40, len(data))]:
        damaged = bytearray(data)
        damaged[at] ^= rng.randrange(1, 256)
        (tmp_path / "f").write_bytes(damaged)
        with pytest.raises(DamagedFile) as caught:
            _read(store, "f")
        assert caught.value.path == "f" and caught.value.root == str(tmp_path)


def test_a_cut_longer_or_missing_file_is_refused(tmp_path: Path) -> None:
    store = Storage(str(tmp_path))
    _write(store, "f", _table())
    data = (tmp_path / "f").read_bytes()
    for damaged in (b"", data[:5], data[:-1], data[:-300], data[100:], data + b"x", data[:200] + data[300:]):
        (tmp_path / "f").write_bytes(damaged)
        with pytest.raises(DamagedFile):
            _read(store, "f")
    (tmp_path / "f").unlink()
    with pytest.raises(DamagedFile, match="it is missing"):
        _read(store, "f")


def test_a_file_of_another_writer_is_refused(tmp_path: Path) -> None:
    pq.write_table(_table(), tmp_path / "f")
    with pytest.raises(DamagedFile, match="no checksums"):
        _read(Storage(str(tmp_path)), "f")


def test_only_the_blocks_that_are_read_are_checked(tmp_path: Path) -> None:
    store = Storage(str(tmp_path))
    noise = random.Random(3).randbytes
    table = pa.table({"row": range(64), "bytes": [noise(16 << 10) for _ in range(64)]})  # a mebibyte: 17 blocks
    _write(store, "f", table, group=8)
    data = bytearray((tmp_path / "f").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "f").write_bytes(data)
    with CheckedFile(store, "f") as f:
        parquet = pq.ParquetFile(f, pre_buffer=False)
        assert parquet.read_row_group(0, use_threads=False).equals(table.slice(0, 8))
        assert parquet.read_row_group(7, use_threads=False).equals(table.slice(56))
        with pytest.raises(DamagedFile, match="bytes 524288 and the following"):
            parquet.read_row_group(4, use_threads=False)
        with pytest.raises(DamagedFile):
            f.check()


def test_the_error_keeps_its_type_through_the_threads_of_pyarrow(tmp_path: Path) -> None:
    store = Storage(str(tmp_path))
    _write(store, "f", _table(50_000), group=5000)
    data = bytearray((tmp_path / "f").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "f").write_bytes(data)
    with CheckedFile(store, "f") as f, pytest.raises(DamagedFile):
        pq.read_table(f)
    with CheckedFile(store, "f") as f, pytest.raises(DamagedFile):
        list(pq.ParquetFile(f).iter_batches(1000))


def test_files_are_ordinary_parquet_and_equal_for_equal_rows(tmp_path: Path) -> None:
    store, table = Storage(str(tmp_path)), _table()
    _write(store, "a.parquet", table)
    _write(store, "b.parquet", table)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert pq.read_table(tmp_path / "a.parquet").equals(table)
    with duckdb.connect() as connection:
        found = connection.sql(f"SELECT count(*), sum(row) FROM '{tmp_path}/a.parquet'").fetchall()
    assert found == [(900, sum(range(900)))]


def test_text_of_a_document_cannot_pass_for_the_checksum(tmp_path: Path) -> None:
    store = Storage(str(tmp_path))
    fake = "footer 0000000000000000 blocks 0000000000000000"
    table = pa.table({"url": [fake, fake + "z", "gristmill.checksums"]})  # statistics in the footer quote them
    _write(store, "f", table)
    assert _read(store, "f").equals(table)
    with CheckedFile(store, "f") as f:
        f.check()


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    store, table = Storage(str(tmp_path)), _table()
    written = store.create("f")
    with pytest.raises(RuntimeError), written as (f, _), checked_parquet.Writer(f, table.schema) as writer:
        writer.write_table(table, row_group_size=100)
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
