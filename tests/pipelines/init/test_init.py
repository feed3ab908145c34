"""`gristmill init`: five kinds of input, each looked at and then curated by the file that came out, unchanged.

Covers: detect_format.py, draft_pipeline.py, file_groups.py, globs.py, sample_documents.py, scan_input.py
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipelines.init import draft_pipeline, scan_input
from tests.curation.engine import runs

WORDS = "the mill turns grain into flour while water runs under a wheel and people wait for bread in the morning"


def text(i: int, words: int = 90) -> str:
    """A text of its own: the same words from another place on, with numbers between."""
    all_words = WORDS.split()
    return " ".join(
        f"{all_words[(i * 7 + k * (1 + i % 5)) % len(all_words)]}{k if k % 9 == i % 9 else ''}" for k in range(words)
    )


def odd_records(count: int = 40) -> list[dict[str, object]]:
    return [
        {
            "storyKey": f"s{i}", "Headline": f"Number {i}", "bodyMarkup": text(i),
            "permaLink": f"https://a{i % 3}.example/{i}", "released_on": f"2024-03-{i % 28 + 1:02d}", "tags": ["x"],
        }
        for i in range(count)
    ]  # fmt: skip


def write_tree(folder: Path) -> None:
    (folder / "deep" / "er").mkdir(parents=True)
    for i in range(12):
        (folder / f"{i}.txt").write_text(text(i))
        (folder / "deep" / f"{i}.md").write_text("# Title\n\n" + text(100 + i))
        (folder / "deep" / "er" / f"m{i}.py").write_text(f"import os\n\n\ndef f{i}(x):\n    return x + {i}\n")
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(60))
    (folder / "table.csv").write_text("a,b\n1,2\n")
    (folder / "empty.txt").write_text("")
    (folder / ".hidden").write_text("not to be read")


@pytest.fixture
def inputs(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The input that the test's parameter names."""
    folder = tmp_path / "in"
    folder.mkdir()
    kind = request.param
    if kind in ("warc", "mix"):
        data = request.getfixturevalue("data")
        runs.cut_warc(data / "crawl" / "docs-00.warc.gz", folder / "pages.warc.gz", 0, 120)
    if kind in ("jsonl", "mix"):  # compressed, and by its name plain text
        with gzip.open(folder / "dump.txt.gz", "wt", encoding="utf-8") as f:
            f.writelines(json.dumps(r) + "\n" for r in odd_records())
    if kind in ("parquet", "mix"):
        rows = [{"doc": r["bodyMarkup"], "src": r["permaLink"], "n": i} for i, r in enumerate(odd_records())]
        pq.write_table(pa.Table.from_pylist(rows), folder / "part-0.parquet")
    if kind in ("tree", "mix"):
        write_tree(folder / "texts" if kind == "mix" else folder)
    return folder


EXPECTED = {
    "warc": [("warc", "web", ["**/*.warc.gz"], {})],
    "jsonl": [
        (
            "text",
            "web",
            ["**/*.txt.gz"],
            {"text": "bodyMarkup", "url": "permaLink", "date": "released_on", "format": "jsonl"},
        )
    ],
    "parquet": [("text", "web", ["**/*.parquet"], {"text": "doc", "url": "src"})],
    "tree": [("text", "text", None, {}), ("code", "code", ["**/*.py"], {})],
}


