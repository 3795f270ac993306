"""What travels between processes arrives as it was, and nothing else arrives."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import floats, frames, integers, odd_texts, payloads, texts, values

from hitl_nb import Priority, Reviewer, ReviewOutcome, Status, errors
from hitl_nb.errors import BadInput, HitlError, NoCanonicalForm, TooLarge, plain
from hitl_nb.queue import wire
from hitl_nb.queue.backlog import Wait
from hitl_nb.queue.change import Forgotten
from hitl_nb.queue.frame import FrameSubmission, Kind
from hitl_nb.queue.read import Stats
from hitl_nb.queue.row import TaskRow
from hitl_nb.queue.submit import Submission
from hitl_nb.task import Reason, Review, ReviewTask

spans = st.timedeltas()
times = st.datetimes(timezones=st.just(UTC)) | st.datetimes()
words = st.sampled_from([*Priority, *Status, *ReviewOutcome])
names = texts | odd_texts | st.just("\0 \ud800")
counts = st.integers(0, 2**40)
maybe = st.none() | names
reasons = st.builds(
    Reason,
    rule=names,
    says=names,
    value=values,
    bound=st.none() | st.floats(0, 1) | names,
    field=maybe,
    hard=st.booleans(),
)
reviews = st.builds(
    Review, task_id=names, reviewer=names, outcome=st.sampled_from(ReviewOutcome), correction=st.none() | payloads,
    comment=maybe, at_time=times, claimed_at=st.none() | times, attempt=counts, number=counts, version=counts,
    shown=names, submit_id=maybe, adjudication=st.booleans(), answer=st.none() | payloads,
)  # fmt: skip
tasks = st.builds(
    ReviewTask, task_id=names, input_data=st.none() | payloads, ai_prediction=st.none() | payloads,
    confidence=st.none() | st.floats(0, 1), reason=names, priority=st.sampled_from(Priority), created_at=times,
    deadline=st.none() | times, status=st.sampled_from(Status), reasons=st.lists(reasons, max_size=2).map(tuple),
    expertise=maybe, lease_until=st.none() | times, reviews=st.lists(reviews, max_size=2).map(tuple),
)  # fmt: skip
rows = st.builds(TaskRow, task_id=names, status=names, created_at=st.datetimes(), value=st.none() | st.floats(0, 9))
records = st.one_of(
    reasons,
    reviews,
    tasks,
    rows,
    st.builds(Reviewer, id=st.just("ann"), expertise=st.just(("law",)), roles=st.just(("reviewer", "adjudicator"))),
    st.builds(Stats, status=st.dictionaries(names, counts), open_by_expertise=st.dictionaries(maybe, counts)),
    st.builds(Wait, minutes=st.floats(0, 9), low=st.floats(0, 9), high=st.floats(0, 9)),
    st.builds(Forgotten, tasks=st.lists(names).map(tuple), withdrawn=st.lists(names).map(tuple)),
    st.builds(
        Submission,
        row=rows,
        texts=st.dictionaries(names, names),
        audited=st.booleans(),
        audit_deadline=st.none() | times,
    ),
    st.builds(Kind, first=rows, last=rows, audit=maybe),
)
anything = st.recursive(
    st.one_of(values, records, spans, times, words, names, integers, floats),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(names, st.none(), st.integers(), st.just("$tuple")), inner, max_size=3),
    ),
    max_leaves=6,
)


def same(one, two):
    """Equal in value and type, NaN equal to NaN, arrays by their items; a tuple inside a payload is a list."""
    if one is two:  # None, NA, NaT
        return True
    if isinstance(one, float) and isinstance(two, float):
        return repr(one) == repr(two)
    if isinstance(one, np.ndarray):
        return isinstance(two, np.ndarray) and one.shape == two.shape and np.array_equal(one, two, equal_nan=True)
    if type(one) is not type(two):
        return False
    if isinstance(one, dict):
        return same(list(one), list(two)) and all(same(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    if hasattr(one, "__dataclass_fields__"):
        return all(same(getattr(one, name), getattr(two, name)) for name in one.__dataclass_fields__)
    return one == two


@settings(max_examples=200)
@given(anything)
def test_what_is_sent_arrives(value):
    assert same(wire.load(wire.dump(value)), value)


@settings(max_examples=60)
@given(st.integers(0, 4).flatmap(frames))
def test_a_frame_arrives_with_its_types_and_nested_cells(frame):
    found = wire.load(wire.dump(frame))
    assert list(found.columns) == list(frame.columns)
    assert found.index.equals(frame.index)
    for name in frame.columns:
        assert found[name].dtype == frame[name].dtype
        assert same(
            *([wire.load(wire.dump(cell)) for cell in column.tolist()] for column in (found[name], frame[name]))
        )


def test_the_frames_of_a_queue_arrive(queue, ask):
    queue.resolve(ask(input_data={"nested": {"a": [1, None]}, "n": 3}).task_id, "ann", "correct", {"label": [1, "x"]})
    ask()
    for frame in (queue.history(inputs=True), queue.training_frame(), queue.annotations()):
        pd.testing.assert_frame_equal(wire.load(wire.dump(frame)), frame)


def test_texts_of_any_script_travel_in_their_own_bytes():
    text = 1000 * "я" + "😀"
    assert len(wire.dump(text)) == len(text.encode()) + 2
    assert wire.load(wire.dump(text)) == text


def test_a_frame_to_be_stored_arrives_as_texts():
    sent = FrameSubmission(
        task_id=pa.array(["a", "b"]), inputs=pa.array(["{}", '{"a":1}']), predictions=pa.array(["{}", "{}"]),
        kinds=[], codes=np.array([0, 0]), numbers={"value": np.array([np.nan, 1.0])}, texts={"key": ["x", None]},
    )  # fmt: skip
    found = wire.load(wire.dump(sent))
    assert (found.task_id, found.inputs, found.texts) == (sent.task_id, sent.inputs, sent.texts)
    assert same(found.numbers, sent.numbers)
    assert found.codes.dtype == sent.codes.dtype


ERRORS = [
    errors.TaskNotFound(task_id="x\0\ud800"),
    errors.LeaseLost(task_id="1", holder=plain("nobody any more")),
    errors.AlreadyReviewed(task_id="1", by="ann", when=datetime(2026, 1, 5, tzinfo=UTC)),
    errors.BadInput(name="limit", value=timedelta(1), remedy="pass less"),
    errors.NotEnoughSamples(have=1, needed=5),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_arrives_with_its_class_values_and_sentence(error):
    found = wire.load_error(wire.dump_error(error))
    assert (type(found), found.values, str(found)) == (type(error), error.values, str(error))


def test_an_error_with_a_value_that_cannot_travel_still_arrives():
    found = wire.load_error(wire.dump_error(BadInput(name="x", value=object, remedy="pass text")))
    assert str(found) == str(BadInput(name="x", value=object, remedy="pass text"))


@pytest.mark.parametrize("value", [object(), {1, 2}, lambda: 1, np.array([object()]), errors, Reviewer, range(3)])
def test_what_has_no_form_is_refused_before_it_is_sent(value):
    with pytest.raises(NoCanonicalForm):
        wire.dump({"args": [value]})


@pytest.mark.parametrize(
    "message",
    [
        b"", b"\xff", b"{", b'{"$record":["Popen",{"args":"x"}]}', b'{"$record":["Reviewer",{"idd":"x"}]}',
        b'{"$word":["Status","gone"]}', b'{"$what":1}', b'{"$frame":[["a"],"eA==",{}]}', b'{"$missing":"x"}',
        b'{"$array":{"data":"AA==","dtype":"O","shape":[1]}}', b"[" * 100_000, b'{"$span":["a"]}', b'{"$tuple":3}',
        b'{"$record":["__class__",{}]}',
    ],
)  # fmt: skip
def test_what_nobody_sends_is_refused(message):
    with pytest.raises(HitlError):
        wire.load(message)


@pytest.mark.parametrize("name", ["Exception", "SystemExit", "shown", "datetime", "__builtins__", 3])
def test_only_our_errors_are_raised(name):
    with pytest.raises(BadInput, match="no error of this package"):
        wire.load_error(json.dumps({"error": name, "values": {}}).encode())


def test_a_message_has_a_bound(monkeypatch):
    monkeypatch.setattr(wire, "MAX_BYTES", 100)
    with pytest.raises(TooLarge):
        wire.dump("x" * 200)
