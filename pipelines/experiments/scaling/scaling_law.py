"""Fits the parametric scaling law L(N, D) = E + A / N^alpha + B / D^beta.

Approach 3 of Hoffmann et al. 2022 (arXiv 2203.15556, section 3.3 and appendix D.3): minimise the Huber loss (delta =
1e-3) of log L against LSE(a - alpha log N, b - beta log D, e), with A = exp a, B = exp b, E = exp e, by BFGS from a
grid of starts. Two things differ, after Besiroglu et al. 2024 (arXiv 2404.10102), whose replication found that the
published fit had stopped early: the objective is a sum scaled by 1 / delta, so that the optimizer's tolerance is
meaningful, and of the grid's starts only the most promising are optimized.

N are parameters, D training tokens, C = 6 N D training FLOP, L a loss in nats per token.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curation.core.errors import UserError

Floats = NDArray[np.float64]

DELTA = 1e-3  # of the Huber loss, in log L, as in Hoffmann et al.
WALL = 10.0  # penalty on an exponent's squared distance from [0, 1]; where all published ones are (docs/decisions.md)
MAX_STARTS = 48  # starts of the grid that are optimized; on Epoch AI's 240 points the first 20 all reach the optimum

# Hoffmann et al., appendix D.3; the grid of (alpha, beta, e, a, b)
GRID = (
    (0.0, 0.5, 1.0, 1.5, 2.0),
    (0.0, 0.5, 1.0, 1.5, 2.0),
    (-1.0, -0.5, 0.0, 0.5, 1.0),
    (0.0, 5.0, 10.0, 15.0, 20.0, 25.0),
    (0.0, 5.0, 10.0, 15.0, 20.0, 25.0),
)


@dataclass(frozen=True)
class Law:
    """E + A / N^alpha + B / D^beta; for repeated data also how fast its value decays.

    repeat_data, repeat_model: R*_D and R*_N of Muennighoff et al. 2023 (arXiv 2305.16264, section 3.2), or None.
    """

    E: float
    A: float
    B: float
    alpha: float
    beta: float
    repeat_data: float | None = None
    repeat_model: float | None = None

    def loss(self, n: float | Floats, d: float | Floats, unique: float | Floats | None = None) -> Floats:
        """Predicted loss, nats per token. unique: unique tokens, if D repeats some of them."""
        params, tokens = np.asarray(n, dtype=float), np.asarray(d, dtype=float)
        if unique is not None and self.repeat_data is not None:
            params, tokens = self.effective(params, tokens, np.asarray(unique, dtype=float))
        return np.asarray(self.E + self.A * params**-self.alpha + self.B * tokens**-self.beta)

    def effective(self, n: Floats, d: Floats, unique: Floats) -> tuple[Floats, Floats]:
        """The effective N and D when only `unique` of the D tokens are distinct.

        D' = U + U R* (1 - exp(-R / R*)), R = D / U - 1 repetitions; N' likewise around the optimal parameters for U
        tokens (Muennighoff et al. 2023, equations 5 and 6).
        """
        assert self.repeat_data is not None
        unique = np.minimum(unique, d)
        tokens = _effective(unique, d / unique - 1, self.repeat_data)
        if self.repeat_model is None:
            return n, tokens
        enough = np.minimum(self.optimum_for_tokens(unique), n)
        return _effective(enough, n / enough - 1, self.repeat_model), tokens

    def optimum(self, flop: float) -> tuple[float, float]:
        """(N, D) of minimum loss at C = 6 N D: N = G (C/6)^(beta/(alpha+beta)) (Hoffmann et al., equation 4)."""
        a, b = self.alpha, self.beta
        g = (a * self.A / (b * self.B)) ** (1 / (a + b))
        n = g * (flop / 6) ** (b / (a + b))
        return n, flop / 6 / n

    def optimum_for_tokens(self, d: Floats | float) -> Floats:
        """The compute-optimal parameters for D tokens: alpha A / N^alpha = beta B / D^beta."""
        share = self.alpha * self.A / (self.beta * self.B)
        return np.asarray((share * np.asarray(d, dtype=float) ** self.beta) ** (1 / self.alpha))


def _effective(unique: Floats, repeats: Floats, half: float) -> Floats:
    return np.asarray(unique + unique * half * -np.expm1(-repeats / half))


def fit(n: Floats, d: Floats, loss: Floats, start: Law | None = None) -> Law:
    """Fits the law by minimum Huber loss. start: optimize from this one only, without the grid (for resamples).

    Raises UserError for fewer than six runs, and for values that are not positive.
    """
    _check(n, d, loss)
    ln, ld, target = np.log(n), np.log(d), np.log(loss)
    starts = _starts(ln, ld, target) if start is None else np.array([_vector(start)])
    best, least = None, math.inf
    for x in starts:
        found, value = _descend(x, ln, ld, target)
        if value < least:
            best, least = found, value
    if best is None:
        raise UserError("no start of the fit converged: check the table for a wrong loss or model size")
    alpha, beta, e, a, b = map(float, best)
    return Law(E=math.exp(e), A=math.exp(a), B=math.exp(b), alpha=alpha, beta=beta)


def fit_repetition(law: Law, n: Floats, d: Floats, unique: Floats, loss: Floats) -> Law:
    """Fits all seven coefficients together, starting from the five of the runs without repetition.

    Together, since excess parameters are worth less in a single epoch too: the five coefficients of a law without that
    term differ from those of the law with it (a true R*_D of 15.4 was estimated as 10.4).
    """
    from scipy.optimize import least_squares

    repeated = d > unique * 1.0001
    if repeated.sum() < 3:
        raise UserError(
            f"{int(repeated.sum())} runs repeat tokens, too few to fit the two coefficients of repetition\n"
            "  give at least 3 such runs, or leave out --repetition"
        )
    target = np.log(loss)

    def residual(x: Floats) -> Floats:
        return np.asarray(np.log(_from_logs(x).loss(n, d, unique)) - target) / DELTA

    first = [math.log(v) for v in (law.E, law.A, law.B, law.alpha, law.beta)]
    known = [math.log(v) for v in (law.repeat_data, law.repeat_model) if v is not None]
    starts = [known] if len(known) == 2 else itertools.product(np.log((2.0, 15.0, 60.0)), np.log((2.0, 15.0)))
    found = [
        least_squares(
            residual, [*first, *start], loss="huber", f_scale=1.0, x_scale=0.1, max_nfev=300, bounds=(-12, 25)
        )
        for start in starts
    ]
    return _from_logs(min(found, key=lambda r: r.cost).x)


def _from_logs(x: Floats) -> Law:
    return Law(*(math.exp(min(v, 60.0)) for v in x))


def residuals(law: Law, n: Floats, d: Floats, loss: Floats, unique: Floats | None = None) -> Floats:
    """log observed - log predicted."""
    return np.asarray(np.log(loss) - np.log(law.loss(n, d, unique)))


def _check(n: Floats, d: Floats, loss: Floats) -> None:
    for name, values in (("model size", n), ("tokens", d), ("loss", loss)):
        bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
        if len(bad):
            raise UserError(
                f"run {int(bad[0]) + 1} of {len(values)} has {name} {values[bad[0]]}: expected a positive number\n"
                "  remove runs that diverged from the table"
            )
    if len(n) < 6:
        raise UserError(
            f"{len(n)} runs are too few for a law of five coefficients: at least 6 are needed, 20 are recommended"
        )
    for name, values in (("model size", n), ("number of tokens", d)):
        if len(np.unique(values)) < 2:
            raise UserError(f"every run has the same {name}: its effect on the loss cannot be estimated")


def _starts(ln: Floats, ld: Floats, target: Floats) -> Floats:
    grid = np.array(list(itertools.product(*GRID)))
    alpha, beta, e, a, b = (grid[:, i, None] for i in range(5))
    terms = np.stack(np.broadcast_arrays(a - alpha * ln, b - beta * ld, e + 0 * ln))
    values = _huber(_lse(terms)[0] - target).sum(axis=1)
    return np.asarray(grid[np.argsort(values, kind="stable")[:MAX_STARTS]])


def _descend(x: Floats, ln: Floats, ld: Floats, target: Floats) -> tuple[Floats, float]:
    from scipy.optimize import minimize

    with np.errstate(over="ignore"):
        found = minimize(
            _objective, x, args=(ln, ld, target), jac=True, method="BFGS", options={"gtol": 1e-7, "maxiter": 2000}
        )
    return np.asarray(found.x), float(found.fun) if np.isfinite(found.fun) else math.inf


def _objective(x: Floats, ln: Floats, ld: Floats, target: Floats) -> tuple[float, Floats]:
    alpha, beta, e, a, b = x
    lse, share = _lse(np.stack([a - alpha * ln, b - beta * ld, np.full_like(ln, e)]))
    residual = lse - target
    slope = np.clip(residual, -DELTA, DELTA) / DELTA
    gradient = np.array(
        [
            -(slope * share[0] * ln).sum(),
            -(slope * share[1] * ld).sum(),
            (slope * share[2]).sum(),
            (slope * share[0]).sum(),
            (slope * share[1]).sum(),
        ]
    )
    outside = x[:2] - np.clip(x[:2], 0.0, 1.0)
    gradient[:2] += 2 * WALL * outside
    return float(_huber(residual).sum() / DELTA + WALL * (outside**2).sum()), gradient


def _lse(terms: Floats) -> tuple[Floats, Floats]:
    """log sum exp over the first axis, and each term's share of the sum."""
    top = terms.max(axis=0)
    weights = np.exp(terms - top)
    total = weights.sum(axis=0)
    return np.asarray(top + np.log(total)), np.asarray(weights / total)


def _huber(residual: Floats) -> Floats:
    size = np.abs(residual)
    return np.asarray(np.where(size <= DELTA, 0.5 * residual**2, DELTA * (size - 0.5 * DELTA)))


def _vector(law: Law) -> Sequence[float]:
    return (law.alpha, law.beta, math.log(law.E), math.log(law.A), math.log(law.B))
