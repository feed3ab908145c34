"""Files that one source reads alike, and what is known of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from curation import storage
from pipelines.init.detect_format import Shape


@dataclass
class Group:
    """Files of one shape below one root, and what a sample of their documents is like."""

    shape: Shape
    root: str
    patterns: list[str]
    files: list[storage.InputFile]
    format: str = "auto"  # what `read: text` has to be told, where the suffix says something else
    mime: str = "text/plain"
    documents: int = 0  # sampled
    words: int = 0  # median of the sampled documents
    passing: int = 0  # of the sampled documents, how many Gopher's rules would keep
    languages: Counter[str] = field(default_factory=Counter)
    hosts: Counter[str] = field(default_factory=Counter)

    @property
    def bytes(self) -> int:
        return sum(f.size for f in self.files)


@dataclass
class Look:
    """Everything that was found below the inputs."""

    groups: list[Group]
    left_out: dict[str, list[str]]  # reason -> paths
    identified: bool  # whether there was a model to tell languages by
    cut: int = 0  # files that are in no source, as that would take too many patterns


def make_reader(group: Group) -> Any:
    """The group's reader with its options."""
    from curation.sources.text import TextReader
    from curation.sources.warc import WarcReader

    return WarcReader() if group.shape.read == "warc" else TextReader(**reader_options(group))


def reader_options(group: Group) -> dict[str, Any]:
    """What `read: text` has to be told that differs from its defaults."""
    shape = group.shape
    given = {"text": shape.text, "url": shape.url, "date": shape.date, "mime": group.mime, "format": group.format}
    usual = {"text": "text", "url": "url", "date": "date", "mime": "text/plain", "format": "auto"}
    return {} if shape.read == "warc" else {k: v for k, v in given.items() if v != usual[k]}
