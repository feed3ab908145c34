"""Files on a disk and in memory: written as a whole, listed in order, and addressed from another file's folder.

Crashes at every boundary: tests/curation/engine/runtime/test_crash.py. A real S3 protocol server: test_s3.py beside it.

Covers: curation/checksummed_file.py
"""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path

import pytest

from curation.core.errors import UserError
from curation.storage import Storage, filesystem, path_beside


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}"


def test_a_file_appears_as_a_whole(root: str) -> None:
    store = Storage(root)
    written = store.write_bytes("a/b.bin", b"content")
    assert written.as_dict() == {"path": "a/b.bin", "bytes": 7, "sha256": hashlib.sha256(b"content").hexdigest()}
    if store.local:  # fsspec's memory files appear when they are opened
        with pytest.raises(ValueError, match="no"), store.create("a/c.bin") as (f, _):
            f.write(b"half")
            raise ValueError("no")
    assert store.names("a") == ["b.bin"] and store.walk("") == ["a/b.bin"] and not store.exists("a/c.bin")
    store.link("a/b.bin", "d.bin")
    store.write_json("e.json", {"b": 1, "a": {2, 1}})
    assert store.read_bytes("d.bin") == b"content" and store.read_json("e.json") == {"a": [1, 2], "b": 1}
    store.remove("a")
    assert store.names("a") == [] and store.size("d.bin") == 7


def test_paths_from_the_folder_of_a_file() -> None:
    assert path_beside("/a/b.yaml", "c/../d.txt") == "/a/d.txt" and path_beside("/a/b.yaml", "/d.txt") == "/d.txt"
    assert path_beside("s3://x/a/b.yaml", "d.txt") == "s3://x/a/d.txt"
    assert path_beside("/a/b.yaml", "s3://x/d.txt") == "s3://x/d.txt"
    with pytest.raises(UserError, match="nosuch"):
        filesystem("nosuch://x")
