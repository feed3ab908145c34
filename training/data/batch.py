"""A batch of training sequences as tensors, with the documents in them numbered.

Sequences hold several documents, or a part of one; `Batch.documents` numbers them, so that attention stays within a
document.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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

    def to(self, device: torch.device) -> Batch:
        if device.type == "cpu":
            return self
        tokens, targets, documents = (t.to(device, non_blocking=True) for t in self.tensors)
        return Batch(tokens, targets, documents, self.domains)

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory; torch's DataLoader calls this if `pin_memory` is set."""
        tokens, targets, documents = (t.pin_memory() for t in self.tensors)
        return Batch(tokens, targets, documents, self.domains)

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
