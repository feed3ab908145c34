"""Promise 4: a changed rule decides again; the result is a fresh run's, and no signal is computed twice."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from curation.engine import explain
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
                 marks=pytest.mark.slow)
    for s in range(3, 11)
]  # fmt: skip


@pytest.mark.parametrize(("seed", "order", "retention", "rows"), [*CASES, *MORE])
def test_any_rules_after_any_others(folder: Path, seed: int, order: str, retention: str, rows: int) -> None:
    rng = random.Random(seed)
    follower = Follower(folder, f"random-{seed}")
    for _ in range(5):
        follower.follow(pipeline(rng, order, retention, rows))
    assert all(follower.have.values())
