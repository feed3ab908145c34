"""Parquet and Arrow files as documents: a row is a record, and its number is its place.

Row groups are read one at a time. One that is broken costs its own rows, each a drop, since the footer says how many
they are; a broken Arrow file ends at the break, as its batches do not say what comes after them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.read.jsonl import Fields
from curation.read.rows import Row, meta_json, source
from curation.step import Piece, RecordError, UnreadableFile

_ROWS = 256  # rows turned into Python objects at a time
_ERRORS = (pa.ArrowException, OSError, ValueError)


def parquet_rows(file: IO[bytes], piece: Piece, fields: Fields) -> Iterator[Row]:
    """The rows of a Parquet file, or of its row groups from piece.start up to piece.stop."""
    table = _parquet(file, piece)
    _has_text(table.schema_arrow, piece, fields)
    first, stop = piece.start or 0, table.num_row_groups if piece.stop is None else piece.stop
    sizes = [table.metadata.row_group(i).num_rows for i in range(table.num_row_groups)]
    for group in range(first, stop):
        number = sum(sizes[:group])
        end = number + sizes[group]
        try:
            for batch in table.iter_batches(_ROWS, row_groups=[group]):
                for value in _values(batch):
                    where = source(piece.path, "parquet", None, None, number)
                    yield fields.row(value, where, str(number), None)
                    number += 1
        except _ERRORS as error:
            for lost in range(number, end):
                where = source(piece.path, "parquet", None, None, lost)
                yield fields.lost(where, str(lost), _brief(error))


def arrow_rows(file: IO[bytes], piece: Piece, fields: Fields) -> Iterator[Row]:
    """The rows of an Arrow IPC file or stream."""
    number = 0
    for batch in _arrow_batches(file, piece):
        if number == 0:
            _has_text(batch.schema, piece, fields)
        for start in range(0, batch.num_rows, _ROWS):
            for value in _values(batch.slice(start, _ROWS)):
                where = source(piece.path, "arrow", None, None, number)
                yield fields.row(value, where, str(number), None)
                number += 1


def cut(file: IO[bytes], piece: Piece, target: int) -> list[Piece]:
    """Runs of row groups of about `target` stored bytes each. A file that cannot be read stays whole."""
    try:
        meta = pq.read_metadata(file)
    except _ERRORS:
        return [piece]
    bounds, size = [0], 0
    for i in range(meta.num_row_groups):
        group = meta.row_group(i)
        stored = sum(group.column(c).total_compressed_size for c in range(group.num_columns))
        if size and size + stored > target:
            bounds.append(i)
            size = 0
        size += stored
    bounds.append(meta.num_row_groups)
    if len(bounds) < 3:
        return [piece]
    return [Piece(piece.path, piece.size, piece.version, a, b) for a, b in pairwise(bounds)]


def original(file: IO[bytes], where: Mapping[str, Any]) -> bytes:
    """A row as JSON. Raises RecordError where it is not there."""
    wanted = where["row"]
    piece = Piece(where["file"], 0, "")
    if where["kind"] == "arrow":
        batches: Iterator[pa.RecordBatch] = _arrow_batches(file, piece)
    else:
        table = _parquet(file, piece)
        group, wanted = _group_of(table, wanted)
        batches = table.iter_batches(_ROWS, row_groups=[group])
    for batch in batches:
        if wanted < batch.num_rows:
            return (meta_json(_values(batch.slice(wanted, 1))[0]) or "{}").encode()
        wanted -= batch.num_rows
    raise RecordError(f"{where['file']}: no row {where['row']}")


def _group_of(table: pq.ParquetFile, row: int) -> tuple[int, int]:
    for group in range(table.num_row_groups):
        count = table.metadata.row_group(group).num_rows
        if row < count:
            return group, row
        row -= count
    raise RecordError("no such row")


def _parquet(file: IO[bytes], piece: Piece) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except _ERRORS as error:
        raise UnreadableFile(piece.path, f"no Parquet file: {_brief(error)}", 0, piece.size) from error


def _arrow_batches(file: IO[bytes], piece: Piece) -> Iterator[pa.RecordBatch]:
    magic = file.read(6)
    file.seek(0)
    at = 0
    try:
        if magic == b"ARROW1":
            reader = pa.ipc.open_file(file)
            for i in range(reader.num_record_batches):
                at = file.tell() if i else 0
                yield reader.get_batch(i)
        else:
            for batch in pa.ipc.open_stream(file):
                yield batch
                at = file.tell()
    except _ERRORS as error:
        raise UnreadableFile(piece.path, f"Arrow: {_brief(error)}", at, max(0, piece.size - at)) from error


def _has_text(schema: pa.Schema, piece: Piece, fields: Fields) -> None:
    if fields.text not in schema.names:
        has = ", ".join(schema.names)
        raise UnreadableFile(piece.path, f"no column {fields.text!r}; it has {has}", 0, piece.size)


def _values(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows as dicts; strings that are not UTF-8 (writers do not always check) with U+FFFD."""
    arrays = []
    for column in batch.columns:
        if isinstance(column, pa.DictionaryArray):
            column = column.dictionary_decode()
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            wide = pa.types.is_large_string(column.type)
            raw = column.view(pa.large_binary() if wide else pa.binary()).to_pylist()
            arrays.append([None if v is None else v.decode("utf-8", "replace") for v in raw])
        else:
            arrays.append(column.to_pylist())
    names = batch.schema.names
    return [dict(zip(names, row, strict=True)) for row in zip(*arrays, strict=True)]


def _brief(error: BaseException) -> str:
    return str(error).partition("\n")[0][:160]