@pytest.mark.parametrize(
    "inputs",
    ["jsonl", "parquet", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("warc", "tree", "mix"))],
    indirect=True,
)
def test_what_init_writes_runs_unchanged(gristmill, inputs, tmp_path, request):
    kind = request.node.callspec.params["inputs"]
    file = tmp_path / "drafted.yaml"
    code, out, _ = gristmill("init", inputs, "-o", file, "--json")
    assert code == 0
    answer = json.loads(out)
    if kind in EXPECTED:
        seen = [(s["read"], s["domain"], s["patterns"], s["options"]) for s in answer["sources"]]
        for (*found, patterns, options), (*wanted, wanted_patterns, wanted_options) in zip(
            seen, EXPECTED[kind], strict=True
        ):
            assert (found, options) == (wanted, wanted_options)
            assert wanted_patterns is None or patterns == wanted_patterns
    else:
        assert {(s["read"], s["format"]) for s in answer["sources"]} == {
            ("warc", "warc"), ("text", "jsonl"), ("text", "parquet"), ("text", "text"), ("code", "code")
        }  # fmt: skip
    if kind in ("tree", "mix"):
        hidden = scan_input.HIDDEN
        assert {"image/png", "csv without a text field (fields: a, b)", "empty", hidden} == set(answer["left_out"])
    before = file.read_bytes()
    code, out, err = gristmill("curate", file, "--run", tmp_path / "run", "--executor", "inline", "--json")
    assert code == 0, err
    counts = json.loads(out)["counts"]
    assert counts["kept"] > 0 and not any(
        s["rule"] in ("unreadable", "mime") for s in counts["steps"] if s["step"] == "read"
    )
    if kind in ("tree", "mix"):  # every text once, and nothing that was left out
        texts = [s for s in answer["sources"] if s["format"] in ("text", "code")]
        assert sum(s["files"] for s in texts) == 36
    if kind == "tree":
        assert counts["read"]["records"] == 36
    if kind in ("jsonl", "parquet"):
        assert counts["read"]["records"] == 40
        # they repeat themselves more than the Gopher rules allow
        assert "off: they would keep only 0%" in before.decode()
    assert file.read_bytes() == before


@pytest.mark.parametrize("inputs", ["warc"], indirect=True)
def test_what_was_seen_stands_in_the_file(inputs):
    found = scan_input.scan_inputs([str(inputs)])
    made = draft_pipeline.draft_pipeline(found, "x", str(inputs))
    assert "documents sampled" in made and "hosts: postgresql.docs.test" in made and "languages: en" in made
    assert "language.code = 'en' AND language.score >= 0.5" in made and "\n  - heuristics: {sets: [gopher]}" in made


def test_an_empty_folder_is_said(gristmill, tmp_path):
    (tmp_path / "in").mkdir()
    code, _, err = gristmill("init", tmp_path / "in", "-o", tmp_path / "x.yaml")
    assert code == 2 and "no text found in" in err and "expected WARC" in err
    assert gristmill("init", tmp_path / "nowhere", "-o", tmp_path / "x.yaml")[0] == 2
    assert not (tmp_path / "x.yaml").exists()


def test_a_file_that_is_there_stays(gristmill, tmp_path):
    write_tree(tmp_path / "in")
    (tmp_path / "x.yaml").write_text("mine")
    code, _, err = gristmill("init", tmp_path / "in", "-o", tmp_path / "x.yaml")
    assert code == 2 and "--force" in err and (tmp_path / "x.yaml").read_text() == "mine"


def test_globs_take_what_was_meant_and_nothing_else(tmp_path):
    write_tree(tmp_path / "in")
    (tmp_path / "in" / "a[b].txt").write_text(text(55))
    found = scan_input.scan_inputs([str(tmp_path / "in")])
    from curation.input_files import list_inputs

    for group in found.groups:
        matched = [f.path for p in group.patterns for f in list_inputs(group.root, p)]
        assert sorted(matched) == sorted(f.path for f in group.files)


def sources_and_files(gristmill, folder: Path, tmp_path: Path) -> tuple[list[list[str]], dict[str, list[str]], str]:
    """(patterns of each source, what is left out and why, the console's text) of `init`. No file may be in neither."""
    from curation.input_files import list_inputs

    code, out, err = gristmill("init", folder, "-o", tmp_path / "a.yaml", "--json", "--force")
    assert code == 0, err
    answer = json.loads(out)
    patterns = [s["patterns"] for s in answer["sources"]]
    matched = [
        str(folder / f.path) for s in answer["sources"] for p in s["patterns"] for f in list_inputs(s["root"], p)
    ]
    assert len(matched) == len(set(matched))
    left_out = [path for paths in answer["left_out"].values() for path in paths]
    there = {str(p) for p in folder.rglob("*") if p.is_file()}
    assert there == {p for p in there if p in matched or any(p == o or p.startswith(f"{o}/") for o in left_out)}
    code, console, _ = gristmill("init", folder, "-o", tmp_path / "b.yaml", "--force")
    assert code == 0 and all(reason in " ".join(console.split()) for reason in answer["left_out"])
    return patterns, answer["left_out"], console


def write_parts(folder: Path, count: int, **fields: str) -> None:
    folder.mkdir()
    for i in range(count):
        (folder / f"part-{i}.jsonl").write_text(json.dumps({"text": text(i), **fields}) + "\n")


