"""The loader: any ranks and passes give one order, a state goes on anywhere, and reading ahead changes nothing.

Covers: open_dataset.py
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import training
from curation.core.errors import UserError
from training.data.batch import IGNORE_INDEX, Batch
from training.data.loader import TokenLoader

SETTINGS: dict[str, Any] = {"seq_len": 32, "global_batch": 26, "max_epochs": 1000, "weights": {"code": 2, "docs": 3}}


def ranks(run: Path, world: int, accumulation: int = 1, **settings: Any) -> list[TokenLoader]:
    options = {**SETTINGS, "world": world, "accumulation": accumulation, **settings}
    return [training.dataset(str(run), rank=r, **options) for r in range(world)]


def steps_of(loaders: Iterable[TokenLoader], count: int) -> list[str]:
    """Each step's hashes of tokens, targets and documents, in the order of the global batch."""
    loaders, found = list(loaders), []
    for _ in range(count):
        digests = [hashlib.sha256() for _ in range(3)]
        for number in range(loaders[0].accumulation):
            for loader in loaders:
                batch = next(loader)
                assert batch.ends_step == (number == loader.accumulation - 1)
                for digest, tensor in zip(digests, batch.tensors, strict=True):
                    digest.update(tensor.numpy().tobytes())
        found.append("".join(d.hexdigest() for d in digests))
    return found


def test_a_state_of_8_ranks_resumes_at_3_with_the_same_global_sequence(corpus: Path) -> None:
    settings = {"global_batch": 11, "prefetch": 0}  # ranks of one sequence and of two, of three and of four
    expected = steps_of(ranks(corpus, 1, **settings), 1000)
    assert len(set(expected)) == 1000
    eight = ranks(corpus, 8, **settings)
    assert steps_of(eight, 400) == expected[:400]
    states = [json.dumps(r.state_dict()) for r in eight]
    assert len(set(states)) == 1 and len(states[0]) < 1000, "a few numbers, the same on every rank"
    three = ranks(corpus, 3, accumulation=2, **settings)
    for loader in three:
        loader.load_state_dict(json.loads(states[0]))
    assert steps_of(three, 600) == expected[400:]


def test_2_ranks_of_2_passes_read_what_1_reads(corpus: Path) -> None:
    assert steps_of(ranks(corpus, 2, accumulation=2), 50) == steps_of(ranks(corpus, 1), 50)


