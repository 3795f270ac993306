"""review(): a frame and a model in, a panel and the answers beside the frame out."""

import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

import hitl_nb
from hitl_nb.errors import BadInput
from hitl_nb.panel import review
from hitl_nb.panel.show import show
from hitl_nb.shipped import load_spam

module = sys.modules["hitl_nb.panel.review"]  # the package exports a function of that name


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True, as_frame=True)
    model = LogisticRegression(max_iter=500).fit(x[:1000] / 16, y[:1000])
    return x[1000:] / 16, y[1000:], model


@pytest.fixture(scope="module")
def spam():
    table = load_spam().sample(400, random_state=0)
    x = table.drop(columns="label")
    return x, table["label"], LogisticRegression(max_iter=2000).fit(x[:200], table["label"][:200])


def table(n=4, **columns):
    return pd.DataFrame({"text": [f"mail {i}" for i in range(n)], "guess": "spam", "p": [0.9, 0.5, 0.7, 0.6]} | columns)


def test_digits_are_reviewed_least_certain_first(digits):
    x, y, model = digits
    handle = review(x, model, n=20)
    p = model.predict_proba(x)
    order = np.argsort(p.max(axis=1), kind="stable")[:20]
    seen = []
    while handle.panel.view.state == "item":
        position = order[len(seen)]
        assert handle.panel.view.shown.image == show(x.iloc[position].to_numpy().reshape(8, 8)).image
        assert handle.panel.view.confidence == f"{p[position].max():.3g}"
        assert handle.panel.view.prediction == str(model.classes_[p[position].argmax()])
        handle.panel.correct(int(y.iloc[position]))
        seen.append(position)
    frame = handle.frame
    judged = frame.iloc[order]
    assert judged["label"].tolist() == y.iloc[order].tolist()
    assert judged["wrong"].tolist() == (y.iloc[order] != model.predict(x.iloc[order])).tolist()
    assert judged["wrong"].any()
    assert frame["outcome"].notna().sum() == 20
    pd.testing.assert_frame_equal(frame[x.columns], x)


def test_the_frame_starts_as_na_and_fills(spam):
    x, _, model = spam
    handle = review(x, model, n=5)
    assert handle.frame[["label", "outcome", "wrong"]].isna().all(axis=None)
    assert handle.frame.index.equals(x.index)
    assert repr(handle) == "Review of 5 rows: 0 judged; the answers are in .frame"
    handle.panel.approve()
    handle.panel.reject()
    handle.panel.undo()
    handle.panel.correct(handle.panel.view.prediction)
    frame = handle.frame
    assert frame["outcome"].value_counts().to_dict() == {"approve": 2}
    assert frame["wrong"].sum() == 0
    assert repr(handle) == "Review of 5 rows: 2 judged; the answers are in .frame"


def test_the_labels_of_the_model_are_the_choice(spam):
    handle = review(spam[0], spam[2], n=1)
    assert handle.panel.controller._check.options == ("ham", "spam")
    handle.panel.correct("eggs")
    assert "labels are ham, spam" in handle.panel.view.message


def test_columns_stand_in_for_a_model():
    handle = review(table(guess=["spam", "ham", "spam", "ham"]), label="guess", confidence="p")
    shown = []
    while handle.panel.view.state == "item":
        shown.append(handle.panel.view.shown.text)
        handle.panel.correct("ham")
    assert shown == ["mail 1", "mail 3", "mail 2", "mail 0"]
    assert handle.frame["wrong"].tolist() == [True, False, True, False]
    assert handle.frame["label"].tolist() == ["ham"] * 4
    assert list(handle.frame.columns) == ["text", "guess", "p", "label", "outcome", "wrong"]


@pytest.mark.parametrize("p", [[np.nan, 0.5, 2.0, 0.9], [None, 0.5, "x", 0.9]])
def test_an_unknown_confidence_comes_first(p):
    handle = review(table(p=p), label="guess", confidence="p", n=2)
    first = [handle.panel.view.confidence]
    handle.panel.approve()
    first.append(handle.panel.view.confidence)
    assert first == ["confidence unknown"] * 2
    handle.panel.approve()
    assert handle.frame["outcome"].notna().tolist() == [True, False, True, False]


def test_rows_without_any_doubt_are_asked_about_too():
    handle = review(table(p=1.0), label="guess", confidence="p")
    assert handle.panel.view.why == ("Every row was asked for",)
    for _ in range(4):
        handle.panel.approve()
    assert handle.frame["outcome"].tolist() == ["approve"] * 4


