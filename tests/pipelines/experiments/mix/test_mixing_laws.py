"""Mix laws: RegMix's published swarm, the choice among families, planted laws, optima under caps, tables gone wrong.

Covers: batched_least_squares.py, curve_fit.py, mixture_design.py, model_selection.py, optimize_mix.py,
regmix_tables.py
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from curation.core.errors import UserError
from pipelines.experiments.mix import (
    batched_least_squares,
    curve_fit,
    mixing_laws,
    mixture_design,
    model_selection,
    optimize_mix,
    regmix_tables,
)
from pipelines.experiments.mix.optimize_mix import Objective
from pipelines.experiments.mix.regmix_tables import fit_table

Swarms = tuple[regmix_tables.Swarm, regmix_tables.Swarm]


@pytest.fixture(scope="module")
def regmix(data: Path) -> Swarms:
    """512 mixes to fit and 256 to test on, 17 domains, 13 losses."""
    folder = data / "mix"
    return tuple(  # type: ignore[return-value]
        regmix_tables.read(str(folder / f"regmix_{s}_mixture_1m.csv"), str(folder / f"regmix_{s}_pile_loss_1m.csv"))
        for s in ("train", "test")
    )


def _rho(fitted: mixing_laws.Fitted, test: regmix_tables.Swarm) -> float:
    said = fitted.predict(test.mixes)
    return 100 * float(np.mean([mixing_laws.spearman(said[:, i], test.values[:, i]) for i in range(said.shape[1])]))


def test_mixing_and_power_law_on_regmix(regmix: Swarms) -> None:
    train, test = regmix
    assert train.mixes.shape == (512, 17) and test.values.shape == (256, 13)
    assert _rho(mixing_laws.fit("mixing_law", train.mixes, train.values), test) >= 97.2
    assert _rho(mixing_laws.fit("power_law", train.mixes, train.values), test) >= 98.0
    assert _rho(mixing_laws.fit("linear", train.mixes, train.values), test) < 90


def test_lightgbm_on_regmix(regmix: Swarms) -> None:
    train, test = regmix
    assert _rho(mixing_laws.fit("lightgbm", train.mixes, train.values), test) >= 98.9


@pytest.mark.parametrize(
    "subsets",
    [pytest.param(1, marks=pytest.mark.slow), pytest.param(5, marks=[pytest.mark.nightly, pytest.mark.timeout(3600)])],
)
def test_choice_on_subsets_of_64(regmix: Swarms, subsets: int) -> None:
    """Mean rho of what was chosen is within 0.5 of the better of LightGBM and the mixing law."""
    train, test = regmix
    rng = np.random.default_rng(11)
    chosen, trees, law = [], [], []
    for _ in range(subsets):
        rows = rng.choice(512, 64, replace=False)
        made = model_selection.choose(train.mixes[rows], train.values[rows], nested=False)
        chosen.append(_rho(made.fitted, test))
        trees.append(_rho(mixing_laws.fit("lightgbm", train.mixes[rows], train.values[rows]), test))
        law.append(_rho(mixing_laws.fit("mixing_law", train.mixes[rows], train.values[rows]), test))
    print(f"chosen {np.mean(chosen):.2f}, LightGBM {np.mean(trees):.2f}, mixing law {np.mean(law):.2f}")
    assert np.mean(chosen) >= max(np.mean(trees), np.mean(law)) - 0.5


def _planted(runs: int, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    mixes = rng.dirichlet(np.ones(4), runs)
    u = np.array([[1.0, 0.1, 0.2, 0.1], [0.1, 1.0, 0.1, 0.3], [0.1, 0.1, 1.0, 0.1], [0.2, 0.2, 0.1, 1.0]])
    return mixes, 2.0 + (mixes @ u.T) ** -0.3 + rng.normal(0, noise, (runs, 4))


def test_power_law_is_found() -> None:
    mixes, values = _planted(40)
    c, _, log_a, *log_u = curve_fit.power_law(mixes, values, np.ones((1, 40)))[0, 0]
    a, u = np.exp(log_a), np.exp(log_u)
    assert c == pytest.approx(2.0, abs=0.02) and a == pytest.approx(0.3, abs=0.02)
    assert u / u[0] == pytest.approx(np.array([1.0, 0.1, 0.2, 0.1]), abs=0.02)


def test_mixing_law_is_found() -> None:
    mixes, _ = _planted(40)
    t = np.array([-2.0, -0.5, 0.3, 0.0])
    law = 1.5 + np.exp(0.4 + mixes @ t)
    c, k, *found = curve_fit.mixing_law(mixes, law[:, None], np.ones((1, 40)))[0, 0]
    assert c == pytest.approx(1.5, abs=0.01)
    # shares sum to 1, so a constant may move between k and t
    assert np.array(found) + k == pytest.approx(t + 0.4, abs=0.02)


def test_samples_are_fitted_as_if_each_were_alone() -> None:
    mixes, values = _planted(24, noise=0.02)
    rng = np.random.default_rng(5)
    counts = np.array([np.bincount(rng.integers(0, 24, 24), minlength=24) for _ in range(3)], dtype=float)
    for name in ("linear", "mixing_law", "power_law"):
        for law, row in zip(mixing_laws.refit(name, mixes, values, counts), counts, strict=True):
            rows = np.repeat(np.arange(24), row.astype(int))
            alone = mixing_laws.fit(name, mixes[rows], values[rows])
            assert law.predict(mixes) == pytest.approx(alone.predict(mixes), abs=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_descent_reaches_what_scipy_reaches(seed: int) -> None:
    """The batched fit against scipy's least_squares on the same Huber loss, from twenty random starts."""
    from scipy.optimize import least_squares

    mixes, values = _planted(20, noise=0.05)
    y = values[:, seed]
    y[3] += 2.0  # an outlier, for Huber to hold down

    def residual(x: np.ndarray) -> np.ndarray:
        return np.asarray(x[0] + np.exp(np.clip(x[1] + mixes @ x[2:], -50, 50)) - y) / y.std()

    def loss(x: np.ndarray) -> float:
        size = np.abs(residual(x))
        huber = np.where(
            size <= batched_least_squares.HUBER,
            size**2 / 2,
            batched_least_squares.HUBER * (size - batched_least_squares.HUBER / 2),
        )
        return float(huber.sum() + curve_fit.PULL**2 * (x[2:] ** 2).sum() / 2)

    rng = np.random.default_rng(seed)
    bounds = ([0.0, *[-np.inf] * 5], np.inf)
    starts = [np.concatenate([[rng.uniform(0.5, 2.5)], rng.normal(0, 1, 5)]) for _ in range(20)]
    theirs = min(
        loss(least_squares(residual, x, loss="huber", f_scale=batched_least_squares.HUBER, bounds=bounds).x)
        for x in starts
    )
    assert loss(curve_fit.mixing_law(mixes, y[:, None], np.ones((1, 20)))[0, 0]) <= theirs * 1.001


