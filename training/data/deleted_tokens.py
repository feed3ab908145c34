"""Tokens of documents that were erased where they lie: what they are recognised by, and that they teach nothing.

`gristmill forget --tombstone` overwrites a document's tokens with EOS. Only the packer writes EOS, and only where a
document begins, so an EOS anywhere else is erased text: neither it nor what follows it is a target. (At the border of
a batch's windows one EOS after an EOS may go either way, a document without text or an erased one; it teaches nothing.)

A mapped file shows its new bytes at once, and the file that lists the erased documents is looked for once a second
(each batch would pay a tenth of its time). Of far-away shards a reader holds copies, so when that file is a new one
they are fetched again; it is asked for once a minute.
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

LOOK_EVERY, ASK_EVERY = 1.0, 60.0  # seconds: on a disk, far away


class DeletedTokens:
    """Whether documents were erased from these shards."""

    def __init__(self, manifest: Manifest, again: Callable[[], None]) -> None:
        """`again` forgets what is held of far-away shards."""
        self.eos = manifest.tokenizer.eos
        files = [manifest.path(f"@{i}/{TOMBSTONES}") for i in range(len(manifest.roots))]
        files = files or [manifest.path(TOMBSTONES)]
        self._near = [f for f in files if not is_remote(f)]
        self._far: dict[str, Any] = {f: None for f in files if is_remote(f)}
        self._again, self._there = again, False
        self._look = self._ask = 0.0  # when next

    def there(self) -> bool:
        now = time.monotonic()
        if now >= self._look:
            self._look = now + LOOK_EVERY
            if self._far and now >= self._ask:
                self._ask = now + ASK_EVERY
                found = {file: _version(file) for file in self._far}
                if found != self._far:
                    self._far = found
                    self._again()
            self._there = any(self._far.values()) or any(map(os.path.exists, self._near))
        return self._there

    def masked(self, batch: Batch) -> Batch:
        """The batch without targets in erased documents."""
        inside = torch.zeros_like(batch.documents, dtype=torch.bool)
        inside[:, 1:] = batch.documents[:, 1:] == batch.documents[:, :-1]  # the token does not open a document
        erased = (batch.tokens == self.eos) & inside
        bad = erased.clone()
        bad[:, :-1] |= erased[:, 1:]
        # a window that begins and ends inside one: all of it is EOS
        bad |= ((batch.tokens == self.eos) & (batch.targets == self.eos)).all(dim=1, keepdim=True)
        return replace(batch, targets=batch.targets.masked_fill(bad, IGNORE_INDEX))


def _version(file: str) -> Any:
    """What tells one state of a far-away file from another; None where it is not there."""
    from fsspec.core import url_to_fs

    fs, inner = url_to_fs(file, use_listings_cache=False)
    try:
        info = fs.info(inner)
    except FileNotFoundError:
        return None
    return tuple(str(info.get(k)) for k in ("ETag", "etag", "LastModified", "mtime", "updated", "created", "size"))
