"""Promise 4: after a changed rule the result is that of a fresh run, and no signal is computed twice.

Covers: run.py
Covers: curation/engine/tasks/top_up.py, curation/engine/tasks/map_task.py, curation/engine/tasks/input_rows.py
Covers: curation/engine/planning/plan.py, curation/engine/execution/phases.py
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from curation.core.errors import UserError
from curation.engine.results import explain
from tests.curation.engine import runs

# -- pipelines of three steps over pages and sentences, with rules to be varied ----------------------------------------

LANGUAGE: dict[str, list[str | None]] = {
    "code": [None, "language.code <> 'de'", "language.code IN ('en', 'fr')", "language.code = 'en'"],
    "score": [
        None,
        "language.score >= 0.5",
        "language.score >= quantile(language.score, 0.2)",
        "language.score >= quantile(language.score, 0.3, by language.code)",
    ],
}
EXTRACT: dict[str, list[str | None]] = {
    "empty": [None, "extract.chars > 0", "extract.chars > 120", "extract.chars BETWEEN 60 AND 3000"],
}
HEURISTICS: dict[str, list[str | None]] = {
    "fineweb_dup_char_ratio": [None],
    "fineweb_newline_ratio": [None],
    "fineweb_punct_line_ratio": [None, "heuristics.punct_line_ratio >= 0.12"],
    "fineweb_short_line_ratio": [None, "heuristics.short_line_ratio <= 0.67"],
    "size": ["heuristics.characters > 0", "heuristics.characters >= quantile(heuristics.characters, 0.25)"],
    "word": ["length(text) > 0", "length(text) > 150", "text LIKE '%e%'"],
}
NEAR: dict[str, list[str | None]] = {
    "near_duplicate": [None, "NOT minhash_dedup.duplicate", "coalesce(minhash_dedup.similarity, 0) < 0.9"],
}
LAST: dict[str, list[str | None]] = {
    "toxicity": [None, "last.score < 0.5", "last.score < quantile(last.score, 0.9)"],
}


def chosen(rng: random.Random, options: Mapping[str, list[str | None]], own: set[str]) -> dict[str, str | None]:
    """A choice of rules: null takes one of the step's own away, others are left out."""
    keep = {name: rng.choice(values) for name, values in options.items()}
    return {name: sql for name, sql in keep.items() if sql is not None or name in own}


def pipeline(rng: random.Random, order: str, retention: str, rows: int) -> dict[str, Any]:
    """Random rules on a fixed chain of steps. `order`: whether language sees HTML or text."""
    extract = {"extract": {}, "keep": chosen(rng, EXTRACT, {"empty"})}
    language = {"language": {}, "keep": chosen(rng, LANGUAGE, set())}
    own = {n for n in HEURISTICS if n.startswith("fineweb_")}
    heuristics = {"heuristics": {"sets": ["fineweb"]}, "keep": chosen(rng, HEURISTICS, own)}
    near = {"minhash_dedup": {"threshold": 0.6}, "keep": chosen(rng, NEAR, {"near_duplicate"})}
    last = {"toxicity": {"name": "last"}, "keep": chosen(rng, LAST, {"toxicity"})}
    first = [extract, language] if order == "extract" else [language, extract]
    return {
        "name": "changing",
        "sources": [
            {"name": "crawl", "read": "warc", "root": "crawl", "path": "*.warc.gz"},
            {"name": "texts", "read": "text", "root": "texts", "path": "*.jsonl"},
        ],
        "steps": [*first, heuristics, near, last],
        "retention": retention,
        "engine": {"batch_rows": rows, "task_bytes": 1 << 15},
    }


@pytest.fixture(scope="module")
def folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rules")
    runs.cut_warc(data / "crawl" / "docs-00.warc.gz", folder / "crawl" / "a.warc.gz", 0, 60)
    runs.write_jsonl(folder / "texts" / "a.jsonl", runs.sentences(data, ["en", "de", "fr", "tr"], 20))
    return folder


