"""Caches token ranges of remote shards: fetched whole, within a memory budget, and before they are needed.

The order of a domain reads its extents in groups (block_order.py), so a reader needs the extents of one group at a time
and knows the next group by arithmetic. Ranges of the groups in use are pinned, which means dropped last. The least
recently read is dropped first, and ranges of the next group are fetched only if no pinned one has to be dropped.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

Tokens = np.ndarray[Any, Any]

THREADS = 8  # concurrent fetches: one group of extents


class ExtentCache:
    """At most `budget` bytes of token ranges, counted from when they are requested. One per process."""

    def __init__(self, budget: int) -> None:
        self.budget, self.used, self.peak = budget, 0, 0
        self._entries: OrderedDict[Hashable, tuple[int, Future[Tokens]]] = OrderedDict()
        self._pinned: dict[Hashable, frozenset[Hashable]] = {}
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"budget": self.budget}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["budget"])  # type: ignore[misc]  # another process begins with an empty cache

    def clear(self) -> None:
        """Drops every range, including those being fetched: they are fetched again when needed."""
        with self._lock:
            self._entries.clear()
            self.used = 0

    def pin(self, owner: Hashable, keys: Iterable[Hashable]) -> None:
        """Marks these ranges as the ones in use by this owner: they are dropped last."""
        self._pinned[owner] = frozenset(keys)

    def get(self, key: Hashable, size: int, fetch: Callable[[], Tokens]) -> Tokens:
        """The range, fetched now if it is not cached. Raises what `fetch` raises; a later call fetches again."""
        with self._lock:
            if key not in self._entries:
                self._make_room(size, drop_pinned=True)
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

    def prefetch(self, key: Hashable, size: int, fetch: Callable[[], Tokens]) -> bool:
        """Begins to fetch a range in the background; False if a pinned one would have to be dropped for it."""
        with self._lock:
            if key not in self._entries:
                if not self._make_room(size, drop_pinned=False):
                    return False
                self._submit(key, size, fetch)
            return True

    def _submit(self, key: Hashable, size: int, fetch: Callable[[], Tokens]) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="extents")
        self._entries[key] = size, self._pool.submit(fetch)
        self.used += size
        self.peak = max(self.peak, self.used)

    def _make_room(self, size: int, *, drop_pinned: bool) -> bool:
        pinned = frozenset().union(*self._pinned.values())
        for spare in (True, False) if drop_pinned else (True,):
            for key in [k for k, (_, f) in self._entries.items() if f.done() and (k not in pinned) is spare]:
                if self.used + size <= self.budget:
                    return True
                self.used -= self._entries.pop(key)[0]
        return self.used + size <= self.budget
