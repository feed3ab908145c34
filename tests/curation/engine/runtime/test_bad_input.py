"""Messages for wrong input and configuration: what is wrong, where, and what to do about it.

Covers: curation/engine/planning/exclude_list.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from curation.core.errors import UserError
from curation.engine.results import explain
from curation.engine.runtime import run
from tests.curation.engine import runs

PAGES = [{"text": f"The brook turns the mill, and the miller sings of page {i}.", "url": f"u{i}"} for i in range(20)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    runs.write_jsonl(tmp_path / "texts" / "a.jsonl", PAGES)
    return tmp_path


def said(folder: Path, tree: dict[str, Any] | str, **more: Any) -> str:
    """The message of the UserError that refuses this pipeline, with the folder's name taken out."""
    with pytest.raises(UserError) as caught:
        run.curate(runs.load(folder, tree), str(folder / "run"), executor="inline", **more)
    return str(caught.value).replace(str(folder), "HERE")


HEAD = """\
sources:
  - {name: texts, domain: web, read: text, root: texts, path: "*.jsonl"}
"""

WRITTEN = {
    "unknown key": (
        HEAD + "step:\n  - language: {}\n",
        "HERE/pipeline.yaml:3: step: unknown key 'step'\n  did you mean steps or seed?",
    ),
    "unknown option": (
        HEAD + "steps:\n  - language:\n      modell: lid.176\n",
        "HERE/pipeline.yaml:5: steps[0].language.modell: the step 'language' has no option 'modell'\n"
        "  did you mean model?",
    ),
    "unknown reader option": (
        'sources:\n  - name: texts\n    read: text\n    path: "*"\n    txt: body\n',
        "HERE/pipeline.yaml:5: sources[0].txt: the source 'texts' (read: text) has no option 'txt'\n"
        "  did you mean text?",
    ),
    "wrong type": (HEAD + "seed: seventeen\n", "HERE/pipeline.yaml:3: seed: is 'seventeen'\n  expected an integer"),
    "wrong type of an option": (
        HEAD + "steps:\n  - minhash_dedup: {threshold: high}\n",
        'HERE/pipeline.yaml:4: steps[0].minhash_dedup.threshold: is "high"\n  expected a number',
    ),
    "unknown step": (
        HEAD + "steps:\n  - langauge: {}\n",
        "HERE/pipeline.yaml:4: steps[0].langauge: unknown step 'langauge'\n  did you mean language?\n"
        "  a step of your own is written file.py:name or package.module:name, of a function or class",
    ),
    "unknown reader": (
        'sources:\n  - {name: a, read: wrac, path: "*"}\n',
        "HERE/pipeline.yaml:2: sources[0].read: unknown reader 'wrac'\n  did you mean warc?",
    ),
    "model that is not there": (
        HEAD + "steps:\n  - language: {model: lid.176.bin}\n",
        r"model lid\.176\.bin is not on this machine: run `gristmill models pull lid\.176\.bin` \(it goes to .+\)",
    ),
    "no such root": (
        'sources:\n  - {name: texts, read: text, root: txets, path: "*.jsonl"}\n',
        "source 'texts': its root HERE/txets does not exist",
    ),
    "nothing matches": (
        'sources:\n  - {name: texts, read: text, root: texts, path: "*.json"}\n',
        "source 'texts' is empty: no file below HERE/texts matches '*.json'",
    ),
    "no such exclude list": (
        HEAD + "exclude: [bad.jsonl]\n",
        "the exclude list HERE/bad.jsonl does not exist (an empty file is a valid list)",
    ),
    "no such pinned quantiles": (
        HEAD + "quantiles: other/run.json\n",
        r"quantiles: HERE/other/run\.json cannot be read as the run\.json of a finished run \(.*No such file.*\)",
    ),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_wrong_in_the_file_is_said_before_any_work(folder: Path, name: str) -> None:
    text, expected = WRITTEN[name]
    found = said(folder, text)
    assert found == expected or re.fullmatch(expected, found), found
    assert not (folder / "run").exists()


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("language.score >=", "syntax error"),
        ("language.scor >= 0.5", "names language.scor, which no step so far computes"),
        ("toxicity.score < 0.5", "names toxicity.score, which no step so far computes"),
        ("language.score", "is a double"),
        ("language.code > 0.5 AND random() < 0.5", "random"),
    ],
)
def test_bad_sql_names_the_line_and_the_rule(folder: Path, sql: str, expected: str) -> None:
    text = HEAD + f'steps:\n  - language: {{}}\n    keep:\n      mine: "{sql}"\n  - toxicity: {{}}\n'
    found = said(folder, text)
    assert found.startswith("HERE/pipeline.yaml:6: steps[0].keep.mine: ")
    assert expected in found
    assert sql in found
    assert not (folder / "run").exists()