def reached(run_dir: Path) -> dict[str, set[bytes]]:
    """For each map step the documents that it has signals of, as the ledger tells it."""
    table = explain.ledger(str(run_dir))
    ids = table.column("doc_id").to_pylist()
    steps = [f.name for f in table.schema if pa.types.is_struct(f.type) and f.name not in ("source", "read")]
    return {s: {d for d, v in zip(ids, table.column(s).to_pylist(), strict=True) if v is not None} for s in steps}


MAP_STEPS = ("language", "extract", "heuristics", "last")


class Follower:
    """A run directory that sees one pipeline after another, each checked against a fresh run of the same."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.have: dict[str, set[bytes]] = {s: set() for s in MAP_STEPS}
        self.round = 0

    def follow(self, tree: dict[str, Any]) -> None:
        self.round += 1
        fresh = f"{self.name}-fresh-{self.round}"
        expected = runs.curate(self.folder, tree, fresh).counts
        again = runs.curate(self.folder, tree, self.name)
        assert again.exit_code == 0
        what = yaml.safe_dump(tree["steps"])
        assert runs.tree_bytes(self.folder / self.name) == runs.tree_bytes(self.folder / fresh), what
        for key in ("read", "steps", "kept", "text_bytes", "domains"):
            assert again.counts[key] == expected[key]
        now = reached(self.folder / self.name)
        for step in MAP_STEPS:
            missing = now[step] - self.have[step]
            assert again.computed.get(step, 0) == len(missing), f"{step} in round {self.round}: {what}"
            self.have[step] |= now[step]


CASES = [(1, "extract", "all", 256), (2, "language", "kept", 7)]
MORE = [
    pytest.param(s, ("extract", "language")[s % 2], ("all", "kept")[s // 2 % 2], (1, 7, 64, 1024)[s % 4],
                 marks=pytest.mark.slow if s in (4, 6) else pytest.mark.nightly)
    for s in range(3, 11)
]  # fmt: skip


@pytest.mark.parametrize(("seed", "order", "retention", "rows"), [*CASES, *MORE])
def test_any_rules_after_any_others(folder: Path, seed: int, order: str, retention: str, rows: int) -> None:
    rng = random.Random(seed)
    follower = Follower(folder, f"random-{seed}")
    for _ in range(5):
        follower.follow(pipeline(rng, order, retention, rows))
    assert all(follower.have.values())


def texts_only(folder: Path, lines: int, **more: Any) -> dict[str, Any]:
    """A pipeline over JSON Lines, read one record a batch."""
    rows = [{"text": f"Page number {i} says: the mill turns with the water of the brook."} for i in range(lines)]
    runs.write_jsonl(folder / "texts" / "a.jsonl", rows)
    return runs.text_pipeline(folder, engine={"batch_rows": 1}, **more)


def test_rows_that_come_back_at_different_steps_get_their_own_text(tmp_path: Path) -> None:
    """Row 2 lacks only the last step, row 9 also the one before: the later row's text is asked for first."""
    steps = [
        {"language": {}, "keep": {"r": "source.offset < 500"}},
        {"toxicity": {"name": "second"}, "keep": {"toxicity": None, "r": "source.offset > 300"}},
        {"toxicity": {"name": "last"}},
    ]
    tree = texts_only(tmp_path, 12, steps=steps)
    assert runs.curate(tmp_path, tree).counts["kept"] == 3
    steps[0]["keep"], steps[1]["keep"] = {}, {"toxicity": None}
    again = runs.curate(tmp_path, tree)
    assert again.computed == {"last": 9, "second": 5}
    runs.curate(tmp_path, tree, "fresh")
    assert runs.tree_bytes(tmp_path / "run") == runs.tree_bytes(tmp_path / "fresh")


