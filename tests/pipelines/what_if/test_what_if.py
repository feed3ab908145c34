"""What-if: the answer from stored signals is what a run with those rules then does.

Covers: rule_changes.py, rule_replay.py, pipelines/cli/commands/what_if.py, curation/config/where_condition.py,
pipelines/lookup/token_counts.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from curation.core.errors import UserError
from curation.engine.results import explain
from pipelines.what_if.what_if import what_if
from tests.curation.engine import runs


def tree(**changes: Any) -> dict[str, Any]:
    steps = [
        {"extract": {}},
        {"language": {}, "keep": {"language": "language.score >= 0.3"}},
        {
            "heuristics": {"sets": ["fineweb"]},
            "keep": {"size": "heuristics.characters >= 1500"},
            "where": "domain = 'web'",
        },
        {"toxicity": {"name": "last"}, "keep": {"toxicity": "last.score < quantile(last.score, 0.95)"}},
    ]
    return {
        "name": "asked",
        "sources": [
            {"name": "crawl", "domain": "web", "read": "warc", "root": "crawl", "path": "*.warc.gz"},
            {"name": "texts", "domain": "said", "read": "text", "root": "texts", "path": "*.jsonl"},
        ],
        "steps": steps,
        "tokenizer": {"train": {"kind": "bpe", "vocab": 400}},
    } | changes


@pytest.fixture(scope="module")
def folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, `run`, and what it was made from."""
    folder = tmp_path_factory.mktemp("asked")
    runs.cut_warc(data / "crawl" / "docs-00.warc.gz", folder / "crawl" / "a.warc.gz", 0, 120)
    runs.write_jsonl(folder / "texts" / "a.jsonl", runs.sentences(data, ["en", "de", "fr"], 15))
    runs.curate(folder, tree())
    return folder


def kept(run_dir: Path) -> dict[bytes, tuple[str | None, str | None]]:
    table = explain.ledger(str(run_dir), ["doc_id", "step", "rule"]).to_pylist()
    return {r["doc_id"]: (r["step"], r["rule"]) for r in table}


# rules that no document gets further by than it got before: the answer is exact, whatever they are
EXACT = [
    ["language.language=language.score >= 0.8"],
    ["size=heuristics.characters >= 4000", "language=language.code = 'en' AND language.score >= 0.3"],
    ["steps.last.keep.toxicity=last.score < quantile(last.score, 0.5, by domain)"],
    ["last.toxicity=null"],
    ["fineweb_dup_char_ratio=heuristics.dup_char_ratio <= 0.001", "last.toxicity=last.score < 0.5"],
    ["language.wide=extract.chars IS NULL OR extract.chars < 5000"],
]


@pytest.mark.parametrize("sets", EXACT, ids=[s[0].split("=")[0] for s in EXACT])
def test_the_answer_is_what_the_run_then_does(folder: Path, sets: list[str]) -> None:
    before = kept(folder / "run")
    answer = what_if(str(folder / "run"), sets)
    assert answer.exact, answer.notes
    full = [s if s.startswith("steps.") else _full(s) for s in sets]
    changed = runs.run.curate(runs.load(folder, tree(), *full), str(folder / "again"), executor="inline")
    assert answer.after["documents"] == changed.counts["kept"]
    assert answer.after["bytes"] == changed.counts["text_bytes"]
    after = kept(folder / "again")
    moved = {(before[d], after[d]) for d in before if before[d] != after[d]}
    figures = answer.groups["rule"]
    assert {name(w) + " -> " + name(n) for w, n in moved} == set(figures)
    assert sum(f["documents"] for f in figures.values()) == sum(before[d] != after[d] for d in before)
    lost = [d.hex() for d in before if before[d] == (None, None) and after[d] != (None, None)]
    shown = answer.examples["lost"]
    assert [e["doc_id"] for e in shown] == sorted(lost)[:20]
    assert all(e["text"] for e in shown)
    groups = answer.groups["domain"].values()
    assert sum(g["lost"]["documents"] for g in groups) == len(lost)
    assert kept(folder / "run") == before


