"""Holds the result of scanning an input: groups of files that one source can read, with sampled statistics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from curation import storage
from curation.input_files import InputFile
from pipelines.init.detect_format import FileFormat


@dataclass
class Group:
    """Files of one format below one root, with statistics of a sample of their documents."""

    format: FileFormat
    root: str
    patterns: list[str]
    files: list[InputFile]
    read_as: str = "auto"  # the reader's `format` option, where the suffix does not say it
    mime: str = "text/plain"
    licence: str = ""  # as a dataset card says
    documents: int = 0  # number sampled
    words: int = 0  # median of the sampled documents
    passing: int = 0  # sampled documents that the Gopher rules would keep
    languages: Counter[str] = field(default_factory=Counter)
    hosts: Counter[str] = field(default_factory=Counter)

    @property
    def bytes(self) -> int:
        return sum(f.size for f in self.files)


@dataclass
class InputScan:
    """Everything that was found in the inputs."""

    groups: list[Group]
    left_out: dict[str, list[str]]  # reason -> paths
    identified: bool  # whether the language model was available

    def leave_out(self, reason: str, root: str, path: str) -> None:
        """Notes a file that is in no source."""
        self.left_out.setdefault(reason, []).append(storage.join(root, path))


def make_reader(group: Group) -> Any:
    """The reader of the group, with its options."""
    from curation.config.catalogue import READERS
    from curation.config.step_options import load_class

    return load_class(str(READERS[group.format.read]))(**reader_options(group))


def reader_options(group: Group) -> dict[str, Any]:
    """Options of the reader that differ from its defaults; only that of texts has some."""
    fields = group.format
    given = {
        "text": fields.text, "url": fields.url, "date": fields.date, "mime": group.mime, "format": group.read_as,
        "delimiter": fields.delimiter, "columns": list(fields.columns), "document": fields.document,
        "marker": fields.marker,
    }  # fmt: skip
    defaults = {
        "text": "text", "url": "url", "date": "date", "mime": "text/plain", "format": "auto", "delimiter": "",
        "columns": [], "document": "file", "marker": "",
    }  # fmt: skip
    return {} if fields.read != "text" else {k: v for k, v in given.items() if v != defaults[k]}
