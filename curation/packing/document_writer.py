"""The kept documents with their signals as Parquet, for whoever wants documents and not tokens.

In the order of the shards: sorted by the keyed hash of doc_id, a file a prefix of it. So the files are the same however
the run was cut, and the first file is a random sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from curation.packing.external_sort import Spill
from curation.packing.shard_writer import BUCKET_BYTES, bits
from curation.seeded_hash import keyed, prefix
from curation.step import Corpus, Documents, Output, Stage, StagePlan

FILE_BYTES = 256 << 20  # text of one file
ROWS_PER_GROUP = 1024  # as many as Spill hands over at once: a few megabytes of pages


def documents_stages(corpus: Corpus, columns: pa.Schema) -> StagePlan:
    """Writes documents/<index>.parquet with these columns, doc_id among them; outputs: the path and rows of each."""
    own = [pa.field("to", pa.uint32()), pa.field("key", pa.uint64())]
    rest = [f for f in columns if f.name != "doc_id"]
    schema = pa.schema([*own, pa.field("doc_id", pa.binary(16)), *rest])
    depth = bits(corpus.text_bytes, BUCKET_BYTES)
    level = min(depth, bits(corpus.text_bytes, FILE_BYTES))
    width = 1 << (depth - level)
    yield Stage("documents", partial(_deal, corpus.seed, depth, schema), schema, 1 << depth, at="documents")
    groups = [list(range(i * width, (i + 1) * width)) for i in range(1 << level)]
    yield Stage("documents_files", partial(_write, schema, columns, width), pa.schema([]), groups=groups, sink=True)


def _deal(
    seed: int, depth: int, schema: pa.Schema, rows: Iterator[pa.RecordBatch], documents: Documents
) -> Iterator[pa.RecordBatch]:
    for batch in documents.batches(schema.names[2:]):
        key = keyed(batch.column("doc_id"), seed, "order")
        columns = [pa.array(prefix(key, depth)), pa.array(key)]
        yield pa.RecordBatch.from_arrays([*columns, *(batch.column(n) for n in schema.names[2:])], schema=schema)


def _write(
    schema: pa.Schema, columns: pa.Schema, width: int, rows: Iterator[pa.RecordBatch], out: Output
) -> Iterator[pa.RecordBatch]:
    spill = Spill(schema, out.scratch())
    index = None
    for batch in rows:
        if batch.num_rows:
            index = batch.column("to")[0].as_py() // width
            spill.add(batch)
    if index is None:
        return iter(())
    path, count = f"documents/{index:05d}.parquet", 0
    with out.create(path) as f, pq.ParquetWriter(f, columns, compression="zstd") as writer:
        for bucket in spill.buckets():
            for batch in bucket:
                chosen = pa.Table.from_batches([batch]).select(columns.names).cast(columns)
                writer.write_table(chosen, row_group_size=ROWS_PER_GROUP)
                count += batch.num_rows
    out.outputs.update(path=path, documents=count)
    return iter(())
