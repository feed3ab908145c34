"""Reads the original text of documents from their source again, with personal data removed before it is shown.

The text of a document that was dropped before the pii step is stored nowhere, but its source location is. The run's
pipeline.yaml says which reader reads it and which step removes personal data.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from curation.config.catalogue import READERS, STEPS
from curation.config.pipeline import SourceFile
from curation.config.step_options import build, find_known_class
from curation.config.stored_pipeline import read_stored_pipeline
from curation.core.errors import UserError
from curation.core.relative_paths import check_relative
from curation.core.yaml_lines import YamlTree
from curation.sources.text.field_mapping import find_field
from curation.step import RecordError, UnreadableFile
from curation.storage import Storage, is_remote, path_beside

# Bytes. A record of a compressed file without offsets is found by reading up to it: too slow in larger files.
MAX_FILE_SIZE = 64 << 20
MARGIN = 1000  # characters read beyond the text shown, so that personal data at its end is recognized


class OriginalTexts:
    """Reads records of a run's sources, as pipeline.yaml and run.json describe them."""

    def __init__(self, store: Storage, run: Mapping[str, Any]) -> None:
        try:
            pipeline = read_stored_pipeline(store, values=True)
        except UserError:  # a variable has no value here: the texts of sources that need it are not shown
            pipeline = read_stored_pipeline(store)
        roots = {i["source"]: i["root"] for i in run.get("inputs", []) if "root" in i}
        self._located, self._file = YamlTree("pipeline.yaml", pipeline), run.get("file") or ""
        common = SourceFile.model_fields
        self._sources = [
            (
                s["domain"],
                roots.get(s["name"]) or path_beside(run.get("file", ""), s["root"]),
                s["read"],
                {k: v for k, v in s.items() if k not in common},
            )
            for s in pipeline["sources"]
        ]
        self._steps = pipeline["steps"]
        self._readers: dict[int, Any] = {}

    @property
    def domains(self) -> list[str]:
        """The domains of the run's sources."""
        return sorted({domain for domain, *_ in self._sources})

    def read(self, wanted: Sequence[tuple[str | None, Mapping[str, Any] | None]], length: int) -> list[str | None]:
        """The first `length` characters of the record at each (domain, source); None for one that cannot be read.

        All None if the pipeline's pii step cannot be loaded: text with personal data is not shown.
        """
        texts = [self._read_record(domain, source, length + MARGIN) if source else None for domain, source in wanted]
        scrubbed = self._scrub(texts) if any(texts) else texts
        return [t if t is None else t[:length] for t in scrubbed]

    def _read_record(self, domain: str | None, source: Mapping[str, Any], length: int) -> str | None:
        try:
            check_relative(source["file"], "the location of a record")
        except UserError:  # shards and ledgers of others may name any file, and what it holds would be shown
            return None
        for i, (of, root, kind, options) in enumerate(self._sources):
            full = os.path.join(root, source["file"])
            if of != domain or (not is_remote(root) and not os.path.isfile(full)):
                continue
            if source["offset"] is None and (is_remote(root) or os.path.getsize(full) > MAX_FILE_SIZE):
                continue
            try:
                if i not in self._readers:
                    cls = find_known_class(kind, READERS, self._located.file)
                    self._readers[i] = build(cls, options, self._located, (), "the source")
                data = self._readers[i].original(source, root)
            except (OSError, EOFError, ValueError, RecordError, UnreadableFile, UserError):
                continue
            fields = options.get("text", "text")
            return record_text(data, str(source["kind"]), fields, options.get("join", "\n\n"))[:length]
        return None

    def _scrub(self, texts: list[str | None]) -> list[str | None]:
        entry = next((e for e in self._steps if e["scrubs"]), None)
        if entry is None:
            return texts
        try:
            step = build(find_known_class(entry["step"], STEPS, self._file), entry["options"], self._located, (), "")
            step.open()
        except UserError:  # a user's own step, an environment variable that is not set
            return [None] * len(texts)
        scrubbed: list[str | None] = step.scrub(pa.array(texts, pa.large_string())).to_pylist()
        return scrubbed


def record_text(data: bytes, kind: str, fields: str | Sequence[str] = "text", join: str = "\n\n") -> str:
    """The text of a record: without WARC and HTTP headers, the text fields of a JSON object, HTML as plain text."""
    if kind in ("warc", "wet", "arc"):
        body = data.split(b"\r\n\r\n", 2)[-1]
        head = data[: len(data) - len(body)].lower()
        text = body.decode("utf-8", "replace")
        if b"html" in head:
            from curation.extract.extract import extract

            text = extract(text, "resiliparse").text or text
        return text
    text = data.decode("utf-8", "replace")
    if kind in ("jsonl", "json", "csv", "parquet", "arrow"):
        try:
            row = json.loads(text)
            if isinstance(row, dict):
                found = [find_field(row, name) for name in ([fields] if isinstance(fields, str) else fields)]
                text = join.join(str(part) for part in found if part) or text
        except ValueError:
            pass  # not JSON, which is why it was dropped: shown as it is
    return text
