"""Token ranges of far-away shards: fetched whole, held in a bounded cache, and asked for before they are needed.

The order of a domain goes through its extents in groups (blocks.py), so a reader needs the extents of one group at a
time and knows the next group from arithmetic. The cache is told which ranges the groups in use have; those stay, what
was read longest ago goes, and ranges of the next group are fetched only into room that nobody needs.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

Tokens = np.ndarray[Any, Any]

THREADS = 8  # fetches under way at once: one group of extents


class ExtentCache:
    """At most `budget` bytes of token ranges, counted from when they are asked for. One a process."""

    def __init__(self, budget: int) -> None:
        self.budget, self.used, self.peak = budget, 0, 0
        self._entries: OrderedDict[Hashable, tuple[int, Future[Tokens]]] = OrderedDict()
        self._needed: dict[Hashable, frozenset[Hashable]] = {}
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"budget": self.budget}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["budget"])  # type: ignore[misc]  # another process begins with nothing

    def clear(self) -> None:
        """Forgets every range, those under way too: from now on they are fetched again."""
        with self._lock:
            self._entries.clear()
            self.used = 0

    def need(self, owner: Hashable, keys: Iterable[Hashable]) -> None:
        """These ranges, and no others of this owner's, are in use: they go last."""
        self._needed[owner] = frozenset(keys)

    def get(self, key: Hashable, size: int, fetch: Callable[[], Tokens]) -> Tokens:
        """The range, fetched now where it is not here. Raises what `fetch` raises, each time it is asked for."""
        with self._lock:
            if key not in self._entries:
                self._make_room(size, even_needed=True)
                self._submit(key, size, fetch)
            self._entries.move_to_end(key)
            future = self._entries[key][1]
        try:
            return future.result()
        except BaseException:
            with self._lock:
                if key in self._entries and self._entries[key][1] is future:
                    self.used -= self._entries.pop(key)[0]
            raise

    def ahead(self, key: Hashable, size: int, fetch: Callable[[], Tokens]) -> bool:
        """Begins to fetch a range in the background; False where that would push out one that is in use."""
        with self._lock:
            if key not in self._entries:
                if not self._make_room(size, even_needed=False):
                    return False
                self._submit(key, size, fetch)
            return True

    def _submit(self, key: Hashable, size: int, fetch: Callable[[], Tokens]) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="extents")
        self._entries[key] = size, self._pool.submit(fetch)
        self.used += size
        self.peak = max(self.peak, self.used)

    def _make_room(self, size: int, *, even_needed: bool) -> bool:
        needed = frozenset().union(*self._needed.values())
        for spare in (True, False) if even_needed else (True,):
            for key in [k for k, (_, f) in self._entries.items() if f.done() and (k not in needed) is spare]:
                if self.used + size <= self.budget:
                    return True
                self.used -= self._entries.pop(key)[0]
        return self.used + size <= self.budget
