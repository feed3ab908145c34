"""Maps the fields of a record to a document: text, id, URL and date; what is left goes to `meta`.

A field inside another is named by its path, `article.body`; a field whose own name has the dot comes first. Several
fields of text are joined in the order given, without those that are null or empty.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curation import document
from curation.sources.batch_builder import RecordKeys, SourceRow, meta_json, parse_date
from curation.step import InputSplit

_FIELDS_SHOWN = 8


@dataclass
class FieldMapping:
    """Names of the fields or columns that hold text, id, URL and date. `id` empty: the position in the file is the
    key. `meta`: the other fields that are kept; None: all."""

    collection: str
    piece: InputSplit
    text: str | Sequence[str]
    id: str
    url: str
    date: str
    mime: str
    join: str = "\n\n"
    meta: Sequence[str] | None = None

    def __post_init__(self) -> None:
        self.keys = RecordKeys((self.piece.extra or {}).get("seen"))
        self.texts = [self.text] if isinstance(self.text, str) else list(self.text)

    def columns(self, names: Sequence[str]) -> list[str] | None:
        """Of the columns of a table, those that documents are made of; None for all."""
        if self.meta is None:
            return None
        wanted = [name for name in (*self.texts, self.id, self.url, self.date, *self.meta) if name]
        return [name for name in names if any(w == name or w.startswith(f"{name}.") for w in wanted)]

    def missing_text(self, names: Sequence[str]) -> str:
        """Why a table with these columns has no text; `` if it has."""
        if any(t == name or t.startswith(f"{name}.") for t in self.texts for name in names):
            return ""
        return f"no column {_either(self.texts)}; it has {', '.join(names) or 'none'}"

    def to_row(self, value: dict[str, Any], where: dict[str, Any], at: str, size: int | None) -> SourceRow:
        """Makes a row of one record of any format, which it may change. `at`: its key if it has no id; `size`: its
        bytes."""
        value = dict(value)
        key = _string(find_field(value, self.id)) if self.id else None
        if key is None or key == "":
            key = at
        else:
            key = self.keys.unique(key if isinstance(key, str) else json.dumps(key, sort_keys=True, default=str))
        row = SourceRow(self._doc_id(key), where, mime=self.mime, charset="utf-8", bytes=size)
        url = _string(find_field(value, self.url))
        if isinstance(url, str):
            row.url = url
            _remove_field(value, self.url)
        if date := parse_date(_string(find_field(value, self.date))):
            row.date = date
            _remove_field(value, self.date)
        row.text, row.drop = self._take_text(value)
        row.meta = meta_json(value if self.meta is None else _chosen(value, self.meta))
        return row

    def unreadable_row(self, where: dict[str, Any], at: str, reason: str) -> SourceRow:
        """Makes a dropped row for a record that cannot be read."""
        return SourceRow(self._doc_id(at), where, drop=("unreadable", reason))

    def _take_text(self, value: dict[str, Any]) -> tuple[str | None, tuple[str, str] | None]:
        """(text, None), or (None, why there is none). The fields of the text are removed from the record."""
        parts = list[Any]()
        for name in self.texts:
            found = find_field(value, name, _ABSENT)
            if found is _ABSENT:
                continue
            _remove_field(value, name)
            parts.append(_string(found))
            if parts[-1] is not None and not isinstance(parts[-1], str):
                return None, ("unreadable", f"field {name!r} is no string but {type(found).__name__}")
        if not parts:
            names = ", ".join(sorted(map(str, value))[:_FIELDS_SHOWN])
            return None, ("unreadable", f"no field {_either(self.texts)}; it has {names or 'none'}")
        if all(part is None for part in parts):
            return None, ("empty", "null")
        return parts[0] if len(parts) == 1 else self.join.join(part for part in parts if part), None

    def _doc_id(self, key: str) -> bytes:
        return document.doc_id(self.collection, self.piece.path, key)


_ABSENT = object()


def find_field(record: Mapping[str, Any], name: str, default: Any = None) -> Any:
    """The value of a field by its name or by its path."""
    inside = _containing(record, name)
    return default if inside is None else inside[0][inside[1]]


def _containing(record: Any, name: str) -> tuple[Any, str] | None:
    """The record that has the field, and the field's own name in it."""
    if not isinstance(record, Mapping):
        return None
    if name in record:
        return record, name
    at = name.find(".")
    while at >= 0:
        if name[:at] in record and (found := _containing(record[name[:at]], name[at + 1 :])):
            return found
        at = name.find(".", at + 1)
    return None


def _remove_field(record: dict[str, Any], name: str) -> None:
    inside = _containing(record, name)
    if inside is not None:
        del inside[0][inside[1]]


def _chosen(record: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    found = {name: find_field(record, name, _ABSENT) for name in names}
    return {name: value for name, value in found.items() if value is not _ABSENT}


def _string(value: Any) -> Any:
    """A string of bytes as text: tables have columns of text whose type is binary."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _either(names: Sequence[str]) -> str:
    return " or ".join(map(repr, names))
