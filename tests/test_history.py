"""What the lab reads: checked columns, and evidence in which every row had the same chance."""

import numpy as np
import pandas as pd
import pytest

from hitl_nb import Orchestrator, Policy, open_queue
from hitl_nb.errors import BadInput, EvidenceError
from hitl_nb.lab import check, read


def frame(**columns):
    n = max(len(column) for column in columns.values())
    columns = {"confidence": [0.9] * n, "wrong": [False] * n} | columns
    return pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})


def test_what_a_queue_logged_is_read_with_its_probabilities():
    with open_queue(":memory:") as queue:
        orchestrator = Orchestrator(queue=queue, policy=Policy(0.85, audit_rate=0.3, seed=1))
        said = [{"label": "a", "confidence": c, "regulated": False} for c in (0.5, 0.9, None)] * 100
        orchestrator.process_frame(pd.DataFrame({"x": range(300)}), [*said[:-1], said[1] | {"regulated": True}])
        for task in queue.pending(limit=1000):
            queue.resolve(task.task_id, "ann", "reject" if task.confidence == 0.5 else "approve")
        rows = read(queue.history())
    assert len(rows) == 300
    assert set(rows.probability[rows.open & (rows.confidence == 0.9)]) == {0.3}
    assert set(rows.probability[rows.confidence == 0.5]) == {1.0}
    assert 200 < rows.judged.sum() < 300  # two thirds, and the audits
    assert rows.hard.sum() == 100  # an unknown confidence is a hard rule too
    assert rows.open.sum() == 200
    assert rows.wrong[rows.confidence == 0.5].mean() == 1


def test_evidence_is_a_simple_random_sample_whatever_the_probabilities_were():
    rng, shares = np.random.default_rng(3), []
    for seed in range(300):
        confidence, wrong = rng.random(500), rng.random(500) < 0.3
        probability = np.where(confidence < 0.5, 1.0, 0.2)
        judged = rng.random(500) < probability
        rows = frame(confidence=confidence, wrong=np.where(judged, wrong, None), review_probability=probability)
        evidence = read(rows).evidence(seed)
        assert evidence.probability == 0.2
        shares.append([len(evidence) / 500, (evidence.confidence < 0.5).mean(), evidence.wrong.mean()])
    assert np.mean(shares, axis=0) == pytest.approx([0.2, 0.5, 0.3], abs=0.01)


def test_a_row_stays_in_or_out_however_many_rows_follow():
    given = frame(confidence=np.linspace(0, 1, 400), wrong=[False] * 400, review_probability=[1.0, 0.5] * 200)
    few, many = read(given[:200]).evidence(), read(given).evidence()
    assert few.confidence.tolist() == many.confidence[: len(few)].tolist()
    assert len(few) < 200


def test_hard_rules_and_unknown_confidences_are_no_evidence():
    rows = read(frame(confidence=[0.9, None, 0.8], wrong=[False] * 3, hard=[False, False, True]))
    assert rows.open.tolist() == [True, False, False]
    assert rows.evidence().confidence.tolist() == [0.9]


