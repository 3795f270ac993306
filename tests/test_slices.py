"""Where the automatic part is wrong: looks that pay for each other, and lines that become rules."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import fisher_exact

from hitl_nb import FieldAbove, Orchestrator, Policy, Predicate, open_queue
from hitl_nb.errors import BadInput, EvidenceError
from hitl_nb.lab import Slice, slices
from hitl_nb.policy.batch import Batch


def rows(n=3000, seed=0, b=0.08, others=0.01):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"amount": rng.random(n) * 100, "country": rng.choice(["a", "b", "c"], n)})
    bad = np.where(frame["country"] == "b", b, others)
    return frame.assign(confidence=0.9, wrong=rng.random(n) < bad)


def test_the_part_that_is_wrong_more_often_comes_first():
    frame = rows()
    found = slices(frame, threshold=0.85)
    first = found.frame.iloc[0]
    inside = frame["country"] == "b"
    assert (first["field"], first["value"]) == ("country", "b")
    assert (first["rows"], first["judged"], first["wrong"]) == (
        inside.sum(),
        inside.sum(),
        frame["wrong"][inside].sum(),
    )
    assert first["lift"] == pytest.approx(frame["wrong"][inside].mean() / frame["wrong"].mean())
    assert first["low"] < 0.08 < first["high"]
    table = pd.crosstab(inside, frame["wrong"]).iloc[::-1, ::-1]
    looks = len(found.frame)
    assert looks == 3 + 4
    assert first["p"] == pytest.approx(fisher_exact(table, alternative="greater").pvalue * looks, rel=1e-6, abs=0)
    assert (found.frame["p"].diff().dropna() >= 0).all()


def test_where_nothing_differs_a_false_alarm_is_as_rare_as_promised():
    alarms, missed, streams = 0, 0, 120
    for seed in range(streams):
        rng = np.random.default_rng(seed)
        n = 400
        fields = {f"x{i}": rng.random(n) for i in range(3)} | {f"g{i}": rng.choice(list("abc"), n) for i in range(3)}
        frame = pd.DataFrame({**fields, "confidence": 0.9, "wrong": rng.random(n) < 0.1})
        found = slices(frame, threshold=0.5, level=0.9).frame
        alarms += found["p"].min() <= 0.1
        missed += ((found["low"] > 0.1) | (found["high"] < 0.1)).any()
    most = 0.1 + 3 * np.sqrt(0.1 * 0.9 / streams)
    assert alarms / streams <= most
    assert missed / streams <= most
    assert alarms > 0


def test_only_what_goes_through_counts_and_each_row_as_likely_as_any_other():
    frame = rows()
    low = pd.DataFrame({"amount": 1.0, "country": "a", "confidence": 0.3, "wrong": [True] * 500})
    both = pd.concat([frame, low], ignore_index=True)
    assert slices(both, threshold=0.85).n == 3000
    probability = np.where(both["confidence"] < 0.85, 1.0, np.where(both["country"] == "b", 0.9, 0.3))
    both["wrong"] = both["wrong"].astype("boolean").mask(np.random.default_rng(1).random(3500) > probability)
    audited = slices(both.assign(review_probability=probability))
    judged = audited.frame.set_index("value")["judged"]
    assert audited.n == pytest.approx(900, abs=90)
    assert judged["b"] == pytest.approx(judged["a"], rel=0.2)


def test_a_range_begins_above_its_lower_end_and_holds_its_upper_one():
    part = Slice(column="x", field="x", low=0, high=2)
    assert part.of([0, 1, 2, 3, None, "text"]).tolist() == [False, True, True, False, False, False]
    assert (str(part), str(Slice(column="x", field="x", value="a\nb"))) == ("above 0 and at most 2", "a\nb")


# -- rules -------------------------------------------------------------------------------------------------------------


def test_a_line_becomes_a_rule_of_a_policy_that_asks_about_just_these():
    frame = rows()
    rule = slices(frame, threshold=0.85).rule(0)
    assert isinstance(rule, Predicate)
    batch = Batch.from_rows([{"country": "b"}, {"country": "a"}, {}], [{"confidence": 0.9}] * 3)
    ids = np.arange(6, dtype=np.uint64).reshape(3, 2)
    policy = Policy(0.85, rules=(rule,), audit_rate=0)
    decided = policy.decide(batch, task_ids=ids, now=pd.Timestamp("2026-01-05"))
    assert decided.approved.tolist() == [False, True, False]  # what cannot be judged goes to a person
    again = Policy.from_dict(policy.to_dict(), using={rule.name: rule.function})
    assert again.fingerprint == policy.fingerprint


def test_the_highest_range_of_a_number_is_a_field_above_a_bound():
    rng = np.random.default_rng(2)
    amount = rng.random(4000) * 100
    frame = pd.DataFrame(
        {"amount": amount, "confidence": 0.9, "wrong": rng.random(4000) < np.where(amount > 75, 0.1, 0.01)}
    )
    found = slices(frame, threshold=0.85)
    rule = found.rule(0)
    assert isinstance(rule, FieldAbove)
    assert rule.bound == pytest.approx(75, abs=2)
    asked = [part.of(amount).sum() for part in found.parts]
    assert sum(asked) == 4000  # ranges neither overlap nor leave gaps
    batch = Batch.from_frames(frame[["amount"]], pd.DataFrame({"confidence": [0.9] * 4000}))
    assert rule.check(batch)[0].fired.tolist() == found.parts[0].of(amount).tolist()
    middle = next(k for k, part in enumerate(found.parts) if part.low > -np.inf and part.high < np.inf)
    assert found.rule(middle).check(batch)[0].fired.tolist() == found.parts[middle].of(amount).tolist()


def test_a_history_with_inputs_is_looked_at_by_input_prediction_and_group():
    with open_queue(":memory:") as queue:
        inputs = pd.DataFrame({"amount": range(300), "kind": ["x", "y", "z"] * 100, "team": ["g", "h"] * 150})
        said = [{"confidence": 0.95, "label": ["p", "q"][i % 2]} for i in range(300)]
        policy = Policy(0.85, audit_rate=0.99)
        Orchestrator(queue=queue, policy=policy).process_frame(inputs, said, group="team")
        for reviewer in ("ann", "ben"):
            for task in queue.pending(limit=1000):
                bad = task.input_data["kind"] == "x"
                answer = ["reject"] if bad else ["approve"]
                queue.resolve(task.task_id, reviewer, *answer)
        found = slices(queue.history(inputs=True))
    assert set(found.frame["field"]) == {"input.amount", "input.kind", "input.team", "prediction", "group"}
    assert (found.frame["field"][0], found.frame["value"][0]) == ("input.kind", "x")
    assert found.rule(0).field == "kind"
    names = found.frame["field"].tolist()
    assert found.rule(names.index("prediction")).field == "prediction.label"
    with pytest.raises(BadInput, match="column = 'group': is no field of an input"):
        found.rule(names.index("group"))


# -- what is shown, what is refused ------------------------------------------------------------------------------------


def test_a_table_says_how_many_parts_are_worse_and_how_to_add_a_rule():
    found = slices(rows(), threshold=0.85)
    assert "1 of 7 parts of the automatic answers are proven to be worse than the rest" in str(found)
    assert "found.rule(0)" in str(found)
    hostile = rows().assign(country=lambda f: f["country"].map({"a": "<b>\u202e", "b": "b", "c": "c"}))
    shown = slices(hostile, threshold=0.85)._repr_html_()
    assert "<b>" not in shown
    assert "\u202e" not in shown


def test_what_cannot_be_looked_at_is_refused():
    frame = rows()
    with pytest.raises(EvidenceError, match="nothing goes through without a person; pass threshold"):
        slices(frame)
    with pytest.raises(EvidenceError, match="no field tells the 3,000 judged rows apart"):
        slices(frame[["confidence", "wrong"]], threshold=0.85)
    with pytest.raises(BadInput, match="fields = 'town': columns are amount, country"):
        slices(frame, ["town"], threshold=0.85)
    with pytest.raises(BadInput, match="threshold"):
        slices(frame, threshold=2)
    with pytest.raises(BadInput, match="number"):
        slices(frame, threshold=0.85).rule(7)


def test_gaps_many_values_and_lists_do_no_harm():
    frame = rows(400).assign(note=[f"text {i}" for i in range(400)], tags=[["a"]] * 400)
    frame.loc[:99, "amount"] = np.nan
    frame.loc[:9, "country"] = None
    found = slices(frame, threshold=0.85)
    assert set(found.frame["field"]) == {"amount", "country"}
    assert found.frame["judged"][found.frame["field"] == "amount"].sum() == 300


def test_no_error_at_all_is_no_part_that_is_worse():
    found = slices(rows(b=0.0, others=0.0), threshold=0.85)
    assert (found.frame["p"] == 1).all()
    assert found.frame["lift"].tolist() == [1.0] * 7


def test_columns_named_by_numbers_are_looked_at_and_those_of_a_log_are_not():
    frame = rows().rename(columns={"country": 0})
    frame = frame.assign(
        outcome=np.where(frame["wrong"], "reject", "approve"), reviewer="ann", model=["v1", "v2"] * 1500
    )
    found = slices(frame, threshold=0.5)
    assert set(found.frame["field"]) == {"0", "amount", "model"}
    assert found.frame.iloc[0][["field", "value"]].tolist() == ["0", "b"]
    assert "answers of 2 models are taken together" in found._repr_html_()


def test_what_was_to_be_reviewed_did_not_go_through_even_if_it_waits():
    frame = rows(400).assign(review_probability=[1.0, 0.5] * 200).astype({"wrong": "object"})
    frame.loc[::8, "wrong"] = None
    found = slices(frame, ["country"]).frame
    assert found["rows"].sum() == 200
