"""Reads texts to train a model on from text, JSON Lines and Parquet files, compressed or not.

A text is a line of a text file, or the text field of a JSON object or a row. Unlike a run's sources these have no ids
and no provenance, so a broken record is not dropped: it stops the command with an error that names the file and the
line.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from typing import IO

import zstandard

from curation import document, storage
from curation.core.errors import UserError
from curation.input_files import expand_path


def expand_paths(paths: Iterable[str]) -> list[str]:
    """Expands files, folders (all files below them) and globs, on any filesystem, into files, sorted within each.

    Raises UserError for a path that matches nothing.
    """
    found: list[str] = []
    for path in paths:
        names = expand_path(path)
        if not names:
            raise UserError(f"{path}: no such file; give text, JSONL or Parquet files, folders or globs of them")
        found += names
    return found


def read_texts(paths: Iterable[str], field: str = "text") -> Iterator[str]:
    """All texts of all files, in the order of `expand_paths`. Raises UserError for a record without a string
    `field`."""
    for path in expand_paths(paths):
        with storage.open_input("", path) as file:
            kind = os.path.splitext(document.strip_compression(path))[1].lower()
            if kind in (".parquet", ".pq"):
                yield from _parquet(file, path, field)
                continue
            lines = _open_decompressed(file, path)
            try:
                yield from _jsonl(lines, path, field) if kind in (".jsonl", ".json", ".ndjson") else _plain(lines)
            except (OSError, EOFError, ValueError, zlib.error, zstandard.ZstdError) as e:
                raise UserError(f"{path}: cannot be read as {kind or 'text'} ({e})") from e


def _open_decompressed(file: IO[bytes], path: str) -> Iterable[bytes]:
    if path.endswith(".gz"):
        return gzip.open(file)
    if path.endswith((".zst", ".zstd")):
        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True))
    return file


def _plain(lines: Iterable[bytes]) -> Iterator[str]:
    for line in lines:
        yield line.rstrip(b"\r\n").decode("utf-8", "replace")


def _jsonl(lines: Iterable[bytes], path: str, field: str) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)[field]
        except (ValueError, KeyError, TypeError) as e:
            raise UserError(f"{path}, line {number}: expected a JSON object with the field {field!r}") from e
        if not isinstance(value, str):
            raise UserError(f"{path}, line {number}: field {field!r} is {type(value).__name__}, expected a string")
        yield value


def _parquet(file: IO[bytes], path: str, field: str) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
        if field not in table.schema_arrow.names:
            raise UserError(f"{path}: no column {field!r}; it has {', '.join(table.schema_arrow.names)}")
        for batch in table.iter_batches(batch_size=1024, columns=[field]):
            yield from (value for value in batch.column(0).to_pylist() if isinstance(value, str))
    except pa.ArrowInvalid as e:
        raise UserError(f"{path}: cannot be read as Parquet ({e})") from e
