"""Opens a shard as views over the mapped file; each kind of damage has its own error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from curation.shards.file_access import map_file, size_error
from curation.shards.layout import FORMAT, ShardFormat, ShardTokenizer, ShardTruncated, ShardVersion, schema
from curation.shards.manifest import ShardEntry

_HEAD, _TAIL = b"ARROW1\0\0", b"ARROW1"


@dataclass(frozen=True)
class Shard:
    """An open shard: views over the mapped file, no copies.

    tokens     uint16 or uint32 [n], the whole stream, which starts at byte `start` of the file
    offsets    int64 [documents + 1]: document i is `tokens[offsets[i]:offsets[i + 1]]`, its EOS first
    documents  table of doc_id, url, source
    """

    path: str
    tokens: np.ndarray[Any, Any]
    offsets: np.ndarray[Any, np.dtype[np.int64]]
    documents: pa.Table
    metadata: dict[str, str]
    start: int

    @property
    def eos(self) -> int:
        return int(self.metadata["eos"])

    @property
    def vocab_size(self) -> int:
        return int(self.metadata["vocab_size"])


def open_shard(path: str, *, entry: ShardEntry | None = None, tokenizer: str | None = None) -> Shard:
    """Maps a local shard, or fetches a remote one as a whole.

    With `entry`, size and counts must be those of the manifest; with `tokenizer` (a sha256), the tokens must be of that
    tokenizer. Raises ShardMissing, ShardTruncated, ShardFormat, ShardVersion or ShardTokenizer. Checksums are left to
    `verify_entry`, since they take a read of the whole file.
    """
    data = map_file(path)
    if entry is not None and data.size != entry.bytes:
        raise size_error(path, data.size, entry.bytes)
    head, tail = bytes(data.slice(0, min(8, data.size))), bytes(data.slice(max(0, data.size - 6)))
    if not head.startswith(_HEAD[:6]):
        raise ShardFormat(f"{path}: not an Arrow file (it starts with {head!r}), so not a Gristmill shard")
    if tail != _TAIL:
        raise ShardTruncated(
            f"{path}: truncated: no Arrow footer at byte {data.size}; copy it again or rerun the curation"
        )
    try:
        reader = pa.ipc.open_file(pa.BufferReader(data))
        metadata = {k.decode(): v.decode() for k, v in (reader.schema.metadata or {}).items()}
        version = metadata.get("gristmill.format")
        if version is None:
            raise ShardFormat(f"{path}: an Arrow file that Gristmill did not write (no gristmill.format in it)")
        if version != str(FORMAT):
            raise ShardVersion(f"{path}: shard format {version}; this version of Gristmill reads format {FORMAT}")
        if reader.num_record_batches != 1:
            raise ShardFormat(f"{path}: {reader.num_record_batches} record batches; a shard has one")
        batch = reader.get_batch(0)
    except pa.ArrowException as error:
        raise ShardTruncated(f"{path}: damaged Arrow file ({error}); copy it again") from error
    if not batch.schema.equals(schema(int(metadata["vocab_size"]))):
        raise ShardFormat(f"{path}: columns {', '.join(batch.schema.names)}; a shard has tokens, doc_id, url, source")
    if tokenizer is not None and metadata.get("tokenizer") not in (None, tokenizer):
        raise ShardTokenizer(
            f"{path}: tokenized with {metadata['tokenizer'][:12]}..., the manifest names tokenizer {tokenizer[:12]}..."
        )
    column = batch.column(0)
    values = column.values  # not to_numpy(), which imports pandas: most of a second before the first batch
    item = np.dtype(np.uint16 if values.type == pa.uint16() else np.uint32)
    stream = values.buffers()[1]
    tokens = np.frombuffer(stream or b"", item, len(values))
    offsets = (
        np.frombuffer(column.buffers()[1] or b"", np.int64, len(column) + 1) if len(column) else np.zeros(1, np.int64)
    )
    if entry is not None and (len(column), len(tokens)) != (entry.documents, entry.tokens):
        raise ShardFormat(
            f"{path}: {len(column)} documents and {len(tokens)} tokens; "
            f"the manifest says {entry.documents} and {entry.tokens}"
        )
    documents = pa.Table.from_batches([batch.select(["doc_id", "url", "source"])])
    return Shard(path, tokens, offsets, documents, metadata, stream.address - data.address if stream else 0)
