"""ReviewPanel: one controller, the view with keys, and plain widgets where that cannot load."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import wraps
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from hitl_nb.connect import check_opened
from hitl_nb.errors import BadInput
from hitl_nb.panel.controller import MAX_TOGETHER, Controller
from hitl_nb.panel.correction import checker
from hitl_nb.panel.live import KEYS, Live
from hitl_nb.panel.plain import Plain
from hitl_nb.panel.pulse import beat, unless, whenever
from hitl_nb.panel.similar import Similar
from hitl_nb.panel.sitting import State, utc_now
from hitl_nb.panel.view import View
from hitl_nb.task import Reviewer

if TYPE_CHECKING:
    from hitl_nb.queue import ReviewQueue

#: items that the view with keys has in hand beside the one in front
LOOKAHEAD = 8
#: after so many seconds on the screen without a sign of the view with keys, the plain one is shown
PATIENCE = 8.0
_PASSING = (State.SAVING, State.LOADING)


def _guarded(method: Callable[..., Any]) -> Callable[..., None]:
    """Show what a handler raises; in a callback nobody would see it."""

    @wraps(method)
    def run(self: ReviewPanel, *args: Any, **options: Any) -> None:
        try:
            method(self, *args, **options)
        except Exception as error:
            self.controller.fail(error)

    return run


class ReviewPanel:
    """Shows a reviewer one task after the other; each button is a method too.

    Parameters
    ----------
    queue
        Where tasks come from and answers go.
    reviewer
        Who judges: an id, or a ``Reviewer`` with expertise and roles.
    labels
        Labels to correct to; None: free text.
    schema
        In place of labels: a pydantic model, ``(low, high)`` for a number, ``range(low, high + 1)`` for a whole one.
    multiple
        Whether several of the labels may be right: a correction is then a list.
    new_labels
        Whether a text that is none of the labels may be entered; from then on it is one of them.
    render
        Turns ``input_data`` into a text, a dict, an array, the bytes of a PNG or JPEG file, or a widget.
    words
        Words to mark in texts.
    loop
        A ``Loop``: adds a button that retrains while reviews go on.
    audits
        Returns how many audits were disagreed with and how many were judged; default: those of the queue.
    keys
        Other keys, by action, such as ``{"approve": "y"}``; ``hitl_nb.panel.live.KEYS`` has them all.
    plain
        Whether to show plain widgets: buttons, no keys, one item at a time. They show themselves, too, where a front
        end cannot load the view with keys.
    now
        Returns the time, aware.

    Notes
    -----
    Keys count while the focus is inside the panel, and never reach the notebook from there; with Ctrl, Alt or Meta they
    stay with the notebook. JupyterLab stores nothing of an item in the notebook, of the plain widgets too unless its
    setting "Save Widget State Automatically" is on.

    Examples
    --------
    >>> from hitl_nb import open_queue
    >>> queue = open_queue(":memory:")
    >>> task = queue.submit(input_data={"text": "hm"}, ai_prediction={"label": "spam"}, confidence=0.6, reason="unsure")
    >>> panel = ReviewPanel(queue, reviewer="ann", labels=["ham", "spam"])
    >>> panel.correct("ham")
    >>> queue.get(task.task_id).reviews[0].answer, panel
    ({'label': 'ham'}, ReviewPanel('ann': empty, 1 of 1))
    """

    def __init__(
        self, queue: ReviewQueue, reviewer: str | Reviewer = "me", *, labels: Sequence[Any] | None = None,
        schema: Any = None, multiple: bool = False, new_labels: bool = False,
        render: Callable[[Any], Any] | None = None, words: Sequence[str] = (), loop: Any = None,
        audits: Callable[[], tuple[int, int]] | None = None, keys: Mapping[str, str] | None = None,
        plain: bool = False, now: Callable[[], datetime] = utc_now,
    ) -> None:  # fmt: skip
        check_opened(queue)
        self._now, self._retrains, self._drawing = now, loop is not None, threading.RLock()
        self._drawn, self._later, self._wanted = 0.0, False, threading.Event()
        self._check = checker(labels, schema, multiple=multiple, new_labels=new_labels)
        setup_keys = _keys(keys)
        #: the two views; None where one is not in use
        self.live: Live | None = None
        self.plain: Plain | None = None
        self.controller = Controller(
            queue, reviewer, check=self._check, render=render, words=words, audits=audits or (lambda: _audits(queue)),
            retrain=None if loop is None else (lambda report: _retrain(loop, report)), now=now,
            lookahead=0 if plain else LOOKAHEAD, on_change=self._draw,
        )  # fmt: skip
        #: what a cell shows
        self.widget = w.VBox([], _dom_classes=("hitl-panel",))
        if plain:
            self.show_plain()
        else:
            c = self.controller
            setup = {"reviewer": c.reviewer.id, "keys": setup_keys, "retrains": self._retrains}
            self.live = Live(c.view, self._act, c.fail, lambda: setup | {"form": self._check.spec()}, c.similar)
            self.live.on_ready, self.live.on_deaf = self._hide_plain, self.show_plain
            self.widget.children = (self.live.widget,)
        self.controller.start()
        self._draw_now()
        whenever(self._wanted, self._draw_late, self._pace)
        beat(self.controller)

    def __repr__(self) -> str:
        view = self.view
        return f"ReviewPanel({self.controller.reviewer.id!r}: {view.state}, {view.done} of {view.total})"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        if self.live is not None and self.plain is None:
            unless(self.live.is_ready, self.show_plain, PATIENCE)
        return {**self.widget._repr_mimebundle_(), "text/plain": repr(self)}

    @property
    def view(self) -> View:
        """What is shown now."""
        return self.controller.view()

    # -- what a reviewer does

    @_guarded
    def approve(self, comment: str | None = None) -> None:
        """Say that the prediction is right."""
        self.controller.approve(self._said(comment))

    @_guarded
    def reject(self, comment: str | None = None) -> None:
        """Say that the prediction is wrong; of an audit, that no answer fits."""
        self.controller.reject(self._said(comment))

    @_guarded
    def correct(self, correction: Any = None, comment: str | None = None) -> None:
        """Say what is right instead; None: what stands in the plain widgets."""
        typed = self.plain.typed if self.plain and correction is None else correction
        self.controller.correct(typed, self._said(comment))

    @_guarded
    def approve_all(self, tickets: Sequence[str] | None = None) -> None:
        """Approve several items in hand at once, by default all that no hard rule sent; one undo takes them back."""
        self.controller.approve_all(tickets)

    @_guarded
    def skip(self, reason: str | None = None) -> None:
        """Give the item back with a reason, by default what stands in the note; others get it first."""
        self.controller.skip((self._said(reason) or "").strip() or "skipped")

    @_guarded
    def undo(self) -> None:
        """Take the last decision, or the last batch, back and show its item again."""
        self.controller.undo()

    @_guarded
    def object(self, comment: str | None = None) -> None:
        """Ask for a second look at an answer that stands; needs a comment."""
        self.controller.object(self._said(comment) or "")

    @_guarded
    def retry(self) -> None:
        """Send again what was kept, or look for work again."""
        self.controller.retry()

    @_guarded
    def unfold(self) -> None:
        """Show more of the item."""
        self.controller.unfold()

    @_guarded
    def retrain(self) -> None:
        """Retrain in a thread while reviews go on."""
        self.controller.start_retrain()

    @_guarded
    def finish(self, discard: bool = False) -> None:
        """End the sitting: open items go back, texts are cleared, ``view.summary`` says what was done."""
        self.controller.finish(discard)

    def similar(self) -> tuple[Similar, ...]:
        """Return judged tasks that are like the one in front, nearest first, with their answers; none of an audit."""
        return self.controller.similar()

    def export(self, path: str | None = None) -> int:
        """Write every decision of the queue with its answer to a file; returns the number of rows.

        The ending says how: .csv, .parquet or .jsonl. Without a path it is a new CSV file in the working directory,
        named after the time.
        """
        path = path or f"answers-{self._now().astimezone(UTC):%Y-%m-%d-%H%M%S}.csv"
        count = self.controller.queue.export(path)
        self.controller.say(f"{count:,} rows are in {path}")
        return count

    def close(self) -> None:
        """End the sitting and remove the widgets; an answer that cannot be saved now is dropped."""
        self.finish()
        self.finish(discard=True)
        self._later = False
        _close(self.widget)

    def show_plain(self) -> None:
        """Show plain widgets too, for a front end that cannot load the view with keys."""
        with self._drawing:
            if self.plain is None:
                self.plain = Plain(self.controller.view, self._check, self._press, self._retrains, self._now)
                self.widget.children = (*self.widget.children, self.plain.widget)
                self._draw_now()

    def _hide_plain(self) -> None:
        with self._drawing:
            plain, self.plain = self.plain, None
            if plain is not None:
                self.widget.children = (self.live.widget,) if self.live else ()
                _close(plain.widget)

    # -- what the views ask for

    def _said(self, comment: str | None) -> str | None:
        return self.plain.note if self.plain and comment is None else comment

    @_guarded
    def _press(self, action: str, note: str, typed: Any) -> None:
        given = {"correct": (typed, note), **dict.fromkeys(("approve", "reject", "skip", "object"), (note,))}
        getattr(self, action)(*given.get(action, ()))

    def _act(self, asked: Mapping[str, Any]) -> bool:
        """Carry out an act of the view with keys; returns whether it was done."""
        c, comment = self.controller, asked["comment"]
        names = {"ticket": asked["ticket"], "submit_id": asked["id"] or None}
        acts: dict[str, Callable[[], Any]] = {
            "approve": lambda: c.approve(comment, **names),
            "reject": lambda: c.reject(comment, **names),
            "correct": lambda: c.correct(asked["correction"], comment, **names),
            "skip": lambda: c.skip(comment.strip() or "skipped", ticket=asked["ticket"]),
            "object": lambda: c.object(comment),
            "batch": lambda: c.approve_all(asked["tickets"]),
            "gather": lambda: c.gather(MAX_TOGETHER),
            "export": self.export, "retrain": c.start_retrain, "undo": c.undo, "retry": c.retry, "finish": c.finish,
            "unfold": c.unfold,
        }  # fmt: skip
        return acts[asked["action"]]() is not False

    # -- drawing

    def _pace(self) -> float:
        return max(one.pace for one in (self.live, self.plain) if one is not None)

    def _draw(self) -> None:
        """Draw, or a moment later where that would be too soon; what passes at once is not worth a drawing."""
        with self._drawing:
            if self.plain is None and self.live is not None and self.live.is_answering:
                return
            pace = self._pace()
            wait = pace if self.controller.state in _PASSING else self._drawn + pace - time.monotonic()
            if wait <= 0:
                self._draw_now()
            else:
                self._later = True
                self._wanted.set()

    @_guarded
    def _draw_late(self) -> None:
        if self._later:  # nothing was drawn meanwhile
            self._draw_now()

    def _draw_now(self) -> None:
        """Bring the views to what the controller says; the last one to draw has the newest."""
        with self._drawing:
            self._drawn, self._later = time.monotonic(), False
            for one in (self.live, self.plain):
                if one is not None:
                    one.draw(self.controller.state in _PASSING)


def _keys(given: Mapping[str, str] | None) -> dict[str, str]:
    """Return every action's key; a key is one character and asks for one thing."""
    keys = KEYS | {action: str(key).lower() for action, key in (given or {}).items()}
    for action, key in keys.items():
        if action not in KEYS or len(key) != 1 or not key.isprintable() or key == " ":
            raise BadInput(name="keys", value={action: key}, remedy=f"pass one character for {', '.join(KEYS)}")
        if list(keys.values()).count(key) > 1:
            raise BadInput(name="keys", value={action: key}, remedy="another action has that key; give it another one")
    return keys


def _close(widget: Any) -> None:
    for child in getattr(widget, "children", ()):
        _close(child)
    widget.close()


def _audits(queue: ReviewQueue) -> tuple[int, int]:
    return queue.stats().audit_counts[:2]


def _retrain(loop: Any, report: Callable[[str], None]) -> Any:
    loop.refresh()
    return loop.retrain(report)
