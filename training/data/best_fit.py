"""Packs documents into sequences by best fit, so that few of them are cut; no token is dropped or padded.

Ding et al. 2024 ("Fewer Truncations Improve Language Modeling", section 3): documents longer than a sequence are cut
into whole sequences and a rest; rests and short documents, longest first, each go into the fullest sequence that has
room. There a sequence that nothing fits any more is padded, and other loaders crop a document to fill it. Here the
tokens of an extent (block_order.py) are packed into exactly as many blocks as the stream has there. What is left at the
end fills the gaps in pieces, so those documents are cut, and every token is a target once an epoch, as in the stream.

The order of blocks is that of the stream. A block is packed first and its shorter sequences within it, so the tokens of
a block do not depend on the sequence length.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.data.batch import IGNORE_INDEX
from training.data.mix_table import Ints
from training.data.token_streams import DomainStream

Piece = tuple[int, int]  # a half-open range of a shard's tokens, within one document
KEPT = 128  # packed extents: two groups of eight are in use for each domain


@dataclass
class PackingCounts:
    """What packing has done so far. `cut` counts documents in more sequences than their length needs."""

    documents: int = 0
    cut: int = 0
    cut_by_stream: int = 0  # of the same documents, had they been laid end to end
    cropped_tokens: int = 0  # none, by construction; as `padding_tokens` here so that both are reported
    padding_tokens: int = 0


def pack(pieces: Sequence[Piece], size: int) -> list[list[Piece]]:
    """Packs pieces, which have a multiple of `size` tokens in all, into bins of `size`, each in order of position."""
    total = sum(end - begin for begin, end in pieces)
    bins: list[list[Piece]] = []
    rests: list[Piece] = []
    for begin, end in pieces:
        while end - begin >= size:
            bins.append([(begin, begin + size)])
            begin += size
        if begin < end:
            rests.append((begin, end))
    rests.sort(key=lambda p: (p[0] - p[1], p[0]))
    room: list[tuple[int, int]] = []  # (tokens free, bin), sorted
    left: list[Piece] = []
    for begin, end in rests:
        at = bisect_left(room, (end - begin, -1))
        if at < len(room):
            free, number = room.pop(at)
        elif len(bins) * size < total:
            free, number = size, len(bins)
            bins.append([])
        else:
            left.append((begin, end))
            continue
        bins[number].append((begin, end))
        if free > end - begin:
            insort(room, (free - (end - begin), number))
    for begin, end in left:
        while begin < end:
            free, number = room.pop()  # the largest gap: the fewest pieces
            taken = min(free, end - begin)
            bins[number].append((begin, begin + taken))
            begin += taken
            if free > taken:
                insort(room, (free - taken, number))
    return [sorted(b) for b in bins]


class BestFitPacker:
    """The pieces of any sequence of a domain; extents are packed when one of their sequences is first read."""

    def __init__(self, domain: DomainStream) -> None:
        self.domain, self.counts = domain, PackingCounts()
        self._packed: OrderedDict[tuple[int, int], list[list[Piece]]] = OrderedDict()

    def pieces(self, epoch: int, shard: int, start: int, length: int) -> list[Piece]:
        """What the sequence reads that in the stream begins at `start` of a shard and has `length` inputs."""
        order = self.domain.order
        assert order is not None
        offset = start - order.start_offset(epoch, shard)
        block = int(order.bounds[shard]) + offset // order.block
        _, first, last = next(r for r in order.extent_ranges(epoch, block // order.extent) if r[0] == shard)
        bins = self._range(shard, first, last - 1)
        whole = bins[(start - first) // order.block]
        if length == order.block:
            return whole
        return pack(whole, length)[offset % order.block // length]

    def read_sequence(
        self, epoch: int, shard: int, start: int, rows: tuple[Ints, Ints, Ints], masked: frozenset[str]
    ) -> None:
        """Writes a sequence into rows of tokens, targets and documents [T]; `masked` documents get no targets."""
        tokens, targets, documents = rows
        stream, at = self.domain.shard(shard), 0
        for number, (begin, end) in enumerate(self.pieces(epoch, shard, start, len(tokens))):
            read = self.domain.read_tokens(epoch, shard, begin, end - begin + 1)
            here = slice(at, at + end - begin)
            tokens[here], targets[here], documents[here] = read[:-1], read[1:], number
            if masked:
                row = int(np.searchsorted(stream.offsets, begin, side="right")) - 1
                if stream.documents.column("doc_id")[row].as_py().hex() in masked:
                    targets[here] = IGNORE_INDEX
            at = here.stop

    def _range(self, shard: int, first: int, last: int) -> list[list[Piece]]:
        key = (shard, first)
        if key not in self._packed:
            assert self.domain.order is not None
            size = self.domain.order.block
            offsets = self.domain.shard(shard).offsets
            low, high = np.searchsorted(offsets, (first + 1, last)).tolist()
            edges = [first, *offsets[low:high].tolist(), last]
            pieces = list(itertools.pairwise(edges))
            self._packed[key] = bins = pack(pieces, size)
            while len(self._packed) > KEPT:
                self._packed.popitem(last=False)
            self._count(pieces, bins, first, size)
        self._packed.move_to_end(key)
        return self._packed[key]

    def _count(self, pieces: Sequence[Piece], bins: Sequence[Sequence[Piece]], first: int, size: int) -> None:
        """Adds an extent's documents to the counts."""
        in_stream = [((end - 1 - first) // size - (begin - first) // size + 1, end - begin) for begin, end in pieces]
        starts = np.array([begin for begin, _ in pieces])
        parts = np.zeros(len(pieces), np.int64)
        for content in bins:
            for begin, _ in content:
                parts[np.searchsorted(starts, begin, side="right") - 1] += 1
        least = np.array([-(-(end - begin) // size) for begin, end in pieces])
        self.counts.documents += len(pieces)
        self.counts.cut += int((parts > least).sum())
        self.counts.cut_by_stream += sum(n > -(-length // size) for n, length in in_stream)
