"""Reads Parquet and Arrow files: every row is a record, located by its row number.

Row groups are read one at a time. The rows of a broken one become drops, since the footer says how many there are; so
do rows with broken values in an Arrow batch. A batch that cannot be read at all ends its file.

A few bytes can stand for very many rows (nulls, or one value of a dictionary), so a table may expand as far as any
compressed file (limits.py); a row counts as 64 bytes and its values.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from itertools import accumulate, pairwise
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.sources.batch_builder import SourceRow, meta_json, position_key, provenance
from curation.sources.limits import EXPANDS_TOO_FAR, DropLimit, max_expanded
from curation.sources.machine_errors import raise_machine_error
from curation.sources.text.field_mapping import FieldMapping
from curation.step import InputSplit, RecordError, UnreadableFile

_ROWS_AT_ONCE = 256  # rows converted to Python objects at a time
_BYTES_AT_ONCE = 1 << 26  # ... or fewer, where rows are large
_BYTES_A_ROW = 64  # what a row counts beside its values
_SMALL_GROUP = 1 << 22  # of a row group of less no 256 values of a dictionary exceed a gigabyte
_ERRORS = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)
# Bytes. A request for more is for a length that damage made up: no row group is so large. Less may be what the machine
# lacks: then the task fails, since another machine would read the rows.
_ABSURD_BYTES = 1 << 40
_REQUEST = re.compile(r"size (\d+)")


def read_parquet_rows(file: IO[bytes], piece: InputSplit, fields: FieldMapping) -> Iterator[SourceRow]:
    """Rows of a Parquet file, or of its row groups from piece.start up to piece.stop."""
    table = _open_parquet(file, piece)
    _require_text_column(table.schema_arrow, piece, fields)
    first, stop = piece.start or 0, table.num_row_groups if piece.stop is None else piece.stop
    groups = [table.metadata.row_group(i) for i in range(table.num_row_groups)]
    ends = list(accumulate(g.num_rows for g in groups))
    columns = fields.columns(table.schema_arrow.names)
    budget, drops = _Budget(piece), DropLimit(piece.path, piece.size)
    budget.count_rows(ends[-1] if ends else 0)  # as the footer says, before any is read
    for group in range(first, stop):
        number = ends[group] - groups[group].num_rows
        try:
            for batch in _batches(file, table, group, groups[group].total_byte_size, columns):
                for part in _by_size(batch, budget):
                    for value in _to_dicts(part):
                        where = provenance(piece.path, "parquet", None, None, number)
                        yield fields.to_row(value, where, position_key(number), None)
                        number += 1
        except _ERRORS as error:
            _raise_unless_damage(error)
            for lost in range(number, ends[group]):
                where = provenance(piece.path, "parquet", None, None, lost)
                yield fields.unreadable_row(where, position_key(lost), _first_line(error))
                drops.count(piece.size, 0)


class _Budget:
    """What a table may expand to, and how much of it is used."""

    def __init__(self, piece: InputSplit) -> None:
        self._piece, self._left = piece, max_expanded(piece.size)

    def count_rows(self, rows: int) -> None:
        """Raises UnreadableFile for more rows than a file of this size may have."""
        if rows * _BYTES_A_ROW > self._left:
            reason = f"{rows:,} rows in {self._piece.size:,} bytes: {EXPANDS_TOO_FAR}"
            raise UnreadableFile(self._piece.path, reason, 0, self._piece.size)

    def take(self, size: int) -> None:
        """Counts bytes of values. Raises UnreadableFile once they are too many."""
        self._left -= size
        if self._left < 0:
            raise UnreadableFile(self._piece.path, EXPANDS_TOO_FAR, 0, self._piece.size)


def _batches(
    file: IO[bytes], table: pq.ParquetFile, group: int, size: int, columns: list[str] | None
) -> Iterator[pa.RecordBatch]:
    """These columns of a row group (None: all). Strings of all but small groups stay in their dictionary, of which one
    value may stand in every row, until `_by_size` knows how much that is (7 ms a MB where there is no dictionary)."""
    if size > _SMALL_GROUP:
        strings = [f.name for f in table.schema_arrow if pa.types.is_string(f.type) or pa.types.is_binary(f.type)]
        table = pq.ParquetFile(file, metadata=table.metadata, read_dictionary=strings)
    yield from table.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=columns)


def _by_size(batch: pa.RecordBatch, budget: _Budget) -> Iterator[pa.RecordBatch]:
    """Parts of a batch whose values take at most 64 MiB each, or one row."""
    sizes = np.full(batch.num_rows, _BYTES_A_ROW, np.int64)
    for column in batch.columns:
        stored = column.indices if isinstance(column, pa.DictionaryArray) else column
        sizes += stored.nbytes // max(1, batch.num_rows)
        if isinstance(column, pa.DictionaryArray) and _is_text(column.dictionary.type):
            with contextlib.suppress(pa.ArrowException):  # a damaged one: converting its values will say so
                lengths = pc.binary_length(column.dictionary).fill_null(0).cast(pa.int64())
                sizes += lengths.take(column.indices).fill_null(0).to_numpy(zero_copy_only=False)
    budget.take(int(sizes.sum()))
    begin, size = 0, 0
    for row, more in enumerate(sizes.tolist()):
        if size and size + more > _BYTES_AT_ONCE:
            yield batch.slice(begin, row - begin)
            begin, size = row, 0
        size += more
    yield batch.slice(begin)


def _is_text(kind: pa.DataType) -> bool:
    return any(check(kind) for check in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary))


def _is_string(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def read_arrow_rows(file: IO[bytes], piece: InputSplit, fields: FieldMapping) -> Iterator[SourceRow]:
    """Rows of an Arrow IPC file or stream."""
    number, budget, drops = 0, _Budget(piece), DropLimit(piece.path, piece.size)
    for batch in _arrow_batches(file, piece):
        if number == 0:
            _require_text_column(batch.schema, piece, fields)
        budget.count_rows(number + batch.num_rows)
        columns = fields.columns(batch.schema.names)
        batch = batch if columns is None else batch.select(columns)
        slices = (batch.slice(start, _ROWS_AT_ONCE) for start in range(0, batch.num_rows, _ROWS_AT_ONCE))
        for part in (small for rows in slices for small in _by_size(rows, budget)):
            values: list[dict[str, Any]] = [{}] * part.num_rows
            problem = ""
            try:
                values = _to_dicts(part)
            except _ERRORS as error:
                _raise_unless_damage(error)
                problem = _first_line(error)
            for value in values:
                where = provenance(piece.path, "arrow", None, None, number)
                at = position_key(number)
                yield fields.unreadable_row(where, at, problem) if problem else fields.to_row(value, where, at, None)
                number += 1
                if problem:
                    drops.count(piece.size, 0)


def split_file(file: IO[bytes], piece: InputSplit, target: int) -> list[InputSplit]:
    """Splits a file into runs of row groups of about `target` stored bytes. An unreadable file is a single split."""
    try:
        meta = pq.read_metadata(file)
    except _ERRORS:
        return [piece]
    # By uncompressed sizes, which the footer has for whole row groups. (Asking pyarrow for the sizes of columns ends
    # the process where a footer is damaged.)
    sizes = [meta.row_group(i).total_byte_size for i in range(meta.num_row_groups)]
    unpacked = target * max(1, sum(sizes)) / max(1, piece.size)
    bounds, size = [0], 0
    for i, group in enumerate(sizes):
        if size and size + group > unpacked:
            bounds.append(i)
            size = 0
        size += group
    bounds.append(meta.num_row_groups)
    if len(bounds) < 3:
        return [piece]
    return [InputSplit(piece.path, piece.size, piece.version, a, b) for a, b in pairwise(bounds)]


def read_original(file: IO[bytes], where: Mapping[str, Any]) -> bytes:
    """A row as JSON. Raises RecordError for a row that does not exist."""
    wanted = where["row"]
    piece = InputSplit(where["file"], 0, "")
    if where["kind"] == "arrow":
        batches: Iterator[pa.RecordBatch] = _arrow_batches(file, piece)
    else:
        table = _open_parquet(file, piece)
        group, wanted = _row_group_of(table, wanted)
        batches = table.iter_batches(_ROWS_AT_ONCE, row_groups=[group])
    for batch in batches:
        if wanted < batch.num_rows:
            return (meta_json(_to_dicts(batch.slice(wanted, 1))[0]) or "{}").encode()
        wanted -= batch.num_rows
    raise RecordError(f"{where['file']}: no row {where['row']}")


def _row_group_of(table: pq.ParquetFile, row: int) -> tuple[int, int]:
    for group in range(table.num_row_groups):
        count = table.metadata.row_group(group).num_rows
        if row < count:
            return group, row
        row -= count
    raise RecordError("no such row")


def _open_parquet(file: IO[bytes], piece: InputSplit) -> pq.ParquetFile:
    try:
        table = pq.ParquetFile(file)
        assert table.schema_arrow.names is not None  # decodes them
        return table
    except _ERRORS as error:
        _raise_unless_damage(error)
        raise UnreadableFile(piece.path, f"no Parquet file: {_first_line(error)}", 0, piece.size) from error


def _arrow_batches(file: IO[bytes], piece: InputSplit) -> Iterator[pa.RecordBatch]:
    magic = file.read(6)
    file.seek(0)
    at = 0
    try:
        if magic == b"ARROW1":
            reader = pa.ipc.open_file(file)
            for i in range(reader.num_record_batches):
                at = file.tell() if i else 0
                batch = reader.get_batch(i)
                _validate_batch(batch)
                yield batch
        else:
            for batch in pa.ipc.open_stream(file):
                _validate_batch(batch)
                yield batch
                at = file.tell()
    except _ERRORS as error:
        _raise_unless_damage(error)
        raise UnreadableFile(piece.path, f"Arrow: {_first_line(error)}", at, max(0, piece.size - at)) from error


def _raise_unless_damage(error: Exception) -> None:
    """Raises errors of the machine again: of its memory, its disks, its network. They say nothing about the rows."""
    if isinstance(error, MemoryError):
        request = _REQUEST.search(str(error))
        if request is None or int(request[1]) < _ABSURD_BYTES:
            raise error
    else:
        raise_machine_error(error)


def _validate_batch(batch: pa.RecordBatch) -> None:
    """Raises one of `_ERRORS` for a batch with damaged buffers or names."""
    batch.validate()
    assert batch.schema.names is not None  # decodes them


def _require_text_column(schema: pa.Schema, piece: InputSplit, fields: FieldMapping) -> None:
    if reason := fields.missing_text(schema.names):
        raise UnreadableFile(piece.path, reason, 0, piece.size)


def _to_dicts(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows as dicts; invalid UTF-8 in strings (writers do not always check) becomes U+FFFD. Raises ArrowInvalid where a
    damaged file has offsets outside its buffers: pyarrow would follow them."""
    arrays = []
    for stored in batch.columns:
        column = _readable(stored)
        column.validate(full=True)
        values = _to_python(column)
        if _is_string(stored.type):
            values = [None if v is None else v.decode("utf-8", "replace") for v in values]
        arrays.append(values)
    names = batch.schema.names
    return [dict(zip(names, row, strict=True)) for row in zip(*arrays, strict=True)]


def _to_python(column: pa.Array) -> list[Any]:
    """The values as Python objects; None for a date outside Python's calendar (years 1 to 9999)."""
    try:
        return list(column.to_pylist())
    except OverflowError:
        values = []
        for item in column:
            try:
                values.append(item.as_py())
            except OverflowError:
                values.append(None)
        return values


def _readable(column: pa.Array) -> pa.Array:
    """The column as a type that converts to Python objects: strings as bytes, no dictionaries, no nanoseconds."""
    kind = column.type
    if isinstance(column, pa.DictionaryArray):
        column.validate(full=True)
        return _readable(column.dictionary_decode())
    if pa.types.is_string(kind):
        return column.view(pa.binary())
    if pa.types.is_large_string(kind):
        return column.view(pa.large_binary())
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return column.cast(pa.timestamp("us", kind.tz), safe=False)
    if pa.types.is_time64(kind) or pa.types.is_duration(kind):
        return column.cast(pa.time64("us") if pa.types.is_time64(kind) else pa.duration("us"), safe=False)
    return column


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
