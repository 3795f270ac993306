"""What many tests share: a clock that a test moves by hand, and a queue in memory and in a file."""

from datetime import UTC, datetime, timedelta

import pytest

from hitl_nb import open_queue

#: where every hand-moved clock starts
START = datetime(2026, 1, 5, 9, 0)


class Clock:
    """Returns the time that the test sets, naive UTC."""

    def __init__(self):
        self.time = START

    def __call__(self):
        return self.time

    def forward(self, **span):
        self.time += timedelta(**span)

    @property
    def aware(self):
        return self.time.replace(tzinfo=UTC)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=[":memory:", "file"])
def queue(request, tmp_path, clock):
    url = request.param if request.param == ":memory:" else tmp_path / "reviews.duckdb"
    with open_queue(url, clock=clock) as opened:
        yield opened


@pytest.fixture
def ask(queue):
    """Submit a task with defaults that a test does not care about."""

    def submit(**options):
        given = {"input_data": {"text": "hm"}, "ai_prediction": {"label": "spam", "confidence": 0.6}}
        return queue.submit(**given | {"confidence": 0.6, "reason": "unsure"} | options)

    return submit
