"""The shard format: what curation hands to training, and the only file that both halves import.

A shard is an Arrow IPC *file* (random access), uncompressed, with exactly one record batch; a row is a document. In
Arrow a list column is one buffer of values and one of offsets, so with a single batch the values of `tokens` are one
contiguous token stream and the offsets are the document boundaries: a reader maps the file and slices windows of the
stream without a copy. Each document is written as `[EOS] + tokens`: the EOS belongs to the document that it opens.

The manifest beside the shards says what there is: tokenizer, domains, shards with counts and checksums, mix. Readers
refuse what they do not understand, each trouble with its own error. This file imports pyarrow and numpy alone
(fsspec only once a path is remote), so that training needs nothing else of curation.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import posixpath
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, BinaryIO

import numpy as np
import pyarrow as pa

FORMAT = 1
MANIFEST = "manifest.json"
MAX_TOKENS = 2**30  # a shard: 2 or 4 GiB of values, small enough to fetch and verify as a unit
_FLUSH = 1 << 14  # documents whose ids are held as Python objects before they become Arrow arrays
_HEAD, _TAIL = b"ARROW1\0\0", b"ARROW1"

SOURCE = pa.struct(
    [
        ("file", pa.string()),
        ("kind", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("row", pa.int64()),
    ]
)


class ShardError(Exception):
    """Shards that cannot be trained on; the message says which file, what is wrong and what to do."""


class ShardMissing(ShardError):
    """A manifest, shard or tokenizer file is not there."""


class ShardTruncated(ShardError):
    """A file is shorter than it was written, or ends before its Arrow footer."""


class ShardChecksum(ShardError):
    """A file has the right size and other bytes."""


class ShardVersion(ShardError):
    """Written by a version of the format that this reader does not know."""


class ShardTokenizer(ShardError):
    """Tokens of another tokenizer than the manifest (or the other run) speaks of."""


class ShardFormat(ShardError):
    """Readable, and not a shard or a manifest."""


def token_type(vocab_size: int) -> pa.DataType:
    """uint16 where every id of the vocabulary fits, else uint32."""
    return pa.uint16() if vocab_size <= 1 << 16 else pa.uint32()


def schema(vocab_size: int) -> pa.Schema:
    """The columns of a shard."""
    return pa.schema(
        [
            pa.field("tokens", pa.large_list(token_type(vocab_size))),
            pa.field("doc_id", pa.binary(16)),
            pa.field("url", pa.string()),
            pa.field("source", SOURCE),
        ]
    )


@dataclass(frozen=True)
class ShardInfo:
    """What a closed ShardWriter counted; `tokens` includes one EOS a document."""

    documents: int
    tokens: int
    text_bytes: int


class ShardWriter:
    """Writes one shard to an open binary file; the same documents give the same bytes.

    Token values go to a temporary in `scratch_dir` as they come; closing maps it and lets Arrow write the single
    batch from the mapping, so memory holds ids, URLs and offsets and never the tokens of a shard.
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
        """`metadata` goes into the Arrow schema beside the writer's own keys (format, vocab_size, eos).

        Name the tokenizer there (`tokenizer`: sha256 of its file) so that `open_shard` can refuse a foreign one.
        """
        if not 0 <= eos < vocab_size:
            raise ValueError(f"EOS {eos} is outside the vocabulary of {vocab_size}")
        own = {"gristmill.format": str(FORMAT), "vocab_size": str(vocab_size), "eos": str(eos)}
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
        """One document, its ids without EOS; `text_bytes` is the UTF-8 length of its text, summed for the manifest.

        Raises ValueError for an id outside the vocabulary, a doc_id that is not 16 bytes, or more than 2^30 tokens.
        """
        if len(tokens) and (tokens.min() < 0 or tokens.max() >= self._vocab_size):
            raise ValueError(f"document {doc_id.hex()} has a token outside the vocabulary of {self._vocab_size}")
        if len(doc_id) != 16:
            raise ValueError(f"a doc_id is 16 bytes, not {len(doc_id)}")
        if self._tokens + len(tokens) + 1 > MAX_TOKENS and self._documents:
            raise ValueError(f"a shard holds at most {MAX_TOKENS} tokens; begin another")
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
        """Writes the shard to the file (which stays open) and removes the temporary."""
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