def test_a_duplicate_index_keeps_its_rows_apart():
    df = table().set_axis(["a", "a", "b", "a"])
    handle = review(df, label="guess", confidence="p")
    handle.panel.correct("ham")
    assert handle.frame["outcome"].isna().tolist() == [True, False, True, True]
    assert handle.frame.index.tolist() == ["a", "a", "b", "a"]


def test_a_path_resumes(tmp_path, spam):
    x, _, model = spam
    path = str(tmp_path / "mails.duckdb")
    first = review(x, model, n=6, path=path)
    for _ in range(3):
        first.panel.correct("ham")
    answered = first.frame
    first.panel.close()
    first.queue.close()
    again = review(x, model, n=6, path=path)
    pd.testing.assert_frame_equal(again.frame, answered)
    assert again.panel.view.total == 3
    while again.panel.view.state == "item":
        again.panel.approve()
    assert again.frame["outcome"].notna().sum() == 6
    assert again.queue.stats().total == 6


def test_a_file_of_other_predictions_is_refused(tmp_path):
    path = str(tmp_path / "mails.duckdb")
    review(table(), label="guess", confidence="p", path=path)
    with pytest.raises(BadInput, match="choose another path"):
        review(table(guess="ham"), label="guess", confidence="p", path=path)


def test_a_function_of_the_frame_is_a_model(spam):
    x, _, model = spam
    named = review(x, lambda df: pd.DataFrame(model.predict_proba(df), columns=["ham", "spam"]), n=2)
    listed = review(x, model.predict_proba, n=2, labels=["ham", "spam"])
    bare = review(x, model.predict_proba, n=2)
    assert named.panel.view.prediction == listed.panel.view.prediction
    assert bare.panel.view.prediction in ("0", "1")


def test_a_model_that_was_fitted_on_an_array_is_given_one(digits):
    x, y, _ = digits
    handle = review(x, LogisticRegression(max_iter=500).fit(x.to_numpy(), y), n=1)
    assert handle.panel.view.state == "item"


def test_rows_that_a_model_answers_with_nan_come_first():
    p = np.array([[0.9, 0.1], [np.nan, np.nan], [0.6, 0.4], [0.2, 0.8]])
    handle = review(table().drop(columns=["guess", "p"]), lambda df: p, labels=["ham", "spam"])
    assert handle.panel.view.confidence == "confidence unknown"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x, y: {"model": LinearSVC().fit(x, y)}, "no predict_proba; wrap it in .*CalibratedClassifierCV"),
        (lambda x, y: {}, "pass a fitted model, or the columns label= and confidence="),
        (lambda x, y: {"model": 3}, "no predict_proba"),
        (lambda x, y: {"label": "nothing"}, "there are"),
        (lambda x, y: {"model": lambda df: np.ones(3)}, "return an array of shape"),
        (lambda x, y: {"model": LogisticRegression(max_iter=2000).fit(x, y), "n": 0}, "1 or more"),
        (lambda x, y: {"model": LogisticRegression(max_iter=2000).fit(x.rename(columns={"bang": "b"}), y)}, "add them"),
        (lambda x, y: {"df": x.assign(label=1), "label": "bang"}, "rename or drop"),
        (lambda x, y: {"df": x.to_numpy(), "label": "bang"}, "pass a DataFrame"),
        (lambda x, y: {"model": LogisticRegression}, "pass a fitted model"),
        (lambda x, y: {"model": lambda df: [["a", "b"]] * len(df)}, "return an array of shape"),
        (lambda x, y: {"model": lambda df: np.ones((len(df), 2))}, r"row 0 = \[1.0, 1.0\]: they must add up to 1"),
        (
            lambda x, y: {"df": x.assign(p="0.5"), "label": "bang", "confidence": "p"},
            "no number from 0 to 1, but '0.5'",
        ),
        (lambda x, y: {"df": x.assign(p=95.0), "label": "bang", "confidence": "p"}, "no number from 0 to 1, but .*95"),
        (lambda x, y: {"df": pd.concat([x, x[["bang"]]], axis=1), "label": "money"}, "'bang': it is there twice"),
        (
            lambda x, y: {"df": x.assign(**{"1": 0}).assign(**{"b": 1}).rename(columns={"b": 1}), "label": "bang"},
            "twice",
        ),
        (lambda x, y: {"df": x[["bang", "money"]], "label": "bang", "confidence": "money"}, "nothing is left to show"),
        (lambda x, y: {"df": x[[]], "model": lambda df: np.full((len(df), 2), 0.5)}, "nothing is left to show"),
    ],
)
def test_what_cannot_be_reviewed_is_refused_with_the_remedy(spam, change, says):
    x, y, _ = spam
    with pytest.raises(BadInput, match=says):
        review(**{"df": x, **change(x, y)})


