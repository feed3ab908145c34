"""Chooses the mixes to try: a swarm around a prior, a grid, or one factor at a time, within the caps of each domain.

The swarm is that of RegMix (Liu et al. 2024, section 3.1): Dirichlet draws centred on the tempered prior, with varying
concentration, so that some mixes are close to the prior and some at the edges. Temperature 1 keeps the prior, 0 makes
it uniform; a swarm only around the prior cannot find an optimum far from it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from curation.core.errors import UserError
from pipelines.experiments.mix.mixing_laws import Floats

CONCENTRATION = (
    1.0,
    8.0,
)  # Dirichlet parameter per domain: at 1 edges are as likely as the centre, at 8 draws are near the centre
TRIES = 200


def caps(available: Floats, budget: float | None, max_epochs: float | None) -> Floats:
    """The largest share of each domain: its tokens read max_epochs times, divided by the budget. All in tokens."""
    if budget is None or max_epochs is None:
        return np.ones(len(available))
    return np.asarray(np.minimum(1.0, available * max_epochs / budget))


def check_caps(names: Sequence[str], largest: Floats, budget: float | None, max_epochs: float | None) -> None:
    """Raises UserError if no mix is within the caps."""
    if largest.sum() < 1 - 1e-9:
        shares = ", ".join(f"{n} {c:.3g}" for n, c in zip(names, largest, strict=True))
        raise UserError(
            f"no mix fills a budget of {budget:,.0f} tokens with at most {max_epochs:g} epochs: the domains give "
            f"{largest.sum():.1%} of it ({shares}). Lower the budget or raise max_epochs."
        )


def within(mix: Floats, largest: Floats) -> Floats:
    """A mix within the caps: the excess of a capped domain goes to the others in proportion."""
    mix = np.asarray(mix, dtype=float) / np.sum(mix)
    fixed = np.zeros(len(mix), dtype=bool)
    for _ in range(len(mix)):
        over = (mix > largest + 1e-12) & ~fixed
        if not over.any():
            break
        fixed |= over
        mix = np.where(fixed, largest, mix)
        rest = mix[~fixed].sum()
        room = 1 - mix[fixed].sum()
        if rest > 0:
            mix[~fixed] *= room / rest
        elif (~fixed).any():
            mix[~fixed] = room * largest[~fixed] / largest[~fixed].sum()
    return np.asarray(mix / mix.sum())


def swarm(
    prior: Floats, runs: int, largest: Floats, *, temperatures: tuple[float, float] = (0.0, 1.0), seed: int = 17
) -> Floats:
    """Mixes [runs, domains]; the first is the prior, the second the uniform mix, each within the caps."""
    rng = np.random.default_rng(seed)
    k = len(prior)
    mixes = [within(prior, largest), within(np.full(k, 1 / k), largest)][:runs]
    low, high = np.log(CONCENTRATION)
    while len(mixes) < runs:
        center = np.maximum(prior, 1e-6) ** rng.uniform(*temperatures)
        draw = rng.dirichlet(center / center.sum() * k * math.exp(rng.uniform(low, high)))
        for _ in range(TRIES):
            if (draw <= largest).all():
                break
            draw = rng.dirichlet(center / center.sum() * k * math.exp(rng.uniform(low, high)))
        mixes.append(within(draw, largest))
    return np.array(mixes)


def around(center: Floats, runs: int, largest: Floats, *, spread: float, seed: int) -> Floats:
    """Mixes near a given one: Dirichlet draws around it with about this standard deviation of each share."""
    rng = np.random.default_rng(seed)
    center = np.maximum(center, 0.02)
    center /= center.sum()
    concentration = max(2.0, float((center * (1 - center)).mean()) / spread**2 - 1)
    return np.array([within(rng.dirichlet(center * concentration), largest) for _ in range(runs)])


def grid(domains: int, runs: int, largest: Floats) -> Floats:
    """The finest lattice on the simplex (shares i / m) with at most `runs` points within the caps."""
    best = None
    for m in range(1, 64):
        count = math.comb(m + domains - 1, domains - 1)
        if count > 200_000:
            break
        points = np.array(
            [
                np.diff((-1, *bars, m + domains - 1)) - 1
                for bars in itertools.combinations(range(m + domains - 1), domains - 1)
            ]
        )
        points = points[(points / m <= largest + 1e-12).all(axis=1)] / m
        if best is not None and len(points) > runs:
            break
        if len(points):
            best = points
    if best is None or len(best) > runs:
        raise UserError(f"a grid over {domains} domains needs more than {runs} runs; give more, or design: dirichlet")
    return np.asarray(best)


def one_factor(prior: Floats, runs: int, largest: Floats) -> Floats:
    """The prior, and mixes with one domain changed by powers of two and the others in proportion."""
    k = len(prior)
    steps = max(1, (runs - 1) // k)
    factors = [2.0 ** (sign * (i // 2 + 1)) for i, sign in zip(range(steps), itertools.cycle((1, -1)), strict=False)]
    mixes = [within(prior, largest)]
    for factor in factors:
        for i in range(k):
            share = min(prior[i] * factor, 0.95)
            mix = prior * (1 - share) / max(1 - prior[i], 1e-9)
            mix[i] = share
            mixes.append(within(mix, largest))
    return np.array(mixes[:runs])
