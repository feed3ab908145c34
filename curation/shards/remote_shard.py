"""Reads a remote shard by byte ranges: header and offsets when it is opened, tokens on request.

The writer makes one uncompressed batch, so every byte position follows from the counts: an Arrow file is a magic word,
the schema as a message, the batch as a message, its buffers, and a footer (Arrow columnar format, "IPC file format"). A
message is 0xFFFFFFFF, the length of its metadata, and the metadata. The first non-empty buffer of the batch holds the
document offsets, the next one the tokens.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from curation.shards.file_access import missing
from curation.shards.layout import FORMAT, ShardFormat, ShardTokenizer, ShardTruncated, ShardVersion
from curation.shards.manifest import ShardEntry

_HEAD_BYTES = 1 << 16  # schema and batch metadata take about 2 KiB; the rest is offsets, which are needed anyway


class RemoteShard:
    """An open shard that fetches only the requested ranges; `bytes_read` counts them."""

    def __init__(self, path: str, entry: ShardEntry, tokenizer: str | None = None) -> None:
        """Raises ShardMissing, ShardTruncated, ShardFormat, ShardVersion or ShardTokenizer, as `open_shard` does."""
        from fsspec.core import url_to_fs

        self.path, self.entry, self.bytes_read = path, entry, 0
        self._fs, self._inner = url_to_fs(path, use_listings_cache=False)
        head = self.fetch(0, min(_HEAD_BYTES, entry.bytes))
        if head[:6] != b"ARROW1":
            raise ShardFormat(f"{path}: not an Arrow file (it starts with {head[:8]!r}), so not a Gristmill shard")
        batch = 16 + int.from_bytes(head[12:16], "little")
        metadata = pa.ipc.read_schema(pa.py_buffer(head[8:batch])).metadata or {}
        if metadata.get(b"gristmill.format") != str(FORMAT).encode():
            found = metadata.get(b"gristmill.format", b"none").decode()
            raise ShardVersion(f"{path}: shard format {found}; this version of Gristmill reads format {FORMAT}")
        made_by = metadata.get(b"tokenizer", b"").decode()
        if tokenizer is not None and made_by not in ("", tokenizer):
            raise ShardTokenizer(
                f"{path}: tokenized with {made_by[:12]}..., the manifest names tokenizer {tokenizer[:12]}..."
            )
        self.metadata = {k.decode(): v.decode() for k, v in metadata.items()}
        self.dtype = np.dtype(np.uint16 if int(self.metadata["vocab_size"]) <= 1 << 16 else np.uint32)
        body = batch + 8 + int.from_bytes(head[batch + 4 : batch + 8], "little")
        self._values = body + 8 * (entry.documents + 1)
        raw = head[body : self._values]
        if self._values > len(head):
            raw += self.fetch(len(head), self._values - len(head))
        self.offsets = np.frombuffer(raw, np.int64)
        if self.offsets[0] != 0 or self.offsets[-1] != entry.tokens or (np.diff(self.offsets) < 1).any():
            raise ShardFormat(f"{path}: damaged offsets of its {entry.documents} documents; copy it again")

    def fetch(self, start: int, length: int) -> bytes:
        """`length` bytes of the file, starting at byte `start`."""
        try:
            data: bytes = self._fs.cat_file(self._inner, start=start, end=start + length)
        except FileNotFoundError as error:
            raise missing(self.path) from error
        self.bytes_read += len(data)
        if len(data) != length:
            raise ShardTruncated(
                f"{self.path}: truncated: bytes {start} to {start + length} are missing; copy it again"
            )
        return data

    def tokens(self, first: int, last: int) -> np.ndarray[Any, Any]:
        """Fetches tokens first to last - 1 of the stream."""
        size = self.dtype.itemsize
        return np.frombuffer(self.fetch(self._values + first * size, (last - first) * size), self.dtype)

    @cached_property
    def documents(self) -> pa.Table:
        """doc_id, url and source of every document, fetched at first use, without the tokens."""
        with self._fs.open(self._inner, "rb") as f:
            options = pa.ipc.IpcReadOptions(included_fields=[1, 2, 3])
            batch = pa.ipc.open_file(f, options=options).get_batch(0)
        return pa.Table.from_batches([batch])
