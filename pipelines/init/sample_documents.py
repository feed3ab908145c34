"""Samples documents of each group of files and measures them: length, language, hosts, Gopher rules.

Documents are taken evenly from the first thousands of a file: a crawl goes host by host, so its first pages have one
host and one language.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from curation.core.errors import UserError
from curation.words import estimate_words
from pipelines.init.file_groups import Group, InputScan, make_reader

SAMPLED = 240  # documents measured per group; up to twice as many
READ = 3000  # first documents of a file that the sample is taken from
FILES_SAMPLED = 8


def measure_groups(scan: InputScan, language_model: str) -> None:
    """Fills in the sampled statistics of every group."""
    from curation.config.rules import Decider
    from curation.quality.heuristics.heuristics import Heuristics
    from curation.quality.language import Language

    language: Any = Language(model=language_model)
    try:
        language.open()
        scan.identified = True
    except UserError:
        language = None
    gopher = Heuristics(sets=["gopher"])
    gopher.open()
    for group in scan.groups:
        batches = list(_documents(group))
        if not batches:
            continue
        batch = pa.Table.from_batches(batches).combine_chunks().to_batches()[0]
        lengths = [round(estimate_words(t)) for t in batch.column("text").to_pylist()]
        group.documents, group.words = len(lengths), sorted(lengths)[len(lengths) // 2]
        group.hosts.update(h for u in batch.column("url").to_pylist() if u and (h := _host(u)))
        if group.format.domain == "code":
            continue
        if language is not None:
            answers = language(batch).column(language.name).to_pylist()
            group.languages.update(a["code"] for a in answers if a["code"] and a["score"] >= 0.5)
        scored = gopher(batch)
        group.passing = int((Decider(gopher.rules(), scored.schema).decide(scored)[0] == -1).sum())


def _documents(group: Group) -> Iterator[Any]:
    """Extracted documents of a few evenly spaced files, from the first `READ` in each."""
    from curation.extract.extract import Extract
    from curation.step import InputSplit

    reader = make_reader(group)
    extract: Any = None
    if group.format.html:
        extract = Extract()
        extract.open()
    count = min(len(group.files), FILES_SAMPLED)
    for i in range(count):
        file = group.files[i * len(group.files) // count]
        piece = InputSplit(file.path, file.size, file.version)
        rows = reader.read(piece, group.root, collection="", domain=group.format.domain, rows=32)
        for batch in _evenly_spaced(rows, -(-SAMPLED // count)):
            yield extract(batch) if extract is not None else batch


def _evenly_spaced(batches: Iterator[Any], wanted: int) -> list[Any]:
    """`wanted` to twice as many documents, one per batch, evenly spaced among the first `READ`.

    Whenever there are twice as many, every second one is dropped. A truncated file gives what it has.
    """
    import pyarrow.compute as pc

    from curation.step import UnreadableFile

    kept, stride, seen = list[Any](), 1, 0
    try:
        for batch in batches:
            batch = batch.filter(pc.is_null(batch.column("drop"))).drop_columns(["drop"])
            for row in range(-seen % stride, batch.num_rows, stride):
                kept.append(batch.slice(row, 1))
            seen += batch.num_rows
            while len(kept) >= 2 * wanted:
                kept, stride = kept[::2], 2 * stride
            if seen >= READ:
                break
    except (OSError, UnreadableFile):
        pass
    return kept


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
