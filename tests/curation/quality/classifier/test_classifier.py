"""The classifier step and its training: real fastText, real labelled text, the same bytes every time.

Covers: train.py, curation/quality/held_out_metrics.py
"""

from __future__ import annotations

import csv
import json
import math
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation import models
from curation.core.errors import UserError
from curation.quality.classifier.classifier import Classifier
from curation.quality.classifier.train import TrainedClassifier, fit, train_classifier
from curation.quality.held_out_metrics import auc, expected_calibration_error

SMALL = {"dim": 8, "bucket": 20_000, "wordNgrams": 2, "epoch": 3}


@pytest.fixture(scope="module")
def pairs(data: Path) -> list[tuple[str, str]]:
    with open(data / "toxicity/labeled_data.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    return [("neither" if row["class"] == "2" else "offen-sive", row["tweet"]) for row in rows]


@pytest.fixture(scope="module")
def trained(pairs: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> TrainedClassifier:
    return fit(pairs, str(tmp_path_factory.mktemp("c") / "deep" / "c.bin"), options=SMALL)


def run(step: Classifier, texts: list[str | None]) -> list[dict[str, float | None]]:
    out = step(pa.record_batch({"text": pa.array(texts, pa.large_string())}))
    assert out.column(step.name).type == pa.struct(list(step.signals))
    assert out.column(step.name).null_count == 0
    rows: list[dict[str, float | None]] = out.column(step.name).to_pylist()
    return rows


def test_held_out_figures(trained: TrainedClassifier, pairs: list[tuple[str, str]]) -> None:
    assert [r.label for r in trained.labels] == ["neither", "offen-sive"]
    assert sum(r.trained + r.metrics.positives for r in trained.labels) == len(pairs)
    assert all(r.metrics.auc > 0.95 for r in trained.labels) and trained.accuracy > 0.9
    for r in trained.labels:
        thresholds = r.metrics.thresholds
        recalls = [c.recall for c in thresholds]
        assert recalls == sorted(recalls, reverse=True)
        assert 0.08 < r.metrics.positives / (r.trained + r.metrics.positives) < 0.12
        assert thresholds[9].threshold == 0.5 and thresholds[9].precision > 0.7
        assert 0 < r.metrics.ece < 0.1
    card = Path(trained.card).read_text()
    assert trained.card == trained.path + ".md" and models.sha256(trained.path) in card
    for r in trained.labels:
        assert f"| {r.label} | {r.trained:,} | {r.metrics.positives:,} of {r.metrics.samples:,} |" in card
        assert f"| 0.50 | {r.metrics.thresholds[9].selected:.3f} | {r.metrics.thresholds[9].precision:.3f} |" in card


@pytest.mark.parametrize("quantise", [False, True])
def test_the_same_samples_give_the_same_bytes(pairs: list[tuple[str, str]], tmp_path: Path, quantise: bool) -> None:
    some = pairs[:1500]
    options = SMALL | {"bucket": 3000}  # clustering the matrix is what takes the time
    reports = [
        fit(some if i % 2 else some[::-1], str(tmp_path / f"{i}"), options=options, quantise=quantise) for i in range(3)
    ]
    files = {(tmp_path / f"{i}").read_bytes() for i in range(3)}
    assert len(files) == 1 and len({(str(r.labels), r.accuracy) for r in reports}) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0", "0.md", "1", "1.md", "2", "2.md"]


def test_the_step_scores(trained: TrainedClassifier) -> None:
    step = pickle.loads(pickle.dumps(Classifier(model=trained.path, labels=["offen-sive", "neither"], name="tone")))
    step.check()
    assert step.signals.names == ["offen_sive", "neither"] and step.models() == (trained.path,)
    step.open()
    texts = ["The museum opens\nat nine.", "", None, " \n", "🙂", "__label__neither", "a\0b", "x" * 1_000_000]
    rows = run(step, list(texts))
    assert rows == [run(step, [text])[0] for text in texts]
    for text, row in zip(texts, rows, strict=True):
        if text in ("", None, " \n"):
            assert row == {"offen_sive": None, "neither": None}
        else:
            values = [v for v in row.values() if v is not None]
            assert sum(values) == pytest.approx(1, abs=1e-4) and all(0 <= v <= 1 for v in values)
    assert run(step, []) == []


def test_options_are_refused(trained: TrainedClassifier) -> None:
    with pytest.raises(UserError, match="`model` is missing"):
        Classifier(labels=["a"]).check()
    with pytest.raises(UserError, match="`labels` is empty"):
        Classifier(model="x").check()
    with pytest.raises(UserError, match="must all differ"):
        Classifier(model="x", labels=["a-b", "a_b"]).check()
    with pytest.raises(UserError, match="has no label hq; it has neither, offen-sive"):
        Classifier(model=trained.path, labels=["neither", "hq"]).open()


def test_training_from_files(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("".join(f"a fine sentence about mills number {i}\n" for i in range(200)))
    with open(tmp_path / "bad.jsonl", "w") as f:
        f.writelines(json.dumps({"body": f"BUY cheap __label__good stuff now {i}\nnow"}) + "\n" for i in range(200))
    (tmp_path / "good.jsonl").write_text(json.dumps({"body": "another fine sentence"}) + "\n")
    report = train_classifier(
        {"good": [str(tmp_path / "good.*")], "bad": [str(tmp_path / "bad.jsonl")]},
        str(tmp_path / "m.bin"),
        field="body",
        dimensions=8,
        buckets=10_000,
        epochs=20,
    )
    assert [(r.label, r.trained + r.metrics.positives) for r in report.labels] == [("bad", 200), ("good", 201)]
    assert report.accuracy == 1.0
    step = Classifier(model=str(tmp_path / "m.bin"), labels=["good", "bad"])
    step.open()
    rows = run(step, ["a fine sentence about mills", "BUY cheap stuff now"])
    assert rows[0]["good"] > 0.8 and rows[1]["bad"] > 0.8  # type: ignore[operator]
    with pytest.raises(UserError, match="training samples of two labels"):
        train_classifier({"good": [str(tmp_path / "good.txt")]}, str(tmp_path / "x.bin"))
    with pytest.raises(UserError, match="must not be empty or contain white space"):
        fit([("two words", "text")], str(tmp_path / "x.bin"))
    assert not (tmp_path / "x.bin").exists()


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=30))
def test_auc_by_counting_pairs(items: list[tuple[int, bool]]) -> None:
    values = np.array([v for v, _ in items], np.float64)
    positive = np.array([p for _, p in items], bool)
    yes, no = values[positive], values[~positive]
    if not len(yes) or not len(no):
        assert math.isnan(auc(values, positive))
    else:
        wins = sum((a > b) + 0.5 * (a == b) for a in yes for b in no)
        assert auc(values, positive) == pytest.approx(wins / (len(yes) * len(no)))


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40))
def test_ece_by_bins(items: list[tuple[float, bool]]) -> None:
    bins: dict[int, list[tuple[float, bool]]] = {}
    for value, positive in items:
        bins.setdefault(min(int(value * 15), 14), []).append((value, positive))
    expected = sum(
        len(some) * abs(sum(v for v, _ in some) / len(some) - sum(p for _, p in some) / len(some))
        for some in bins.values()
    ) / len(items)
    found = expected_calibration_error(np.array([v for v, _ in items]), np.array([p for _, p in items]))
    assert found == pytest.approx(expected, abs=1e-12)
    assert math.isnan(expected_calibration_error(np.array([]), np.array([], bool)))
