"""Groups documents that must be on one side of the train/validation split: same text, same URL, or kept duplicates.

    keys         a document's text, its URL in canonical form (a page crawled twice), and the document that a
                 deduplication step kept for it (itself or `of`)
    group        the texts that are connected by shared keys, directly or through others (connected components)
    split hash   of a group: that of one of its texts, the first in the order of another hash. So a text without a
                 group keeps its own, and texts in groups are held out as often as others

Most documents share no key, especially after deduplication. So a stage partitioned by key passes on only keys that
several texts (or several tasks) have, and one task joins these: 130 bytes for each text and task that has it (measured
on 4 million), so 10^7 of them take 1.3 GB.

Connections chain: pages that were once crawled as "not found" form one group with all their other texts. A group with
more texts than validation should have documents stays in training as a whole.

    leakage_keys     documents   the keys of each document                                   24 bytes a key
    shared_keys      partition   keys of several texts or tasks
    leakage_groups   one task    groups; the split hash of each member, to the tasks that have it
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from curation.canonical_url import canonicalize_url
from curation.document import text_hashes
from curation.seeded_hash import U64, hash_with_seed, mix64
from curation.step import Corpus, Documents, Stage, StagePlan

KEYS_PER_PARTITION = 1 << 21
NEVER_HELD_OUT = 2**64 - 1  # the split hash of texts that stay in training

_KEYS = pa.schema([("to", pa.uint32()), ("key", pa.uint64()), ("text", pa.uint64()), ("task", pa.uint32())])
_SHARED = pa.schema([("to", pa.uint32()), ("first", pa.uint64()), ("text", pa.uint64()), ("task", pa.uint32())])
LEAKAGE_GROUPS = pa.schema([("to", pa.uint32()), ("text", pa.uint64()), ("split_hash", pa.uint64())])


def leakage_group_stages(corpus: Corpus, max_texts: int, clusters: Sequence[str]) -> StagePlan:
    """Stages that send rows of LEAKAGE_GROUPS to the tasks of documents; the last is skipped if no key is shared.

    max_texts  most texts of a group that may be held out
    clusters   deduplication steps, whose signals `of` and `copies` name the document that was kept
    """
    partitions = max(1, -(-corpus.documents // KEYS_PER_PARTITION))
    run = partial(_document_keys, corpus.seed, list(clusters), partitions)
    yield Stage("leakage_keys", run, _KEYS, partitions, at="documents")
    found = yield Stage("shared_keys", _shared_keys, _SHARED, 1, counters=_count)
    if found.counters.get("shared"):
        yield Stage("leakage_groups", partial(_connect_groups, max_texts), LEAKAGE_GROUPS, corpus.tasks)


def split_hashes(texts: pa.Array, seed: int) -> U64:
    """The split hash of each text: the keyed hash of its xxh3-128, so equal texts have equal ones. uint64 [n]."""
    return keyed_split_hashes(text_hashes(texts), seed)


def keyed_split_hashes(text_hashes: pa.Array, seed: int) -> U64:
    """The split hashes of texts with these hashes (`text_hash`; null: no text). uint64 [n]."""
    none = pa.scalar(xxhash.xxh3_128_digest(b""), pa.binary(16))
    return hash_with_seed(text_hashes.fill_null(none) if text_hashes.null_count else text_hashes, seed, "split")


def _count(batch: pa.RecordBatch) -> Mapping[str, int]:
    return {"shared": batch.num_rows}


def _document_keys(
    seed: int, clusters: Sequence[str], partitions: int, rows: Iterator[pa.RecordBatch], documents: Documents
) -> Iterator[pa.RecordBatch]:
    for batch in documents.batches(["doc_id", "url", "text_hash", *clusters]):
        text = keyed_split_hashes(batch.column("text_hash"), seed)
        keys, key_rows = text.tolist(), list(range(len(text)))
        for row, url in enumerate(batch.column("url").to_pylist()):
            if url and url.strip():
                keys.append(xxhash.xxh3_64_intdigest(canonicalize_url(url).encode(), seed=1))
                key_rows.append(row)
        ids = batch.column("doc_id").to_pylist()
        for name in clusters:
            signals = batch.column(name)
            of = pc.struct_field(signals, "of").to_pylist()
            copies = pc.struct_field(signals, "copies").to_pylist()
            for row, (kept, stands_for) in enumerate(zip(of, copies, strict=True)):
                if kept is not None or (stands_for or 0) > 1:
                    keys.append(xxhash.xxh3_64_intdigest(bytes.fromhex(kept) if kept is not None else ids[row], seed=2))
                    key_rows.append(row)
        key = np.array(keys, np.uint64)
        columns = [(key % np.uint64(partitions)).astype(np.uint32), key, text[np.array(key_rows, np.int64)]]
        task = np.full(len(key), documents.task, np.uint32)
        yield pa.RecordBatch.from_arrays([*map(pa.array, columns), pa.array(task)], schema=_KEYS)


def _shared_keys(rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    table = pa.Table.from_batches(rows, _KEYS)
    key, text, task = (table[n].to_numpy() for n in ("key", "text", "task"))
    order = np.lexsort((task, text, key))
    key, text, task = key[order], text[order], task[order]
    starts = np.flatnonzero(np.diff(key, prepend=~key[:1]))
    ends = np.append(starts[1:], len(key))
    shared = (text[starts] != text[ends - 1]) | (task[starts] != task[ends - 1])  # sorted, so first and last differ
    first = np.repeat(text[starts], ends - starts)
    selected = np.repeat(shared, ends - starts)
    selected[1:] &= (key[1:] != key[:-1]) | (text[1:] != text[:-1]) | (task[1:] != task[:-1])
    columns = [np.zeros(np.count_nonzero(selected), np.uint32), first[selected], text[selected], task[selected]]
    yield pa.RecordBatch.from_arrays(list(map(pa.array, columns)), schema=_SHARED)


def _connect_groups(max_texts: int, rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    table = pa.Table.from_batches(rows, _SHARED)
    first, text, task = (table[n].to_numpy() for n in ("first", "text", "task"))
    texts, at = np.unique(text, return_inverse=True)
    links = coo_array((np.ones(len(at), np.int8), (np.searchsorted(texts, first), at)), shape=(len(texts), len(texts)))
    count, group = connected_components(links, directed=False)
    order = np.lexsort((mix64(texts), group))
    leads = order[np.flatnonzero(np.diff(group[order], prepend=-1))]
    split_hash, size = texts[leads], np.bincount(group, minlength=count)
    split_hash[size > max_texts] = NEVER_HELD_OUT
    task_texts = np.unique(np.stack([task.astype(np.int64), at]), axis=1)
    task_texts = task_texts[:, size[group[task_texts[1]]] > 1]
    columns = [task_texts[0].astype(np.uint32), texts[task_texts[1]], split_hash[group[task_texts[1]]]]
    yield pa.RecordBatch.from_arrays(list(map(pa.array, columns)), schema=LEAKAGE_GROUPS)
