"""Reads Parquet tables of source code with the columns of The Stack (v1, v2) and of data sets made like them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.sources.batch_builder import SourceRow
from curation.sources.machine_errors import raise_machine_error
from curation.sources.text.field_mapping import FieldMapping
from curation.sources.text.parquet_arrow import read_parquet_rows
from curation.step import InputSplit

_TEXT = "content"
# What the reader wants to know -> columns of it: The Stack v1, The Stack v2, StarCoder's data, codeparrot's.
_COLUMNS = {
    "path": ("max_stars_repo_path", "path", "file_path"),
    "repository": ("max_stars_repo_name", "repo_name", "repository_name"),
    "language": ("lang", "language"),
    "licence": ("max_stars_repo_licenses", "detected_licenses", "licenses", "license", "gha_license_id"),
    "vendored": ("is_vendor",),
    "generated": ("is_generated",),
    "stars": ("max_stars_count", "star_events_count"),
    "id": ("hexsha", "blob_id"),
}
_NAMES = {"C-Sharp": "C#", "CPP": "C++", "F-Sharp": "F#", "Jupyter-Notebook": "Jupyter Notebook"}


def table_has_code(file: IO[bytes]) -> bool:
    """Whether a file is a table with the columns of code: a text and a language, path or licence."""
    try:
        names = pq.read_schema(file).names
    except (pa.ArrowException, OSError, ValueError) as error:
        raise_machine_error(error)
        return False
    finally:
        file.seek(0)
    return is_code_table(names)


def is_code_table(names: list[str]) -> bool:
    """Whether columns of these names are a table of code."""
    known = {key for key in ("path", "repository", "language", "licence") for name in _COLUMNS[key] if name in names}
    return _TEXT in names and len(known) >= 2


def read_table(file: IO[bytes], piece: InputSplit, collection: str) -> Iterator[tuple[SourceRow, dict[str, Any]]]:
    """Rows of a table, each with what its columns say of the file. Raises UnreadableFile."""
    wanted = [name for names in _COLUMNS.values() for name in names]
    fields = FieldMapping(collection, piece, _TEXT, "", "", "", "text/plain", meta=wanted)
    for row in read_parquet_rows(file, piece, fields):
        yield row, _described(json.loads(row.meta) if row.meta else {})


def _described(values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"path": "", "repository": None}
    for key, names in _COLUMNS.items():
        value = next((values[name] for name in names if values.get(name) not in (None, "", [])), None)
        if value is not None:
            found[key] = value
    found["path"] = str(found["path"])
    language = str(found.get("language") or "")
    found["language"] = _NAMES.get(language, language) or None
    licences = found.pop("licence", None)
    listed = licences if isinstance(licences, list) else [licences] if licences else []
    if listed:  # of several, all: it is not said which part of a file is under which
        found["licence"] = " AND ".join(sorted({str(name) for name in listed}))[:1000]
        found["licence_from"] = "column"
    return found
