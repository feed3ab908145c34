"""Listing of input files: in order, every real file once, and no housekeeping files unless a pattern asks for them."""

from __future__ import annotations

import glob
import os
import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curation import input_files
from curation.input_files import expand_path, list_inputs
from curation.storage import Storage, open_input


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}"


def paths(root: str | Path, pattern: str, **options: bool) -> list[str]:
    return [f.path for f in list_inputs(str(root), pattern, **options)]


def write(root: str, *names: str) -> None:
    for name in names:
        Storage(root).write_bytes(name, name.encode())


def test_inputs_are_listed_in_order(root: str) -> None:
    write(root, "b.txt", "a.txt", "deep/c.txt", "d.bin")
    assert paths(root, "**/*.txt") == ["a.txt", "b.txt", "deep/c.txt"]
    with open_input(root, "deep/c.txt") as f:
        assert f.read() == b"deep/c.txt"
    with pytest.raises(FileNotFoundError):
        list_inputs(f"{root}/none", "*")


def test_housekeeping_files_match_no_glob_unless_it_names_them(root: str) -> None:
    data = ["_posts/b.txt", "__init__.py", "a.txt", "deep/c.txt"]
    housekeeping = [
        "._a.txt", ".git/HEAD.txt", ".ipynb_checkpoints/a-checkpoint.txt", "_SUCCESS", "_delta_log/0.txt",
        "deep/.c.txt.crc", "deep/c.txt.crc", "_committed_123", "deep/_temporary/0/d.txt",
    ]  # fmt: skip
    write(root, *data, *housekeeping)
    assert paths(root, "**/*") == sorted(data)
    assert paths(root, "**/*", hidden=True) == sorted([*data, *housekeeping])
    assert paths(root, "*") == ["__init__.py", "a.txt"]
    for asked, answer in (
        (".git/*", [".git/HEAD.txt"]), ("**/.*", ["._a.txt", "deep/.c.txt.crc"]), ("_SUCCESS", ["_SUCCESS"]),
        ("**/_temporary/**/*", ["deep/_temporary/0/d.txt"]), ("deep/*.crc", ["deep/c.txt.crc"]),
        (".*/*.txt", [".git/HEAD.txt", ".ipynb_checkpoints/a-checkpoint.txt"]), ("._a.txt", ["._a.txt"]),
    ):  # fmt: skip
        assert paths(root, asked) == answer, asked


def test_a_file_behind_several_paths_is_listed_once_by_the_path_without_links(tmp_path: Path) -> None:
    write(str(tmp_path), "in/z/real.txt", "in/z/deep/other.txt", "outside/far.txt")
    base = tmp_path / "in"
    (base / "a-link.txt").symlink_to(base / "z" / "real.txt")
    (base / "a").symlink_to(base / "z")  # sorts first, and is walked last
    (base / "z" / "up").symlink_to("..")
    (base / "z" / "deep" / "top").symlink_to(base)
    (base / "x-far").symlink_to(tmp_path / "outside")
    (base / "y-far").symlink_to(tmp_path / "outside")
    (base / "dead.txt").symlink_to(tmp_path / "nowhere")
    (base / "self.txt").symlink_to("self.txt")
    assert paths(base, "**/*.txt") == ["dead.txt", "self.txt", "x-far/far.txt", "z/deep/other.txt", "z/real.txt"]
    assert [f.path for f in list_inputs(str(base), "**/*") if f.version == "unreadable"] == ["dead.txt", "self.txt"]
    assert paths(base, "a/*.txt") == ["a/real.txt"]  # the only path that this pattern means


def test_each_folder_is_entered_once_however_many_links_lead_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(12):
        write(str(tmp_path), f"{i}/file.txt")
        for j in range(3):
            (tmp_path / str(i) / f"up{j}").symlink_to("..")
    entered = []
    monkeypatch.setattr(input_files, "_entries", lambda *a, real=input_files._entries: entered.append(a[0]) or real(*a))
    assert len(paths(tmp_path, "**/*.txt")) == 12
    assert len(entered) == 2 * 13  # once for `**` and once for `*.txt`


def test_what_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without permission: its files would be missing, and nobody would know."""
    write(str(tmp_path), "open/a.txt", "closed/b.txt")

    def entries(folder: str, part: str, hidden: bool, real=input_files._entries):  # root may list every folder
        if folder.endswith("closed"):
            raise PermissionError(13, "Permission denied", folder)
        return real(folder, part, hidden)

    monkeypatch.setattr(input_files, "_entries", entries)
    assert [(f.path, f.size) for f in list_inputs(str(tmp_path), "**/*.txt")] == [("closed", 0), ("open/a.txt", 10)]


def test_named_pipes_are_no_input(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")  # opening it would wait for ever
    write(str(tmp_path), "a.txt")
    assert paths(tmp_path, "*.txt") == ["a.txt"]


PART = st.sampled_from(["a", "b", "ab", "*", "a*", "?", "**", "[ab]", "x.txt", "*.txt"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.sets(st.lists(PART.filter(str.isalpha), max_size=3).map(tuple), max_size=6),
    parts=st.lists(PART, min_size=1, max_size=4),
)
def test_without_links_and_hidden_files_it_is_pythons_glob(
    tmp_path: Path, names: set[tuple[str, ...]], parts: list[str]
) -> None:
    base = tmp_path / uuid.uuid4().hex
    base.mkdir()
    write(str(base), *("/".join([*folders, "x.txt"]) for folders in names))
    pattern = "/".join(parts)
    expected = {p for p in glob.glob(pattern, root_dir=base, recursive=True) if (base / p).is_file()}
    assert paths(base, pattern) == sorted(expected)


def test_a_path_is_a_file_a_folder_or_a_glob(root: str) -> None:
    write(root, "a.txt", "deep/b.txt", "deep/_SUCCESS", "c[1].txt")
    if "://" in root:
        root = "memory:///" + root.removeprefix("memory://")
    assert expand_path(f"{root}/a.txt") == [f"{root}/a.txt"]
    assert expand_path(f"{root}/deep") == [f"{root}/deep/b.txt"]
    assert expand_path(f"{root}/**/*.txt") == [f"{root}/{n}" for n in ("a.txt", "c[1].txt", "deep/b.txt")]
    assert expand_path(f"{root}/none*") == expand_path(f"{root}/none/x") == []
