"""Which files a source's root and path name: links are followed, odd names taken, nothing is passed over silently."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from curation.config.load_pipeline import load_pipeline
from curation.core.errors import UserError
from curation.engine.planning.plan import make_plan
from curation.engine.planning.split_input import split_input
from curation.engine.results import explain
from curation.input_files import list_inputs
from tests.curation.engine import runs

LINE = '{"text": "The brook turns the mill of page %s."}\n'


def test_links_are_followed_and_dead_ones_are_said_to_be_unread(tmp_path: Path) -> None:
    (tmp_path / "store" / "deep").mkdir(parents=True)
    for name in ("a.jsonl", "deep/b.jsonl"):
        (tmp_path / "store" / name).write_text(LINE % name)
    root = tmp_path / "texts"
    root.mkdir()
    (root / "plain.jsonl").write_text(LINE % "plain")
    (root / "linked.jsonl").symlink_to(tmp_path / "store" / "a.jsonl")
    (root / "folder").symlink_to(tmp_path / "store" / "deep")
    (root / "dead.jsonl").symlink_to(tmp_path / "nowhere.jsonl")
    found = list_inputs(str(root), "**/*.jsonl")
    assert [f.path for f in found] == ["dead.jsonl", "folder/b.jsonl", "linked.jsonl", "plain.jsonl"]
    done = runs.curate(tmp_path, runs.text_pipeline(tmp_path), allow_missing=True)
    assert (done.exit_code, done.counts["kept"]) == (3, 3)
    assert [(u["path"], u["reason"]) for u in done.quarantined] == [("dead.jsonl", "FileNotFoundError")]

    (tmp_path / "store" / "a.jsonl").write_text(LINE % "another")  # behind the link
    (root / "dead.jsonl").unlink()
    again = runs.curate(tmp_path, runs.text_pipeline(tmp_path))
    assert (again.exit_code, again.counts["kept"]) == (0, 3)
    assert again.computed["language"] <= 3


def test_names_of_any_kind(tmp_path: Path) -> None:
    folder = tmp_path / "da[1]ta *x"
    names = [
        b"caf\xc3\xa9.jsonl",
        b"a\\b.jsonl",
        b"a b\n.jsonl",
        b"[x].jsonl",
        b"_x.jsonl",
        b"\xf0\x9f\x8c\xbe.jsonl",
    ]
    (folder / "texts").mkdir(parents=True)
    for i, name in enumerate(names):
        with open(os.path.join(os.fsencode(folder), b"texts", name), "wb") as f:
            f.write((LINE % i).encode())
    done = runs.curate(folder, runs.text_pipeline(folder))
    assert (done.exit_code, done.counts["kept"]) == (0, 6)
    rows = explain.ledger(str(folder / "run"), ["doc_id", "source"]).to_pylist()
    assert len({r["doc_id"] for r in rows}) == len({r["source"]["file"] for r in rows}) == 6
    assert runs.curate(folder, runs.text_pipeline(folder)).status == "unchanged"


def test_a_name_that_is_not_utf8_is_refused_before_work_starts(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    with open(os.path.join(os.fsencode(tmp_path), b"texts", b"caf\xe9.jsonl"), "wb") as f:
        f.write((LINE % 1).encode())
    with pytest.raises(UserError) as error:
        runs.curate(tmp_path, runs.text_pipeline(tmp_path))
    assert str(error.value).replace(str(tmp_path), "HERE") == (
        "source 'texts': the name of the file b'caf\\xe9.jsonl' below HERE/texts is not UTF-8. Rename it, or leave it "
        "out by another pattern than '**/*.jsonl'."
    )


def test_links_to_folders_above_and_hidden_files_add_no_documents(tmp_path: Path) -> None:
    """Two links to a folder above made every file match 2^40 paths, and its record as many documents."""
    (tmp_path / "texts" / "d").mkdir(parents=True)
    (tmp_path / "texts" / "d" / "a.jsonl").write_text(LINE % "one")
    (tmp_path / "texts" / "d" / "up").symlink_to("..")
    (tmp_path / "texts" / "d" / "again").symlink_to(tmp_path / "texts")
    (tmp_path / "texts" / "._a.jsonl").write_bytes(bytes(range(60)))  # what macOS writes beside a copied file
    (tmp_path / "texts" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "texts" / ".ipynb_checkpoints" / "a-checkpoint.jsonl").write_text(LINE % "an old one")
    done = runs.curate(tmp_path, runs.text_pipeline(tmp_path))
    assert (done.exit_code, done.counts["read"]["records"], done.counts["kept"]) == (0, 1, 1)


def test_a_file_that_inputs_another_is_read_again_when_that_changes(tmp_path: Path) -> None:
    """Also one that no source lists. An archive has all its files: its task keeps its name."""
    root = tmp_path / "in"
    (root / "parts").mkdir(parents=True)
    (root / "main.tex").write_text(r"\documentclass{a}\begin{document}\input{parts/one}\end{document}")
    (root / "parts" / "one.tex").write_text("One.")
    (root / "z.tar.gz").write_bytes(b"an archive")
    file = tmp_path / "p.yaml"
    file.write_text(
        f"name: p\nsources:\n  - {{name: t, read: latex, root: {root}, path: main.tex}}\n"
        f"  - {{name: a, read: latex, root: {root}, path: '*.gz'}}\n"
    )

    def named() -> tuple[str, list[str]]:
        plan = make_plan(load_pipeline(str(file)))
        return plan.fingerprint, [spec.key for spec in split_input(plan)]

    before, (main, packed) = named()
    assert named() == (before, [main, packed])
    (root / "parts" / "one.tex").write_text("Another.")
    after, keys = named()
    assert after != before and keys[0] != main and keys[1] == packed
    (root / "notes.md").write_text("read by nobody")
    assert named() == (after, keys)