def test_a_rule_may_look_at_text_behind_a_global_step_and_when_decided_again(tmp_path: Path) -> None:
    steps: list[Any] = [{"language": {}, "keep": {"even": "text LIKE '%0 says%' OR text LIKE '%5 says%'"}}]
    tree = texts_only(tmp_path, 30, steps=[*steps, {"exact_dedup": {}, "keep": {"not": "text NOT LIKE '%20 says%'"}}])
    first = runs.curate(tmp_path, tree)
    assert first.counts["kept"] == 5
    tree["steps"][1]["keep"]["not"] = "text NOT LIKE '%15 says%'"
    tree["steps"][0]["keep"]["even"] = "text LIKE '%0 says%' OR text LIKE '%5 says%' OR text LIKE '%7 says%'"
    again = runs.curate(tmp_path, tree)
    assert (again.counts["kept"], again.computed) == (8, {})
    runs.curate(tmp_path, tree, "fresh")
    assert runs.tree_bytes(tmp_path / "run") == runs.tree_bytes(tmp_path / "fresh")


def test_an_option_recomputes_its_step_and_what_depends_on_it(folder: Path) -> None:
    def tree(engine: str, labels: list[str] | None, sets: list[str]) -> dict[str, Any]:
        return {
            "name": "options",
            "sources": [{"name": "crawl", "read": "warc", "root": "crawl", "path": "*.warc.gz"}],
            "steps": [
                {"toxicity": {"name": "before", "labels": labels}, "keep": {"toxicity": None}},
                {"extract": {"engine": engine}},
                {"language": {}},
                {"heuristics": {"sets": sets}, "keep": {"size": "heuristics.characters > 0"}},
            ],
        }

    start = runs.curate(folder, tree("auto", None, ["c4"]), "options", limit=40)
    assert set(start.computed) == {"before", "extract", "heuristics", "language"}
    changes = [
        (("auto", None, ["gopher"]), {"heuristics"}),
        (("auto", ["hate"], ["gopher"]), {"before"}),
        (("resiliparse", ["hate"], ["gopher"]), {"extract", "heuristics", "language"}),
        (("auto", None, ["c4"]), set()),  # all of it is there from the first run
    ]
    for n, (options, computed) in enumerate(changes):
        again = runs.curate(folder, tree(*options), "options", limit=40)
        assert set(again.computed) == computed, options
        runs.curate(folder, tree(*options), f"options-{n}", limit=40)
        assert runs.tree_bytes(folder / "options") == runs.tree_bytes(folder / f"options-{n}")


COPIES = '''
from dataclasses import dataclass
from typing import ClassVar
import pyarrow as pa
from curation import document
from curation.step import MapStep

@dataclass
class Copies(MapStep):
    """Looks at what a global step found out."""
    name: str = "copies"
    reads: ClassVar[tuple[str, ...]] = ("exact_dedup",)
    signals = property(lambda self: pa.schema([("n", pa.int64())]))
    def __call__(self, batch):
        n = batch.column("exact_dedup").field("copies")
        return document.with_column(batch, self.name, pa.StructArray.from_arrays([n], fields=list(self.signals)))

@dataclass
class Stamp(MapStep):
    """Writes a signal of another step into the text."""
    name: str = "stamp"
    reads: ClassVar[tuple[str, ...]] = ("text", "copies")
    rewrites: ClassVar[bool] = True
    signals = property(lambda self: pa.schema([("did", pa.bool_())]))
    def __call__(self, batch):
        n = batch.column("copies").field("n").to_pylist()
        texts = [f"{t} [{k}]" for t, k in zip(batch.column("text").to_pylist(), n)]
        batch = document.with_column(batch, "text", pa.array(texts, pa.large_string()))
        did = pa.array([True] * batch.num_rows)
        return document.with_column(batch, self.name, pa.StructArray.from_arrays([did], fields=list(self.signals)))
'''


