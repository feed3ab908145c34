"""Checks that shards and tokenizer on disk are the files that the manifest describes: sizes, SHA-256, contents."""

from __future__ import annotations

import hashlib
import json

from curation.shards.file_access import exists, map_file, read_file, size_error
from curation.shards.layout import ShardChecksum, ShardTokenizer
from curation.shards.manifest import TOMBSTONES, Manifest, ShardEntry
from curation.shards.read import open_shard


def verify_manifest(manifest: Manifest) -> Manifest:
    """Reads every file the manifest names, compares size and SHA-256, and opens each shard. Returns the manifest.

    Raises ShardMissing, ShardTruncated, ShardChecksum or ShardTokenizer for the first file that differs.
    """
    verify_tokenizer(manifest)
    for _, _, entry in manifest.entries():
        verify_entry(manifest, entry)
    return manifest


def verify_tokenizer(manifest: Manifest) -> None:
    """Compares the tokenizer file with the manifest. Raises ShardMissing or ShardTokenizer."""
    read_tokenizer(manifest)


def read_tokenizer(manifest: Manifest) -> bytes:
    """The tokenizer file that the manifest names, its checksum compared. Raises ShardMissing or ShardTokenizer."""
    path = manifest.path(manifest.tokenizer.file)
    data = read_file(path)
    if hashlib.sha256(data).hexdigest() != manifest.tokenizer.sha256:
        raise ShardTokenizer(f"{path}: not the tokenizer of these shards (its checksum differs from the manifest)")
    return data


def verify_entry(manifest: Manifest, entry: ShardEntry) -> None:
    """Compares one shard with the manifest. Raises the ShardError that names the difference."""
    path = manifest.path(entry)
    data = map_file(path)
    if data.size != entry.bytes:
        raise size_error(path, data.size, entry.bytes)
    run, name = entry.path.split("/", 1) if manifest.roots else ("", entry.path)
    # a shard in which tokens were overwritten has a new checksum
    tombstone_path = manifest.path(f"{run}/{TOMBSTONES}" if run else TOMBSTONES)
    tombstones = json.loads(read_file(tombstone_path)) if exists(tombstone_path) else {}
    expected = tombstones.get(name, {}).get("sha256", entry.sha256)
    if (found := hashlib.sha256(data).hexdigest()) != expected:
        raise ShardChecksum(f"{path}: checksum {found[:12]}..., the manifest says {expected[:12]}...; copy it again")
    open_shard(path, entry=entry, tokenizer=manifest.tokenizer.sha256)
