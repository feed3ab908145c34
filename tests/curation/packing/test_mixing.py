"""Weights and budgets to quotas and epochs, and the messages for what does not fit."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.core.errors import UserError
from curation.packing.mixing import apportion_tokens, check_mix_options, normalize_weights, plan_mix

TOKENS = {"web": 700_000, "code": 100_000, "books": 200_000}


def test_the_natural_mix_reads_everything_once():
    made = plan_mix(TOKENS)
    assert made.quotas == TOKENS
    assert made.mix.budget == 1_000_000
    assert dict(made.mix.weights) == {"books": 0.2, "code": 0.1, "web": 0.7}
    assert set(made.mix.epochs.values()) == {1.0}


def test_weights_and_budget():
    made = plan_mix(TOKENS, weights={"web": 0.7, "code": 0.3}, budget=1_000_000, max_epochs=4)
    assert made.quotas == {"code": 300_000, "web": 700_000}  # books are not read
    assert made.mix.epochs == {"code": 3.0, "web": 1.0}
    assert (made.mix.budget, made.mix.max_epochs) == (1_000_000, 4)
    assert made.mix.weights == {"code": 0.3, "web": 0.7}


def test_without_a_budget_nothing_is_read_twice():
    made = plan_mix(TOKENS, weights={"web": 1, "code": 1})
    assert made.quotas == {"code": 100_000, "web": 100_000}


def test_without_a_budget_the_cap_still_holds():
    """It is the cap of trainings on these shards, and one below 1 is the budget."""
    made = plan_mix(TOKENS, max_epochs=4)
    assert (made.quotas, made.mix.max_epochs) == (TOKENS, 4)
    made = plan_mix(TOKENS, max_epochs=0.5)
    assert made.mix.budget == 500_000 and set(made.mix.epochs.values()) == {0.5}


def test_a_budget_that_does_not_fit_says_what_would():
    with pytest.raises(UserError) as error:
        plan_mix(TOKENS, weights={"web": 0.7, "code": 0.3}, budget=2_000_000, max_epochs=4)
    assert str(error.value) == (
        "mix: a budget of 2,000,000 tokens reads 600,000 of code (30.00% of it), which has 100,000: 6.00 epochs, more "
        "than max_epochs 4. A budget of 1,333,333 fits; or lower the weight of code, raise max_epochs, add documents, "
        "or set mix.shortfall: redistribute, under which up to 3,200,000 fit"
    )
    plan_mix(TOKENS, weights={"web": 0.7, "code": 0.3}, budget=1_333_333, max_epochs=4)
    with pytest.raises(UserError, match=r"1\.00 epochs, more than max_epochs 1\. A budget of 1,000,000 fits"):
        plan_mix(TOKENS, budget=1_000_001, max_epochs=1)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"weights": {"news": 1.0}}, r"mix.weights.news: .*'news'.*books \(200,000\), code"),
        ({"weights": {"web": -1.0}}, "mix.weights.web is -1.0"),
        ({"weights": {"web": float("nan")}}, "mix.weights.web is nan"),
        ({"weights": {"web": 0.0}}, "no weight above 0"),
        ({"budget": 0}, "mix.budget is 0"),
        ({"max_epochs": 0.0}, "mix.max_epochs is 0"),
    ],
)
def test_mixes_that_are_refused(options, says):
    with pytest.raises(UserError, match=says):
        plan_mix(TOKENS, **options)


def test_no_tokens_at_all():
    with pytest.raises(UserError, match="no training tokens"):
        plan_mix({"web": 0})
    check_mix_options(None, None, None)


@given(st.dictionaries(st.text("abcdef", min_size=1), st.floats(0.001, 1000), min_size=1), st.integers(1, 10**15))
def test_quotas_sum_to_the_budget_and_are_within_one(weights, total):
    exact = normalize_weights(weights)
    quotas = apportion_tokens(exact, total)
    assert sum(exact.values()) == 1 and sum(quotas.values()) == total
    assert all(abs(Fraction(quotas[d]) - exact[d] * total) < 1 for d in quotas)


def test_temperature_flattens_the_shares():
    tokens = {"en": 900, "sw": 100}
    shares = [plan_mix(tokens, temperature=t).mix.weights["sw"] for t in (1.0, 2.0, 1e9)]
    assert shares[0] == 0.1 and shares[1] == pytest.approx(0.25) and shares[2] == pytest.approx(0.5)


def test_a_shortfall_goes_to_the_others_where_that_is_the_rule():
    tokens = {"a": 100, "b": 1000, "c": 1000}
    weights = {"a": 0.5, "b": 0.3, "c": 0.2}
    with pytest.raises(UserError, match=r"set mix.shortfall: redistribute, under which up to 2,100 fit"):
        plan_mix(tokens, weights=weights, budget=1000, max_epochs=1)
    made = plan_mix(tokens, weights=weights, budget=1000, max_epochs=1, shortfall="redistribute")
    assert made.quotas == {"a": 100, "b": 540, "c": 360}
    made = plan_mix(tokens, weights=weights, budget=2000, max_epochs=1, shortfall="redistribute")
    assert made.quotas == {"a": 100, "b": 1000, "c": 900}, "what b cannot take goes on to c"
    with pytest.raises(UserError, match="all domains together have 2,100 under this cap"):
        plan_mix(tokens, weights=weights, budget=2101, max_epochs=1, shortfall="redistribute")