def test_probabilities_may_be_rounded_and_unknown():
    said = [[0.33, 0.33, 0.33], [np.nan] * 3]
    handle = review(pd.DataFrame({"text": ["a", "b"]}), lambda df: said, labels=["x", "y", "z"])
    assert handle.panel.view.total == 2


def test_a_model_that_was_not_fitted_says_so(spam):
    with pytest.raises(NotFittedError, match="fit"):
        review(spam[0], LogisticRegression())


@pytest.mark.parametrize("by", ["columns", "model", "function"])
def test_an_empty_frame_has_nothing_to_ask(spam, by):
    x, _, model = spam
    handle = {
        "columns": lambda: review(table()[:0], label="guess", confidence="p"),
        "model": lambda: review(x[:0], model),
        "function": lambda: review(x[:0], model.predict_proba),
    }[by]()
    assert handle.panel.view.state == "empty"
    assert handle.frame.empty


def test_missing_features_are_shown_as_missing(spam):
    x, y, _ = spam
    holes = x[:5].mask(x[:5] > x[:5].median())
    handle = review(holes, HistGradientBoostingClassifier(max_iter=3).fit(x, y), n=np.int64(5))
    shown = []
    while handle.panel.view.state == "item":
        shown += [value for _, value in handle.panel.view.shown.rows]
        handle.panel.approve()
    assert shown.count("NaN") == holes.isna().sum().sum() > 0
    assert handle.frame["outcome"].eq("approve").all()


def test_a_large_frame_is_stored_behind_the_panel_and_the_answers_wait_for_it(monkeypatch):
    monkeypatch.setattr(module, "STEP", 7)
    df = pd.DataFrame({"text": [f"mail {i}" for i in range(100)], "guess": "spam", "p": np.linspace(0.1, 0.9, 100)})
    handle = review(df.sample(frac=1, random_state=0), label="guess", confidence="p")
    assert handle.panel.view.shown.text == "mail 0"
    handle.panel.correct("ham")
    assert handle.frame.set_index("text")["label"].dropna().to_dict() == {"mail 0": "ham"}
    assert (handle.queue.stats().total, handle.panel.view.total) == (100, 100)
    while handle.panel.view.state == "item":
        handle.panel.approve()
    assert handle.frame["outcome"].value_counts().to_dict() == {"approve": 99, "correct": 1}


def test_a_conflict_found_behind_the_panel_is_shown_in_it(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "KNOWN_STEP", 2)
    path = tmp_path / "mails.duckdb"
    review(table(), label="guess", confidence="p", path=path).panel.close()
    handle = review(table(guess=["ham", "spam", "spam", "spam"]), label="guess", confidence="p", path=path)
    assert handle.frame["outcome"].isna().all()  # waits for the rest
    assert "choose another path" in handle.panel.view.message
    handle.panel.retry()
    handle.panel.approve()
    assert handle.panel.view.done == 1


def test_a_cell_that_is_run_again_shows_the_same_item(tmp_path):
    path = tmp_path / "mails.duckdb"
    first = review(table(), label="guess", confidence="p", path=path)
    first.panel.approve()
    again = review(table(), label="guess", confidence="p", path=path)
    assert again.panel.view.shown.text == first.panel.view.shown.text == "mail 3"
    again.panel.approve()
    assert again.frame["outcome"].notna().tolist() == [False, True, False, True]


def test_the_frame_that_was_given_is_left_alone():
    df = table()
    before = df.copy()
    handle = review(df, label="guess", confidence="p")
    handle.panel.approve()
    df["p"] = 0.0
    assert handle.frame["p"].equals(before["p"])
    pd.testing.assert_frame_equal(df.assign(p=before["p"]), before)


def test_the_front_door_opens_the_same_and_a_cell_shows_the_panel():
    handle = hitl_nb.review(table(), label="guess", confidence="p", n=2)
    bundle = handle._repr_mimebundle_()
    assert bundle["text/plain"] == "Review of 2 rows: 0 judged; the answers are in .frame"
    assert "application/vnd.jupyter.widget-view+json" in bundle
