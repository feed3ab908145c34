"""Stores the manifests of a finished phase: compressed one by one, each decoded when it is asked for.

Manifests of a phase are alike: the same keys, steps and folders, and paths that repeat the name of the task. So each is
compressed with another one of its phase as dictionary. That of a map task with nine steps takes 0.9 kB instead of 4.5
of JSON, and instead of 15 as Python objects; what remains are checksums and fingerprints, which no encoding shortens.
A driver that resumes takes the bytes as they are in the file, and of many tasks it keeps those of the files that it
used last: it goes through tasks in order, and each file has the next thousands of them.

A file has a line with a checksum of all that follows, a line of JSON (what kind of phase, the dictionary, and how many
bytes each manifest takes), and the manifests.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curation.core.errors import DamagedFile
from curation.storage import Storage

FOLDER, SUFFIX = "cache/phases", ".manifests"  # those of earlier versions have other names, and are not looked at
LEVEL = 3  # of zlib: 0.97 kB for the manifest above in 57 us; level 6 takes 98 us for 0.93, level 1 0.1 kB more
WINDOW = -15  # bits, and negative: without a header and a checksum for each


class Manifests(Mapping[str, dict[str, Any]]):
    """Manifests by the id of their task, compressed with the first one as dictionary. Those of a file that is written
    (`stored`) can be freed, and are read again when one of them is asked for."""

    def __init__(self, dictionary: bytes = b"") -> None:
        self.dictionary = dictionary
        self._packed: dict[str, bytes] = {}
        self._length: int | None = None  # of freed ones
        self._read: Callable[[], Manifests] | None = None
        self._recent: Recent | None = None

    def _loaded(self) -> dict[str, bytes]:
        if self._recent is not None and self._read is not None:
            if self._length is not None:
                again = self._read()
                self.dictionary, self._packed, self._length = again.dictionary, again._packed, None
            self._recent.use(self)
        return self._packed

    def stored(self, store: Storage, file: str, recent: Recent) -> None:
        """From now on they can be read from this file."""
        self._read, self._recent = lambda: read(store, file).tasks, recent
        recent.use(self)

    def free(self) -> None:
        """Frees their memory."""
        self._length, self._packed, self.dictionary = len(self), {}, b""

    def __getitem__(self, task: str) -> dict[str, Any]:
        packed = self._loaded()[task]
        found: dict[str, Any] = json.loads(zlib.decompressobj(WINDOW, self.dictionary).decompress(packed))
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaded())

    def __len__(self) -> int:
        return len(self._packed) if self._length is None else self._length

    def __contains__(self, task: object) -> bool:
        return task in self._loaded()

    def add(self, task: str, manifest: Mapping[str, Any]) -> None:
        """Adds a manifest, or replaces it."""
        text = json.dumps(manifest, separators=(",", ":")).encode()
        if not self.dictionary:
            self.dictionary = text[-(1 << 15) :]
        deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, WINDOW, zdict=self.dictionary)
        self._packed[task] = deflate.compress(text) + deflate.flush()

    def take(self, task: str, other: Manifests) -> None:
        """Adds a manifest of another collection, as it is where both have one dictionary."""
        packed = other._loaded()[task]
        if not self.dictionary:
            self.dictionary = other.dictionary
        if self.dictionary == other.dictionary:
            self._packed[task] = packed
        else:
            self.add(task, other[task])

    def packed(self) -> list[bytes]:
        """The compressed manifests, in order."""
        return list(self._loaded().values())

    def load(self, sizes: Mapping[str, int], data: memoryview) -> None:
        """Adds compressed manifests that lie one after another."""
        at = 0
        for task, size in sizes.items():
            self._packed[task] = bytes(data[at : at + size])
            at += size


class Recent:
    """Lets manifests of the files that were used last stay in memory, and frees the others."""

    def __init__(self, most: int = 1 << 16) -> None:
        self._most = most  # manifests: of the 16 files of as many phases and plans, and some 60 MB of map tasks
        self._used: dict[int, Manifests] = {}  # by id(), the latest last
        self._count = 0
        self._latest: Manifests | None = None

    def use(self, manifests: Manifests) -> None:
        """These are used now."""
        if manifests is self._latest:
            return
        self._latest = manifests
        if self._used.pop(id(manifests), None) is None:
            self._count += len(manifests)
        self._used[id(manifests)] = manifests
        while self._count > self._most and len(self._used) > 1:
            oldest = self._used.pop(next(iter(self._used)))
            self._count -= len(oldest)
            oldest.free()


class InOrder(Sequence[dict[str, Any]]):
    """The manifests of some tasks in order, each decoded whenever it is asked for: go through them once.

    found   where each of the first `size` tasks is, of the next as many, ...
    """

    def __init__(self, tasks: Sequence[str], found: Sequence[Manifests], size: int) -> None:
        self._tasks, self._found, self._size = tasks, found, size

    def __len__(self) -> int:
        return len(self._tasks)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self._tasks))[index]
        return self._found[index // self._size][self._tasks[index]]


@dataclass(frozen=True)
class PhaseRecord:
    """A finished phase, or a part of one of very many tasks. kind: the name of the function that its tasks ran."""

    kind: str
    name: str
    tasks: Manifests


def path(fingerprint: str, part: int = 0) -> str:
    """The file of a part of a phase."""
    return f"{FOLDER}/{fingerprint}{f'.{part:04d}' if part else ''}{SUFFIX}"


def paths(store: Storage) -> list[str]:
    """The files of all finished phases of a run."""
    return [f"{FOLDER}/{name}" for name in store.names(FOLDER) if name.endswith(SUFFIX)]


def write(store: Storage, file: str, record: PhaseRecord) -> None:
    """Writes the record of a phase."""
    packed = record.tasks.packed()
    head = {
        "kind": record.kind, "name": record.name, "dictionary": record.tasks.dictionary.decode(),
        "tasks": dict(zip(record.tasks, map(len, packed), strict=True)),
    }  # fmt: skip
    body = json.dumps(head).encode() + b"\n" + b"".join(packed)
    store.write_bytes(file, _digest(body) + b"\n" + body)


def merge(
    store: Storage, file: str, kind: str, name: str, tasks: Sequence[str], found: Mapping[str, Manifests],
    there: Manifests | None,
) -> Manifests:  # fmt: skip
    """Writes the manifests of these tasks into a file, unless it has them and no others; returns them.

    there   what the file has
    """
    if there is not None and len(there) == len(tasks) and all(found[task] is there for task in tasks):
        return there
    merged = Manifests()
    for task in tasks:
        merged.take(task, found[task])
    write(store, file, PhaseRecord(kind, name, merged))
    return merged


def read(store: Storage, file: str) -> PhaseRecord:
    """The record of a phase. Raises DamagedFile."""
    try:
        checksum, _, body = store.read_bytes(file).partition(b"\n")
    except FileNotFoundError as error:
        raise DamagedFile(file, "it is missing", store.root) from error
    if checksum != _digest(body):
        raise DamagedFile(file, "its content does not have the checksum that it was written with", store.root)
    line, _, packed = body.partition(b"\n")
    head = json.loads(line)
    tasks = Manifests(head["dictionary"].encode())
    tasks.load(head["tasks"], memoryview(packed))
    return PhaseRecord(head["kind"], head["name"], tasks)


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest()[:16].encode()
