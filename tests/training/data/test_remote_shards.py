"""Far-away shards: the same sequences, whole extents, a bounded cache, and several runs as one.

Covers: curation/shards/remote_shard.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from torch.utils.data import DataLoader

from curation import shards
from training.config import DataConfig
from training.data import block_order
from training.data.data_order import OrderLog
from training.data.data_schedule import new_data_order
from training.data.dataset import TokenDataset
from training.data.loader import TokenLoader
from training.data.remote_shards import ExtentCache
from training.data.token_streams import DomainStream, iter_validation_sequences, validation_streams


@pytest.fixture
def far(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The corpus on another filesystem, extents of four blocks of 64 in groups of three."""
    monkeypatch.setattr(block_order, "EXTENT_BYTES", 4 * 64 * 2)
    monkeypatch.setattr(block_order, "EXTENTS_IN_GROUP", 3)
    monkeypatch.setattr("training.data.dataset.EXTENT_BYTES", 4 * 64 * 2)
    monkeypatch.setattr("training.data.dataset.EXTENTS_IN_GROUP", 3)
    memory = fsspec.filesystem("memory")
    if not memory.exists("/far-run/result/shards/manifest.json"):
        memory.put(str(corpus / "result"), "/far-run/result", recursive=True)
    return "memory://far-run"


def tables(data: TokenDataset, log: OrderLog, last: int) -> list[Any]:
    return [
        (w.domain, w.epoch, w.shard, w.start, w.first_document, w.tokens.tolist(), w.document_starts.tolist())
        for w in data.sequences(log, 0, last)
    ]


def test_far_sequences_are_the_near_ones(corpus: Path, far: str) -> None:
    near, log, _ = new_data_order(shards.read_manifest(str(corpus)), DataConfig(seq_len=64), 17, 8, 10)
    away, _, _ = new_data_order(shards.read_manifest(far), DataConfig(seq_len=64), 17, 8, 10)
    assert all(d.remote for d in away.domains.values())
    assert tables(away, log, 500) == tables(near, log, 500)
    for first in (0, 8, 4000):
        one, two = away.batch(log, first, first + 8), near.batch(log, first, first + 8)
        assert all(a.equal(b) for a, b in zip(one.tensors, two.tensors, strict=True))
    assert away.doc_ids(away.sequences(log, 7, 8)[0]) == near.doc_ids(near.sequences(log, 7, 8)[0])
    local, remote = (
        DomainStream("code", m, m.splits["validation"]["code"]) for m in map(shards.read_manifest, (str(corpus), far))
    )
    assert [w.tokens.tolist() for w in iter_validation_sequences(remote, 50, None)] == [
        w.tokens.tolist() for w in iter_validation_sequences(local, 50, None)
    ]


