"""A replayed policy decides as it did in production, and says of its errors only what was measured."""

from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import IsolationForest
from worlds import World

from hitl_nb import FieldAbove, Orchestrator, Outlier, Policy, Predicate, open_queue
from hitl_nb.errors import BadInput, CannotReplay
from hitl_nb.evidence import Certificate, clopper_pearson
from hitl_nb.lab import Logged, Prices, Staff, read, read_export, replay, workload
from hitl_nb.policy.batch import Batch

mpl.use("Agg")
RNG = np.random.default_rng(7)
NUMBERS = RNG.normal(100, 40, (300, 2))


def at_night(batch):
    return batch.get("hour", 12) < 6


def everything():
    """Return a policy that holds one rule of each kind."""
    rules = (
        FieldAbove(field="amount", bound=150),
        Outlier(detector=IsolationForest(n_estimators=10, random_state=0).fit(NUMBERS), fields=("amount", "weight")),
        Predicate(name="night", function=at_night),
    )
    return Policy(0.8, rules, audit_rate=0.3, seed=3, label_thresholds={"b": 0.95, 1: 0.5})


def traffic(n, rng):
    inputs = pd.DataFrame({
        "amount": np.where(rng.random(n) < 0.05, np.nan, rng.normal(100, 40, n)), "weight": rng.normal(100, 40, n),
        "hour": rng.integers(0, 24, n), "note": rng.choice(["=1+1", "'quoted", "plain", "007"], n),
    })  # fmt: skip
    said = [
        {"label": label, "confidence": c, "model": "v1"} | ({"regulated": flag} if flag is not None else {})
        for label, c, flag in zip(
            rng.choice(np.array(["a", "b", 1, True], dtype=object), n), np.where(rng.random(n) < 0.05, np.nan,
            rng.beta(8, 0.8, n)), rng.choice(np.array([None, False, True], dtype=object), n, p=[0.8, 0.1, 0.1]),
            strict=True,
        )
    ]  # fmt: skip
    return inputs, said


@pytest.fixture(scope="module")
def produced(tmp_path_factory):
    """Return a policy, what it told each caller, the history that it left, and files of that."""
    policy, rng, told = everything(), np.random.default_rng(1), []
    folder = tmp_path_factory.mktemp("exported")
    with open_queue(":memory:") as queue:
        orchestrator = Orchestrator(queue=queue, policy=policy)
        inputs, said = traffic(100, rng)
        for row, one in zip(inputs.to_dict("records"), said, strict=True):
            told.append(orchestrator.process(row, one)["status"])
        inputs, said = traffic(400, rng)
        frame = orchestrator.process_frame(inputs, pd.DataFrame(said))
        told += frame["status"].astype(str).tolist()
        for task in queue.pending(limit=2000):
            queue.resolve(task.task_id, "ann", "approve" if rng.random() < 0.9 else "reject")
        history = queue.history(inputs=True)
        for ending in ("parquet", "jsonl", "csv"):
            queue.export(str(folder / f"history.{ending}"), inputs=True)
    return policy, told, history, folder


# -- the same decisions ------------------------------------------------------------------------------------------------


def reproduced(policy, told, history):
    found = replay(policy, history)
    drawn = (history["audit_uniform"] < history["audit_probability"]).tolist()
    routes = np.where(found.automatic, "auto_approved", "pending_review").tolist()
    return routes == told and found.decisions.audit.tolist() == drawn and not found.changed.any()


def test_the_policy_that_made_a_history_decides_everything_again(produced):
    policy, told, history, _ = produced
    assert reproduced(policy, told, history)
    assert {"auto_approved", "pending_review"} == set(told)
    decided = replay(policy, history).decisions
    assert {f.rule for f in decided.findings} >= {"confidence", "unknown", "regulated", "night", "outlier", "audit"}
    assert decided.hard.tolist() == history["hard"].tolist()


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "csv"])
def test_so_it_does_from_an_exported_file(produced, ending):
    policy, told, _, folder = produced
    assert reproduced(policy, told, read_export(folder / f"history.{ending}"))


