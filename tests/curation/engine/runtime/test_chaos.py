"""The chaos drill: a cluster of four nodes of which one is killed every 20 seconds, an object store that fails.

Run by hand: `pytest -m nightly tests/curation/engine/runtime/test_chaos.py -s`; each run prints its figures.
"""

from __future__ import annotations

import ast
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from curation import storage
from curation.engine.execution import event_log
from curation.storage import Storage
from tests.conftest import ROOT
from tests.curation.engine import tiny
from tests.curation.engine.runtime.test_s3 import ENVIRONMENT
from tests.ray_cluster import start_cluster

NODES, SECONDS, SHARE = 4, 10.0, 0.05  # twice as many kills as an hour of a crawl would need, in a short run


class Killer(threading.Thread):
    """Kills a node at random every so many seconds, and starts another."""

    def __init__(self, cluster: Any, nodes: list[Any], seed: int) -> None:
        super().__init__(daemon=True)
        self.cluster, self.nodes, self.random = cluster, nodes, random.Random(seed)
        # Hooks at exit set a handler of a signal, which only the main thread may: no node would start in this one
        cluster._shutdown_at_exit = False
        self.killed: list[float] = []
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.wait(SECONDS):
            doomed = self.nodes.pop(self.random.randrange(len(self.nodes)))
            self.killed.append(time.time())
            self.cluster.remove_node(doomed, allow_graceful=False)
            while not self.stop.is_set():
                try:
                    self.nodes.append(self.cluster.add_node(num_cpus=1))
                    break
                except Exception:  # of whatever kind: on a busy machine a node may not start in the time Ray gives it
                    continue


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(10))
def test_nodes_die_and_the_object_store_fails_all_the_time(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes of an undisturbed run; nothing committed twice; nothing run again but what was in flight at a kill."""
    import fsspec.config
    import s3fs

    tiny.write_input(tmp_path / "in", files=20)
    tiny.run(tiny.write_pipeline(tmp_path), tmp_path / "local")
    expected = tiny.tree(tmp_path / "local")
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.flaky_object_store", str(SHARE), str(seed)], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert server.stdout is not None
    url = f"http://127.0.0.1:{int(server.stdout.readline())}"
    folder = tempfile.mkdtemp(prefix="gm-")
    for key, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": url, "RAY_TMPDIR": folder}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setitem(fsspec.config.conf, "s3", {"default_block_size": 5 << 20})
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("crawl")
    fs, inner = storage.filesystem("s3://crawl/in")
    fs.put(str(tmp_path / "in"), inner, recursive=True)
    file = tiny.write_pipeline(tmp_path / "remote", root="s3://crawl/in", pause=0.5)
    made, _ = start_cluster({"num_cpus": 0})
    killer = Killer(made, [made.add_node(num_cpus=1) for _ in range(NODES)], seed)
    began = time.monotonic()
    try:
        killer.start()
        result = tiny.run(file, "s3://crawl/run", executor="ray", address=made.address)
    finally:
        killer.stop.set()
        killer.join(300)
        made.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
    store = Storage("s3://crawl/run")
    for name in store.walk("result"):
        path = tmp_path / "back" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.read_bytes(name))
    events = list(event_log.read(store))
    counts = ast.literal_eval(server.communicate("")[0].splitlines()[-1])
    s3fs.S3FileSystem.clear_instance_cache()
    failed = [e for e in events if e["event"] == "failed"]
    by_machine = [e for e in failed if "Error(" not in e["reason"]]
    in_flight = sum(_in_flight(events, at) for at in killer.killed)
    print(
        f"seed {seed}: {time.monotonic() - began:.0f} s, {len(killer.killed)} nodes killed, {counts}, "
        f"{result.executed} tasks, {len(by_machine)} run again for a machine (in flight at the kills: {in_flight}), "
        f"{len(failed) - len(by_machine)} for the store: {Counter(e['reason'][:60] for e in failed)}"
    )
    assert result.status == "done" and tiny.tree(tmp_path / "back") == expected
    done = Counter((e["phase"], e["task"]) for e in events if e["event"] == "done")
    assert set(done.values()) == {1} and len(done) == result.executed, "a task was committed twice"
    assert killer.killed and counts["refused"] and counts["reset"]
    assert len(by_machine) <= in_flight


def _in_flight(events: list[Any], at: float) -> int:
    """How many tasks the driver had submitted at a time, and not heard of since. What ends up to a second later counts:
    the driver hears of it late."""
    open_: set[tuple[str, str]] = set()
    for e in events:
        if e["at"] > at:
            break
        key = (e["phase"], e.get("task", ""))
        if e["event"] == "start":
            open_.add(key)
        elif e["event"] in ("done", "failed"):
            open_.discard(key)
    return len(open_)


def test_a_server_that_fails_on_a_share_of_its_requests() -> None:
    """The server itself: answers, SlowDown and broken connections come in about the shares asked for."""
    from tests.flaky_object_store import Flaky

    answered: list[str] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        return [b"whole"]

    class Connection:
        def setsockopt(self, *given: Any) -> None:
            answered.append("reset")

        def shutdown(self, how: int) -> None:
            return None

    flaky = Flaky(app, 0.05, 3)
    for _ in range(2000):
        try:
            answered.append(next(iter(flaky({"werkzeug.socket": Connection()}, lambda *given: None)))[:5].decode())
        except ConnectionResetError:
            continue
    assert flaky.counts["requests"] == 2000
    assert 0.015 < flaky.counts["reset"] / 2000 < 0.035 and 0.015 < flaky.counts["refused"] / 2000 < 0.035
    assert answered.count("reset") == flaky.counts["reset"] and answered.count("<?xml") == flaky.counts["refused"]
