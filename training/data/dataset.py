"""Reads token sequences and batches from mapped shards, in the order that data_order.py computes.

`TokenDataset.sequences(log, j0, j1)` is a pure function: the same sequences for any caller, in any pieces, from any j0.
A sequence is T + 1 tokens as a view of the shard's file (T inputs, and the same shifted by one as targets), with the
positions at which documents begin in it. Shards are opened when a sequence first needs them.

Where sequences are is computed for thousands at a time, as arithmetic on arrays, so that a slice and a copy is what
remains for each. None of this is state: another process, or the same one later, computes it again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch

from curation.core.errors import UserError
from curation.shards import Manifest
from training.data.batch import IGNORE_INDEX, Batch, number_documents
from training.data.best_fit import BestFitPacker
from training.data.block_order import EXTENT_BYTES, EXTENTS_IN_GROUP, DomainOrder, sorted_unique
from training.data.data_order import OrderLog
from training.data.deleted_tokens import DeletedTokens
from training.data.mix_table import Ints, OrderError
from training.data.prefetch import Prefetcher
from training.data.remote_shards import ExtentCache
from training.data.token_streams import CACHE_BYTES, DomainStream, TokenSequence

# Sequences located at once: few where reading begins, since each searches its shard's offsets; many once reading has
# continued (8 ms).
FIRST_LOCATED, LOCATED_AHEAD = 64, 8192


# A sequence's domain, epoch, shard, first token, inputs, the position of its block in the epoch, and the half-open
# range of rows of the documents that begin after its first token (-1: not looked up, for remote shards).
Location = tuple[DomainStream, int, int, int, int, int, int, int]


def manifest_digest(manifest: Manifest) -> str:
    """SHA-256 of a manifest, by which a run and a loader's state know their shards again."""
    return hashlib.sha256(manifest.dumps()).hexdigest()


