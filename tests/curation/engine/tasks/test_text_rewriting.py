"""A global step that rewrites text: its edits reach every later step, are in the ledger and can be undone from there;
the bytes do not depend on how the run was cut, changed or interrupted."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from curation import storage
from curation.dedup import line_spans
from curation.engine.results import explain
from tests.curation.engine import runs, tiny

WORDS = ("mill", "stone", "grain", "wheel", "water", "flour", "sack", "miller", "rye", "wheat", "oat", "bran")
MENU = ("Home and news and about", "Search all of this site here", "Copyright by the miller of the brook")


def rows(count: int = 24) -> list[dict[str, Any]]:
    """Pages of one site: a menu, prose of their own, a footer; some are nothing but the menu."""
    found = []
    for i in range(count):
        prose = [" ".join(WORDS[(i * 7 + k * (n + 3)) % 12] for k in range(4 + n)) + f" {i}" for n in range(3)]
        text = "\n".join([MENU[0], MENU[1], "", *(prose if i % 8 else []), "", MENU[2]])
        found.append({"text": text, "url": f"http://e.org/{i}", "id": f"r{i}"})
    return found


def pipeline(folder: Path, *, files: int = 2, reverse: bool = False, **changes: Any) -> dict[str, Any]:
    """Two files of pages through line_dedup and steps that look at the text after it."""
    pages = rows()
    shutil.rmtree(folder / "texts", ignore_errors=True)
    share = -(-len(pages) // files)
    for n in range(files):
        mine = pages[n * share : (n + 1) * share]
        runs.write_jsonl(folder / "texts" / "all.jsonl" if files == 1 else folder / "texts" / f"{n}.jsonl", mine)
    steps: list[Any] = [
        {"line_dedup": {"span": 1, "min_chars": 0}},
        {"heuristics": {"sets": ["gopher"]}, "keep": dict.fromkeys(GOPHER)},
        "exact_dedup",
        {"minhash_dedup": {"threshold": 0.9}},
    ]
    source = {"name": "texts", "domain": "web", "read": "text", "root": "texts", "path": "**/*.jsonl", "id": "id"}
    return {"name": "rewriting", "sources": [source], "steps": steps, "validation": 0.1} | changes


@pytest.fixture(scope="module", autouse=True)
def _names() -> None:
    from curation.quality.heuristics.heuristics import Heuristics

    GOPHER.extend(Heuristics(sets=["gopher"]).rules())


GOPHER: list[str] = []


@pytest.fixture(autouse=True)
def _no_hook() -> Iterator[None]:
    yield
    storage.set_failpoint(None)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory where there is such a folder: a run syncs a hundred files, and what is tested here is order."""
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="gristmill-test-", dir=base) as folder:
        yield Path(folder)


def test_the_edit_is_in_the_ledger_and_can_be_undone(tmp_path: Path) -> None:
    tree = pipeline(tmp_path)
    ran = runs.curate(tmp_path, tree)
    table = explain.ledger(str(tmp_path / "run"))
    told = dict(zip(table["url"].to_pylist(), table["line_dedup"].to_pylist(), strict=True))
    ended = dict(zip(table["url"].to_pylist(), table["step"].to_pylist(), strict=True))
    after = kept_texts(tmp_path / "run")
    assert len(after) == ran.counts["kept"] == 21
    for row in rows():
        url = row["url"]
        if ended[url] == "line_dedup":  # nothing but what others have: all of it is in the ledger
            assert "".join(p for _, p in line_spans.load(told[url]["cut"])).strip() == row["text"].strip()
            continue
        assert line_spans.restore(after[url], line_spans.load(told[url]["cut"] or "[]")) == row["text"]
    whole = [t for t in after.values() if all(m in t for m in MENU)]
    assert len(whole) == 1 and not any(m in t for t in after.values() for m in MENU if t not in whole)
    # steps behind it saw the text without the menu
    counted = dict(zip(table["url"].to_pylist(), table["heuristics"].to_pylist(), strict=True))
    assert {u: counted[u]["words"] for u in after} == {u: len(t.split()) for u, t in after.items()}


