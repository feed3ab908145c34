"""Awkward archives in one run: every record is a document or a drop that says why; what is none is quarantined."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from curation.engine.execution.progress import Silent
from curation.engine.results import explain
from curation.sources.warc.warc import WarcReader
from curation.step import InputSplit, UnreadableFile
from tests.curation.engine import runs, tiny

NO_ARCHIVES = {"valid.warc": "lm/wikitext2_valid.txt", "vocabulary.warc.gz": "tokenizer/gpt2_vocab.bpe"}


@pytest.fixture(scope="module")
def folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All awkward archives, and two files that are none whatever their names say."""
    folder = tmp_path_factory.mktemp("archives")
    shutil.copytree(data / "warc_edge", folder / "edge")
    (folder / "edge").chmod(0o755)
    for name, origin in NO_ARCHIVES.items():
        shutil.copyfile(data / origin, folder / "edge" / name)
    return folder


def pipeline(name: str, *paths: str) -> dict[str, Any]:
    # a plain archive and the same compressed have the same ids: each suffix is a source of its own
    sources = [
        {"name": f"edge{i}", "domain": "web", "read": "warc", "root": "edge", "path": p} for i, p in enumerate(paths)
    ]
    return {
        "name": name,
        "sources": sources,
        "steps": [{"extract": {}, "keep": {"empty": None}}, {"language": {}}, "exact_dedup"],
        "engine": {"task_bytes": 1 << 17},
    }


@pytest.fixture(scope="module")
def by_hand(folder: Path) -> tuple[Counter[str], list[str]]:
    """What the reader alone says: rows by file, and the files that are no archives."""
    rows: Counter[str] = Counter()
    none: list[str] = []
    for path in sorted((folder / "edge").iterdir()):
        split = InputSplit(path.name, path.stat().st_size, "")
        try:
            for batch in WarcReader().read(split, str(folder / "edge"), collection="edge", domain="web", rows=100):
                rows[path.name] += batch.num_rows
        except UnreadableFile:
            none.append(path.name)
    assert none == sorted(NO_ARCHIVES)
    return rows, none


def test_every_record_of_every_archive_is_accounted_for(folder: Path, by_hand: tuple[Counter[str], list[str]]) -> None:
    rows, none = by_hand
    done = runs.curate(folder, pipeline("edge", "*[!z]", "*.gz"), "all", allow_missing=True)
    assert (done.status, done.exit_code) == ("quarantined", 3)
    assert sorted(u["path"] for u in done.quarantined) == none
    sizes = {n: (folder / "edge" / n).stat().st_size for n in none}
    assert {u["path"]: u["length"] for u in done.quarantined} == sizes
    assert all(u["reason"] and u["offset"] == 0 for u in done.quarantined)

    ledger = explain.ledger(str(folder / "all"), ["doc_id", "source", "step", "rule", "value"]).to_pylist()
    assert Counter(row["source"]["file"] for row in ledger) == rows
    assert len({row["doc_id"] for row in ledger}) == len(ledger) == sum(rows.values())
    dropped = Counter((row["step"], row["rule"]) for row in ledger if row["step"] is not None)
    assert dropped == {(d["step"], d["rule"]): d["dropped"] for d in done.counts["steps"]}
    assert done.counts["read"] == {"records": len(ledger), "unread_bytes": sum(sizes.values())}
    assert done.counts["kept"] == len(ledger) - sum(dropped.values()) > 0
    assert all(row["value"] for row in ledger if row["rule"] == "unreadable")  # the reason is there


def test_archives_alone_are_no_incident(data: Path, tmp_path: Path, by_hand: tuple[Counter[str], list[str]]) -> None:
    tree = pipeline("edge", "*[!z]", "*.gz")
    for source in tree["sources"]:
        source["root"] = str(data / "warc_edge")
    done = runs.curate(tmp_path, tree)
    assert (done.status, done.exit_code, done.quarantined) == ("done", 0, [])
    assert done.counts["read"] == {"records": sum(by_hand[0].values()), "unread_bytes": 0}


def test_it_stops_before_the_next_global_step_unless_told_to_go_on(
    folder: Path, by_hand: tuple[Counter[str], list[str]]
) -> None:
    phases: list[str] = []

    class Names(Silent):
        def phase(self, name: str, tasks: int, done: int, sizes: Sequence[int]) -> None:
            phases.append(name)

    tree = pipeline("stops", "*.warc")
    rows = sum(n for name, n in by_hand[0].items() if name.endswith(".warc"))
    stopped = runs.curate(folder, tree, "stops", progress=Names())
    assert (stopped.status, stopped.exit_code) == ("quarantined", 3)
    assert [u["path"] for u in stopped.quarantined] == ["valid.warc"]
    assert phases == ["cut large archives", "0: read, extract, language"]
    assert not (folder / "stops" / "result").exists()
    went_on = runs.curate(folder, tree, "stops", allow_missing=True)
    assert (went_on.exit_code, went_on.computed, went_on.quarantined) == (3, {}, stopped.quarantined)
    assert went_on.counts["read"]["records"] == rows
    assert (folder / "stops" / "result" / "ledger").is_dir()
    (folder / "edge" / "valid.warc").unlink()  # the archive that is none is taken away: all is well
    mended = runs.curate(folder, tree, "stops")
    assert (mended.status, mended.exit_code, mended.counts["read"]["records"]) == ("done", 0, rows)


def test_arrays_and_tables_give_the_same_documents_for_any_task_size(tmp_path: Path) -> None:
    """Their ranges are found by the phase that cuts large files; other files of the same reader do not pass it."""
    texts = [f'text {i}, "quoted"\nand {{"a second": [line' for i in range(120)]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.json").write_text(json.dumps([{"text": t} for t in texts]))
    (tmp_path / "in" / "b.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    with open(tmp_path / "in" / "c.csv", "w", encoding="utf-8", newline="") as f:
        csv.writer(f).writerows([["text"], *([t] for t in texts)])
    ledgers = []
    for name, size in (("one", 1 << 24), ("many", 1 << 10)):
        source = {"name": "forms", "read": "text", "root": "in", "path": "*"}
        made = {"name": name, "sources": [source], "steps": [], "engine": {"task_bytes": size}}
        done = runs.curate(tmp_path, made, name)
        assert done.counts["read"]["records"] == done.counts["kept"] == 360
        ledgers.append(explain.ledger(str(tmp_path / name), ["doc_id", "source"]).sort_by("doc_id").to_pylist())
    assert ledgers[0] == ledgers[1]
    (index,) = [phase for phase in tiny.phases(tmp_path / "many") if phase.kind == "run_index"]
    assert len(index.tasks) == 2 and all(len(task["splits"]) > 2 for task in index.tasks.values())
