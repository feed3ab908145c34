"""Sources and run directory on an object store: a real S3 server on loopback, spoken to through s3fs.

There is no rename there, no lock by the kernel and no appending; the bytes are the same all the same.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from curation import storage
from curation.config.catalogue import READERS, STEPS
from curation.core.errors import UserError
from curation.engine.manifests import phase_records
from curation.engine.runtime import lock
from curation.engine.runtime.delete import delete_documents
from curation.engine.runtime.run import curate
from curation.storage import Storage
from tests.curation.engine import runs, tiny
from tests.curation.engine.planning import test_prior_run

ROOT = Path(__file__).resolve().parents[4]
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    # what fsspec gives to every s3fs of a process: parts of 5 MiB, the smallest there are
    "FSSPEC_S3": '{"default_block_size": 5242880}',
}


class Dead(BaseException):
    """What the fail-point raises."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    made = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    made.start()
    host, port = made.get_host_and_port()
    yield f"http://{host}:{port}"
    made.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh bucket; the endpoint is in the environment, where Ray's workers find it too."""
    import fsspec.config
    import s3fs

    for key, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": server}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setitem(fsspec.config.conf, "s3", {"default_block_size": 5 << 20})
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"b{abs(hash(request.node.nodeid)) % 10**12}"
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}"
    storage.set_failpoint(None)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A run on the local disk, to compare with."""
    tiny.write_input(tmp_path / "in")
    tiny.run(tiny.write_pipeline(tmp_path), tmp_path / "local")
    return tmp_path


def _upload(folder: Path, url: str) -> None:
    fs, inner = storage.filesystem(url)
    fs.put(str(folder), inner, recursive=True)


def _tree(url: str, into: Path) -> str:
    """The hash of the result tree below a URL, as `tiny.tree` has it for a local one."""
    store = Storage(url)
    for name in store.walk("result"):
        path = into / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.read_bytes(name))
    return tiny.tree(into)


def _committed(store: Storage) -> int:
    found = {(Path(p).stem, t) for p in phase_records.paths(store) for t in phase_records.read(store, p).tasks}
    found |= {tuple(p[: -len(".json")].split("/")[-2:]) for p in store.walk("cache/tasks")}
    return len(found)


@pytest.mark.parametrize("executor", ["inline", "ray"])
def test_sources_and_run_on_s3_give_the_bytes_of_a_local_run(bucket: str, local: Path, executor: str) -> None:
    _upload(local / "in", f"{bucket}/in")
    file = tiny.write_pipeline(local / "remote", root=f"{bucket}/in")
    options = {"executor": executor} | ({"workers": 2} if executor == "ray" else {})
    result = tiny.run(file, f"{bucket}/run", **options)
    assert result.status == "done" and result.executed == 35
    assert _tree(f"{bucket}/run", local / "back") == tiny.tree(local / "local")
    again = tiny.run(file, f"{bucket}/run", **options)
    assert (again.status, again.executed) == ("unchanged", 0)
    assert not Storage(f"{bucket}/run").exists(".lock")


def _grown(folder: Path, base: str, **options: Any) -> None:
    """A crawl, a second with it as prior run, a page of the second deleted; input below `folder`, runs at `base`."""
    first, second = test_prior_run.batches(7, 2)
    for n, rows in enumerate((first, second)):
        prior_run = f"{base}/run0" if n else None
        tree = test_prior_run.pipeline(folder, f"crawl{n}", rows, prior_run)
        curate(runs.load(folder, tree, name=f"crawl{n}.yaml"), f"{base}/run{n}", **options)
    delete_documents(f"{base}/run1", urls=[second[0]["url"]], catalogue=STEPS, readers=READERS, **options)


@pytest.mark.slow
def test_growing_and_deleting_on_s3_by_ray_give_the_bytes_of_local_ones(bucket: str, tmp_path: Path) -> None:
    _grown(tmp_path, str(tmp_path), executor="inline")
    _grown(tmp_path, bucket, executor="ray", workers=2)
    for name in ("run0", "run1"):
        assert _tree(f"{bucket}/{name}", tmp_path / "back" / name) == tiny.tree(tmp_path / name)
    kept = Storage(f"{bucket}/run1").walk("generations/0")
    assert sorted(kept) == sorted(Storage(str(tmp_path / "run1")).walk("generations/0"))


def test_a_source_changed_on_s3_is_noticed_and_never_half_published(bucket: str, local: Path) -> None:
    _upload(local / "in", f"{bucket}/in")
    file = tiny.write_pipeline(local / "remote", root=f"{bucket}/in")
    before = tiny.run(file, f"{bucket}/run")
    fs, inner = storage.filesystem(f"{bucket}/in/a.jsonl")
    changed = fs.cat_file(inner).replace(b'https://x.org/a1"', b'https://y.org/a1"')
    fs.pipe_file(inner, changed)

    def hook(name: str) -> None:
        if name.startswith("link published/result-") and "/ledger/" in name:
            raise Dead(name)

    old = _tree(f"{bucket}/run", local / "old")
    storage.set_failpoint(hook)
    with pytest.raises(Dead):
        tiny.run(file, f"{bucket}/run")
    storage.set_failpoint(None)
    store = Storage(f"{bucket}/run")
    assert _tree(f"{bucket}/run", local / "still") == old, "the new one is being written beside it"
    assert store.read_json("run.json")["done"] is None
    after = tiny.run(file, f"{bucket}/run")
    assert (after.status, after.executed, before.executed) == ("done", 0, 35)
    (local / "in" / "a.jsonl").write_bytes(changed)
    tiny.run(tiny.write_pipeline(local), local / "fresh")
    assert _tree(f"{bucket}/run", local / "back") == tiny.tree(local / "fresh")


@pytest.mark.parametrize(
    ("first", "every"), [(41, 97), pytest.param(3, 13, marks=[pytest.mark.nightly, pytest.mark.timeout(3600)])]
)
def test_dying_at_boundaries_of_a_run_on_s3(bucket: str, local: Path, first: int, every: int) -> None:
    """Uploads before they are complete, copies, removals, manifests."""
    _upload(local / "in", f"{bucket}/in")
    file = tiny.write_pipeline(local / "remote", root=f"{bucket}/in")
    boundaries: list[str] = []
    storage.set_failpoint(boundaries.append)
    tiny.run(file, f"{bucket}/whole")
    storage.set_failpoint(None)
    boundaries = [b for b in boundaries if ".lock" not in b]
    assert sum(b.startswith("upload ") for b in boundaries) > 80
    expected, points = tiny.tree(local / "local"), range(first, len(boundaries), every)
    for k in points:
        run_dir, seen = f"{bucket}/run-{k}", [0]

        def hook(name: str, k: int = k, seen: list[int] = seen) -> None:
            if ".lock" not in name:  # the heartbeat has a thread of its own
                seen[0] += 1
                if seen[0] > k:
                    raise Dead(name)

        storage.set_failpoint(hook)
        with pytest.raises(Dead):
            tiny.run(file, run_dir)
        storage.set_failpoint(None)
        had = _committed(Storage(run_dir))
        made = Storage(run_dir).read_json("run.json") if Storage(run_dir).exists("run.json") else {"done": None}
        assert (made["done"] is not None) == (k == len(boundaries) - 1)  # run.json is there when the last one comes
        result = tiny.run(file, run_dir)
        assert result.executed == 35 - had, boundaries[k]
        assert _tree(run_dir, local / f"back-{k}") == expected, boundaries[k]


# -- uploads that never end --------------------------------------------------------------------------------------------

UPLOAD = """
import sys
from curation.storage import Storage
store = Storage(sys.argv[1])
with store.create("cache/big.bin") as (f, written):
    for _ in range(3):
        f.write(b"x" * (5 << 20))
    print("parts are up", flush=True)
    sys.stdin.read()
