"""The promises about order as a whole: any world, any number of workers, any history of interruptions, exact quotas.

Covers: data_schedule.py, read_history.py
"""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from curation import shards
from curation.core.errors import UserError
from tests.conftest import HANG, ROOT
from training.config import DataConfig
from training.data.batch import Batch
from training.data.block_order import DomainOrder
from training.data.data_order import OrderLog, Segment
from training.data.data_schedule import new_data_order, rank_slices, resume_data_order
from training.data.dataset import TokenDataset
from training.data.loader import TokenLoader
from training.data.mix_table import integer_mix
from training.data.read_history import find_reads, quota_errors, replay_order

GLOBAL_SIZE, STEPS = 96, 3
CHANGES = (
    {"at": 4, "weights": {"code": 1, "docs": 3}},
    {"at": 7, "seq_len": 128, "global_size": 8},
    {"at": 9, "seq_len": 32, "weights": {"docs": 0.7, "code": 0.3}, "global_size": 24},
)


def opened(run: Path | str, batch: int, steps: int = 10, **config: Any) -> tuple[TokenDataset, OrderLog]:
    data, log, _ = new_data_order(shards.read_manifest(str(run)), DataConfig(**config), 17, batch, steps)
    return data, log


def listed(parts: list[Batch]) -> list[tuple[str, list[int], list[int], list[int]]]:
    """A batch as an ordered list of its sequences."""
    return [
        (domain, x.tolist(), y.tolist(), d.tolist())
        for part in parts
        for domain, x, y, d in zip(part.domains, part.tokens, part.targets, part.documents, strict=True)
    ]


ALL = [(world, accumulation) for world in (1, 2, 3, 4, 8) for accumulation in (1, 2, 4)]
CORNERS = [(1, 1), (3, 2), (8, 4)]


