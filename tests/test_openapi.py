"""The review API does what its OpenAPI document says, whatever is sent: schemathesis makes the requests."""

import httpx
import pytest
import schemathesis
from conftest import let_in, service
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from hitl_nb import open_queue
from hitl_nb.server.access import ROUTES

#: who gets in is the subject of test_access; and a schema cannot say that 92.0 is no count, or NUL no text
UNSAID = [ignored_auth, positive_data_acceptance]
NEW = {"input_data": {"n": 1}, "ai_prediction": {"label": "a"}, "reason": "r"}


@pytest.fixture(scope="module")
def operations():
    """The routes of a served queue in which some tasks wait, by method and path; and the ids of the tasks."""
    with open_queue(":memory:") as queue, service(queue) as running:
        secret = {"Authorization": f"Bearer {let_in(queue)}"}
        found = httpx.get(f"{running.address}/openapi.json", headers=secret).json()
        schema = schemathesis.openapi.from_dict(found)
        schema.config.update(base_url=running.address, headers=secret)
        every = [result.ok() for result in schema.get_all_operations()]
        yield {f"{one.method.upper()} {one.path}": one for one in every}, queue
        assert queue.verify() == []


def check(operations, most):
    """Send each route requests that the document allows, and some that it does not; look at every answer."""
    routes, queue = operations
    sent = dict.fromkeys(routes, 0)
    for route, operation in routes.items():
        tasks = [task.task_id for task in queue.submit_all([NEW] * 50)]
        right, wrong = (operation.as_strategy(generation_mode=mode) for mode in GenerationMode)

        def to_a_task(case, task_id):
            case.path_parameters = dict.fromkeys(case.path_parameters or (), task_id)
            if case.path.endswith("/wait"):
                case.query = {**(case.query or {}), "timeout": 0}
            return case

        cases = st.one_of(wrong, right, st.builds(to_a_task, right, st.sampled_from(tasks)))
        settled = settings(max_examples=most, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        settled(given(case=cases)(sending(sent, route)))()
    return sent


def sending(sent, route):
    def send(case):
        answer = case.call(timeout=60)
        assert answer.status_code < 500, answer.text
        case.validate_response(answer, excluded_checks=UNSAID)
        sent[route] += 1

    return send


def test_every_answer_is_documented(operations):
    sent = check(operations, 10)
    assert set(sent) == set(ROUTES) - {"GET /openapi.json", "GET /changes"}
    assert min(sent.values()) >= 1


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_every_answer_is_documented_however_often_one_asks(operations):
    check(operations, 100)
