"""Removes lines or paragraphs that several documents share, such as menus and footers, from all but one of them.

Documents are ordered by a keyed hash of their doc_ids. A unit (or a span of consecutive units) is kept in the first
document that has it, and cut from all others. So the result does not depend on tasks, one page of a site keeps its
whole boilerplate, and everything that is cut remains in an earlier document (C4: Raffel et al. 2020, section 2.2, by
spans of three sentences; cc_net: Wenzek et al. 2020, section 3.1, by paragraphs). Repetition within a document is not
touched: that is for `heuristics`.

Three stages, each with one task or one partition in memory:

    spans    documents   the first owner of each span in this task, to the partition of its hash   52 bytes a span
    owners   partition   the first owner of all, to the tasks that have the span                   28 bytes a span
    cut      documents   what to cut from each text

A task sends each span once, however many of its documents have it, so no partition grows with a line that is in every
document. The text is cut where it is next needed (`edit`); the signal `cut` has the pieces that were removed.
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
from curation.dedup.scope import check_scope, scope_expression, scope_salts
from curation.dedup.text_normalization import NORMALIZERS, NormalForm
from curation.seeded_hash import hash_with_seed, words
from curation.step import Corpus, Documents, GlobalStep, Stage, StagePlan

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

# Bytes of text per partition. Lines of web pages are 40 to 80 bytes long, so a partition gets at most a million spans
# of 52 bytes, less those that tasks have merged.
TEXT_PER_PARTITION = 64 << 20
PENDING_SPANS = 1 << 18  # collected in a task before those of one hash are merged: 12 MB

_SPANS = pa.schema(
    [
        ("to", pa.uint32()),
        ("hash", pa.binary(16)),
        ("rank", pa.uint64()),  # of the owner: its place in the order of documents, with `low` to break ties
        ("low", pa.uint64()),
        ("address", pa.int64()),
        ("documents", pa.int64()),
    ]
)
_OWNERS = pa.schema([("to", pa.uint32()), ("hash", pa.binary(16)), ("owner", pa.int64())])
_SIGNALS = pa.schema([("units", pa.int64()), ("repeated", pa.int64()), ("share", pa.float64()), ("cut", pa.string())])
_CUT = pa.schema([("address", pa.int64()), *_SIGNALS])


@dataclass(frozen=True)
class LineDedup(GlobalStep):
    """Cuts from each document the lines or paragraphs that an earlier document has.

    unit           line, or paragraph: lines between blank ones
    span           how many consecutive units must be equal: 1 as in cc_net; 3, close to C4, spares short lines that are
                   equal by chance
    normalise      what counts as equal: none, whitespace, words or template (see text_normalization.py)
    min_chars      spans with a shorter normalized form are never cut
    min_documents  the number of documents from which a span counts as repeated
    scope          which documents share lines: all; site, those of one host; source, of the same domain and source
                   folder; language, of the same language.code; or SQL such as domain: those of equal value (scope.py)

    Signals: units, the number of units in the document; repeated, how many of them were cut; share, of its characters
    that were cut; cut, the pieces as JSON [[offset, text], ...], from which `line_spans.restore` rebuilds the original
    text; null if nothing was cut.
    """

    rewrites: ClassVar[bool] = True

    unit: Unit = "line"
    span: int = 3
    normalise: NormalForm = "words"
    min_chars: int = 12
    min_documents: int = 2
    scope: str = "all"
    name: str = "line_dedup"

    @property
    def signals(self) -> pa.Schema:
        return _SIGNALS

    def rules(self) -> Mapping[str, str]:
        return {"all_repeated": f"NOT ({self.name}.repeated > 0 AND {self.name}.repeated = {self.name}.units)"}

    def expressions(self) -> Mapping[str, str]:
        return scope_expression(self.scope)

    def check(self) -> None:
        for option, least in (("span", 1), ("min_chars", 0), ("min_documents", 2)):
            if getattr(self, option) < least:
                raise UserError(f"{self.name}: {option} is {getattr(self, option)}; give at least {least}")
        check_scope(self.name, self.scope)

    def stages(self, corpus: Corpus) -> StagePlan:
        partitions = max(1, -(-corpus.text_bytes // TEXT_PER_PARTITION))
        yield Stage("spans", partial(_find_spans, self, corpus.seed, partitions), _SPANS, partitions, at="documents")
        yield Stage("owners", partial(_resolve_owners, self.min_documents), _OWNERS, corpus.tasks)
        yield Stage("cut", partial(_cut, self), _CUT, at="documents")

    def edit(self, texts: pa.Array, signals: pa.StructArray) -> pa.Array:
        removed = pc.struct_field(signals, "cut").to_pylist()
        if not any(removed):
            return texts
        edited = [
            text if piece is None or text is None else line_spans.cut(text, line_spans.load(piece))
            for text, piece in zip(texts.to_pylist(), removed, strict=True)
        ]
        return pa.array(edited, pa.large_string())


def _document_spans(step: LineDedup, batch: pa.RecordBatch) -> Iterator[tuple[str, list[line_spans.Range], list[Any]]]:
    """Yields of each document its text, its units and its spans (hash, first unit, last unit)."""
    form = NORMALIZERS[step.normalise]
    salts = scope_salts(batch)
    salt_bytes = [b""] * batch.num_rows if salts is None else [s.tobytes() for s in salts]
    for text, salt in zip(batch.column("text").to_pylist(), salt_bytes, strict=True):
        text = text or ""
        where = line_spans.units(text, step.unit)
        yield text, where, line_spans.span_hashes(text, where, form, step.span, step.min_chars, salt)


# -- owners of spans ---------------------------------------------------------------------------------------------------


def _find_spans(
    step: LineDedup, seed: int, partitions: int, rows: Iterator[pa.RecordBatch], documents: Documents
) -> Iterator[pa.RecordBatch]:
    hashes: list[bytes] = []
    owners: list[tuple[U64, U64, I64]] = []
    for batch in documents.batches(["doc_id", "text", *step.expressions()]):
        rank, low = hash_with_seed(batch.column("doc_id"), seed, "line_dedup"), words(batch.column("doc_id"))[:, 0]
        counts = []
        for _, _, found in _document_spans(step, batch):
            mine = dict.fromkeys(h for h, _, _ in found)  # a document counts once for a span
            hashes.extend(mine)
            counts.append(len(mine))
        address = batch.column("address").to_numpy()
        owners.append((np.repeat(rank, counts), np.repeat(low, counts), np.repeat(address, counts)))
        if len(hashes) >= PENDING_SPANS:
            yield _merge_spans(hashes, owners, partitions)
            hashes, owners = [], []
    if hashes:
        yield _merge_spans(hashes, owners, partitions)


def _merge_spans(hashes: list[bytes], owners: list[tuple[U64, U64, I64]], partitions: int) -> pa.RecordBatch:
    """One row per hash: the first of these owners, and their number."""
    column = pa.array(hashes, pa.binary(16))
    rank, low, address = (np.concatenate(parts) for parts in zip(*owners, strict=True))
    order, starts, counts = _group_by_hash(words(column), rank, low)
    first = order[starts]
    chosen = column.take(pa.array(first))
    to = (words(chosen)[:, 1] % np.uint64(partitions)).astype(np.uint32)
    arrays = [pa.array(to), chosen, *(pa.array(a[first]) for a in (rank, low, address)), pa.array(counts)]
    return pa.RecordBatch.from_arrays(arrays, schema=_SPANS)


def _group_by_hash(hashes: U64, rank: U64, low: U64) -> tuple[I64, I64, I64]:
    """The order of rows by hash and then by owner; the start of each hash in it; its number of rows.

    Owners are ordered by (rank, low): for each low half of a doc_id, `rank` is a bijection of the high half
    (seeded_hash.py), so two documents never tie."""
    order = np.lexsort((low, rank, hashes[:, 1], hashes[:, 0]))
    ordered = hashes[order]
    new = np.ones(len(order), bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    starts = np.flatnonzero(new).astype(np.int64)
    return order, starts, np.diff(np.append(starts, len(order))).astype(np.int64)


def _resolve_owners(min_documents: int, rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    table = pa.Table.from_batches(rows, _SPANS).combine_chunks()
    if table.num_rows == 0:
        return
    hashes = words(table["hash"])
    address = table["address"].to_numpy()
    order, starts, counts = _group_by_hash(hashes, table["rank"].to_numpy(), table["low"].to_numpy())
    documents = np.add.reduceat(table["documents"].to_numpy()[order], starts)
    selected = np.flatnonzero(np.repeat(documents >= min_documents, counts))
    span = np.repeat(np.arange(len(starts)), counts)[selected]
    # a task that sent a span several times gets one answer
    pairs = np.unique(np.stack([span, address[order][selected] >> 32], axis=1), axis=0)
    first = order[starts[pairs[:, 0]]]
    columns = [
        pa.array(pairs[:, 1].astype(np.uint32)),
        table["hash"].combine_chunks().take(pa.array(first)),
        pa.array(address[first]),
    ]
    yield pa.RecordBatch.from_arrays(columns, schema=_OWNERS)


# -- cutting -----------------------------------------------------------------------------------------------------------


class _RepeatedSpans:
    """The first owners of the repeated spans of one task: 24 bytes each."""

    def __init__(self, rows: Iterator[pa.RecordBatch]) -> None:
        table = pa.Table.from_batches(rows, _OWNERS).combine_chunks()
        pair = words(table["hash"])
        order = np.lexsort((pair[:, 1], pair[:, 0]))
        self._high, self._low = pair[order, 0], pair[order, 1]
        self._owner = table["owner"].to_numpy()[order]
        same = np.flatnonzero(self._high[1:] == self._high[:-1])
        self._tries = 1 + len(same)  # in practice 1: two spans seldom share half a hash

    def owner(self, hashes: Sequence[bytes]) -> I64:
        """The address of the first owner of each span: int64 [n], -1 for spans that are not repeated."""
        found = np.full(len(hashes), -1, np.int64)
        if not len(self._high) or not hashes:
            return found
        pair = np.frombuffer(b"".join(hashes), "<u8").reshape(-1, 2)
        start = np.searchsorted(self._high, pair[:, 0])
        for k in range(self._tries):
            at = np.minimum(start + k, len(self._high) - 1)
            hit = (self._high[at] == pair[:, 0]) & (self._low[at] == pair[:, 1])
            found[hit] = self._owner[at[hit]]
        return found


def _cut(step: LineDedup, rows: Iterator[pa.RecordBatch], documents: Documents) -> Iterator[pa.RecordBatch]:
    repeated = _RepeatedSpans(rows)
    for batch in documents.batches(["text", *step.expressions()]):
        addresses = batch.column("address").to_pylist()
        out: dict[str, list[Any]] = {name: [] for name in _SIGNALS.names}
        for address, (text, where, found) in zip(addresses, _document_spans(step, batch), strict=True):
            removed = [False] * len(where)
            for owner, (_, a, b) in zip(repeated.owner([h for h, _, _ in found]).tolist(), found, strict=True):
                if owner not in (-1, address):
                    removed[a : b + 1] = [True] * (b + 1 - a)
            pieces = line_spans.pieces_to_cut(text, where, removed)
            out["units"].append(len(where))
            out["repeated"].append(sum(removed))
            out["share"].append(sum(len(piece) for _, piece in pieces) / len(text) if pieces else 0.0)
            out["cut"].append(line_spans.dump(pieces) if pieces else None)
        columns = [pa.array(out[f.name], f.type) for f in _SIGNALS]
        yield pa.RecordBatch.from_arrays([batch.column("address"), *columns], schema=_CUT)
