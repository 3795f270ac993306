"""A retrain that is due, in the background, watched and cancelled; and by hand from the command line."""

import os
import threading
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from conftest import Clock
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression

from hitl_nb import open_queue
from hitl_nb.cli import main
from hitl_nb.errors import BadInput, FitFailed, LearnerError, NotEnoughSamples, RetrainCancelled, RetrainRunning
from hitl_nb.learner import Learner, ModelStore
from hitl_nb.loop import Loop, take_up

#: longest time that a test waits for another thread, in seconds; nothing is measured by it
LONG = 60


class Waiting(ClassifierMixin, BaseEstimator):
    """A classifier whose fit begins and ends when a test lets it."""

    def __init__(self, begun=None, go=None):
        self.begun, self.go = begun, go

    def fit(self, X, y, sample_weight=None):
        self.begun[0].set()
        assert self.go[0].wait(LONG)
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        return np.full((len(X), len(self.classes_)), 1 / len(self.classes_))


def labels(n=40):
    x = np.arange(float(n))
    return pd.DataFrame({"task_id": [f"i{i}" for i in range(n)], "x": x, "label": np.where(x > n / 2, "b", "a")})


def answered(queue, x=1.0, label="a"):
    asked = {"input_data": {"x": x}, "ai_prediction": {"label": label}, "confidence": 0.5, "reason": "unsure"}
    task = queue.submit(**asked)
    queue.resolve(task.task_id, "ann", "approve")
    return task.task_id


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def loop(clock):
    learner = Learner(LogisticRegression(), min_samples=3)
    learner.add(labels().assign(source="initial"))
    with open_queue(":memory:", clock=clock) as queue:
        yield Loop(queue, learner)


@pytest.fixture
def slow(loop):
    """Return a loop whose fit waits, what is set when it begins, and what lets it end."""
    begun, go = threading.Event(), threading.Event()
    loop.retrain(force=True)
    answered(loop.queue)
    # clone() would copy an event; a list that is shared is copied as well, so the class holds both
    loop.learner.estimator = type("Held", (Waiting,), {"fit": _held(begun, go)})()
    yield loop, begun, go
    go.set()


def _held(begun, go):
    def fit(self, X, y, sample_weight=None):
        self.begun, self.go = [begun], [go]
        return Waiting.fit(self, X, y, sample_weight)

    return fit


def test_reviews_go_on_while_a_model_is_fitted_and_are_for_the_next_one(slow):
    loop, begun, go = slow
    heard = []
    running = loop.start(heard.append, force=True)
    assert begun.wait(LONG)
    answered(loop.queue, 2.0)
    assert loop.refresh() == 1
    assert not running.done
    assert "retraining" in repr(running)
    go.set()
    report = running.wait(LONG)
    assert report.challenger.n_rows == 21  # 20 initial ones that are not held out, and the answer before it began
    assert loop.learner.counted == 1
    assert heard == running.lines
    assert [line.split()[0] for line in heard] == ["fitting", "fitted;", "comparing"]
    assert repr(running) == repr(report)


def test_a_cancelled_retrain_changes_nothing_and_can_be_started_again(slow):
    loop, begun, go = slow
    champion, events = loop.learner.champion, len(loop.queue.events())
    running = loop.start(force=True)
    assert begun.wait(LONG)
    with pytest.raises(TimeoutError, match=r"runs still \(fitting Held"):
        running.wait(0)
    running.cancel()
    go.set()
    with pytest.raises(RetrainCancelled, match=r"cancelled before fitted.*the model in use stays"):
        running.wait(LONG)
    assert "not retrained: cancelled" in repr(running)
    assert (loop.learner.champion, loop.learner.counted, len(loop.queue.events())) == (champion, 1, events)
    loop.learner.estimator = LogisticRegression()
    assert loop.start(force=True).wait(LONG).challenger.n_rows == 21


def test_a_look_at_the_holdout_is_never_forgotten_by_a_cancel(slow, tmp_path):
    loop, _, go = slow
    loop.models = ModelStore(tmp_path)
    go.set()
    running = loop.start(lambda line: running.cancel() if line.startswith("comparing") else None, force=True)
    assert running.wait(LONG).looks == loop.learner.looks == loop.models.record("v2").looks == 1


def test_what_ends_a_retrain_in_the_background_is_raised_where_it_is_waited_for(loop):
    loop.retrain(force=True)
    with pytest.raises(NotEnoughSamples, match="0 reviewed samples, 3 needed"):
        loop.start().wait(LONG)
    loop.learner.estimator = LogisticRegression(C=-1.0)
    with pytest.raises(FitFailed):
        loop.start(force=True).wait(LONG)


