"""A model's answers are read into a history: cross-validated probabilities, and JSON Lines of a language model."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from hitl_nb.errors import BadInput, EvidenceError
from hitl_nb.lab import check, choose_threshold, from_json_lines, from_probabilities, read
from hitl_nb.lab.answers import MAX_LINE


def written(path, *lines):
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


# -- cross-validated probabilities -------------------------------------------------------------------------------------


def test_what_cross_validation_says_is_a_history():
    X, y = load_iris(return_X_y=True, as_frame=True)
    y = y.map({0: "setosa", 1: "versicolor", 2: "virginica"})
    model = LogisticRegression(max_iter=1000)
    said = cross_val_predict(model, X, y, method="predict_proba")
    frame = from_probabilities(said, y)
    assert frame["prediction"].tolist() == cross_val_predict(model, X, y).tolist()
    assert frame["confidence"].tolist() == said.max(axis=1).tolist()
    assert read(frame).wrong.mean() == pytest.approx(1 - (frame["prediction"] == y).mean())


def test_the_index_stays_and_an_unknown_truth_is_unjudged():
    frame = from_probabilities([[0.9, 0.1], [0.2, 0.8]], pd.Series(["a", None], index=["x", "y"]), ["a", "b"])
    assert frame.index.tolist() == ["x", "y"]
    assert read(frame.assign(review_probability=0.5)).judged.tolist() == [True, False]


def test_a_single_class_is_always_right():
    frame = from_probabilities([[1.0]] * 200, ["a"] * 200)
    found = choose_threshold(frame)
    assert (found.threshold, found.coverage) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("probabilities", "truth", "classes", "says"),
    [
        ([[0.9, 0.1]], ["a"], ["a"], r"shape of probabilities = \(1, 2\): needs a row for each of 1 labels"),
        ([[0.9, 0.1]], ["a", "b"], None, "shape of probabilities"),
        ([0.9, 0.1], ["a", "b"], None, "shape of probabilities"),
        ([], [], None, "shape of probabilities"),
        ([[0.9, 0.1], [2.5, -1.5]], ["a", "b"], None, r"probabilities in row 1 = \[2.5, -1.5\]: .*predict_proba"),
        ([[0.9, 0.9], [0.5, 0.5]], ["a", "b"], None, "probabilities in row 0"),
        ([[np.nan, 0.9], [0.5, 0.5]], ["a", "b"], None, "probabilities in row 0"),
    ],
)
def test_what_are_no_probabilities_is_refused(probabilities, truth, classes, says):
    with pytest.raises(BadInput, match=says):
        from_probabilities(probabilities, truth, classes)


# -- JSON Lines --------------------------------------------------------------------------------------------------------


def test_answers_of_a_language_model_are_read_under_their_own_names(tmp_path):
    path = written(
        tmp_path / "answers.jsonl",
        {"p": 0.93, "answer": "Paris", "gold": "Paris", "language": "fr", "prompt": "What is the capital?"},
        "",
        {"p": 0.4, "answer": "Rome", "gold": "Bern", "language": None},
        {"p": None, "answer": "?", "gold": "Oslo"},
    )
    frame = from_json_lines(path, {"confidence": "p", "prediction": "answer", "label": "gold"}, keep=["language"])
    assert frame.columns.tolist() == ["confidence", "prediction", "label", "language"]  # no prompt is kept
    rows = read(frame)
    assert rows.wrong.tolist() == [0, 1, 1]
    assert rows.open.tolist() == [True, True, False]


def test_a_file_may_say_itself_what_was_wrong_and_how_likely_it_was_judged(tmp_path):
    lines = [
        {"confidence": 0.9, "wrong": i % 2 == 0 if i < 20 else None, "review_probability": 0.1} for i in range(200)
    ]
    found = check(from_json_lines(written(tmp_path / "a.jsonl", *lines)))
    assert (found.rows, found.judged, found.probability) == (200, 20, 0.1)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 3 of a.jsonl = .*: is no JSON"),
        ("nope", "line 3 of a.jsonl"),
        ("[" * 100_000, "line 3 of a.jsonl"),
        ("[1]", "line 3 of a.jsonl .*must be an object"),
        ('{"confidence": 1.2}', "confidence in line 3 = 1.2: must be a number between 0 and 1"),
        ('{"confidence": NaN}', "confidence in line 3"),
        ('{"confidence": "0.9"}', "confidence in line 3 = '0.9'"),
        ('{"confidence": true}', "confidence in line 3"),
        ('{"review_probability": -1}', "review_probability in line 3"),
        ('{"wrong": "no"}', "wrong in line 3 = 'no': must be true, false or null"),
        ('{"prediction": ["a"]}', "prediction in line 3"),
        (json.dumps({"prompt": "a" * MAX_LINE}), "line 3 of a.jsonl .*longer than 1,000,000 bytes"),
    ],
)
def test_a_line_that_cannot_be_is_refused_by_its_number(tmp_path, line, says):
    path = written(tmp_path / "a.jsonl", {"confidence": 0.9}, "", line)
    with pytest.raises(BadInput, match=says):
        from_json_lines(path)


def test_other_encodings_and_names_that_mean_nothing_are_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"confidence": 0.9}\n'.encode("utf-16"))
    with pytest.raises(BadInput, match=r"line 1 of a\.jsonl"):
        from_json_lines(path)
    with pytest.raises(BadInput, match=r"names = .*score.*: are none of confidence"):
        from_json_lines(path, {"score": "p"})


def test_a_file_without_answers_is_no_history(tmp_path):
    with pytest.raises(BadInput, match="has no column 'confidence'"):
        read(from_json_lines(written(tmp_path / "a.jsonl")))
    lines = [{"confidence": 0.9, "prediction": "a", "label": label} for label in ("a", None)]
    with pytest.raises(EvidenceError, match="1 rows have no label, and no review_probability"):
        read(from_json_lines(written(tmp_path / "a.jsonl", *lines)))


def test_memory_holds_what_is_kept_and_one_line(tmp_path):
    import tracemalloc

    path = written(
        tmp_path / "a.jsonl", *({"confidence": 0.9, "wrong": False, "prompt": "a" * 100_000} for _ in range(300))
    )
    tracemalloc.start()
    assert len(from_json_lines(path)) == 300
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8_000_000 < path.stat().st_size


def test_a_line_without_end_takes_no_more_memory_than_a_line_may(tmp_path):
    import tracemalloc

    path = written(tmp_path / "a.jsonl", "[" + " " * 30_000_000)
    tracemalloc.start()
    with pytest.raises(BadInput, match=r"line 1 of a\.jsonl .*longer"):
        from_json_lines(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8_000_000
