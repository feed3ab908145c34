"""Permutes the blocks of a domain each epoch: which block is read at which position, and where it is in the shards.

A block is `max_seq_len` inputs. It never crosses shards, so that a shard can be read alone, and every shard has the
same number of blocks each epoch: (tokens - 1) // block. The remainder, less than a block a shard, is left out partly
before the first block and partly after the last one, divided anew each epoch by a keyed hash.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.data.mix_table import Ints, OrderError
from training.data.permutation import derive_key, permute, unpermute

EXTENT_BYTES = 8 << 20  # read as a unit: large enough for an object store, small enough to hold a group of them
EXTENTS_IN_GROUP = 8  # blocks are permuted across this many extents, so 64 MiB a domain are in use at a time


def sorted_unique(values: Ints) -> Ints:
    """The different values, in order. np.unique would import numpy.ma: 11 ms before the first batch."""
    ordered = np.sort(values)
    return ordered[np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))]


class DomainOrder:
    """The order of a domain's blocks, and their places in its shards.

    Blocks are numbered through the shards. Extents of consecutive blocks are permuted each epoch, and then the blocks
    within each group of extents in that order, so that a reader of remote shards fetches whole extents and holds one
    group. All extents but the last have the same number of blocks; after the slot of the last one, positions begin
    `deficit` blocks earlier.
    """

    def __init__(self, name: str, tokens: Sequence[int], block: int, itemsize: int, seed: int) -> None:
        """`tokens`: tokens of each shard; `block`: inputs of a block; `itemsize`: bytes of a token.

        Raises OrderError for a domain smaller than a block.
        """
        self.name, self.block, self.seed = name, block, seed
        self.tokens = np.array(tokens, np.int64)
        self.blocks = np.maximum(self.tokens - 1, 0) // block
        self.bounds = np.concatenate([[0], np.cumsum(self.blocks)]).astype(np.int64)
        self.total_blocks = int(self.bounds[-1])
        if not self.total_blocks:
            raise OrderError(
                f"domain {name} is smaller than a block: its largest shard has {max(tokens, default=0)} tokens, "
                f"a block needs {block + 1} (sequence length {block} and the next token); "
                "shorten data.seq_len, give the domain more data, or set its weight to 0"
            )
        self.extent = min(max(1, EXTENT_BYTES // (block * itemsize)), self.total_blocks)
        self.extents = -(-self.total_blocks // self.extent)
        self.deficit = self.extents * self.extent - self.total_blocks
        self._layouts: dict[int, tuple[int, int, int]] = {}

    @property
    def remainder(self) -> int:
        """Tokens that are not trained on in an epoch: the first of each shard, and less than a block more a shard."""
        return int(self.tokens.sum()) - self.total_blocks * self.block

    def start_offset(self, epoch: int, shard: int) -> int:
        """Inputs before the first block of a shard in an epoch, from 0 to the shard's remainder."""
        slack = max(int(self.tokens[shard]) - 1, 0) - int(self.blocks[shard]) * self.block
        return derive_key(self.seed, "cut", self.name, epoch, shard) % (slack + 1)

    def _layout(self, epoch: int) -> tuple[int, int, int]:
        """(key of the extents' permutation, slot of the last and shorter extent, position of its end)."""
        layout = self._layouts.get(epoch)  # once: another thread may clear them
        if layout is None:
            extent_key = derive_key(self.seed, "extents", self.name, epoch)
            last = np.array([self.extents - 1], np.int64)
            short = int(unpermute(last, self.extents, extent_key)[0])
            if len(self._layouts) > 3:  # sequences in use are of one epoch or two
                self._layouts.clear()
            layout = self._layouts[epoch] = extent_key, short, (short + 1) * self.extent - self.deficit
        return layout

    def slots(self, epoch: int, positions: Ints) -> Ints:
        """The slot of each position among the epoch's permuted extents; EXTENTS_IN_GROUP slots form a group."""
        _, _, short_end = self._layout(epoch)
        return np.where(positions < short_end, positions, positions + self.deficit) // self.extent

    def _group(self, epoch: int, group: int) -> tuple[int, int]:
        """The positions of a group of extents, as a half-open range."""
        short = self._layout(epoch)[1]
        first, last = group * EXTENTS_IN_GROUP, min((group + 1) * EXTENTS_IN_GROUP, self.extents)
        begin = first * self.extent - (self.deficit if first > short else 0)
        return begin, last * self.extent - (self.deficit if last > short else 0)

    def blocks_at(self, epoch: int, positions: Ints) -> Ints:
        """The blocks at `positions` of an epoch."""
        extent_key, short, _ = self._layout(epoch)
        at = np.empty_like(positions)
        group = self.slots(epoch, positions) // EXTENTS_IN_GROUP
        for g in sorted_unique(group).tolist():
            begin, end = self._group(epoch, g)
            here = np.nonzero(group == g)[0]
            group_key = derive_key(self.seed, "blocks", self.name, epoch, g)
            at[here] = begin + permute(positions[here] - begin, end - begin, group_key)
        slot = self.slots(epoch, at)
        order = permute(slot, self.extents, extent_key)
        return order * self.extent + (at - slot * self.extent + np.where(slot > short, self.deficit, 0))

    def positions_of(self, epoch: int, blocks: Ints) -> Ints:
        """The positions of these blocks in an epoch: the inverse of `blocks_at`."""
        extent_key, short, _ = self._layout(epoch)
        slot = unpermute(blocks // self.extent, self.extents, extent_key)
        at = slot * self.extent - np.where(slot > short, self.deficit, 0) + blocks % self.extent
        positions = np.empty_like(at)
        group = slot // EXTENTS_IN_GROUP
        for g in sorted_unique(group).tolist():
            begin, end = self._group(epoch, g)
            here = np.nonzero(group == g)[0]
            group_key = derive_key(self.seed, "blocks", self.name, epoch, g)
            positions[here] = begin + unpermute(at[here] - begin, end - begin, group_key)
        return positions

    def groups_of(self, epochs: Ints, positions: Ints) -> list[tuple[int, int]]:
        """The groups of extents, as (epoch, group), of these positions of these epochs, in order."""
        found = []
        for epoch in sorted_unique(epochs).tolist():
            groups = sorted_unique(self.slots(epoch, positions[epochs == epoch]) // EXTENTS_IN_GROUP)
            found += [(epoch, group) for group in groups.tolist()]
        return found

    def group_extents(self, epoch: int, group: int) -> list[tuple[int, int, int]]:
        """The token ranges that a group of extents reads, in the order of its slots: (shard, first, end).

        Empty for a group after the last one of the epoch. An extent that crosses shards is several ranges.
        """
        extent_key = self._layout(epoch)[0]
        slots = np.arange(group * EXTENTS_IN_GROUP, min((group + 1) * EXTENTS_IN_GROUP, self.extents), dtype=np.int64)
        ranges = []
        for extent in permute(slots, self.extents, extent_key).tolist() if len(slots) else []:
            ranges += self.extent_ranges(epoch, extent)
        return ranges

    def extent_ranges(self, epoch: int, extent: int) -> list[tuple[int, int, int]]:
        """The token ranges of an extent: (shard, first, end)."""
        block, last = extent * self.extent, min((extent + 1) * self.extent, self.total_blocks)
        ranges = []
        shard = int(np.searchsorted(self.bounds, block, side="right")) - 1
        while block < last:
            end = min(last, int(self.bounds[shard + 1]))
            if end > block:
                start = self.start_offset(epoch, shard) - int(self.bounds[shard]) * self.block
                ranges.append((shard, start + block * self.block, start + end * self.block + 1))
            block, shard = end, shard + 1
        return ranges

    def locate(self, ordinals: Ints, seq_len: int) -> tuple[Ints, Ints, Ints]:
        """(epoch, shard, first token) of the sequences with these ordinals, each of `seq_len` inputs."""
        epochs, blocks, part = self.blocks_of(ordinals, seq_len)
        shards = np.searchsorted(self.bounds, blocks, side="right") - 1
        starts = (blocks - self.bounds[shards]) * self.block + part * seq_len
        for epoch in sorted_unique(epochs).tolist():
            here = epochs == epoch
            which = sorted_unique(shards[here])
            cuts = np.array([self.start_offset(epoch, s) for s in which.tolist()], np.int64)
            starts[here] += cuts[np.searchsorted(which, shards[here])]
        return epochs, shards, starts

    def blocks_of(self, ordinals: Ints, seq_len: int) -> tuple[Ints, Ints, Ints]:
        """(epoch, block, which part of the block) of the sequences with these ordinals."""
        block_ordinal, part = np.divmod(ordinals, self.block // seq_len)
        epochs, positions = np.divmod(block_ordinal, self.total_blocks)
        blocks = np.empty_like(positions)
        for epoch in sorted_unique(epochs).tolist():
            here = epochs == epoch
            blocks[here] = self.blocks_at(epoch, positions[here])
        return epochs, blocks, part

    def ordinals_of(self, epoch: int, shard: int, first: int, last: int, seq_len: int) -> Ints:
        """Ordinals of the sequences of `seq_len` inputs with one of the tokens first..last-1 of a shard in an epoch.

        Empty for tokens that the epoch leaves out.
        """
        offset = self.start_offset(epoch, shard)
        low = max(0, (first - offset) // seq_len)
        high = min(int(self.blocks[shard]) * (self.block // seq_len), -(-(last - offset) // seq_len))
        parts = np.arange(low, max(low, high), dtype=np.int64)
        block, part = np.divmod(parts, self.block // seq_len)
        position = self.positions_of(epoch, block + int(self.bounds[shard]))
        return (epoch * self.total_blocks + position) * (self.block // seq_len) + part
