"""Computes the tokens and epochs of each domain from mix weights and a token budget.

A weight is the share of a domain in the tokens that training reads, whatever the domain's size; the number of epochs is
how often its documents are then read. Without weights, domains are weighted by their tokens: the natural mix. Weights
are exact fractions of the decimals as written, so quotas add up to the budget exactly.

The manifest records weights, budget and epochs. Training converts the weights to integers (the period of its data
order) and may use other weights, since the shards hold all documents of every domain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from curation.core.errors import UserError
from curation.shards import Mix


@dataclass(frozen=True)
class MixPlan:
    """Tokens to read of each domain (`quotas`, which sum to the budget), and the mix as the manifest records it."""

    quotas: Mapping[str, int]
    mix: Mix


def check_mix_options(weights: Mapping[str, float] | None, budget: int | None, max_epochs: float | None) -> None:
    """Raises UserError for values that are invalid for any data. Called before any work starts."""
    if weights is not None:
        for domain, weight in weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise UserError(f"mix.weights.{domain} is {weight}; give a number of at least 0")
        if not any(weights.values()):
            raise UserError("mix.weights has no weight above 0; give one to at least one domain, or leave weights out")
    if budget is not None and budget < 1:
        raise UserError(f"mix.budget is {budget}; give a number of tokens, at least 1")
    if max_epochs is not None and not (math.isfinite(max_epochs) and max_epochs > 0):
        raise UserError(f"mix.max_epochs is {max_epochs}; give how often a document may be read, above 0")


def natural_weights(tokens: Mapping[str, int]) -> dict[str, Fraction]:
    """Weights in proportion to the tokens of each domain."""
    total = sum(tokens.values())
    return {domain: Fraction(n, total) for domain, n in sorted(tokens.items()) if n}


def apply_temperature(shares: Mapping[str, Fraction], temperature: float) -> dict[str, Fraction]:
    """Shares to the power of 1/temperature, normalized: above 1 small domains gain, at infinity all are equal.

    Temperature sampling of languages: Arivazhagan et al. 2019 (arXiv:1907.05019), with temperature 5. Rounded to 12
    decimals, so the result is the same on every machine.
    """
    powers = {d: float(w) ** (1.0 / temperature) for d, w in shares.items()}
    total = math.fsum(powers.values())
    return normalize_weights({d: round(p / total, 12) for d, p in powers.items()})


def redistribute_shares(
    shares: Mapping[str, Fraction], tokens: Mapping[str, int], budget: int, cap: Fraction
) -> dict[str, Fraction]:
    """Shares under which the budget reads no domain more than `cap` times.

    A domain above the cap is set to it, and the rest goes to the other domains in proportion to their shares, until
    none is above. The budget must be at most `cap` times the tokens of all domains.
    """
    full: dict[str, Fraction] = {}
    while True:
        rest = {d: w for d, w in shares.items() if d not in full}
        left, weight = 1 - sum(full.values()), sum(rest.values())
        now = {d: w / weight * left for d, w in rest.items()}
        over = [d for d in now if now[d] * budget > tokens[d] * cap]
        if not over:
            return {d: full[d] if d in full else now[d] for d in shares}
        full |= {d: Fraction(tokens[d]) * cap / budget for d in over}


def normalize_weights(weights: Mapping[str, float]) -> dict[str, Fraction]:
    """Weights as exact fractions of the decimals written, divided by their sum; domains of weight 0 are left out."""
    exact = {domain: Fraction(repr(float(w))) for domain, w in sorted(weights.items()) if w}
    total = sum(exact.values())
    return {domain: w / total for domain, w in exact.items()}


def apportion_tokens(weights: Mapping[str, Fraction], total: int) -> dict[str, int]:
    """Divides `total` into integers proportional to weights that sum to 1, by largest remainder; ties by name."""
    shares = {domain: int(w * total) for domain, w in weights.items()}
    rest = total - sum(shares.values())
    by_remainder = sorted(weights, key=lambda d: (shares[d] - weights[d] * total, d))
    for domain in by_remainder[:rest]:
        shares[domain] += 1
    return shares


def plan_mix(
    tokens: Mapping[str, int],
    *,
    weights: Mapping[str, float] | None = None,
    budget: int | None = None,
    max_epochs: float | None = None,
    temperature: float = 1.0,
    shortfall: str = "refuse",
) -> MixPlan:
    """Computes the tokens to read and the epochs of each domain.

    tokens      tokens of each domain in the training split, EOS included
    weights     shares of the tokens read; None: the natural mix
    budget      total tokens to read; None: as many as read no domain more than once (the natural mix: all), or more
                than max_epochs if that is below 1
    max_epochs  the most often that a domain is read, by trainings too; None: no cap
    temperature flattens the shares (see `apply_temperature`); 1: unchanged
    shortfall   if a domain has too few tokens for its share: "refuse", or "redistribute" to the others

    Raises UserError if a domain with a weight has no tokens, or if the budget needs more than max_epochs of a domain;
    the message gives the largest budget that fits.
    """
    check_mix_options(weights, budget, max_epochs)
    tokens = {domain: n for domain, n in sorted(tokens.items()) if n}
    if not tokens:
        raise UserError("mix: no training tokens in any domain; `gristmill report` shows what each rule dropped")
    shares = natural_weights(tokens) if weights is None else normalize_weights(weights)
    for domain in shares:
        if domain not in tokens:
            raise UserError(
                f"mix.weights.{domain}: no documents of the domain {domain!r} to train on; "
                f"the domains are {', '.join(f'{d} ({n:,})' for d, n in tokens.items())}"
            )
    if temperature != 1.0:
        shares = apply_temperature(shares, temperature)
    if budget is None:
        budget = _largest_budget(shares, tokens, min(Fraction(1), Fraction(repr(float(max_epochs or 1)))))
    if max_epochs is not None:
        cap = Fraction(repr(float(max_epochs)))
        fits = _largest_budget(shares, tokens, cap)
        available = int(sum(tokens[d] for d in shares) * cap)
        if fits < budget <= available and shortfall == "redistribute":
            shares = redistribute_shares(shares, tokens, budget, cap)
        elif budget > fits:
            domain = max(shares, key=lambda d: (shares[d] / tokens[d], d))
            needs, has = shares[domain] * budget, tokens[domain]
            raise UserError(
                f"mix: a budget of {budget:,} tokens reads {int(needs):,} of {domain} ({float(shares[domain]):.2%} of "
                f"it), which has {has:,}: {float(needs / has):.2f} epochs, more than max_epochs {max_epochs:g}. "
                f"A budget of {fits:,} fits; or lower the weight of {domain}, raise max_epochs, add documents"
                + (
                    f", or set mix.shortfall: redistribute, under which up to {available:,} fit"
                    if shortfall == "refuse"
                    else f"; all domains together have {available:,} under this cap"
                )
            )
    quotas = apportion_tokens(shares, budget)
    return MixPlan(
        quotas,
        Mix(
            weights={domain: float(w) for domain, w in shares.items()},
            budget=budget,
            max_epochs=max_epochs,
            epochs={domain: quotas[domain] / tokens[domain] for domain in shares},
        ),
    )


def _largest_budget(shares: Mapping[str, Fraction], tokens: Mapping[str, int], epochs: Fraction) -> int:
    """The largest budget that reads no domain more than `epochs` times."""
    return max(1, int(min(tokens[domain] * epochs / share for domain, share in shares.items())))
