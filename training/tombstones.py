"""Tokens of documents that were erased where they lie: what they are recognised by, and that they teach nothing.

`gristmill forget --tombstone` overwrites a document's tokens with EOS. Only the packer writes EOS, and only where a
document begins, so an EOS anywhere else is erased text: neither it nor what follows it is a target. (At the border of
a batch's windows one EOS after an EOS may go either way, a document without text or an erased one; it teaches nothing.)
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from curation.shards import Manifest

if TYPE_CHECKING:
    from .data import Batch

IGNORE = -100


def masked(batch: Batch, manifest: Manifest) -> Batch:
    """The batch without targets in erased documents. Costs a look at the directory where there are none."""
    # far-away shards are left out: a request a batch would cost more than the batch
    if "://" in manifest.root or not os.path.exists(manifest.path("tombstones.json")):
        return batch
    eos = manifest.tokenizer.eos
    inside = torch.zeros_like(batch.documents, dtype=torch.bool)
    inside[:, 1:] = batch.documents[:, 1:] == batch.documents[:, :-1]  # the token does not open a document
    erased = (batch.tokens == eos) & inside
    bad = erased.clone()
    bad[:, :-1] |= erased[:, 1:]
    # a window that begins and ends inside one: all of it is EOS
    bad |= ((batch.tokens == eos) & (batch.targets == eos)).all(dim=1, keepdim=True)
    return replace(batch, targets=batch.targets.masked_fill(bad, IGNORE))
