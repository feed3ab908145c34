"""A file is replaced as a whole, and a block that fails leaves the old one and nothing beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.core import atomic_files


def test_write_replaces(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    (tmp_path / "data.json.tmp").write_bytes(b"what a killed process left, longer than the new content")
    for content in (b"one", b"two"):
        atomic_files.write(path, content)
        assert path.read_bytes() == content and list(tmp_path.iterdir()) == [path]


def test_replacing_renames_at_the_end_of_the_block(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "model.bin"
    with atomic_files.replacing(path) as temporary:
        Path(temporary).write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new" and list(path.parent.iterdir()) == [path]


def test_a_block_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="no"), atomic_files.replacing(path) as temporary:
        Path(temporary).write_bytes(b"half")
        raise ValueError("no")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