def test_files_without_a_record_are_an_empty_source(folder: Path) -> None:
    (folder / "texts" / "a.jsonl").write_text("\n\n")
    assert said(folder, runs.text_pipeline(folder)) == (
        "source 'texts' is empty: 1 files below HERE/texts match '**/*.jsonl', and they contain no records"
    )


def test_a_file_that_is_no_archive_is_named_and_the_run_stops(folder: Path) -> None:
    (folder / "crawl").mkdir()
    (folder / "crawl" / "broken.warc.gz").write_bytes(b"this is no archive at all, whatever its name says" * 40)
    crawl = {"name": "crawl", "read": "warc", "root": "crawl", "path": "*"}
    tree = runs.text_pipeline(folder, steps=[{"language": {}}, "exact_dedup"])
    tree["sources"].append(crawl)
    stopped = runs.curate(folder, tree)
    assert (stopped.status, stopped.exit_code) == ("quarantined", 3)
    assert [(u["path"], u["offset"], u["length"]) for u in stopped.quarantined] == [("broken.warc.gz", 0, 1960)]
    assert stopped.counts["read"] == {"records": 20, "unread_bytes": 1960}
    assert not (folder / "run" / "result").exists()
    assert runs.curate(folder, tree).exit_code == 3  # the same again: still so, with what was done kept
    went_on = runs.curate(folder, tree, allow_missing=True)
    assert (went_on.status, went_on.exit_code, went_on.computed) == ("quarantined", 3, {})
    assert went_on.quarantined == stopped.quarantined
    again = runs.curate(folder, tree, allow_missing=True)
    assert (again.status, again.exit_code, again.quarantined) == ("unchanged", 3, stopped.quarantined)


@pytest.mark.parametrize("steps", [[], ["exact_dedup", "minhash_dedup"]], ids=["map", "dedup"])
def test_no_documents_left_before_tokenizing(folder: Path, steps: list[Any]) -> None:
    none = {"language": {}, "keep": {"language": "language.score > 2"}}
    tree = runs.text_pipeline(folder, steps=[none, *steps], tokenizer={"train": {"vocab": 300}})
    found = said(folder, tree)
    assert found.startswith("no documents are left before tokenizing: all were dropped by rules or could not be read.")
    assert "loosen the rule" in found


def test_a_budget_that_the_data_cannot_fill(folder: Path) -> None:
    tree = runs.text_pipeline(folder, tokenizer={"train": {"vocab": 300}}, mix={"budget": 10_000_000, "max_epochs": 4})
    found = said(folder, tree)
    assert re.match(
        r"mix: a budget of 10,000,000 tokens reads 10,000,000 of web \(100\.00% of it\), which has [\d,]+: [\d.]+ "
        r"epochs, more than max_epochs 4\. A budget of [\d,]+ fits; or lower the weight of web, raise max_epochs",
        found,
    ), found
    fits = int(re.search(r"A budget of ([\d,]+) fits", found)[1].replace(",", ""))  # type: ignore[index]
    done = runs.curate(folder, tree | {"mix": {"budget": fits, "max_epochs": 4}})
    assert (done.status, done.computed) == ("done", {})


def test_a_run_directory_of_another_pipeline(folder: Path) -> None:
    runs.curate(folder, runs.text_pipeline(folder))
    assert said(folder, runs.text_pipeline(folder, name="other")) == (
        "HERE/run is a run of the pipeline 'tested', and this one is 'other'. Give another directory with --run, or "
        "the old name if it is the same pipeline changed."
    )


@pytest.mark.parametrize(
    "name", ["pipeline.yaml", "cache/mine.txt", "result/shards/manifest.json", "pinned/mine.txt", "decided/mine.txt"]
)
def test_a_directory_of_somebody_else(folder: Path, name: str) -> None:
    """Its files would be overwritten, or removed with a tree of the same name."""
    theirs = folder / "run" / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine\n")
    message = said(folder, runs.text_pipeline(folder))
    assert f"HERE/run holds {name.split('/')[0]}, and no run wrote it" in message and "--run" in message
    assert theirs.read_text() == "mine\n"
    assert [p for p in (folder / "run").rglob("*") if p.is_file()] == [theirs]


