"""Windows of tokens: slices of mapped shards, in the order that `order.py` computes.

`Data.windows(j0, j1)` is a pure function: the same windows whoever asks, in whatever pieces, from whatever j0. A window
is T + 1 tokens as a view of the shard's file (T inputs, and the same shifted by one as targets), with the places at
which documents begin in it. Shards are opened when a window first needs them.

Evaluation reads a validation domain from the first token to the last in the same way, its last window of a shard as
short as it comes, so that every token but the first of a shard is a target exactly once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from curation.shards import DomainShards, Manifest, Shard, open_shard

from . import tombstones
from .config import DataConfig, UserError
from .order import DomainOrder, Ints, OrderError, OrderLog, integer_mix

IGNORE = -100


@dataclass(frozen=True, eq=False)
class Window:
    """Window j: `tokens` [T + 1] is a read-only view; documents begin at `starts` within its T inputs (0 first)."""

    number: int
    domain: str
    epoch: int
    shard: int  # in the order of the manifest
    start: int  # its first token's place in the shard
    document: int  # row in the shard of the document that it begins in
    tokens: np.ndarray[Any, Any]
    starts: Ints


@dataclass(frozen=True, eq=False)
class Batch:
    """Tensors [windows, T]: tokens and targets int64 (-100: no target), documents int64 numbered within a window."""

    tokens: Tensor
    targets: Tensor
    documents: Tensor
    domains: tuple[str, ...]  # of each window

    def to(self, device: torch.device) -> Batch:
        if device.type == "cpu":
            return self
        tokens, targets, documents = (t.to(device) for t in (self.tokens, self.targets, self.documents))
        return Batch(tokens, targets, documents, self.domains)


class Domain:
    """The shards of one domain, opened as they are needed."""

    def __init__(self, name: str, manifest: Manifest, shards: DomainShards) -> None:
        self.name, self.manifest, self.entries = name, manifest, shards.shards
        self._open: dict[int, Shard] = {}

    def shard(self, index: int) -> Shard:
        if index not in self._open:
            entry = self.entries[index]
            self._open[index] = open_shard(
                self.manifest.path(entry), entry=entry, tokenizer=self.manifest.tokenizer.sha256
            )
        return self._open[index]

    def window(self, number: int, epoch: int, shard: int, start: int, length: int) -> Window:
        """`length` inputs from `start` on and the token that follows."""
        stream = self.shard(shard)
        first = int(np.searchsorted(stream.offsets, start, side="right")) - 1
        last = int(np.searchsorted(stream.offsets, start + length, side="left"))
        starts = np.maximum(stream.offsets[first:last] - start, 0)
        tokens = stream.tokens[start : start + length + 1]
        return Window(number, self.name, epoch, shard, start, first, tokens, starts)


class Data:
    """The training split under a seed. Holds open files and no state: the order log comes with every question."""

    def __init__(self, manifest: Manifest, seed: int, block: int, domains: Sequence[str]) -> None:
        """Raises UserError for a domain that the shards do not have or that is smaller than a block."""
        split = manifest.splits.get("train", {})
        self.manifest = manifest
        self.domains: dict[str, Domain] = {}
        self.orders: dict[str, DomainOrder] = {}
        itemsize = 2 if manifest.tokenizer.vocab <= 1 << 16 else 4
        for name in sorted(domains):
            if name not in split:
                raise UserError(f"data.weights: no domain {name} in {manifest.root}; there are {', '.join(split)}")
            self.domains[name] = Domain(name, manifest, split[name])
            try:
                self.orders[name] = DomainOrder(name, [s.tokens for s in split[name].shards], block, itemsize, seed)
            except OrderError as error:
                raise UserError(str(error)) from error

    def windows(self, log: OrderLog, first: int, last: int) -> list[Window]:
        """Windows first..last-1, in order."""
        found: list[Window | None] = [None] * (last - first)
        done = 0
        for segment, domains, ordinals in log.place(first, last):
            for i, name in enumerate(segment.mix):
                at = np.nonzero(domains == i)[0]
                if not len(at):
                    continue
                epochs, shards, starts = self.orders[name].locate(ordinals[at], segment.sequence)
                for k, epoch, shard, start in zip(at, epochs, shards, starts, strict=True):
                    place = done + int(k)
                    found[place] = self.domains[name].window(
                        first + place, int(epoch), int(shard), int(start), segment.sequence
                    )
            done += len(domains)
        return [w for w in found if w is not None]

    def doc_ids(self, window: Window) -> list[str]:
        """The doc_ids (hex) of the documents in a window, in order."""
        column = self.domains[window.domain].shard(window.shard).documents.column("doc_id")
        return [i.hex() for i in column.slice(window.document, len(window.starts)).to_pylist()]

    def batch(self, log: OrderLog, first: int, last: int) -> Batch:
        """Windows first..last-1 as tensors; what follows a token of a masked document is no target."""
        windows = self.windows(log, first, last)
        batch = collate(windows, windows[0].tokens.size - 1)
        masked = set(log.segment(first).masked)
        if masked:
            for row, window in enumerate(windows):
                bad = [i for i, doc in enumerate(self.doc_ids(window)) if doc in masked]
                batch.targets[row][torch.isin(batch.documents[row], torch.tensor(bad, dtype=torch.int64))] = IGNORE
        return tombstones.masked(batch, self.manifest)


def collate(windows: Sequence[Window], length: int) -> Batch:
    """Windows as tensors of `length` columns; a shorter window is filled up with one more document without targets."""
    tokens = np.zeros((len(windows), length), np.int64)
    targets = np.full((len(windows), length), IGNORE, np.int64)
    documents = np.zeros((len(windows), length), np.int64)
    for row, window in enumerate(windows):
        n = len(window.tokens) - 1
        tokens[row, :n] = window.tokens[:-1]
        targets[row, :n] = window.tokens[1:]
        documents[row, window.starts[1:]] = 1
        if n < length:
            documents[row, n] = 1
    np.cumsum(documents, axis=1, out=documents)
    names = tuple(w.domain for w in windows)
    return Batch(torch.from_numpy(tokens), torch.from_numpy(targets), torch.from_numpy(documents), names)


def validation(domain: Domain, length: int, limit: int | None) -> Iterator[Window]:
    """The windows of a validation domain from its beginning, at most `limit`; the last of a shard may be shorter."""
    number = 0
    for shard, entry in enumerate(domain.entries):
        for start in range(0, entry.tokens - 1, length):
            if limit is not None and number >= limit:
                return
            yield domain.window(number, 0, shard, start, min(length, entry.tokens - 1 - start))
            number += 1


def plan(
    manifest: Manifest, config: DataConfig, seed: int, batch: int, iterations: int
) -> tuple[Data, OrderLog, float]:
    """The data and the order log of a new run, and the largest error of the integer mix against the weights.

    Raises UserError for what cannot be read: no weights, an unknown or too small domain, and a mix that would read a
    domain more often than the cap on epochs allows, naming the iteration at which that would happen.
    """
    weights = config.weights or dict(manifest.mix.weights)
    if not weights:
        total = sum(shards.tokens for shards in manifest.splits.get("train", {}).values()) or 1
        weights = {d: shards.tokens / total for d, shards in manifest.splits.get("train", {}).items()}
    block = config.block or config.sequence
    try:
        mix, rounding = integer_mix(weights)
        log = OrderLog.start(mix, block, config.sequence, batch)
    except OrderError as error:
        raise UserError(f"data: {error}") from error
    data = Data(manifest, seed, block, list(mix))
    cap = config.max_epochs or manifest.mix.max_epochs
    if cap is not None:
        _refuse_exhaustion(data, log, cap, batch, iterations)
    return data, log, rounding


def _refuse_exhaustion(data: Data, log: OrderLog, cap: float, batch: int, iterations: int) -> None:
    for name, read in log.read(iterations * batch).items():
        allowed = cap * data.orders[name].total * log.block
        if read <= allowed:
            continue
        low, high = 0, iterations  # the first iteration after which the domain was read too often
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if log.read(middle * batch)[name] <= allowed else (low, middle)
        tokens = data.orders[name].total * log.block
        raise UserError(
            f"domain {name} would be read {read / tokens:.2f} times and the cap is {cap:g} epochs of {tokens} tokens: "
            f"it runs out in iteration {high} of {iterations}; lower its weight or the iterations, "
            "or raise data.max_epochs"
        )
