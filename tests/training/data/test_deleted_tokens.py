"""Erased documents teach nothing: what the loader does with shards that `forget --tombstone` changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from curation import shards
from curation.engine.results import erase_tokens as erasing
from curation.storage import Storage
from training.config import DataConfig
from training.data.batch import IGNORE_INDEX, Batch
from training.data.data_schedule import new_data_order
from training.data.deleted_tokens import DeletedTokens

EOS = 9


class Manifest:
    """As much of a manifest as masking looks at."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.roots = ()
        self.tokenizer = self
        self.eos = EOS

    def path(self, name: str) -> str:
        return str(self.folder / name)


def masked(given: Batch, manifest: Any) -> Batch:
    """As the loader does it."""
    erased = DeletedTokens(manifest, lambda: None)
    return erased.mask_targets(given) if erased.any_deleted() else given


def batch(stream: list[int], starts: list[int]) -> Batch:
    """One sequence; documents begin at `starts` within its inputs."""
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
    assert found == [1, 2, EOS, IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX, 3, 4]
    assert given.targets[0].tolist() == stream[1:]


def test_sequences_that_begin_or_end_in_an_erased_document(tmp_path: Path) -> None:
    (tmp_path / "tombstones.json").write_text("{}")
    begins = masked(batch([EOS, EOS, EOS, EOS, 5, 6], [3]), Manifest(tmp_path))
    assert begins.targets[0].tolist() == [IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX, 5, 6]
    ends = masked(batch([EOS, 5, 6, EOS, EOS, EOS], [3]), Manifest(tmp_path))
    assert ends.targets[0].tolist() == [5, 6, EOS, IGNORE_INDEX, IGNORE_INDEX]
    inside = masked(batch([EOS] * 6, []), Manifest(tmp_path))
    assert inside.targets[0].tolist() == [IGNORE_INDEX] * 5
    plain = batch([EOS, 1, EOS, 2, EOS, 3], [2, 4])
    assert masked(plain, Manifest(tmp_path)).targets.tolist() == plain.targets.tolist()


def test_far_away_shards_that_were_erased_are_read_again(corpus: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(corpus / "result"), "/erased-run/result", recursive=True)
    manifest = shards.read_manifest("memory://erased-run")
    data, log, _ = new_data_order(manifest, DataConfig(seq_len=64, weights={"docs": 1}), 17, 8, 10)
    before = data.batch(log, 0, 8)
    doc = data.doc_ids(data.sequences(log, 3, 4)[0])[0]
    assert erasing.erase_tokens(Storage("memory://erased-run"), [doc]) > 0
    assert data.batch(log, 0, 8).targets.equal(before.targets), "asked for once a minute"
    data.deleted_tokens._next_local = data.deleted_tokens._next_remote = 0.0
    after = data.batch(log, 0, 8)
    row = after.targets[3]
    assert (row == IGNORE_INDEX).any() and not before.targets.eq(IGNORE_INDEX).any()
    gone = [i for i, w in enumerate(data.sequences(log, 0, 8)) if doc in data.doc_ids(w)]
    assert {int(i) for i in torch.nonzero((after.targets == IGNORE_INDEX).any(dim=1))} == set(gone)
    assert not after.tokens[3].equal(before.tokens[3]), "not what the cache held"


def test_erased_documents_of_the_second_of_two_runs(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    monkeypatch.setattr("training.data.deleted_tokens.CHECK_LOCAL_EVERY", 0.0)

    shutil.copytree(corpus / "result", tmp_path / "second" / "result")
    both = shards.read_manifest([str(corpus), str(tmp_path / "second")])
    data, log, _ = new_data_order(both, DataConfig(seq_len=64, weights={"docs": 1}), 17, 8, 10)
    sequence = next(w for w in data.sequences(log, 0, 800) if w.shard >= 2)
    first = sequence.index // 8 * 8
    before = data.batch(log, first, first + 8)
    erasing.erase_tokens(Storage(str(tmp_path / "second")), [data.doc_ids(sequence)[0]])
    after = data.batch(log, first, first + 8)
    assert (after.targets[sequence.index - first] == IGNORE_INDEX).any() and not before.targets.eq(IGNORE_INDEX).any()
    shards.verify_manifest(both)
