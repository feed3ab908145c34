"""Pipeline files and input for the tests of the engine: real pages and sentences, cut small; and what a run left.

Built from what a user has: a YAML file, a folder of input, `load_pipeline`, `curate`.
"""

from __future__ import annotations

import csv
import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from curation.config.load_pipeline import load_pipeline
from curation.config.pipeline import Pipeline
from curation.engine.runtime import run
from curation.engine.tasks import column_store

ENGLISH = "language.code = 'en' AND language.score >= 0.3"


def cut_warc(archive: Path, to: Path, first: int, count: int, limit: int = 4 << 20) -> None:
    """Copies `count` gzip members of an archive, from number `first` on, to a smaller archive."""
    with archive.open("rb") as f:
        data = f.read(limit)
    at, starts = 0, [0]
    while len(starts) <= first + count and at < len(data):
        unzip = zlib.decompressobj(31)
        unzip.decompress(data[at:])
        if not unzip.eof:
            break
        at = len(data) - len(unzip.unused_data)
        starts.append(at)
    if len(starts) <= first + count:
        raise ValueError(f"{archive} has no {first + count} members in its first {limit} bytes")
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(data[starts[first] : starts[first + count]])


def sentences(data: Path, languages: Sequence[str], each: int) -> list[dict[str, str]]:
    """JSON records of real sentences: three of one language a record, some of them twice."""
    by: dict[str, list[str]] = {code: [] for code in languages}
    with (data / "lid" / "sentences.tsv").open(encoding="utf-8", newline="") as f:
        for code, text in csv.reader(f, delimiter="\t", quoting=csv.QUOTE_NONE):
            if code in by:
                by[code].append(text)
    rows = []
    for code in languages:
        lines = by[code]
        for i in range(each):
            text = " ".join(lines[(3 * i + k) % len(lines)] for k in range(3))
            rows.append({"text": text, "url": f"http://example.org/{code}/{i}", "lang": code})
            if i % 7 == 0:  # an exact copy elsewhere, and one with a word more
                rows.append({"text": text, "url": f"http://example.net/{code}/{i}", "lang": code})
                rows.append({"text": f"{text} Oh.", "url": f"http://example.com/{code}/{i}", "lang": code})
    return rows


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")


def text_pipeline(folder: Path, **changes: Any) -> dict[str, Any]:
    """A pipeline over JSON Lines in `folder`/texts: language and its rule. `changes` replace top-level keys."""
    tree: dict[str, Any] = {
        "name": "tested",
        "sources": [{"name": "texts", "domain": "web", "read": "text", "root": "texts", "path": "**/*.jsonl"}],
        "steps": [{"language": {}, "keep": {"language": ENGLISH}}],
        "validation": 0.1,
    }
    return tree | changes


def load(folder: Path, tree: dict[str, Any] | str, *sets: str, name: str = "pipeline.yaml") -> Pipeline:
    """Writes the pipeline file into the folder and reads it as the command would."""
    path = folder / name
    text = tree if isinstance(tree, str) else yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")
    return load_pipeline(str(path), sets=sets)


def curate(folder: Path, tree: dict[str, Any], to: str = "run", **more: Any) -> run.RunResult:
    """Loads and runs, in this process unless told otherwise."""
    more.setdefault("executor", "inline")
    return run.curate(load(folder, tree), str(folder / to), **more)


def tree_bytes(run_dir: Path) -> dict[str, str]:
    """SHA-256 of every file of the result tree, by path: equal for two runs means byte-identical results."""
    result = run_dir / "result"
    files = sorted(p for p in result.rglob("*") if p.is_file())
    return {str(p.relative_to(result)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def count_text_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts, in the one item of the list, the documents whose stored text is read from now on."""
    load, read = column_store._File._load, [0]

    def counted(file: Any, group: int) -> Any:
        if group not in file._cache and "text" in (file.columns or file.parquet.schema_arrow.names):
            read[0] += file.parquet.metadata.row_group(group).num_rows
        return load(file, group)

    monkeypatch.setattr(column_store._File, "_load", counted)
    return read