# -- when it is due ----------------------------------------------------------------------------------------------------


def test_a_retrain_is_due_by_count(loop):
    loop.retrain(force=True)
    for i in range(3):
        assert loop.retrain_if_due() is None
        answered(loop.queue, float(i))
    assert loop.retrain_if_due().challenger.version == "v2"
    assert loop.queue.events()[-1]["body"]["why"] == "by count: 3 new answers"
    assert loop.retrain_if_due() is None


def test_a_retrain_is_due_by_time_if_there_is_something_new(loop, clock, tmp_path):
    loop.every = timedelta(days=7)
    loop.retrain(force=True)
    clock.forward(days=8)
    assert loop.retrain_if_due() is None
    answered(loop.queue)
    assert loop.retrain_if_due() is not None
    assert loop.queue.events()[-1]["body"]["why"] == "by time: 1 new answers, 8.0 days since the last"
    clock.forward(days=6)
    answered(loop.queue, 2.0)
    assert loop.retrain_if_due() is None


def test_a_restart_remembers_when_the_last_retrain_was(loop, clock, tmp_path):
    loop.models = ModelStore(tmp_path)
    loop.retrain(force=True)
    clock.forward(days=8)
    again = Loop(loop.queue, Learner(LogisticRegression()), models=loop.models, every=timedelta(days=7))
    answered(loop.queue)
    again.refresh()
    assert again.due() == "by time: 1 new answers, 8.0 days since the last"


def test_a_retrain_is_due_by_an_alarm_of_drift(loop):
    alarms = iter([None, "", "accuracy fell by 4 points"])
    loop.drift = lambda: next(alarms)
    loop.retrain(force=True)
    assert loop.retrain_if_due() is None  # nothing new: the alarm is not even asked for
    answered(loop.queue)
    assert [loop.retrain_if_due(), loop.retrain_if_due()] == [None, None]
    assert loop.retrain_if_due() is not None
    assert loop.queue.events()[-1]["body"]["why"] == "by an alarm of drift: accuracy fell by 4 points"


# -- hitl-nb retrain ---------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    with open_queue(tmp_path / "q.duckdb") as queue:
        for i in range(4):
            answered(queue, float(i), "ab"[i % 2])
    return tmp_path / "q.duckdb"