def test_an_epoch_is_fetched_once_through_a_small_cache(far: str) -> None:
    manifest = shards.read_manifest(far)
    size = 2 * manifest.splits["train"]["docs"].tokens
    data = TokenDataset(manifest, 17, 64, ["docs"], cache_bytes=size // 10)
    log = OrderLog.new({"docs": 1}, 64, 64, 8)
    epoch = data.orders["docs"].total_blocks
    for first in range(0, epoch, 8):
        data.batch(log, first, min(first + 8, epoch))
    headers = len(manifest.splits["train"]["docs"]) * 65_536
    assert data.domains["docs"].bytes_fetched <= 1.1 * epoch * 128 + headers
    assert data.cache.peak <= size // 10 and not data.notes


def test_a_cache_smaller_than_a_group_fetches_sequences_and_says_so(far: str) -> None:
    manifest = shards.read_manifest(far)
    data = TokenDataset(manifest, 17, 64, ["docs"], cache_bytes=1000)
    assert "sequences are fetched one by one" in data.notes[0]
    log = OrderLog.new({"docs": 1}, 64, 64, 8)
    before = data.domains["docs"].bytes_fetched
    data.batch(log, 0, 80)
    headers = len(manifest.splits["train"]["docs"]) * 65_536
    assert data.domains["docs"].bytes_fetched - before <= 80 * 130 + headers


def test_the_cache_is_bounded_and_keeps_what_is_needed() -> None:
    cache = ExtentCache(100)
    values = {k: np.full(40, k) for k in range(5)}
    for k in (0, 1):
        assert cache.get(k, 40, lambda k=k: values[k]) is values[k]
    cache.pin("web", [0])
    assert not cache.prefetch(3, 80, lambda: values[3]), "would push out what is needed"
    assert cache.prefetch(2, 40, lambda: values[2]) and cache.get(2, 40, lambda: None) is values[2]
    assert cache.get(0, 40, lambda: None) is values[0] and cache.used <= 100 and cache.peak <= 100

    def fail() -> Any:
        raise OSError("gone")

    cache.pin("web", [])
    for _ in range(2):
        with pytest.raises(OSError, match="gone"):
            cache.get(9, 10, fail)
    assert cache.get(9, 10, lambda: values[4]) is values[4], "a failure is not remembered"


def test_remote_damage_is_named(far: str) -> None:
    manifest = shards.read_manifest(far)
    entry = manifest.splits["train"]["docs"][0]
    with pytest.raises(shards.ShardTokenizer, match="tokenized with"):
        shards.RemoteShard(manifest.path(entry), entry, "0" * 64)
    missing = shards.ShardEntry("train/docs/00009.arrow", *list(vars(entry).values())[1:])
    with pytest.raises(shards.ShardMissing, match="the file is missing"):
        shards.RemoteShard(manifest.path(missing), missing)
    memory = fsspec.filesystem("memory")
    good = memory.cat_file(manifest.path(entry))
    memory.pipe_file("memory://broken/a.arrow", good[: len(good) // 2])
    opened = shards.RemoteShard("memory://broken/a.arrow", entry)
    with pytest.raises(shards.ShardTruncated, match="are missing"):
        opened.tokens(entry.tokens - 100, entry.tokens)
    memory.pipe_file("memory://broken/b.arrow", b"not a shard" * 10_000)
    with pytest.raises(shards.ShardFormat, match="not an Arrow file"):
        shards.RemoteShard("memory://broken/b.arrow", entry)


def test_several_runs_train_together(corpus: Path, tmp_path: Path, build: Any) -> None:
    other = build(tmp_path / "other", {"train/docs": [[np.arange(1, 900)]], "train/new": [[np.arange(1, 300)] * 3]})
    both = shards.read_manifest([str(corpus), str(tmp_path / "other")])
    first = shards.read_manifest(str(corpus))
    assert both.splits["train"]["docs"].tokens == first.splits["train"]["docs"].tokens + 900
    assert sorted(both.splits["train"]) == ["code", "docs", "new"] and both.mix.max_epochs == 4
    data, log, _ = new_data_order(both, DataConfig(seq_len=64), 17, 8, 10)
    sequences = data.sequences(log, 0, 5000)
    for w in sequences[::50]:
        assert data.domains[w.domain].shard(w.shard).tokens[w.start : w.start + 65].tolist() == w.tokens.tolist()
    assert {w.shard for w in sequences if w.domain == "docs"} == {0, 1, 2}
    shards.verify_manifest(both)
    strange = shards.Manifest(
        shards.TokenizerInfo("tokenizer.json", "f" * 64, 50_000, 0, "bpe"), other.splits, root="elsewhere"
    )
    with pytest.raises(shards.ShardTokenizer, match=r"elsewhere: tokenized with ffff.*tokenizer: \{path"):
        shards.join_manifests([first, strange])


def test_a_run_on_a_disk_and_one_far_away_train_together(corpus: Path, far: str) -> None:
    both = shards.read_manifest([str(corpus), far])
    data, log, _ = new_data_order(both, DataConfig(seq_len=64, weights={"docs": 1}), 17, 8, 10)
    assert data.domains["docs"].remote, "a part of it is"
    near = shards.read_manifest([str(corpus), str(corpus)])
    expected, _, _ = new_data_order(near, DataConfig(seq_len=64, weights={"docs": 1}), 17, 8, 10)
    sequences = tables(data, log, 400)
    assert sequences == tables(expected, log, 400) and {w[2] for w in sequences} >= {0, 2}


@pytest.mark.slow
def test_workers_of_a_dataloader_read_far_away_shards(corpus: Path) -> None:
    """The disk under another scheme is far away, and other processes see it too."""
    data, log, _ = new_data_order(shards.read_manifest(f"local://{corpus}"), DataConfig(seq_len=64), 17, 8, 10)
    assert all(d.remote for d in data.domains.values())
    near, _, _ = new_data_order(shards.read_manifest(str(corpus)), DataConfig(seq_len=64), 17, 8, 10)
    # spawned: far-away shards are fetched by threads, which a forked worker would not have
    loader = DataLoader(
        TokenLoader(data, log, steps=6), batch_size=None, num_workers=2, multiprocessing_context="spawn"
    )
    batches = list(loader)
    assert len(batches) == 6
    for i, batch in enumerate(batches):
        expected = near.batch(log, *log.step_range(i))
        assert all(a.equal(b) for a, b in zip(batch.tensors, expected.tensors, strict=True))


def test_further_validation_sets_come_from_any_run(corpus: Path, tmp_path: Path, build: Any) -> None:
    build(tmp_path / "other", {"train/books": [[np.arange(1, 90)]]})
    manifest = shards.read_manifest(str(corpus))
    found = validation_streams(manifest, {"extra": str(tmp_path / "other"), "self": str(corpus)})
    assert sorted(found) == ["code", "docs", "extra/books", "self/code", "self/docs"]
    assert [w.tokens.tolist() for w in iter_validation_sequences(found["extra/books"], 64, 1)] == [[0, *range(1, 65)]]
