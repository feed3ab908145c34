"""Reads the items of evaluation sets from JSON Lines, JSON and Parquet files, and selects their text fields."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curation.core.errors import UserError
from curation.storage import filesystem, is_remote
from curation.words import estimate_words

# Names of the text fields in published evaluation sets.
ANSWERS = ("answer", "answers", "solution", "canonical_solution", "choices", "options", "completion", "target")
FIELDS = ("question", "prompt", "text", "problem", "query", "goal", "passage", "context", "sentence", "input", *ANSWERS)
SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".jsonl.zst", ".parquet")
# Words; shorter fields are searched only as a whole line and together with the item's other fields, and shorter answers
# not at all: "None of the above" is in ordinary text. "What is erythema?" as a line of its own is in none of 20,000
# texts at hand (60 MB); two words ("Market economies") would be many a heading.
SHORTEST, SHORTEST_ANSWER, SHORTEST_LINE = 5, 13, 3


@dataclass
class Unit:
    """One field of one evaluation item."""

    benchmark: str  # the file's name without suffixes
    item: int  # record number in the file, from 0
    field: str
    text: str


def read_units(path: str, fields: Sequence[str], required: bool) -> Iterator[Unit]:
    """The units of a JSONL (plain, gzip, zstd), JSON or Parquet file, in its order; lists of strings become lines.

    Raises UserError for a file that is neither or cannot be read, and for records with none of the `fields`; with
    `required`, also for a first record that lacks any of them.
    """
    name = os.path.basename(path)
    for suffix in (".gz", ".zst", ".jsonl", ".json", ".parquet"):
        name = name.removesuffix(suffix)
    item = -1
    for item, record in enumerate(records(path)):
        present = [f for f in fields if record.get(f) is not None]
        missing = [f for f in fields if f not in record]
        if not present or (required and missing and item == 0):
            raise UserError(
                f"{path}, record {item}: no field {', '.join(missing if required else fields)}; "
                f"it has {', '.join(map(str, record))}; name the text fields in `fields`"
            )
        texts = [_plain(record[f]) for f in present]
        for f, text in zip(present, texts, strict=True):
            yield Unit(name, item, f, text)
        if len(present) > 1 and estimate_words(texts[0]) < SHORTEST:
            yield Unit(name, item, "+".join(present), "\n".join(texts))
    if item < 0:
        raise UserError(f"{path}: the evaluation file has no records")


def _plain(value: Any) -> str:
    values = value if isinstance(value, list) else [value]
    return "\n".join(v if isinstance(v, str) else json.dumps(v) for v in values)


def records(path: str) -> Iterator[dict[str, Any]]:
    """The records of a JSONL (plain, gzip, zstd), JSON or Parquet file as dicts. Raises UserError.

    A JSON file is one array of records, or an object with one such array and whatever else, as BIG-Bench-Hard's
    `{"canary": …, "examples": [{"input": …, "target": …}]}`.
    """
    fs, inner = filesystem(path)
    try:
        with fs.open(inner, "rb") as f:
            if path.endswith(".parquet"):
                import pyarrow.parquet as pq

                for batch in pq.ParquetFile(f).iter_batches():
                    yield from batch.to_pylist()
                return
            codec = {"gz": "gzip", "zst": "zstd"}.get(path.rpartition(".")[2])
            stream = pa.PythonFile(f, "r")
            lines = pa.CompressedInputStream(stream, codec) if codec else stream
            content = lines.read()
            if (whole := _whole_file(content)) is not None:
                yield from whole
                return
            for number, line in enumerate(content.splitlines(), 1):
                if line.strip():
                    record = json.loads(line)
                    if not isinstance(record, dict):
                        raise UserError(f"{path}, line {number}: expected a JSON object, one per line")
                    yield record
    except (OSError, ValueError, pa.ArrowException) as e:
        raise UserError(f"{path}: cannot be read as an evaluation file: {e}") from e


def _whole_file(content: bytes) -> list[dict[str, Any]] | None:
    """The records of a file that is one JSON value: an array of objects, or an object with one array of objects. None
    for any other, such as JSON Lines."""
    try:
        value = json.loads(content)
    except ValueError:
        return None
    lists = [value] if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []
    tables = [v for v in lists if isinstance(v, list) and v and all(isinstance(r, dict) for r in v)]
    return tables[0] if len(tables) == 1 else None


def files(patterns: Sequence[str], what: str) -> list[str]:
    """The files that match, each once, in order. Raises UserError for a pattern without matches and for other
    formats."""
    listed: list[str] = []
    for pattern in patterns:
        if is_remote(pattern):
            fs, inner = filesystem(pattern)
            found = sorted(fs.unstrip_protocol(p) for p in fs.glob(inner))
        else:
            found = sorted(glob.glob(pattern, recursive=True))
        if not found:
            raise UserError(f"no {what} matches {pattern}")
        for path in found:
            if not path.endswith(SUFFIXES):
                raise UserError(f"{path}: unknown format; expected {', '.join(SUFFIXES)}")
        listed += [path for path in found if path not in listed]
    return listed
