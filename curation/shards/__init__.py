"""The shard format: the files that curation writes and training reads, and the only code that both import.

A shard is an Arrow IPC *file* (random access), uncompressed, with exactly one record batch; a row is a document. In
Arrow a list column is one buffer of values and one of offsets, so with a single batch the values of `tokens` are one
contiguous token stream and the offsets are the document boundaries: a reader maps the file and slices windows of the
stream without a copy.

    layout       columns, types and errors
    write        writes documents to a shard
    read         opens a shard as views over the mapped file
    remote       reads a remote shard by byte ranges
    manifest     lists the shards of a run; joins several runs
    verify       compares sizes and checksums with the manifest
    file_access  reads whole files, local or remote

These modules import pyarrow and numpy alone (fsspec only for a remote path), so training needs no other package of
curation's.
"""

from curation.shards.file_access import is_remote, read_file
from curation.shards.layout import (
    FORMAT,
    MAX_TOKENS,
    SOURCE,
    ShardChecksum,
    ShardError,
    ShardFormat,
    ShardMissing,
    ShardTokenizer,
    ShardTruncated,
    ShardVersion,
    schema,
    token_type,
)
from curation.shards.manifest import (
    MANIFEST,
    TOMBSTONES,
    DomainShards,
    Manifest,
    Mix,
    ShardEntry,
    TokenizerInfo,
    join_manifests,
    read_manifest,
    write_manifest,
)
from curation.shards.read import Shard, open_shard
from curation.shards.remote_shard import RemoteShard
from curation.shards.verify import read_tokenizer, verify_entry, verify_manifest, verify_tokenizer
from curation.shards.write import ShardInfo, ShardWriter

__all__ = [
    "FORMAT",
    "MANIFEST",
    "MAX_TOKENS",
    "SOURCE",
    "TOMBSTONES",
    "DomainShards",
    "Manifest",
    "Mix",
    "RemoteShard",
    "Shard",
    "ShardChecksum",
    "ShardEntry",
    "ShardError",
    "ShardFormat",
    "ShardInfo",
    "ShardMissing",
    "ShardTokenizer",
    "ShardTruncated",
    "ShardVersion",
    "ShardWriter",
    "TokenizerInfo",
    "is_remote",
    "join_manifests",
    "open_shard",
    "read_file",
    "read_manifest",
    "read_tokenizer",
    "schema",
    "token_type",
    "verify_entry",
    "verify_manifest",
    "verify_tokenizer",
    "write_manifest",
]
