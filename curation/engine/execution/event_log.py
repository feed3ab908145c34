"""Writes and reads the log of a run's driver: phases that begin, tasks that start, are done or fail.

On a disk it is one file, `log/events.jsonl`. An object store has no appending: there the log is a number of objects,
`log/events-000000-<session>.jsonl` and so on, each with the events of some seconds. An object is never written again,
so a reader sees whole lines only, and a second session goes on with the next number. Two drivers whose sessions overlap
(one was believed dead) may take the same number; they are told apart by the session, a random number.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from curation.core import jsonl_log
from curation.storage import Storage, may_pass

FILE = "log/events.jsonl"
_OBJECT = re.compile(r"events-(\d{6,})-[0-9a-f]{8}\.jsonl")

# Seconds of events in one object. A hundredth of the session's time, so that a day is 1,000 objects and not 9,000.
MIN_SECONDS, MAX_SECONDS, SHARE = 10.0, 120.0, 0.01


class EventLog:
    """The log of one session of a driver, open for adding."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._file = jsonl_log.Appender(storage.full(FILE)) if storage.local else None
        self._session = uuid.uuid4().hex[:8]
        self._lines: list[bytes] = []  # that no object has yet
        self._number: int | None = None  # of the next object, once the store has said which there are
        self._began, self._written = time.monotonic(), -MAX_SECONDS

    def add(self, event: str, **more: Any) -> None:
        """Adds an event with the present time, secrets in its texts masked."""
        entry = {"at": round(time.time(), 3), "event": event} | more
        if self._file is not None:
            self._file.add(entry)
            return
        self._lines.append(jsonl_log.encode(entry))
        self.flush()

    def flush(self, *, now: bool = False) -> None:
        """Writes what was added to an object once it is time for it, or `now`. Called often, so that a quiet phase
        shows too. Where the store refuses, the events go into a later object: no log is worth ending a run."""
        clock = time.monotonic()
        due = self._written + min(MAX_SECONDS, max(MIN_SECONDS, SHARE * (clock - self._began)))
        if not self._lines or (clock < due and not now):
            return
        self._written = clock
        try:
            if self._number is None:
                self._number = 1 + max((n for n, _ in _objects(self._storage)), default=-1)
            self._storage.write_bytes(f"log/events-{self._number:06d}-{self._session}.jsonl", b"".join(self._lines))
        except Exception as error:
            if not may_pass(error):
                raise
            return
        self._number, self._lines = self._number + 1, []

    def close(self) -> None:
        self.flush(now=True)
        if self._file is not None:
            self._file.close()


def read(storage: Storage) -> Iterator[Mapping[str, Any]]:
    """The events of all sessions, oldest first; none if there is no log."""
    if storage.local:
        yield from jsonl_log.read(storage.full(FILE))
        return
    paths = [f"log/{name}" for _, name in _objects(storage)]
    for data in storage.read_ranges([(path, 0, None) for path in paths]) if paths else ():
        if isinstance(data, Exception):
            raise data
        for line in data.splitlines():
            yield json.loads(line)


def _objects(storage: Storage) -> list[tuple[int, str]]:
    found = [(int(m[1]), name) for name in storage.names("log") if (m := _OBJECT.fullmatch(name))]
    return sorted(found)
