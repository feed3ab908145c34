"""Defines the columns and types of a shard, and the errors that opening one may raise.

A row is a document: `tokens: large_list<uint16|uint32>`, `doc_id`, `url`, `source`. Each document is written as
`[EOS] + tokens`: the EOS belongs to the document that follows it.
"""

from __future__ import annotations

import pyarrow as pa

FORMAT = 1
MAX_TOKENS = 2**30  # in a shard: 2 or 4 GiB of values, small enough to fetch and verify as a unit

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
    """A shard or manifest that cannot be used; the message says which file, what is wrong and what to do."""


class ShardMissing(ShardError):
    """A manifest, shard or tokenizer file does not exist."""


class ShardTruncated(ShardError):
    """A file is shorter than it was written, or ends before its Arrow footer."""


class ShardChecksum(ShardError):
    """A file has other bytes than those that were written."""


class ShardVersion(ShardError):
    """Written by a version of the format that this reader does not know."""


class ShardTokenizer(ShardError):
    """The tokens are of another tokenizer than the manifest (or the other run) names."""


class ShardFormat(ShardError):
    """A readable file that is neither a shard nor a manifest."""


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
