"""A global step's features and its last stage run in the map phases around it: same results, texts are read less."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curation.engine.tasks.joined_signals import JoinedSignals
from tests.curation.engine import runs

KIND = pa.struct([("n", pa.int64())])


def batch(task: int, rows: list[int]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"address": pa.array([task << 32 | r for r in rows], pa.int64()), "n": rows})


def test_signals_come_chunk_by_chunk_and_no_further() -> None:
    given: list[int] = []

    def batches() -> Any:
        for rows in ([0, 1, 2], [], [5, 6], [9], [12, 13]):
            given.extend(rows)
            yield batch(3, rows)

    joined = JoinedSignals(batches(), 3, "step", KIND)
    assert joined.of(np.array([0, 2])).to_pylist() == [{"n": 0}, {"n": 2}] and given == [0, 1, 2]
    assert joined.of(np.array([4, 5])).to_pylist() == [None, {"n": 5}]
    assert joined.of(np.array([6, 8, 9])).to_pylist() == [{"n": 6}, None, {"n": 9}] and given[-1] == 9
    assert joined.of(np.array([14])).to_pylist() == [None]


@pytest.mark.parametrize("wrong", [[batch(3, [1, 0])], [batch(3, [1]), batch(3, [1])], [batch(2, [1])]])
def test_rows_that_are_no_signals_of_the_task_are_refused(wrong: list[pa.RecordBatch]) -> None:
    with pytest.raises(AssertionError, match="out of reading order, or of another task"):
        JoinedSignals(iter(wrong), 3, "step", KIND).of(np.array([1, 2]))


def test_another_option_of_a_global_step_reads_texts_once_and_computes_no_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"text": f"{word} the mill grinds what the wind brings to it " * 5, "url": f"http://e.org/{i}"}
            for i, word in enumerate(["rye", "rye", "oat", "wheat"])]  # fmt: skip
    runs.write_jsonl(tmp_path / "texts" / "a.jsonl", rows)

    def tree(bands: int) -> dict[str, Any]:
        steps: list[Any] = [{"language": {}, "keep": {"any": "length(text) > 0"}}, "exact_dedup"]
        steps.append({"minhash_dedup": {"num_bands": bands, "rows_per_band": 2}})
        return runs.text_pipeline(tmp_path, steps=steps)

    assert runs.curate(tmp_path, tree(4)).computed == {"language": 4}
    read = runs.count_text_reads(monkeypatch)
    assert runs.curate(tmp_path, tree(8)).computed == {}
    # signatures; candidates, as sender and as receiver; documents
    assert read[0] <= 4 * 4
    again = runs.tree_bytes(tmp_path / "run")
    runs.curate(tmp_path, tree(8), "fresh")
    assert again == runs.tree_bytes(tmp_path / "fresh")
