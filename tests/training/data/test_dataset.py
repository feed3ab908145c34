"""Sequences read from real shards: which tokens, in which order, where documents begin, and what is refused.

Covers: token_streams.py, batch.py
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curation import shards
from curation.core.errors import UserError
from training.config import DataConfig
from training.data.batch import IGNORE_INDEX, collate
from training.data.data_order import OrderLog
from training.data.data_schedule import new_data_order
from training.data.token_streams import DomainStream, iter_validation_sequences


def opened(run: Path, batch: int = 8, **config: Any) -> tuple[shards.Manifest, Any, OrderLog]:
    manifest = shards.read_manifest(str(run))
    data, log, _ = new_data_order(manifest, DataConfig(**config), 17, batch, 10)
    return manifest, data, log


def test_sequences_are_the_same_in_any_pieces(corpus: Path) -> None:
    _, data, log = opened(corpus, seq_len=64, shuffle_block=128)
    log = log.with_change(96, seq_len=128, mix={"docs": 1}).with_change(120, mix={"code": 1, "docs": 1}, seq_len=32)
    whole = [(w.index, w.domain, w.epoch, w.shard, w.start, w.tokens.tolist()) for w in data.sequences(log, 0, 200)]
    assert [w[0] for w in whole] == list(range(200))
    for step in (1, 3, 50):
        _, again, _ = opened(corpus, seq_len=64, shuffle_block=128)
        pieces = [w for j in range(0, 200, step) for w in again.sequences(log, j, min(j + step, 200))]
        assert [(w.index, w.domain, w.epoch, w.shard, w.start, w.tokens.tolist()) for w in pieces] == whole


def test_an_epoch_reads_every_token_once(corpus: Path) -> None:
    manifest, data, log = opened(corpus, seq_len=64, shuffle_block=256, weights={"docs": 1})
    total = data.orders["docs"].total_blocks * 4
    for epoch in (0, 1):
        seen: Counter[tuple[int, int]] = Counter()
        order = []
        for w in data.sequences(log, epoch * total, (epoch + 1) * total):
            stream = data.domains["docs"].shard(w.shard).tokens
            assert w.epoch == epoch and w.tokens.tolist() == stream[w.start : w.start + 65].tolist()
            assert not w.tokens.flags.owndata
            seen.update((w.shard, w.start + 1 + i) for i in range(64))
            order.append((w.shard, w.start))
        assert set(seen.values()) == {1}
        tokens = manifest.splits["train"]["docs"].tokens
        assert tokens - len(seen) == data.orders["docs"].remainder <= 2 * 256
        assert order != sorted(order)


def test_quotas_hold_at_every_prefix(corpus: Path) -> None:
    _, data, log = opened(corpus, seq_len=64)
    assert log.segments[0].mix == {"code": 3, "docs": 2}
    code = 0
    for j, w in enumerate(data.sequences(log, 0, 500), 1):
        code += w.domain == "code"
        assert abs(5 * code - 3 * j) < 5


def test_documents_begin_where_their_eos_stands(corpus: Path) -> None:
    _, data, log = opened(corpus, seq_len=256)
    more = 0
    sequences = data.sequences(log, 0, 400)
    for w in sequences:
        inputs = w.tokens[:-1]
        assert w.document_starts.tolist() == sorted({0, *np.nonzero(inputs == 0)[0].tolist()})
        shard = data.domains[w.domain].shard(w.shard)
        ids = shard.documents.column("doc_id").to_pylist()
        for i, doc in enumerate(data.doc_ids(w)):
            at = w.start + int(w.document_starts[i])
            row = int(np.searchsorted(shard.offsets, at, side="right")) - 1
            assert bytes.fromhex(doc) == ids[row]
        more += len(w.document_starts) > 1
    assert more > 20
    batch = collate(sequences[:100], 256)
    for row, w in enumerate(sequences[:100]):
        assert batch.tokens[row].tolist() == w.tokens[:-1].tolist()
        assert batch.targets[row].tolist() == w.tokens[1:].tolist()
        expected = np.searchsorted(w.document_starts, np.arange(256), side="right") - 1
        assert batch.documents[row].tolist() == expected.tolist()


def test_masked_documents_are_no_targets(corpus: Path) -> None:
    _, data, log = opened(corpus, seq_len=256)
    several = next(w for w in data.sequences(log, 0, 400) if len(w.document_starts) == 2)
    masked = data.doc_ids(several)[1]
    first = several.index // 8 * 8
    plain = data.batch(log, first, first + 8)
    batch = data.batch(log.with_change(first, masked=(masked,)), first, first + 8)
    row, at = several.index - first, int(several.document_starts[1])
    assert batch.tokens.equal(plain.tokens) and batch.documents.equal(plain.documents)
    assert batch.targets[row, :at].equal(plain.targets[row, :at])
    assert set(batch.targets[row, at:].tolist()) == {IGNORE_INDEX}
    for other, w in enumerate(data.sequences(log, first, first + 8)):
        if masked not in data.doc_ids(w):
            assert batch.targets[other].equal(plain.targets[other])


@pytest.mark.parametrize("length", [64, 250])
def test_validation_reads_everything_once(corpus: Path, length: int) -> None:
    manifest = shards.read_manifest(str(corpus))
    domain = DomainStream("code", manifest, manifest.splits["validation"]["code"])
    sequences = list(iter_validation_sequences(domain, length, None))
    stream = domain.shard(0).tokens
    assert [t for w in sequences for t in w.tokens[1:].tolist()] == stream[1:].tolist()
    batch = collate(sequences[-2:], length)
    short = len(sequences[-1].tokens) - 1
    assert short == (len(stream) - 1) % length
    assert batch.targets[1, short:].tolist() == [IGNORE_INDEX] * (length - short)
    assert not set(batch.documents[1, :short].tolist()) & set(batch.documents[1, short:].tolist())
    assert [w.start for w in iter_validation_sequences(domain, length, 3)] == [0, length, 2 * length]


def test_refusals(corpus: Path, tmp_path: Path, build: Any) -> None:
    with pytest.raises(UserError, match=r"no domain web in .*; its domains are code, docs"):
        opened(corpus, weights={"web": 1})
    with pytest.raises(UserError, match=r"domain code is smaller than a block: .* a block needs 1000001"):
        opened(corpus, seq_len=1_000_000)
    with pytest.raises(UserError, match="positive weights"):
        opened(corpus, weights={"code": 0})
    manifest = shards.read_manifest(str(corpus))
    blocks = (159381 - 2) // 64 - 1  # docs: two shards
    with pytest.raises(
        UserError, match=r"domain docs would be read .* the cap is 1 epochs .* runs out in step (\d+)"
    ) as e:
        new_data_order(manifest, DataConfig(seq_len=64, weights={"docs": 1}, max_epochs=1), 17, 10, blocks)
    total = (
        new_data_order(manifest, DataConfig(seq_len=64, weights={"docs": 1}), 17, 10, 1)[0].orders["docs"].total_blocks
    )
    assert f"runs out in step {total // 10 + 1} of" in str(e.value)
    new_data_order(manifest, DataConfig(seq_len=64, weights={"docs": 1}, max_epochs=1), 17, 10, total // 10)
    tiny = build(tmp_path / "tiny", {"train/a": [[np.arange(1, 100)]]})
    _, log, _ = new_data_order(tiny, DataConfig(seq_len=16), 17, 4, 10)
    assert log.segments[0].mix == {"a": 1}, "without weights in either place: natural proportions"
