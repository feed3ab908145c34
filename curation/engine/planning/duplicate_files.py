"""Refuses input files whose documents would have the same ids, when files are listed and before any is read.

An id is made of the collection, the path below the root without its compression suffix, and the record's key. So
`a.jsonl.gz` beside `a.jsonl.zst` are one file twice. Where the key is a field of the record (`id`), or in a WARC file,
equal paths below different roots may hold different records; the ledger refuses them if they do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from curation import document, storage
from curation.config.pipeline import Source
from curation.core.errors import UserError


class Listed(Protocol):
    @property
    def path(self) -> str: ...


def refuse_duplicate_files(sources: Sequence[Source], files: Sequence[Sequence[Listed]]) -> None:
    """`files`: of each source. Raises UserError, which names the first pair and counts the others."""
    first: dict[Any, tuple[Source, str]] = {}
    pairs: list[tuple[Source, str, Source, str]] = []
    for source, listed in zip(sources, files, strict=True):
        place = None if getattr(source.reader, "id", None) == "" else source.root
        for file in listed:
            key = (source.collection, place, document.strip_compression(file.path))
            if key in first:
                pairs.append((*first[key], source, file.path))
            else:
                first[key] = (source, file.path)
    if pairs:
        a, path, b, other = pairs[0]
        why = "differ only in their compression" if path != other else "have the same path in one collection"
        what = (
            "Remove one of them, or change `path` so that it matches only one."
            if a is b
            else f"Give the sources {a.name!r} and {b.name!r} different `collection` names, or change one's `path`."
        )
        more = f" ({len(pairs):,} such pairs)" if len(pairs) > 1 else ""
        raise UserError(
            f"source {b.name!r}: {storage.join(a.root, path)} and {storage.join(b.root, other)}{more} {why}, so that "
            f"their documents would have the same ids. {what}"
        )
