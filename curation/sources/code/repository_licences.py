"""Finds the licence of each folder of a repository from its licence files: the nearest one above a file counts.

In a wheel the licence files are in `NAME.dist-info/licenses`, below which they have the paths of the source tree (PEP
639); there they count for those folders. A folder `LICENSES` counts for the one that it is in (https://reuse.software).
"""

from __future__ import annotations

import functools
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from curation import storage
from curation.sources.code.licence_texts import MAX_TEXT, is_licence_of_folder, licence_of_folder, recognize_licence
from curation.sources.code.repository_archive import ArchivedFile
from curation.step import RecordError, UnreadableFile

_DIST_INFO = re.compile(r"(?:^|/)([^/]+\.(?:dist|egg)-info)(?:/licen[sc]es)?(?=/|$)", re.I)
_LICENSES = re.compile(r"(?:^|/)licen[sc]es$", re.I)


@dataclass(frozen=True)
class Licences:
    """The licences of folders; empty for a folder whose licence files are not recognised."""

    folders: Mapping[str, str]

    def of(self, path: str) -> str | None:
        """The licence of a file: that of the nearest folder which has one; None if there is none, or if it is not
        known."""
        folder = posixpath.dirname(path)
        while folder not in self.folders:
            if not folder:
                return None
            folder = posixpath.dirname(folder) if folder.strip("/") else ""
        return self.folders[folder] or None


def of_archive(files: Iterable[ArchivedFile]) -> Licences:
    """The licences in an archive, as far as it can be read."""
    found: dict[str, dict[str, str]] = {}
    packages: set[str] = set()
    try:
        for file in files:
            path = file.path.removeprefix("./")
            if file.kind or not (is_licence_of_folder(path) or "/LICENSES/" in f"/{path}"):
                continue
            folder = posixpath.dirname(path)
            if package := _DIST_INFO.search(folder):
                packages.add(package[1])
                folder = (folder[: package.start()] + folder[package.end() :]).strip("/")
            folder = _LICENSES.sub("", folder)
            try:
                text = file.read(MAX_TEXT).decode("utf-8", "replace")
            except RecordError:
                continue
            found.setdefault(folder, {})[posixpath.basename(path)] = recognize_licence(text)
    except UnreadableFile:
        pass  # reading the files says so
    if len(packages) > 1:  # several packages in one folder: which licence is whose is not known
        found.pop("", None)
    return Licences({folder: licence_of_folder(texts) for folder, texts in found.items()})


def of_folder(root: str, path: str) -> tuple[str | None, Licences]:
    """The repository that a file below a source's root is in, and the licences of the folders above it. The repository
    is the outermost folder with a licence file, by its path; None where no folder has one."""
    found: dict[str, str] = {}
    repository: str | None = None
    folder = posixpath.dirname(path)
    while True:
        if (licence := _in_folder(root, folder)) is not None:
            found[folder] = licence
            repository = folder or posixpath.basename(root.rstrip("/")) or root
        if not folder or not folder.strip("/"):
            return repository, Licences(found)
        folder = posixpath.dirname(folder)


@functools.lru_cache(maxsize=4096)
def _in_folder(root: str, folder: str) -> str | None:
    """The licence of a folder by its licence files; None if it has none. A folder of many files is listed once."""
    fs, base = storage.filesystem(root)
    try:
        names = [str(name).rstrip("/") for name in fs.ls(posixpath.join(base, folder), detail=False)]
    except OSError:
        return None
    texts: dict[str, str] = {}
    for name in sorted(map(posixpath.basename, names)):
        if is_licence_of_folder(name):
            try:
                with storage.open_input(root, posixpath.join(folder, name)) as file:
                    texts[name] = recognize_licence(file.read(MAX_TEXT).decode("utf-8", "replace"))
            except OSError:  # a folder of this name, or one that cannot be read
                continue
    return licence_of_folder(texts) if texts else None
