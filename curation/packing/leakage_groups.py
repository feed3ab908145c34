"""Documents that the split must not part: the same text, the same address, or duplicates that the rules let stay.

    linked    two documents with a key in common: the text, the URL as curation/canonical_url.py compares it (a page crawled
              again), the document that a deduplication step names as the one kept (itself or as `of`)
    related   linked, or both related to a third
    number    of related texts: the number of one of them, the first in the order of another hash, so that a document
              that is alone keeps its own, and none of them is likelier to be held out for having relatives

Most documents are related to nobody, above all behind deduplication, so partitions by key let only those pass that
share one (with another text, or with the same text in another task), and one task joins these: 130 bytes for each text
and task that has it (measured on 4 million), so 10^7 of them in 1.3 GB.

Relations chain: pages that were "not found" once and have texts of their own besides are one family. A family of more
texts than validation is meant to have documents stays in training whole.

    links     documents   the keys of each document                                          24 bytes a key
    shared    partition   keys that several have
    related   one task    families; the number of each member, to the tasks that have it
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from curation.canonical_url import canonicalize_url
from curation.seeded_hash import U64, keyed, mix
from curation.step import Corpus, Documents, Stage, StagePlan

KEYS_PER_PARTITION = 1 << 21
TRAINS = 2**64 - 1  # the number of what is never held out

_KEYS = pa.schema([("to", pa.uint32()), ("key", pa.uint64()), ("text", pa.uint64()), ("task", pa.uint32())])
_SHARED = pa.schema([("to", pa.uint32()), ("first", pa.uint64()), ("text", pa.uint64()), ("task", pa.uint32())])
RELATED = pa.schema([("to", pa.uint32()), ("text", pa.uint64()), ("number", pa.uint64())])


def related_stages(corpus: Corpus, most: int, clusters: Sequence[str]) -> StagePlan:
    """Stages that end with rows of RELATED at the tasks of documents, or earlier where no two texts are related.

    most       texts of a family that may be held out
    clusters   deduplication steps, whose signals `of` and `copies` name the document that was kept
    """
    partitions = max(1, -(-corpus.documents // KEYS_PER_PARTITION))
    run = partial(_links, corpus.seed, list(clusters), partitions)
    yield Stage("links", run, _KEYS, partitions, at="documents")
    found = yield Stage("shared", _shared, _SHARED, 1, counters=_count)
    if found.counters.get("shared"):
        yield Stage("related", partial(_related, most), RELATED, corpus.tasks)


def text_numbers(texts: pa.Array, seed: int) -> U64:
    """A number for each text, the same for equal texts: keyed hash of its xxh3-128."""
    hashes = [xxhash.xxh3_128_digest((t or "").encode()) for t in texts.to_pylist()]
    return keyed(pa.array(hashes, pa.binary(16)), seed, "split")


def _count(batch: pa.RecordBatch) -> Mapping[str, int]:
    return {"shared": batch.num_rows}


def _links(
    seed: int, clusters: Sequence[str], partitions: int, rows: Iterator[pa.RecordBatch], documents: Documents
) -> Iterator[pa.RecordBatch]:
    for batch in documents.batches(["doc_id", "url", "text", *clusters]):
        text = text_numbers(batch.column("text"), seed)
        keys, who = text.tolist(), list(range(len(text)))
        for row, url in enumerate(batch.column("url").to_pylist()):
            if url and url.strip():
                keys.append(xxhash.xxh3_64_intdigest(canonicalize_url(url).encode(), seed=1))
                who.append(row)
        ids = batch.column("doc_id").to_pylist()
        for name in clusters:
            signals = batch.column(name)
            of = pc.struct_field(signals, "of").to_pylist()
            copies = pc.struct_field(signals, "copies").to_pylist()
            for row, (kept, stands_for) in enumerate(zip(of, copies, strict=True)):
                if kept is not None or (stands_for or 0) > 1:
                    keys.append(xxhash.xxh3_64_intdigest(bytes.fromhex(kept) if kept is not None else ids[row], seed=2))
                    who.append(row)
        key = np.array(keys, np.uint64)
        columns = [(key % np.uint64(partitions)).astype(np.uint32), key, text[np.array(who, np.int64)]]
        task = np.full(len(key), documents.task, np.uint32)
        yield pa.RecordBatch.from_arrays([*map(pa.array, columns), pa.array(task)], schema=_KEYS)


def _shared(rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    table = pa.Table.from_batches(rows, _KEYS)
    key, text, task = (table[n].to_numpy() for n in ("key", "text", "task"))
    order = np.lexsort((task, text, key))
    key, text, task = key[order], text[order], task[order]
    begins = np.flatnonzero(np.diff(key, prepend=~key[:1]))
    ends = np.append(begins[1:], len(key))
    several = (text[begins] != text[ends - 1]) | (task[begins] != task[ends - 1])  # they are sorted
    first = np.repeat(text[begins], ends - begins)
    passes = np.repeat(several, ends - begins)
    passes[1:] &= (key[1:] != key[:-1]) | (text[1:] != text[:-1]) | (task[1:] != task[:-1])
    columns = [np.zeros(np.count_nonzero(passes), np.uint32), first[passes], text[passes], task[passes]]
    yield pa.RecordBatch.from_arrays(list(map(pa.array, columns)), schema=_SHARED)


def _related(most: int, rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    table = pa.Table.from_batches(rows, _SHARED)
    first, text, task = (table[n].to_numpy() for n in ("first", "text", "task"))
    texts, at = np.unique(text, return_inverse=True)
    pairs = coo_array((np.ones(len(at), np.int8), (np.searchsorted(texts, first), at)), shape=(len(texts), len(texts)))
    count, family = connected_components(pairs, directed=False)
    order = np.lexsort((mix(texts), family))
    leads = order[np.flatnonzero(np.diff(family[order], prepend=-1))]
    number, size = texts[leads], np.bincount(family, minlength=count)
    number[size > most] = TRAINS
    pair = np.unique(np.stack([task.astype(np.int64), at]), axis=1)
    pair = pair[:, size[family[pair[1]]] > 1]
    columns = [pair[0].astype(np.uint32), texts[pair[1]], number[family[pair[1]]]]
    yield pa.RecordBatch.from_arrays(list(map(pa.array, columns)), schema=RELATED)
