"""The ensemble: the formula against plain Python, Newton's optimum by its definition, files and runs end to end.

Covers: train.py, curation/quality/held_out_metrics.py
"""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.core.errors import UserError
from curation.quality.ensemble import train
from curation.quality.ensemble.ensemble import Ensemble, Feature, Formula, load_formula
from tests.curation.engine import runs


def table(n: int, seed: int, good: bool) -> pa.Table:
    """Documents whose perplexity and words say a little about their label; every seventh has no perplexity."""
    random = np.random.default_rng(seed)
    perplexity = np.exp(random.normal(5 if good else 6, 1, n))
    words = np.rint(random.normal(300 if good else 260, 40, n))
    none = np.arange(n) % 7 == 0
    return pa.table(
        {
            "text": pa.array([f"{seed} {i}" for i in range(n)], pa.large_string()),
            "perplexity": pa.StructArray.from_arrays([pa.array(perplexity, mask=none)], ["value"]),
            "heuristics": pa.StructArray.from_arrays(
                [pa.array(words.astype(np.int64)), pa.array(random.random(n) < (0.1 if good else 0.4))],
                ["words", "lorem"],
            ),
        }
    )


SIGNALS = ["perplexity.value", "heuristics.words", "heuristics.lorem"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> train.FittedEnsemble:
    folder = tmp_path_factory.mktemp("ensemble")
    (folder / "run" / "result" / "documents").mkdir(parents=True)
    pq.write_table(table(12000, 1, True), folder / "good.parquet")
    pq.write_table(table(20000, 2, False), folder / "run" / "result" / "documents" / "0.parquet")
    sources = {"good": [str(folder / "good.parquet")], "crawl": [str(folder / "run")]}
    first = train.train_ensemble(sources, SIGNALS, str(folder / "e.json"), label="good")
    again = train.train_ensemble(dict(reversed(sources.items())), SIGNALS, str(folder / "f.json"), label="good")
    assert (folder / "e.json").read_bytes() == (folder / "f.json").read_bytes()
    assert str(first.metrics) == str(again.metrics)
    return first


def test_better_than_any_signal_alone_and_calibrated(made: train.FittedEnsemble) -> None:
    assert made.trained + made.metrics.samples == 32000 and 3000 < made.metrics.samples < 3400
    assert made.metrics.auc > max(area for _, area in made.alone) > 0.7
    assert made.metrics.ece < 0.04
    assert made.formula.features[0].how == "log"  # log-normal
    assert made.formula.features[0].weight < 0 < made.formula.features[1].weight
    stored = json.loads(Path(made.path).read_text())
    assert stored["held_out"]["auc"] == pytest.approx(made.metrics.auc, abs=1e-5)
    card = Path(made.card).read_text()
    assert f"| perplexity.value | log | {made.formula.features[0].weight:+.3f} |" in card and "| 0.50 |" in card


def test_newton_finds_the_optimum(made: train.FittedEnsemble) -> None:
    """At the optimum the gradient is 0: residuals are orthogonal to every column, but for the ridge."""
    random = np.random.default_rng(3)
    design = np.concatenate([np.ones((500, 1)), random.normal(size=(500, 3))], 1)
    positive = random.random(500) < 1 / (1 + np.exp(-(design @ np.array([-1, 2, 0, 0.5]))))
    weights = train._newton(design, positive)
    p = 1 / (1 + np.exp(-(design @ weights)))
    gradient = design.T @ (p - positive) + np.array([0, 1, 1, 1]) * weights
    assert np.abs(gradient).max() < 1e-6 and abs(p.sum() - positive.sum()) < 1e-6
    separable = train._newton(design, design[:, 1] > 0)
    assert np.isfinite(separable).all() and separable[1] > 5


def by_hand(formula: Formula, row: list[float | None]) -> float:
    total = formula.intercept
    for f, x in zip(formula.features, row, strict=True):
        if x is None or math.isnan(x):
            total += f.absent
        else:
            x = min(max(x, f.low), f.high)
            t = x
            if f.how == "log":
                t = math.copysign(math.log1p(abs(x)), x)
            elif f.how == "logit":
                p = min(max(x, 1e-5), 1 - 1e-5)
                t = math.log(p) - math.log1p(-p)
            total += f.weight * ((t - f.mean) / f.deviation)
    return 1 / (1 + math.exp(-min(max(total, -700), 700)))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.none() | st.floats(), st.none() | st.integers(-(10**12), 10**12), st.none() | st.booleans()),
        max_size=12,
    )
)
def test_the_step_is_the_formula(made: train.FittedEnsemble, rows: list[tuple[object, object, object]]) -> None:
    step = pickle.loads(pickle.dumps(Ensemble(model=made.path, name="e")))
    step.open()
    batch = pa.record_batch(
        {
            "perplexity": pa.array([{"value": r[0]} for r in rows], pa.struct([("value", pa.float64())])),
            "heuristics": pa.array(
                [None if r[1] is None and r[2] is None else {"words": r[1], "lorem": r[2]} for r in rows],
                pa.struct([("words", pa.int64()), ("lorem", pa.bool_())]),
            ),
        }
    )
    out = step(batch).column("e")
    assert out.type == pa.struct(list(step.signals)) and out.null_count == 0
    scores = [row["score"] for row in out.to_pylist()]
    assert scores == pytest.approx([by_hand(made.formula, [*map(_number, r)]) for r in rows], rel=1e-9, abs=1e-300)
    assert scores == [step(batch.slice(i, 1)).column("e").to_pylist()[0]["score"] for i in range(len(rows))]


