"""Near-duplicate removal on the engine: the same bytes however it is cut and dealt out, and whatever dies under it."""

from __future__ import annotations

import functools
import json
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation import storage
from curation.core.errors import UserError
from curation.dedup.minhash import (
    candidate_pairs,
    duplicate_edges,
    minhash_dedup,
    resolve_duplicates,
    verify_candidates,
)
from curation.engine.manifests import phase_records
from curation.engine.runtime.run import curate
from curation.engine.shuffle import partition_files
from curation.storage import Storage
from tests.curation.engine import runs, tiny

PIPELINE: dict[str, Any] = {
    "name": "near",
    "seed": 3,
    "sources": [{"name": "texts", "domain": "web", "read": "text", "root": "texts", "path": "*.jsonl"}],
    "steps": [
        {"minhash_dedup": {"num_bands": 20, "rows_per_band": 3, "priority": "length(text) / 100", "scope": "domain"}}
    ],
}
FINE = {"engine": {"task_bytes": 4096, "batch_rows": 16}}


def texts() -> list[str]:
    """Families, copies, a chain of versions, pages of a template; in random order."""
    rng = random.Random(8)

    def prose(words: int) -> list[str]:
        return [f"w{rng.randrange(50_000)}" for _ in range(words)]

    found = []
    for _ in range(25):
        base = prose(80)
        found.append(base)
        for _ in range(rng.randrange(4)):
            version = list(base)
            version[rng.randrange(80)] = "changed"
            found.append(version)
        found += [base] * rng.randrange(3)
    chain = prose(300)
    found += [chain[6 * k : 6 * k + 60] for k in range(40)]  # neighbours 0.81, next but one 0.65
    template = prose(60)
    found += [[*template, *prose(30)] for _ in range(30)]
    rng.shuffle(found)
    return [" ".join(words) for words in found]


@pytest.fixture(scope="module")
def mill() -> Iterator[tuple[Path, dict[str, str]]]:
    # in memory where it can be: a run syncs a hundred files, and what is tested here is order
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="gristmill-test-", dir=base))
    rows = [{"text": t, "url": f"http://example.org/{i}"} for i, t in enumerate(texts())]
    for i in range(3):
        runs.write_jsonl(folder / "texts" / f"{i}.jsonl", rows[i::3])
    result = runs.curate(folder, PIPELINE)
    assert result.exit_code == 0
    (dropped,) = (d["dropped"] for d in result.counts["steps"])
    assert 60 < dropped < 120
    yield folder, runs.tree_bytes(folder / "run")
    shutil.rmtree(folder, ignore_errors=True)