def test_labels_serve_where_nothing_says_wrong():
    rows = read({"confidence": [0.9, 0.8, 0.7], "prediction": [1, 2, 3.0], "label": [1.0, 3, 3]})
    assert rows.wrong.tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"confidence": [0.9, 1.2]}, r"confidence in row 1 = 1.2: must lie between 0 and 1"),
        ({"confidence": [-0.1]}, "confidence in row 0"),
        ({"confidence": [np.inf]}, "confidence in row 0"),
        ({"confidence": ["0.9"]}, "confidence in row 0 = '0.9': is no number"),
        ({"confidence": [True]}, "confidence in row 0"),
        ({"wrong": [0, 2]}, "wrong in row 1 = 2: must be True, False or missing"),
        ({"wrong": ["no"]}, "wrong in row 0"),
        ({"wrong": [True], "review_probability": [0.0]}, "review_probability in row 0 = 0.0: cannot be"),
        ({"wrong": [True], "review_probability": [None]}, "review_probability in row 0"),
        ({"wrong": [None], "review_probability": [1.5]}, "review_probability in row 0"),
        ({"hard": ["False"]}, "hard in row 0 = 'False': must be True, False or missing"),
        ({"audit_uniform": ["x"]}, "audit_uniform in row 0 = 'x': is no number"),
        ({"audit_probability": [1.5]}, "audit_probability in row 0"),
        ({"task_id": ["a", "a"]}, "task_id = 'a': stands there twice"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_column_and_row(columns, says):
    with pytest.raises(BadInput, match=says):
        read(frame(**columns))


def test_an_answer_before_its_question_is_refused():
    asked = pd.to_datetime(["2026-01-05 10:00", "2026-01-05 11:00"], utc=True)
    later = pd.to_datetime(["2026-01-05 10:05", None], utc=True)
    rows = pd.DataFrame({"confidence": [0.9] * 2, "wrong": [False] * 2, "at_time": asked, "reviewed_at": later})
    assert len(read(rows.iloc[::-1])) == 2  # the order of the rows says nothing
    with pytest.raises(BadInput, match=r"reviewed_at in row 0 = .*: is before at_time: time went backwards"):
        read(rows.assign(reviewed_at=later - pd.Timedelta("1h")))
    with pytest.raises(BadInput, match="claimed_at in row 1"):
        read(rows.assign(claimed_at=asked - pd.to_timedelta([0, 1], "h")))
    with pytest.raises(BadInput, match="cannot be compared with at_time"):
        read(rows.assign(reviewed_at="yesterday"))


def test_labels_of_another_type_than_the_predictions_are_refused():
    with pytest.raises(BadInput, match="numbers and str; make them one type"):
        read({"confidence": [0.9, 0.9], "prediction": [1, 2], "label": ["1", "2"]})


def test_a_column_that_is_missing_is_named():
    with pytest.raises(BadInput, match="has no column 'confidence'; rename yours to confidence"):
        read({"wrong": [True]})
    with pytest.raises(BadInput, match="has no column 'label'"):
        read({"confidence": [0.5], "prediction": ["a"]})
    with pytest.raises(BadInput, match=r"pass a DataFrame, such as queue\.history\(\)"):
        read(7)


def test_what_nobody_could_have_judged_says_nothing():
    with pytest.raises(EvidenceError, match="1 rows have no label, and no review_probability"):
        read(frame(wrong=[True, None]))
    with pytest.raises(EvidenceError, match="1 rows had no chance of being judged; audit them"):
        read(frame(wrong=[True, None], review_probability=[1.0, 0.0])).evidence()
    with pytest.raises(EvidenceError, match="no row with a known confidence"):
        read(frame(confidence=[None], wrong=[True])).evidence()
    with pytest.raises(EvidenceError, match="no row"):
        read(frame(confidence=[], wrong=[])).evidence()


def test_a_backlog_lowers_the_chance_of_the_rows_that_had_the_same():
    audits = {"audit_uniform": [0.5] * 4 + [0.05] * 4, "audit_probability": [0.0] * 4 + [0.1] * 4}
    wrong = [False, False, None, True, False, None, None, None]
    rows = read(frame(wrong=wrong, review_probability=[1.0] * 4 + [0.1] * 4, **audits))
    assert rows.probability == pytest.approx([0.75] * 4 + [0.025] * 4)
    assert rows.logged.tolist() == [1.0] * 4 + [0.1] * 4
    assert rows.asked.tolist() == [True] * 4 + [False] * 4
    assert rows.waiting.tolist() == [False, False, True, False, False, True, True, True]


def test_evidence_with_a_backlog_is_a_simple_random_sample_all_the_same():
    rng, shares = np.random.default_rng(3), []
    for seed in range(200):
        confidence, uniform = rng.random(2000), rng.random(2000)
        through = confidence >= 0.5
        wrong = rng.random(2000) < np.where(through, 0.6, 0.1)
        came = ~through | ((uniform < 0.2) & (rng.random(2000) < 0.25))
        rows = frame(
            confidence=confidence, wrong=np.where(came, wrong, None), review_probability=np.where(through, 0.2, 1.0),
            audit_uniform=uniform, audit_probability=np.where(through, 0.2, 0.0),
        )  # fmt: skip
        evidence = read(rows).evidence(seed)
        shares.append([evidence.probability, (evidence.confidence < 0.5).mean(), evidence.wrong.mean()])
    assert np.mean(shares, axis=0) == pytest.approx([0.05, 0.5, 0.35], abs=0.015)


def test_times_of_text_are_read_and_what_is_no_time_is_refused():
    rows = frame(wrong=[False] * 40, at_time=[f"2026-01-05 {h:02d}:00" for h in range(20)] * 2)
    assert read(rows).pace == pytest.approx(40 / 19)
    for times in ([1, 2], ["soon", "later"]):
        with pytest.raises(BadInput, match=r"at_time = .*: holds what is no time"):
            check(frame(wrong=[False] * 2).assign(at_time=times))


def test_categories_that_differ_are_compared_as_labels():
    rows = {"confidence": [0.9, 0.8], "prediction": pd.Categorical(["a", "b"]), "label": pd.Categorical(["a", "a"])}
    assert read(pd.DataFrame(rows)).wrong.tolist() == [0.0, 1.0]


def test_a_column_that_stands_there_twice_is_refused():
    with pytest.raises(BadInput, match="'confidence': is the name of two columns"):
        read(pd.DataFrame([[0.9, 0.8, 0]], columns=["confidence", "confidence", "wrong"]))


# -- what can be concluded ---------------------------------------------------------------------------------------------


def test_a_check_counts_what_was_to_be_judged_and_waits_also_audits():
    with open_queue(":memory:") as queue:
        orchestrator = Orchestrator(queue=queue, policy=Policy(0.85, audit_rate=0.3, seed=1))
        said = [{"label": "a", "confidence": c} for c in (0.5, 0.9)] * 100
        orchestrator.process_frame(pd.DataFrame({"x": range(200)}), said)
        drawn = queue.stats().audits
        before = check(queue.history())
        for task in queue.pending(limit=1000):
            queue.resolve(task.task_id, "ann", "approve")
        after = check(queue.history())
    assert (before.waiting, before.judged, before.sample) == (100 + drawn, 0, 0)
    assert (after.waiting, after.judged) == (0, 100 + drawn)
    assert 40 <= after.sample <= 80
    assert after.probability == 0.3
    assert "wait still" in before.conclusions[1]
    assert len(after.conclusions) == 1
    assert "<table" in after._repr_html_()


def test_a_check_says_what_is_missing_or_that_a_promise_can_be_made():
    assert "a threshold may be promised" in check(frame(confidence=[0.9] * 150, wrong=[False] * 150)).conclusions[0]
    rows = frame(confidence=[0.9] * 40, wrong=[False] * 40, review_probability=[0.5] * 40)
    assert check(rows).conclusions[0].endswith("110 more judged rows without an error, 220 rows more at p=0.5")
    paced = rows.assign(at_time=pd.date_range("2026-01-05", periods=40, freq="1h", tz="UTC"))  # 40 rows in 39 hours
    assert check(paced).conclusions[0].endswith("220 rows more at p=0.5, about 8.9 days at the pace of this history")
    rare = rows.assign(review_probability=[0.0005] * 2 + [0.5] * 38)
    assert "leave out the 2 rows with review_probability below 0.5" in check(rare).conclusions[1]
    assert "38 rows remain" in check(rare).conclusions[1]
    unseen = frame(wrong=[True, None], review_probability=[1.0, 0.0])
    assert "1 rows had no chance of being judged" in check(unseen).conclusions[0]
    assert "no promise yet" in check(frame(confidence=[None], wrong=[True])).conclusions[0]
    with pytest.raises(BadInput, match="target_risk"):
        check(rows, target_risk=0)


@pytest.mark.parametrize(("ids", "twice"), [("abc", None), ("cab", None), ("aabc", "a"), ("cba", None), ("bcb", "b")])
def test_ids_are_looked_through_whether_or_not_they_ascend(ids, twice):
    rows = frame(wrong=[False] * len(ids)).assign(task_id=pd.Series(list(ids), dtype="str"))
    if twice is None:
        assert len(read(rows)) == len(ids)
    else:
        with pytest.raises(BadInput, match=f"task_id = '{twice}': stands there twice"):
            read(rows)
