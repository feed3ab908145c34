"""Deletion: the result of a fresh run that never had the documents, with nothing looked at twice; generations that
stay readable; tombstones.

Covers: curation/engine/results/generations.py, curation/engine/results/erase_tokens.py
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curation import shards, storage
from curation.config.catalogue import READERS, STEPS
from curation.core.errors import UserError
from curation.engine.results import explain, generations
from curation.engine.runtime.delete import Deletion, delete_documents
from tests.curation.engine import runs

VOCABULARY = [f"w{i}" for i in range(400)]


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory where there is such a folder: a run syncs a hundred files, and what is tested here is order."""
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="gristmill-test-", dir=base) as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def _no_hook() -> Iterator[None]:
    yield
    storage.set_failpoint(None)


def corpus(seed: int, families: int = 4, versions: int = 5) -> list[dict[str, Any]]:
    """Chains of versions, each a little different from the one before, so that decisions cascade; some exact copies."""
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for family in range(families):
        words = [rng.choice(VOCABULARY) for _ in range(40)]
        for version in range(versions):
            if version:
                words = list(words)
                words[rng.randrange(40)] = rng.choice(VOCABULARY)
            text = " ".join(words)
            rows.append({"id": f"{family}-{version}", "url": f"http://e.org/{family}/{version}", "text": text})
            if rng.random() < 0.25:
                rows.append({"id": f"{family}-{version}c", "url": f"http://e.org/{family}/{version}c", "text": text})
    return rows


def tree(exclude: list[str] | None = None, **changes: Any) -> dict[str, Any]:
    source = {"name": "texts", "domain": "web", "read": "text", "root": "texts", "path": "*.jsonl", "id": "id"}
    steps: list[Any] = [
        {"heuristics": {"sets": ["gopher"]}, "keep": dict.fromkeys(RULES)},
        "exact_dedup",
        {"minhash_dedup": {"ngram": 2, "threshold": 0.8, "num_bands": 20, "rows_per_band": 4}},
        {"toxicity": {}, "keep": {"toxicity": None, "q": "toxicity.score <= quantile(toxicity.score, 0.9)"}},
    ]
    tokenizer = {"train": {"kind": "bpe", "vocab": 400}}
    base = {"name": "deletion", "sources": [source], "exclude": exclude or [], "steps": steps}
    return base | {"validation": 0.1, "tokenizer": tokenizer, "engine": {"task_bytes": 2048}} | changes


@pytest.fixture(scope="module", autouse=True)
def _rules() -> None:
    from curation.quality.heuristics.heuristics import Heuristics

    RULES.extend(Heuristics(sets=["gopher"]).rules())


RULES: list[str] = []


def write(folder: Path, rows: list[dict[str, Any]]) -> None:
    half = len(rows) // 2
    runs.write_jsonl(folder / "texts" / "a.jsonl", rows[:half])
    runs.write_jsonl(folder / "texts" / "b.jsonl", rows[half:])


def take_out(run_dir: Path, **options: Any) -> Deletion:
    return delete_documents(str(run_dir), catalogue=STEPS, readers=READERS, executor="inline", **options)


def fresh(folder: Path, to: str, of: str, urls: list[str]) -> dict[str, str]:
    """The result tree of a run that never had these URLs, with tokenizer and quantiles as in the run `of`."""
    # with the words that `delete_documents` writes: the ledger shows who asked for it
    runs.write_jsonl(folder / f"{to}.jsonl", [{"url": u, "by": "delete"} for u in urls])
    pins = {"tokenizer": {"path": f"{of}/tokenizer.json"}, "quantiles": f"{of}/run.json"}
    runs.curate(folder, tree([f"{to}.jsonl"], **pins), to)
    return without_generation(folder / to)


def without_generation(run_dir: Path) -> dict[str, str]:
    """The result tree with the manifest's generation left out: a fresh run's is 0."""
    manifest = run_dir / "result" / "shards" / "manifest.json"
    value = json.loads(manifest.read_text())
    found = runs.tree_bytes(run_dir)
    found["shards/manifest.json"] = json.dumps({k: v for k, v in value.items() if k != "generation"}, sort_keys=True)
    return found


def pin(folder: Path) -> None:
    """Puts aside what a fresh run pins: tokenizer and run.json of the run before anything is deleted."""
    (folder / "pins").mkdir()
    shutil.copy(folder / "run" / "result" / "shards" / "tokenizer.json", folder / "pins" / "tokenizer.json")
    shutil.copy(folder / "run" / "run.json", folder / "pins" / "run.json")