def test_metric_that_is_better_when_larger() -> None:
    """Fitted upside down: a law that can only fall would make nothing of it."""
    mixes, values = _planted(40)
    accuracy = 1 / values
    upright = mixing_laws.fit("power_law", mixes, accuracy).predict(mixes)
    turned = mixing_laws.refit("power_law", mixes, accuracy, np.ones((1, 40)), -np.ones(4))[0].predict(mixes)
    assert np.abs(turned - accuracy).max() < 0.2 * np.abs(upright - accuracy).max()


def test_optimum_within_caps() -> None:
    mixes, values = _planted(60)
    fitted = mixing_laws.fit("power_law", mixes, values)
    free = optimize_mix.best(fitted, Objective((1.0, 1.0, 1.0, 1.0)), np.ones(4))
    capped = optimize_mix.best(fitted, Objective((1.0, 1.0, 1.0, 1.0)), np.array([0.1, 1.0, 1.0, 1.0]))
    assert free.sum() == pytest.approx(1) and capped.sum() == pytest.approx(1)
    assert free[0] > 0.12 and capped[0] <= 0.1 + 1e-9
    lattice = mixture_design.grid(4, 2000, np.ones(4))
    best = Objective((1.0, 1.0, 1.0, 1.0)).value(fitted.predict(lattice)).min()
    assert float(Objective((1.0, 1.0, 1.0, 1.0)).value(fitted.predict(free))[0]) <= best + 1e-9


def test_worst_case_objective_lowers_the_worst() -> None:
    mixes, values = _planted(60)
    fitted = mixing_laws.fit("power_law", mixes, values)
    reference = tuple(fitted.predict(np.full(4, 0.25))[0])
    worst = Objective((1.0, 1.0, 1.0, 1.0), worst=True, reference=reference)
    found = optimize_mix.best(fitted, worst, np.ones(4))
    lattice = mixture_design.grid(4, 2000, np.ones(4))
    assert float(worst.value(fitted.predict(found))[0]) <= float(worst.value(fitted.predict(lattice)).min()) + 1e-4


def test_linear_law_is_a_floor() -> None:
    assert model_selection.best_of({"linear": 0.95, "mixing_law": 0.94, "power_law": 0.93}) == "mixing_law"
    assert model_selection.best_of({"linear": 0.95, "mixing_law": 0.5}) == "linear"


def test_extrapolation_is_noticed() -> None:
    near = np.random.default_rng(1).dirichlet(np.array([30.0, 30.0, 30.0]), 40)
    assert optimize_mix.extrapolated(np.array([0.9, 0.05, 0.05]), near)
    assert not optimize_mix.extrapolated(np.array([0.33, 0.33, 0.34]), near)


