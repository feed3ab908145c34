"""The token streams of a domain's shards: mapped files opened lazily, or ranges of far-away ones through the cache."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from curation.shards import (
    DomainShards,
    Manifest,
    RemoteShard,
    Shard,
    ShardEntry,
    is_remote,
    join_manifests,
    open_shard,
    read_manifest,
)
from training.data import block_order
from training.data.block_order import DomainOrder
from training.data.mix_table import Ints
from training.data.remote_shards import ExtentCache

CACHE_BYTES = 1 << 30  # of far-away shards, a process
OPEN_REMOTE = 4096  # headers with offsets: 8 bytes a document each


@dataclass(frozen=True, eq=False)
class TokenSequence:
    """Window j: `tokens` [T + 1] is a read-only view; documents begin at `starts` within its T inputs (0 first)."""

    number: int
    domain: str
    epoch: int
    shard: int  # in the order of the manifest
    start: int  # its first token's place in the shard
    document: int  # row in the shard of the document that it begins in
    tokens: np.ndarray[Any, Any]
    starts: Ints


class DomainStream:
    """The shards of one domain, opened as they are needed."""

    def __init__(
        self,
        name: str,
        manifest: Manifest,
        shards: DomainShards,
        order: DomainOrder | None = None,
        cache: ExtentCache | None = None,
    ) -> None:
        """`order`: its blocks, where it is read by them; `cache`: for far-away shards, shared between domains."""
        self.name, self.manifest, self.shards, self.order = name, manifest, shards, order
        self.cache = cache if cache is not None else ExtentCache(CACHE_BYTES)
        runs = {p[1:].partition("/")[0] for p in shards.columns["path"]} if manifest.roots else {"0"}
        self.remote = any(is_remote(manifest.shard_directory(int(run))) for run in runs)
        self.whole = True  # read whole extents; without room for a group of each domain, windows alone
        self.bytes_read = 0  # of far-away shards that are closed again
        self.mapped: dict[int, Shard] = {}  # local shards that are open
        self._far: OrderedDict[int, RemoteShard] = OrderedDict()
        self._group: tuple[int, int] | None = None
        self._lock = threading.Lock()
        self._opening: dict[int, threading.Lock] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {
            k: v
            for k, v in vars(self).items()
            if k in ("name", "manifest", "shards", "order", "cache", "remote", "whole")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:  # another process opens its own files
        vars(self).update(state, bytes_read=0, mapped={}, _far=OrderedDict(), _group=None, _lock=threading.Lock())
        self._opening = {}

    @property
    def entries(self) -> tuple[ShardEntry, ...]:
        """What the manifest says of each shard."""
        return self.shards.shards

    def shard(self, index: int) -> Shard | RemoteShard:
        """The shard as an open file; both kinds have offsets and documents."""
        if index in self.mapped:
            return self.mapped[index]
        if self.remote:
            return self._remote_shard(index)
        entry = self.shards[index]
        self.mapped[index] = open_shard(
            self.manifest.path(entry), entry=entry, tokenizer=self.manifest.tokenizer.sha256
        )
        return self.mapped[index]

    def _remote_shard(self, index: int) -> RemoteShard:
        with self._lock:
            if index in self._far:
                self._far.move_to_end(index)
                return self._far[index]
            opening = self._opening.setdefault(index, threading.Lock())
        with opening:  # threads that fetch ranges of one shard: the first one opens it
            with self._lock:
                if index in self._far:
                    return self._far[index]
            entry = self.shards[index]
            opened = RemoteShard(self.manifest.path(entry), entry, self.manifest.tokenizer.sha256)
            with self._lock:
                self._far[index] = opened
                self._opening.pop(index, None)
                if len(self._far) > OPEN_REMOTE:
                    self.bytes_read += self._far.popitem(last=False)[1].bytes_read
            return opened

    @property
    def fetched(self) -> int:
        """Bytes fetched from far-away shards so far."""
        return self.bytes_read + sum(s.bytes_read for s in self._far.values())

    def window(self, number: int, epoch: int, shard: int, start: int, length: int) -> TokenSequence:
        """`length` inputs from `start` on and the token that follows."""
        stream = self.shard(shard)
        offsets = stream.offsets
        first, last = offsets.searchsorted((start + 1, start + length)).tolist()  # the first behind, as counts
        starts = offsets[first - 1 : last] - start
        starts[0] = 0
        tokens = (
            stream.tokens[start : start + length + 1]
            if isinstance(stream, Shard)
            else self._far_tokens(stream, epoch, shard, start, length + 1)
        )
        return TokenSequence(number, self.name, epoch, shard, start, first - 1, tokens, starts)

    def _far_tokens(self, stream: RemoteShard, epoch: int, shard: int, start: int, count: int) -> np.ndarray[Any, Any]:
        if not self.whole:
            return stream.tokens(start, start + count)
        size = stream.dtype.itemsize
        if self.order is None:  # read from its beginning to its end
            step = block_order.EXTENT_BYTES // size
            first = start // step * step
            last = min(first + step + count, self.shards[shard].tokens)
        else:
            block = int(self.order.bounds[shard]) + (start - self.order.cut(epoch, shard)) // self.order.block
            ranges = self.order.extent_ranges(epoch, block // self.order.extent)
            _, first, last = next(r for r in ranges if r[0] == shard)
        key = (self.name, self.order is None, shard, first, last)
        found = self.cache.get(key, (last - first) * size, partial(self._fetch, shard, first, last))
        return found[start - first : start - first + count]

    def reach(self, epoch: int, position: int) -> None:
        """Windows at this position of the domain's order come next: fetches the extents of its group in the background,
        and those of the group behind it."""
        if self.order is None or not self.whole:
            return
        group = int(self.order.slots(epoch, np.array([position], np.int64))[0]) // block_order.EXTENTS_IN_GROUP
        if self._group == (epoch, group):
            return
        self._group = epoch, group
        ranges = self.order.group_extents(epoch, group)
        self.cache.need(self.name, [(self.name, False, *r) for r in ranges])
        behind = self.order.group_extents(epoch, group + 1)
        size = self.manifest.itemsize
        for shard, first, last in ranges + (behind or self.order.group_extents(epoch + 1, 0)):
            fetch = partial(self._fetch, shard, first, last)
            if not self.cache.ahead((self.name, False, shard, first, last), (last - first) * size, fetch):
                break

    def _fetch(self, shard: int, first: int, last: int) -> np.ndarray[Any, Any]:
        return self._remote_shard(shard).tokens(first, last)


def validation_streams(manifest: Manifest, further: Mapping[str, str]) -> dict[str, DomainStream]:
    """What a training is evaluated on: the domains of its own validation split, and `name/domain` of further runs.

    Of a further run its validation split is read, or all of it where it has none. Raises ShardTokenizer for a run of
    another tokenizer.
    """
    found = {n: DomainStream(n, manifest, s) for n, s in manifest.splits.get("validation", {}).items() if s.tokens > 1}
    for name, place in further.items():
        other = read_manifest(place)
        join_manifests([manifest, other])  # refuses another tokenizer
        split = other.splits.get("validation") or other.splits.get("train", {})
        found |= {f"{name}/{n}": DomainStream(f"{name}/{n}", other, s) for n, s in split.items() if s.tokens > 1}
    return found


def iter_validation_sequences(domain: DomainStream, length: int, limit: int | None) -> Iterator[TokenSequence]:
    """The windows of a validation domain from its beginning, at most `limit`; the last of a shard may be shorter."""
    number = 0
    for shard, entry in enumerate(domain.entries):
        for start in range(0, entry.tokens - 1, length):
            if limit is not None and number >= limit:
                return
            yield domain.window(number, 0, shard, start, min(length, entry.tokens - 1 - start))
            number += 1
