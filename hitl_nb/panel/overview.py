"""QueueView: how a queue stands, brought up to date while it is on the screen; counts and names, never an item."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import anywidget

from hitl_nb.connect import check_opened
from hitl_nb.display import Table, line, table
from hitl_nb.errors import BadInput, NotAllowed
from hitl_nb.evidence import always_valid
from hitl_nb.panel.live import STYLE, script
from hitl_nb.panel.pulse import answer_beside_cells
from hitl_nb.panel.sitting import says, utc_now
from hitl_nb.task import Priority

if TYPE_CHECKING:
    from hitl_nb.queue import ReviewQueue, Stats, Wait

#: share of the time that looks at a queue may take: the dearer they are, the rarer they become
SHARE = 0.05
#: so long nobody answers while something waits before that is an alarm
SILENCE = timedelta(hours=1)
#: most expertises and reviewers that are named, and most alarms
MOST = 8
#: seconds of the longest pause between two looks
LONGEST = 600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Overview:
    """How a queue stood at one moment."""

    #: its counts and times
    stats: Stats
    #: how long a new task would wait, by the expertise that it needs, of those with most open tasks; None: anyone
    waits: dict[str | None, Wait | None]
    #: what audits say of what nobody looks at, in words
    risk: str
    #: certificates that were taken back since the last one was put to use: when and why, in words
    revoked: tuple[str, ...]

    @property
    def open(self) -> int:
        """How many tasks wait for a person."""
        return sum(self.stats.open_by_priority.values())

    @property
    def alarms(self) -> tuple[str, ...]:
        """What somebody should do something about, in words."""
        found, silent = self.stats, self._silent
        late = [f"{found.overdue:,} overdue: the deadline has passed without an answer"] if found.overdue else []
        quiet = [f"nobody has answered for {span(silent)}, {self.open:,} wait"] if silent >= SILENCE else []
        return (*late, *quiet, *self.revoked)

    @property
    def _silent(self) -> timedelta:
        """How long nobody has answered although something waited."""
        begun = [when for when in (self.stats.oldest, self.stats.last_answer) if when is not None]
        return _between(max(begun), self.stats.at_time) if self.open else timedelta()

    def tables(self, name: str) -> tuple[Table, ...]:
        """Return it as tables of clean text; the first one is about the whole queue ``name``."""
        s = self.stats
        known = {str(one): s.open_by_priority.get(str(one), 0) for one in Priority}
        waits = [(e or "anyone", f"{s.open_by_expertise.get(e, 0):,}", _wait(w)) for e, w in self.waits.items()]
        hour, recent = (
            s.last_hour,
            sorted(s.last_day, key=lambda who: (-s.last_hour.get(who, 0), -s.last_day[who], who)),
        )
        answers = [(who, f"{hour.get(who, 0):,}", f"{s.last_day[who]:,}", f"{s.reviewers[who]:,}") for who in recent]
        return (
            table(f"Review queue {name}, {self.open:,} open", rows=self._facts()),
            table("By priority", ("priority", "open"), [(one, f"{n:,}") for one, n in known.items()]),
            table("By expertise", ("expertise", "open", "a new one waits"), [
                *waits, *_left_out(len(s.open_by_expertise) - len(waits), 3)]),
            table("By reviewer", ("answers of", "last hour", "last day", "all"), [
                *answers[:MOST], *_left_out(len(answers) - MOST, 4)]),
        )  # fmt: skip

    def _facts(self) -> list[tuple[str, str]]:
        s, share = self.stats, self.stats.automatic_share
        hour, day = (sum(one.values()) for one in (s.last_hour, s.last_day))
        return [
            ("oldest open", _since(s.oldest, s.at_time)),
            ("next deadline", _until(s.next_deadline, s.at_time)),
            ("overdue", f"{s.overdue:,}"),
            ("expired", f"{s.status.get('expired', 0):,}"),
            ("answers", f"{hour:,} in the last hour, {day:,} in the last day"),
            ("automatic share", "none yet" if share is None else f"{share:.1%} of {s.total:,}"),
            ("audits disagree", self.risk),
        ]


def _left_out(n: int, columns: int) -> list[tuple[str, ...]]:
    return [(f"… {n:,} more", *[""] * (columns - 1))] if n > 0 else []


def span(time: timedelta) -> str:
    """Return a length of time in its two largest units.

    >>> span(timedelta(minutes=130)), span(timedelta(days=3, hours=4)), span(timedelta(seconds=-5))
    ('2 h 10 min', '3 d 4 h', '0 min')
    """
    minutes = max(0, int(time.total_seconds() // 60))
    days, hours, left = minutes // 1440, minutes // 60 % 24, minutes % 60
    return f"{days} d {hours} h" if days else f"{hours} h {left} min" if hours else f"{left} min"


def _between(begin: datetime | None, end: datetime | None) -> timedelta:
    return end - begin if begin is not None and end is not None else timedelta()


def _since(when: datetime | None, now: datetime | None) -> str:
    return "none" if when is None else f"waits {span(_between(when, now))}, since {when:%Y-%m-%d %H:%M} UTC"


def _until(when: datetime | None, now: datetime | None) -> str:
    return "none" if when is None else f"in {span(_between(now, when))}, at {when:%Y-%m-%d %H:%M} UTC"


def _wait(wait: Wait | None) -> str:
    if wait is None or not all(map(math.isfinite, (wait.minutes, wait.low, wait.high))):
        return "not known"
    return f"{wait.minutes:.0f} min ({wait.low:.0f} to {wait.high:.0f})"


class _Widget(anywidget.AnyWidget):
    _esm, _css = script("dom", "overview"), STYLE


class QueueView:
    """Shows how a queue stands, over any store, and keeps that up to date while a page shows it; it changes nothing.

    What waits by priority and expertise, since when and until when, how long a new task would wait, who answers how
    much, what share goes without a person and how often audits disagree with that. Alarms stand above: what is
    overdue, that nobody answers, and certificates that were taken back, by a drift alarm or by hand.

    The page asks, so nothing is read once it is closed or hidden. Where a look fails, the last figures stay, with the
    time since when they are old, and it is tried again. ``print(view)`` says the same in a terminal.

    Parameters
    ----------
    queue
        Of any kind; ``stats``, ``events`` and ``estimated_wait`` are all that is asked.
    every
        Seconds between two looks; longer where a look takes more than a twentieth of that.
    risk
        Returns what is known of the error of automatic decisions, such as ``lambda: estimate_risk(queue.history())``;
        default: how often random audits disagree, with an interval that holds however often one looks.
    now
        Returns the time, aware; for "not reached since".

    Notes
    -----
    The saved notebook holds none of it, names of reviewers included.

    Examples
    --------
    >>> from hitl_nb import open_queue
    >>> queue = open_queue(":memory:")
    >>> task = queue.submit(input_data={"text": "hm"}, ai_prediction={"label": "spam"}, confidence=0.6, reason="unsure")
    >>> view = QueueView(queue)
    >>> view
    QueueView(ReviewQueue(':memory:'))
    >>> view.look().stats.open_by_priority, view.look().alarms
    ({'medium': 1}, ())
    """

    def __init__(
        self, queue: ReviewQueue, every: float = 2.0, *, risk: Callable[[], Any] | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:  # fmt: skip
        check_opened(queue)
        if isinstance(every, bool) or not isinstance(every, (int, float)) or not 0.1 <= every <= LONGEST:
            raise BadInput(name="every", value=every, remedy=f"pass seconds between two looks, 0.1 to {LONGEST:.0f}")
        self.queue, self._every, self._risk, self._now = queue, float(every), risk, now
        self._looking, self._revoked = threading.Lock(), list[tuple[int, str]]()
        self._seen = {"issue_certificate": 0, "revoke_certificate": 0}
        #: what the last look found that did not fail; None before it
        self.last: Overview | None = None
        #: why the last look failed; empty if it did not
        self.problem = ""
        self._reached, self._cost = now(), 0.0
        #: what a cell shows
        self.widget = _Widget()
        self.widget.on_msg(lambda _, content, buffers: self._hear())

    def __repr__(self) -> str:
        return f"QueueView({self.queue!r})"

    def __str__(self) -> str:
        with self._looking:
            self._read()
        return "\n".join([*self._alarms(), *("\n" * (i > 0) + repr(one) for i, one in enumerate(self._tables()))])

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        shown, more = (self.widget.comm and self.widget._repr_mimebundle_()) or ({}, {})  # nothing once it is closed
        return {**shown, "text/plain": repr(self)}, more

    def look(self) -> Overview:
        """Look now, show that wherever it is shown, and return it.

        Raises
        ------
        HitlError
            The queue cannot be read.
        """
        with self._looking:
            found = self._read()
            self._send()
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        """Take it from the screen; nothing is read any more."""
        self.widget.close()

    # -- what a page asks for

    def _hear(self) -> None:
        """Look on a thread of its own, so that no click waits for it; what is asked for meanwhile is answered by it."""
        threading.Thread(target=self._answer, name="hitl_nb-look", daemon=True).start()

    def _answer(self) -> None:
        if self._looking.acquire(blocking=False):
            try:
                self._read()
                self._send()
            finally:
                self._looking.release()

    def _send(self) -> None:
        if self.widget.comm is not None:  # else it was closed
            tables = [{"title": t.title, "columns": t.columns, "rows": t.rows} for t in self._tables()]
            told = {"alarms": self._alarms(), "at": f"{self._reached:%H:%M:%S} UTC", "tables": tables}
            self.widget.send(told | {"again": None if self.queue.closed else pause(self._every, self._cost)})
            answer_beside_cells(self.widget.comm)

    def _alarms(self) -> list[str]:
        old = [f"not reached since {self._reached:%H:%M} UTC, trying again: {self.problem}"] if self.problem else []
        old = [f"closed at {self._reached:%H:%M} UTC"] if self.queue.closed else old
        return [line(one, 300) for one in (*old, *(self.last.alarms if self.last else ()))]

    def _tables(self) -> tuple[Table, ...]:
        return self.last.tables(self.queue.name) if self.last else (table(f"Review queue {self.queue.name}"),)

    # -- what it reads

    def _read(self) -> Overview | Exception:
        """Bring `last` up to date, or say in `problem` why that cannot be."""
        begun = time.perf_counter()
        try:
            found = self._overview()
            self.last, self.problem, self._reached = found, "", self._now()
            return found
        except Exception as error:  # a view that ends at the first fault is none
            self.problem = says(error)
            return error
        finally:
            self._cost = time.perf_counter() - begun

    def _overview(self) -> Overview:
        found = self.queue.stats()
        largest = sorted(found.open_by_expertise.items(), key=lambda one: (-one[1], one[0] or ""))[:MOST]
        waits = {expertise: self.queue.estimated_wait(expertise) for expertise, _ in largest}
        said = str(self._risk()) if self._risk else _disagreement(found)
        return Overview(stats=found, waits=waits, risk=said, revoked=self._certificates())

    def _certificates(self) -> tuple[str, ...]:
        """Take note of what the log says of certificates since the last look."""
        issued, revoked = ([*map(self._noted, self._new(move))] for move in self._seen)
        after = max((seq for seq, _ in issued), default=0)
        self._revoked = [one for one in (*self._revoked, *revoked) if one[0] > after][-MOST:]
        return tuple(text for _, text in self._revoked)

    def _new(self, move: str) -> list[dict[str, Any]]:
        try:
            found = self.queue.events(self._seen[move], move=move)
        except NotAllowed:  # a reviewer's token reads no log, and a producer's no bodies of it
            return []
        self._seen[move] = found[-1]["seq"] if found else self._seen[move]
        return found

    @staticmethod
    def _noted(event: Mapping[str, Any]) -> tuple[int, str]:
        what, why = (line(event.get("body", {}).get(key, "?")) for key in ("certificate", "why"))
        return event["seq"], f"certificate {what} taken back at {event['at_time']:%Y-%m-%d %H:%M} UTC: {why}"


def _disagreement(found: Stats) -> str:
    if found.audited is None:
        return "told to admins alone"
    wrong, judged, *_ = found.audit_counts
    return str(always_valid(wrong, judged)) if judged else "none judged yet"


def pause(every: float, cost: float) -> float:
    """Return the seconds until the next look, after one that took ``cost``.

    >>> pause(2.0, 0.05), pause(2.0, 0.5)
    (2.0, 10.0)
    """
    return min(max(every, cost / SHARE), LONGEST)
