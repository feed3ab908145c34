"""A Ray of one machine: no port that another machine reaches, no file in a folder that other users share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from curation.core.errors import UserError
from curation.core.local_ray import STARTS, init_ray, ray_directory

PROGRAM = """
import json, os, psutil, ray
from curation.core.local_ray import start_local_ray
start_local_ray(ray, num_cpus=1, object_store_memory=80 << 20, logging_level="ERROR")
assert ray.get(ray.remote(lambda: 6 * 7).remote()) == 42
session = ray._private.worker._global_node.get_session_dir_path()
processes = [psutil.Process()]
for p in psutil.process_iter(["cmdline", "environ"]):
    if any(session in part for part in p.info["cmdline"] or []) or p.name().startswith("ray::"):
        if p.username() == processes[0].username():
            processes.append(p)
# only of this session: another Ray may be running on this machine
own = {c.pid for p in processes[:1] for c in p.children(recursive=True)} | {p.pid for p in processes if any(
    session in part for part in p.cmdline())} | {os.getpid()}
listens = [[psutil.Process(pid).name(), c.laddr.ip] for pid in own for c in psutil.Process(pid).net_connections("inet")
           if c.status == psutil.CONN_LISTEN]
print(json.dumps({"session": session, "listens": listens}))
ray.shutdown()
"""


def test_it_listens_on_loopback_and_keeps_its_files_private(tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}  # deep, so that /tmp takes its place
    environment.pop("RAY_TMPDIR", None)
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["listens"]) >= 5
    assert {ip for _, ip in found["listens"]} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, found["listens"]
    top = Path(f"/tmp/gristmill-{os.geteuid()}")
    assert found["session"].startswith(f"{top}/ray/") and top.stat().st_mode & 0o777 == 0o700


def test_a_taken_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / f"gristmill-{os.geteuid()}").symlink_to("/tmp")
    with pytest.raises(UserError, match="is a link, or no directory; remove it"):
        ray_directory()
    monkeypatch.setenv("RAY_TMPDIR", "/mine")
    assert ray_directory() == "/mine/ray"


# -- Ray that does not answer in time is started again, a bounded number of times


class Ray:
    """Fails its first starts as Ray does on a machine that is too busy."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.failures, self.error, self.calls = failures, error, list[Any]()

    def init(self, address: str, **options: Any) -> None:
        self.calls.append((address, options))
        if len(self.calls) <= self.failures * 2:
            raise self.error

    def shutdown(self) -> None:
        self.calls.append("shutdown")


BUSY = Exception("The current node timed out during startup.")


@pytest.mark.parametrize("failures", range(STARTS))
def test_started_again(failures: int) -> None:
    ray = Ray(failures, BUSY)
    init_ray(ray, "local", num_cpus=2)
    assert ray.calls == [("local", {"num_cpus": 2}), "shutdown"] * failures + [("local", {"num_cpus": 2})]


def test_not_for_ever() -> None:
    ray = Ray(STARTS, BUSY)
    with pytest.raises(Exception, match="timed out during startup"):
        init_ray(ray, "local")
    assert len(ray.calls) == 2 * STARTS


def test_wrong_options_are_said_at_once() -> None:
    ray = Ray(1, ValueError("num_cpus must be positive"))
    with pytest.raises(ValueError, match="num_cpus"):
        init_ray(ray, "local", num_cpus=-1)
    assert len(ray.calls) == 1
