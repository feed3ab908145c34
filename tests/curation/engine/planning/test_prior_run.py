"""A crawl added to earlier ones: what stays is what a deduplication of all of them keeps, with the earlier ones first.

Covers: curation/engine/execution/run_stages.py, curation/engine/tasks/stage_task.py
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.core.errors import UserError
from curation.dedup.exact_dedup import ExactDedup
from curation.dedup.minhash.minhash_dedup import MinHashDedup
from curation.engine.results import explain
from curation.step import Corpus
from tests.curation import stages
from tests.curation.engine import runs
from tests.curation.engine.runtime.test_delete import VOCABULARY

NEAR: dict[str, Any] = {"ngram": 2, "threshold": 0.7, "num_bands": 20, "rows_per_band": 3}


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory where there is such a folder: a run syncs a hundred files, and what is tested here is order."""
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="gristmill-test-", dir=base) as folder:
        yield Path(folder)


def batches(seed: int, count: int) -> list[list[dict[str, Any]]]:
    """Versions of a few texts, dealt out to crawls; exact copies too, within a crawl and between them."""
    rng = random.Random(seed)
    found: list[list[dict[str, Any]]] = [[] for _ in range(count)]
    for family in range(5):
        words = [rng.choice(VOCABULARY) for _ in range(40)]
        for version in range(rng.randrange(3, 9)):
            if version and rng.random() < 0.8:
                words = list(words)
                words[rng.randrange(40)] = rng.choice(VOCABULARY)
            row = {"id": f"{family}-{version}", "url": f"http://e.org/{family}/{version}", "text": " ".join(words)}
            found[rng.randrange(count)].append(row)
    for n, rows in enumerate(found):  # none is empty
        rows.append({"id": f"own-{n}", "url": f"http://e.org/own/{n}", "text": f"a text of crawl number {n} alone"})
    return found


def pipeline(folder: Path, name: str, rows: list[dict[str, Any]], prior_run: str | None, **near: Any) -> dict[str, Any]:
    half = len(rows) // 2
    for part, mine in (("a", rows[:half]), ("b", rows[half:])):
        if mine:
            runs.write_jsonl(folder / name / f"{part}.jsonl", mine)
    source = {"name": name, "domain": "web", "read": "text", "root": name, "path": "*.jsonl", "id": "id"}
    options = {"prior_run": prior_run} if prior_run else {}
    steps = [{"exact_dedup": options}, {"minhash_dedup": NEAR | near | options}]
    return {"name": name, "sources": [source], "steps": steps, "engine": {"task_bytes": 1024}}


def outcomes(run_dir: Path) -> dict[bytes, tuple[str | None, dict[str, Any] | None]]:
    rows = explain.ledger(str(run_dir), ["doc_id", "step", "evidence"]).to_pylist()
    return {r["doc_id"]: (r["step"], json.loads(r["evidence"]) if r["evidence"] else None) for r in rows}


def union(tables: list[pa.Table], **near: Any) -> dict[bytes, tuple[str | None, dict[str, Any] | None]]:
    """The same decided at once, in memory, a task a crawl: the first has the best priority."""
    found: dict[bytes, tuple[str | None, dict[str, Any] | None]] = {}
    for step in (ExactDedup(), MinHashDedup(**(NEAR | near))):
        plain = stages.corpus_of(tables)
        prior_run_boundaries = tuple(range(1, len(tables)))
        corpus = Corpus(plain.documents, plain.text_bytes, plain.tasks, plain.seed, prior_run_boundaries)
        ran = stages.run(step.stages(corpus), tables, expressions=dict(step.expressions()))
        told = stages.signals(ran, tables)
        left = []
        for table in tables:
            ids = table["doc_id"].to_pylist()
            gone = [bool(told[i.hex()]["duplicate"]) for i in ids]
            for i, out in zip(ids, gone, strict=True):
                evidence = {k: told[i.hex()][k] for k in step.evidence()}
                found[i] = (step.name, evidence) if out else (None, None)
            left.append(table.filter(pa.array([not g for g in gone])))
        tables = left
    return found


