"""The slider: what it says is what the history says, and its button writes a policy that is read back."""

import tomllib

import numpy as np
import pandas as pd
import pytest

from hitl_nb import FieldAbove, Policy
from hitl_nb.errors import BadInput
from hitl_nb.lab import explore, outlooks

RNG = np.random.default_rng(0)
SURE = RNG.beta(8, 0.8, 1000)
HISTORY = pd.DataFrame({
    "confidence": SURE, "wrong": RNG.random(1000) > SURE, "hard": np.arange(1000) % 10 == 0,
    "at_time": pd.date_range("2026-01-05", periods=1000, freq="6min", tz="UTC"),
})  # fmt: skip


def test_what_it_says_can_be_counted_in_the_history():
    for one in outlooks(HISTORY, Policy(0.85, audit_rate=0.1), review_cost=2, error_cost=50):
        passing = ~HISTORY["hard"] & (HISTORY["confidence"] >= one.threshold)
        assert one.automatic == pytest.approx(passing.mean())
        assert one.risk == pytest.approx(HISTORY["wrong"][passing].mean())
        assert one.low <= one.risk <= one.high
        asked = 1 - 0.9 * passing.mean()
        assert one.reviews == pytest.approx(1000 * asked)
        assert one.per_hour == pytest.approx(10 * asked, rel=0.01)
        assert one.cost == pytest.approx(1000 * (2 * asked + 50 * one.high * passing.mean()))
    free, stopped = (outlooks(HISTORY, Policy(0.8, audit_rate=1, audit_blocks=blocks), review_cost=0, error_cost=50)
                     for blocks in (False, True))  # fmt: skip
    assert max(one.cost for one in stopped) == 0 < min(one.cost for one in free)


def test_without_times_or_costs_there_is_no_pace_and_no_cost():
    [one, *_] = outlooks(HISTORY.drop(columns="at_time"), Policy())
    assert np.isnan([one.per_hour, one.cost]).all()
    assert "hour" not in str(one)
    assert set(one.bars) == {"automatic", "wrong", "reviews"}


def test_the_slider_moves_what_is_said_and_the_button_writes_the_policy(tmp_path):
    policy = Policy(0.85, rules=(FieldAbove(field="amount", bound=1000),), audit_rate=0.05)
    slider = explore(HISTORY, policy, path=tmp_path / "policy.toml", review_cost=1, error_cost=20)
    assert abs(slider.outlook.threshold - 0.85) < 0.05
    before = slider._text.value
    chosen = slider.choose(0.97)
    assert slider._text.value == str(chosen) != before
    shown = {name: (bar.value, bar.description) for name, bar in slider._bars.items()}
    assert shown == chosen.bars
    assert set(shown) == {"automatic", "wrong", "reviews", "cost"}
    assert shown["reviews"][1] == f"reviews in 1,000: {chosen.reviews:,.0f}, {chosen.per_hour:,.1f} an hour"
    for _ in range(2):
        slider._button.click()
    made = Policy.from_dict(tomllib.loads((tmp_path / "policy.toml").read_text("utf-8")))
    assert made.fingerprint in slider._said.value
    assert (made.confidence_threshold, made.rules) == (chosen.threshold, policy.rules)
    assert (tmp_path / "policy.toml.bak").read_text("utf-8") == (tmp_path / "policy.toml").read_text("utf-8")


def test_what_cannot_be_written_is_said_beside_the_button(tmp_path):
    slider = explore(HISTORY, path=tmp_path / "policy.toml")
    (tmp_path / "policy.toml.bak").mkdir()
    (tmp_path / "policy.toml.bak" / "x").touch()
    (tmp_path / "policy.toml").touch()
    slider._button.click()
    assert slider._said.value.startswith("not written")
    for wrong in (tmp_path, tmp_path / "none" / "policy.toml"):
        with pytest.raises(BadInput, match="path"):
            explore(HISTORY, path=wrong)
    with pytest.raises(BadInput, match="error_cost"):
        explore(HISTORY, error_cost=-1)


def test_models_that_are_taken_together_are_named_beside_the_button(tmp_path):
    slider = explore(HISTORY.assign(model=["v1", "v2"] * 500), path=tmp_path / "policy.toml")
    slider.choose(0.5)
    assert slider._said.value == "answers of 2 models are taken together: v1 (500), v2 (500)"
