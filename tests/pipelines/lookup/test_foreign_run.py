"""Looking at somebody's run directory runs no code that it names and shows no file outside its sources.

Covers: pipelines/lookup/original_text.py, curation/config/step_options.py.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import curation
from curation.config.catalogue import READERS, STEPS
from curation.config.step_options import find_known_class
from curation.config.stored_pipeline import read_stored_pipeline, write_stored_pipeline
from curation.core.errors import UserError
from curation.engine.runtime.delete import delete_documents
from curation.storage import Storage
from pipelines.cards.write_cards import write_cards
from pipelines.lookup.original_text import OriginalTexts
from pipelines.report.write_report import write_report
from pipelines.what_if.what_if import what_if

PIPELINE = """
name: foreign
sources:
  - {name: texts, read: text, path: "*.jsonl"}
steps:
  - pii: {}
  - exact_dedup: {}
"""
EVIL = """
import os
os.mkdir({marker!r})
from curation.step import MapStep
class Step(MapStep): pass
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foreign")
    texts = ["a line of text that is long enough", "a second line of text", "a line of text that is long enough"]
    lines = [json.dumps({"text": t, "url": f"https://x.y/{i}"}) for i, t in enumerate(texts)]
    (folder / "t.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "p.yaml").write_text(PIPELINE)
    curation.run(str(folder / "p.yaml"), str(folder / "run"), executor="inline")
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "run", tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("where", ["absolute", "beside", "module"])
def test_a_step_that_the_run_names_is_not_imported(
    run: Path, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step of a user's own code: what-if, card, report and explain go by what the run has written down."""
    marker = tmp_path / "ran"
    (run / "evil_step.py").write_text(EVIL.format(marker=str(marker)))
    monkeypatch.syspath_prepend(str(run))
    store = Storage(str(run))
    store.write_json("run.json", store.read_json("run.json") | {"file": str(run / "p.yaml")})
    kind = {"absolute": f"{run}/evil_step.py:Step", "beside": "evil_step.py:Step", "module": "evil_step:Step"}[where]
    stored = read_stored_pipeline(store)
    stored["steps"][0] |= {"step": kind, "scrubs": True, "options": {}}
    write_stored_pipeline(store, stored)
    what_if(str(run), [f"{stored['steps'][1]['name']}.x=pii.total < 9"])
    write_cards(str(run))
    write_report(str(run))
    assert not marker.exists()
    texts = OriginalTexts(Storage(str(run)), json.loads((run / "run.json").read_text()))
    line = {"file": "t.jsonl", "kind": "jsonl", "offset": 0, "length": 70, "row": None}
    assert texts.read([("texts", line)], 20) == [None], "without its own step personal data cannot be removed"
    assert not marker.exists()
    with pytest.raises(UserError, match="looking at a run does not import it"):
        find_known_class(kind, STEPS, str(run / "p.yaml"))


def test_the_location_of_a_record_stays_below_its_source(run: Path, made: Path, tmp_path: Path) -> None:
    """A ledger or shard names the file of each document; a document of somebody's run names any."""
    (made / "own.txt").write_text("the user's own secret\n")
    (made.parent / "outside.jsonl").write_text('{"text": "the user\'s own secret"}\n')
    texts = OriginalTexts(Storage(str(run)), json.loads((run / "run.json").read_text()))
    good = {"file": "t.jsonl", "kind": "jsonl", "offset": 0, "length": 70, "row": None}
    assert texts.read([("texts", good)], 20) == ["a line of text that "]
    for file in ("../outside.jsonl", str(made.parent / "outside.jsonl"), "file:///etc/passwd", "x/../../outside.jsonl"):
        assert texts.read([("texts", good | {"file": file})], 100) == [None], file


def test_pins_and_cached_files_of_others_stay_inside(run: Path, made: Path, tmp_path: Path) -> None:
    """generation.json names what a deletion pins, and the phases of the cache the files that the result links to."""
    victim = tmp_path / "victim"
    victim.write_text("the user's own")
    Storage(str(run)).write_json("generation.json", {"number": 1, "quantiles": {"file": "../victim", "of": ""}})
    with pytest.raises(UserError, match=r"\.\./victim"):
        delete_documents(str(run), urls=["https://x.y/1"], catalogue=STEPS, readers=READERS, executor="inline")
    store = Storage(str(run))
    for act in (
        lambda p: store.remove(p),
        lambda p: store.link(p, "result/x"),
        lambda p: store.link("run.json", p),
        lambda p: store.write_bytes(p, b""),
        lambda p: store.rename("run.json", p),
    ):
        for path in ("../victim", str(victim), "cache/../../victim", f"file://{victim}"):
            with pytest.raises(UserError, match="victim"):
                act(path)
    assert victim.read_text() == "the user's own"
    with pytest.raises(UserError, match="leads out of its folder"):
        store.read_bytes("../victim")


def test_what_is_written_goes_through_no_link(run: Path, tmp_path: Path) -> None:
    """Links planted in a run directory: a log's, a temporary file's, a report's."""
    from curation.core import atomic_files, jsonl_log

    victim = tmp_path / "victim"
    victim.write_text("the user's own")
    for name in ("log.jsonl", "state.json.tmp", "report.html"):
        (run / name).symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        jsonl_log.append(run / "log.jsonl", {"event": "start"})
    atomic_files.write(run / "state.json", b"new")
    assert (run / "state.json").read_bytes() == b"new"
    write_report(str(run))
    assert victim.read_text() == "the user's own" and not (run / "report.html").is_symlink()
