"""A batch of training sequences as tensors, with the documents in them numbered.

Sequences hold several documents, or a part of one; `Batch.documents` numbers them, so that attention stays within a
document.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from training.data.mix_table import Ints
from training.data.token_streams import TokenSequence

IGNORE_INDEX = -100  # the target of a position that is not trained on


@dataclass(frozen=True, eq=False)
class Batch:
    """Tensors [sequences, T], int64: tokens, targets (IGNORE_INDEX: none) and the documents' numbers by sequence."""

    tokens: Tensor
    targets: Tensor
    documents: Tensor
    domains: tuple[str, ...]  # of each sequence
    step: int = 0  # the optimizer step that it is a part of, from 0
    ends_step: bool = True  # whether it is the last accumulation pass of that step

    def to(self, device: torch.device) -> Batch:
        if device.type == "cpu":
            return self
        tokens, targets, documents = (t.to(device, non_blocking=True) for t in self.tensors)
        return replace(self, tokens=tokens, targets=targets, documents=documents)

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory; torch's DataLoader calls this if `pin_memory` is set."""
        tokens, targets, documents = (t.pin_memory() for t in self.tensors)
        return replace(self, tokens=tokens, targets=targets, documents=documents)

    def rows(self, part: slice) -> Batch:
        """Some of its sequences, without a copy."""
        tokens, targets, documents = (t[part] for t in self.tensors)
        return replace(self, tokens=tokens, targets=targets, documents=documents, domains=self.domains[part])

    def padded(self, count: int) -> Batch:
        """The batch with `count` sequences: those missing are copies of the first one, without targets."""
        missing = count - len(self.domains)
        if missing <= 0:
            return self
        tokens, targets, documents = (torch.cat([t, t[:1].expand(missing, -1)]) for t in self.tensors)
        targets[-missing:] = IGNORE_INDEX
        names = self.domains + self.domains[:1] * missing
        return replace(self, tokens=tokens, targets=targets, documents=documents, domains=names)

    @property
    def _starts(self) -> Tensor:
        """Where a document, or what a new sequence has of one, begins: bool [sequences, T]."""
        starts = torch.ones_like(self.documents, dtype=torch.bool)
        starts[:, 1:] = self.documents[:, 1:] != self.documents[:, :-1]
        return starts

    @property
    def position_ids(self) -> Tensor:
        """The place of each token in its document, as far as that is in the sequence: int64 [sequences, T], from 0."""
        places = torch.arange(self.documents.shape[1], device=self.documents.device).expand_as(self.documents)
        return places - places.masked_fill(~self._starts, 0).cummax(dim=1).values

    @property
    def cu_seqlens(self) -> Tensor:
        """Where documents begin in the sequences laid end to end, and the end, for varlen attention: int32 [n + 1].

        Take it before the batch goes to a GPU: the number of documents is not known there without waiting for it.
        """
        begins = self._starts.flatten().nonzero().flatten()
        return torch.cat([begins, begins.new_tensor([self.documents.numel()])]).int()

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.tokens, self.targets, self.documents


def number_documents(documents: Ints, begins: Sequence[int]) -> None:
    """Writes the numbers of a sequence's documents into `documents` [T], all 0 before.

    `begins`: where documents begin after the first token, in order; at least one.
    """
    number = 1
    for end in begins[1:]:
        documents[begins[number - 1] : end] = number
        number += 1
    documents[begins[-1] :] = number


def collate(sequences: Sequence[TokenSequence], length: int) -> Batch:
    """Sequences as tensors of `length` columns; a shorter one is padded with one more document, without targets."""
    tokens = np.zeros((len(sequences), length), np.int64)
    targets = np.full((len(sequences), length), IGNORE_INDEX, np.int64)
    documents = np.zeros((len(sequences), length), np.int64)
    for row, sequence in enumerate(sequences):
        n = len(sequence.tokens) - 1
        tokens[row, :n] = sequence.tokens[:-1]
        targets[row, :n] = sequence.tokens[1:]
        begins = sequence.document_starts[1:].tolist() + ([n] if n < length else [])
        if begins:
            number_documents(documents[row], begins)
    names = tuple(s.domain for s in sequences)
    return Batch(torch.from_numpy(tokens), torch.from_numpy(targets), torch.from_numpy(documents), names)
