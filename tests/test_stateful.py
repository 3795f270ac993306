"""A queue against a plain-Python model of its contract: whatever is called in whatever order, both agree.

In memory; in a file whose owners end and are killed; over HTTP, where they do so in the middle of a call, too.
"""

import json
import shutil
import tempfile
from collections import Counter
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from conftest import Clock, new_schema, postgres_server
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule
from strategies import options

from hitl_nb import HitlError, Orchestrator, Policy, Priority, Reviewer, open_queue
from hitl_nb.queue import head
from hitl_nb.queue.http import Line, OwnerGone, RemoteQueue
from hitl_nb.queue.row import COLUMNS, TaskRow
from hitl_nb.server import Server

LEASE = timedelta(minutes=10)
RANK = {"high": 0, "medium": 1, "low": 2}
ANN, BOB = Reviewer(id="ann"), Reviewer(id="bob", expertise=("law", "tax"))
JUDGE = Reviewer(id="judge", expertise=("law",), roles=("reviewer", "adjudicator"))
POLICY = Policy(0.85, audit_rate=0, deadline=timedelta(hours=1), escalation=["law"])
people = st.sampled_from([ANN, BOB, JUDGE])
outcomes = st.sampled_from([("approve", None), ("reject", None), ("correct", {"label": "b"})])


class Refused(Exception):
    """The model expects this error."""