def test_two_drivers_on_one_run_directory(folder: Path) -> None:
    import fcntl

    (folder / "run").mkdir()
    with (folder / "run" / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write("mill-7, process 4711")
        held.flush()
        assert said(folder, runs.text_pipeline(folder)) == (
            "another driver is working in HERE/run (mill-7, process 4711). Wait for it, stop it, or give another run "
            "directory with --run."
        )
    assert runs.curate(folder, runs.text_pipeline(folder)).status == "done"


def test_a_run_directory_that_cannot_be_one(folder: Path) -> None:
    (folder / "run").write_text("a file")
    assert said(folder, runs.text_pipeline(folder)) == (
        "cannot write to the run directory HERE/run: File exists. Make it writable, or give another one with --run."
    )


def test_limit_and_sample_that_are_none(folder: Path) -> None:
    tree = runs.text_pipeline(folder)
    assert said(folder, tree, limit=-3) == "limit is -3: expected a number of records, 1 or more"
    for share in (0, 7):
        assert said(folder, tree, sample=share) == (
            f"sample is {share}: expected a share of the documents, above 0 and at most 1"
        )


def test_sources_that_give_the_same_ids(folder: Path) -> None:
    tree = runs.text_pipeline(folder)
    tree["sources"].append(tree["sources"][0] | {"name": "again", "collection": "texts"})
    found = said(folder, tree)
    assert found == (
        "source 'again': HERE/texts/a.jsonl and HERE/texts/a.jsonl have the same path in one collection, so "
        "that their documents would have the same ids. Give the sources 'texts' and 'again' different `collection` "
        "names, or change one's `path`."
    )
    del tree["sources"][1]["collection"]
    assert runs.curate(folder, tree).counts["kept"] == 40


@pytest.mark.parametrize(
    "line",
    ['{"doc": 1}', "page 7", '{"doc_id": "zz"}', '{"doc_id": "abcd"}', '{"url": 7}', "[1]", '"http://e.org"', "null"],
)
def test_a_bad_line_in_an_exclude_list(folder: Path, line: str) -> None:
    (folder / "bad.jsonl").write_text(f'{{"url": "http://e.org"}}\n\n{line}\n')
    assert said(folder, runs.text_pipeline(folder, exclude=["bad.jsonl"])) == (
        f"HERE/bad.jsonl, line 3: expected an object with `doc_id` (32 hexadecimal digits) or `url`, found {line[:80]}"
    )


def pinned(folder: Path, content: str) -> dict[str, Any]:
    (folder / "other.json").write_text(content)
    keep = {"r": "language.score >= quantile(language.score, 0.5)"}
    return runs.text_pipeline(folder, steps=[{"language": {}, "keep": keep}], quantiles="other.json")


@pytest.mark.parametrize("content", ["no json", "[]", '{"name": "x"}', '{"quantiles": [{"signal": 1}]}'])
def test_pinned_quantiles_that_are_none(folder: Path, content: str) -> None:
    found = said(folder, pinned(folder, content))
    assert found.startswith("quantiles: HERE/other.json cannot be read as the run.json of a finished run (")


def test_pinned_quantiles_that_lack_one(folder: Path) -> None:
    other = {"quantiles": [{"signal": "language.score", "p": 0.4, "by": None, "value": 0.9}]}
    assert said(folder, pinned(folder, json.dumps(other))) == (
        "quantiles: HERE/other.json has no quantile(language.score, 0.5), which a rule of the step language uses; "
        "it has quantile(language.score, 0.4). Pin from a run whose rules use it, or remove `quantiles`."
    )


def test_pinned_quantiles_decide(folder: Path) -> None:
    runs.curate(folder, pinned(folder, '{"quantiles": []}') | {"quantiles": None}, "other")
    value = json.loads((folder / "other" / "run.json").read_text())["quantiles"]
    assert len(value) == 1
    runs.write_jsonl(folder / "texts" / "b.jsonl", [{"text": "Wasser Mühle und Bach " * (i + 1)} for i in range(30)])
    tree = pinned(folder, "{}") | {"quantiles": "other/run.json"}
    runs.curate(folder, tree)
    assert json.loads((folder / "run" / "run.json").read_text())["quantiles"] == value
    kept = explain.ledger(str(folder / "run"), ["step", "language"]).to_pylist()
    for row in kept:
        assert (row["step"] is None) == (row["language"]["score"] >= value[0]["value"])
