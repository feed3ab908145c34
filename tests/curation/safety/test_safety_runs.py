"""The three steps in runs: the same bytes whoever works and whatever dies, and a ledger that says where and what."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from curation import storage
from curation.core.errors import UserError
from curation.engine.results import explain
from tests.curation.engine import runs

QUESTION = "how many golden apples did the third sister carry over the frozen lake that winter"
RUDE = "shut up you stupid bitch nobody likes you"
WORDS = ("mill", "stone", "grain", "wheel", "water", "flour", "sack", "miller", "rye", "wheat", "oat", "bran")
VALUES = ("bob@python.org", "212-736-5031", "93.184.215.77", "536-90-4399", "4485 2755 1287 4136")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine")
    rng = random.Random(7)
    for number in range(3):
        rows = []
        for i in range(20):
            sentences = [" ".join(rng.choice(WORDS) for _ in range(9)) + "." for _ in range(4)]
            sentences[i % 4] += f" {rng.choice(VALUES)} {rng.choice(VALUES)}."
            if i % 5 == 0:
                sentences.insert(2, RUDE + ".")
            if i % 7 == 3:
                sentences.insert(1, QUESTION.title() + "?")
            if i == 11:
                sentences = [" ".join(VALUES * 3)]
            rows.append({"text": "\n".join(sentences), "url": f"https://mill.org/{number}/{i}"})
        runs.write_jsonl(folder / "texts" / f"{number}.jsonl", rows)
    runs.write_jsonl(folder / "set.jsonl", [{"question": QUESTION, "answer": "seven"}])
    runs.write_jsonl(folder / "bad.jsonl", [{"url": "https://mill.org/1/4", "reason": "a spike", "by": "training"}])
    return folder


def tree(folder: Path, **engine: Any) -> dict[str, Any]:
    actions = {"EMAIL_ADDRESS": "pseudonym", "US_SSN": "remove"}
    pii = {"actions": actions, "decisions": "presidio", "max_findings": 9, "max_by_entity": {"CREDIT_CARD": 3}}
    return runs.text_pipeline(
        folder,
        exclude=["bad.jsonl"],
        steps=[
            "language",
            {"pii": pii},
            {"toxicity": {"by_language": {"en": "toxicity-en"}, "sentences": "drop"}},
            {"decontaminate": {"against": ["set.jsonl"], "action": "cut"}},
            {"decontaminate": {"name": "again", "against": ["set.jsonl"]}},
            "exact_dedup",
        ],
        tokenizer={"train": {"kind": "bpe", "vocab": 300}},
        engine={"task_bytes": 4096, "batch_rows": 8} | engine,
    )


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("GRISTMILL_PII_KEY", "a key of many letters")
    yield
    storage.set_failpoint(None)


@pytest.fixture(scope="module")
def whole(folder: Path) -> dict[str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRISTMILL_PII_KEY", "a key of many letters")
        made = runs.curate(folder, tree(folder), "whole")
    assert made.status == "done"
    return runs.tree_bytes(folder / "whole")


def test_the_ledger_says_what_was_done(folder: Path, whole: dict[str, str]) -> None:
    rows = explain.ledger(str(folder / "whole")).to_pylist()
    by_rule: dict[str | None, list[dict[str, Any]]] = {}
    for row in rows:
        by_rule.setdefault(row["rule"], []).append(row)
    assert len(rows) == 60 and set(by_rule) <= {None, "pii_count", "exclude", "duplicate"}
    assert [(r["url"], r["value"]) for r in by_rule["exclude"]] == [("https://mill.org/1/4", '"a spike (by training)"')]
    assert len(by_rule["pii_count"]) == 3
    for row in by_rule["pii_count"]:
        spans = json.loads(json.loads(row["evidence"])["spans"])
        assert {s[3] for s in spans} == {"mask", "pseudonym", "remove", "spared"}
        assert sum(s[3] != "spared" for s in spans) == row["pii"]["total"] > 9
    assert sum(r["toxicity"]["cut_sentences"] for r in by_rule[None] if r["toxicity"]["score"] is not None) >= 8
    cut = [r for r in by_rule[None] if r["decontaminate"]["cut"]]
    assert len(cut) >= 8 and {r["decontaminate"]["benchmark"] for r in cut} == {"set"}
    assert all(r["decontaminate"]["item"] == 0 and r["decontaminate"]["field"] == "question" for r in cut)
    assert all(r["again"]["share"] == 0.0 for r in by_rule[None])  # nothing of it is left


@pytest.mark.parametrize(
    ("engine", "more"),
    [
        ({"batch_rows": 1}, {}),
        ({"batch_rows": 1000}, {}),
        ({"task_bytes": 1 << 20}, {}),
        pytest.param({}, {"executor": "ray", "workers": 2}, marks=pytest.mark.slow),
    ],
)
def test_the_same_bytes_however_it_runs(
    folder: Path, whole: dict[str, str], tmp_path: Path, engine: dict[str, int], more: dict[str, Any]
) -> None:
    runs.curate(folder, tree(folder, **engine), str(tmp_path / "run"), **more)
    assert runs.tree_bytes(tmp_path / "run") == whole


def test_resumes_after_a_crash_anywhere(folder: Path, whole: dict[str, str], tmp_path: Path) -> None:
    boundaries: list[str] = []
    storage.set_failpoint(boundaries.append)
    runs.curate(folder, tree(folder), str(tmp_path / "counted"))

    class Dead(BaseException):
        pass

    step = max(1, len(boundaries) // 5)
    for stop in range(step // 2, len(boundaries), step):
        seen = 0

        def die(name: str) -> None:
            nonlocal seen
            seen += 1
            if seen == stop + 1:  # noqa: B023
                raise Dead(name)

        storage.set_failpoint(die)
        with pytest.raises(Dead):
            runs.curate(folder, tree(folder), str(tmp_path / f"run{stop}"))
        storage.set_failpoint(None)
        runs.curate(folder, tree(folder), str(tmp_path / f"run{stop}"))
        assert runs.tree_bytes(tmp_path / f"run{stop}") == whole, boundaries[stop]


def test_another_key_is_another_result(
    folder: Path, whole: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.curate(folder, tree(folder), str(tmp_path / "run"))
    monkeypatch.setenv("GRISTMILL_PII_KEY", "another")
    made = runs.curate(folder, tree(folder), str(tmp_path / "run"))
    assert made.status == "done" and made.computed["pii"] == 59
    runs.curate(folder, tree(folder), str(tmp_path / "fresh"))
    assert runs.tree_bytes(tmp_path / "run") == runs.tree_bytes(tmp_path / "fresh") != whole


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"pii": {"entities": ["EMAIL"]}}, "unknown entity EMAIL"),
        ({"pii": {"actions": {"US_SSN": "hide"}}}, "actions.US_SSN"),
        ({"pii": {"actions": {"US_SSN": "pseudonym"}, "key": "NOT_SET"}}, "environment variable NOT_SET"),
        ({"pii": {"recognizers": ["none.yaml"]}}, "none.yaml: cannot be read"),
        ({"pii": {"ner": "en_core_web_sm"}}, "en_core_web_sm is not installed: install it"),
        ({"toxicity": {"by_language": {"en": "toxicity-en"}}}, "reads 'language', which no earlier step computes"),
        ({"toxicity": {"sentences": "remove"}}, "sentences"),
        ({"decontaminate": {"against": ["set.jsonl"], "fields": ["frage"]}}, "no field frage; it has question, answer"),
        ({"decontaminate": {"against": ["none/*.jsonl"]}}, "no evaluation file matches"),
        ({"decontaminate": {"against": ["set.jsonl"], "action": "mask"}}, "action"),
    ],
)
def test_bad_configuration_is_refused_where_it_stands(folder: Path, step: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        runs.load(folder, runs.text_pipeline(folder, steps=[step]), name="bad.yaml")
    assert "bad.yaml:" in str(caught.value)
