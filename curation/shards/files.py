"""Bytes of a file beside the manifest, wherever it lies: mapped where it is local, fetched where it is remote."""

from __future__ import annotations

import os
import posixpath

import pyarrow as pa

from curation.shards.layout import ShardChecksum, ShardError, ShardMissing, ShardTruncated


def is_remote(path: str) -> bool:
    return "://" in path and not path.startswith("file://")


def join(root: str, *parts: str) -> str:
    return posixpath.join(root, *(p for p in parts if p))


def exists(path: str) -> bool:
    if not is_remote(path):
        return os.path.isfile(path.removeprefix("file://"))
    from fsspec.core import url_to_fs

    fs, inner = url_to_fs(path, use_listings_cache=False)
    return bool(fs.isfile(inner))


def read_file(path: str) -> bytes:
    """The bytes of a file beside the manifest, such as the tokenizer. Raises ShardMissing."""
    return bytes(map_file(path))


def map_file(path: str) -> pa.Buffer:
    """The bytes of a file: mapped where it is local, fetched where it is remote. Raises ShardMissing."""
    try:
        if not is_remote(path):
            local = path.removeprefix("file://")
            return pa.memory_map(local).read_buffer() if os.path.getsize(local) else pa.py_buffer(b"")
        from fsspec.core import url_to_fs

        fs, inner = url_to_fs(path, use_listings_cache=False)
        return pa.py_buffer(fs.cat_file(inner))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ShardMissing(
            f"{path}: the manifest names this file and it is not there; copy or write it again"
        ) from error


def size_error(path: str, size: int, expected: int) -> ShardError:
    if size < expected:
        return ShardTruncated(f"{path}: truncated: {size} bytes of {expected}; write or copy it again")
    return ShardChecksum(f"{path}: {size} bytes, the manifest says {expected}: it was changed after it was written")