def outcomes(run_dir: Path) -> dict[str, tuple[str | None, str | None]]:
    table = explain.ledger(str(run_dir), ["url", "step", "evidence"]).to_pylist()
    return {row["url"]: (row["step"], row["evidence"]) for row in table}


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000), st.data())
def test_any_documents_deleted_one_after_another_give_a_fresh_runs_tree(seed: int, data: st.DataObject) -> None:
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="gristmill-test-", dir=base) as name:
        folder, rows = Path(name), corpus(seed)
        write(folder, rows)
        first = runs.curate(folder, tree(), "run")
        pin(folder)
        gone: list[str] = []
        for round_ in range(2):
            before = outcomes(folder / "run")
            kept = sorted(u for u, (step, _) in before.items() if step is None)
            others = sorted(u for u, (step, _) in before.items() if step not in (None, "read"))
            wanted = data.draw(st.lists(st.sampled_from(kept), min_size=1, max_size=3, unique=True))
            wanted += data.draw(st.lists(st.sampled_from(others), max_size=1)) if others else []
            gone += wanted
            done = take_out(folder / "run", urls=wanted)
            assert done.generation == round_ + 1
            assert without_generation(folder / "run") == fresh(folder, f"fresh-{round_}", "pins", gone)
            after = outcomes(folder / "run")
            revived = {u for u, (s, _) in after.items() if s != "exact_dedup" and before[u][0] == "exact_dedup"}
            assert done.run is not None
            # signatures only of documents that come to the step for the first time, as copies of deleted ones
            assert shown(folder / "run", "bands") <= len(revived)
            assert shown(folder / "run", "hash", "exact_dedup") == 0
            assert done.run.computed.get("heuristics", 0) == 0
        assert first.counts["kept"] > 0


def shown(run_dir: Path, stage: str, step: str = "minhash_dedup") -> int:
    stages = json.loads((run_dir / "run.json").read_text())["stages"][step]
    return int(next(s["shown"] for s in stages if s["stage"] == stage))


def counters(run_dir: Path, stage: str) -> dict[str, int]:
    stages = json.loads((run_dir / "run.json").read_text())["stages"]["minhash_dedup"]
    return dict(next(s["counters"] for s in stages if s["stage"] == stage))


def chain(folder: Path) -> list[str]:
    """A run over one long chain of versions; the URLs that it keeps."""
    write(folder, corpus(3, families=2, versions=14))
    runs.curate(folder, tree(), "run")
    pin(folder)
    return sorted(u for u, (step, _) in outcomes(folder / "run").items() if step is None)


def test_one_removal_revives_documents_that_remove_others(tmp_path: Path) -> None:
    """A cascade: besides documents that come back there are documents that go now, and were kept before."""
    kept = chain(tmp_path)
    before = outcomes(tmp_path / "run")
    compared = counters(tmp_path / "run", "send")
    cascades = 0
    for n, url in enumerate(kept):
        shutil.copytree(tmp_path / "run", tmp_path / "copy")
        take_out(tmp_path / "copy", urls=[url])
        after = outcomes(tmp_path / "copy")
        back = {u for u in after if before[u][0] == "minhash_dedup" and after[u][0] is None}
        lost = {u for u in after if before[u][0] is None and after[u][0] == "minhash_dedup"}
        cascades += bool(back and lost)
        assert without_generation(tmp_path / "copy") == fresh(tmp_path, f"fresh-{n}", "pins", [url])
        now = counters(tmp_path / "copy", "send")
        # what was compared is not compared again; copies of a deleted document are compared in its place
        assert now["known"] > 0.8 * compared["sent"] and now["sent"] < 0.1 * compared["sent"]
        shutil.rmtree(tmp_path / "copy")
    assert cascades >= 1


def test_the_generation_before_stays_readable(tmp_path: Path) -> None:
    kept = chain(tmp_path)
    run_dir = tmp_path / "run"
    old = shards.read_manifest(str(run_dir))
    content = {e.path: (run_dir / "result/shards" / e.path).read_bytes() for _, _, e in old.entries()}
    take_out(run_dir, urls=kept[:2])
    new = shards.verify_manifest(shards.read_manifest(str(run_dir)))
    assert (old.generation, new.generation) == (0, 1)
    assert new.fingerprint != old.fingerprint
    # who read the manifest before goes on with the shards that it names, and whoever resumes finds them by name
    assert {e.path: Path(old.path(e)).read_bytes() for _, _, e in old.entries()} == content
    again = shards.verify_manifest(shards.read_manifest(str(run_dir / "generations" / "0")))
    assert again.dumps() == old.dumps()
    take_out(run_dir, urls=kept[2:3])
    assert shards.verify_manifest(shards.read_manifest(str(run_dir / "generations" / "1"))).dumps() == new.dumps()
    assert {e.path: Path(old.path(e)).read_bytes() for _, _, e in old.entries()} == content
    now = [run_dir / "result" / "shards" / e.path for _, _, e in shards.read_manifest(str(run_dir)).entries()]
    urls = {u for path in now for u in shards.open_shard(str(path)).documents["url"].to_pylist()}
    assert urls and not urls & set(kept[:3])