def kept_texts(run_dir: Path) -> dict[str, str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted((run_dir / "result" / "documents").glob("*.parquet"))
    table = pa.concat_tables([pq.read_table(f, columns=["url", "text"]) for f in files])
    return dict(zip(table["url"].to_pylist(), table["text"].to_pylist(), strict=True))


def test_what_goes_does_not_depend_on_how_input_and_work_are_cut(tmp_path: Path) -> None:
    shapes = [{"batch_rows": 256}, {"batch_rows": 1, "task_bytes": 1024}, {"batch_rows": 5, "task_bytes": 2048}]
    trees = []
    for n, engine in enumerate(shapes):
        runs.curate(tmp_path, pipeline(tmp_path, engine=engine), f"run-{n}")
        trees.append(runs.tree_bytes(tmp_path / f"run-{n}"))
    assert trees[0] == trees[1] == trees[2]
    texts = kept_texts(tmp_path / "run-0")
    # ids say which file a document is of: the same documents in other files are in another order, by the same rule
    runs.curate(tmp_path, pipeline(tmp_path, files=3), "other")
    lines = [sorted(t for text in kept.values() for t in text.split("\n") if t)
             for kept in (texts, kept_texts(tmp_path / "other"))]  # fmt: skip
    assert lines[0] == lines[1]


@pytest.mark.slow
def test_the_bytes_are_the_same_on_ray(tmp_path: Path) -> None:
    tree = pipeline(tmp_path, engine={"task_bytes": 1024})
    runs.curate(tmp_path, tree, "inline")
    runs.curate(tmp_path, tree, "ray", executor="ray", workers=2)
    assert runs.tree_bytes(tmp_path / "inline") == runs.tree_bytes(tmp_path / "ray")


@pytest.mark.parametrize("retention", ["all", "kept"])
def test_a_rule_that_changes_what_is_cut_gives_a_fresh_runs_tree(tmp_path: Path, retention: str) -> None:
    tree = pipeline(tmp_path, retention=retention)
    first = {"language": {}, "keep": {"some": "NOT url LIKE '%1'"}}
    tree["steps"].insert(0, first)
    keeps: list[dict[str, str | None]] = [
        {"some": "NOT url LIKE '%1'"},
        {"some": "NOT url LIKE '%2%'"},
        {"some": "length(text) > 180"},
        {},
        {"some": "NOT url LIKE '%1'"},
    ]
    for n, keep in enumerate(keeps):
        first["keep"] = keep
        tree["steps"][1]["keep"] = {"all_repeated": None} if n % 2 else {}
        runs.curate(tmp_path, tree, "following")
        runs.curate(tmp_path, tree, f"fresh-{n}")
        assert runs.tree_bytes(tmp_path / "following") == runs.tree_bytes(tmp_path / f"fresh-{n}"), keep
    again = runs.curate(tmp_path, tree, "following")
    assert again.status == "unchanged"


def test_a_quantile_and_a_rule_on_text_see_the_text_that_is_left(tmp_path: Path) -> None:
    tree = pipeline(tmp_path)
    tree["steps"][0]["keep"] = {"menu": "text LIKE '%Home and news%'", "all_repeated": None}
    ran = runs.curate(tmp_path, tree, "one")
    assert ran.counts["kept"] == 1
    tree["steps"][0]["keep"] = {"q": "line_dedup.share <= quantile(line_dedup.share, 0.5)", "all_repeated": None}
    runs.curate(tmp_path, tree, "one")
    runs.curate(tmp_path, tree, "fresh")
    assert runs.tree_bytes(tmp_path / "one") == runs.tree_bytes(tmp_path / "fresh")
    assert sum(all(m in t for m in MENU) for t in kept_texts(tmp_path / "one").values()) == 1


class Dead(BaseException):
    """What the fail-point raises: nothing in the engine may catch it."""


def test_an_interrupted_run_ends_the_same(tmp_path: Path) -> None:
    tree = pipeline(tmp_path, engine={"task_bytes": 1024, "batch_rows": 8})
    boundaries: list[str] = []
    storage.set_failpoint(boundaries.append)
    whole = runs.curate(tmp_path, tree, "whole")
    storage.set_failpoint(None)
    expected = runs.tree_bytes(tmp_path / "whole")
    step = [i for i, b in enumerate(boundaries) if "stage" in b or "map task" in b]
    for k in [*step[::9], *range(0, len(boundaries), 61)]:
        seen = [0]

        def hook(name: str, k: int = k, seen: list[int] = seen) -> None:
            seen[0] += 1
            if seen[0] > k:
                raise Dead(name)

        storage.set_failpoint(hook)
        with pytest.raises(Dead):
            runs.curate(tmp_path, tree, "crashed")
        storage.set_failpoint(None)
        had = tiny.committed(tmp_path / "crashed")
        again = runs.curate(tmp_path, tree, "crashed")
        assert runs.tree_bytes(tmp_path / "crashed") == expected, boundaries[k]
        assert again.executed == whole.executed - len(had), boundaries[k]
        shutil.rmtree(tmp_path / "crashed")
