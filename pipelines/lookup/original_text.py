"""Text of documents that a run did not keep, read again from the source and scrubbed before anybody sees it.

A document dropped before personal data was taken out of it is stored nowhere. Where it came from is, so its record can
be shown: the run's own pipeline.yaml says which reader, and which step scrubs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from curation.config.catalogue import READERS, STEPS
from curation.config.pipeline import SourceFile
from curation.config.step_options import build, find_class
from curation.core.errors import UserError
from curation.core.yaml_lines import YamlTree
from curation.step import RecordError, UnreadableFile
from curation.storage import Storage, is_remote

# A line of a compressed file is found by reading up to it: not worth it for a sample out of more than this
LARGEST = 64 << 20
BEHIND = 1000  # characters read behind a sample's end: more than a value that is personal data has


class Originals:
    """The sources of a run, as its directory describes them."""

    def __init__(self, store: Storage, run: Mapping[str, Any]) -> None:
        import yaml

        pipeline = yaml.safe_load(store.read_bytes("pipeline.yaml"))
        roots = {i["source"]: i["root"] for i in run.get("inputs", [])}
        self._located = YamlTree("pipeline.yaml", pipeline)
        common = SourceFile.model_fields
        self._sources = [
            (s["domain"], roots.get(s["name"], s["root"]), s["read"], {k: v for k, v in s.items() if k not in common})
            for s in pipeline["sources"]
        ]
        self._steps = pipeline["steps"]
        self._readers: dict[int, Any] = {}

    @property
    def domains(self) -> list[str]:
        """The domains of the run's sources."""
        return sorted({domain for domain, *_ in self._sources})

    def texts(self, wanted: Sequence[tuple[str | None, Mapping[str, Any] | None]], most: int) -> list[str | None]:
        """The first `most` characters of each (domain, source) whose record can be read; None for the others, and for
        all where the pipeline's scrubbing step cannot be had."""
        # cut behind what is shown, then scrubbed, then cut: half a value at the end would not be recognized as one
        found = [self._text(domain, source, most + BEHIND) if source else None for domain, source in wanted]
        shown = self._scrub(found) if any(found) else found
        return [t if t is None else t[:most] for t in shown]

    def _text(self, domain: str | None, source: Mapping[str, Any], most: int) -> str | None:
        for i, (of, root, kind, options) in enumerate(self._sources):
            full = os.path.join(root, source["file"])
            if of != domain or (not is_remote(root) and not os.path.isfile(full)):
                continue
            if source["offset"] is None and (is_remote(root) or os.path.getsize(full) > LARGEST):
                continue
            try:
                if i not in self._readers:
                    cls = find_class(kind, READERS, self._located, (), "reader")
                    self._readers[i] = build(cls, options, self._located, (), "the source")
                data = self._readers[i].original(source, root)
            except (OSError, EOFError, ValueError, RecordError, UnreadableFile, UserError):
                continue
            return readable(data, str(source["kind"]), options.get("text", "text"))[:most]
        return None

    def _scrub(self, texts: list[str | None]) -> list[str | None]:
        entry = next((e for e in self._steps if e["scrubs"]), None)
        if entry is None:
            return texts
        try:
            step = build(
                find_class(entry["step"], STEPS, self._located, (), "step"), entry["options"], self._located, (), ""
            )
            step.open()
        except UserError:  # a step in a file that is not here, a key that is not set: unscrubbed text is not shown
            return [None] * len(texts)
        scrubbed: list[str | None] = step.scrub(pa.array(texts, pa.large_string())).to_pylist()
        return scrubbed


def readable(data: bytes, kind: str, field: str = "text") -> str:
    """A record as a person reads it: without an archive's and HTTP's headers, the text of a JSON line, HTML as text."""
    if kind in ("warc", "wet", "arc"):
        body = data.split(b"\r\n\r\n", 2)[-1]
        head = data[: len(data) - len(body)].lower()
        text = body.decode("utf-8", "replace")
        if b"html" in head:
            from curation.extract.extract import extract

            text = extract(text, "resiliparse").text or text
        return text
    text = data.decode("utf-8", "replace")
    if kind in ("jsonl", "parquet", "arrow"):
        try:
            row = json.loads(text)
            text = str(row.get(field, text)) if isinstance(row, dict) else text
        except ValueError:
            pass  # a line that is no JSON is shown as it is: that is what was wrong with it
    return text