@pytest.mark.parametrize("content", ["", "\n", "\0\0\0\x01binary\0", "no record at all"])
@pytest.mark.parametrize("count", [300, 450])  # of more than 400 files some are not opened
def test_one_file_without_text_loses_no_other(gristmill, tmp_path, content, count):
    write_parts(tmp_path / "many", count)
    (tmp_path / "many" / "part-77.jsonl").write_text(content)
    (tmp_path / "many" / "part-99.jsonl").write_text(content)  # the last by name
    patterns, left_out, _ = sources_and_files(gristmill, tmp_path / "many", tmp_path)
    if content == "no record at all":  # a text file, by its suffix JSON Lines: it cannot be told apart
        assert ["**/*.jsonl"] in patterns or sum(map(len, patterns)) <= 80
    else:
        assert patterns == [["**/*.jsonl"]] and sum(map(len, left_out.values())) == 2


def test_twins_of_macos_and_marker_files_are_left_out_and_said(gristmill, tmp_path):
    folder = tmp_path / "many"
    write_parts(folder, 60)
    for i in range(60):
        (folder / f"._part-{i}.jsonl").write_bytes(b"\0\5\x16\7" + bytes(80))
    (folder / "_SUCCESS").write_text("")
    (folder / ".git" / "objects").mkdir(parents=True)
    (folder / ".git" / "objects" / "a.jsonl").write_text("{}")
    patterns, left_out, console = sources_and_files(gristmill, folder, tmp_path)
    assert patterns == [["**/*.jsonl"]]
    assert len(left_out[scan_input.HIDDEN]) == 62 and str(folder / ".git") in left_out[scan_input.HIDDEN]
    assert f"62 files: {scan_input.HIDDEN}" in " ".join(console.split())


def test_files_that_differ_only_in_their_sample_are_one_source(gristmill, tmp_path):
    """No date in one file, another kind of text in the next: 60 patterns would be needed, and 40 are written."""
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(120):
        date = {"published": "2024-03-01"} if i % 2 else {}
        (folder / f"part-{i}.jsonl").write_text(json.dumps({"text": text(i), **date}) + "\n")
    patterns, left_out, _ = sources_and_files(gristmill, folder, tmp_path)
    assert patterns == [["**/*.jsonl"]] and not left_out


def test_files_that_no_glob_can_select_are_named(gristmill, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(120):
        (folder / f"part-{i}.jsonl").write_text(json.dumps({"body" if i % 2 else "story": text(i)}) + "\n")
    patterns, left_out, console = sources_and_files(gristmill, folder, tmp_path)
    assert [len(p) for p in patterns] == [40, 40] and len(left_out[scan_input.MIXED]) == 40
    assert "left out 40 files" in " ".join(console.split())


def test_one_file_named_twice_is_one_source(gristmill, tmp_path):
    write_parts(tmp_path / "many", 3)
    code, out, _ = gristmill(
        "init", tmp_path / "many", tmp_path / "many" / "part-1.jsonl", "-o", tmp_path / "x.yaml", "--json"
    )
    answer = json.loads(out)
    assert code == 0 and [s["files"] for s in answer["sources"]] == [3]
    assert answer["left_out"] == {"already found through another input": [str(tmp_path / "many" / "part-1.jsonl")]}


def test_without_the_language_model_the_step_is_left_out(tmp_path):
    write_tree(tmp_path / "in")
    found = scan_input.scan_inputs([str(tmp_path / "in")], language_model=str(tmp_path / "absent" / "model.bin"))
    assert not found.identified
    made = draft_pipeline.draft_pipeline(found, "x", str(tmp_path))
    assert "gristmill models pull lid.176" in made
    assert not any("language" in step for step in yaml.safe_load(made)["steps"])


def test_names_with_odd_characters_stay_names(tmp_path):
    folder = tmp_path / "a: b #c ${HOME}"
    folder.mkdir()
    (folder / "x.txt").write_text(text(1))
    (tmp_path / "p.yaml").write_text(
        draft_pipeline.draft_pipeline(scan_input.scan_inputs([str(folder)]), "p", str(tmp_path))
    )
    from curation.config.load_pipeline import load_pipeline

    assert load_pipeline(str(tmp_path / "p.yaml")).sources[0].root == str(folder)
