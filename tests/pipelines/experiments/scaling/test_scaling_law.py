"""Scaling laws: Epoch AI's replication to its digits, planted laws found again, and tables that cannot be fitted.

Covers: fitted_law.py, runs_table.py, pipelines/cli/commands/scaling.py
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from curation.core.errors import UserError
from pipelines.experiments.scaling import Table, backtest, fit, read, scaling_law

PLANTED = scaling_law.Law(E=1.7, A=400.0, B=2000.0, alpha=0.34, beta=0.36)


def _planted(noise: float, seed: int = 1, repeated: bool = False) -> Table:
    rng = np.random.default_rng(seed)
    n, d = (a.ravel() for a in np.meshgrid(np.geomspace(1e7, 1e10, 7), np.geomspace(2e8, 2e11, 8)))
    true, unique = PLANTED, None
    if repeated:
        true = scaling_law.Law(**{**PLANTED.__dict__, "repeat_data": 15.4, "repeat_model": 5.3})
        unique = d / np.tile([1, 1, 4, 16], len(d) // 4)
    loss = true.loss(n, d, unique) * np.exp(rng.normal(0, noise, len(n)))
    return Table(n, d, loss, unique, tuple(map(str, range(len(n)))))


def test_epoch_replication_of_chinchilla(data: Path, gristmill: Callable[..., tuple[int, str, str]]) -> None:
    # Besiroglu et al. 2024 fitted the same points: E 1.82 +- 0.03, A 482 +- 125, B 2085 +- 1,293
    file = str(data / "scaling" / "chinchilla_epoch.csv")
    code, out, _ = gristmill("scaling", "fit", file, "--drop-highest", "5", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["runs"] == 240
    for key, value in {"E": 1.8172, "A": 477.8, "B": 2143, "alpha": 0.3473, "beta": 0.3672}.items():
        assert found["law"][key]["value"] == pytest.approx(value, rel=1e-3)
    for key, error in {"E": 0.03, "A": 125, "B": 1300}.items():
        assert 0.7 * error < found["law"][key]["error"] < 1.3 * error
        assert found["law"][key]["low"] < found["law"][key]["value"] < found["law"][key]["high"]


def test_planted_law_is_found() -> None:
    made = fit(_planted(0.0), resamples=0).law
    for key in ("E", "A", "B", "alpha", "beta"):
        assert getattr(made, key) == pytest.approx(getattr(PLANTED, key), rel=1e-3)


def test_objective_gradient_is_its_derivative() -> None:
    t = _planted(0.01)
    ln, ld, target = np.log(t.n), np.log(t.d), np.log(t.loss)
    x = np.array([0.3, 0.4, 0.4, 5.0, 6.0])
    value, gradient = scaling_law._objective(x, ln, ld, target)
    for i in range(5):
        step = np.zeros(5)
        step[i] = 1e-6
        ahead, _ = scaling_law._objective(x + step, ln, ld, target)
        behind, _ = scaling_law._objective(x - step, ln, ld, target)
        assert (ahead - behind) / 2e-6 == pytest.approx(gradient[i], rel=1e-4, abs=1e-4 * abs(value))


def test_repetition_term_is_found() -> None:
    made = fit(_planted(0.0, repeated=True), repetition=True, resamples=0).law
    assert made.repeat_data == pytest.approx(15.4, rel=0.02)
    assert made.repeat_model == pytest.approx(5.3, rel=0.05)


def test_interval_covers_and_outlier_is_named() -> None:
    t = _planted(0.005)
    loss = t.loss.copy()
    loss[10] *= 1.2
    made = fit(Table(t.n, t.d, loss, None, t.names), resamples=200)
    spread = made.spread()
    assert all(spread[k]["low"] <= getattr(PLANTED, k) <= spread[k]["high"] for k in ("E", "alpha", "beta"))
    assert [o["run"] for o in made.outliers()] == ["10"]
    said = made.predict(1e11, 1e12)
    assert said["low"] < float(PLANTED.loss(1e11, 1e12)) < said["high"]


def test_optimum_is_where_the_loss_is_least() -> None:
    n, d = PLANTED.optimum(1e21)
    assert 6 * n * d == pytest.approx(1e21)
    sizes = n * np.geomspace(0.5, 2, 101)
    assert sizes[np.argmin(PLANTED.loss(sizes, 1e21 / 6 / sizes))] == pytest.approx(n, rel=0.02)


def test_backtest_leaves_the_largest_out() -> None:
    made = backtest(_planted(0.003), resamples=100)
    assert len(made.rows) == 8 and len(made.fit.table) == 48
    assert made.error < 0.02 and made.inside >= 6


def _csv(path: Path, header: list[str], rows: list[list[object]]) -> str:
    with open(path, "w", newline="") as f:
        csv.writer(f).writerows([header, *rows])
    return str(path)


@pytest.mark.parametrize(
    ("header", "row", "words"),
    [
        (["size", "tokens", "loss"], [1e8, 1e9, 3.0], "no column named params"),
        (["params", "loss"], [1e8, 3.0], "tokens or of FLOP"),
        (["params", "tokens", "loss"], [1e8, 1e9, "nan"], "expected a positive number"),
        (["params", "tokens", "loss"], [1e8, "many", 3.0], "line 2: expected a number, found 'many'"),
        (["params", "tokens", "loss"], [1e8, 1e9, 3.0], "same model size"),
    ],
)
def test_bad_tables_are_refused(
    tmp_path: Path, gristmill: Callable[..., tuple[int, str, str]], header: list[str], row: list[object], words: str
) -> None:
    file = _csv(tmp_path / "t.csv", header, [row] * 8)
    code, _, err = gristmill("scaling", "fit", file)
    assert code == 2 and words in " ".join(err.split())


def test_too_few_runs_are_refused(tmp_path: Path) -> None:
    rows: list[list[object]] = [[10.0**i, 10.0 ** (i + 1), 5 - i / 3] for i in range(5, 9)]
    with pytest.raises(UserError, match="4 runs are too few for a law of five coefficients"):
        fit(read(_csv(tmp_path / "t.csv", ["params", "tokens", "loss"], rows)))


def test_exponents_stay_where_laws_are() -> None:
    """Two sizes tell a step from a power by nothing: without the wall alpha came out in the tens."""
    n = np.repeat([10816.0, 18144.0], 3)
    d = np.array([43008.0, 64512.0, 97280.0, 72704.0, 108544.0, 162816.0])
    loss = np.array([5.2, 4.6, 3.9, 4.1, 3.5, 3.0])
    found = fit(Table(n, d, loss, None, tuple("abcdef")), resamples=0).law
    assert -0.05 <= found.alpha <= 1.05 and -0.05 <= found.beta <= 1.05