def test_a_policy_that_went_through_toml_decides_the_same(produced):
    policy, told, history, _ = produced
    again = Policy.from_dict(policy.to_dict(), {"outlier": policy.rules[1].detector, "night": at_night})
    assert reproduced(again, told, history)


def logged(policy, inputs, predictions, rng):
    """Return what a policy decides, in the form of a history, judged where it is to be judged."""
    n = len(inputs)
    batch = Batch.from_frames(inputs, predictions)
    ids = rng.integers(0, 2**63, (n, 2)).astype(np.uint64)
    decided = policy.decide(batch, task_ids=ids, now=pd.Timestamp("2026-01-05"))
    wrong = (rng.random(n) > np.nan_to_num(batch.confidence)).astype(float)
    return decided, pd.DataFrame({
        "confidence": batch.confidence, "wrong": np.where(~decided.approved | decided.audit, wrong, np.nan),
        "hard": decided.hard, "review_probability": decided.review_probability, "truth": wrong,
        "audit_probability": decided.audit_probability, "audit_uniform": decided.audit_uniform,
        **{f"input.{name}": inputs[name] for name in inputs},
    })  # fmt: skip


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.one_of(st.none(), st.floats(0, 1)), st.floats(-5, 5)), min_size=1, max_size=30),
    st.floats(0, 1), st.floats(0, 1), st.floats(-5, 5), st.sampled_from([0.0, 0.3, 1.0]), st.booleans(),
)  # fmt: skip
def test_any_policy_decides_its_own_history_again_and_a_laxer_one_lets_no_less_through(
    rows, one, other, bound, rate, blocks
):
    rng = np.random.default_rng(0)
    inputs = pd.DataFrame({"x": [x for _, x in rows]})
    said = pd.DataFrame({"confidence": [np.nan if c is None else c for c, _ in rows]})
    lax, strict = (
        Policy(threshold, (FieldAbove(field="x", bound=bound),), audit_rate=rate, audit_blocks=blocks)
        for threshold in sorted((one, other))
    )
    decided, history = logged(strict, inputs, said, rng)
    same, more = replay(strict, history), replay(lax, history)
    assert not same.changed.any()
    assert same.decisions.audit.tolist() == decided.audit.tolist()
    assert not (same.automatic & ~more.automatic).any()
    assert more.changed.sum() == more.automatic.sum() - same.automatic.sum() == len(more.changes())
    assert same.before.coverage == same.outcome.coverage


def test_logged_draws_are_used_again_and_only_missing_ones_are_drawn():
    rows = {"confidence": [0.9] * 4, "wrong": [False] * 4, "audit_uniform": [0.01, 0.99, np.nan, np.nan]}
    for seed in range(20):
        audited = replay(Policy(0.5, audit_rate=0.5, seed=seed), rows).decisions.audit
        assert audited[:2].tolist() == [True, False]
    shares = [replay(Policy(0.5, audit_rate=0.5, seed=s), rows).decisions.audit[2:].mean() for s in range(60)]
    assert 0.35 < np.mean(shares) < 0.65


# -- what cannot be replayed -------------------------------------------------------------------------------------------

KEPT = Certificate(threshold=0.9, target_risk=0.1, confidence_level=0.9, n=9, coverage=1, kind="certified")
ROWS = {"confidence": [0.9, 0.6], "wrong": [False, True]}


@pytest.mark.parametrize(
    ("policy", "rule", "field"),
    [
        (Policy(rules=(FieldAbove(field="amount", bound=1),)), "amount above 1", "input.amount"),
        (Policy(rules=(FieldAbove(field="prediction.margin", bound=1),)), "prediction.margin above 1", "margin"),
        (Policy(rules=(Predicate(name="night", function=at_night),)), "night", "input.hour"),
        (Policy(label_thresholds={"a": 0.5}), "confidence", "prediction"),
        (
            Policy(replace(KEPT, model="v1")), "certificate", "model",
        ),
    ],
)  # fmt: skip
def test_a_rule_whose_field_is_missing_is_named_with_it(policy, rule, field):
    with pytest.raises(CannotReplay, match=f"rule '{rule}' needs '.*{field}'"):
        replay(policy, ROWS)


