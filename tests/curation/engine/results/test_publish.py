"""Publishing on an object store: a reader has one result or another, whatever happens to the driver."""

from __future__ import annotations

import itertools
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from curation import shards, storage
from curation.core.errors import DamagedFile, UserError
from curation.engine.results import publish
from curation.engine.results.publish import ResultFiles
from curation.storage import Storage
from tests.curation.engine.runtime.test_s3 import bucket, server

__all__ = ["bucket", "server"]

MANIFEST = {
    "format": shards.FORMAT, "generation": 0, "seed": 1, "splits": {}, "fingerprint": "",
    "tokenizer": {"file": "tokenizer.json", "sha256": "", "vocab": 300, "eos": 0, "kind": "bpe"},
    "mix": {"weights": {}, "budget": None, "max_epochs": None, "epochs": {}},
}  # fmt: skip


def _result(store: Storage, version: str, files: int) -> ResultFiles:
    """A result all of whose files say which version they are of."""
    directory = f"cache/out/{version}"
    staged = []
    for i in range(files):
        written = store.write_bytes(f"{directory}/documents/{i:05d}.parquet", version.encode())
        staged.append(written.as_dict() | {"directory": directory})
    manifest = json.dumps(MANIFEST | {"fingerprint": version}).encode()
    return ResultFiles(staged, {"shards/manifest.json": manifest, "urls/a": version.encode()})


def _read(url: str) -> set[str]:
    """The versions that one reader finds: in the files of its result, and in the manifest as trainings read it."""
    store = Storage(url)
    found = {store.read_bytes(p).decode() for p in store.walk("result") if not p.endswith(".json")}
    return found | {store.read_plain_json("result/shards/manifest.json")["fingerprint"]}


def test_readers_never_mix_two_results(bucket: str) -> None:
    url = f"{bucket}/run"
    store = Storage(url)
    results = [_result(store, f"v{i}", 1 + i) for i in range(3)]
    publish.publish(store, results[0])
    seen: list[set[str]] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            seen.append(_read(url))

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for made in results[1:]:
            before = len(seen)
            written = publish.publish(store, made)
            while len(seen) < before + 2 and reader.is_alive():
                stop.wait(0.01)
    finally:
        stop.set()
        reader.join()
    assert all(len(versions) == 1 for versions in seen), seen
    order = [next(iter(versions)) for versions in seen]
    assert [v for v, _ in itertools.groupby(order)] == ["v0", "v1", "v2"]
    assert sorted(w.path for w in written)[0] == "result/documents/00000.parquet" and _read(url) == {"v2"}
    kept = {p.split("/")[1] for p in store.walk("published")}
    assert len(kept) == 2, "the newest, and the one before for those who read it"
    for place in (url, f"{url}/result", f"{url}/result/shards", store.url("result/shards")):
        manifest = shards.read_manifest(place)
        assert manifest.fingerprint == "v2" and manifest.root == store.url("result/shards")


class Dead(BaseException):
    """What the fail-point raises."""


@pytest.mark.parametrize("where", ["upload published/", "upload result.json", "created result.json"])
def test_a_driver_killed_while_it_publishes(bucket: str, where: str) -> None:
    url = f"{bucket}/run"
    store = Storage(url)
    for made in (_result(store, "v0", 1), _result(store, "v1", 1)):
        publish.publish(store, made)
    new = _result(store, "v2", 2)

    def hook(name: str) -> None:
        if name.startswith(where):
            raise Dead(name)

    storage.set_failpoint(hook)
    with pytest.raises(Dead):
        publish.publish(store, new)
    storage.set_failpoint(None)
    assert _read(url) == ({"v2"} if where == "created result.json" else {"v1"})
    publish.publish(Storage(url), new)
    assert _read(url) == {"v2"} and len({p.split("/")[1] for p in store.walk("published")}) <= 2