def _number(value: object) -> float | None:
    return None if value is None else float(value)  # type: ignore[arg-type]


def test_what_it_reads_and_refuses(made: train.FittedEnsemble, tmp_path: Path) -> None:
    step = Ensemble(model=made.path)
    step.check()
    assert step.reads == ("perplexity", "heuristics") and step.models() == (made.path,)
    with pytest.raises(UserError, match="option `model` is missing"):
        Ensemble().check()
    with pytest.raises(UserError, match=r"fitted on perplexity\.value, which no earlier step"):
        step(pa.record_batch({"text": ["a"]}))
    bad = tmp_path / "bad.json"
    for content in ("{", "{}", '{"format": 1, "label": "x", "intercept": 0, "features": []}', "[1]"):
        bad.write_text(content)
        with pytest.raises(UserError, match="not an ensemble"):
            load_formula(str(bad))
    bad.write_text('{"format": 9}')
    with pytest.raises(UserError, match="has format 9"):
        load_formula(str(bad))


def test_training_refuses(tmp_path: Path) -> None:
    path = str(tmp_path / "a.parquet")
    pq.write_table(table(100, 1, True), path)
    out = str(tmp_path / "o.json")
    with pytest.raises(UserError, match="of another label"):
        train.train_ensemble({"good": [path]}, SIGNALS, out, label="good")
    with pytest.raises(UserError, match=r"no numeric signal heuristics\.word;.*heuristics\.words"):
        train.train_ensemble({"good": [path], "bad": [path]}, ["heuristics.word"], out, label="good")
    with pytest.raises(UserError, match="name each signal"):
        train.train_ensemble({"good": [path], "bad": [path]}, [], out, label="good")
    assert not (tmp_path / "o.json").exists()


def test_a_constant_signal_and_one_that_is_absent(tmp_path: Path) -> None:
    values = np.array([[1.0, np.nan]] * 50 + [[1.0, 2.0]] * 50)
    positive = np.arange(100) < 50
    hashes = np.arange(100, dtype=np.uint64) * np.uint64(2**64 // 100)
    made = train.fit(values, positive, hashes, ["a", "b"], str(tmp_path / "m.json"), label="x")
    score = made.formula.score([np.array([1.0, 1.0]), np.array([np.nan, 2.0])])
    assert score[0] > 0.8 and score[1] < 0.2 and isinstance(made.formula.features[0], Feature)
    with pytest.raises(UserError, match="null in all samples"):
        train.fit(values * np.nan, positive, hashes, ["a", "b"], str(tmp_path / "m.json"), label="x")


def test_a_probability_is_taken_by_its_odds(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    odds = random.normal(0, 3, 20_000)
    positive = random.random(20_000) < 1 / (1 + np.exp(-odds))
    hashes = np.arange(20_000, dtype=np.uint64) * np.uint64(2**64 // 20_000)
    values = (1 / (1 + np.exp(-2 * odds)))[:, None]  # too sure of itself by a factor of two
    made = train.fit(values, positive, hashes, ["p"], str(tmp_path / "m.json"), label="x", share=0.5)
    (feature,) = made.formula.features
    assert feature.how == "logit" and feature.weight / feature.deviation == pytest.approx(0.5, abs=0.05)
    assert made.metrics.ece < 0.02 and made.metrics.auc == pytest.approx(made.alone[0][1], abs=1e-3)


def test_from_runs_to_a_run(tmp_path: Path, data: Path) -> None:
    """Two runs without rules, an ensemble fitted on them, and a run that decides by it."""
    rows = runs.sentences(data, ["en", "de"], 150)
    steps = [{"language": {}}, {"heuristics": {"sets": ["gopher"]}, "where": "domain = 'none'"}]
    for name, some in (("english", rows[:150]), ("german", rows[150:])):
        runs.write_jsonl(tmp_path / name / "texts" / "a.jsonl", some)
        assert runs.curate(tmp_path / name, pipeline(steps)).exit_code == 0
    sources = {name: [str(tmp_path / name / "run")] for name in ("english", "german")}
    signals = ["heuristics.stop_words", "heuristics.mean_word_length", "language.score"]
    made = train.train_ensemble(sources, signals, str(tmp_path / "both" / "e.json"), label="english", share=0.3)
    assert made.metrics.auc > 0.85
    runs.write_jsonl(tmp_path / "both" / "texts" / "a.jsonl", rows)
    decided = [*steps, {"ensemble": {"model": "e.json"}, "keep": {"english": "ensemble.score >= 0.5"}}]
    result = runs.curate(tmp_path / "both", pipeline(decided))
    assert result.exit_code == 0
    kept = pq.read_table(tmp_path / "both" / "run" / "result" / "documents")
    english = {row["text"] for row in rows[:150]}
    right = sum(text in english for text in kept["text"].to_pylist())
    assert right / len(kept) > 0.8 and right > 100
    with pytest.raises(UserError, match="put the step 'heuristics' before it"):
        runs.curate(tmp_path / "both", pipeline([steps[0], decided[2]]))


def pipeline(steps: list[object]) -> dict[str, object]:
    return {
        "name": "ensemble",
        "sources": [{"name": "texts", "read": "text", "root": "texts", "path": "*.jsonl"}],
        "steps": steps,
    }