def test_designs_keep_the_caps() -> None:
    largest = np.array([0.2, 0.5, 1.0, 0.6])
    prior = np.array([0.4, 0.3, 0.2, 0.1])
    for mixes in (
        mixture_design.swarm(prior, 50, largest), mixture_design.one_factor(prior, 9, largest),
        mixture_design.grid(4, 60, largest),
        mixture_design.around(np.array([0.2, 0.4, 0.2, 0.2]), 20, largest, spread=0.1, seed=1),
    ):  # fmt: skip
        assert np.allclose(mixes.sum(axis=1), 1) and (mixes <= largest + 1e-9).all() and (mixes >= 0).all()
    with pytest.raises(UserError, match="no mix fills a budget"):
        mixture_design.check_caps("ab", np.array([0.3, 0.3]), 1e9, 2.0)


def _write(path: Path, rows: list[list[object]]) -> str:
    with open(path, "w", newline="") as f:
        csv.writer(f).writerows(rows)
    return str(path)


def _tables(folder: Path, values: list[list[object]], mixes: list[list[object]] | None = None) -> tuple[str, str]:
    good = mixes or [[i, i / 20, 1 - i / 20] for i in range(1, len(values) + 1)]
    ratios = _write(folder / "ratios.csv", [["index", "web", "code"], *good])
    return ratios, _write(folder / "metrics.csv", [["index", "loss", "other"], *values])


def test_published_swarm_is_fitted_by_the_command(
    tmp_path: Path, gristmill: Callable[..., tuple[int, str, str]]
) -> None:
    rows: list[list[object]] = [[i, 2 + (0.05 + i / 20) ** -0.5, 3 - i / 40] for i in range(1, 13)]
    ratios, metrics = _tables(tmp_path, rows)
    out = tmp_path / "out"
    code, said, err = gristmill("mix", "fit", ratios, metrics, "--out", str(out), "--resamples", "5")
    assert code == 0, err
    assert "Recommended:" in said
    assert {p.name for p in out.iterdir()} == {"report.html", "ratios.csv", "metrics.csv", "outcome.json", "mix.yaml"}
    again = regmix_tables.read(str(out / "ratios.csv"), str(out / "metrics.csv"))
    assert again.mixes.shape == (12, 2) and again.domains == ("web", "code")


def test_a_fit_overwrites_no_tables_of_somebody_else(
    tmp_path: Path, gristmill: Callable[..., tuple[int, str, str]]
) -> None:
    """Above all not the ones that it reads."""
    rows: list[list[object]] = [[i, 2 + (0.05 + i / 20) ** -0.5, 3 - i / 40] for i in range(1, 13)]
    ratios, metrics = _tables(tmp_path, rows)
    before = Path(ratios).read_bytes()
    code, _, err = gristmill("mix", "fit", ratios, metrics, "--out", str(tmp_path), "--resamples", "5")
    assert code == 2 and "ratios.csv, metrics.csv, which would be overwritten" in " ".join(err.split())
    assert Path(ratios).read_bytes() == before and not (tmp_path / "mix.yaml").exists()


def test_bad_metrics_are_handled(tmp_path: Path) -> None:
    rows: list[list[object]] = [[i, "nan" if i == 3 else 3 - i / 20, 1.0] for i in range(1, 13)]
    swarm = regmix_tables.read(*_tables(tmp_path, rows))
    assert swarm.metrics == ("loss",) and len(swarm.values) == 11
    assert any("left out: 3" in n for n in swarm.notes) and any("nothing to fit: other" in n for n in swarm.notes)


def test_domains_that_never_move_are_named(tmp_path: Path) -> None:
    rows: list[list[object]] = [[i, 3 - i / 20, 2 + i / 30] for i in range(1, 13)]
    ratios = _write(
        tmp_path / "r.csv",
        [["index", "web", "code", "law", "gone"], *([i, i / 20, 0.8 - i / 20, 0.2, 0] for i in range(1, 13))],
    )
    swarm = regmix_tables.read(ratios, _tables(tmp_path, rows)[1])
    assert swarm.domains == ("web", "code", "law")
    assert swarm.notes == ("in no mix: gone", "the same share in every run, so the effect is unknown: law")


@pytest.mark.parametrize(
    ("mixes", "values", "words"),
    [
        ([[1, 0.5, 0.9]], [[1, 3.0, 2.0]], "sum to 1.4"),
        ([[1, 0.5, 0.5]], [[2, 3.0, 2.0]], "do not name the same runs"),
        ([[1, 0.5, 0.5]], [[1, "much", 2.0]], "line 2: expected numbers"),
        ([[1, 0.5, 0.5], [2, 0.4, 0.6]], [[1, 3.0, 2.0], [2, 3.1, 2.2]], "2 runs are too few"),
        ([[1, 0.5, 0.5], [2, 0.4, 0.6]], [[1, 3.0, 2.0], [2, 3.0, 2.0]], "one value in all runs"),
    ],
)
def test_bad_tables_are_refused(
    tmp_path: Path, mixes: list[list[object]], values: list[list[object]], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        fit_table(*_tables(tmp_path, values, mixes))