def test_a_policy_as_a_dict_is_refused_with_the_remedy():
    with pytest.raises(BadInput, match=r"pass a Policy; Policy\.from_dict"):
        replay({"confidence_threshold": 0.9}, ROWS)


def test_a_certificate_for_any_model_needs_none():
    assert replay(Policy(KEPT), ROWS).automatic.tolist() == [True, False]


def test_a_field_that_is_there_and_empty_goes_to_a_person_as_it_did():
    found = replay(Policy(rules=(FieldAbove(field="amount", bound=1),)), {**ROWS, "input.amount": [None, None]})
    assert not found.automatic.any()


def test_a_flag_that_was_given_as_null_is_not_one_that_was_not_given():
    flags = pd.Series([None, pd.NA, True, False], dtype=object)
    found = replay(Policy(0.5), {"confidence": [0.9] * 4, "wrong": [False] * 4, "regulated": flags})
    assert found.automatic.tolist() == [False, True, False, True]


def test_rules_are_asked_once_however_many_policies_hold_them():
    calls = []
    rule = Predicate(name="seen", function=lambda batch: calls.append(batch.n) or batch["x"] > 3)
    rows = Logged({"confidence": [0.9] * 5, "wrong": [False] * 5, "input.x": [1, 2, 3, 4, 5]})
    for threshold in np.linspace(0.1, 0.9, 9):
        assert replay(Policy(threshold, (rule,)), rows).automatic.sum() == 3
    assert len(calls) == 1
    for bound in range(40):
        replay(Policy(rules=(FieldAbove(field="x", bound=bound),)), rows)
    assert len(rows.batch._found) <= 16


# -- how often it is wrong ---------------------------------------------------------------------------------------------


def test_where_all_is_judged_the_risk_can_be_counted():
    rng = np.random.default_rng(2)
    sure = rng.random(500)
    wrong = rng.random(500) > sure
    found = replay(Policy(0.6, audit_rate=0.1), {"confidence": sure, "wrong": wrong}).outcome
    passing = sure >= 0.6
    assert found.coverage == passing.mean()
    assert found.risk == clopper_pearson(int(wrong[passing].sum()), int(passing.sum()))
    assert found.at_most == clopper_pearson(int(wrong[passing].sum()), int(passing.sum()), 0.9).high < found.risk.high
    assert found.reviews == pytest.approx(1000 * (1 - 0.9 * passing.mean()))


def test_rows_that_could_never_be_judged_make_it_unsaid_never_a_number():
    rows = {"confidence": [0.9, 0.9, 0.6], "wrong": [None, None, False], "review_probability": [0, 0, 1]}
    found = replay(Policy(0.8), rows)
    assert found.outcome.risk is None
    assert np.isnan(found.outcome.at_most)
    assert found.outcome.unsaid.startswith("2 of 2 rows had no chance of being judged")
    assert "nothing can be said: 2 of 2 rows" in str(found)
    assert "2 of 2" in found.misses(max_risk=1.0)[0]
    assert np.isnan(replay(Policy(0.8), rows, prices=Prices(error=1)).outcome.cost)
    assert replay(Policy(0.8), rows, prices=Prices(review=3)).outcome.cost == pytest.approx(3 * (1000 + 40) / 3)
    waiting = {"confidence": [0.9], "wrong": [None], "review_probability": [1.0]}
    assert replay(Policy(0.8), waiting).outcome.unsaid == "none of 1 rows is judged"
    assert replay(Policy(1.0), rows).outcome.unsaid == "no row goes through without a person"


def test_evidence_is_thinned_as_a_history_does_it():
    rng = np.random.default_rng(3)
    probability = rng.choice([1.0, 0.3], 800)
    rows = read({
        "confidence": rng.random(800), "wrong": np.where(rng.random(800) < probability, 0.0, np.nan),
        "review_probability": probability,
    })  # fmt: skip
    found, chance = Logged(rows, seed=5).sample(rows.open)
    evidence = rows.evidence(seed=5)
    assert rows.confidence[found].tolist() == evidence.confidence.tolist()
    assert chance == evidence.probability == 0.3


