"""Reads whole files of a run: a local file is memory-mapped, a remote one is fetched through fsspec."""

from __future__ import annotations

import os
import posixpath

import pyarrow as pa

from curation.shards.layout import ShardChecksum, ShardError, ShardMissing, ShardTruncated


def is_remote(path: str) -> bool:
    """Whether a path is a URL of another filesystem than the local one."""
    return "://" in path and not path.startswith("file://")


def join(root: str, *parts: str) -> str:
    """A path or URL below `root`; empty parts are left out."""
    return posixpath.join(root, *(p for p in parts if p))


def exists(path: str) -> bool:
    """Whether a path or URL is a file."""
    if not is_remote(path):
        return os.path.isfile(path.removeprefix("file://"))
    from fsspec.core import url_to_fs

    fs, inner = url_to_fs(path, use_listings_cache=False)
    return bool(fs.isfile(inner))


def read_file(path: str) -> bytes:
    """The bytes of a file that the manifest names, such as the tokenizer. Raises ShardMissing."""
    return bytes(map_file(path))


def map_file(path: str) -> pa.Buffer:
    """The bytes of a file as an Arrow buffer, mapped or fetched. Raises ShardMissing."""
    try:
        if not is_remote(path):
            local = path.removeprefix("file://")
            return pa.memory_map(local).read_buffer() if os.path.getsize(local) else pa.py_buffer(b"")
        from fsspec.core import url_to_fs

        fs, inner = url_to_fs(path, use_listings_cache=False)
        return pa.py_buffer(fs.cat_file(inner))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise missing(path) from error


def missing(path: str) -> ShardMissing:
    """The error for a file that the manifest lists and that does not exist."""
    return ShardMissing(f"{path}: listed in the manifest, but the file is missing; copy it again or rerun the curation")


def size_error(path: str, size: int, expected: int) -> ShardError:
    """The error for a file of another size in bytes than the manifest says."""
    if size < expected:
        return ShardTruncated(f"{path}: truncated: {size} bytes of {expected}; copy it again")
    return ShardChecksum(f"{path}: {size} bytes, the manifest says {expected}: the file changed after it was written")