@dataclass
class Task:
    """What the contract says about one task."""

    priority: str
    expertise: str | None
    due: datetime | None
    span: timedelta | None
    on_deadline: str
    escalation: list
    required: int
    consensus: str
    deadline: datetime | None = None
    status: str = "pending_review"
    came_from: str | None = None
    holder: str | None = None
    attempt: int = 0
    lease_until: datetime | None = None
    level: int = 0
    returns: int = 0
    version: int = 1
    answers: int = 0
    standing: list = field(default_factory=list)  # (number, reviewer, verdict)
    skipped: set = field(default_factory=set)
    final: int | None = None
    delivered: int = 0
    by_policy: bool = False

    def take(self, who, now, lease):
        self.came_from, self.status, self.holder = self.status, "claimed", who.id
        self.attempt, self.lease_until = self.attempt + 1, now + lease

    def free(self, status):
        self.status, self.came_from, self.holder, self.lease_until = status, None, None, None

    def give_back(self, now, counts=True):
        self.returns += counts
        if self.returns == 3:
            self.returns = 0
            self.next_level()
        self.free(self.came_from)
        self.deadline_at(now)

    def next_level(self):
        self.level += 1
        if self.level <= len(self.escalation):
            self.expertise = self.escalation[self.level - 1]

    def deadline_at(self, now):
        if self.due is None or self.due > now or self.status == "claimed":
            return
        self.due = None
        if self.on_deadline == "deny":
            self.status = "expired"
        elif self.on_deadline == "escalate" or self.status == "disputed":
            self.next_level()
            if self.level < len(self.escalation) and self.deadline is not None:
                self.due = now + self.span

    def tick(self, now):
        if self.status == "claimed" and self.lease_until <= now:
            self.give_back(now)
        elif self.status in ("pending_review", "disputed"):
            self.deadline_at(now)

    def reviewers(self):
        return [reviewer for _, reviewer, _ in self.standing]

    def may_settle_own(self, who):
        return "disputed" in (self.status, self.came_from) and "adjudicator" in who.roles and self.required == 1

    def is_for(self, who):
        if self.status == "disputed" and "adjudicator" not in who.roles:
            return False
        return self.expertise is None or self.expertise in who.expertise

    def claimable_by(self, who):
        known = who.id in self.reviewers() and not (self.status == "disputed" and self.may_settle_own(who))
        return self.status in ("pending_review", "disputed") and self.is_for(who) and not known

    def check_held(self, who, now, attempt=None):
        if self.status == "reviewed":
            raise Refused("AlreadyReviewed")
        alive = self.status == "claimed" and self.lease_until > now
        if not alive or self.holder != who.id or attempt not in (None, self.attempt):
            raise Refused("LeaseLost")

    def resolve(self, who, verdict, attempt, now):
        if self.status == "reviewed" or (who.id in self.reviewers() and not self.may_settle_own(who)):
            raise Refused("AlreadyReviewed")
        if self.status == "claimed" and self.lease_until <= now and attempt is None:
            self.give_back(now)
        if self.status in ("expired", "withdrawn"):
            raise Refused("IllegalMove")
        if self.status == "claimed" or attempt is not None:
            self.check_held(who, now, attempt)
        elif not self.is_for(who):
            raise Refused("NotQualified")
        else:
            self.take(who, now, LEASE)
        self.settle(who, verdict, now)

    def settle(self, who, verdict, now):
        self.answers += 1
        self.standing.append((self.answers, who.id, verdict))
        settled = self.came_from == "disputed"
        self.holder = self.lease_until = None
        if settled:
            self.status, self.final = "reviewed", self.answers
        elif len(self.standing) < self.required:
            self.status = "pending_review"
            self.deadline_at(now)
        else:
            self.final = self.agreed()
            self.status = "disputed" if self.final is None else "reviewed"
        self.came_from = None

    def agreed(self):
        if self.consensus == "adjudicator" and len(self.standing) > 1:
            return None
        verdict, most = Counter(v for _, _, v in self.standing).most_common(1)[0]
        needed = len(self.standing) if self.consensus == "unanimous" else len(self.standing) // 2 + 1
        return min(n for n, _, v in self.standing if v == verdict) if most >= needed else None

    def undo(self, who):
        mine = [one for one in self.standing if one[1] == who.id]
        adjudicated = len(self.standing) > self.required
        if not mine or (adjudicated and mine[-1] != self.standing[-1]):
            raise Refused("UndoRefused")
        if self.delivered and (mine[-1][0] <= self.delivered or self.delivered == self.final):
            raise Refused("UndoRefused")
        judged_by_another = self.status == "claimed" and self.came_from == "pending_review"
        if not judged_by_another and self.status not in ("pending_review", "disputed", "reviewed"):
            raise Refused("IllegalMove")
        self.standing.remove(mine[-1])
        if judged_by_another:
            return
        self.final = None
        self.free("disputed" if adjudicated else "pending_review")

    def object(self, now):
        if self.status != "reviewed":
            raise Refused("IllegalMove")
        self.status = "disputed"
        if self.due is not None and self.due <= now:
            self.due = None

    def deliver(self):
        if self.status in ("expired", "withdrawn"):
            raise Refused({"expired": "TaskExpired", "withdrawn": "TaskWithdrawn"}[self.status])
        if self.status != "reviewed":
            return None
        self.delivered = self.final
        return self.final

    def release(self, who, now, skip):
        self.check_held(who, now)
        if skip:
            self.skipped.add(who.id)
        self.give_back(now, counts=skip)

    def open_or_refuse(self):
        if self.status not in ("pending_review", "claimed", "disputed"):
            raise Refused("IllegalMove")

    def replace(self):
        self.open_or_refuse()
        self.free(self.came_from if self.status == "claimed" else self.status)
        self.standing, self.version = [], self.version + 1

    def reorder(self, priority, expertise, version):
        unseen = self.status == "pending_review" and not (self.attempt or self.answers)
        if not (self.by_policy and unseen and version == self.version):
            return False
        self.priority, self.expertise = priority, self.expertise if self.level else expertise
        return True

    def withdraw(self):
        self.open_or_refuse()
        self.status, self.holder, self.lease_until, self.due = "withdrawn", None, None, None

    def reopen(self):
        if self.status != "expired":
            raise Refused("IllegalMove")
        self.status, self.due, self.deadline, self.standing = "pending_review", None, None, []


