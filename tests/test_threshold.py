"""A threshold keeps its promise in every world and automates much; what breaks promises fails the same gates."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import bdtr, betaincinv
from sklearn.isotonic import IsotonicRegression
from worlds import RIGHT, World, logged

from hitl_nb import Policy
from hitl_nb.errors import BadInput
from hitl_nb.evidence.selection import certified, chances, exact_p_value, sequence, starts
from hitl_nb.lab import Capacity, Certified, Cost, Fixed, by_group, choose_threshold, read
from hitl_nb.policy.batch import Batch

TARGET, DELTA = 0.05, 0.1
NIGHTLY = pytest.mark.nightly
SIZES = [pytest.param(300, 1000, marks=NIGHTLY), (1000, 200), pytest.param(3000, 1000, marks=NIGHTLY)]
#: rules by where their tests begin
STARTS = {"as it comes": None, "from the top": 0, "from the middle": 0.6}


def gate(broken, streams):
    """Whether a promise held: broken in no more than ``DELTA`` of the streams, and three standard errors."""
    return broken <= DELTA + 3 * np.sqrt(DELTA * (1 - DELTA) / streams)


def outcome(world, thresholds):
    """Return how often the promise was broken, and the mean share automated; NaN is no threshold."""
    none = np.isnan(thresholds)
    broken = ~none & (world.risk(np.nan_to_num(thresholds)) > TARGET)
    return broken.mean(), np.where(none, 0, world.coverage(np.nan_to_num(thresholds))).mean()


def fit_all(sure, wrong, start=None):
    """Return the threshold of each stream, all at once."""
    n = sure.shape[1]
    shares = starts(n, TARGET) if start is None else (start,)
    ends = sequence(n, TARGET, DELTA / len(shares), min(shares))
    last = certified(wrong, ends, TARGET, chances(ends, n, DELTA, shares))
    return np.where(last >= 0, np.take_along_axis(sure, (ends[last] - 1)[:, None], axis=1)[:, 0], np.nan)


# -- the promise -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
@pytest.mark.parametrize(("n", "streams"), SIZES)
@pytest.mark.parametrize("name", RIGHT)
def test_a_certified_threshold_keeps_its_promise_on_labelled_rows(name, n, streams, start):
    world = World(name)
    sure, wrong = world.draw(np.random.default_rng(1), streams, n)
    broken, _ = outcome(world, fit_all(sure, wrong, start))
    assert gate(broken, streams)


def test_one_stream_is_fitted_as_all_of_them_are():
    for start, name in [(None, "calibrated"), (None, "wrong at the top"), (0, "calibrated"), (0.6, "calibrated")]:
        sure, wrong = World(name).draw(np.random.default_rng(2), 20, 1000)
        found = [
            choose_threshold({"confidence": s, "wrong": w}, TARGET, 1 - DELTA, start=start).threshold
            for s, w in zip(sure, wrong, strict=True)
        ]
        assert [np.nan if one is None else one for one in found] == pytest.approx(
            fit_all(sure, wrong, start).tolist(), nan_ok=True
        )


@pytest.mark.parametrize("n", [300, 1000])
def test_the_promise_holds_where_the_risk_equals_the_target_at_every_threshold(n):
    streams = 10_000
    wrong = np.random.default_rng(3).random((streams, n)) < TARGET
    broken = (~np.isnan(fit_all(np.zeros((streams, n)), wrong))).mean()
    assert gate(broken, streams)
    assert broken > 0.02  # it is no promise that costs everything


def test_two_starts_that_each_took_the_whole_chance_would_break_the_promise():
    streams, n = 4000, 1000
    wrong = np.random.default_rng(3).random((streams, n)) < TARGET
    ends = sequence(n, TARGET, DELTA)
    unpaid = 2 * chances(ends, n, DELTA, (0, 0.6))
    assert not gate((certified(wrong, ends, TARGET, unpaid) >= 0).mean(), streams)


def test_what_a_passed_test_hands_on_is_added_to_what_the_next_one_brings():
    ends, wrong = np.array([50, 100, 200]), np.zeros((1, 200), dtype=bool)
    p = exact_p_value(0, ends - 1, TARGET)
    assert p.round(4).tolist() == [0.0810, 0.0062, 0.0]  # 0.95 ** 49, 0.95 ** 99, 0.95 ** 199
    assert certified(wrong, ends, TARGET, np.array([0.05, 0.03, 0.02]))[0] == 2
    assert certified(wrong, ends[:2], TARGET, np.array([0.05, 0.005]))[0] == -1
    assert certified(wrong, ends[:2], TARGET, np.array([0.09, 0.0]))[0] == 1
    wrong[0, 50:54] = True  # the second test fails, so that nothing reaches the third, which would pass with 0.09
    assert certified(wrong, ends, TARGET, np.array([0.09, 0.0, 0.0]))[0] == 0
    assert exact_p_value(4, 199, TARGET) < 0.09


@pytest.mark.parametrize(
    ("audit_rate", "streams"),
    [(0.02, 200), pytest.param(0.02, 1000, marks=NIGHTLY), pytest.param(0.05, 1000, marks=NIGHTLY)],
)
@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.timeout(1800)
def test_a_certified_threshold_keeps_its_promise_on_what_a_policy_logged(name, audit_rate, streams):
    world, rng, found = World(name), np.random.default_rng(4), {start: [] for start in STARTS}
    for seed in range(streams):
        rows = read(logged(world, rng, 20_000, audit_rate))
        for one, start in STARTS.items():
            threshold = choose_threshold(rows, TARGET, 1 - DELTA, start=start, seed=seed).threshold
            found[one].append(np.nan if threshold is None else threshold)
    for one, thresholds in found.items():
        broken, share = outcome(world, np.array(thresholds))
        print(f"| {audit_rate:.0%} | {name} | {one} | {share:.3f}, {broken:.1%} |")
        assert gate(broken, streams)
        assert share > 0.25 or name != "calibrated"


def test_those_rows_are_what_a_queue_logs():
    from hitl_nb import Orchestrator, open_queue

    rows = logged(World("calibrated"), np.random.default_rng(5), 200, 0.1)
    with open_queue(":memory:") as queue:
        said = [{"confidence": float(c), "label": "a"} for c in rows["confidence"]]
        Orchestrator(queue=queue, policy=Policy(0.85, audit_rate=0.1)).process_frame(
            pd.DataFrame({"x": range(200)}), said
        )
        frame = queue.history()
    for column in ("review_probability", "hard", "confidence"):
        assert frame[column].astype(float).tolist() == pytest.approx(np.asarray(rows[column], dtype=float).tolist())
    judged = ~np.isnan(rows["wrong"])  # which rows are audited follows the ids, the others are the same
    asked = np.asarray(rows["confidence"]) < 0.85
    assert (frame["status"] == "pending_review").to_numpy()[asked].all()
    assert judged[asked].all()


# -- power -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "start", "n", "least"),
    [
        ("calibrated", None, 300, 0.35),
        ("calibrated", None, 1000, 0.60),
        ("calibrated", None, 3000, 0.70),
        ("overconfident", None, 3000, 0.10),
        ("overconfident", 0, 3000, 0.13),
        ("wrong at the top", None, 1000, 0.17),
        ("wrong at the top", None, 3000, 0.42),
        ("wrong at the top", 0.6, 1000, 0.25),
        ("wrong at the top", 0.6, 3000, 0.55),
        ("calibrated", 0, 1000, 0.61),
        ("calibrated", 0.6, 3000, 0.68),
    ],
)
def test_much_of_what_could_be_is_automated(name, start, n, least):
    world = World(name)
    sure, wrong = world.draw(np.random.default_rng(6), 300, n)
    _, share = outcome(world, fit_all(sure, wrong, start))
    assert least <= share <= world.oracle(TARGET)


# -- what breaks promises ----------------------------------------------------------------------------------------------


def plug_in(sure, wrong):
    """Take the lowest threshold whose error on the evidence is at most the target."""
    below = np.cumsum(wrong) / np.arange(1, len(wrong) + 1) <= TARGET
    return sure[np.flatnonzero(below)[-1]] if below.any() else np.nan


def isotonic(sure, wrong):
    """Calibrate first, then take the lowest threshold whose calibrated error is at most the target."""
    share = IsotonicRegression(increasing=False, out_of_bounds="clip").fit_transform(sure, wrong)
    return plug_in(sure, share)


@pytest.mark.parametrize("negative", [plug_in, isotonic])
def test_what_looks_at_many_thresholds_without_paying_for_it_breaks_the_promise(negative):
    streams, broken = 200, []
    for name in RIGHT:
        world = World(name)
        sure, wrong = world.draw(np.random.default_rng(7), streams, 1000)
        found = np.array([negative(s, w) for s, w in zip(sure, wrong, strict=True)])
        broken.append(outcome(world, found)[0])
    assert not gate(max(broken), streams)


def test_an_exact_interval_that_is_looked_at_again_and_again_breaks_the_promise():
    looks = np.arange(50, 1001, 50)
    wrong = np.random.default_rng(7).random((2000, 1000)) < TARGET * 1.0001
    errors = np.cumsum(wrong, axis=1)[:, looks - 1]
    below = betaincinv(errors + 1, looks - errors, 1 - DELTA) <= TARGET
    assert gate(below[:, -1].mean(), 2000)  # at one look it holds
    assert not gate(below.any(axis=1).mean(), 2000)


def test_reviewed_and_audited_rows_pooled_as_they_are_break_the_promise():
    world, rng, streams, found = World("mixed"), np.random.default_rng(8), 60, []
    for _ in range(streams):
        rows = logged(world, rng, 20_000, 0.02)
        judged = ~np.isnan(rows["wrong"])
        pooled = {"confidence": rows["confidence"][judged], "wrong": rows["wrong"][judged]}
        found.append(choose_threshold(pooled, TARGET, 1 - DELTA, start=0.6).threshold or np.nan)
    assert not gate(outcome(world, np.array(found))[0], streams)


# -- the rules ---------------------------------------------------------------------------------------------------------


def test_equal_confidences_go_together():
    rows = {"confidence": [0.9] * 150 + [0.8] * 50, "wrong": [0] * 150 + [1] * 8 + [0] * 42}
    found = choose_threshold(rows, 0.05, 0.9)
    assert (found.threshold, found.coverage) == (0.9, 0.75)


def test_ties_everywhere_are_all_or_nothing():
    fine, bad = (
        {"confidence": [0.9] * 1000, "wrong": [True] * errors + [False] * (1000 - errors)} for errors in (5, 80)
    )
    assert (choose_threshold(fine, 0.05).threshold, choose_threshold(fine, 0.05).coverage) == (0.9, 1.0)
    assert choose_threshold(bad, 0.05).threshold is None
    assert choose_threshold(bad, rule=Capacity(reviews=0.3)).coverage == 1


def test_a_certificate_is_what_a_policy_takes():
    sure, wrong = World("calibrated").draw(np.random.default_rng(9), 1, 3000)
    rows = pd.DataFrame({"confidence": sure[0], "wrong": wrong[0], "model": "v7"})
    found = choose_threshold(rows, TARGET, 1 - DELTA)
    assert (found.model, found.kind, found.n) == ("v7", "certified", 3000)
    assert found.coverage == pytest.approx((sure[0] >= found.threshold).mean())
    batch = Batch.from_rows([{}, {}], [{"confidence": 0.99, "model": "v7"}, {"confidence": 0.99, "model": "v8"}])
    ids = np.arange(4, dtype=np.uint64).reshape(2, 2)
    decided = Policy(found, audit_rate=0).decide(batch, task_ids=ids, now=pd.Timestamp("2026-01-05"))
    assert decided.approved.tolist() == [True, False]


def test_without_a_threshold_it_says_why_and_what_is_missing():
    few = choose_threshold({"confidence": [0.9] * 40, "wrong": [False] * 40})
    assert few.reason_if_none.endswith("there are 40: judge 110 more")
    audited = {"confidence": [0.9] * 40, "wrong": [False] * 40, "review_probability": [0.02] * 40}
    assert "110 more audits, about 5,500 more rows at p=0.02" in choose_threshold(audited).reason_if_none
    bad = choose_threshold({"confidence": [0.9] * 400, "wrong": [True, False] * 200})
    assert "of the 400 most confident judged rows 200 were wrong (50.0%)" in bad.reason_if_none
    assert "on fresh rows begin elsewhere (start)" in bad.reason_if_none
    assert (bad.threshold, bad.target_risk, bad.confidence_level) == (None, 0.02, pytest.approx(0.95))


def test_the_other_rules_promise_nothing():
    rows = {"confidence": np.arange(100) / 100, "wrong": np.arange(100) < 50, "hard": [False] * 90 + [True] * 10}
    fixed = choose_threshold(rows, rule=Fixed(threshold=0.7))
    assert (fixed.threshold, fixed.coverage, fixed.target_risk) == (0.7, 0.2, None)
    capacity = choose_threshold(rows, rule=Capacity(reviews=0.3))
    assert (capacity.threshold, capacity.coverage) == (0.2, 0.7)
    assert "10 of 100 rows go to people anyway" in choose_threshold(rows, rule=Capacity(reviews=0.05)).reason_if_none
    cost = choose_threshold(rows, rule=Cost(review=1, error=3))
    assert (cost.threshold, cost.target_risk) == (0.5, None)
    assert (
        "cheaper"
        in choose_threshold({"confidence": [0.9], "wrong": [True]}, rule=Cost(review=1, error=9)).reason_if_none
    )


def test_the_promise_holds_for_all_groups_at_once():
    streams, broken, names = 150, 0, ("at the target", "overconfident", "mixed")
    rng = np.random.default_rng(12)
    for _ in range(streams):
        drawn = {name: World(name).draw(rng, 1, 600) for name in names}
        rows = pd.DataFrame({
            "confidence": np.concatenate([sure[0] for sure, _ in drawn.values()]),
            "wrong": np.concatenate([wrong[0] for _, wrong in drawn.values()]), "group": np.repeat(names, 600),
        })  # fmt: skip
        found = by_group(rows, Certified(target_risk=TARGET, confidence_level=1 - DELTA))
        broken += any(
            one.threshold is not None and World(name).risk(one.threshold) > TARGET for name, one in found.items()
        )
    assert gate(broken / streams, streams)


def test_groups_share_the_chance_of_a_broken_promise():
    world = World("calibrated")
    sure, wrong = world.draw(np.random.default_rng(10), 1, 4000)
    rows = pd.DataFrame({"confidence": sure[0], "wrong": wrong[0], "group": ["a", "b"] * 2000})
    found = by_group(rows, Certified(target_risk=TARGET, confidence_level=0.9))
    assert set(found) == {"a", "b"}
    assert [one.confidence_level for one in found.values()] == pytest.approx([0.95, 0.95])
    alone = choose_threshold(rows[rows["group"] == "a"], TARGET, 0.95)
    assert found["a"].threshold == alone.threshold
    with pytest.raises(BadInput, match="columns are confidence, wrong, group"):
        by_group(rows, Certified(), by="team")


@pytest.mark.parametrize(
    "options",
    [
        {"target_risk": 0},
        {"confidence_level": 1},
        {"target_risk": "2 %"},
        {"start": 2},
        {"start": ()},
        {"start": "0.6"},
    ],
)
def test_a_promise_that_cannot_be_is_refused(options):
    with pytest.raises(BadInput, match=next(iter(options))):
        choose_threshold({"confidence": [0.9] * 400, "wrong": [False] * 400}, **options)


def test_a_history_of_two_models_needs_a_word_which_one():
    rows = pd.DataFrame({"confidence": [0.9] * 400, "wrong": [False] * 400, "model": ["v1", "v2"] * 200})
    with pytest.raises(BadInput, match="holds v1, v2; name the one"):
        choose_threshold(rows)
    assert (choose_threshold(rows, model="v2").n, choose_threshold(rows, model="v2").model) == (200, "v2")
    assert len(read(rows)) == 400


def test_a_test_of_the_sequence_is_exact():
    assert bdtr(0, 149, 0.02) == pytest.approx(0.98**149)


@pytest.mark.filterwarnings("ignore:Fixed sequence testing requires:UserWarning")
@pytest.mark.parametrize("name", RIGHT)
def test_p_values_and_thresholds_are_those_of_mapie_on_the_same_grid(name):
    """MAPIE rounds errors up after a product of floats, so some of its p-values are those of one error more."""
    from mapie.risk_control import BinaryClassificationController

    sure, wrong = (one[0] for one in World(name).draw(np.random.default_rng(11), 1, 1000))
    grid = np.linspace(0.99, 0.5, 50)
    theirs = BinaryClassificationController(
        lambda x: np.c_[1 - x[:, 0], x[:, 0]], risk="precision", target_level=1 - TARGET, confidence_level=1 - DELTA,
        list_predict_params=grid, fwer_method="fixed_sequence",
    )  # fmt: skip
    theirs.calibrate(sure[:, None], (~wrong).astype(int))
    above = sure >= grid[:, None]
    ours = [exact_p_value((above & wrong).sum(axis=1) + more, above.sum(axis=1), TARGET) for more in (0, 1)]
    apart = np.abs(theirs.p_values.ravel() - ours)
    assert apart.min(axis=0).max() < 1e-9
    assert (apart[0] < 1e-9).sum() >= 5
    passed = np.cumprod(theirs.p_values.ravel() <= DELTA).astype(bool)
    assert list(theirs.valid_predict_params) == grid[passed].tolist()


SURE = {"confidence": np.linspace(0.5, 1, 2000), "wrong": [False] * 2000}


def test_one_answer_without_a_model_makes_no_promise_for_any_model():
    unnamed = pd.DataFrame(SURE | {"model": ["v7"] * 1999 + [None]})
    with pytest.raises(BadInput, match="holds v7, 1 rows without a model; name the one"):
        choose_threshold(unnamed)
    assert (choose_threshold(unnamed, model="v7").model, choose_threshold(unnamed, model="v7").n) == ("v7", 1999)
    assert choose_threshold(SURE | {"model": [None] * 2000}).model is None


def test_a_model_that_is_a_number_is_the_one_that_answers_name():
    promise = choose_threshold(SURE | {"model": [7] * 2000})
    again = Policy.from_dict(Policy(promise, audit_rate=0).to_dict())
    batch = Batch.from_rows([{}] * 2, [{"confidence": 1.0, "model": 7}, {"confidence": 1.0, "model": 8}])
    ids = np.arange(4, dtype=np.uint64).reshape(2, 2)
    assert again.decide(batch, task_ids=ids, now=pd.Timestamp("2026-01-05")).approved.tolist() == [True, False]
    with pytest.raises(BadInput, match=r"model .*a text or a number"):
        choose_threshold(SURE | {"model": [pd.Timestamp("2026-01-05")] * 2000})


def test_a_certificate_says_on_what_it_rests_beside_the_judged_rows():
    frame = pd.DataFrame(SURE).astype({"wrong": "object"}).assign(hard=[True] * 10 + [False] * 1990)
    frame = frame.assign(review_probability=1.0)
    frame.loc[1900:1904, "wrong"] = None
    promise = choose_threshold(frame)
    assert str(promise).endswith(
        " Provided that the 5 rows that wait for their judgement are like those that were judged and hard rules go on"
        " asking a person, as they did of 10 rows."
    )
    assert Policy.from_dict(Policy(promise).to_dict()).confidence_threshold == promise
    assert "Provided" not in str(choose_threshold(SURE))
    assert "Provided" not in str(choose_threshold(frame, rule=Fixed(threshold=0.9)))
    frame["group"] = ["a", "b"] * 1000
    assert "as they did of 5 rows" in str(by_group(frame, Certified())["a"])


def test_rows_that_are_too_few_for_the_first_test_are_not_called_wrong():
    rows = {"confidence": np.linspace(0.5, 1, 200), "wrong": [False] * 200}
    said = choose_threshold(rows, start=0.6).reason_if_none
    assert said.startswith(
        "tests begin with 120 of 200 judged rows, too few for a proof without an error; it takes 150"
    )
    assert choose_threshold(rows, start=0).threshold is not None


def test_groups_need_a_promise_to_share_and_names():
    with pytest.raises(BadInput, match=r"rule .*pass Certified"):
        by_group(SURE | {"group": ["a"] * 2000}, Fixed(threshold=0.9))
    with pytest.raises(BadInput, match=r"by .*cannot name a group"):
        by_group(SURE | {"group": [["a"]] * 2000}, Certified())


def test_people_who_can_judge_everything_are_not_said_to_be_too_few():
    every = {"confidence": [0.9] * 2, "wrong": [False] * 2, "hard": [True] * 2}
    said = choose_threshold(every, rule=Capacity(reviews=1.0)).reason_if_none
    assert said == "2 of 2 rows go to people anyway, so none is left to a threshold"
    few = choose_threshold(every, rule=Capacity(reviews=0.5)).reason_if_none
    assert few == "2 of 2 rows go to people anyway, more than they can judge"
