"""Counts the text bytes and tokens of each document of a run: exactly where they are stored, else estimated.

Kept documents have their text in the cache (or in documents/) and their tokens in the shards: exact. A dropped
document has its text in the cache if it was extracted (retention `all`), but was never tokenized: its tokens are
estimated from its bytes and the tokens per byte of its domain. If its text is not stored either, its bytes are
estimated from the size of its page and the text per page byte of its domain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.checked_parquet import CheckedFile
from curation.engine.manifests import phase_records
from curation.engine.results.publish import RESULT, newest_tree
from curation.storage import Storage

BYTES_PER_TOKEN = 4.0  # without a tokenizer: English text has 4 to 4.5 with vocabularies of 32,000 and more
TEXT_PER_PAGE = 0.25  # text bytes per page byte where no page of the run has a stored text


@dataclass
class DocumentSizes:
    """Text bytes and tokens of each row of the ledger (floats, since some are estimates)."""

    bytes: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.float64]
    method: str  # how they were counted, in words

    def total(self, rows: npt.NDArray[np.int64]) -> dict[str, float]:
        """Sums over some rows of the ledger, rounded."""
        return {
            "documents": len(rows),
            "bytes": round(float(self.bytes[rows].sum())),
            "tokens": round(float(self.tokens[rows].sum())),
        }


def measure_documents(
    store: Storage, run: Mapping[str, Any], base: pa.Table, kept: npt.NDArray[np.bool_]
) -> DocumentSizes:
    """Sizes of rows of the ledger. `base` has doc_id, domain and read; `kept`: which rows were kept."""
    ids = _ids(base.column("doc_id"))
    order = np.argsort(ids)
    known = np.full(len(ids), np.nan)
    for found, values in _text_bytes(store, run):
        rows, hit = _rows(ids, order, found)
        known[rows[hit]] = values[hit]
    domains = np.array([d or "" for d in base.column("domain").to_pylist()], dtype=object)
    payload = pc.struct_field(base.column("read").combine_chunks(), "bytes").cast(pa.float64())
    pages = np.nan_to_num(_flat(payload))
    text = known.copy()
    unknown = np.isnan(known)
    tokens = np.full(len(ids), np.nan)
    for found, values in _shard_tokens(store):
        rows, hit = _rows(ids, order, found)
        tokens[rows[hit]] = values[hit]
    rate = {}
    for domain in sorted(set(domains.tolist())):
        mine = domains == domain
        both = mine & ~unknown & (pages > 0)
        share = float(text[both].sum() / pages[both].sum()) if both.any() else TEXT_PER_PAGE
        text[mine & unknown] = pages[mine & unknown] * share
        counted = mine & ~np.isnan(tokens) & ~unknown
        total = float(text[counted].sum())
        rate[domain] = float(tokens[counted].sum()) / total if total else 0.0
    everywhere = ~np.isnan(tokens) & ~unknown
    if everywhere.any():
        overall = float(tokens[everywhere].sum() / text[everywhere].sum())
        method = "exact for kept documents; for others estimated from the tokens per byte of their domain"
        for domain, r in rate.items():
            missing = (domains == domain) & np.isnan(tokens)
            tokens[missing] = text[missing] * (r or overall)
    else:
        method = f"estimated at {BYTES_PER_TOKEN:g} bytes per token: this run has no tokenizer"
        tokens = text / BYTES_PER_TOKEN
    if unknown[kept].any():
        method += "; the text of some kept documents is not stored, so their bytes are estimated"
    return DocumentSizes(text, tokens, method)


def _flat(array: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.float64]:
    values: npt.NDArray[np.float64] = array.to_numpy(zero_copy_only=False)
    return values.astype(np.float64)


def _ids(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.bytes_]:
    """Document ids as numpy's fixed-size bytes; each with an `x` appended, since numpy drops trailing NULs."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    out = np.full((len(column), 17), ord("x"), np.uint8)
    at = 0
    for chunk in chunks:
        raw = np.frombuffer(chunk.buffers()[1], np.uint8).reshape(-1, 16)
        out[at : at + len(chunk), :16] = raw[chunk.offset : chunk.offset + len(chunk)]
        at += len(chunk)
    return out.view("S17").ravel()


def _rows(
    ids: npt.NDArray[np.bytes_], order: npt.NDArray[np.int64], wanted: npt.NDArray[np.bytes_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The row of each wanted id, and whether there is one."""
    if not len(ids):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    at = np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)
    rows = order[at]
    return rows, ids[rows] == wanted


def _text_bytes(
    store: Storage, run: Mapping[str, Any]
) -> Iterator[tuple[npt.NDArray[np.bytes_], npt.NDArray[np.float64]]]:
    """(ids, bytes of text): from the cache, or from documents/ if the cache is gone."""
    last = [p["phase"] for p in run.get("phases", [])][-1:]
    found = False
    for path in phase_records.paths(store):
        record = phase_records.read(store, path)
        if [record.name] != last:
            continue
        for task in record.tasks.values():
            state = task["state"]
            base = _read(store, state["base"], ["row", "doc_id"])
            text = _read(store, state["text"], ["row", "bytes"])
            if base is None or text is None:
                continue
            found = True
            order = np.argsort(np.asarray(base.column("row")))
            rows = np.asarray(base.column("row"))[order]
            at = np.searchsorted(rows, np.asarray(text.column("row")))
            yield _ids(base.column("doc_id").take(pa.array(order[at]))), _flat(text.column("bytes"))
    if not found and newest_tree(store) == RESULT:
        for name in store.names("result/documents"):
            with CheckedFile(store, f"result/documents/{name}") as f:
                for batch in pq.ParquetFile(f).iter_batches(8192, columns=["doc_id", "text"], use_threads=False):
                    yield _ids(batch.column("doc_id")), _flat(pc.binary_length(batch.column("text")))


def _read(store: Storage, files: list[str], columns: list[str]) -> pa.Table | None:
    tables = []
    for path in files:
        with CheckedFile(store, path) as f:
            tables.append(pq.read_table(f, columns=columns, use_threads=False))
    return pa.concat_tables(tables) if tables else None


def _shard_tokens(store: Storage) -> Iterator[tuple[npt.NDArray[np.bytes_], npt.NDArray[np.float64]]]:
    """(ids, tokens including the EOS that starts the document) of every shard."""
    from curation import shards

    # the shards of an earlier result say nothing of the documents of a run that stopped
    if newest_tree(store) != RESULT or not store.exists("result/shards/manifest.json"):
        return
    manifest = shards.read_manifest(store.root)
    for _, _, entry in manifest.entries():
        shard = shards.open_shard(manifest.path(entry))
        lengths = np.diff(np.asarray(shard.offsets))
        yield _ids(shard.documents.column("doc_id")), lengths.astype(np.float64)
