"""Keeps tokens of deleted documents from being trained on, also in shards that are being read.

`gristmill delete --tombstone` overwrites a document's tokens with EOS. Only the packer writes EOS, and only where a
document begins, so an EOS anywhere else is deleted text: neither it nor what follows it is a target. (At the border of
two sequences an EOS after an EOS is either a document without text or a deleted one; neither has anything to learn.)

A mapped file shows its new bytes at once. The file that lists the deleted documents is checked once a second (checking
for each batch would take a tenth of its time). Of remote shards a reader holds copies, so when that file has changed
they are fetched again; it is checked once a minute.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from curation.shards import TOMBSTONES, Manifest, is_remote
from training.data.batch import IGNORE_INDEX, Batch

CHECK_LOCAL_EVERY, CHECK_REMOTE_EVERY = 1.0, 60.0  # seconds


class DeletedTokens:
    """Finds whether documents were deleted from these shards, and masks them in batches."""

    def __init__(self, manifest: Manifest, refetch: Callable[[], None]) -> None:
        """`refetch` drops what is cached of remote shards, so that it is fetched again."""
        self.eos = manifest.tokenizer.eos
        files = [manifest.path(f"@{i}/{TOMBSTONES}") for i in range(len(manifest.roots))]
        files = files or [manifest.path(TOMBSTONES)]
        self._local = [f for f in files if not is_remote(f)]
        self._remote: dict[str, Any] = {f: None for f in files if is_remote(f)}
        self._refetch, self._any = refetch, False
        self._next_local = self._next_remote = 0.0  # monotonic time of the next check

    def any_deleted(self) -> bool:
        """Whether any document is marked as deleted, as of the last check."""
        now = time.monotonic()
        if now >= self._next_local:
            self._next_local = now + CHECK_LOCAL_EVERY
            if self._remote and now >= self._next_remote:
                self._next_remote = now + CHECK_REMOTE_EVERY
                found = {file: _version(file) for file in self._remote}
                if found != self._remote:
                    self._remote = found
                    self._refetch()
            self._any = any(self._remote.values()) or any(map(os.path.exists, self._local))
        return self._any

    def mask_targets(self, batch: Batch) -> Batch:
        """The batch without targets in deleted documents."""
        inside = torch.zeros_like(batch.documents, dtype=torch.bool)
        inside[:, 1:] = batch.documents[:, 1:] == batch.documents[:, :-1]  # the token does not open a document
        deleted = (batch.tokens == self.eos) & inside
        bad = deleted.clone()
        bad[:, :-1] |= deleted[:, 1:]
        # a sequence that begins and ends inside one: all of it is EOS
        bad |= ((batch.tokens == self.eos) & (batch.targets == self.eos)).all(dim=1, keepdim=True)
        return replace(batch, targets=batch.targets.masked_fill(bad, IGNORE_INDEX))


def _version(file: str) -> Any:
    """A value that changes when a remote file does; None if the file does not exist."""
    from fsspec.core import url_to_fs

    fs, inner = url_to_fs(file, use_listings_cache=False)
    try:
        info = fs.info(inner)
    except FileNotFoundError:
        return None
    return tuple(str(info.get(k)) for k in ("ETag", "etag", "LastModified", "mtime", "updated", "created", "size"))