def table_of(run_dir: Path, rows: list[dict[str, Any]]) -> pa.Table:
    texts = {r["url"]: r["text"] for r in rows}
    ledger = explain.ledger(str(run_dir), ["doc_id", "url"]).to_pylist()
    urls = [r["url"] for r in ledger]
    return stages.documents([texts[u] for u in urls], doc_id=[r["doc_id"] for r in ledger], url=urls)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 3), st.sampled_from([{}, {"priority": "length(url)"}]))
def test_crawl_after_crawl_keeps_what_all_at_once_keep(seed: int, count: int, near: dict[str, Any]) -> None:
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="gristmill-test-", dir=base) as name:
        folder, crawls = Path(name), batches(seed, count)
        previous = None
        for n, rows in enumerate(crawls):
            runs.curate(folder, pipeline(folder, f"crawl{n}", rows, previous, **near), f"run{n}")
            previous = f"run{n}"
            assert shown(folder / f"run{n}", "exact_dedup", "hash") == len(rows)
            assert shown(folder / f"run{n}", "minhash_dedup", "bands") <= len(rows)  # nothing of earlier crawls
        expected = union([table_of(folder / f"run{n}", rows) for n, rows in enumerate(crawls)], **near)
        got: dict[bytes, Any] = {}
        for n in range(count):
            got |= outcomes(folder / f"run{n}")
        assert got == expected


def shown(run_dir: Path, step: str, stage: str) -> int:
    told = json.loads((run_dir / "run.json").read_text())["stages"][step]
    return int(next(s["shown"] for s in told if s["stage"] == stage))


def test_earlier_pairs_are_not_compared_again(tmp_path: Path) -> None:
    first, second = batches(7, 2)
    one, two = pipeline(tmp_path, "one", first, None), pipeline(tmp_path, "two", second, "run1")
    runs.curate(tmp_path, one, "run1")
    runs.curate(tmp_path, two, "run2")

    def sent(run_dir: Path) -> dict[str, int]:
        told = json.loads((run_dir / "run.json").read_text())["stages"]["minhash_dedup"]
        return dict(next(s["counters"] for s in told if s["stage"] == "send"))

    assert sent(tmp_path / "run2")["known"] == sent(tmp_path / "run1")["sent"] > 0
    # and the prior run is as it was
    assert runs.curate(tmp_path, one, "run1").status == "unchanged"
    assert runs.curate(tmp_path, two, "run2").status == "unchanged"


def test_a_change_of_the_earlier_run_is_noticed(tmp_path: Path) -> None:
    first, second = batches(11, 2)
    copy = dict(first[0], id="copy", url="http://e.org/copy")
    second.append(copy)
    one, two = pipeline(tmp_path, "one", first, None), pipeline(tmp_path, "two", second, "run1")
    runs.curate(tmp_path, one, "run1")
    runs.curate(tmp_path, two, "run2")

    def dropped() -> str | None:
        rows = explain.ledger(str(tmp_path / "run2"), ["url", "step"]).to_pylist()
        return next(r["step"] for r in rows if r["url"] == copy["url"])

    assert dropped() is not None
    gone = [{"url": r["url"]} for r in first]
    runs.write_jsonl(tmp_path / "gone.jsonl", [g for g in gone if "own" not in g["url"]])
    runs.curate(tmp_path, one | {"exclude": ["gone.jsonl"]}, "run1")
    assert runs.curate(tmp_path, two, "run2").status == "done"
    same = [r for r in second if r["text"] == copy["text"]]
    assert len(same) > 1 or dropped() in (None, "minhash_dedup")


def test_what_cannot_be_a_prior_run(tmp_path: Path) -> None:
    first, second = batches(3, 2)
    two = pipeline(tmp_path, "two", second, "run1")
    with pytest.raises(UserError, match="is not a finished run with a step 'exact_dedup'"):
        runs.curate(tmp_path, two, "run2")
    runs.curate(tmp_path, pipeline(tmp_path, "one", first, None, threshold=0.8), "run1")
    with pytest.raises(UserError, match=r"minhash_dedup.*other options"):
        runs.curate(tmp_path, two, "run2")
    assert not (tmp_path / "run2" / "result").exists()
