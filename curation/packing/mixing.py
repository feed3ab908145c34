"""Weights and a budget become what is read how often: tokens and epochs of each domain.

A weight is the share of a domain among the tokens that training reads, whatever the domain's size; how often its
documents are then repeated is the domain's epochs. Without weights a domain weighs what it has: the natural mix. All
arithmetic is in fractions of the decimals as written, so quotas add up to the budget exactly.

The manifest records weights, budget and epochs; training turns weights into its own integers (the period of the order)
and may be given others, since the shards hold every domain whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from curation.core.errors import UserError
from curation.shards import Mix


@dataclass(frozen=True)
class Plan:
    """What is read: `quotas` tokens of each domain (they sum to the budget), and the mix as the manifest records it."""

    quotas: Mapping[str, int]
    mix: Mix


def check(weights: Mapping[str, float] | None, budget: int | None, max_epochs: float | None) -> None:
    """Raises UserError for values that no data could satisfy. Called before any work starts."""
    if weights is not None:
        for domain, weight in weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise UserError(f"mix.weights.{domain} is {weight}; a weight is a number of at least 0")
        if not any(weights.values()):
            raise UserError("mix.weights gives no domain a weight above 0; name at least one, or leave weights out")
    if budget is not None and budget < 1:
        raise UserError(f"mix.budget is {budget}; it is a number of tokens, at least 1")
    if max_epochs is not None and not (math.isfinite(max_epochs) and max_epochs > 0):
        raise UserError(f"mix.max_epochs is {max_epochs}; it is how often a document may be read, above 0")


def natural(tokens: Mapping[str, int]) -> dict[str, Fraction]:
    """Weights in proportion to the tokens there are."""
    total = sum(tokens.values())
    return {domain: Fraction(n, total) for domain, n in sorted(tokens.items()) if n}


def tempered(shares: Mapping[str, Fraction], temperature: float) -> dict[str, Fraction]:
    """Shares to the power of 1/temperature, summing to 1: above 1 small domains gain, at infinity all are equal.

    Arivazhagan et al. 2019 (arXiv:1907.05019) sample languages so, with temperature 5. Rounded to 12 decimals, so that
    every machine gets the same.
    """
    powers = {d: float(w) ** (1.0 / temperature) for d, w in shares.items()}
    total = math.fsum(powers.values())
    return normalise({d: round(p / total, 12) for d, p in powers.items()})


def redistribute(
    shares: Mapping[str, Fraction], tokens: Mapping[str, int], budget: int, cap: Fraction
) -> dict[str, Fraction]:
    """Shares under which the budget reads no domain more than `cap` times: one that would be keeps its cap, and what it
    lacks goes to the others in proportion to their shares, until none is over. The budget must fit at all."""
    full: dict[str, Fraction] = {}
    while True:
        rest = {d: w for d, w in shares.items() if d not in full}
        left, weight = 1 - sum(full.values()), sum(rest.values())
        now = {d: w / weight * left for d, w in rest.items()}
        over = [d for d in now if now[d] * budget > tokens[d] * cap]
        if not over:
            return {d: full[d] if d in full else now[d] for d in shares}
        full |= {d: Fraction(tokens[d]) * cap / budget for d in over}


def normalise(weights: Mapping[str, float]) -> dict[str, Fraction]:
    """Weights as fractions of the decimals written, summing to 1; domains of weight 0 are left out."""
    exact = {domain: Fraction(repr(float(w))) for domain, w in sorted(weights.items()) if w}
    total = sum(exact.values())
    return {domain: w / total for domain, w in exact.items()}


def apportion(weights: Mapping[str, Fraction], total: int) -> dict[str, int]:
    """`total` in integers proportional to weights that sum to 1, by largest remainder, ties to the earlier name."""
    shares = {domain: int(w * total) for domain, w in weights.items()}
    rest = total - sum(shares.values())
    by_remainder = sorted(weights, key=lambda d: (shares[d] - weights[d] * total, d))
    for domain in by_remainder[:rest]:
        shares[domain] += 1
    return shares


def plan(
    tokens: Mapping[str, int],
    *,
    weights: Mapping[str, float] | None = None,
    budget: int | None = None,
    max_epochs: float | None = None,
    temperature: float = 1.0,
    shortfall: str = "refuse",
) -> Plan:
    """The quota and the epochs of each domain.

    tokens      of each domain's training split, EOS included
    weights     shares of what is read; None: the natural mix
    budget      tokens read in all; None: as many as read no domain more than once (the natural mix reads all)
    max_epochs  no domain is read more often than this; None: no cap
    temperature flattens the shares (see `tempered`); 1: as they are
    shortfall   where a domain lacks tokens for its share: "refuse", or "redistribute" to the others

    Raises UserError where a weighted domain has no tokens, or the budget needs more than max_epochs of one: with the
    numbers, and the budget that would fit.
    """
    check(weights, budget, max_epochs)
    tokens = {domain: n for domain, n in sorted(tokens.items()) if n}
    if not tokens:
        raise UserError("mix: no training tokens in any domain; `gristmill report` shows which rules dropped what")
    shares = natural(tokens) if weights is None else normalise(weights)
    for domain in shares:
        if domain not in tokens:
            raise UserError(
                f"mix.weights.{domain}: there are no documents of the domain {domain!r} to train on; "
                f"there are tokens of {', '.join(f'{d} ({n:,})' for d, n in tokens.items())}"
            )
    if temperature != 1.0:
        shares = tempered(shares, temperature)
    if budget is None:
        budget = _fits(shares, tokens, Fraction(1))
    if max_epochs is not None:
        cap = Fraction(repr(float(max_epochs)))
        fits = _fits(shares, tokens, cap)
        whole = int(sum(tokens[d] for d in shares) * cap)
        if fits < budget <= whole and shortfall == "redistribute":
            shares = redistribute(shares, tokens, budget, cap)
        elif budget > fits:
            domain = max(shares, key=lambda d: (shares[d] / tokens[d], d))
            needs, has = shares[domain] * budget, tokens[domain]
            raise UserError(
                f"mix: a budget of {budget:,} tokens reads {int(needs):,} of {domain} ({float(shares[domain]):.2%} of "
                f"it), which has {has:,}: {float(needs / has):.2f} epochs, more than max_epochs {max_epochs:g}. "
                f"A budget of {fits:,} fits; or lower the weight of {domain}, raise max_epochs, add documents"
                + (
                    f", or set mix.shortfall: redistribute, under which up to {whole:,} fit"
                    if shortfall == "refuse"
                    else f"; all domains together have {whole:,} under this cap"
                )
            )
    quotas = apportion(shares, budget)
    return Plan(
        quotas,
        Mix(
            weights={domain: float(w) for domain, w in shares.items()},
            budget=budget,
            max_epochs=max_epochs,
            epochs={domain: quotas[domain] / tokens[domain] for domain in shares},
        ),
    )


def _fits(shares: Mapping[str, Fraction], tokens: Mapping[str, int], epochs: Fraction) -> int:
    """The largest budget that reads no domain more than `epochs` times."""
    return max(1, int(min(tokens[domain] * epochs / share for domain, share in shares.items())))