class QueueMachine(RuleBasedStateMachine):
    """Random calls to a queue and to the model."""

    tasks = Bundle("tasks")
    #: whether a call that is refused may leave a gap in the numbers of the log
    gaps = False
    #: rows at the head of the line: few, so that claims reach beyond it
    shelf = 2

    def __init__(self):
        super().__init__()
        self.usual, head.SHELF = head.SHELF, self.shelf
        self.clock, self.folder = Clock(), tempfile.TemporaryDirectory()
        self.url = self.where()
        self.open()
        self.model, self.said = {}, {}

    def where(self):
        return ":memory:"

    def open(self):
        """Open the queue; ``owner`` has the file, ``queue`` is what is called."""
        self.owner = self.queue = open_queue(self.url, clock=self.clock)

    @property
    def now(self):
        return self.owner.now

    def both(self, task_id, act, modelled):
        """Call queue and model; both succeed with the same result, or both refuse for the same reason."""
        after = deepcopy(self.model[task_id])
        expected = refused = found = None
        try:
            expected = modelled(after)
            self.model[task_id] = after
        except Refused as error:
            refused = str(error)
        try:
            found = act()
            happened = None
        except HitlError as error:
            happened = type(error).__name__
        assert happened == refused
        return found, expected

    def tick_model(self):
        for task in self.model.values():
            task.tick(self.now)

    @precondition(lambda self: len(self.model) < 3)  # few tasks, so that much happens to each
    @rule(target=tasks, given=options, key=st.none() | st.sampled_from("kl"))
    def submit(self, given, key):
        content = {"input_data": {"key": key}, "ai_prediction": {"label": "a"}, "confidence": 0.6, "reason": "r"}
        task_id = self.queue.submit(**content | given, key=key).task_id
        if key is None or key not in self.said:
            span = given.get("deadline")
            due = None if span is None else self.now + span
            assert task_id not in self.model
            self.model[task_id] = Task(
                priority=given.get("priority", "medium"),
                expertise=given.get("expertise"),
                due=due,
                deadline=due,
                span=span,
                on_deadline=given.get("on_deadline", "escalate"),
                escalation=given.get("escalation", []),
                required=given.get("reviews_required", 1),
                consensus=given.get("consensus", "majority"),
            )
        assert self.said.setdefault(key, task_id) == task_id or key is None
        return task_id

    @precondition(lambda self: len(self.model) < 3)
    @rule(target=tasks)
    def process(self):
        route = Orchestrator(queue=self.queue, policy=POLICY).process
        task_id = route({"n": len(self.model)}, {"label": "a", "confidence": 0.6})["task_id"]
        due = self.now + POLICY.deadline
        self.model[task_id] = Task(
            priority="medium", expertise=None, due=due, deadline=due, span=POLICY.deadline, on_deadline="escalate",
            escalation=["law"], required=1, consensus="majority", by_policy=True,
        )  # fmt: skip
        return task_id

    @rule(who=people, n=st.integers(1, 3), minutes=st.integers(1, 30))
    def claim(self, who, n, minutes):
        self.take(who, n, minutes)

    def take(self, who, n, minutes):
        lease, now = timedelta(minutes=minutes), self.now
        self.tick_model()
        fit = [(task_id, task) for task_id, task in self.model.items() if task.claimable_by(who)]
        late = datetime.max
        # ids are in the order of their making, but for those of two owners within one millisecond
        fit.sort(key=lambda p: (who.id in p[1].skipped, RANK[p[1].priority], p[1].deadline or late, p[0]))
        taken = self.queue.claim(who, n=n, lease=lease)
        assert [task.task_id for task in taken] == [task_id for task_id, _ in fit[:n]]
        for _, task in fit[:n]:
            task.take(who, now, lease)
        return [task_id for task_id, _ in fit[:n]]

    @rule(task_id=tasks, who=people, said=outcomes, attempt=st.none() | st.integers(0, 1), again=st.booleans())
    def resolve(self, task_id, who, said, attempt, again):
        now, verdict = self.now, str(said)
        attempt = None if attempt is None else self.model[task_id].attempt - attempt
        submit_id = f"s{len(self.said)}-{now}-{sum(t.answers for t in self.model.values())}"
        more = {"attempt": attempt, "submit_id": submit_id}
        review, _ = self.both(
            task_id,
            lambda: self.queue.resolve(task_id, who, *said, **more),
            lambda task: task.resolve(who, verdict, attempt, now),
        )
        if again and review is not None:
            assert self.queue.resolve(task_id, who, *said, **more) == review

    @rule(task_id=tasks, who=people, skip=st.booleans())
    def release(self, task_id, who, skip):
        self.give_back(task_id, who, skip)

    def give_back(self, task_id, who, skip=True):
        now, reason = self.now, "later" if skip else None
        self.both(task_id, lambda: self.queue.release(task_id, who, reason), lambda task: task.release(who, now, skip))

    @rule(who=people)
    def take_and_drop(self, who):
        for task_id in self.take(who, 3, 1):
            self.give_back(task_id, who)

    @rule(task_id=tasks, who=people)
    def renew(self, task_id, who):
        def modelled(task):
            task.check_held(who, self.now)
            task.lease_until = self.now + LEASE

        self.both(task_id, lambda: self.queue.renew([task_id], who), modelled)

    @rule(task_id=tasks, who=people)
    def undo(self, task_id, who):
        self.both(task_id, lambda: self.queue.undo(task_id, who), lambda task: task.undo(who))

    @rule(task_id=tasks, who=people)
    def object(self, task_id, who):
        now = self.now
        self.both(task_id, lambda: self.queue.object(task_id, who, "no"), lambda task: task.object(now))

    @rule(task_id=tasks)
    def deliver(self, task_id):
        self.tick_model()
        found, expected = self.both(task_id, lambda: self.queue.deliver(task_id, "svc"), Task.deliver)
        assert (None if found is None else found.number) == expected

    @rule(minutes=st.integers(1, 100), tick=st.booleans())
    def time_passes(self, minutes, tick):
        self.clock.forward(minutes=minutes)
        if tick:
            self.queue.tick()
            self.tick_model()

    @rule(minutes=st.integers(1, 100))
    def the_clock_is_set_back(self, minutes):
        self.clock.forward(minutes=-minutes)

    @rule(task_id=tasks)
    def replace(self, task_id):
        self.both(task_id, lambda: self.queue.replace(task_id, {"n": 2}, {"label": "c"}), Task.replace)

    @rule(
        task_id=tasks, priority=st.sampled_from(list(RANK)), expertise=st.sampled_from([None, "law"]), old=st.booleans()
    )
    def reorder(self, task_id, priority, expertise, old):
        version = self.model[task_id].version - old
        row = TaskRow(
            task_id=task_id, status="pending_review", created_at=self.now, priority=Priority(priority).rank,
            expertise=expertise, version=version,
        )  # fmt: skip
        done, expected = self.both(
            task_id,
            lambda: self.queue.reorder([row], POLICY.fingerprint, POLICY.to_dict()),
            lambda task: task.reorder(priority, expertise, version),
        )
        assert done == [task_id] * expected

    @rule(task_id=tasks)
    def withdraw(self, task_id):
        self.both(task_id, lambda: self.queue.withdraw(task_id, "done with it"), Task.withdraw)

    @rule(task_id=tasks)
    def reopen(self, task_id):
        self.both(task_id, lambda: self.queue.reopen(task_id), Task.reopen)

    def table(self):
        rows = self.owner.store.read(lambda tx: tx.rows("tasks_between", after=None, until=None))
        return {str(row[0]): dict(zip(COLUMNS, row, strict=True)) for row in rows}

    @invariant()
    def queue_and_model_agree(self):
        table = self.table()
        assert set(table) == set(self.model)
        for task_id, task in self.model.items():
            row = table[task_id]
            for column in ("status", "holder", "attempt", "lease_until", "level", "expertise", "version", "answers"):
                assert row[column] == getattr(task, column), column
            assert row["priority"] == Priority(task.priority).rank
            assert (row["due_at"], row["delivered"]) == (task.due, task.delivered)
            assert json.loads(row["standing"]) == [[number, reviewer] for number, reviewer, _ in task.standing]
            if task.status == "reviewed":
                assert row["final"] == task.final

    @rule()
    def table_and_log_agree(self):
        assert self.queue.verify() == []

    @invariant()
    def the_counters_are_those_of_a_fresh_count(self):
        kept = self.owner.store.backlog
        counted, [(due,)] = self.owner.store.read(lambda tx: (tx.rows("backlog"), tx.rows("next_due")))
        assert dict(+kept.waiting) == {(expertise, priority): count for expertise, priority, count, *_ in counted}
        assert due is None or self.owner.store.next_due <= due

    def teardown(self):
        head.SHELF = self.usual
        with self.folder:
            before = self.table()
            assert self.queue.verify() == []
            assert self.queue.rebuild() == len(before)
            assert self.table() == before
            log = self.queue.events(limit=100_000)
            numbers = [event["seq"] for event in log]
            assert numbers == (sorted(set(numbers)) if self.gaps else list(range(1, len(log) + 1)))
            answers = Counter((e["task_id"], e["body"]["number"]) for e in log if e["move"] == "review")
            assert set(answers.values()) <= {1}
            assert sum(answers.values()) == sum(task.answers for task in self.model.values())
            self.close()

    def close(self):
        self.queue.close()