def tighten(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a corpus a million times as large: many partitions and homes, everything in several parts."""
    monkeypatch.setattr(minhash_dedup, "ROWS_PER_PARTITION", 300)
    monkeypatch.setattr(duplicate_edges, "EDGES_PER_PARTITION", 30)
    monkeypatch.setattr(verify_candidates, "PENDING_PAIRS", 40)
    monkeypatch.setattr(verify_candidates, "PENDING_BYTES", 10_000)
    monkeypatch.setattr(verify_candidates, "DOCUMENTS_AT_ONCE", 5)
    monkeypatch.setattr(candidate_pairs, "PAIRS_AT_ONCE", 7)


def names(run_dir: Path) -> list[str]:
    return [s["stage"] for s in json.loads((run_dir / "run.json").read_text())["stages"]["minhash_dedup"]]


@pytest.mark.parametrize("rounds", [8, 1])
def test_cuts_and_partitions_do_not_show(
    mill: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    folder, expected = mill
    tighten(monkeypatch)
    monkeypatch.setattr(
        resolve_duplicates, "resolve_stages", functools.partial(resolve_duplicates.resolve_stages, rounds=rounds)
    )
    runs.curate(folder, PIPELINE | FINE, f"fine-{rounds}")
    assert runs.tree_bytes(folder / f"fine-{rounds}") == expected
    stages = names(folder / f"fine-{rounds}")
    assert ("walk_ranges" in stages) == (rounds == 1) and ("round 3" in stages) == (rounds == 8)


def test_workers_do_not_show(mill: tuple[Path, dict[str, str]]) -> None:
    folder, expected = mill
    runs.curate(folder, PIPELINE | FINE, "ray", executor="ray", workers=2)
    assert runs.tree_bytes(folder / "ray") == expected


class Dead(BaseException):
    """What the fail-point raises: nothing in the engine may catch it."""


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.nightly)])
def test_a_death_in_any_phase_of_the_shuffles_is_survived(
    mill: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    folder, expected = mill
    monkeypatch.setattr(minhash_dedup, "ROWS_PER_PARTITION", 3000)
    monkeypatch.setattr(duplicate_edges, "EDGES_PER_PARTITION", 300)
    pipeline = runs.load(folder, PIPELINE | {"engine": {"task_bytes": 16384}})
    boundaries: list[str] = []
    storage.set_failpoint(boundaries.append)
    try:
        executed = curate(pipeline, str(folder / f"whole-{every}"), executor="inline").executed
        inside = [
            k for k, b in enumerate(boundaries)
            if k > next(i for i, x in enumerate(boundaries) if x.startswith("phase 0"))
            and k < boundaries.index("phase minhash_dedup: decisions merged") + 2
        ]  # fmt: skip
        assert len(inside) > 200
        chosen = [k for k in inside if boundaries[k].startswith("phase")] + inside[::61]
        for k in chosen[::every]:
            run_dir, seen = folder / f"crashed-{every}", [0]

            def hook(name: str, k: int = k, seen: list[int] = seen) -> None:
                seen[0] += 1
                if seen[0] > k:
                    raise Dead(name)

            storage.set_failpoint(hook)
            with pytest.raises(Dead):
                curate(pipeline, str(run_dir), executor="inline")
            storage.set_failpoint(None)
            had = tiny.committed(run_dir)
            again = curate(pipeline, str(run_dir), executor="inline")
            assert runs.tree_bytes(run_dir) == expected, boundaries[k]
            assert again.executed == executed - len(had), boundaries[k]
            assert tiny.restarted(run_dir) == [], boundaries[k]
            shutil.rmtree(run_dir)
    finally:
        storage.set_failpoint(None)


def test_the_edges_of_every_removal_are_stored_in_the_owner_partitions_of_both(
    mill: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As duplicate_edges.py says they are read."""
    folder, _ = mill
    tighten(monkeypatch)
    runs.curate(folder, PIPELINE, "stored")
    store = Storage(str(folder / "stored"))
    stages = store.read_json("run.json")["stages"]["minhash_dedup"]
    (stage,) = (s for s in stages if s["stage"] == "edges")
    tasks = phase_records.read(store, phase_records.path(stage["fingerprint"])).tasks.values()
    files = [f["path"] for t in tasks for f in t["files"]]
    homes = stage["partitions"]
    assert homes > 3
    ledger = pq.read_table(folder / "stored" / "result" / "ledger").to_pylist()
    removed = {r["doc_id"]: r["minhash_dedup"] for r in ledger if r["minhash_dedup"]["duplicate"]}
    assert removed

    for name, said in removed.items():
        home = int(duplicate_edges.owner_partition(pa.array([name], pa.binary(16)), homes)[0])
        rows = [r for b in partition_files.read(store, files, [home]) for r in b.to_pylist()]
        mine = [r for r in rows if r["kind"] == duplicate_edges.AT_LOWER and r["lower_id"] == name]
        assert mine
        direct = [r for r in mine if r["higher_id"].hex() == said["of"]]
        copy = any(r["intersection"] == r["higher_size"] == r["lower_size"] for r in mine)
        assert direct or copy
        for r in direct:
            assert r["intersection"] / (r["higher_size"] + r["lower_size"] - r["intersection"]) == said["similarity"]


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"priority": "language.score"}, "names language.score, which no step so far computes"),
        ({"scope": "random()"}, "varies from run to run"),
        ({"priority": "length(text) +"}, "is not SQL"),
    ],
)
def test_sql_that_cannot_be_is_refused_before_any_work(tmp_path: Path, option: dict[str, str], says: str) -> None:
    (tmp_path / "texts").mkdir()
    with pytest.raises(UserError, match=says.replace("(", r"\(")) as error:
        runs.load(tmp_path, PIPELINE | {"steps": [{"minhash_dedup": option}]})
    assert "pipeline.yaml" in str(error.value)
