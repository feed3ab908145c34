"""Best-fit packing: every token once, few documents cut, the same from any place and at any sequence length."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import training
from curation.core.errors import UserError
from training.data.batch import IGNORE_INDEX
from training.data.best_fit import pack


@settings(max_examples=40)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.sampled_from([4, 8, 16]))
def test_bins_are_full_and_hold_each_token_once(lengths: list[int], size: int) -> None:
    total = -(-sum(lengths) // size) * size
    edges = np.cumsum([0, *lengths[:-1], lengths[-1] + total - sum(lengths)]).tolist()
    pieces = list(itertools.pairwise(edges))
    bins = pack(pieces, size)
    assert [sum(b - a for a, b in content) for content in bins] == [size] * (total // size)
    assert sorted(t for content in bins for a, b in content for t in range(a, b)) == list(range(total))
    assert all(any(p <= a and b <= q for p, q in pieces) for content in bins for a, b in content)


def test_documents_that_fit_together_stay_whole() -> None:
    lengths = [5, 3, 6, 2, 4, 4, 7, 1]  # end to end, in eights, three of them are cut
    edges = np.cumsum([0, *lengths]).tolist()
    pieces = list(itertools.pairwise(edges))
    shuffled = [pieces[i] for i in (0, 2, 4, 6, 1, 3, 5, 7)]
    assert sorted(p for content in pack(shuffled, 8) for p in content) == pieces


def opened(run: Path | str, length: int = 128, **settings: Any) -> Any:
    fixed = {"global_batch": 8, "weights": {"docs": 1}, "packing": "best_fit"}
    return training.dataset(str(run), seq_len=length, **{**fixed, **settings})


def test_an_epoch_trains_on_the_tokens_of_the_stream(corpus: Path) -> None:
    read: dict[str, Counter[int]] = {}
    for packing, length in (("stream", 256), ("best_fit", 256), ("best_fit", 64)):
        loader = opened(corpus, length, packing=packing, shuffle_block=256, max_epochs=1)
        every = [(b.tokens.flatten(), b.targets.flatten()) for b in loader]
        sequences = loader.data.orders["docs"].total_blocks * (256 // length)
        assert len(every) == sequences // 8
        rest = loader.data.batch(loader.log, len(every) * 8, sequences) if sequences % 8 else None
        tokens = [t for t, _ in every] + ([rest.tokens.flatten()] if rest else [])
        targets = [t for _, t in every] + ([rest.targets.flatten()] if rest else [])
        pairs = np.concatenate([t.numpy() for t in tokens]) * 10_000 + np.concatenate([t.numpy() for t in targets])
        read[f"{packing} {length}"] = Counter(pairs.tolist())
    assert read["stream 256"] == read["best_fit 256"] == read["best_fit 64"]
    counts = loader.packing_counts["docs"]
    assert counts.cropped_tokens == counts.padding_tokens == 0
    assert counts.documents > 50 and counts.cut * 4 < counts.cut_by_stream


def test_documents_are_numbered_and_masked_by_piece(corpus: Path) -> None:
    plain = opened(corpus, 512)
    batch = next(plain)
    starts = plain.data.manifest.tokenizer.eos
    for tokens, documents in zip(batch.tokens, batch.documents, strict=True):
        begins = np.flatnonzero(np.diff(documents.numpy(), prepend=-1))
        assert (np.diff(documents[begins].numpy()) == 1).all()
        opening = (tokens.numpy() == starts).nonzero()[0]
        assert set(opening) <= set(begins), "a document opens with EOS, and only there"
    domain = plain.data.domains["docs"]
    ids = [i.hex() for s in (0, 1) for i in domain.shard(s).documents.column("doc_id").to_pylist()]
    masked = next(opened(corpus, 512, masked=ids[::2]))
    assert np.array_equal(masked.tokens, batch.tokens)
    for row in range(8):
        for number in range(int(batch.documents[row].max()) + 1):
            here = batch.documents[row] == number
            lost = masked.targets[row][here] == IGNORE_INDEX
            assert lost.all() or not lost.any()
    assert 0 < int((masked.targets == IGNORE_INDEX).sum()) < masked.targets.numel()


def test_it_is_the_same_from_anywhere_and_from_far_away(corpus: Path) -> None:
    one = [b.tokens for b, _ in zip(opened(corpus), range(6), strict=False)]
    later = opened(corpus, cache=1)
    later.skip_to(4)
    assert np.array_equal(next(later).tokens, one[4])
    far = opened(f"local://{corpus}")
    assert far.data.domains["docs"].remote
    assert all(np.array_equal(next(far).tokens, expected) for expected in one)


def test_a_state_of_the_other_packing_is_refused(corpus: Path) -> None:
    with pytest.raises(UserError, match="packing='stream' and the loader has 'best_fit'"):
        opened(corpus).load_state_dict(opened(corpus, packing="stream").state_dict())
    with pytest.raises(UserError, match="expected stream or best_fit"):
        opened(corpus, packing="bestfit")