def _full(text: str) -> str:
    key, _, sql = text.partition("=")
    rule = key.rpartition(".")[2]
    step = {"language": "language", "wide": "language", "size": "heuristics", "toxicity": "last"}.get(
        rule, "heuristics"
    )
    return f"steps.{step}.keep.{rule}={sql}"


def name(outcome: tuple[str | None, str | None]) -> str:
    return "kept" if outcome[0] is None else f"{outcome[0]}.{outcome[1]}"


def test_what_comes_back_is_bounded_and_estimated(folder: Path) -> None:
    before = kept(folder / "run")
    sets = ["size=heuristics.characters >= 0"]
    answer = what_if(str(folder / "run"), sets)
    assert not answer.exact and "come back" in answer.notes[0]
    runs.run.curate(
        runs.load(folder, tree(), "steps.heuristics.keep.size=heuristics.characters >= 0"),
        str(folder / "loose"),
        executor="inline",
    )
    after = kept(folder / "loose")
    back = {d for d in before if before[d] == ("heuristics", "size") and after[d][0] in (None, "last")}
    assert back and answer.groups["rule"]["heuristics.size -> comes back"]["documents"] == len(back)
    assert 0 < answer.after["expected_back"] <= len(back)
    assert {e["doc_id"] for e in answer.examples["gained"]} <= {d.hex() for d in back}
    assert all(e["value"] and e["rule"] == "heuristics.size" for e in answer.examples["gained"])


def test_only_holds_for_a_changed_rule(folder: Path) -> None:
    answer = what_if(str(folder / "run"), ["size=heuristics.characters >= 1000000"])
    assert answer.groups["domain"]["web"]["after"]["documents"] == 0 < answer.after["documents"]
    assert answer.changes[0]["after"] == "NOT coalesce((domain = 'web'), FALSE) OR (heuristics.characters >= 1000000)"


def test_tokens_of_kept_documents_are_exact(folder: Path) -> None:
    manifest = json.loads((folder / "run" / "result" / "shards" / "manifest.json").read_text())
    total = sum(d["tokens"] for split in manifest["splits"].values() for d in split.values())
    answer = what_if(str(folder / "run"), ["language=language.score >= 0.5"])
    assert answer.before["tokens"] == total
    assert "exact for kept" in answer.tokens
    assert answer.before["documents"] == sum(o == (None, None) for o in kept(folder / "run").values())


def test_deduplication_is_said_to_be_uncertain(folder: Path) -> None:
    steps = [{"language": {}, "keep": {"language": "language.score >= 0.3"}}, {"exact_dedup": {}}]
    source = [{"name": "texts", "domain": "said", "read": "text", "root": "texts", "path": "*.jsonl"}]
    dedup = tree(steps=steps, sources=source, name="dedup", tokenizer=None)
    runs.curate(folder, dedup, "dedup")
    answer = what_if(str(folder / "dedup"), ["exact_duplicate=null"])
    assert answer.exact and not answer.examples["lost"] and answer.after["documents"] > answer.before["documents"]
    answer = what_if(str(folder / "dedup"), ["language=url NOT LIKE '%.org/%'"])
    assert not answer.exact and "as their duplicates" in answer.notes[0]


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ([], "no rule is changed"),
        (["nonsense"], "expected RULE='SQL'"),
        (["nothing=TRUE"], "no step has a rule 'nothing'"),
        (["nowhere.rule=TRUE"], "steps of the run: extract, language"),
        (["language.other=null"], "no rule 'other' to remove"),
        (["language=language.scor > 1"], "did you mean language.score"),
        (["language=last.score > 0.1"], "no step so far computes"),
        (["language=language.score >"], "language"),
        (["last.said=text LIKE '%a%'"], "the ledger does not store"),
    ],
)
def test_refused(folder: Path, sets: list[str], said: str) -> None:
    with pytest.raises(UserError) as refused:
        what_if(str(folder / "run"), sets)
    assert said in str(refused.value)


def test_a_directory_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no ledger"):
        what_if(str(tmp_path), ["language=TRUE"])
