"""A duplicate beside the kept document, and the largest clusters, on real runs.

Covers: document_samples.py
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from curation.engine.results.explain import explain, ledger
from curation.storage import Storage
from pipelines.cli import text_output
from pipelines.lookup import duplicate_pairs
from tests.curation.engine import runs

STORY = "the brook turns the wheel and the wheel turns the stone that grinds the grain into flour for all the village"


def near_run(folder: Path) -> Path:
    versions = [STORY, f"{STORY}\nand bread", STORY.replace("flour", "meal"), "nothing like it at all, said the miller"]
    rows = [{"text": t, "url": f"http://e.org/{i}"} for i, t in enumerate(versions)]
    runs.write_jsonl(folder / "texts" / "a.jsonl", rows)
    steps = [{"minhash_dedup": {"ngram": 3, "threshold": 0.5, "num_bands": 30, "rows_per_band": 2}}]
    runs.curate(folder, runs.text_pipeline(folder, steps=steps))
    return folder / "run"


def test_words_in_shared_runs_are_marked() -> None:
    left, right = duplicate_pairs.mark_shared("a b c, D e\nf", "x a B c d y", 3)
    assert left == [("a b c, D", True), (" e\nf", False)]
    assert right == [("x", False), (" a B c d", True), (" y", False)]
    assert duplicate_pairs.mark_shared("one two", "One, two!", 5) == ([("one two", True)], [("One, two!", True)])
    assert duplicate_pairs.mark_shared("", "a", 5) == ([], [("a", False)])
    assert duplicate_pairs.mark_shared("...", "a", 5) == ([("...", False)], [("a", False)])
    assert duplicate_pairs.split_lines([("a\nb", True), ("c", False)]) == [[("a", True)], [("b", True), ("c", False)]]


def test_shared_runs_are_marked_in_scripts_without_spaces() -> None:
    left, right = duplicate_pairs.mark_shared("老磨坊在小河边。", "新磨坊在\u200b小河边！", 3)
    assert left == [("老", False), ("磨坊在小河边。", True)]
    assert right == [("新", False), ("磨坊在\u200b小河边！", True)]
    assert duplicate_pairs.mark_shared("दिन अच्छा है", "दीन अच्छा है", 3)[0] == [("दिन अच्छा है", False)]


def test_explain_shows_the_pair_side_by_side(tmp_path: Path) -> None:
    run_dir = near_run(tmp_path)
    rows = ledger(str(run_dir), ["url", "step"]).to_pylist()
    dropped = sorted(r["url"] for r in rows if r["step"] == "minhash_dedup")
    assert len(dropped) == 2
    for url in dropped:
        answer = explain(str(run_dir), url)
        found = duplicate_pairs.duplicate_pair(str(run_dir), answer)
        assert found is not None
        assert found["of"] == answer["outcome"]["evidence"]["of"]
        texts = {side: "".join(t for t, _ in found[side]) for side in ("dropped", "kept")}
        assert STORY[:40] in texts["dropped"] and STORY[:40] in texts["kept"]
        assert any(shared for _, shared in found["dropped"])
        console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
        text_output.show_explain(console, answer | {"pair": found})
        said = console.export_text()
        assert "this document, dropped" in said and f"kept: {found['url']}" in said
    kept = next(r["url"] for r in rows if r["step"] is None)
    assert duplicate_pairs.duplicate_pair(str(run_dir), explain(str(run_dir), kept)) is None


def test_a_pair_across_runs(tmp_path: Path) -> None:
    near_run(tmp_path)
    runs.write_jsonl(
        tmp_path / "more" / "b.jsonl", [{"text": STORY + "!", "url": "http://other.org/"}, {"text": "a b"}]
    )
    source = {"name": "more", "domain": "web", "read": "text", "root": "more", "path": "*.jsonl"}
    steps = [{"minhash_dedup": {"ngram": 3, "threshold": 0.5, "num_bands": 30, "rows_per_band": 2, "prior_run": "run"}}]
    runs.curate(tmp_path, {"name": "more", "sources": [source], "steps": steps}, "second")
    found = duplicate_pairs.duplicate_pair(
        str(tmp_path / "second"), explain(str(tmp_path / "second"), "http://other.org/")
    )
    assert found is not None and Path(found["run"]) == tmp_path / "run"
    assert found["url"].startswith("http://e.org/")


def test_the_largest_clusters_with_their_members(tmp_path: Path) -> None:
    run_dir = near_run(tmp_path)
    store = Storage(str(run_dir))
    (cluster,) = duplicate_pairs.largest_clusters(store, store.read_json("run.json"))
    assert (cluster.step, cluster.copies, len(cluster.members)) == ("minhash_dedup", 3, 2)
    assert cluster.kept.text and STORY[:40] in cluster.kept.text
    assert all(m.text and STORY[:40] in m.text and m.url != cluster.kept.url for m in cluster.members)