def test_it_reads_ahead_and_gives_the_same(corpus: Path) -> None:
    (ahead,), (plain,) = ranks(corpus, 1, prefetch=5), ranks(corpus, 1, prefetch=0)
    read: list[int] = []
    inner = ahead.data.batch
    ahead.data.batch = lambda log, a, b: (read.append(a // 26), inner(log, a, b))[1]  # type: ignore[method-assign]
    first = steps_of([ahead], 1)
    ahead._ahead._pool.shutdown(wait=True)  # type: ignore[union-attr]
    assert read == [0, 1, 2, 3, 4, 5, 6], "the item that was asked for and five or six more, each once, in order"
    assert first == steps_of([plain], 1)
    (again,) = ranks(corpus, 1, prefetch=5, steps=7)
    assert len(again) == 7 and [b.step for b in again] == list(range(7)) and not list(again)


def test_skip_to_goes_anywhere_and_a_begun_step_goes_on(corpus: Path) -> None:
    expected = steps_of(ranks(corpus, 1), 30)
    loaders = ranks(corpus, 2, accumulation=3)
    for step in (25, 3, 4, 0):
        for loader in loaders:
            loader.skip_to(step)
        assert steps_of(loaders, 2) == expected[step : step + 2]
    (one,), (same,), (other,) = (ranks(corpus, 1, accumulation=n) for n in (3, 3, 2))
    passes = [next(one) for _ in range(8)]
    state = pickle.loads(pickle.dumps(one)).state_dict()  # a copy in another process goes on, too
    assert state == one.state_dict() and (state["step"], state["taken"]) == (2, 2)
    same.load_state_dict(state)
    assert torch.equal(next(same).tokens, next(one).tokens)
    other.load_state_dict(state)  # other passes: the step is begun again
    assert torch.equal(next(other).tokens[: len(passes[6].tokens)], passes[6].tokens)
    with pytest.raises(UserError, match="step 11 is not one of this loader's steps 0 to 10"):
        ranks(corpus, 1, steps=10)[0].skip_to(11)


def test_settings_may_change_where_a_state_is_loaded(corpus: Path) -> None:
    (first,) = ranks(corpus, 1, shuffle_block=64)
    before = steps_of([first], 5)
    longer = {"seq_len": 64, "global_batch": 4, "weights": {"docs": 1}, "shuffle_block": 64}
    (second,) = ranks(corpus, 1, **longer)
    second.load_state_dict(first.state_dict())
    batch = next(second)
    assert batch.step == 5 and batch.tokens.shape == (4, 64) and set(batch.domains) == {"docs"}
    second.skip_to(0)
    assert steps_of([second], 5) == before, "what was read stays as it was"


def test_a_state_of_other_data_is_refused(corpus: Path, tmp_path: Path, build: Any) -> None:
    (first,) = ranks(corpus, 1)
    with pytest.raises(UserError, match=r"this state is of seed 17, and the loader reads .* with seed 3"):
        ranks(corpus, 1, seed=3)[0].load_state_dict(first.state_dict())
    build(tmp_path / "other", {"train/web": [[np.arange(1, 900)]]})
    with pytest.raises(UserError, match="this state is of other shards"):
        ranks(tmp_path / "other", 1, weights={"web": 1})[0].load_state_dict(first.state_dict())


def test_masked_documents_have_no_targets_and_stay_masked(corpus: Path) -> None:
    (plain,), (masked,) = ranks(corpus, 1), ranks(corpus, 1)
    sequences = plain.data.sequences(plain.log, 0, 26)
    bad = plain.data.doc_ids(sequences[0])[0]
    from_start = ranks(corpus, 1, masked=[bad])[0]
    batch, whole = next(from_start), next(plain)
    lost = (batch.targets == IGNORE_INDEX) & (whole.targets != IGNORE_INDEX)
    assert torch.equal(batch.tokens, whole.tokens) and lost[0][whole.documents[0] == 0].all() and lost.sum() > 0

    next(masked)
    masked.mask_documents([bad])
    masked.mask_documents(["ff" * 16])
    again = ranks(corpus, 1)[0]
    again.load_state_dict(json.loads(json.dumps(masked.state_dict())))
    assert again.log.segment_at(26).masked == masked.log.segment_at(26).masked == tuple(sorted([bad, "ff" * 16]))
    assert again.log.segment_at(25).masked == ()
    assert torch.equal(next(again).targets, next(masked).targets)


def test_document_boundaries_for_other_models(corpus: Path) -> None:
    (loader,) = ranks(corpus, 1, seq_len=256)
    batch: Batch = next(loader)
    assert int(batch.documents.max()) >= 1
    bounds = batch.cu_seqlens.tolist()
    assert batch.cu_seqlens.dtype == torch.int32 and bounds[0] == 0 and bounds[-1] == 26 * 256
    positions = batch.position_ids.flatten().tolist()
    assert positions == [i for a, b in itertools.pairwise(bounds) for i in range(b - a)]
    assert set(range(0, 26 * 256, 256)) <= set(bounds), "no document reaches over two sequences"
    eos = loader.data.manifest.tokenizer.eos
    opened = [i for i in bounds[:-1] if i % 256]
    assert opened and (batch.tokens.flatten()[opened] == eos).all()


def test_it_ends_where_max_epochs_is_used_up(corpus: Path) -> None:
    ends = ranks(corpus, 1, weights={"docs": 1}, max_epochs=2)[0]
    epoch = ends.data.orders["docs"].total_blocks
    assert len(ends) == 2 * epoch // 26
    with pytest.raises(UserError, match=r"it runs out in step \d+ of 100000"):
        ranks(corpus, 1, max_epochs=2, steps=100_000)
    assert len(ranks(corpus, 1, max_epochs=None)[0]) == len(ranks(corpus, 1, max_epochs=4)[0]), "the run's cap"
    endless = ranks(corpus, 1, max_epochs=math.inf)[0]
    with pytest.raises(TypeError, match="the loader has no end"):
        len(endless)
    endless.skip_to(10**9)
    assert next(endless).step == 10**9


def test_wrong_settings_are_named(corpus: Path) -> None:
    with pytest.raises(UserError, match=r"changes.*wieghts"):
        ranks(corpus, 1, changes=[{"at": 5, "wieghts": {"docs": 1}}])
    with pytest.raises(UserError, match="no domain books"):
        ranks(corpus, 1, weights={"books": 1})
    with pytest.raises(UserError, match="seq_len"):
        ranks(corpus, 1, seq_len=0)


def test_changes_come_at_their_steps(corpus: Path) -> None:
    (loader,) = ranks(corpus, 1, changes=[{"at": 2, "global_size": 4}, {"at": 3, "weights": {"docs": 1}}])
    sizes = [(len(b.domains), set(b.domains)) for b, _ in zip(loader, range(4), strict=False)]
    assert [n for n, _ in sizes] == [26, 26, 4, 4] and sizes[3][1] == {"docs"}


def test_items_are_what_transform_makes_of_batches(corpus: Path) -> None:
    (loader,) = ranks(corpus, 1, transform=lambda b: {"input_ids": b.tokens, "labels": b.targets})
    assert set(next(loader)) == {"input_ids", "labels"} and loader.step == 1


def test_an_error_of_the_thread_reaches_the_loop(corpus: Path) -> None:
    tries: list[int] = []

    def transform(batch: Batch) -> int:
        tries.append(batch.step)
        if batch.step == 3 and tries.count(3) == 1:
            raise ValueError("of step 3")
        return batch.step

    (loader,) = ranks(corpus, 1, transform=transform)
    assert [next(loader) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="of step 3"):
        next(loader)
    assert [next(loader) for _ in range(3)] == [3, 4, 5], "a second try gives the same item"


@pytest.mark.parametrize(("before", "after"), [(16, 4), (4, 16)])
def test_the_data_end_where_they_end_whatever_the_batch_is_after_a_resume(
    corpus: Path, before: int, after: int
) -> None:
    once = {"max_epochs": 1, "prefetch": 0, "weights": None}
    (whole,) = ranks(corpus, 1, global_batch=1, **once)
    (first,) = ranks(corpus, 1, global_batch=before, **once)
    for _ in range(4):
        next(first)
    (second,) = ranks(corpus, 1, global_batch=after, **once)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    read = 4 * before + sum(len(batch.tokens) for batch in second)
    assert len(whole) - after < read <= len(whole)


def test_a_step_whose_sequences_are_others_now_begins_again(corpus: Path) -> None:
    (loader,) = ranks(corpus, 1, accumulation=2, global_batch=8, prefetch=0)
    states = [json.loads(json.dumps(loader.state_dict())) for _ in range(4) if next(loader)]
    (at_begin,) = ranks(corpus, 1, accumulation=2, global_batch=4, prefetch=0)
    (inside,) = ranks(corpus, 1, accumulation=2, global_batch=4, prefetch=0)
    at_begin.load_state_dict(states[1])  # after step 0
    inside.load_state_dict(states[2])  # after one pass of step 1
    assert (states[1]["taken"], states[2]["taken"]) == (0, 1)
    assert steps_of([inside], 2) == steps_of([at_begin], 2), "none read twice, none left out"


def test_data_without_one_global_batch_are_refused(corpus: Path) -> None:
    with pytest.raises(UserError, match="max_epochs 1: the data have not one global batch of 100000 sequences"):
        ranks(corpus, 1, global_batch=100_000, max_epochs=1)