class PostgresMachine(QueueMachine):
    """The same in PostgreSQL."""

    gaps = True

    def where(self):
        return new_schema(postgres_server())


class PlainPostgresMachine(PostgresMachine):
    """The same without SKIP LOCKED and NOTIFY."""

    def where(self):
        return super().where() + "&hitl_skip_locked=off&hitl_notify=off"


class FileMachine(QueueMachine):
    """The same in a file; now and then its owner ends or is killed, and another one opens it."""

    shelf = 1000

    def where(self):
        return Path(self.folder.name) / "q.duckdb"

    def take_over(self, killed):
        """Open what the last owner left: a killed one leaves the file and the engine's log as they are just now."""
        if killed:
            left = Path(tempfile.mkdtemp(dir=self.folder.name))
            for part in self.url.parent.glob("q.duckdb*"):
                shutil.copy(part, left)
            self.url = left / self.url.name
        self.owner.close()
        self.open()

    @rule(killed=st.booleans())
    def another_owner(self, killed):
        before = self.table(), self.pace(), self.queue.pending(limit=100)
        self.take_over(killed)
        assert (self.table(), self.pace(), self.queue.pending(limit=100)) == before

    def pace(self):
        """Return what waits are forecast from; only a silence is heard anew after opening."""
        return list(self.owner.store.backlog.recent), self.owner.estimated_wait() is None