@pytest.mark.parametrize(("workers", "worlds"), [(0, ALL), (2, CORNERS), pytest.param(2, ALL, marks=pytest.mark.slow)])
def test_global_batches_are_the_same_lists_for_any_world(
    corpus: Path, workers: int, worlds: list[tuple[int, int]]
) -> None:
    if not workers:
        compare_worlds(str(corpus), workers, worlds)
        return
    # Workers are forks. They died in a process in which clusters had run before, whose threads a fork does not have.
    call = f"from {__name__} import compare_worlds; compare_worlds({str(corpus)!r}, {workers}, {worlds})"
    done = subprocess.run([sys.executable, "-c", call], cwd=ROOT, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stderr[-4000:]


def compare_worlds(corpus: str, workers: int, worlds: list[tuple[int, int]]) -> None:
    data, log = opened(corpus, GLOBAL_SIZE, seq_len=64)
    whole = [listed([data.batch(log, *log.step_range(i))]) for i in range(STEPS)]
    assert len({str(w) for batch in whole for w in batch}) == GLOBAL_SIZE * STEPS
    for world, accumulation in worlds:
        again, _ = opened(corpus, GLOBAL_SIZE, seq_len=64)
        options = {"world": world, "accumulation": accumulation, "steps": STEPS, "prefetch": 0 if workers else 8}
        ranks = [TokenLoader(again, log, rank=r, **options) for r in range(world)]
        read = [list(DataLoader(r, batch_size=None, num_workers=workers) if workers else r) for r in ranks]
        assert {len(r) for r in read} == {STEPS * accumulation}
        for i in range(STEPS):
            parts = [read[r][i * accumulation + a] for a in range(accumulation) for r in range(world)]
            assert listed(parts) == whole[i], (world, accumulation, i)
            assert [p.ends_step for p in parts] == [a == accumulation - 1 for a in range(accumulation) for _ in ranks]


@given(world=st.integers(1, 9), accumulation=st.integers(1, 5), more=st.integers(0, 60))
def test_a_batch_that_does_not_divide_differs_by_one_sequence_at_most(world: int, accumulation: int, more: int) -> None:
    batch = world * accumulation + more
    dealt = [rank_slices(batch, world, accumulation, r) for r in range(world)]
    in_order = [dealt[r][a] for a in range(accumulation) for r in range(world)]
    assert in_order[0][0] == 0 and in_order[-1][1] == batch
    assert all(left[1] == right[0] for left, right in itertools.pairwise(in_order))
    sizes = np.array([[end - begin for begin, end in parts] for parts in dealt])
    assert sizes.min() >= 1 and np.ptp(sizes, axis=0).max() <= 1 and np.ptp(sizes.sum(axis=1)) <= 1
    if batch % (world * accumulation) == 0:
        assert np.ptp(sizes) == 0


def test_a_batch_with_too_few_sequences_says_how_many_are_needed(corpus: Path) -> None:
    with pytest.raises(
        UserError, match=r"batch of 9 cannot be divided over 5 ranks × 2 accumulation passes, which need 10"
    ):
        rank_slices(9, 5, 2, 0)
    data, log = opened(corpus, 4, seq_len=64)
    with pytest.raises(UserError, match="which need 5 sequences or more"):
        TokenLoader(data, log, world=5)


@pytest.mark.parametrize("seed", range(10))
def test_killed_and_resumed_at_other_worlds_every_window_once_an_epoch(corpus: Path, seed: int) -> None:
    """A history of kills: each life begins at a checkpoint, with its own world size, and may lose work behind it."""
    rng = random.Random(seed)
    data, log = opened(corpus, GLOBAL_SIZE, seq_len=64, weights={"docs": 1})
    epoch = data.orders["docs"].total_blocks
    steps = 2 * epoch // GLOBAL_SIZE
    kept: dict[int, list[tuple[int, int, int]]] = {}
    at = 0
    while at < steps:
        world, accumulation = rng.choice([1, 2, 3, 4, 8]), rng.choice([1, 2, 4])
        life, _ = opened(corpus, GLOBAL_SIZE, seq_len=64, weights={"docs": 1})
        log = OrderLog.from_dict(log.as_dict())  # all that a checkpoint holds
        killed = min(steps, at + rng.randint(1, steps // 2))
        for i in range(at, killed):
            first = log.step_range(i)[0]
            kept[i] = [
                (w.epoch, w.shard, w.start)
                for a in range(accumulation)
                for r in range(world)
                for w in life.sequences(log, *(first + s for s in rank_slices(GLOBAL_SIZE, world, accumulation, r)[a]))
            ]
        at = killed if killed == steps else rng.randint(at, killed)  # back to the last checkpoint
    read = Counter(w for i in range(steps) for w in kept[i])
    assert set(read.values()) == {1}
    by_epoch = Counter(e for e, _, _ in read)
    assert by_epoch[0] == epoch and sum(by_epoch.values()) == steps * GLOBAL_SIZE


def check_mix(rng: random.Random, sequences: int) -> None:
    k = rng.randint(2, 50)
    mix, _ = integer_mix({f"d{i}": rng.random() ** rng.choice([1, 4]) + 1e-9 for i in range(k)})
    log = OrderLog.new(mix, 16, 16, 8)
    total, n = sum(mix.values()), np.arange(1, sequences + 1, dtype=np.int64)
    (_, domains, ordinals), *rest = log.locate(0, sequences)
    assert not rest
    for i, quota in enumerate(mix.values()):
        here = domains == i
        assert int(np.abs(np.cumsum(here) * total - n * quota).max()) < total  # |read - quota| < 1, in integers
        assert (ordinals[here] == np.arange(np.count_nonzero(here))).all()


def test_quotas_hold_at_every_prefix_of_a_million_sequences() -> None:
    rng = random.Random(1)
    for _ in range(4):
        check_mix(rng, 1_000_000)


@pytest.mark.nightly
def test_quotas_hold_at_every_prefix_of_a_million_sequences_for_a_hundred_mixes() -> None:
    rng = random.Random(2)
    for _ in range(100):
        check_mix(rng, 1_000_000)


def test_three_changes_on_the_way_hold_their_quotas_and_caps(corpus: Path) -> None:
    data, log = opened(corpus, 16, 40, seq_len=64, shuffle_block=128, changes=CHANGES, max_epochs=4)
    assert [(s.start, s.seq_len, s.global_size) for s in log.segments] == [
        (0, 64, 16),
        (64, 64, 16),
        (112, 128, 8),
        (128, 32, 24),
    ]
    assert [log.step_range(i) for i in (0, 4, 7, 8, 9, 10)] == [
        (0, 16),
        (64, 80),
        (112, 120),
        (120, 128),
        (128, 152),
        (152, 176),
    ]
    assert [log.step_of(w) for w in (0, 63, 64, 111, 112, 127, 128, 152)] == [0, 3, 4, 6, 7, 8, 9, 10]
    sequences = log.step_range(40)[0]
    counted = replay_order(log, data.orders, sequences)
    assert all(c.error < 1 for c in counted.values())
    assert sum(c.sequences for c in counted.values()) == sequences
    for name, count in counted.items():
        mine = [w for w in data.sequences(log, 0, sequences) if w.domain == name]
        assert count.sequences == len(mine) and count.tokens == sum(len(w.tokens) - 1 for w in mine)
        assert count.epochs < 4 and count.most - count.fewest <= 1
    # twice the steps would read more of docs than its cap
    with pytest.raises(UserError, match=r"domain docs would be read .* the cap is 0.05 epochs .* runs out in step"):
        opened(corpus, 16, 40, seq_len=64, shuffle_block=128, changes=CHANGES, max_epochs=0.05)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_smaller_budget_reads_a_part_of_what_a_larger_one_reads(corpus: Path, data: st.DataObject) -> None:
    """Sampling below an epoch is by keyed permutation: of each domain the smaller quota's inputs are among the
    larger's, whatever weights, batch and steps made the quotas."""
    read: list[dict[str, list[tuple[int, int, int]]]] = []
    for _ in range(2):
        weight = data.draw(st.sampled_from([0.1, 0.35, 0.6, 0.9]))
        batch, steps = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 60))
        weights = {"code": weight, "docs": 1 - weight}
        reader, log = opened(corpus, batch, steps, seq_len=64, shuffle_block=128, weights=weights)
        found: dict[str, list[tuple[int, int, int]]] = {"code": [], "docs": []}
        for w in reader.sequences(log, 0, batch * steps):
            assert w.epoch == 0
            found[w.domain].append((w.shard, w.start, len(w.tokens)))
        read.append(found)
    for domain in ("code", "docs"):
        smaller, larger = sorted((r[domain] for r in read), key=len)
        assert larger[: len(smaller)] == smaller and len(set(larger)) == len(larger)


def test_a_change_on_resume_leaves_what_was_read_and_goes_by_the_new_configuration(corpus: Path) -> None:
    manifest = shards.read_manifest(str(corpus))
    data, log = opened(corpus, 16, 40, seq_len=64, shuffle_block=128)
    log = log.with_change(80, masked=("00" * 16,))
    before = [(w.domain, w.shard, w.start) for w in data.sequences(log, 0, 160)]
    same = resume_data_order(manifest, DataConfig(seq_len=64, shuffle_block=128), 17, 16, 40, log, 160)
    assert same[1] is log
    config = DataConfig(seq_len=128, shuffle_block=128, weights={"docs": 1}, changes=({"at": 12, "global_size": 4},))
    _, changed, _ = resume_data_order(manifest, config, 17, 16, 40, log, 160)
    assert [(w.domain, w.shard, w.start) for w in data.sequences(changed, 0, 160)] == before
    assert [(s.start, s.global_size, s.seq_len, s.mix) for s in changed.segments[-2:]] == [
        (160, 16, 128, {"docs": 1}),
        (192, 4, 128, {"docs": 1}),
    ]
    assert changed.segments[-1].masked == ("00" * 16,)
    replay_order(changed, data.orders, 400)
    with pytest.raises(UserError, match="256 inputs does not divide the shuffle block of 128"):
        resume_data_order(manifest, DataConfig(seq_len=256), 17, 16, 40, log, 160)


@pytest.mark.parametrize("batch", [1, 16])
def test_seen_is_what_the_sequences_say(corpus: Path, batch: int) -> None:
    data, log = opened(corpus, batch, 400, seq_len=64, shuffle_block=128, changes=CHANGES)
    sequences = log.step_range(400)[0] if batch == 1 else 2000
    found: dict[str, list[int]] = {}
    for w in data.sequences(log, 0, sequences):
        for doc in data.doc_ids(w):
            found.setdefault(doc, []).append(w.index)
    for name, domain in data.domains.items():
        for number in range(len(domain.shards)):
            stream = domain.shard(number)
            for row, doc in enumerate(stream.documents.column("doc_id").to_pylist()):
                first, last = int(stream.offsets[row]), int(stream.offsets[row + 1])
                readings = find_reads(log, data.orders[name], number, first, last, sequences)
                assert [r.sequence for r in readings] == found.get(doc.hex(), []), (name, number, row)
                assert all(r.step == log.step_of(r.sequence) + 1 for r in readings)
    assert max(map(len, found.values())) > 10


@pytest.mark.parametrize("tokens", [[40, 33, 500], [16, 1000, 0, 17, 18], [2000]])
def test_positions_of_is_the_inverse_of_blocks_at(tokens: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.data.block_order.EXTENT_BYTES", 5 * 16 * 2)
    monkeypatch.setattr("training.data.block_order.EXTENTS_IN_GROUP", 3)
    domain = DomainOrder("web", tokens, 16, 2, seed=3)
    for epoch in range(3):
        at = np.arange(domain.total_blocks)
        assert domain.positions_of(epoch, domain.blocks_at(epoch, at)).tolist() == at.tolist()


def test_a_damaged_log_is_found(corpus: Path) -> None:
    data, log = opened(corpus, 16, 40, seq_len=64, weights={"docs": 1})
    good = log.with_change(32, mix={"docs": 2})
    twice = OrderLog(64, (*good.segments[:1], Segment(32, {"docs": 5}, {"docs": 2}, 64, 16)))
    replay_order(good, data.orders, 100)
    with pytest.raises(ValueError, match="domain docs does not continue where it was left"):
        replay_order(twice, data.orders, 100)
    assert quota_errors(log.segments[0], 100) == {"docs": 0}
