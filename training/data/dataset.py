"""Windows of tokens: slices of mapped shards, in the order that `order.py` computes.

`Data.windows(j0, j1)` is a pure function: the same windows whoever asks, in whatever pieces, from whatever j0. A window
is T + 1 tokens as a view of the shard's file (T inputs, and the same shifted by one as targets), with the places at
which documents begin in it. Shards are opened when a window first needs them.

Where windows are is computed for a thousand at a time, all arithmetic on arrays, so that what is left for each is a
slice and a copy. Nothing of that is state: another process, or the same one later, computes it again.

Evaluation reads a validation domain from the first token to the last in the same way, its last window of a shard as
short as it comes, so that every token but the first of a shard is a target exactly once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from curation.core.errors import UserError
from curation.shards import Manifest
from training.data.batch import IGNORE_INDEX, Batch, number_documents
from training.data.block_order import EXTENT_BYTES, EXTENTS_IN_GROUP, DomainOrder, sorted_unique
from training.data.data_order import OrderLog
from training.data.deleted_tokens import DeletedTokens
from training.data.mix_table import Ints, OrderError
from training.data.prefetch import Prefetcher
from training.data.remote_shards import ExtentCache
from training.data.token_streams import CACHE_BYTES, DomainStream, TokenSequence

# Windows whose places are computed at once: few where reading begins, since each looks into its shard's offsets, many
# once it goes on (8 ms)
FIRST, AHEAD = 64, 8192


# Where a window is: domain, epoch, shard, first token, inputs, position of its block in the epoch, and of the
# documents that begin behind its first token the first row and the one behind the last (-1: not looked up yet).
Place = tuple[DomainStream, int, int, int, int, int, int, int]


class TokenDataset:
    """The training split under a seed. Holds open files and no state: the order log comes with every question."""

    def __init__(
        self, manifest: Manifest, seed: int, block: int, domains: Sequence[str], cache_bytes: int = CACHE_BYTES
    ) -> None:
        """Raises UserError for a domain that the shards do not have or that is smaller than a block."""
        split = manifest.splits.get("train", {})
        self.manifest = manifest
        self.domains: dict[str, DomainStream] = {}
        self.orders: dict[str, DomainOrder] = {}
        self.cache = ExtentCache(cache_bytes)
        self.tombstones = DeletedTokens(manifest, self.cache.clear)
        for name in sorted(domains):
            if name not in split:
                raise UserError(f"data.weights: no domain {name} in {manifest.root}; there are {', '.join(split)}")
            try:
                order = DomainOrder(name, split[name].token_counts, block, manifest.itemsize, seed)
            except OrderError as error:
                raise UserError(str(error)) from error
            self.orders[name] = order
            self.domains[name] = DomainStream(name, manifest, split[name], order, self.cache)
        far = sum(d.remote for d in self.domains.values())
        wanted = far * EXTENTS_IN_GROUP * EXTENT_BYTES
        self.notes: tuple[str, ...] = ()
        if wanted > cache_bytes:
            self.notes = (
                f"data.cache is {cache_bytes >> 20} MiB, and {far} domains of far-away shards use {wanted >> 20} MiB "
                "at a time: windows are fetched one by one, which waits for the network each time",
            )
            for domain in self.domains.values():
                domain.whole = False
        self._ahead = Prefetcher()
        self._planned: tuple[OrderLog, int, list[Place]] | None = None

    def _places(self, log: OrderLog, first: int, last: int) -> list[Place]:
        """Where windows first..last-1 are."""
        ahead = FIRST
        if self._planned is not None:
            known, begin, places = self._planned
            end = begin + len(places)
            if known is log and begin <= first and last <= end:
                return places[first - begin : last - begin]
            if known is log and begin < first <= end:
                ahead = AHEAD
        places = self._locate(log, first, max(last, first + ahead))
        self._planned = log, first, places
        return places[: last - first]

    def _locate(self, log: OrderLog, first: int, last: int) -> list[Place]:
        places: list[Place] = []
        for segment, domains, ordinals in log.place(first, last):
            columns = np.full((6, len(domains)), -1, np.int64)
            for i, name in enumerate(segment.mix):
                at = np.nonzero(domains == i)[0]
                if len(at):
                    order = self.orders[name]
                    columns[:3, at] = order.locate(ordinals[at], segment.sequence)
                    columns[3, at] = ordinals[at] // (log.block // segment.sequence) % order.total
                    if not self.domains[name].remote:
                        self._ahead.groups(self.domains[name], order.groups_of(columns[0, at], columns[3, at]))
                        columns[4:, at] = self._rows(self.domains[name], columns[1:3, at], segment.sequence)
            names = [self.domains[name] for name in segment.mix]
            places += [
                (names[d], epoch, shard, start, segment.sequence, position, row, end)
                for d, epoch, shard, start, position, row, end in zip(domains.tolist(), *columns.tolist(), strict=True)
            ]
        return places

    @staticmethod
    def _rows(domain: DomainStream, places: Ints, length: int) -> Ints:
        """Rows of the documents that begin behind the first token of windows: [first, behind the last]."""
        shards, starts = places
        rows = np.empty_like(places)
        for shard in sorted_unique(shards).tolist():
            here = shards == shard
            edges = np.stack([starts[here] + 1, starts[here] + length])
            rows[:, here] = np.searchsorted(domain.shard(shard).offsets, edges)
        return rows

    def windows(self, log: OrderLog, first: int, last: int) -> list[TokenSequence]:
        """Windows first..last-1, in order."""
        found = []
        for number, (domain, epoch, shard, start, length, position, _, _) in enumerate(
            self._places(log, first, last), first
        ):
            if domain.remote:
                domain.reach(epoch, position)
            found.append(domain.window(number, epoch, shard, start, length))
        return found

    def doc_ids(self, window: TokenSequence) -> list[str]:
        """The doc_ids (hex) of the documents in a window, in order."""
        column = self.domains[window.domain].shard(window.shard).documents.column("doc_id")
        return [i.hex() for i in column.slice(window.document, len(window.starts)).to_pylist()]

    def batch(self, log: OrderLog, first: int, last: int) -> Batch:
        """Windows first..last-1 (of one segment) as tensors; what follows a token of a masked document is no target."""
        erased = self.tombstones.there()
        places = self._places(log, first, last)
        length = places[0][4]
        # one copy out of the file for both: targets are the same numbers, one further on
        stream = np.empty((len(places), length + 1), np.int64)
        documents = np.zeros((len(places), length), np.int64)
        for row, (domain, epoch, shard, start, _, position, begin, end) in enumerate(places):
            if domain.remote:
                domain.reach(epoch, position)
                window = domain.window(first + row, epoch, shard, start, length)
                stream[row] = window.tokens
                begins = window.starts[1:].tolist()
                if begins:
                    number_documents(documents[row], begins)
            else:
                opened = domain.mapped[shard]  # `_rows` has opened it
                stream[row] = opened.tokens[start : start + length + 1]
                if begin < end:
                    number_documents(documents[row], (opened.offsets[begin:end] - start).tolist())
        whole, numbers = torch.from_numpy(stream), torch.from_numpy(documents)
        batch = Batch(whole[:, :-1], whole[:, 1:], numbers, tuple([p[0].name for p in places]))
        masked = log.segment(first).masked
        if masked:
            batch = self._mask(batch, self.windows(log, first, last), frozenset(masked))
        return self.tombstones.masked(batch) if erased else batch

    def _mask(self, batch: Batch, windows: Sequence[TokenSequence], masked: frozenset[str]) -> Batch:
        targets = batch.targets.clone()
        for row, window in enumerate(windows):
            bad = [i for i, doc in enumerate(self.doc_ids(window)) if doc in masked]
            targets[row][torch.isin(batch.documents[row], torch.tensor(bad, dtype=torch.int64))] = IGNORE_INDEX
        return replace(batch, targets=targets)
