"""ReviewQueue: what people and programs call. Each call is one unit of work over a store."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from hitl_nb.display import Shows, Table
from hitl_nb.payload import name
from hitl_nb.queue import answer, change, deadline, history, read, submit, summary, upkeep
from hitl_nb.queue.backlog import Wait
from hitl_nb.queue.ids import Array, Ids, one_text
from hitl_nb.queue.row import TaskRow
from hitl_nb.queue.store import REQUEST, Store, Transaction, logged_under, payloads
from hitl_nb.queue.token import Book, Tokens
from hitl_nb.task import Priority, Review, Reviewer, ReviewOutcome, ReviewTask, Status

if TYPE_CHECKING:
    import pandas as pd

    from hitl_nb.queue.frame import FrameSubmission
    from hitl_nb.queue.submit import Submission

T = TypeVar("T")


class ReviewQueue(Shows, Tokens):
    """Keeps tasks until a person has answered them; loses, doubles and overwrites nothing.

    Open one with ``hitl_nb.open_queue``. Every call is safe from any thread.

    Examples
    --------
    >>> from hitl_nb import open_queue
    >>> queue = open_queue(":memory:")
    >>> task = queue.submit(input_data={"text": "hm"}, ai_prediction={"label": "spam"}, confidence=0.6, reason="unsure")
    >>> [mine] = queue.claim("ann")
    >>> queue.resolve(mine.task_id, "ann", "correct", {"label": "ham"}).answer
    {'label': 'ham'}
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        #: path of the file, or ``:memory:``
        self.name = store.name
        #: called once, before the file is given free
        self.leaving: list[Callable[[], None]] = []
        self._ids = Ids()
        #: set once it is closed
        self.ended = threading.Event()
        self._policy: str | None = None
        self._tokens = Book()

    def __repr__(self) -> str:
        return f"ReviewQueue({self.name!r})"

    def _table(self) -> Table:
        return summary.of_queue(self)

    def __enter__(self) -> ReviewQueue:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def now(self) -> datetime:
        """The queue's time, naive UTC; it never steps back behind the last event."""
        return self.store.now

    # -- submitting

    def submit(
        self, *, input_data: Mapping[str, Any], ai_prediction: Mapping[str, Any], confidence: float | None = None,
        reason: str, priority: str | Priority | None = None, key: str | None = None, subject: str | None = None,
        expertise: str | None = None, deadline: datetime | timedelta | None = None, on_deadline: str = "escalate",
        escalation: Sequence[str] = (), reviews_required: int = 1, consensus: str = "majority",
        audit: bool | None = None, model: str | None = None, policy: str | None = None, group: str | None = None,
        value: float | None = None,
    ) -> ReviewTask:  # fmt: skip
        """Ask a person about one model output.

        Parameters
        ----------
        input_data, ai_prediction
            What the model saw and what it answered; dicts with a canonical form.
        confidence
            0..1; anything else is unknown.
        reason
            Why a person is asked, in words.
        priority
            high, medium or low; by default from the confidence.
        key
            The caller's own id: the same key and content again returns the task that is there.
        subject
            Whom it is about, for ``forget``.
        expertise
            Who may judge it; None: anyone.
        deadline
            A timedelta from now, or an aware datetime.
        on_deadline
            escalate, hold or deny; never an approval.
        escalation
            Expertise of level 1, 2, …
        reviews_required, consensus
            How many people judge it, blind to each other, and how their answers become one.
        audit, model, policy, group, value
            Facts for the history.

        Raises
        ------
        BadInput, NoCanonicalForm, TooLarge
            Something cannot be stored; nothing was.
        KeyConflict
            The key came before with other content.
        """
        given = locals()
        return self.submit_all([{name: given[name] for name in submit.OPTIONS}])[0]

    def submit_all(self, tasks: Sequence[Mapping[str, Any]]) -> list[ReviewTask]:
        """Ask about 1 to 1000 outputs, all or none; each is what ``submit`` takes, all have a key or none has."""
        ready = submit.by_hand_all(tasks, lambda: one_text(self.new_ids(1)), self.store.now)

        def work(tx: Transaction) -> list[tuple[TaskRow, ReviewTask | None]]:
            rows = [(submit.store(tx, one), one.row.task_id) for one in ready]
            return [(row, None if row.task_id == new else read.get(tx, row.task_id)) for row, new in rows]

        found = zip(self._write(work, search=submit.keyed(ready)), ready, strict=True)
        return [read.submitted(row, one.texts) if known is None else known for (row, known), one in found]

    def new_ids(self, n: int) -> Array:
        """Return ``n`` new task ids as uint64 of shape (n, 2), in order."""
        return self._ids.make(n, self.store.now)

    def store_decided(self, ready: Submission, fingerprint: str, policy: Mapping[str, Any]) -> TaskRow:
        """Store what a policy decided for one input."""
        keyed = ready.row.key_hash is not None
        return self._store(lambda tx: submit.store(tx, ready), fingerprint, policy, search=keyed)

    def store_frame(
        self, ready: FrameSubmission, fingerprint: str, policy: Mapping[str, Any],
        progress: Callable[[int], None] | None = None,
    ) -> dict[int, str]:  # fmt: skip
        """Store what a policy decided for a frame, in one transaction; returns the tasks of keys known already."""
        from hitl_nb.queue import frame

        return self._store(lambda tx: frame.store_frame(tx, ready, progress), fingerprint, policy, search=True)

    def _store(
        self, store: Callable[[Transaction], T], fingerprint: str, policy: Mapping[str, Any], *, search: bool
    ) -> T:
        def work(tx: Transaction) -> T:
            if fingerprint != self._policy:
                submit.remember_policy(tx, fingerprint, policy)
            return store(tx)

        stored = self._write(work, search=search)
        self._policy = fingerprint  # only now is it in the log
        return stored

    def told(self, task_ids: Sequence[str]) -> list[tuple[Status, ReviewTask]]:
        """Return what callers were told when tasks were submitted, and the tasks, without answers."""
        return self._read(lambda tx: read.told(tx, task_ids))

    # -- reviewing

    def claim(
        self, reviewer: str | Reviewer, n: int = 1, expertise: str | None = None, lease: timedelta = answer.LEASE
    ) -> list[ReviewTask]:
        """Take the best ``n`` tasks that the reviewer may judge, for the time of ``lease``; fewer if fewer wait."""
        who = Reviewer.of(reviewer)
        self.tick_if_due()
        work = partial(answer.claim, reviewer=who, n=n, expertise=expertise, lease=lease)
        found = self._write(work)
        if found is None:  # one of those who wait fills the head of the line for all
            self._write(lambda tx: answer.fill(tx, who, n, expertise), search=True)
            found = self._write(work) or self._write(work, search=True)
        rows, texts = found or ([], {})
        return [read.as_task(row, payloads(texts[row.task_id], row)) for row in rows]

    def resolve(
        self, task_id: str, reviewer: str | Reviewer, outcome: str | ReviewOutcome,
        correction: Mapping[str, Any] | None = None, comment: str | None = None, *, attempt: int | None = None,
        submit_id: str | None = None, shown: str | None = None,
    ) -> Review:  # fmt: skip
        """Answer a task.

        Parameters
        ----------
        task_id, reviewer, outcome
            Which task, who, and approve, reject or correct.
        correction
            What is right instead: a dict or a pydantic model; for ``correct`` only.
        comment
            Free text.
        attempt
            The lease under which it was judged; None: the caller's own, or none at all if nobody holds the task.
        submit_id
            The client's id for this answer: sent again, it returns the first answer.
        shown
            ``ReviewTask.shown`` of what was judged; refused if the payload has changed since.

        Raises
        ------
        LeaseLost, AlreadyReviewed, ItemChanged, SubmitConflict, NotQualified, TaskNotFound, BadInput
            Nothing was stored.
        """
        who, said = Reviewer.of(reviewer), answer.Answer.of(outcome, correction, comment)
        more = {"attempt": attempt, "submit_id": submit_id, "shown": shown}
        return self._write(lambda tx: answer.resolve(tx, task_id, who, said, **more))()

    def release(self, task_id: str, reviewer: str | Reviewer, reason: str | None = None) -> None:
        """Give a claimed task back; with a reason it was skipped, and others get it first."""
        who = Reviewer.of(reviewer)
        self._write(lambda tx: answer.release(tx, task_id, who, reason))

    def renew(self, task_ids: Iterable[str], reviewer: str | Reviewer, lease: timedelta = answer.LEASE) -> None:
        """Lengthen the reviewer's leases to ``lease`` from now; all of them or none."""
        who, ids = Reviewer.of(reviewer), list(task_ids)
        self._write(lambda tx: answer.renew(tx, ids, who, lease))

    def undo(self, task_id: str, reviewer: str | Reviewer) -> None:
        """Take the reviewer's own answer back; refused once it was delivered."""
        who = Reviewer.of(reviewer)
        self._write(lambda tx: answer.undo(tx, task_id, who))

    def object(self, task_id: str, reviewer: str | Reviewer, comment: str) -> None:
        """Ask for a second look at an answer; an adjudicator settles it, the first answer stays in the log."""
        who = Reviewer.of(reviewer)
        self._write(lambda tx: answer.object_(tx, task_id, who, comment))

    # -- changing

    def replace(
        self, task_id: str, input_data: Mapping[str, Any], ai_prediction: Mapping[str, Any],
        confidence: float | None = None,
    ) -> None:  # fmt: skip
        """Put a new payload in place of an open task's, but not of a random audit's; leases and answers are void."""
        self._write(lambda tx: change.replace(tx, task_id, input_data, ai_prediction, confidence))

    def reorder(self, scored: Sequence[TaskRow], fingerprint: str, policy: Mapping[str, Any]) -> list[str]:
        """Order and route tasks that nobody has had in hand by a later model's scores; returns the ids of those."""
        return self._store(lambda tx: change.reorder(tx, scored, fingerprint), fingerprint, policy, search=True)

    def withdraw(self, task_id: str, reason: str | None = None) -> None:
        """Take an open task back; whoever waits for it is told."""
        self._write(lambda tx: change.withdraw(tx, task_id, reason))

    def reopen(self, task_id: str) -> None:
        """Ask again about an expired task, without a deadline."""
        self._write(lambda tx: change.reopen(tx, task_id))

    def forget(self, subject: str) -> change.Forgotten:
        """Erase every payload about a subject, withdraw open tasks among them, and say what may hold the data still."""
        found = self._write(lambda tx: change.forget(tx, subject), search=True)
        self.store.checkpoint()
        return found

    def note(self, what: str, facts: Mapping[str, Any]) -> None:
        """Log something about the queue itself, such as a promotion or a revoked certificate."""
        self._write(lambda tx: tx.note(name("note", what), None, dict(facts)))

    def tick(self) -> int:
        """End leases that ran out and apply deadlines that passed; returns how many tasks it touched."""
        touched = sum(iter(partial(self.store.write, deadline.tick, search=True), 0))
        self.store.look_ahead()
        return touched

    def tick_if_due(self) -> None:
        """Call ``tick`` if the time of a lease or deadline has come."""
        due = self.store.next_due
        if due is not None and due <= self.store.now:
            self.tick()

    # -- waiting

    def deliver(self, task_id: str, to: str, after: int = 0) -> Review | None:
        """Return the answer that holds, later than number ``after``, and log that ``to`` received it; None: not yet."""
        caller = name("caller", to)
        self.tick_if_due()
        near = self._write(lambda tx: tx.near(task_id) is not None)
        if not near and self._read(lambda tx: read.answer_of(tx, task_id, after), search=False)[1] is None:
            return None

        def work(tx: Transaction) -> Review | None:
            row, review = read.answer_of(tx, task_id, after)
            if review is not None:
                change.deliver(tx, row, caller)
            return review

        return self._write(work)

    def watch(self, task_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake``, on the thread that writes, after each change of a task; returns what ends it."""
        return self.store.watch(task_id, wake)

    # -- reading

    def pending(
        self, expertise: str | Sequence[str] | None = None, limit: int = 20, after: str | None = None
    ) -> list[ReviewTask]:
        """Return the open tasks, best first; with ``expertise``, one or several, those that such a person may judge.

        With ``after``, an id, they come in the order of their ids, from the next one on: all of them, page by page.
        """
        return self._read(lambda tx: read.pending(tx, expertise, read.page(limit), after))

    def reviewed(self, limit: int = 200) -> list[ReviewTask]:
        """Return the tasks answered last, newest first, with the answers that stand; without those over 128 kB."""
        return self._read(lambda tx: read.reviewed(tx, read.page(limit)))

    def get(self, task_id: str) -> ReviewTask:
        """Return one task with the answers that stand."""
        return self._read(lambda tx: read.get(tx, task_id), search=False)

    def stats(self) -> read.Stats:
        """Return counts over the whole queue."""
        return self._read(read.stats)

    def events(self, since: int = 0, limit: int = 1000, move: str | None = None) -> list[dict[str, Any]]:
        """Return the log after event number ``since``, oldest first; with ``move`` the events of that kind alone."""
        return self._read(lambda tx: read.events(tx, since, read.page(limit), move), search=False)

    def explain(self, task_id: str) -> str:
        """Say in plain words why a task was sent, by which rule, policy and model, and what happened to it."""
        return self._read(lambda tx: read.explain(tx, task_id), search=False)

    def estimated_wait(self, expertise: str | None = None, priority: str | Priority | None = None) -> Wait | None:
        """Return how long a task that came now would wait for its answer; None before three answers tell the pace.

        Without ``expertise`` it is one that anyone may judge, without ``priority`` the least urgent that is known.
        """
        least = None if priority is None else submit.rank(priority)
        return self.store.backlog.wait(expertise, least, self.store.now)

    def history(self, inputs: bool = False) -> pd.DataFrame:
        """Return a line a task, for `lab.read`; ``wrong`` of audits by their first answer; ``inputs`` adds scalars."""
        return self._read(lambda tx: history.history(tx, inputs))

    def training_frame(self, as_of: datetime | None = None) -> pd.DataFrame:
        """Return the answers that hold as training rows, as they stood at ``as_of`` (aware; None: now)."""
        until = None if as_of is None else submit.utc("as_of", as_of)
        return self._read(lambda tx: history.training_frame(tx, until))

    def training_frames(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return `training_frame` and, as of the same moment, what models are compared on once it is answered."""
        return self._read(lambda tx: (history.training_frame(tx, None), history.unanswered_frame(tx)))

    def annotations(self) -> pd.DataFrame:
        """Return every answer that stands as one line: task, worker, label."""
        return self._read(history.annotation_frame)

    def export(self, path: str, inputs: bool = False) -> int:
        """Write the history to .parquet, .jsonl or .csv (formulas get an apostrophe in front); returns its length."""
        target = history.export_target(str(path))
        self._write(lambda tx: change.copied(tx, "export", target))
        return self._read(lambda tx: history.export(tx, target, inputs))

    # -- upkeep

    def verify(self) -> list[str]:
        """Return what is wrong with the file, in words; an empty list means that everything agrees."""
        return self._read(upkeep.verify)

    def rebuild(self) -> int:
        """Write the task table anew from the log; returns the number of tasks."""
        count = self._write(lambda tx: upkeep.rebuild(tx, self.name), search=True)
        self.store.recount()
        return count

    def backup(self, path: str) -> None:
        """Copy the whole queue to a new file while it is in use."""
        self.store.backup(str(path))

    def snapshot(self, folder: str) -> None:
        """Write the tables to a new folder as payload.parquet, event.parquet and task.parquet."""
        self.store.snapshot(str(folder))

    @property
    def closed(self) -> bool:
        """Whether the queue was closed."""
        return self.ended.is_set() or self.store.closed

    def close(self) -> None:
        """Give the file free; safe to call twice."""
        self.ended.set()
        while self.leaving:
            self.leaving.pop()()
        self.store.close()

    def _write(self, work: Callable[[Transaction], T], *, search: bool = False) -> T:
        return self.store.write(logged_under(REQUEST.get(), work), search=search)

    def _read(self, work: Callable[[Transaction], T], *, search: bool = True) -> T:
        return self.store.read(work, search=search)
