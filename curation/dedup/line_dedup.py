"""Lines and paragraphs that many documents share: the first document keeps them, the others lose them.

Menus, footers and notices stand on every page of a site. Documents are in one order, that of a keyed hash of their
doc_ids; a unit (or a span of some units in a row) belongs to the first document that has it, and is cut from all
others. So what goes does not depend on how documents lie, one page of a site keeps the whole of its boilerplate, and
whatever is cut still stands in a document before (C4: Raffel et al. 2020, section 2.2, by spans of three sentences;
cc_net: Wenzek et al. 2020, section 3.1, by paragraphs). What one document says twice stays: that is for `heuristics`.

Three stages, each of which holds a task or a partition at a time:

    spans   documents   the first holder of each span in this task, to the partition of its hash      52 bytes a span
    first   partition   the first holder of all and how many there are; told to the tasks that asked   28 bytes a span
    cut     documents   what to cut from each text

A task asks once for a span, however many of its documents have it, so no partition grows with a line that stands
everywhere. The text itself is cut where it is next needed (`edit`), and the signal `cut` holds what was taken out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.core.errors import UserError
from curation.dedup import line_spans
from curation.dedup.line_spans import Unit
from curation.dedup.scope import check_scope, salts, scope_columns
from curation.dedup.text_normalization import NORMALISE, Form
from curation.seeded_hash import keyed, words
from curation.step import Corpus, Documents, GlobalStep, Stage, StagePlan

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

# Bytes of text to a partition. Lines of web pages are 40 to 80 bytes long, so a partition is sent a million spans of
# 52 bytes at the most, less what tasks have merged already.
TEXT_PER_PARTITION = 64 << 20
PENDING_SPANS = 1 << 18  # gathered in a task before those of one hash are merged: 12 MB

_ASKED = pa.schema(
    [
        ("to", pa.uint32()),
        ("hash", pa.binary(16)),
        ("rank", pa.uint64()),  # of the holder: its place in the order of documents, with `low` to break ties
        ("low", pa.uint64()),
        ("address", pa.int64()),
        ("documents", pa.int64()),
    ]
)
_TOLD = pa.schema([("to", pa.uint32()), ("hash", pa.binary(16)), ("first", pa.int64())])
_SIGNALS = pa.schema([("units", pa.int64()), ("repeated", pa.int64()), ("share", pa.float64()), ("cut", pa.string())])
_CUT = pa.schema([("address", pa.int64()), *_SIGNALS])


@dataclass(frozen=True)
class LineDedup(GlobalStep):
    """Cuts from each document the lines or paragraphs that a document before it has.

    unit           line, or paragraph: lines between blank ones
    span           how many units in a row must be the same: 1 is cc_net's way, 3 is near C4's and spares short lines
                   that only happen to be the same
    normalise      what counts as the same (normalise.py)
    min_chars      spans whose normal form is shorter are left alone
    min_documents  from how many documents on a span counts as repeated
    scope          all; site: within documents of one host; source: of the same domain and folder; or a column, or a
                   field of one, such as domain or language.code: within equal values

    Signals: units in the document; repeated, how many of them were cut; share of its characters that were cut; cut,
    the pieces as JSON [[offset, text], ...], from which `spans.restore` makes the text as it was; null: nothing cut.
    """

    rewrites: ClassVar[bool] = True

    unit: Unit = "line"
    span: int = 3
    normalise: Form = "words"
    min_chars: int = 12
    min_documents: int = 2
    scope: str = "all"
    name: str = "line_dedup"

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads", ("text", *scope_columns(self.scope)))

    @property
    def signals(self) -> pa.Schema:
        return _SIGNALS

    def rules(self) -> Mapping[str, str]:
        return {"all_repeated": f"NOT ({self.name}.repeated > 0 AND {self.name}.repeated = {self.name}.units)"}

    def check(self) -> None:
        for option, least in (("span", 1), ("min_chars", 0), ("min_documents", 2)):
            if getattr(self, option) < least:
                raise UserError(f"{self.name}: {option} is {getattr(self, option)}; it is {least} at least")
        check_scope(self.name, self.scope)

    def stages(self, corpus: Corpus) -> StagePlan:
        partitions = max(1, -(-corpus.text_bytes // TEXT_PER_PARTITION))
        yield Stage("spans", partial(_ask, self, corpus.seed, partitions), _ASKED, partitions, at="documents")
        yield Stage("first", partial(_first, self.min_documents), _TOLD, corpus.tasks)
        yield Stage("cut", partial(_cut, self), _CUT, at="documents")

    def edit(self, texts: pa.Array, signals: pa.StructArray) -> pa.Array:
        taken = pc.struct_field(signals, "cut").to_pylist()
        if not any(taken):
            return texts
        edited = [
            text if piece is None or text is None else line_spans.cut(text, line_spans.load(piece))
            for text, piece in zip(texts.to_pylist(), taken, strict=True)
        ]
        return pa.array(edited, pa.large_string())


def _found(step: LineDedup, batch: pa.RecordBatch) -> Iterator[tuple[str, list[line_spans.Range], list[Any]]]:
    """Of each document its text, its units and its spans (hash, first unit, last unit)."""
    form = NORMALISE[step.normalise]
    for text, salt in zip(batch.column("text").to_pylist(), salts(batch, step.scope), strict=True):
        text = text or ""
        where = line_spans.units(text, step.unit)
        yield text, where, line_spans.span_hashes(text, where, form, step.span, step.min_chars, salt)


# -- who is first ------------------------------------------------------------------------------------------------------


def _ask(
    step: LineDedup, seed: int, partitions: int, rows: Iterator[pa.RecordBatch], documents: Documents
) -> Iterator[pa.RecordBatch]:
    hashes: list[bytes] = []
    holders: list[tuple[U64, U64, I64]] = []
    for batch in documents.batches(["doc_id", *step.reads]):
        rank, low = keyed(batch.column("doc_id"), seed, "line_dedup"), words(batch.column("doc_id"))[:, 0]
        counts = []
        for _, _, found in _found(step, batch):
            mine = dict.fromkeys(h for h, _, _ in found)  # a document counts once for a span
            hashes.extend(mine)
            counts.append(len(mine))
        address = batch.column("address").to_numpy()
        holders.append((np.repeat(rank, counts), np.repeat(low, counts), np.repeat(address, counts)))
        if len(hashes) >= PENDING_SPANS:
            yield _merged(hashes, holders, partitions)
            hashes, holders = [], []
    if hashes:
        yield _merged(hashes, holders, partitions)


def _merged(hashes: list[bytes], holders: list[tuple[U64, U64, I64]], partitions: int) -> pa.RecordBatch:
    """One row a hash: its first holder among these, and how many there are."""
    column = pa.array(hashes, pa.binary(16))
    rank, low, address = (np.concatenate(parts) for parts in zip(*holders, strict=True))
    order, starts, counts = _groups(words(column), rank, low)
    best = order[starts]
    chosen = column.take(pa.array(best))
    to = (words(chosen)[:, 1] % np.uint64(partitions)).astype(np.uint32)
    arrays = [pa.array(to), chosen, *(pa.array(a[best]) for a in (rank, low, address)), pa.array(counts)]
    return pa.RecordBatch.from_arrays(arrays, schema=_ASKED)


def _groups(hashes: U64, rank: U64, low: U64) -> tuple[I64, I64, I64]:
    """An order by hash and then by holder; where each hash begins in it; how many rows it has.

    The holder's place is (rank, low): `rank` is a bijection of the doc_id's high half for each low one (keyed.py), so
    two documents never tie."""
    order = np.lexsort((low, rank, hashes[:, 1], hashes[:, 0]))
    ordered = hashes[order]
    new = np.ones(len(order), bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    starts = np.flatnonzero(new).astype(np.int64)
    return order, starts, np.diff(np.append(starts, len(order))).astype(np.int64)


def _first(min_documents: int, rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    table = pa.Table.from_batches(rows, _ASKED).combine_chunks()
    if table.num_rows == 0:
        return
    hashes = words(table["hash"])
    address = table["address"].to_numpy()
    order, starts, counts = _groups(hashes, table["rank"].to_numpy(), table["low"].to_numpy())
    holders = np.add.reduceat(table["documents"].to_numpy()[order], starts)
    told = np.flatnonzero(np.repeat(holders >= min_documents, counts))
    span = np.repeat(np.arange(len(starts)), counts)[told]
    # a task that asked in several parts is told once
    pairs = np.unique(np.stack([span, address[order][told] >> 32], axis=1), axis=0)
    first = order[starts[pairs[:, 0]]]
    columns = [
        pa.array(pairs[:, 1].astype(np.uint32)),
        table["hash"].combine_chunks().take(pa.array(first)),
        pa.array(address[first]),
    ]
    yield pa.RecordBatch.from_arrays(columns, schema=_TOLD)


# -- what goes ---------------------------------------------------------------------------------------------------------


class _Repeated:
    """The first holders of the spans that are repeated, as told to one task: 24 bytes each."""

    def __init__(self, rows: Iterator[pa.RecordBatch]) -> None:
        table = pa.Table.from_batches(rows, _TOLD).combine_chunks()
        pair = words(table["hash"])
        order = np.lexsort((pair[:, 1], pair[:, 0]))
        self._key, self._rest = pair[order, 0], pair[order, 1]
        self._first = table["first"].to_numpy()[order]
        same = np.flatnonzero(self._key[1:] == self._key[:-1])
        self._tries = 1 + len(same)  # in practice 1: half a hash tells spans apart

    def first(self, hashes: Sequence[bytes]) -> I64:
        """The address of the first holder of each span; -1 for spans that are not repeated."""
        found = np.full(len(hashes), -1, np.int64)
        if not len(self._key) or not hashes:
            return found
        pair = np.frombuffer(b"".join(hashes), "<u8").reshape(-1, 2)
        start = np.searchsorted(self._key, pair[:, 0])
        for k in range(self._tries):
            at = np.minimum(start + k, len(self._key) - 1)
            hit = (self._key[at] == pair[:, 0]) & (self._rest[at] == pair[:, 1])
            found[hit] = self._first[at[hit]]
        return found


def _cut(step: LineDedup, rows: Iterator[pa.RecordBatch], documents: Documents) -> Iterator[pa.RecordBatch]:
    repeated = _Repeated(rows)
    for batch in documents.batches(step.reads):
        addresses = batch.column("address").to_pylist()
        out: dict[str, list[Any]] = {name: [] for name in _SIGNALS.names}
        for address, (text, where, found) in zip(addresses, _found(step, batch), strict=True):
            gone = [False] * len(where)
            for first, (_, a, b) in zip(repeated.first([h for h, _, _ in found]).tolist(), found, strict=True):
                if first not in (-1, address):
                    gone[a : b + 1] = [True] * (b + 1 - a)
            taken = line_spans.pieces(text, where, gone)
            out["units"].append(len(where))
            out["repeated"].append(sum(gone))
            out["share"].append(sum(len(piece) for _, piece in taken) / len(text) if taken else 0.0)
            out["cut"].append(line_spans.dump(taken) if taken else None)
        columns = [pa.array(out[f.name], f.type) for f in _SIGNALS]
        yield pa.RecordBatch.from_arrays([batch.column("address"), *columns], schema=_CUT)
