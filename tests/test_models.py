"""Stored models: what is loaded is what was saved, and nothing hostile is."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
import threading
import warnings
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
import sklearn
import skops.io
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hitl_nb.errors import BadInput, LearnerError, ModelNotFound, RetrainRunning, UntrustedModel
from hitl_nb.learner import Challenger, ModelStore

X, Y = load_iris(return_X_y=True)
NOW = datetime(2026, 3, 1, 12)


def made(version="v1", estimator=None):
    model = (make_pipeline(StandardScaler(), LogisticRegression()) if estimator is None else estimator).fit(X, Y)
    return Challenger(
        model=model,
        version=version,
        n_rows=150,
        effective_size=90.0,
        data_hash="ab",
        strategy="margin",
        weighting="ones",
        metrics={"train_accuracy": 0.97},
    )


class Homemade(BaseEstimator):
    def fit(self, X, y):
        self.fitted_ = True
        return self


@pytest.mark.parametrize(
    "estimator",
    [
        None,
        RandomForestClassifier(5, random_state=0),
        GradientBoostingClassifier(n_estimators=3),
        HistGradientBoostingClassifier(max_iter=3),
        KNeighborsClassifier(),
        CalibratedClassifierCV(GaussianNB()),
        CalibratedClassifierCV(GaussianNB(), method="isotonic"),
        pytest.param(MLPClassifier(max_iter=5), marks=pytest.mark.filterwarnings("ignore")),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_a_stored_model_answers_as_before(tmp_path, estimator):
    store, challenger = ModelStore(tmp_path), made(estimator=estimator)
    store.save(challenger, created_at=NOW)
    loaded = store.load("v1")
    assert np.array_equal(loaded.model.predict_proba(X), challenger.model.predict_proba(X))
    assert (loaded.version, loaded.data_hash, loaded.metrics) == ("v1", "ab", {"train_accuracy": 0.97})


def test_the_record_says_where_the_model_comes_from(tmp_path):
    store = ModelStore(tmp_path)
    record = store.save(made(), created_at=NOW, policy={"confidence_threshold": 0.85}, metrics={"difference": -0.01})
    assert record == store.record("v1")
    assert record.created_at == "2026-03-01T12:00:00"
    assert record.policy == {"confidence_threshold": 0.85}
    assert record.metrics == {"train_accuracy": 0.97, "difference": -0.01}
    assert (record.strategy, record.weighting, record.n_rows) == ("margin", "ones", 150)


def test_an_altered_file_is_not_loaded(tmp_path):
    store = ModelStore(tmp_path)
    store.save(made(), created_at=NOW)
    path = tmp_path / "v1.skops"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UntrustedModel, match="sha256"):
        store.load("v1")
    path.unlink()
    with pytest.raises(UntrustedModel, match="gone"):
        store.load("v1")


def test_a_model_of_another_scikit_learn_is_loaded_with_a_word_about_it(tmp_path):
    store = ModelStore(tmp_path)
    store.save(made(), created_at=NOW)
    record = json.loads((tmp_path / "v1.json").read_text())
    for version, warned in [("1.2.0", True), (sklearn.__version__, False), ("", False)]:
        (tmp_path / "v1.json").write_text(json.dumps(record | {"sklearn": version}))
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            store.load("v1")
        said = [str(one.message) for one in found if "was made with scikit-learn 1.2.0" in str(one.message)]
        assert bool(said) is warned


def test_unknown_types_are_refused_by_name_unless_trusted(tmp_path):
    store = ModelStore(tmp_path)
    store.save(made(estimator=Homemade()), created_at=NOW)
    with pytest.raises(UntrustedModel, match=r"test_models\.Homemade") as caught:
        store.load("v1")
    assert ModelStore(tmp_path, trusted=caught.value.types).load("v1").model.fitted_


def swap(folder, content):
    """Put another file in place of v1, with a record that fits it, as an attacker could."""
    (folder / "v1.skops").write_bytes(content)
    values = json.loads((folder / "v1.json").read_text()) | {"sha256": hashlib.sha256(content).hexdigest()}
    (folder / "v1.json").write_text(json.dumps(values))


def test_a_hostile_file_never_runs_even_with_a_fitting_record(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'owned'}",)

    store = ModelStore(tmp_path)
    store.save(made(), created_at=NOW)
    for content, shown in [(skops.io.dumps({"m": os.system}), "system"), (pickle.dumps(Evil()), "cannot be read")]:
        swap(tmp_path, content)
        with pytest.raises(UntrustedModel, match=shown):
            store.load("v1")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("text", ["", "[1]", '{"colour": "red"}', None])
def test_a_damaged_record_is_not_believed(tmp_path, text):
    store = ModelStore(tmp_path)
    store.save(made(), created_at=NOW)
    path = tmp_path / "v1.json"
    path.write_text(path.read_text().replace('"version": "v1"', '"version": "v2"') if text is None else text)
    with pytest.raises(UntrustedModel, match="record"):
        store.load("v1")


def test_the_pointer_moves_forward_and_back(tmp_path):
    store = ModelStore(tmp_path)
    assert store.latest() is None
    with pytest.raises(ModelNotFound):
        store.load()
    for version in ("v1", "v2"):
        store.save(made(version), created_at=NOW)
        store.use(version)
    assert [record.version for record in store.records()] == ["v1", "v2"]
    assert (store.latest().version, store.load().version) == ("v2", "v2")
    assert store.rollback().version == ModelStore(tmp_path).latest().version == "v1"
    with pytest.raises(LearnerError, match="no earlier"):
        store.rollback()


def test_a_record_keeps_the_rows_and_what_was_held_out(tmp_path):
    store, challenger = ModelStore(tmp_path), made()
    rows = {"columns": ("x", 1), "trained": {"t1": 2**64 - 1, "t2": 0}, "held": ("t3", "täsk 4")}
    store.save(replace(challenger, **rows), created_at=NOW, looks=3)
    loaded = store.load("v1")
    assert {name: getattr(loaded, name) for name in rows} == rows
    assert store.record("v1").looks == 3
    assert "t1" not in repr(loaded) + repr(store.record("v1"))


@pytest.mark.parametrize(("version", "number"), [("v1", 1), ("v12", 12), ("v", 0), ("w3", 0), ("v٣", 0), ("v1.2", 0)])
def test_only_a_version_of_ours_has_a_number(version, number):
    assert Challenger(model=None, version=version).number == number


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "models").write_text("")
    with pytest.raises(BadInput, match="models"):
        ModelStore(tmp_path / "models")


def test_an_unknown_version_names_the_known_ones(tmp_path):
    store = ModelStore(tmp_path)
    store.save(made(), created_at=NOW)
    with pytest.raises(ModelNotFound, match="v1"):
        store.use("v9")


@pytest.mark.parametrize("version", ["../v1", "", ".hidden", "a/b", "v 1"])
def test_a_version_that_is_no_file_name_is_refused(tmp_path, version):
    with pytest.raises(BadInput):
        ModelStore(tmp_path / "models").save(made(version), created_at=NOW)
    assert list(tmp_path.glob("*.skops")) == []


def test_a_stored_model_is_never_overwritten(tmp_path):
    store = ModelStore(tmp_path)
    before = store.save(made(), created_at=NOW)
    with pytest.raises(BadInput, match="stored already"):
        store.save(made(), created_at=NOW)
    assert store.record("v1") == before


def test_a_save_that_fails_leaves_no_half_model(tmp_path, monkeypatch):
    store = ModelStore(tmp_path)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        store.save(made(), created_at=NOW)
    monkeypatch.undo()
    assert store.records() == []
    assert [path.name for path in tmp_path.iterdir()] == ["saving"]  # the lock


def test_of_two_that_save_one_version_at_once_one_is_refused(tmp_path, monkeypatch):
    replaced, begun, go, found = os.replace, threading.Event(), threading.Event(), []

    def slow(*paths):  # between the look for the record and its writing
        begun.set()
        assert go.wait(60)
        replaced(*paths)

    def save(challenger):
        try:
            found.append(ModelStore(tmp_path).save(challenger, created_at=NOW))
        except BadInput:
            found.append("refused")

    monkeypatch.setattr(os, "replace", slow)
    threads = [threading.Thread(target=save, args=(made(estimator=one),)) for one in (None, GaussianNB())]
    threads[0].start()
    assert begun.wait(60)
    threads[1].start()
    threads[1].join(0.2)  # it waits; were it let in, it would write as well
    go.set()
    for thread in threads:
        thread.join(60)
    assert found.count("refused") == 1
    assert ModelStore(tmp_path).record("v1") in found
    assert ModelStore(tmp_path).load("v1")


def test_a_lock_keeps_others_out_also_of_other_processes_and_ends_with_a_kill(tmp_path):
    code = "import sys, time; from hitl_nb.learner import ModelStore\n"
    code += "with ModelStore(sys.argv[1]).lock():\n    print('has it', flush=True)\n    time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout.readline() == b"has it\n"
            with pytest.raises(RetrainRunning, match="running already in"), ModelStore(tmp_path).lock():
                pass
        finally:
            other.kill()
    for _ in range(2):
        with ModelStore(tmp_path).lock():
            pass


def test_what_cannot_be_loaded_is_not_put_in_use_by_a_rollback(tmp_path):
    store = ModelStore(tmp_path)
    for version in ("v1", "v2"):
        store.save(made(version), created_at=NOW)
        store.use(version)
    (tmp_path / "v1.skops").write_bytes(b"")
    with pytest.raises(UntrustedModel, match="v1"):
        store.rollback()
    assert store.latest().version == "v2"


def test_a_time_that_is_none_is_refused_when_it_is_saved_and_when_it_is_read(tmp_path):
    store = ModelStore(tmp_path)
    with pytest.raises(BadInput, match="created_at = 'yesterday'"):
        store.save(made(), created_at="yesterday")
    store.save(made(), created_at=NOW)
    record = json.loads((tmp_path / "v1.json").read_text())
    (tmp_path / "v1.json").write_text(json.dumps(record | {"created_at": "yesterday"}))
    with pytest.raises(UntrustedModel, match=r"v1\.json' cannot be read .*created_at"):
        store.records()
