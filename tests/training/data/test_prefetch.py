"""Read-ahead of local shards: each group asked for once, with the right bytes of the right files."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from curation import shards
from training.config import DataConfig
from training.data import block_order, prefetch
from training.data.data_schedule import new_data_order
from training.data.dataset import FIRST_LOCATED, LOCATED_AHEAD


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="no posix_fadvise on this system: nothing is read ahead")
def test_groups_are_asked_for_once_whole_and_before_they_are_read(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_order, "EXTENT_BYTES", 4 * 64 * 2)
    monkeypatch.setattr(block_order, "EXTENTS_IN_GROUP", 3)
    asked: list[tuple[str, int, int]] = []

    def advise(file: int, at: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_WILLNEED
        asked.append((os.readlink(f"/proc/self/fd/{file}"), at, length))

    monkeypatch.setattr(prefetch.os, "posix_fadvise", advise)
    data, log, _ = new_data_order(
        shards.read_manifest(str(corpus)), DataConfig(seq_len=64, weights={"docs": 1}), 17, 8, 10
    )
    order, domain = data.orders["docs"], data.domains["docs"]
    for first in range(0, order.total_blocks, 8):
        data.batch(log, first, min(first + 8, order.total_blocks))
    for thread in threading.enumerate():
        if thread.daemon and thread.name.startswith("Thread-"):
            thread.join(5)
    epochs, positions = np.divmod(np.arange(FIRST_LOCATED + LOCATED_AHEAD), order.total_blocks)
    groups = {(e, n) for e, g in order.groups_of(epochs, positions) for n in (g, g + 1)}
    expected = [r for epoch, group in groups for r in order.group_extents(epoch, group)]
    found = []
    for path, at, length in asked:
        shard = next(s for s in range(len(domain.shards)) if data.manifest.path(domain.shards[s]) == path)
        start = domain.mapped[shard].start
        found.append((shard, (at - start) // 2, (at + length - start) // 2))
    assert sorted(found) == sorted(expected) and len(found) > order.extents
    shard, first, last = expected[0]
    raw = Path(data.manifest.path(domain.shards[shard])).read_bytes()
    begin = domain.mapped[shard].start + 2 * first
    assert raw[begin : begin + 2 * (last - first)] == domain.mapped[shard].tokens[first:last].tobytes()
