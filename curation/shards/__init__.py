"""The shard format: what curation hands to training, and the only thing that both halves import.

A shard is an Arrow IPC *file* (random access), uncompressed, with exactly one record batch; a row is a document. In
Arrow a list column is one buffer of values and one of offsets, so with a single batch the values of `tokens` are one
contiguous token stream and the offsets are the document boundaries: a reader maps the file and slices windows of the
stream without a copy.

    layout     columns, types and errors
    write      documents to a shard
    read       a shard as views over the mapped file
    remote     a shard far away, by ranges
    manifest   what shards there are; several runs as one
    files      bytes of a file, local or remote

Everything imports pyarrow and numpy alone (fsspec only once a path is remote), so that training needs nothing else of
curation.
"""

from curation.shards.files import is_remote, read_file
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
    verify_entry,
    verify_manifest,
    verify_tokenizer,
    write_manifest,
)
from curation.shards.read import Shard, open_shard
from curation.shards.remote import RemoteShard
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
    "schema",
    "token_type",
    "verify_entry",
    "verify_manifest",
    "verify_tokenizer",
    "write_manifest",
]
