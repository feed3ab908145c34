"""Erased documents teach nothing: what the loader does with shards that `forget --tombstone` changed."""

from __future__ import annotations

from pathlib import Path

import torch

from training.data import Batch
from training.tombstones import IGNORE, masked

EOS = 9


class Manifest:
    """As much of a manifest as masking looks at."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = str(folder)
        self.tokenizer = self
        self.eos = EOS

    def path(self, name: str) -> str:
        return str(self.folder / name)


def batch(stream: list[int], starts: list[int]) -> Batch:
    """One window; documents begin at `starts` within its inputs."""
    tokens = torch.tensor([stream[:-1]])
    documents = torch.zeros_like(tokens)
    for start in starts:
        documents[0, start:] += 1
    return Batch(tokens, torch.tensor([stream[1:]]), documents, ("web",))


def test_neither_erased_tokens_nor_what_follows_them_are_targets(tmp_path: Path) -> None:
    stream = [EOS, 1, 2, EOS, EOS, EOS, EOS, 3, 4]
    given = batch(stream, [3, 6])  # the document at 3 was erased: its opening EOS and two tokens
    assert masked(given, Manifest(tmp_path)).targets.tolist() == [stream[1:]]  # nothing was erased from these shards
    (tmp_path / "tombstones.json").write_text("{}")
    found = masked(given, Manifest(tmp_path)).targets[0].tolist()
    assert found == [1, 2, EOS, IGNORE, IGNORE, IGNORE, 3, 4]
    assert given.targets[0].tolist() == stream[1:]


def test_windows_that_begin_or_end_in_an_erased_document(tmp_path: Path) -> None:
    (tmp_path / "tombstones.json").write_text("{}")
    begins = masked(batch([EOS, EOS, EOS, EOS, 5, 6], [3]), Manifest(tmp_path))
    assert begins.targets[0].tolist() == [IGNORE, IGNORE, IGNORE, 5, 6]
    ends = masked(batch([EOS, 5, 6, EOS, EOS, EOS], [3]), Manifest(tmp_path))
    assert ends.targets[0].tolist() == [5, 6, EOS, IGNORE, IGNORE]
    inside = masked(batch([EOS] * 6, []), Manifest(tmp_path))
    assert inside.targets[0].tolist() == [IGNORE] * 5
    plain = batch([EOS, 1, EOS, 2, EOS, 3], [2, 4])
    assert masked(plain, Manifest(tmp_path)).targets.tolist() == plain.targets.tolist()
