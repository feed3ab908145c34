"""What the documents of a group of files are like: a sample of them through the group's own reader.

Documents are taken evenly from the first thousands of a file: a crawl goes host by host, and the first pages of one are
of one host and language.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from curation.core.errors import UserError
from pipelines.init.file_groups import Group, Look, make_reader

SAMPLED = 240  # documents of a group that are judged, up to twice as many
READ = 3000  # documents of a file that they are taken from: its first ones
FILES_SAMPLED = 8


def judge(found: Look, language_model: str) -> None:
    from curation.config.rules import Decider
    from curation.quality.heuristics.heuristics import Heuristics
    from curation.quality.language import Language

    language: Any = Language(model=language_model)
    try:
        language.open()
        found.identified = True
    except UserError:
        language = None
    gopher = Heuristics(sets=["gopher"])
    gopher.open()
    for group in found.groups:
        batches = list(_documents(group))
        if not batches:
            continue
        batch = pa.Table.from_batches(batches).combine_chunks().to_batches()[0]
        lengths = [len(t.split()) for t in batch.column("text").to_pylist()]
        group.documents, group.words = len(lengths), sorted(lengths)[len(lengths) // 2]
        group.hosts.update(h for u in batch.column("url").to_pylist() if u and (h := _host(u)))
        if group.shape.domain == "code":
            continue
        if language is not None:
            answers = language(batch).column(language.name).to_pylist()
            group.languages.update(a["code"] for a in answers if a["code"] and a["score"] >= 0.5)
        judged = gopher(batch)
        group.passing = int((Decider(gopher.rules(), judged.schema).decide(judged)[0] == -1).sum())


def _documents(group: Group) -> Iterator[Any]:
    """Documents of a few of its files, as text: files evenly spaced, and documents of the first `READ` in each."""
    from curation.extract.extract import Extract
    from curation.step import InputSplit

    reader = make_reader(group)
    extract: Any = None
    if group.shape.html:
        extract = Extract()
        extract.open()
    count = min(len(group.files), FILES_SAMPLED)
    for i in range(count):
        file = group.files[i * len(group.files) // count]
        piece = InputSplit(file.path, file.size, file.version)
        rows = reader.read(piece, group.root, collection="", domain=group.shape.domain, rows=32)
        for batch in _thinned(rows, -(-SAMPLED // count)):
            yield extract(batch) if extract is not None else batch


def _thinned(batches: Iterator[Any], wanted: int) -> list[Any]:
    """`wanted` to twice as many documents, each a batch, evenly spaced among the first `READ`: each time there are
    twice as many, every second one goes. A file that breaks off gives what it has."""
    import pyarrow.compute as pc

    from curation.step import UnreadableFile

    held, stride, seen = list[Any](), 1, 0
    try:
        for batch in batches:
            batch = batch.filter(pc.is_null(batch.column("drop"))).drop_columns(["drop"])
            for row in range(-seen % stride, batch.num_rows, stride):
                held.append(batch.slice(row, 1))
            seen += batch.num_rows
            while len(held) >= 2 * wanted:
                held, stride = held[::2], 2 * stride
            if seen >= READ:
                break
    except (OSError, UnreadableFile):
        pass
    return held


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