@pytest.mark.parametrize("streams", [100, pytest.param(1000, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("threshold", [0.7, 0.95])
def test_its_interval_covers_the_true_risk_and_that_of_pooled_rows_does_not(threshold, streams):
    world, rng, covered, pooled = World("mixed"), np.random.default_rng(4), 0, 0
    truth = float(world.risk(threshold))
    for seed in range(streams):
        sure, _ = (one[0] for one in world.draw(rng, 1, 2000))
        frame = pd.DataFrame({"confidence": sure})
        _, history = logged(Policy(0.9, audit_rate=0.1), frame, frame, rng)
        wrong = (rng.random(2000) > world.right(sure)).astype(float)
        history["wrong"] = np.where(history["wrong"].isna(), np.nan, wrong)
        risk = replay(Policy(threshold), history, level=0.9, seed=seed).outcome.risk
        covered += risk.low <= truth <= risk.high
        seen = history[(history["confidence"] >= threshold) & history["wrong"].notna()]["wrong"]
        naive = clopper_pearson(int(seen.sum()), len(seen), 0.9)
        pooled += naive.low <= truth <= naive.high
    least = 0.9 - 3 * np.sqrt(0.09 / streams)
    assert covered / streams >= least
    assert (pooled / streams < least) == (threshold == 0.7)  # above the logged threshold all had one chance


def test_rows_that_wait_are_counted():
    found = replay(Policy(0.5), {
        "confidence": [0.9, 0.8, 0.7], "wrong": [False, None, None], "review_probability": [1.0, 1.0, 0.1],
        "audit_probability": [0.0, 0.0, 0.1], "audit_uniform": [0.5, 0.5, 0.5],
    })  # fmt: skip
    assert found.logged.rows.waiting.tolist() == [False, True, False]
    assert "1 of the automatic wait" in found._table().notes[-1]


# -- what changes, what it costs ---------------------------------------------------------------------------------------


def test_each_row_that_changes_its_route_says_why():
    rows = pd.DataFrame({
        "task_id": ["a", "b", "c", "d"], "confidence": [0.9, 0.9, 0.7, 0.5], "wrong": [None, None, False, False],
        "input.amount": [5, 50, 5, 5], "review_probability": [0.1, 0.1, 1.0, 1.0],
        "audit_probability": [0.1, 0.1, 0, 0], "reasons": [("audit",), (), ("confidence",), ("confidence",)],
    }, index=[10, 11, 12, 13])  # fmt: skip
    found = replay(Policy(0.6, (FieldAbove(field="amount", bound=20),)), rows)
    changes = found.changes()
    assert changes.index.tolist() == [11, 12]
    assert changes.values.tolist() == [
        ["b", "automatic", "a person", "amount 50 > 20"],
        ["c", "a person", "automatic", "asked before: confidence"],
    ]
    assert "2 rows change their route" in str(found)
    notes = "\n".join(found._table().notes)
    assert "now to a person, by rule: amount above 20 1" in notes
    assert "now automatic: 1" in notes


def test_without_a_log_there_is_nothing_to_change():
    found = replay(Policy(0.8), ROWS)
    assert found.before is None
    assert len(found.changes()) == 0
    assert "change" not in str(found)
    assert found._table().columns[1:] == (f"policy {found.policy.fingerprint}",)


def test_the_cost_is_that_of_reviews_errors_by_value_and_waiting():
    rows = {
        "confidence": [0.9] * 4 + [0.5] * 4, "wrong": [True, False, False, False] + [True] * 4,
        "value": [100.0, None, 7.0, 7.0] + [1e6] * 4, "at_time": ["2026-01-05 08:00"] * 4 + ["2026-01-05 10:00"] * 4,
    }  # fmt: skip
    policy = Policy(0.8, audit_rate=0.5)
    assert replay(policy, rows, prices=Prices(review=2)).outcome.cost == pytest.approx(1000 / 8 * 2 * (4 + 2))
    assert replay(policy, rows, prices=Prices(error=10)).outcome.cost == pytest.approx(1000 / 8 * 10)
    assert replay(policy, rows, prices=Prices(value=0.5)).outcome.cost == pytest.approx(1000 / 8 * 50)
    staff = Staff(reviewers=1, seconds=1800)
    waited = workload(policy, rows, staff).minutes.sum() / 60
    assert waited >= 0.5 + 1 + 1.5
    priced = replay(policy, rows, prices=Prices(delay=3), staff=staff)
    assert priced.outcome.cost == pytest.approx(1000 / 8 * 3 * waited)
    assert priced.outcome.per_hour == pytest.approx(6 / 2)
    with pytest.raises(BadInput, match="error"):
        Prices(error=-1)


def test_an_audit_that_callers_wait_for_is_still_no_reason_to_ask():
    rows = {"confidence": [0.9] * 10, "wrong": [False] * 10, "audit_uniform": [0.01] * 10}
    found = replay(Policy(0.8, audit_rate=0.5, audit_blocks=True), rows)
    assert found.outcome.coverage == 1.0
    assert found.outcome.risk.n == 10


def test_demands_are_judged_by_the_upper_bound_and_named():
    found = replay(Policy(0.8), {"confidence": [0.9] * 99 + [0.1], "wrong": [False] * 100})
    assert found.misses(min_coverage=0.99, max_risk=0.04) == []
    [few] = found.misses(min_coverage=0.995)
    assert few == "99.00% go through without a person, at least 99.50% are asked for"
    [risky] = found.misses(max_risk=0.02)  # no error in 99, and yet
    assert risky == "the risk is to be at most 2.00%, and its upper bound at 95% is 2.98%"
    for wrong in ({"min_coverage": 2}, {"max_risk": -1}):
        with pytest.raises(BadInput, match=next(iter(wrong))):
            found.misses(**wrong)
    with pytest.raises(BadInput, match="level"):
        replay(Policy(), ROWS, level=0.5)


def test_names_from_outside_are_text_and_nothing_else():
    name = "<img src=x onerror=alert(1)>\u202e"
    rows = {**ROWS, f"input.{name}": [1, 9], "review_probability": [1.0, 1.0], "audit_probability": [1.0, 1.0]}
    found = replay(Policy(0.5, (FieldAbove(field=name, bound=5),)), rows)
    shown = found._repr_html_()
    assert "&lt;img" in shown
    assert "<img" not in shown
    assert "\u202e" not in shown
    assert f"{name} 9 > 5" in found.changes()["why"].tolist()  # a frame holds what is there


def test_a_replay_draws_the_routes_by_confidence():
    rng = np.random.default_rng(5)
    frame = pd.DataFrame({"confidence": rng.random(300)})
    _, history = logged(Policy(0.5), frame, frame, rng)
    ax = replay(Policy(0.7), history).plot()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["automatic", "now to a person", "a person"]
    assert sum(len(one.patches) for one in ax.containers) == 3 * 40
    assert sum(patch.get_height() for one in ax.containers for patch in one.patches) == 300


def test_no_rows_are_no_error():
    found = replay(Policy(), {"confidence": [], "wrong": []})
    assert (found.outcome.coverage, found.outcome.unsaid) == (0.0, "no row goes through without a person")


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    for name, text in (("x.txt", "a"), ("x.jsonl", "{"), ("x.parquet", "a"), ("x.csv", '"')):
        (tmp_path / name).write_text(text)
        with pytest.raises(BadInput, match=f"history = '.*{name}'"):
            read_export(tmp_path / name)
    with pytest.raises(BadInput, match="is there"):
        read_export(tmp_path / "none.csv")


def test_a_file_of_ones_own_is_taken_as_it_is(tmp_path):
    rows = pd.DataFrame({
        "confidence": [0.9, 0.6], "prediction": ["spam", "ham"], "label": ["spam", "spam"], "input.region": ["n", "1"],
    })  # fmt: skip
    rows.to_parquet(tmp_path / "own.parquet")
    rows.to_csv(tmp_path / "own.csv", index=False)
    for ending in ("parquet", "csv"):
        found = read_export(tmp_path / f"own.{ending}")
        assert found["prediction"].tolist() == ["spam", "ham"]
        assert read(found).wrong.tolist() == [0.0, 1.0]
        assert found["input.region"].tolist() == ["n", "1"]


def test_values_of_every_kind_come_back_from_a_file(produced):
    _, _, history, folder = produced
    for ending in ("parquet", "jsonl"):
        found = read_export(folder / f"history.{ending}")
        assert found["prediction"].tolist() == history["prediction"].tolist()
        assert found["input.note"].tolist() == history["input.note"].tolist()
    guarded = read_export(folder / "history.csv")["input.note"]
    assert set(guarded) == {"=1+1", "'quoted", "plain", "007"}


@pytest.mark.parametrize(("rate", "blocks", "wrong"), [(0, False, 1), (0.5, False, 1), (0.5, True, 0.5), (1, True, 0)])
def test_an_audit_stops_an_error_only_where_callers_wait_for_it(rate, blocks, wrong):
    rows = {"confidence": [0.9] * 100, "wrong": [True] * 10 + [False] * 90}
    found = replay(Policy(0.5, audit_rate=rate, audit_blocks=blocks), rows, prices=Prices(error=100))
    assert found.outcome.cost == pytest.approx(wrong * 10_000)


@pytest.mark.parametrize(("columns", "coverage", "held"), [
    ({}, 0.5, 100), ({"regulated": [True] * 60 + [False] * 140}, 0.5, 40),
    ({"reasons": [["night"]] * 100 + [None] * 100}, 1.0, 0),
])  # fmt: skip
def test_what_a_hard_rule_without_a_name_sent_to_a_person_goes_there_again(columns, coverage, held):
    rows = pd.DataFrame({"confidence": [0.99] * 200, "wrong": [False] * 200, "hard": [True] * 100 + [False] * 100})
    rows = rows.assign(at_time="2026-01-05 08:00").assign(**columns)
    found = replay(Policy(0.9, audit_rate=0), rows)
    assert found.outcome.coverage == coverage
    assert len(workload(Policy(0.9, audit_rate=0), rows, Staff(reviewers=1, seconds=1)).frame) == 200 * (1 - coverage)
    assert (f"{held} go to a person by a hard rule that the history does not name" in found._repr_html_()) == bool(held)


def test_audits_that_wait_and_models_that_are_pooled_are_said():
    rows = {
        "confidence": [0.9] * 300, "wrong": [False] * 200 + [None] * 100, "review_probability": [0.5] * 300,
        "audit_probability": [0.5] * 300, "audit_uniform": [0.1] * 220 + [0.9] * 80,
        "model": ["v1"] * 99 + ["v2"] * 201,
    }  # fmt: skip
    found = replay(Policy(0.5), rows)
    assert ", 20 wait still)" in str(found)
    assert "answers of 2 models are taken together: v2 (201), v1 (99)" in found._repr_html_()
    assert "taken together" not in replay(Policy(0.5), rows | {"model": ["v1"] * 300})._repr_html_()


@pytest.mark.parametrize("name", ["value", "audit_uniform"])
def test_numbers_that_are_none_are_refused_by_their_column(name):
    rows = {"confidence": [0.9] * 4, "wrong": [False] * 4, name: ["x"] * 4}
    with pytest.raises(BadInput, match=rf"{name} .*no number"):
        replay(Policy(0.5), rows, prices=Prices(value=1))


def test_rows_of_which_every_answer_waits_are_not_said_to_have_had_no_chance():
    rows = read(
        {"confidence": [0.9] * 4, "wrong": [False] * 2 + [None] * 2, "review_probability": [1.0, 1.0, 0.5, 0.5]}
    )
    waits = replace(rows, probability=np.array([1.0, 1.0, 0.0, 0.0]))
    assert replay(Policy(0.8), waits).outcome.unsaid == "2 of 4 rows are like rows that all wait; judge those first"