class TokenDataset:
    """The training split under a seed. It holds open files and no reading state: every call is given the order log."""

    def __init__(
        self, manifest: Manifest, seed: int, block: int, domains: Sequence[str], cache_bytes: int = CACHE_BYTES
    ) -> None:
        """Opens `domains`, cut into blocks of `block` inputs; `cache_bytes` bounds what is held of remote shards.

        Raises UserError for a domain that the shards do not have or that is smaller than a block.
        """
        split = manifest.splits.get("train", {})
        self.manifest, self.seed = manifest, seed
        self.domains: dict[str, DomainStream] = {}
        self.orders: dict[str, DomainOrder] = {}
        self.cache = ExtentCache(cache_bytes)
        self.deleted_tokens = DeletedTokens(manifest, self.cache.clear)
        for name in sorted(domains):
            if name not in split:
                raise UserError(
                    f"data.weights: no domain {name} in {manifest.root}; its domains are {', '.join(split)}"
                )
            try:
                order = DomainOrder(name, split[name].token_counts, block, manifest.itemsize, seed)
            except OrderError as error:
                raise UserError(str(error)) from error
            self.orders[name] = order
            self.domains[name] = DomainStream(name, manifest, split[name], order, self.cache)
        remote = sum(d.remote for d in self.domains.values())
        wanted = remote * EXTENTS_IN_GROUP * EXTENT_BYTES
        self.notes: tuple[str, ...] = ()
        if wanted > cache_bytes:
            self.notes = (
                f"data.cache is {cache_bytes >> 20} MiB, but {remote} domains of remote shards need {wanted >> 20}: "
                "sequences are fetched one by one, each waiting for the network; raise data.cache",
            )
            for domain in self.domains.values():
                domain.by_extents = False
        self.packers: dict[str, BestFitPacker] = {}
        self._prefetcher = Prefetcher()
        self._located: tuple[OrderLog, int, list[Location]] | None = None

    def pack_best_fit(self) -> None:
        """From now on `batch` gives documents packed by best fit, where it gave the stream. Other reading stays."""
        self.packers = {name: BestFitPacker(domain) for name, domain in self.domains.items()}

    @cached_property
    def manifest_digest(self) -> str:
        """SHA-256 of the manifest: which shards these are."""
        return manifest_digest(self.manifest)

    def _locations(self, log: OrderLog, first: int, last: int) -> list[Location]:
        """Where sequences first..last-1 are."""
        ahead = FIRST_LOCATED
        if self._located is not None:
            known, begin, places = self._located
            end = begin + len(places)
            if known is log and begin <= first and last <= end:
                return places[first - begin : last - begin]
            if known is log and begin < first <= end:
                ahead = LOCATED_AHEAD
        places = self._locate(log, first, max(last, first + ahead))
        self._located = log, first, places
        return places[: last - first]

    def _locate(self, log: OrderLog, first: int, last: int) -> list[Location]:
        places: list[Location] = []
        for segment, domains, ordinals in log.locate(first, last):
            columns = np.full((6, len(domains)), -1, np.int64)
            for i, name in enumerate(segment.mix):
                at = np.nonzero(domains == i)[0]
                if len(at):
                    order = self.orders[name]
                    columns[:3, at] = order.locate(ordinals[at], segment.seq_len)
                    columns[3, at] = ordinals[at] // (log.block // segment.seq_len) % order.total_blocks
                    if not self.domains[name].remote:
                        self._prefetcher.prefetch_groups(
                            self.domains[name], order.groups_of(columns[0, at], columns[3, at])
                        )
                        columns[4:, at] = self._rows(self.domains[name], columns[1:3, at], segment.seq_len)
            names = [self.domains[name] for name in segment.mix]
            places += [
                (names[d], epoch, shard, start, segment.seq_len, position, row, end)
                for d, epoch, shard, start, position, row, end in zip(domains.tolist(), *columns.tolist(), strict=True)
            ]
        return places

    @staticmethod
    def _rows(domain: DomainStream, places: Ints, length: int) -> Ints:
        """Rows of the documents that begin after the first token of sequences, as half-open ranges [2, n]."""
        shards, starts = places
        rows = np.empty_like(places)
        for shard in sorted_unique(shards).tolist():
            here = shards == shard
            edges = np.stack([starts[here] + 1, starts[here] + length])
            rows[:, here] = np.searchsorted(domain.shard(shard).offsets, edges)
        return rows

    def sequences(self, log: OrderLog, first: int, last: int) -> list[TokenSequence]:
        """Sequences first..last-1, in order."""
        found = []
        for index, (domain, epoch, shard, start, length, position, _, _) in enumerate(
            self._locations(log, first, last), first
        ):
            if domain.remote:
                domain.prefetch_group(epoch, position)
            found.append(domain.read_sequence(index, epoch, shard, start, length))
        return found

    def doc_ids(self, sequence: TokenSequence) -> list[str]:
        """The doc_ids (hex) of the documents in a sequence, in order."""
        column = self.domains[sequence.domain].shard(sequence.shard).documents.column("doc_id")
        return [i.hex() for i in column.slice(sequence.first_document, len(sequence.document_starts)).to_pylist()]

    def batch(self, log: OrderLog, first: int, last: int) -> Batch:
        """Sequences first..last-1, of one segment, as tensors; masked and deleted documents have no targets."""
        deleted = self.deleted_tokens.any_deleted()
        places = self._locations(log, first, last)
        length = places[0][4]
        if self.packers:
            batch = self._packed_batch(places, frozenset(log.segment_at(first).masked))
            return self.deleted_tokens.mask_targets(batch) if deleted else batch
        # targets are the tokens, shifted by one; both are copied, since other loops call `targets.view(-1)`
        inputs = np.empty((len(places), length), np.int64)
        following = np.empty_like(inputs)
        documents = np.zeros((len(places), length), np.int64)
        for row, (domain, epoch, shard, start, _, position, begin, end) in enumerate(places):
            if domain.remote:
                domain.prefetch_group(epoch, position)
                sequence = domain.read_sequence(first + row, epoch, shard, start, length)
                inputs[row], following[row] = sequence.tokens[:-1], sequence.tokens[1:]
                begins = sequence.document_starts[1:].tolist()
                if begins:
                    number_documents(documents[row], begins)
            else:
                opened = domain.mapped[shard]  # `_rows` has opened it
                inputs[row] = opened.tokens[start : start + length]
                following[row] = opened.tokens[start + 1 : start + length + 1]
                if begin < end:
                    number_documents(documents[row], (opened.offsets[begin:end] - start).tolist())
        tensors = map(torch.from_numpy, (inputs, following, documents))
        batch = Batch(*tensors, tuple([p[0].name for p in places]))
        masked = log.segment_at(first).masked
        if masked:
            batch = self._mask(batch, self.sequences(log, first, last), frozenset(masked))
        return self.deleted_tokens.mask_targets(batch) if deleted else batch

    def _packed_batch(self, places: Sequence[Location], masked: frozenset[str]) -> Batch:
        made = tuple(np.empty((len(places), places[0][4]), np.int64) for _ in range(3))
        for row, (domain, epoch, shard, start, _, position, _, _) in enumerate(places):
            if domain.remote:
                domain.prefetch_group(epoch, position)
            rows = (made[0][row], made[1][row], made[2][row])
            self.packers[domain.name].read_sequence(epoch, shard, start, rows, masked)
        tokens, targets, documents = map(torch.from_numpy, made)
        return Batch(tokens, targets, documents, tuple(p[0].name for p in places))

    def _mask(self, batch: Batch, sequences: Sequence[TokenSequence], masked: frozenset[str]) -> Batch:
        targets = batch.targets.clone()
        for row, sequence in enumerate(sequences):
            bad = [i for i, doc in enumerate(self.doc_ids(sequence)) if doc in masked]
            targets[row][torch.isin(batch.documents[row], torch.tensor(bad, dtype=torch.int64))] = IGNORE_INDEX
        return replace(batch, targets=targets)