def test_a_later_curation_honours_deletions(tmp_path: Path) -> None:
    kept = chain(tmp_path)
    take_out(tmp_path / "run", documents=[explain.explain(str(tmp_path / "run"), kept[0])["doc_id"]], reason="asked to")
    listed = generations.deleted_entries(storage.Storage(str(tmp_path / "run")))
    assert [(set(e), e["reason"]) for e in listed] == [({"doc_id", "by", "reason"}, "asked to")]
    tree_before = runs.tree_bytes(tmp_path / "run")
    assert runs.curate(tmp_path, tree(), "run").status == "unchanged"
    again = take_out(tmp_path / "run", documents=[listed[0]["doc_id"]])
    assert (again.entries, again.generation) == ([], 1)
    assert again.run is not None and again.run.status == "unchanged"
    changed = tree()
    changed["steps"][-1]["keep"]["q"] = "toxicity.score <= 1"
    runs.curate(tmp_path, changed, "run")
    assert outcomes(tmp_path / "run")[kept[0]][0] == "read"
    assert shards.read_manifest(str(tmp_path / "run")).generation == 1
    runs.curate(tmp_path, tree(), "run")
    assert runs.tree_bytes(tmp_path / "run") == tree_before


def test_what_cannot_be_deleted(tmp_path: Path) -> None:
    write(tmp_path, corpus(1))
    with pytest.raises(UserError, match="finished run"):
        take_out(tmp_path / "run", urls=["http://e.org/0/0"])
    runs.curate(tmp_path, tree(), "run")
    before = runs.tree_bytes(tmp_path / "run")
    with pytest.raises(UserError, match="no record"):
        take_out(tmp_path / "run", urls=["http://e.org/0/0", "http://e.org/none"])
    assert not (tmp_path / "run" / "deleted_documents.jsonl").exists()
    assert runs.tree_bytes(tmp_path / "run") == before


class Dead(BaseException):
    """What the fail-point raises: nothing in the engine may catch it."""


def test_interrupted_anywhere_it_ends_the_same(tmp_path: Path) -> None:
    kept = chain(tmp_path)
    shutil.copytree(tmp_path / "run", tmp_path / "whole")
    boundaries: list[str] = []
    storage.set_failpoint(boundaries.append)
    take_out(tmp_path / "whole", urls=kept[:1])
    storage.set_failpoint(None)
    expected = runs.tree_bytes(tmp_path / "whole")
    old = runs.tree_bytes(tmp_path / "run")
    for k in sorted({*range(0, len(boundaries), 37), len(boundaries) - 1}):
        shutil.copytree(tmp_path / "run", tmp_path / "crashed")
        seen = [0]

        def hook(name: str, k: int = k, seen: list[int] = seen) -> None:
            seen[0] += 1
            if seen[0] > k:
                raise Dead(name)

        storage.set_failpoint(hook)
        with pytest.raises(Dead):
            take_out(tmp_path / "crashed", urls=kept[:1])
        storage.set_failpoint(None)
        take_out(tmp_path / "crashed", urls=kept[:1])
        assert runs.tree_bytes(tmp_path / "crashed") == expected, boundaries[k]
        kept_shards = {f"shards/{p.relative_to(tmp_path / 'crashed/generations/0/shards')}"
                       for p in (tmp_path / "crashed/generations/0/shards").rglob("*") if p.is_file()}  # fmt: skip
        assert kept_shards == {f for f in old if f.startswith("shards/")}, boundaries[k]
        shutil.rmtree(tmp_path / "crashed")


def test_a_tombstone_leaves_nothing_of_a_document_and_everything_else_where_it_was(tmp_path: Path) -> None:
    kept = chain(tmp_path)
    run_dir, url = tmp_path / "run", kept[0]
    doc = explain.explain(str(run_dir), url)["doc_id"]
    manifest = shards.verify_manifest(shards.read_manifest(str(run_dir)))
    digest = manifest.dumps()
    before = {e.path: tokens(run_dir, e.path) for _, _, e in manifest.entries()}
    done = take_out(run_dir, documents=[doc], tombstone=True)
    assert done.run is None and done.tokens > 0
    after = shards.verify_manifest(shards.read_manifest(str(run_dir)))
    assert after.dumps() == digest  # geometry, order and what a checkpoint remembers of the data are the same
    changed = 0
    for path, (ids, offsets, was) in before.items():
        now_ids, now_offsets, now = tokens(run_dir, path)
        assert (now_ids, now_offsets) == (ids, offsets)
        for row, name in enumerate(ids):
            a, b = offsets[row], offsets[row + 1]
            if name == doc:
                assert now[a:b] == [manifest.tokenizer.eos] * (b - a)
                changed += b - a - 1
            else:
                assert now[a:b] == was[a:b]
    assert changed == done.tokens
    take_out(run_dir, documents=[doc])  # and the next result is without it
    assert without_generation(run_dir) == fresh(tmp_path, "fresh", "pins", [url])
    shards.verify_manifest(shards.read_manifest(str(run_dir / "generations" / "0")))
    (run_dir / "deleted_documents.jsonl").write_text("")  # taken back: the erased shards do not come back as they are
    (run_dir / "generation.json").unlink()
    runs.curate(tmp_path, tree(), "run")
    assert shards.verify_manifest(shards.read_manifest(str(run_dir))).dumps() == digest


def tokens(run_dir: Path, path: str) -> tuple[list[str], list[int], list[int]]:
    shard = shards.open_shard(str(run_dir / "result" / "shards" / path))
    ids = pa.chunked_array(shard.documents["doc_id"]).to_pylist()
    return [i.hex() for i in ids], shard.offsets.tolist(), shard.tokens.tolist()
