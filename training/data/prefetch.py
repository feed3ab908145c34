"""Asks the kernel to read local shards from the disk before they are needed (remote_shards.py does it for remote ones).

A domain is read in groups of extents (block_order.py), and within a group in random order, which is slow on a disk and
which the kernel's own read-ahead cannot predict. So when sequences of a group are first located, a thread asks the
kernel for all of that group and the next one, extent by extent. Nothing is copied or kept here; a group that is in the
page cache already costs a look-up (1 ms for 64 MiB).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence

from curation.shards import Shard, ShardError
from training.data.token_streams import DomainStream

CHUNK = 128 << 10  # bytes; for one call Linux reads at most its read-ahead window, 128 KiB by default
REMEMBERED = 64  # groups


class Prefetcher:
    """Requests each group once. Its threads end by themselves; a forked process has none and starts its own."""

    def __init__(self) -> None:
        self._requested: dict[tuple[str, int, int], None] = {}

    def prefetch_groups(self, domain: DomainStream, groups: Sequence[tuple[int, int]]) -> None:
        """Requests these groups, as (epoch, group), of a domain that are being read, and the group after each."""
        if not hasattr(os, "posix_fadvise") or domain.order is None:
            return
        wanted = []
        for epoch, group in groups:
            for number in (group, group + 1):
                key = (domain.name, epoch, number)
                if key not in self._requested:
                    self._requested[key] = None
                    wanted += domain.order.group_extents(epoch, number)
        while len(self._requested) > REMEMBERED + 4 * len(groups):
            del self._requested[next(iter(self._requested))]
        if wanted:
            threading.Thread(target=_request, args=(domain, wanted), daemon=True).start()


def _request(domain: DomainStream, ranges: Iterable[tuple[int, int, int]]) -> None:
    for number, first, last in ranges:
        try:
            shard = domain.shard(number)
        except ShardError:  # reported where the shard is read
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