def test_the_command_fits_the_first_model_and_goes_on_with_it(file, capsys):
    assert main(["retrain", str(file)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("v1 is in use: the first model, compared with none")
    assert "fitting Pipeline to 4 rows" in said.err
    labels(60).drop(columns="task_id").to_csv(file.with_suffix(".csv"), index=False)
    assert main(["retrain", str(file), "--labels", str(file.with_suffix(".csv"))]) == 0
    assert capsys.readouterr().out.startswith("v2 is ")
    assert [record.version for record in ModelStore(file.with_suffix(".models")).records()] == ["v1", "v2"]


def test_the_command_says_what_is_wrong(file, tmp_path, capsys):
    (tmp_path / "odd.csv").write_bytes(b"\xff\xfe\x00")
    assert main(["retrain", str(file), "--labels", str(tmp_path / "odd.csv")]) == 1
    assert "pass a CSV or Parquet file" in capsys.readouterr().err
    assert main(["retrain", str(tmp_path / "none.duckdb")]) == 1
    assert "there is no such file" in capsys.readouterr().err
    with open_queue(tmp_path / "empty.duckdb"):
        pass
    assert main(["retrain", str(tmp_path / "empty.duckdb")]) == 1
    assert "0 reviewed samples" in capsys.readouterr().err


def test_a_loop_taken_up_has_the_estimator_columns_and_words_of_the_model_in_use(file, tmp_path):
    rows = labels().assign(source="initial", unused=1.0)
    learner = Learner(LogisticRegression(C=0.5), "entropy", "ones", features=["x"])
    learner.add(rows)
    with open_queue(file) as queue:
        Loop(queue, learner, models=ModelStore(tmp_path / "m")).retrain(force=True)
        rows.to_parquet(tmp_path / "rows.parquet")
        again = take_up(queue, tmp_path / "m", tmp_path / "rows.parquet").learner
        assert (again.strategy, again.weighting, again.estimator.C) == ("entropy", "ones", 0.5)
        assert again.buffer.columns == ["x"]
        with pytest.raises(BadInput, match="labels"):
            take_up(queue, tmp_path / "m", tmp_path / "gone.csv")


@pytest.mark.parametrize("name", ["features", "weighting"])
def test_a_function_that_no_folder_keeps_is_refused_by_its_name(file, tmp_path, name):
    def mine(values):
        return values if isinstance(values, pd.DataFrame) else np.ones(len(values))

    learner = Learner(LogisticRegression(), **{name: mine})
    learner.add(labels().assign(source="initial"))
    with open_queue(file) as queue:
        Loop(queue, learner, models=ModelStore(tmp_path / "m")).retrain(force=True)
        with pytest.raises(BadInput, match=f"{name} = 'mine': is a function, which is not stored with model v1"):
            take_up(queue, tmp_path / "m")


def test_a_loop_taken_up_works_by_the_same_options_and_says_what_it_leaves_out(file, tmp_path):
    def wild(probabilities, rng):
        return rng.random(len(probabilities))

    learner = Learner(LogisticRegression(), wild, rejects="label", holdout=0.3, held_reviews=0.1, min_samples=7, seed=5)
    learner.add(labels().assign(source="initial"))
    with open_queue(file) as queue:
        Loop(queue, learner, models=ModelStore(tmp_path / "m")).retrain(force=True)
        with pytest.warns(UserWarning, match="the strategy wild is a function"):
            again = take_up(queue, tmp_path / "m").learner
    assert (again.buffer.rejects, again.holdout, again.held_reviews) == ("label", 0.3, 0.1)
    assert (again.min_samples, again.seed) == (7, 5)
    assert again.strategy == "exploring_margin"


def test_initial_rows_are_the_same_ones_in_whatever_order_and_company_they_come_again(file, tmp_path):
    rows = labels(60).drop(columns="task_id")
    rows = pd.concat([rows, rows[:2]])  # two of them twice
    more = pd.DataFrame({"x": [-5.5, 99.5], "label": ["a", "b"]})
    rows.to_csv(tmp_path / "first.csv", index=False)
    pd.concat([more, rows[::-1]])[["label", "x"]].to_csv(tmp_path / "then.csv", index=False)
    with open_queue(file) as queue:
        first = take_up(queue, tmp_path / "m", tmp_path / "first.csv").learner.buffer.rows
        then = take_up(queue, tmp_path / "m", tmp_path / "then.csv").learner.buffer.rows
    assert len(first) == 62
    assert len(then) == 64
    assert then.loc[first.index, "x"].tolist() == first["x"].tolist()


def test_the_command_says_that_initial_rows_are_missing(file, capsys):
    rows = file.with_suffix(".csv")
    labels(60).to_csv(rows, index=False)
    assert main(["retrain", str(file), "--labels", str(rows)]) == 0
    assert "--labels" not in capsys.readouterr().err
    assert main(["retrain", str(file)]) == 0
    assert "v1 learned from 30 rows that did not come from the queue; add them with --labels" in capsys.readouterr().err


# -- one retrain at a time ---------------------------------------------------------------------------------------------


def test_an_alarm_that_stays_on_starts_one_retrain(loop):
    alarms = ["the errors rose"]
    loop.drift = lambda: alarms[0]
    loop.retrain(force=True)
    loop.learner.min_samples = 50
    made = []
    for i in range(8):
        alarms[0] = {4: "", 5: "they rose again"}.get(i, alarms[0])
        answered(loop.queue, float(i))
        made.append(loop.retrain_if_due() is not None)
    assert made == [True, False, False, False, False, True, False, False]
    assert loop.learner.looks == 2


def test_a_retrain_that_runs_already_is_not_due_again(slow):
    loop, begun, go = slow
    loop.learner.min_samples = 1
    running = loop.start(force=True)
    assert begun.wait(LONG)
    answered(loop.queue, 2.0)
    with pytest.raises(RetrainRunning, match="running already in this loop"):
        loop.retrain(force=True)
    assert loop.retrain_if_due() is None
    go.set()
    assert running.wait(LONG).challenger.version == "v2"
    assert loop.retrain_if_due().challenger.version == "v3"


def test_answers_are_read_again_only_after_something_happened(loop):
    read = []
    loop.refresh = lambda: read.append(Loop.refresh(loop))
    for _ in range(3):
        loop.retrain_if_due()
    assert read == []  # nothing has happened yet
    answered(loop.queue)
    for _ in range(3):
        loop.retrain_if_due()
    assert read == [1]
    answered(loop.queue, 2.0)
    loop.retrain_if_due()
    assert read == [1, 1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_in_a_fork_a_retrain_is_neither_done_nor_waited_for(slow):
    loop, begun, go = slow
    running = loop.start(force=True)
    assert begun.wait(LONG)
    child = os.fork()
    if not child:
        try:
            running.wait(LONG)
        except LearnerError as error:
            os._exit(7 if not running.done and "forked" in str(error) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    go.set()
    assert running.wait(LONG).challenger.version == "v2"
    assert running.done
