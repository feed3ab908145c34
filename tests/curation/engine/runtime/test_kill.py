"""SIGKILL to drivers and Ray workers while they mill a real crawl, at moments that a seed picks.

A moment is a share of the run's progress (lines of its event log) and a short random wait, so that it means the same
on a slow machine. A killed driver's workers are left as they are: the next driver starts while they may still run.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psutil
import pytest
from warcio.archiveiterator import ArchiveIterator

from tests.curation.engine import tiny

ROOT = Path(__file__).resolve().parents[4]

PIPELINE = """
name: crawl
sources:
  - {{name: web, read: warc, root: "{root}", path: "*.warc.gz"}}
steps:
  - extract: {{engine: auto}}
  - language: {{model: lid.176.ftz}}
    keep: {{english: "language.code = 'en' AND language.score >= 0.5"}}
  - heuristics: {{sets: [gopher, fineweb]}}
    keep: {{words: "heuristics.words >= quantile(heuristics.words, 0.02)"}}
  - exact_dedup: {{}}
  - minhash_dedup: {{ngram: 5, num_bands: 14, rows_per_band: 8, threshold: 0.72}}
tokenizer: {{train: {{kind: bpe, vocab: 600, sample_bytes: 200000}}}}
shards: {{tokens_per_shard: 200_000}}
validation: 0.05
engine: {{task_bytes: {task_bytes}}}
"""

DRIVER = """
import sys
from pathlib import Path
from tests.curation.engine import tiny
print(tiny.run(Path(sys.argv[1]), sys.argv[2], executor="ray", workers=2).status, flush=True)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, since Ray's sockets lie in it, a test's own, and gone afterwards with Ray's logs."""
    path = Path(tempfile.mkdtemp(prefix="gm-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def _cut(archive: Path, into: Path, files: int, records: int) -> None:
    """The first records of a crawl as several archives: whole gzip members, so the bytes are the crawl's own."""
    into.mkdir()
    offsets = []
    with archive.open("rb") as f:
        reader = ArchiveIterator(f)
        for _ in reader:
            offsets.append(reader.get_record_offset())
    data = archive.read_bytes()
    for i in range(files):
        (into / f"part-{i}.warc.gz").write_bytes(data[offsets[i * records] : offsets[(i + 1) * records]])


class Victim:
    """A driver of its own in a process of its own, and everything it started."""

    def __init__(self, file: Path, run_dir: Path, folder: Path) -> None:
        self.log: IO[bytes] = (folder / "driver.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(file), str(run_dir)], stdout=self.log, stderr=self.log,
            env=os.environ | {"PYTHONPATH": str(ROOT), "RAY_TMPDIR": str(folder)}, start_new_session=True,
        )  # fmt: skip
        self.seen: dict[int, psutil.Process] = {}

    def look(self) -> list[psutil.Process]:
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        self.seen.update({c.pid: c for c in children})
        return children

    def worker(self) -> psutil.Process | None:
        """A worker, with a task in hand if there is one (not one of the agents, with which the whole node goes)."""
        found: dict[str, psutil.Process] = {}
        for child in self.look():
            try:
                name = " ".join(child.cmdline()[:1])
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
            found[name] = child
        return found.get("ray::execute", found.get("ray::IDLE"))

    def clean_up(self) -> None:
        """Ends what is left of the driver and of the processes it started, by their ids (with start times checked)."""
        self.look()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        _, left = psutil.wait_procs(list(self.seen.values()), timeout=10)
        for process in left:
            if process.is_running():
                process.kill()
        psutil.wait_procs(left, timeout=10)
        self.log.close()


def _lines(run_dir: Path) -> int:
    path = run_dir / "log" / "events.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _mill_with_kills(
    file: Path, run_dir: Path, folder: Path, total: int, moments: list[tuple[float, str]]
) -> list[str]:
    """Runs to the end, killing on the way; says what was killed. `moments`: (share of the log's lines, what)."""
    rng = random.Random(len(moments))
    todo, happened, victims = sorted(moments), list[str](), list[Victim]()
    try:
        victims.append(Victim(file, run_dir, folder))
        while True:
            victim = victims[-1]
            code = victim.process.poll()
            if code is not None and code != -signal.SIGKILL:
                assert code == 0, (folder / "driver.log").read_text()[-3000:]
                break
            if code is not None:
                victims.append(Victim(file, run_dir, folder))
            elif todo and _lines(run_dir) >= todo[0][0] * total:
                time.sleep(rng.random() * 0.3)
                if todo[0][1] == "driver":
                    victim.look()
                    victim.process.kill()
                    victim.process.wait()
                    happened.append(todo.pop(0)[1])
                elif (worker := victim.worker()) is not None:
                    worker.send_signal(signal.SIGKILL)
                    happened.append(todo.pop(0)[1])
            else:
                victim.look()
                time.sleep(0.05)
    finally:
        for victim in victims:
            victim.clean_up()
    return happened


def _moments(seed: int, kills: int) -> list[tuple[float, str]]:
    """One in each of so many equal parts of the run's first nine tenths; drivers and workers in turn."""
    rng = random.Random(seed)
    return [((i + rng.random()) / kills * 0.9, ("driver", "worker")[(i + seed) % 2]) for i in range(kills)]


def _check(file: Path, folder: Path, kills: int, seed: int) -> None:
    """Runs with up to five kills each until so many have hit: a run may end before its last moment comes."""
    whole = tiny.run(file, folder / "whole")
    assert whole.status == "done" and whole.counts["kept"] > 20
    expected = tiny.tree(folder / "whole")
    total = len(tiny.events(folder / "whole"))
    hit = 0
    for i in range(2 * kills):
        run_dir = folder / f"killed-{i}"
        happened = _mill_with_kills(file, run_dir, folder, total, _moments(seed + i, min(5, kills - hit)))
        hit += len(happened)
        assert tiny.tree(run_dir) == expected
        assert tiny.restarted(run_dir) == []
        assert tiny.committed(run_dir) == tiny.committed(folder / "whole")
        assert tiny.run(file, run_dir).status == "unchanged"
        if hit == kills:
            return
    raise AssertionError(f"{2 * kills} runs ended before {kills} kills had hit: {hit}")


def test_five_kills_of_drivers_and_workers(data: Path, folder: Path) -> None:
    _cut(data / "crawl" / "docs-00.warc.gz", folder / "in", files=6, records=100)
    file = folder / "crawl.yaml"
    file.write_text(PIPELINE.format(root=folder / "in", task_bytes=200_000))
    _check(file, folder, 5, seed=5)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_twenty_kills_over_the_whole_crawl(data: Path, folder: Path) -> None:
    file = folder / "all.yaml"
    file.write_text(PIPELINE.format(root=data / "crawl", task_bytes=4 << 20))
    _check(file, folder, 20, seed=0)
