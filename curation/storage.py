"""Reads and writes files on any fsspec filesystem, with atomic writes and checksums.

On a local disk: write under a temporary name, fsync, rename, fsync the directory. On an object store an upload
appears whole or not at all, so the final name is written directly. Either way a file counts only when a *manifest*
names it with its checksum; any other file is garbage of an interrupted writer.

`failpoint` marks every boundary at which a crash must be harmless. Tests enumerate them and die at each.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import posixpath
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import fsspec
from fsspec.core import url_to_fs

from curation.checksummed_file import Checksummed
from curation.core import checked_json, published_tree
from curation.core.atomic_files import fsync
from curation.core.errors import DamagedFile, UserError
from curation.core.packages import describe_missing
from curation.core.relative_paths import check_relative

Failpoint = Callable[[str], None]
_failpoint: Failpoint | None = None


def failpoint(name: str) -> None:
    """A boundary at which a test's hook may raise or kill. Does nothing when no hook is set."""
    if _failpoint is not None:
        _failpoint(name)


def set_failpoint(hook: Failpoint | None) -> None:
    """Installs (or with None removes) the hook that `failpoint` calls, in this process."""
    global _failpoint
    _failpoint = hook


def may_pass(error: BaseException) -> bool:
    """Whether an error is of the network or of an object store, and the same call may succeed later."""
    return isinstance(error, (OSError, EOFError)) or type(error).__module__.startswith(("botocore", "aiohttp"))


def is_remote(path: str) -> bool:
    """Whether a path names another filesystem than the local disk: s3://, gs://, hf://, memory://, ..."""
    return "://" in path and not path.startswith("file://")


