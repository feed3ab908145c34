"""Local shards from the disk before they are needed: what remote.py does for far-away ones, left to the page cache.

A domain is read in groups of extents (blocks.py), and within a group at random, which a disk does slowly and the
kernel's own read-ahead cannot guess. So when windows of a group are first computed, a thread asks the kernel for all of
the group and the one behind it, extent by extent. Nothing is copied or held; what is in the cache already costs a
look-up (1 ms for 64 MiB).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence

from curation.shards import Shard, ShardError
from training.data.token_streams import DomainStream

CHUNK = 128 << 10  # Linux reads no more for one call than its read-ahead window, 128 KiB by default
REMEMBERED = 64  # groups


class Prefetcher:
    """Asks for each group once. Its threads end by themselves; a forked process has none and starts its own."""

    def __init__(self) -> None:
        self._asked: dict[tuple[str, int, int], None] = {}

    def groups(self, domain: DomainStream, groups: Sequence[tuple[int, int]]) -> None:
        """These (epoch, group)s of a domain are being read: fetches them and what follows the last one."""
        if not hasattr(os, "posix_fadvise") or domain.order is None:
            return
        wanted = []
        for epoch, group in groups:
            for number in (group, group + 1):
                key = (domain.name, epoch, number)
                if key not in self._asked:
                    self._asked[key] = None
                    wanted += domain.order.group_extents(epoch, number)
        while len(self._asked) > REMEMBERED + 4 * len(groups):
            del self._asked[next(iter(self._asked))]
        if wanted:
            threading.Thread(target=_ask, args=(domain, wanted), daemon=True).start()


def _ask(domain: DomainStream, ranges: Iterable[tuple[int, int, int]]) -> None:
    for number, first, last in ranges:
        try:
            shard = domain.shard(number)
        except ShardError:  # whoever reads it will say so
            return
        assert isinstance(shard, Shard)
        size = shard.tokens.itemsize
        begin, end = shard.start + first * size, shard.start + last * size
        file = os.open(shard.path.removeprefix("file://"), os.O_RDONLY)
        try:
            for at in range(begin, end, CHUNK):
                os.posix_fadvise(file, at, min(CHUNK, end - at), os.POSIX_FADV_WILLNEED)
        finally:
            os.close(file)
