"""A flipped byte anywhere in a run is named and repaired: it never reaches a result, and never blocks a run for good.

The drill flips one byte of a random file below cache/ of a finished run, changes a rule, and curates again: the result
must be, byte for byte, that of a run that was never damaged.

Covers: damaged_files.py, check_files.py
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from curation.engine.execution.driver import Silent
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
        (folder / "deciding").mkdir()
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
    drill(finished, 6)


@pytest.mark.slow
def test_sixty_flipped_bytes_below_the_cache_change_nothing(finished: Finished) -> None:
    drill(finished, 60, seed=2)


@pytest.mark.nightly
def test_three_hundred_flipped_bytes_below_the_cache_change_nothing(finished: Finished) -> None:
    drill(finished, 300, seed=3)
