"""Writes a shard; token values are streamed to a temporary file, so memory never holds a whole shard."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any, BinaryIO

import numpy as np
import pyarrow as pa

from curation.shards import layout
from curation.shards.layout import MAX_TOKENS, SOURCE, schema, token_type

_FLUSH = 1 << 14  # documents whose ids are Python objects before they become Arrow arrays


@dataclass(frozen=True)
class ShardInfo:
    """What a closed ShardWriter counted; `tokens` includes one EOS a document."""

    documents: int
    tokens: int
    text_bytes: int


class ShardWriter:
    """Writes one shard to an open binary file; the same documents give the same bytes.

    Token values go to a temporary file in `scratch_dir`; `close` maps that file and lets Arrow write the single batch
    from the mapping, so memory holds ids, URLs and offsets, but not the tokens.
    """

    def __init__(
        self,
        file: IO[bytes] | BinaryIO | Any,
        *,
        vocab_size: int,
        eos: int,
        scratch_dir: str,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """`metadata` is stored in the Arrow schema, with the writer's own keys (format, vocab_size, eos).

        Include the tokenizer (`tokenizer`: sha256 of its file), so that `open_shard` can refuse another one.
        """
        if not 0 <= eos < vocab_size:
            raise ValueError(f"EOS {eos} is outside the vocabulary of {vocab_size}")
        own = {"gristmill.format": str(layout.FORMAT), "vocab_size": str(vocab_size), "eos": str(eos)}
        self._metadata = dict(sorted({**(metadata or {}), **own}.items()))
        self._file, self._vocab_size = file, vocab_size
        self._dtype = token_type(vocab_size).to_pandas_dtype()
        self._eos = np.array([eos], self._dtype).tobytes()
        self._values = tempfile.TemporaryFile(dir=scratch_dir, buffering=1 << 20)  # noqa: SIM115 - lives to close()
        self._lengths: list[int] = []
        self._rows: list[tuple[bytes, str | None, Mapping[str, Any] | None]] = []
        self._chunks: list[pa.RecordBatch] = []
        self._offsets: list[np.ndarray[Any, np.dtype[np.int64]]] = []
        self._documents = self._tokens = self._text_bytes = 0

    def add(
        self,
        tokens: np.ndarray[Any, Any],
        doc_id: bytes,
        url: str | None,
        source: Mapping[str, Any] | None,
        *,
        text_bytes: int = 0,
    ) -> None:
        """Adds one document, its ids without EOS; `text_bytes` is the UTF-8 length of its text, for the manifest.

        Raises ValueError for an id outside the vocabulary, a doc_id that is not 16 bytes, or more than 2^30 tokens.
        """
        if len(tokens) and (tokens.min() < 0 or tokens.max() >= self._vocab_size):
            raise ValueError(f"document {doc_id.hex()} has a token outside the vocabulary of {self._vocab_size}")
        if len(doc_id) != 16:
            raise ValueError(f"a doc_id is 16 bytes, not {len(doc_id)}")
        if self._tokens + len(tokens) + 1 > MAX_TOKENS and self._documents:
            raise ValueError(f"a shard holds at most {MAX_TOKENS} tokens; start another one")
        self._values.write(self._eos)
        self._values.write(np.ascontiguousarray(tokens, dtype=self._dtype).tobytes())
        self._lengths.append(len(tokens) + 1)
        self._rows.append((doc_id, url, source))
        self._documents += 1
        self._tokens += len(tokens) + 1
        self._text_bytes += text_bytes
        if len(self._rows) >= _FLUSH:
            self._flush()

    def _flush(self) -> None:
        ids, urls, sources = zip(*self._rows, strict=True) if self._rows else ((), (), ())
        arrays = [pa.array(ids, pa.binary(16)), pa.array(urls, pa.string()), pa.array(sources, SOURCE)]
        self._chunks.append(pa.RecordBatch.from_arrays(arrays, ["doc_id", "url", "source"]))
        self._offsets.append(np.array(self._lengths, np.int64))
        self._rows, self._lengths = [], []

    def close(self) -> ShardInfo:
        """Writes the shard to the file (which stays open) and removes the temporary file."""
        self._flush()
        offsets = np.zeros(self._documents + 1, np.int64)
        np.cumsum(np.concatenate(self._offsets), out=offsets[1:])
        with self._values as values:
            values.flush()
            mapped = mmap.mmap(values.fileno(), 0, access=mmap.ACCESS_READ) if self._tokens else b""
            item = token_type(self._vocab_size)
            stream = pa.Array.from_buffers(item, self._tokens, [None, pa.py_buffer(mapped)])
            tokens = pa.Array.from_buffers(
                pa.large_list(item), self._documents, [None, pa.py_buffer(offsets)], children=[stream]
            )
            rest = pa.Table.from_batches(self._chunks).combine_chunks()
            columns = [tokens, *(_single(rest.column(name)) for name in ("doc_id", "url", "source"))]
            batch = pa.RecordBatch.from_arrays(columns, schema=schema(self._vocab_size))
            with pa.ipc.new_file(self._file, batch.schema.with_metadata(self._metadata)) as writer:
                writer.write_batch(batch)
        return ShardInfo(self._documents, self._tokens, self._text_bytes)


def _single(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.array([], column.type)