class Mortal(Line):
    """A line to an owner that may be killed before it has heard of a call, or before it could answer."""

    def __init__(self, machine):
        super().__init__(machine.server.endpoint, "a long token")
        self.machine = machine

    def ask(self, call, message):
        dies, self.machine.dies = self.machine.dies, None
        if dies is None:
            return super().ask(call, message)
        if dies == "after":
            with suppress(HitlError):
                super().ask(call, message)
        self.machine.take_over(killed=True)
        raise OwnerGone("killed")


class HttpMachine(FileMachine):
    """The same from another process, as far as the queue can tell; one client sees many owners."""

    def __init__(self):
        self.dies, self.server = None, None
        super().__init__()
        self.queue = RemoteQueue(str(self.url), lambda: Mortal(self))

    def open(self):
        if self.server is not None:
            self.server.stop()
        self.owner = open_queue(self.url, clock=self.clock)
        self.server = Server(self.owner, "a long token")

    @rule(when=st.sampled_from(["before", "after"]))
    def the_owner_is_killed_in_the_next_call(self, when):
        self.dies = when

    def close(self):
        self.queue.close()
        self.server.stop()
        self.owner.close()


def case(machine, examples, steps):
    """Return a test that runs a machine."""

    class Case(machine.TestCase):
        settings = settings(max_examples=examples, stateful_step_count=steps)

    return Case


TestQueueInMemory = case(QueueMachine, 25, 40)
TestQueueInAFile = case(FileMachine, 10, 30)
TestQueueOverHttp = case(HttpMachine, 10, 30)
TestQueueInPostgres = case(PostgresMachine, 10, 30)
TestQueueInPlainPostgres = case(PlainPostgresMachine, 5, 30)


def nightly(test):
    """Give a test that takes minutes the night, and the time."""
    return pytest.mark.nightly(pytest.mark.timeout(3600)(test))


TestManyQueuesInMemory = nightly(case(QueueMachine, 800, 50))
TestManyQueuesInAFile = nightly(case(FileMachine, 300, 50))
TestManyQueuesOverHttp = nightly(case(HttpMachine, 300, 50))
TestManyQueuesInPostgres = nightly(case(PostgresMachine, 300, 50))
TestManyQueuesInPlainPostgres = nightly(case(PlainPostgresMachine, 200, 50))