def test_a_result_that_was_written_in_place_gives_way(bucket: str) -> None:
    store = Storage(f"{bucket}/run")
    store.write_bytes("result/urls/old", b"v0")
    store.write_bytes("result/shards/manifest.json", json.dumps(MANIFEST).encode())
    assert publish.newest_tree(store) is None and store.walk("result")
    publish.publish(store, _result(store, "v1", 1))
    assert _read(f"{bucket}/run") == {"v1"} and shards.read_manifest(f"{bucket}/run").fingerprint == "v1"


def test_a_run_copied_to_a_disk_is_read_there_and_published_to(bucket: str, tmp_path: Path) -> None:
    store = Storage(f"{bucket}/run")
    publish.publish(store, _result(store, "v0", 2))
    fs, inner = storage.filesystem(f"{bucket}/run")
    fs.get(inner, str(tmp_path / "copy"), recursive=True)
    copy = Storage(str(tmp_path / "copy"))
    assert _read(copy.root) == {"v0"} and shards.read_manifest(copy.root).fingerprint == "v0"
    publish.publish(copy, _result(copy, "v1", 1))
    assert _read(copy.root) == {"v1"} and (tmp_path / "copy" / "result" / "documents").is_dir()
    shutil.rmtree(tmp_path / "copy" / "result")
    assert not copy.exists("result/documents")


def test_a_damaged_pointer_is_named(bucket: str) -> None:
    store = Storage(f"{bucket}/run")
    publish.publish(store, _result(store, "v0", 1))
    data = store.read_bytes("result.json")
    store.write_bytes("result.json", data.replace(b"result-", b"resulT-"))
    with pytest.raises(DamagedFile, match=r"result\.json"):
        Storage(store.root).walk("result")
    with pytest.raises(shards.ShardFormat, match=r"result\.json"):
        shards.read_manifest(store.root)


def test_what_a_stopped_run_decided_goes_at_once(bucket: str) -> None:
    store: Any = Storage(f"{bucket}/run")
    made = ResultFiles(small={"ledger/part-000-of-001.parquet": b"x"})
    publish.publish(store, made, publish.DECIDED)
    assert publish.newest_tree(store) == publish.DECIDED
    publish.remove_tree(store, publish.DECIDED)
    assert publish.newest_tree(Storage(store.root)) is None and store.walk("published") == []


def test_a_file_of_somebodys_named_as_the_pointer_is_stays(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "result.json").write_text('{"accuracy": 0.5}')
    store = Storage(str(run))
    assert not store.exists("result/shards/manifest.json")
    publish.publish(store, _result(store, "v0", 2))
    assert _read(str(run)) == {"v0"} and (run / "result.json").read_text() == '{"accuracy": 0.5}'


def test_what_another_driver_removed_is_not_published(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two drivers, the lock of the first taken for dead: the one that publishes first removes what the other has."""
    url = f"{bucket}/run"
    ours, theirs = Storage(url), Storage(url)
    publish.publish(ours, _result(ours, "v0", 2))
    fill = publish._fill

    def interrupted(store: Storage, made: ResultFiles, directory: str) -> Any:
        written = fill(store, made, directory)
        if store is ours:
            publish.publish(theirs, _result(theirs, "v2", 2))
        return written

    monkeypatch.setattr(publish, "_fill", interrupted)
    with pytest.raises(UserError, match=r"files of the result are gone while it is published.*another driver"):
        publish.publish(ours, _result(ours, "v1", 3))
    assert _read(url) == {"v2"}, "the pointer never names a result that is not whole"


def test_texts_of_the_result_before_go_and_its_shards_stay(bucket: str) -> None:
    url = f"{bucket}/run"
    store = Storage(url)
    for version in ("v0", "v1"):
        publish.publish(store, _result(store, version, 2))
    publish.remove_older_texts(store)
    assert _read(url) == {"v1"}
    newest = store.full("result").rpartition("/")[2]
    left = [path for path in store.walk("published") if newest not in path]
    assert [path.rpartition("/")[2] for path in left] == ["manifest.json"]
