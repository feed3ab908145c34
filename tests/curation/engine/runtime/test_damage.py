"""A flipped byte anywhere in a run is named and repaired: it never reaches a result, and never blocks a run for good.

The drill flips one byte of a random file below cache/ of a finished run, changes a rule, and curates again: the result
must be, byte for byte, that of a run that was never damaged.

Covers: curation/engine/execution/damaged_files.py, curation/engine/tasks/check_files.py
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from curation import storage
from curation.api import Run
from curation.core.errors import DamagedFile
from curation.engine.execution.executors import RunFailed
from curation.engine.execution.progress import Silent
from curation.engine.results import explain
from curation.engine.runtime import status
from curation.storage import Storage
from tests.curation.engine import tiny

RULE, CHANGED = "0.2", "0.35"


class Notes(Silent):
    """Keeps what the run said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, message: str) -> None:
        self.lines.append(message)


class Finished:
    """A finished run, and the result that a fresh run with another rule has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tiny.write_input(folder / "in", files=3)
        self.file = tiny.write_pipeline(folder)
        text = self.file.read_text()
        tiny.run(self.file, folder / "run")
        self.changed = folder / "changed.yaml"
        self.changed.write_text(text.replace(f"words.count, {RULE}", f"words.count, {CHANGED}"))
        self.executed = tiny.run(self.changed, folder / "fresh").executed
        self.tree = tiny.tree(folder / "fresh")
        self.files = sorted(p.relative_to(folder / "run") for p in (folder / "run" / "cache").rglob("*") if p.is_file())

    def copy(self, name: str = "copy") -> Path:
        target = self.folder / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.folder / "run", target)
        return target


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    base = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    folder = tmp_path_factory.mktemp("damage") if base is None else base / f"gristmill-{random.randrange(1 << 40):x}"
    folder.mkdir(exist_ok=True)
    yield Finished(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
    path.unlink()  # a copy of its own: the result may be linked to it
    path.write_bytes(data)


def drill(finished: Finished, flips: int, seed: int = 1) -> dict[str, int]:
    """Flips bytes below cache/, one a trial; asserts that each run ends with the result of a fresh one."""
    rng = random.Random(seed)
    ended = {"same": 0, "another result": 0, "failed": 0, "noted": 0}
    wrong = []
    for _ in range(flips):
        run_dir = finished.copy()
        damaged = run_dir / rng.choice(finished.files)
        _flip(damaged, rng)
        notes = Notes()
        try:
            tiny.run(finished.changed, run_dir, progress=notes)
        except Exception as error:
            ended["failed"] += 1
            wrong.append((str(damaged.relative_to(run_dir)), repr(error)[:200]))
            continue
        kind = "same" if tiny.tree(run_dir) == finished.tree else "another result"
        ended[kind] += 1
        if kind != "same":
            wrong.append((str(damaged.relative_to(run_dir)), kind))
        ended["noted"] += any("damaged" in line for line in notes.lines)
    print(ended)
    assert ended["same"] == flips, (ended, wrong)
    return ended


def test_a_few_flipped_bytes_below_the_cache_change_nothing(finished: Finished) -> None:
    drill(finished, 9)


@pytest.mark.nightly
def test_three_hundred_flipped_bytes_below_the_cache_change_nothing(finished: Finished) -> None:
    drill(finished, 300, seed=3)


FOLDERS = ("signals/read-", "signals/words-", "signals/exact_dedup-", "docs", "decisions", "stages", "phases", "reuse")


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("how", ["changed", "missing"])
def test_a_damaged_file_that_is_read_is_named_and_computed_again(finished: Finished, folder: str, how: str) -> None:
    """All files of one kind at once, so that some of them are needed: those of the unchanged rule run again too."""
    run_dir = finished.copy()
    rng = random.Random(4)
    paths = [run_dir / f for f in finished.files if str(f).startswith(f"cache/{folder}")]
    assert paths
    for path in paths:
        _flip(path, rng) if how == "changed" else path.unlink()
    notes = Notes()
    result = tiny.run(finished.changed, run_dir, progress=notes)
    assert tiny.tree(run_dir) == finished.tree
    # JSON that is missing is nothing to speak of, and all else that a run with this rule does not read
    silent = (how == "missing" and folder in ("phases", "reuse")) or folder in ("signals/exact_dedup-", "reuse")
    if not silent and folder != "stages":
        assert any("damaged" in line and f"cache/{folder}" in line for line in notes.lines), notes.lines
    assert result.executed <= finished.executed + 6, "whole phases were run again"


def test_a_run_that_resumes_checks_the_files_that_it_did_not_write_itself(finished: Finished) -> None:
    """Result files are only linked into the result: nobody reads them on the way."""
    run_dir = finished.copy()
    fresh = tiny.tree(run_dir)
    staged = [run_dir / f for f in finished.files if str(f).startswith("cache/out/")]
    assert len(staged) > 4
    shutil.rmtree(run_dir / "result")
    store = Storage(str(run_dir))
    store.write_json("run.json", store.read_json("run.json") | {"done": None})  # as if killed before it was published
    rng = random.Random(5)
    for path in staged:
        _flip(path, rng)
    notes = Notes()
    tiny.run(finished.file, run_dir, progress=notes)
    assert tiny.tree(run_dir) == fresh
    assert sum("cache/out/" in line for line in notes.lines) >= len(staged), notes.lines


def test_a_damaged_run_json_is_written_again(finished: Finished) -> None:
    run_dir = finished.copy()
    _flip(run_dir / "run.json", random.Random(6))
    with pytest.raises(DamagedFile, match=r"run\.json is damaged"):
        status.run_status(str(run_dir))
    notes = Notes()
    result = tiny.run(finished.file, run_dir, progress=notes)
    assert (result.status, result.executed) == ("done", 0)
    assert "run.json is damaged" in notes.lines[0]


def test_what_is_damaged_each_time_it_is_written_stops_the_run(finished: Finished) -> None:
    """A disk that does not keep what is written: each new file of a store is changed as soon as it has its name."""
    run_dir = finished.folder / "broken-disk"
    rng = random.Random(7)

    def damage(name: str) -> None:
        if name.startswith("created cache/docs/"):
            _flip(run_dir / name.removeprefix("created "), rng)

    storage.set_failpoint(damage)
    try:
        with pytest.raises(RunFailed, match=r"computed 2 times and is damaged again.*check both"):
            tiny.run(finished.file, run_dir)
    finally:
        storage.set_failpoint(None)
        shutil.rmtree(run_dir)


# -- the result of a finished run -----------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["ledger", "urls", "documents"])
def test_a_damaged_result_file_is_named_by_whoever_reads_it_and_made_again(finished: Finished, folder: str) -> None:
    run_dir = finished.copy()
    before = tiny.tree(run_dir)
    doc_id, url = Run(str(run_dir)).ledger(["doc_id", "url"]).slice(3, 1).to_pylist()[0].values()
    for path in (run_dir / "result" / folder).iterdir():
        _flip(path, random.Random(8))
    reads = {
        "ledger": lambda: explain.explain(str(run_dir), doc_id.hex()),
        "urls": lambda: explain.explain(str(run_dir), url),
        "documents": lambda: Run(str(run_dir)).documents(),
    }
    with pytest.raises(DamagedFile, match=rf"result/{folder}/.* is damaged: .* curate --check"):
        reads[folder]()
    if folder != "urls":
        with pytest.raises(DamagedFile):
            Run(str(run_dir)).sql(f"SELECT count(*) FROM {folder}")
    assert tiny.run(finished.file, run_dir).status == "unchanged"
    assert tiny.run(finished.file, run_dir, check=True).status == "done"
    assert tiny.tree(run_dir) == before


def test_check_finds_all_damage_below_the_cache_and_makes_it_again(finished: Finished) -> None:
    run_dir = finished.copy()
    before = tiny.tree(run_dir)
    rng = random.Random(9)
    damaged = [f for f in finished.files if f.suffix in (".parquet", ".part", ".arrow")]
    for path in damaged:
        _flip(run_dir / path, rng)
    notes = Notes()
    assert tiny.run(finished.file, run_dir, check=True, progress=notes).status == "done"
    named = {line.split(" ")[0] for line in notes.lines}
    assert named >= {str(p) for p in damaged}
    assert tiny.tree(run_dir) == before
    notes = Notes()
    again = tiny.run(finished.file, run_dir, check=True, progress=notes)
    assert (again.executed, notes.lines) == (0, [])


def test_without_a_cache_check_reads_the_result(finished: Finished) -> None:
    run_dir = finished.copy()
    before = tiny.tree(run_dir)
    shutil.rmtree(run_dir / "cache")  # what `retention: none` leaves
    file = finished.folder / "none.yaml"
    file.write_text(finished.file.read_text() + "retention: none\n")
    tiny.run(file, run_dir)
    assert not (run_dir / "cache").exists()
    assert tiny.run(file, run_dir, check=True).status == "unchanged"
    _flip(next((run_dir / "result" / "shards" / "train" / "web").iterdir()), random.Random(10))
    assert tiny.run(file, run_dir, check=True).status == "done"
    assert tiny.tree(run_dir) == before


def test_a_damaged_pipeline_yaml_is_named_and_written_again(finished: Finished) -> None:
    run_dir = finished.copy()
    path = run_dir / "pipeline.yaml"
    path.write_bytes(path.read_bytes().replace(b"words.count, 0.2", b"words.count, 0.3"))
    doc_id = Run(str(run_dir)).ledger(["doc_id"])[0][3].as_py().hex()
    with pytest.raises(DamagedFile, match=r"pipeline\.yaml is damaged"):
        explain.explain(str(run_dir), doc_id)
    tiny.run(finished.file, run_dir, check=True)
    assert explain.explain(str(run_dir), doc_id)["doc_id"] == doc_id


def test_damage_in_a_prior_run_is_named_and_that_run_repairs_it(tmp_path: Path) -> None:
    tiny.write_input(tmp_path / "in")
    file = tiny.write_pipeline(tmp_path)
    tiny.run(file, tmp_path / "first")
    later = tmp_path / "later.yaml"
    later.write_text(file.read_text().replace("exact_dedup: {}", f"exact_dedup: {{prior_run: {tmp_path}/first}}"))
    tiny.write_input(tmp_path / "more", files=4)  # two files of it are new
    later.write_text(later.read_text().replace(f'"{tmp_path}/in"', f'"{tmp_path}/more"'))
    tiny.run(later, tmp_path / "whole")
    record = Storage(str(tmp_path / "first")).read_json("cache/prior_run/exact_dedup.json")
    (name,) = {p for task in record["tasks"][:1] for p in task["state"]["decisions"][:1]}
    _flip(tmp_path / "first" / name, random.Random(11))
    with pytest.raises(RunFailed, match=rf"{name}, which .* is damaged: .* Run `gristmill curate --check` on the run"):
        tiny.run(later, tmp_path / "second")
    assert (tmp_path / "first" / name).exists(), "another run's file is not for this run to remove"
    tiny.run(file, tmp_path / "first", check=True)
    tiny.run(later, tmp_path / "second")
    assert tiny.tree(tmp_path / "second") == tiny.tree(tmp_path / "whole")
    _flip(tmp_path / "first" / "cache" / "prior_run" / "exact_dedup.json", random.Random(12))
    with pytest.raises(DamagedFile, match="curate --check"):
        tiny.run(later, tmp_path / "third")


@pytest.mark.slow
def test_damage_is_repaired_on_ray_as_well(finished: Finished) -> None:
    run_dir = finished.copy()
    rng = random.Random(13)
    for path in finished.files:
        if path.parts[1] in ("signals", "docs", "decisions", "stages"):
            _flip(run_dir / path, rng)
    notes = Notes()
    tiny.run(finished.changed, run_dir, executor="ray", workers=2, progress=notes)
    assert tiny.tree(run_dir) == finished.tree
    assert sum("is damaged" in line for line in notes.lines) >= 3, notes.lines
