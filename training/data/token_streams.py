"""Reads the token stream of a domain from its shards: local files mapped lazily, remote ones by cached ranges.

Training reads a domain in the order of its blocks. Evaluation reads a validation domain from the first token to the
last; the last sequence of a shard may be shorter, so that every token but the first of a shard is a target once.
"""

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

CACHE_BYTES = 1 << 30  # of remote shards, per process
MAX_OPEN_REMOTE = 4096  # remote shards whose headers and offsets (8 bytes a document) are kept


@dataclass(frozen=True, eq=False)
class TokenSequence:
    """Sequence j of a training: T inputs and the token after them."""

    index: int  # j
    domain: str
    epoch: int
    shard: int  # in the order of the manifest
    start: int  # the position of its first token in the shard
    first_document: int  # row in the shard of the document that it begins in
    tokens: np.ndarray[Any, Any]  # [T + 1], a read-only view
    document_starts: Ints  # where documents begin within the inputs; the first is 0


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
        """`order`: the order of its blocks, None to read from the beginning; `cache`: for remote shards, shared."""
        self.name, self.manifest, self.shards, self.order = name, manifest, shards, order
        self.cache = cache if cache is not None else ExtentCache(CACHE_BYTES)
        runs = {p[1:].partition("/")[0] for p in shards.columns["path"]} if manifest.roots else {"0"}
        self.remote = any(is_remote(manifest.shard_directory(int(run))) for run in runs)
        self.by_extents = True  # read whole extents; without room for a group of each domain, single sequences
        self.bytes_read = 0  # of remote shards that were closed
        self.mapped: dict[int, Shard] = {}  # local shards that are open
        self._remote_open: OrderedDict[int, RemoteShard] = OrderedDict()
        self._group: tuple[int, int] | None = None
        self._lock = threading.Lock()
        self._opening: dict[int, threading.Lock] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {
            k: v
            for k, v in vars(self).items()
            if k in ("name", "manifest", "shards", "order", "cache", "remote", "by_extents")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:  # another process opens its own files
        vars(self).update(
            state, bytes_read=0, mapped={}, _remote_open=OrderedDict(), _group=None, _lock=threading.Lock()
        )
        self._opening = {}

    @property
    def entries(self) -> tuple[ShardEntry, ...]:
        """The manifest's entry of each shard."""
        return self.shards.shards

    def shard(self, index: int) -> Shard | RemoteShard:
        """The shard, opened; both kinds have offsets and documents."""
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
            if index in self._remote_open:
                self._remote_open.move_to_end(index)
                return self._remote_open[index]
            opening = self._opening.setdefault(index, threading.Lock())
        with opening:  # several threads fetch ranges of one shard: the first one opens it
            with self._lock:
                if index in self._remote_open:
                    return self._remote_open[index]
            entry = self.shards[index]
            opened = RemoteShard(self.manifest.path(entry), entry, self.manifest.tokenizer.sha256)
            with self._lock:
                self._remote_open[index] = opened
                self._opening.pop(index, None)
                if len(self._remote_open) > MAX_OPEN_REMOTE:
                    self.bytes_read += self._remote_open.popitem(last=False)[1].bytes_read
            return opened

    @property
    def bytes_fetched(self) -> int:
        """Bytes fetched from remote shards so far."""
        return self.bytes_read + sum(s.bytes_read for s in self._remote_open.values())

    def read_sequence(self, index: int, epoch: int, shard: int, start: int, length: int) -> TokenSequence:
        """`length` inputs from token `start` of a shard, and the token that follows."""
        stream = self.shard(shard)
        offsets = stream.offsets
        first, last = offsets.searchsorted((start + 1, start + length)).tolist()
        starts = offsets[first - 1 : last] - start
        starts[0] = 0
        tokens = self.read_tokens(epoch, shard, start, length + 1)
        return TokenSequence(index, self.name, epoch, shard, start, first - 1, tokens, starts)

    def read_tokens(self, epoch: int, shard: int, start: int, count: int) -> np.ndarray[Any, Any]:
        """`count` tokens from token `start` of a shard, as a view; they are within one extent of the epoch."""
        stream = self.shard(shard)
        if isinstance(stream, Shard):
            return stream.tokens[start : start + count]
        return self._remote_tokens(stream, epoch, shard, start, count)

    def _remote_tokens(
        self, stream: RemoteShard, epoch: int, shard: int, start: int, count: int
    ) -> np.ndarray[Any, Any]:
        if not self.by_extents:
            return stream.tokens(start, start + count)
        size = stream.dtype.itemsize
        if self.order is None:  # read from its beginning to its end
            step = block_order.EXTENT_BYTES // size
            first = start // step * step
            last = min(first + step + count, self.shards[shard].tokens)
        else:
            block = int(self.order.bounds[shard]) + (start - self.order.start_offset(epoch, shard)) // self.order.block
            ranges = self.order.extent_ranges(epoch, block // self.order.extent)
            _, first, last = next(r for r in ranges if r[0] == shard)
        key = (self.name, self.order is None, shard, first, last)
        found = self.cache.get(key, (last - first) * size, partial(self._fetch, shard, first, last))
        return found[start - first : start - first + count]

    def prefetch_group(self, epoch: int, position: int) -> None:
        """Fetches in the background the extents of the group that contains a position, and of the group after it.

        `position`: of a block in the epoch, whose sequences are read next.
        """
        if self.order is None or not self.by_extents:
            return
        group = int(self.order.slots(epoch, np.array([position], np.int64))[0]) // block_order.EXTENTS_IN_GROUP
        if self._group == (epoch, group):
            return
        self._group = epoch, group
        ranges = self.order.group_extents(epoch, group)
        self.cache.pin(self.name, [(self.name, False, *r) for r in ranges])
        following = self.order.group_extents(epoch, group + 1)
        size = self.manifest.itemsize
        for shard, first, last in ranges + (following or self.order.group_extents(epoch + 1, 0)):
            fetch = partial(self._fetch, shard, first, last)
            if not self.cache.prefetch((self.name, False, shard, first, last), (last - first) * size, fetch):
                break

    def _fetch(self, shard: int, first: int, last: int) -> np.ndarray[Any, Any]:
        return self._remote_shard(shard).tokens(first, last)


def validation_streams(manifest: Manifest, further_runs: Mapping[str, str]) -> dict[str, DomainStream]:
    """The validation domains of a training: those of its own validation split, and `name/domain` of further runs.

    A further run is read by its validation split, or all of it if it has none. Raises ShardTokenizer for a run of
    another tokenizer.
    """
    found = {n: DomainStream(n, manifest, s) for n, s in manifest.splits.get("validation", {}).items() if s.tokens > 1}
    for name, place in further_runs.items():
        other = read_manifest(place)
        join_manifests([manifest, other])  # refuses another tokenizer
        split = other.splits.get("validation") or other.splits.get("train", {})
        found |= {f"{name}/{n}": DomainStream(f"{name}/{n}", other, s) for n, s in split.items() if s.tokens > 1}
    return found


def iter_validation_sequences(domain: DomainStream, length: int, limit: int | None) -> Iterator[TokenSequence]:
    """The sequences of a validation domain from its beginning, at most `limit`; the last of a shard may be shorter."""
    index = 0
    for shard, entry in enumerate(domain.entries):
        for start in range(0, entry.tokens - 1, length):
            if limit is not None and index >= limit:
                return
            yield domain.read_sequence(index, 0, shard, start, min(length, entry.tokens - 1 - start))
            index += 1