@dataclass(frozen=True)
class Shard:
    """An open shard: views over the mapped file, no copies.

    tokens: uint16 or uint32 [n], the whole stream. offsets: int64 [documents + 1], document i is
    `tokens[offsets[i]:offsets[i + 1]]`, its EOS first. documents: table of doc_id, url, source.
    """

    path: str
    tokens: np.ndarray[Any, Any]
    offsets: np.ndarray[Any, np.dtype[np.int64]]
    documents: pa.Table
    metadata: dict[str, str]

    @property
    def eos(self) -> int:
        return int(self.metadata["eos"])

    @property
    def vocab_size(self) -> int:
        return int(self.metadata["vocab_size"])


def open_shard(path: str, *, entry: ShardEntry | None = None, tokenizer: str | None = None) -> Shard:
    """Maps a local shard, or fetches a remote one whole.

    With `entry` its size and counts must be the manifest's, with `tokenizer` (a sha256) the tokens must be that
    tokenizer's. Raises ShardMissing, ShardTruncated, ShardFormat, ShardVersion or ShardTokenizer. Checksums are
    `verify`'s business: they cost a reading of the file.
    """
    data = _map(path)
    if entry is not None and data.size != entry.bytes:
        raise _size_error(path, data.size, entry.bytes)
    head, tail = bytes(data.slice(0, min(8, data.size))), bytes(data.slice(max(0, data.size - 6)))
    if not head.startswith(_HEAD[:6]):
        raise ShardFormat(f"{path}: not an Arrow file (it begins with {head!r}), so not a shard of Gristmill's")
    if tail != _TAIL:
        raise ShardTruncated(f"{path}: truncated: the Arrow footer is not at byte {data.size}; write or copy it again")
    try:
        reader = pa.ipc.open_file(pa.BufferReader(data))
        metadata = {k.decode(): v.decode() for k, v in (reader.schema.metadata or {}).items()}
        version = metadata.get("gristmill.format")
        if version is None:
            raise ShardFormat(f"{path}: an Arrow file, but none that Gristmill wrote (no gristmill.format)")
        if version != str(FORMAT):
            raise ShardVersion(f"{path}: shard format {version}; this version of Gristmill reads format {FORMAT}")
        if reader.num_record_batches != 1:
            raise ShardFormat(f"{path}: {reader.num_record_batches} record batches; a shard has one")
        batch = reader.get_batch(0)
    except pa.ArrowException as error:
        raise ShardTruncated(f"{path}: damaged Arrow file ({error}); write or copy it again") from error
    if not batch.schema.equals(schema(int(metadata["vocab_size"]))):
        raise ShardFormat(f"{path}: the columns are not those of a shard: {batch.schema.names}")
    if tokenizer is not None and metadata.get("tokenizer") not in (None, tokenizer):
        raise ShardTokenizer(
            f"{path}: tokens of the tokenizer {metadata['tokenizer'][:12]}..., the manifest's is {tokenizer[:12]}..."
        )
    column = batch.column(0)
    tokens = column.values.to_numpy(zero_copy_only=True)
    offsets = (
        np.frombuffer(column.buffers()[1] or b"", np.int64, len(column) + 1) if len(column) else np.zeros(1, np.int64)
    )
    if entry is not None and (len(column), len(tokens)) != (entry.documents, entry.tokens):
        raise ShardFormat(
            f"{path}: {len(column)} documents and {len(tokens)} tokens; "
            f"the manifest says {entry.documents} and {entry.tokens}"
        )
    documents = pa.Table.from_batches([batch.select(["doc_id", "url", "source"])])
    return Shard(path, tokens, offsets, documents, metadata)


