"""Lists the input files that a glob matches: every real file once, without the housekeeping files of other programs.

A file that is reached by several paths (symbolic links, a link to a folder above it) is listed under one of them: the
path without links if there is one, because document ids are made from paths. Hidden files, `._` twins of macOS,
`.ipynb_checkpoints`, checksums (`.crc`) and the marker files of Spark and Delta (`_SUCCESS`) match no pattern, unless
a part of the pattern names them: `.*`, `.cache/*.jsonl`, `_SUCCESS`, `*.crc`.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import posixpath
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from curation.storage import filesystem, is_remote

# What Spark, Hadoop, Delta and Databricks write beside data. Not every name with an underscore: `_posts` and
# `__init__.py` are input.
_MARKER = re.compile(r"_(SUCCESS|metadata|common_metadata|temporary|delta_log|(started|committed)_\d+)\Z|.*\.crc\Z")


@dataclass(frozen=True, order=True)
class InputFile:
    """An input as it was listed. `version` (mtime in ns, or the store's etag) with `size` tells a changed file."""

    path: str  # below the root
    size: int
    version: str


def list_inputs(root: str, pattern: str, *, hidden: bool = False) -> list[InputFile]:
    """Files below `root` that match a glob (`**` allowed) or a plain path, sorted by path. Links are followed.

    hidden  match hidden and housekeeping files too

    What cannot be read (a broken link, a folder without permission) is listed, so that a run names it. Named pipes and
    devices are not input. Raises FileNotFoundError where the root itself is absent. Nothing matching is an empty list.
    """
    fs, base = filesystem(root)
    if not fs.exists(base):
        raise FileNotFoundError(root)
    if not is_remote(root):
        found = (_describe(path, full) for path, full in _match_local(base, pattern, hidden))
        return sorted(file for file in found if file is not None)
    base = base.rstrip("/")
    fs.invalidate_cache(base)  # the hub's filesystem keeps listings, whatever it is told
    files = []
    for name, info in fs.glob(posixpath.join(base, pattern), detail=True).items():
        path = posixpath.relpath(name, base)
        if info["type"] == "file" and (hidden or _is_asked_for(path, pattern)):
            files.append(_describe_remote(path, info))
    return sorted(files)


def describe_input(root: str, path: str) -> InputFile | None:
    """A file below `root` as it is now: one stat, or one request. None if it is gone."""
    fs, base = filesystem(root)
    if not is_remote(root):
        return _describe(path, os.path.join(base, path))
    full = posixpath.join(base.rstrip("/"), path)
    fs.invalidate_cache(posixpath.dirname(full))
    try:
        return _describe_remote(path, fs.info(full))
    except FileNotFoundError:
        return None


def _describe_remote(path: str, info: Mapping[str, Any]) -> InputFile:
    names = ("ETag", "etag", "blob_id", "xet_hash", "mtime", "LastModified")  # blob_id, xet_hash: Hugging Face's hub
    version = next((info[name] for name in names if info.get(name)), "")
    return InputFile(path, int(info["size"]), str(version).strip('"'))


def is_housekeeping(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or written by a program beside the data."""
    return name.startswith(".") or _MARKER.match(name) is not None


def expand_path(path: str) -> list[str]:
    """The files that a path means, on any filesystem: itself, all files below a folder, or the matches of a glob."""
    fs, inner = filesystem(path)
    if fs.isfile(inner):
        return [path]
    if fs.isdir(inner):
        root, pattern = path, "**/*"
    else:
        plain = posixpath.dirname(re.split(r"[*?[]", path, maxsplit=1)[0])
        root, pattern = plain or ("/" if path.startswith("/") else "."), path[len(plain) :].lstrip("/")
    try:
        found = [posixpath.join(root, file.path) if root != "." else file.path for file in list_inputs(root, pattern)]
    except FileNotFoundError:
        return []
    return [fs.unstrip_protocol(filesystem(p)[1]) for p in found] if is_remote(path) else found


def _asks(part: str, name: str) -> bool:
    """Whether a part of a pattern may match this name: housekeeping files only if the part says so."""
    if not is_housekeeping(name):
        return True
    return part[0] == name[0] if name[0] in "._" else part.endswith(".crc")


def _is_asked_for(path: str, pattern: str) -> bool:
    parts = [part for part in pattern.split("/") if part and part != "**"]
    return all(
        not is_housekeeping(name) or any(fnmatch.fnmatchcase(name, part) and _asks(part, name) for part in parts)
        for name in path.split("/")
    )


def _describe(path: str, full: str) -> InputFile | None:
    """None for what is no file."""
    try:
        status = os.stat(full)
    except OSError:  # a broken link: its task will report that it cannot be read
        return InputFile(path, 0, "unreadable")
    if stat.S_ISDIR(status.st_mode):  # a folder that cannot be listed: its task will report that too
        return InputFile(path, 0, "unreadable")
    # a change of permissions shows in neither size nor mtime, and decides whether there is anything to read
    readable = "" if os.access(full, os.R_OK) else " unreadable"
    return InputFile(path, status.st_size, f"{status.st_mtime_ns}{readable}") if stat.S_ISREG(status.st_mode) else None


@dataclass(frozen=True, order=True)
class _Folder:
    """A folder to be matched against the parts of the pattern from `index` on."""

    path: str  # as it is called in results
    real: str  # without links
    index: int


def _match_local(base: str, pattern: str, hidden: bool) -> Iterator[tuple[str, str]]:
    """(path below the base, full path) of every match.

    Not by fsspec, which skips links and reads a bracket in the root as a pattern, and not by `glob`: a link to a folder
    above makes it list a file 41 times, two such links 2^40 times. Here each real folder is entered once for each part
    of the pattern, those that are reached without links first.
    """
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    top = "/" if pattern.startswith("/") else base
    folders, linked_folders = [_Folder(top, os.path.realpath(top), 0)], list[_Folder]()
    entered: set[tuple[str, int]] = set()
    found: dict[str, str] = {}  # real path -> path
    linked_files: list[tuple[str, str]] = []
    while parts and (folders or linked_folders):
        if not folders:
            folders, linked_folders = sorted(linked_folders, reverse=True), []
        folder = folders.pop()
        if (folder.real, folder.index) in entered:
            continue
        entered.add((folder.real, folder.index))
        part, is_last = parts[folder.index], folder.index + 1 == len(parts)
        if part == "**" and not is_last:
            folders.append(_Folder(folder.path, folder.real, folder.index + 1))
        try:
            entries = list(_entries(folder.path, part, hidden))
        except PermissionError:
            found.setdefault(folder.real, folder.path)
            continue
        for name, is_link, is_folder in entries:
            path = os.path.join(folder.path, name)
            real = os.path.realpath(path) if is_link or name == ".." else os.path.join(folder.real, name)
            if is_folder and (part == "**" or not is_last):
                (linked_folders if is_link else folders).append(_Folder(path, real, folder.index + (part != "**")))
            elif is_last and not is_folder and is_link:
                linked_files.append((path, real))
            elif is_last and not is_folder:
                found.setdefault(real, path)
    for path, real in sorted(linked_files):
        found.setdefault(real, path)
    for path in found.values():
        yield posixpath.relpath(path, base), path


def _entries(folder: str, part: str, hidden: bool) -> Iterator[tuple[str, bool, bool]]:
    """(name, whether it is a link, whether it is a folder) of the entries of a folder that a part of a pattern matches.

    Raises PermissionError for a folder that cannot be listed.
    """
    if part != "**" and not glob.has_magic(part):
        path = os.path.join(folder, part)
        if os.path.lexists(path):
            yield part, os.path.islink(path), os.path.isdir(path)
        return
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if (part == "**" or fnmatch.fnmatchcase(entry.name, part)) and (hidden or _asks(part, entry.name)):
                    yield entry.name, entry.is_symlink(), _is_folder(entry)
    except (FileNotFoundError, NotADirectoryError):  # removed since
        return


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