"""


def _uploads(url: str) -> list[Any]:
    fs, inner = storage.filesystem(url)
    return list(fs.list_multipart_uploads(inner.split("/")[0]))


def test_a_writer_killed_between_parts_leaves_no_object(bucket: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", UPLOAD, f"{bucket}/run"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "parts are up\n"
    process.kill()
    process.communicate()
    store = Storage(f"{bucket}/run")
    assert len(_uploads(bucket)) == 1, "the parts are there"
    assert not store.exists("cache/big.bin")
    assert store.names("cache") == [] and store.walk("") == []
    written = store.write_bytes("cache/big.bin", b"y" * (12 << 20))  # the next attempt
    assert (store.size("cache/big.bin"), written.size) == (12 << 20, 12 << 20)
    assert store.read_bytes("cache/big.bin")[:1] == b"y"


def test_an_upload_that_fails_is_taken_back(bucket: str) -> None:
    store = Storage(f"{bucket}/run")
    for size in (0, 10, 12 << 20):
        with pytest.raises(Dead), store.create("cache/some.bin") as (f, _):
            f.write(b"x" * size)
            raise Dead
        assert not store.exists("cache/some.bin")
    assert _uploads(bucket) == [], "parts that were up are given back"


RUN = """
import os, signal, sys
from pathlib import Path
from curation import storage
from tests.curation.engine import tiny
def hook(name):
    if name.startswith(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
storage.set_failpoint(hook)
tiny.run(Path(sys.argv[1]), sys.argv[2])
"""


@pytest.mark.parametrize("where", ["upload cache/tasks", "link published/result-", "upload result.json"])
def test_a_driver_killed_on_s3_is_followed_at_once(bucket: str, local: Path, where: str) -> None:
    """Its lock says it lives; but on the machine it ran on one can see that it does not."""
    _upload(local / "in", f"{bucket}/in")
    file = tiny.write_pipeline(local / "remote", root=f"{bucket}/in")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    killed = subprocess.run(
        [sys.executable, "-c", RUN, str(file), f"{bucket}/run", where], env=environment, check=False
    )
    assert killed.returncode == -9
    store = Storage(f"{bucket}/run")
    assert store.exists(".lock")
    assert not store.exists("result/shards/manifest.json"), "no result before all of it is there"
    had = _committed(store)
    result = tiny.run(file, f"{bucket}/run")
    assert (result.status, result.executed) == ("done", 35 - had)
    assert _tree(f"{bucket}/run", local / "back") == tiny.tree(local / "local")


def test_a_second_driver_on_s3_is_refused_until_the_heart_has_stopped(
    bucket: str, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tiny.write_pipeline(local)
    store = Storage(f"{bucket}/run")
    store.write_json(".lock", {"by": "another-host, process 17", "at": time.time(), "token": "other"})
    with pytest.raises(UserError, match=r"another driver is working in .*another-host, process 17.*stop it"):
        tiny.run(file, f"{bucket}/run")
    monkeypatch.setattr(lock, "STALE", 0.0)
    assert tiny.run(file, f"{bucket}/run").status == "done"