@dataclass(frozen=True)
class ShardEntry:
    """A shard as the manifest names it; `path` is below the manifest's directory."""

    path: str
    documents: int
    tokens: int
    text_bytes: int
    sha256: str
    bytes: int


@dataclass(frozen=True)
class DomainShards:
    """The shards of one domain of one split, in reading order, and their sums."""

    shards: tuple[ShardEntry, ...] = ()

    @property
    def documents(self) -> int:
        return sum(s.documents for s in self.shards)

    @property
    def tokens(self) -> int:
        return sum(s.tokens for s in self.shards)

    @property
    def text_bytes(self) -> int:
        return sum(s.text_bytes for s in self.shards)


@dataclass(frozen=True)
class TokenizerInfo:
    """The tokenizer file beside the manifest. `kind`: bpe, tokenizers, tiktoken, sentencepiece, bytes."""

    file: str
    sha256: str
    vocab: int
    eos: int
    kind: str


@dataclass(frozen=True)
class Mix:
    """How often each domain is to be read: weights (sum 1), budget in tokens, cap on and resulting epochs."""

    weights: Mapping[str, float] = field(default_factory=dict)
    budget: int | None = None
    max_epochs: float | None = None
    epochs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says. `root` is the directory it was read from: paths are below it."""

    tokenizer: TokenizerInfo
    splits: Mapping[str, Mapping[str, DomainShards]]
    mix: Mix = field(default_factory=Mix)
    seed: int = 0
    generation: int = 0  # grows when shards are added to a finished run
    fingerprint: str = ""  # of the run that wrote them
    version: int = FORMAT
    root: str = ""

    def path(self, entry: ShardEntry | str) -> str:
        """The path or URL of a shard, or of a file beside the manifest."""
        return _join(self._home(), entry if isinstance(entry, str) else entry.path)

    def _home(self) -> str:
        """Where the files of this generation are: a run that has forgotten documents since has put them aside."""
        if self.root.endswith("/result/shards"):
            kept = self.root.removesuffix("result/shards") + f"generations/{self.generation}/shards"
            if _exists(_join(kept, MANIFEST)):
                return kept
        return self.root

    def entries(self) -> Iterator[tuple[str, str, ShardEntry]]:
        """Every (split, domain, shard), in the order of the manifest."""
        for split, domains in self.splits.items():
            for domain, shards in domains.items():
                for entry in shards.shards:
                    yield split, domain, entry

    def dumps(self) -> bytes:
        """Canonical JSON: sorted keys, so that equal manifests are equal bytes."""
        splits = {
            split: {
                domain: {
                    "shards": [vars(s) for s in shards.shards],
                    "documents": shards.documents,
                    "tokens": shards.tokens,
                    "text_bytes": shards.text_bytes,
                }
                for domain, shards in domains.items()
            }
            for split, domains in self.splits.items()
        }
        value = {
            "format": self.version,
            "generation": self.generation,
            "seed": self.seed,
            "tokenizer": vars(self.tokenizer),
            "splits": splits,
            "mix": {**vars(self.mix), "weights": dict(self.mix.weights), "epochs": dict(self.mix.epochs)},
            "fingerprint": self.fingerprint,
        }
        return (json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()


def write_manifest(file: IO[bytes] | Any, manifest: Manifest) -> None:
    """Writes `manifest.json` to an open binary file."""
    file.write(manifest.dumps())


def read_manifest(place: str, verify: bool = False) -> Manifest:
    """The manifest of a run, of its `result` or `shards` directory, or named itself; on any fsspec filesystem.

    With `verify` every file is read and its checksum compared. Raises ShardMissing, ShardVersion, ShardFormat, and with
    `verify` what `verify` raises.
    """
    place = os.fspath(place)
    tried = (
        [place] if place.endswith(".json") else [_join(place, sub, MANIFEST) for sub in ("result/shards", "shards", "")]
    )
    found = next((path for path in tried if _exists(path)), None)
    if found is None:
        raise ShardMissing(f"{place}: no shards here (looked for {', '.join(tried)}); `gristmill curate` writes them")
    try:
        value = json.loads(read_file(found))
        version = value["format"]
        if version != FORMAT:
            raise ShardVersion(f"{found}: manifest format {version}; this version of Gristmill reads format {FORMAT}")
        splits = {
            split: {d: DomainShards(tuple(ShardEntry(**s) for s in shards["shards"])) for d, shards in domains.items()}
            for split, domains in value["splits"].items()
        }
        tokenizer, mix = TokenizerInfo(**value["tokenizer"]), Mix(**value["mix"])
        root = found[: -len(MANIFEST)].rstrip("/") if found.endswith("/" + MANIFEST) else posixpath.dirname(found)
        manifest = Manifest(
            tokenizer, splits, mix, value["seed"], value["generation"], value["fingerprint"], version, root or "."
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ShardFormat(f"{found}: not a manifest of shards ({type(error).__name__}: {error})") from error
    if verify:
        verify_manifest(manifest)
    return manifest


def verify_manifest(manifest: Manifest) -> None:
    """Reads every file the manifest names and compares size and SHA-256, then opens each shard.

    Raises ShardMissing, ShardTruncated, ShardChecksum or ShardTokenizer for the first file that is not as written.
    """
    erased = manifest.path("tombstones.json")  # documents overwritten in place, and what checksums are since
    tombstones = json.loads(read_file(erased)) if _exists(erased) else {}
    path = manifest.path(manifest.tokenizer.file)
    if hashlib.sha256(_map(path)).hexdigest() != manifest.tokenizer.sha256:
        raise ShardTokenizer(f"{path}: not the tokenizer that made these tokens (checksum differs from the manifest's)")
    for _, _, entry in manifest.entries():
        path = manifest.path(entry)
        data = _map(path)
        if data.size != entry.bytes:
            raise _size_error(path, data.size, entry.bytes)
        expected = tombstones.get(entry.path, {}).get("sha256", entry.sha256)
        if (found := hashlib.sha256(data).hexdigest()) != expected:
            raise ShardChecksum(
                f"{path}: checksum {found[:12]}..., the manifest says {expected[:12]}...; copy it again"
            )
        open_shard(path, entry=entry, tokenizer=manifest.tokenizer.sha256)


def _size_error(path: str, size: int, expected: int) -> ShardError:
    if size < expected:
        return ShardTruncated(f"{path}: truncated: {size} bytes of {expected}; write or copy it again")
    return ShardChecksum(f"{path}: {size} bytes, the manifest says {expected}: it was changed after it was written")


def _remote(path: str) -> bool:
    return "://" in path and not path.startswith("file://")


def _join(root: str, *parts: str) -> str:
    return posixpath.join(root, *(p for p in parts if p))


def _exists(path: str) -> bool:
    if not _remote(path):
        return os.path.isfile(path.removeprefix("file://"))
    from fsspec.core import url_to_fs

    fs, inner = url_to_fs(path, use_listings_cache=False)
    return bool(fs.isfile(inner))


def read_file(path: str) -> bytes:
    """The bytes of a file beside the manifest, such as the tokenizer. Raises ShardMissing."""
    return bytes(_map(path))


def _map(path: str) -> pa.Buffer:
    """The bytes of a file: mapped where it is local, fetched where it is remote. Raises ShardMissing."""
    try:
        if not _remote(path):
            local = path.removeprefix("file://")
            return pa.memory_map(local).read_buffer() if os.path.getsize(local) else pa.py_buffer(b"")
        from fsspec.core import url_to_fs

        fs, inner = url_to_fs(path, use_listings_cache=False)
        return pa.py_buffer(fs.cat_file(inner))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ShardMissing(
            f"{path}: the manifest names this file and it is not there; copy or write it again"
        ) from error