def test_what_hangs_on_a_global_steps_signals_is_computed_again_when_those_change(tmp_path: Path) -> None:
    rows = [{"text": f"The brook turns the mill, page {i % 4}."} for i in range(16)]
    runs.write_jsonl(tmp_path / "texts" / "a.jsonl", rows)
    (tmp_path / "own.py").write_text(COPIES)
    steps = [
        {"language": {}, "keep": {"some": "source.offset < 300"}},
        "exact_dedup",
        "own.py:Copies",
        "own.py:Stamp",
        {"toxicity": {}},
    ]
    tree = runs.text_pipeline(tmp_path, steps=steps)
    assert runs.curate(tmp_path, tree).counts["kept"] == 4
    tree["steps"][0] = {"language": {}}
    again = runs.curate(tmp_path, tree)
    assert again.computed["copies"] == 4
    runs.curate(tmp_path, tree, "fresh")
    assert runs.tree_bytes(tmp_path / "run") == runs.tree_bytes(tmp_path / "fresh")


def outcomes(run_dir: Path) -> dict[str, Any]:
    table = explain.ledger(str(run_dir), ["url", "step", "rule"]).to_pylist()
    return {row["url"]: (row["step"], row["rule"]) for row in table}


def test_exclude_lists_are_honoured_and_let_go_again(tmp_path: Path) -> None:
    rows = [{"text": f"The brook turns the mill, page {i}.", "url": f"http://e.org/ü{i}"} for i in range(6)]
    runs.write_jsonl(tmp_path / "texts" / "a.jsonl", rows)
    listed = tmp_path / "bad.jsonl"
    listed.write_text("")
    tree = runs.text_pipeline(tmp_path, exclude=["bad.jsonl"])
    runs.curate(tmp_path, tree, "free")
    free = runs.tree_bytes(tmp_path / "free")
    one = explain.explain(str(tmp_path / "free"), "http://e.org/ü1")["doc_id"]
    runs.write_jsonl(listed, [{"doc_id": one, "reason": "a spike", "by": "guard"}, {"url": "http://e.org/ü4"}])
    runs.curate(tmp_path, tree)
    gone = {url for url, (step, rule) in outcomes(tmp_path / "run").items() if (step, rule) == ("read", "exclude")}
    assert gone == {"http://e.org/ü1", "http://e.org/ü4"}
    assert explain.explain(str(tmp_path / "run"), one)["outcome"]["rule"] == "exclude"

    listed.write_text('{"url": "http://e.org/ü4"}\n')
    second = runs.curate(tmp_path, tree)
    assert (second.counts["kept"], second.computed) == (5, {"language": 1})
    listed.write_text("\n")
    third = runs.curate(tmp_path, tree)
    assert (third.counts["kept"], third.computed) == (6, {"language": 1})
    assert runs.tree_bytes(tmp_path / "run") == free
    assert runs.curate(tmp_path, tree).status == "unchanged"


def test_quantiles_by_any_column_find_their_groups(tmp_path: Path) -> None:
    """By strings, truth values and integers: nobody is dropped for a group that SQL writes otherwise."""
    rows = [{"text": f"The brook turns the mill, page {i // 2}." + " Oh!" * i, "url": f"u{i % 3}"} for i in range(30)]
    runs.write_jsonl(tmp_path / "texts" / "a.jsonl", rows)
    steps: list[Any] = [{"language": {}}, {"exact_dedup": {}, "keep": {"exact_duplicate": None}}]
    for n, by in enumerate(["url", "exact_dedup.duplicate", "exact_dedup.copies", "read.status"]):
        rule = {"r": f"language.score >= quantile(language.score, 0, by {by})"}
        tree = runs.text_pipeline(tmp_path, steps=[*steps, {"toxicity": {}, "keep": rule}])
        if by == "read.status":  # null: no group
            with pytest.raises(UserError, match="no documents are left"):
                runs.curate(tmp_path, tree, f"by-{n}")
        else:
            assert runs.curate(tmp_path, tree, f"by-{n}").counts["kept"] == 30