def filesystem(path: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The filesystem of a path or URL, and the path on it. Listings are never cached: other drivers write too."""
    if is_remote(path):
        try:
            fs, inner = url_to_fs(path, use_listings_cache=False)
        except (ImportError, ValueError) as error:  # no such protocol, or its package is not installed
            needs_s3fs = path.startswith("s3://") and isinstance(error, ImportError)
            raise UserError(f"{path}: {describe_missing(['s3fs']) if needs_s3fs else error}") from error
        return fs, inner
    return fsspec.filesystem("file"), os.path.abspath(path.removeprefix("file://"))


def join(root: str, *parts: str) -> str:
    """Joins paths with `/` on any filesystem; an absolute or remote part replaces what is before it."""
    for part in parts:
        root = part if is_remote(part) else posixpath.join(root, part)
    return root


def path_beside(file: str, path: str) -> str:
    """A path as written in a file, seen from that file's folder; absolute and remote paths stay as they are."""
    if is_remote(path) or posixpath.isabs(path):
        return path
    if is_remote(file):
        return posixpath.join(file.rpartition("/")[0], path)
    return posixpath.normpath(posixpath.join(os.path.dirname(os.path.abspath(file)), path))


def open_input(root: str, path: str, *, read_ahead: bool = True) -> IO[bytes]:
    """Opens `path` below `root` for reading, as stored (compressed files stay compressed).

    read_ahead   False for a few bytes here and there: s3fs would fetch 50 MiB at each place"""
    full = join(root, path)
    if not is_remote(full):
        return open(full.removeprefix("file://"), "rb")
    fs, inner = filesystem(full)
    handle: IO[bytes] = fs.open(inner, "rb") if read_ahead else fs.open(inner, "rb", cache_type="none")
    return handle


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def fingerprint(value: Any) -> str:
    """32 hex digits over the canonical JSON of a value: what goes into file names."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_jsonable)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _jsonable(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"not JSON: {type(value).__name__}")


@dataclass
class Written:
    """A file as a manifest records it: path below the storage root, bytes, SHA-256."""

    path: str
    size: int = 0
    sha256: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {"path": self.path, "bytes": self.size, "sha256": self.sha256}


@dataclass
class Storage:
    """A directory on some filesystem, written with commits and read by relative path."""

    root: str
    _fs: fsspec.AbstractFileSystem = field(init=False, repr=False)
    _base: str = field(init=False, repr=False)
    _trees: dict[str, str] = field(init=False, repr=False, default_factory=dict)  # where each tree was when first read

    def __post_init__(self) -> None:
        self._fs, self._base = filesystem(self.root)
        self._base = self._base.rstrip("/")

    def __reduce__(self) -> Any:
        return Storage, (self.root,)

    @property
    def local(self) -> bool:
        """True where rename and hard links exist: a disk of this machine (or one mounted on it)."""
        return not is_remote(self.root)

    def full(self, path: str) -> str:
        """The path as its filesystem knows it. An absolute path or URL of the same filesystem is kept."""
        if ".." in path.split("/"):
            check_relative(path, self.root)  # raises
        if is_remote(path):
            return str(self._fs._strip_protocol(path))
        head, _, below = path.partition("/")
        if head in published_tree.TREES:
            path = posixpath.join(self._tree(head), below) if below else self._tree(head)
        return posixpath.join(self._base, path) if path else self._base

    def _tree(self, name: str) -> str:
        """The directory of a result tree (published_tree.py): on an object store the one that the pointer named when
        this storage first asked, so that what one storage reads is of one result."""
        if name in self._trees:
            return self._trees[name]
        if self.local and os.path.isdir(f"{self._base}/{name}"):
            return name
        pointer = published_tree.pointer(name)
        try:  # on a disk: of a run that was copied from an object store
            found = published_tree.decode(self.read_bytes(pointer), pointer, self.root)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return name
        except DamagedFile:
            if self.local:  # somebody's own file
                return name
            raise
        if not self.local:
            self._trees[name] = found
        return found

    def forget_trees(self) -> None:
        """Makes this storage read the pointers anew."""
        self._trees.clear()

    def url(self, path: str) -> str:
        """The path as `filesystem` and other libraries take it."""
        return self._fs.unstrip_protocol(self.full(path)) if not self.local else self.full(path)

    def _own(self, path: str) -> str:
        """`full` of a path that is written, removed or linked: names of files come from manifests, which anybody may
        have made, so none may lead out of the directory. Raises UserError."""
        return self.full(check_relative(path, self.root))

    def exists(self, path: str) -> bool:
        return os.path.exists(self.full(path)) if self.local else bool(self._fs.exists(self.full(path)))

    def size(self, path: str) -> int:
        return os.path.getsize(self.full(path)) if self.local else int(self._fs.size(self.full(path)))

    def open(self, path: str) -> IO[bytes]:
        """Opens a file for reading, random access."""
        if self.local:
            return open(self.full(path), "rb")
        handle: IO[bytes] = self._fs.open(self.full(path), "rb")
        return handle

    def read_bytes(self, path: str) -> bytes:
        if not self.local:
            return bytes(self._fs.cat_file(self.full(path)))  # one request; `open` asks for the size first
        with self.open(path) as f:
            return f.read()

    def read_ranges(self, ranges: Sequence[tuple[str, int, int | None]]) -> list[bytes | Exception]:
        """Byte ranges (path, first, end; a negative first counts from the end of the file) of files on an object store:
        one request each, many at a time, nothing read ahead. An exception stands for a range that cannot be read."""
        paths = [self.full(path) for path, _, _ in ranges]
        starts, stops = [start for _, start, _ in ranges], [stop for _, _, stop in ranges]
        found = self._fs.cat_ranges(paths, starts, stops, on_error="return")
        return list(found)

    def read_json(self, path: str) -> dict[str, Any]:
        """What `write_json` wrote. Raises DamagedFile if its bytes changed since, or if there is no such file."""
        try:
            return checked_json.decode(self.read_bytes(path), path, self.root)
        except FileNotFoundError as error:
            raise DamagedFile(path, "it is missing", self.root) from error

    def read_plain_json(self, path: str) -> Any:
        """Of a file without a checksum of its own, which others read too: a manifest of shards, croissant.json."""
        return json.loads(self.read_bytes(path))

    def names(self, path: str) -> list[str]:
        """Names of the files directly in a directory, sorted; temporaries left out; [] where it is absent."""
        if self.local:
            try:
                names = [e.name for e in os.scandir(self.full(path)) if e.is_file()]
            except FileNotFoundError:
                return []
        else:
            with contextlib.suppress(FileNotFoundError):
                infos = self._fs.ls(self.full(path), detail=True)
                names = [posixpath.basename(i["name"]) for i in infos if i["type"] == "file"]
                return sorted(n for n in names if not _TEMPORARY.search(n))
            return []
        return sorted(n for n in names if not _TEMPORARY.search(n))

    def walk(self, path: str) -> list[str]:
        """All files below a directory, as paths below the storage root, sorted; temporaries left out."""
        base = self.full(path)
        if not self._fs.exists(base):
            return []
        return sorted(_below(path, base, p) for p in self._fs.find(base) if not _TEMPORARY.search(p))

    def sizes(self, path: str) -> dict[str, int]:
        """Bytes of all files below a directory, by path below the storage root; temporaries left out."""
        base = self.full(path)
        found = self._fs.find(base, detail=True)
        return {_below(path, base, p): int(info["size"]) for p, info in found.items() if not _TEMPORARY.search(p)}

    @contextlib.contextmanager
    def create(self, path: str) -> Iterator[tuple[Checksummed, Written]]:
        """Writes a file that appears whole or not at all: `with storage.create(p) as (f, written): f.write(...)`.

        `written` is complete after the block. An exception inside leaves nothing under the final name.
        """
        written = Written(path)
        final = self._own(path)
        failpoint(f"create {path}")
        if self.local:
            _make_directory(os.path.dirname(final))
            temporary = f"{final}.{uuid.uuid4().hex[:12]}.tmp"
            try:
                with open(temporary, "wb", buffering=1 << 20) as raw:
                    out = Checksummed(raw)
                    yield out, written
                    raw.flush()
                    failpoint(f"fsync {path}")
                    os.fsync(raw.fileno())
                failpoint(f"rename {path}")
                os.replace(temporary, final)
                fsync(os.path.dirname(final))
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
                raise
        else:
            raw = self._fs.open(final, "wb")
            out = Checksummed(raw)
            try:
                yield out, written
                failpoint(f"upload {path}")
            except BaseException:
                raw.discard() if hasattr(raw, "discard") else None
                raw.closed = True  # so that neither close() nor the garbage collector completes the upload
                raise
            raw.close()
        written.size, written.sha256 = out.size, out.sha.hexdigest()
        failpoint(f"created {path}")

    def write_bytes(self, path: str, data: bytes) -> Written:
        with self.create(path) as (f, written):
            f.write(data)
        return written

    def write_json(self, path: str, value: Mapping[str, Any], *, indent: int | None = 1) -> Written:
        """Canonical JSON with a checksum of itself, which `read_json` compares; equal values are equal bytes."""
        return self.write_bytes(path, checked_json.encode(value, _jsonable, indent=indent))

    def remove(self, path: str) -> None:
        """Removes a file or a tree; absent is fine."""
        full = self._own(path)
        failpoint(f"remove {path}")
        if self.local:
            if os.path.isdir(full) and not os.path.islink(full):
                shutil.rmtree(full, ignore_errors=True)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(full)
        else:
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm(full, recursive=True)

    def link(self, path: str, to: str) -> None:
        """Makes the bytes of `path` appear under `to` as well: a hard link, or a copy where there are none."""
        failpoint(f"link {to}")
        if not self.local:
            self._fs.copy(self._own(path), self._own(to))
            return
        target = self._own(to)
        _make_directory(os.path.dirname(target))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target)
        try:
            os.link(self._own(path), target)
        except OSError:  # a filesystem without hard links
            shutil.copyfile(self._own(path), target)

    def rename(self, path: str, to: str) -> None:
        """Moves a file or directory; local only, replacing an absent target."""
        failpoint(f"rename {to}")
        os.replace(self._own(path), self._own(to))
        fsync(os.path.dirname(self._own(to)))

    def sync(self, path: str) -> None:
        """Puts the names below a directory on the disk, as `create` does for each file; links need it."""
        if self.local:
            for folder, _, _ in os.walk(self.full(path)):
                fsync(folder)

    def sweep(self) -> None:
        """Removes the temporaries that killed writers left. Only for the process that holds the run's lock.

        On an object store an upload that was never completed has no name; the bucket's lifecycle rules remove it.
        """
        if not self.local:
            return
        for folder, _, names in os.walk(self._base):
            for name in names:
                if _TEMPORARY.search(name):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(os.path.join(folder, name))

    def free_bytes(self) -> int | None:
        """Free space, or None where the filesystem has no such figure."""
        if not self.local:
            return None
        os.makedirs(self._base, exist_ok=True)
        return shutil.disk_usage(self._base).free


def _below(path: str, base: str, found: str) -> str:
    """What was found below `base`, which is `path` on its filesystem, as a path below the storage root."""
    return posixpath.join(path, found[len(base) :].lstrip("/")).rstrip("/")


_TEMPORARY = re.compile(r"\.[0-9a-f]{12}\.tmp$")


def _make_directory(path: str) -> None:
    """Makes a directory and those above it, and puts their names on the disk: a file is as safe as its folder."""
    if os.path.isdir(path):
        return
    _make_directory(os.path.dirname(path))
    os.makedirs(path, exist_ok=True)
    fsync(os.path.dirname(path))
