"""Writes the kept documents with their signals as Parquet files, for uses other than token shards.

Documents are in the order of the shards: sorted by the keyed hash of doc_id, in 2^k files by the first k bits of it. So
the files do not depend on how the run was split into tasks, and the first file is a random sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pyarrow as pa

from curation import checked_parquet
from curation.packing.external_sort import ExternalSorter
from curation.packing.shard_writer import BUCKET_BYTES, hash_prefix_bits
from curation.seeded_hash import hash_with_seed, prefix
from curation.step import Corpus, Documents, Output, Stage, StagePlan

FILE_BYTES = 256 << 20  # text of one file
ROWS_PER_GROUP = 1024  # as many as ExternalSorter yields at once: a few megabytes of pages


def document_stages(corpus: Corpus, columns: pa.Schema) -> StagePlan:
    """Stages that write documents/<index>.parquet with these columns, doc_id among them; outputs: path and rows."""
    sort_columns = [pa.field("to", pa.uint32()), pa.field("key", pa.uint64())]
    rest = [f for f in columns if f.name != "doc_id"]
    schema = pa.schema([*sort_columns, pa.field("doc_id", pa.binary(16)), *rest])
    bucket_bits = hash_prefix_bits(corpus.text_bytes, BUCKET_BYTES)
    file_bits = min(bucket_bits, hash_prefix_bits(corpus.text_bytes, FILE_BYTES))
    buckets_per_file = 1 << (bucket_bits - file_bits)
    run = partial(_partition_documents, corpus.seed, bucket_bits, schema)
    yield Stage("documents", run, schema, 1 << bucket_bits, at="documents")
    groups = [list(range(i * buckets_per_file, (i + 1) * buckets_per_file)) for i in range(1 << file_bits)]
    write = partial(_write_file, schema, columns, buckets_per_file)
    yield Stage("document_files", write, pa.schema([]), groups=groups, sink=True)


def _partition_documents(
    seed: int, bucket_bits: int, schema: pa.Schema, rows: Iterator[pa.RecordBatch], documents: Documents
) -> Iterator[pa.RecordBatch]:
    for batch in documents.batches(schema.names[2:]):
        key = hash_with_seed(batch.column("doc_id"), seed, "order")
        columns = [pa.array(prefix(key, bucket_bits)), pa.array(key)]
        yield pa.RecordBatch.from_arrays([*columns, *(batch.column(n) for n in schema.names[2:])], schema=schema)


def _write_file(
    schema: pa.Schema, columns: pa.Schema, buckets_per_file: int, rows: Iterator[pa.RecordBatch], out: Output
) -> Iterator[pa.RecordBatch]:
    sorter = ExternalSorter(schema, out.scratch())
    index = None
    for batch in rows:
        if batch.num_rows:
            index = batch.column("to")[0].as_py() // buckets_per_file
            sorter.add(batch)
    if index is None:
        return iter(())
    path, count = f"documents/{index:05d}.parquet", 0
    with out.create(path) as f, checked_parquet.Writer(f, columns, compression="zstd") as writer:
        for bucket in sorter.sorted_buckets():
            for batch in bucket:
                selected = pa.Table.from_batches([batch]).select(columns.names).cast(columns)
                writer.write_table(selected, row_group_size=ROWS_PER_GROUP)
                count += batch.num_rows
    out.outputs.update(path=path, documents=count)
    return iter(())
