"""ReviewPanel: the controller as plain ipywidgets, built once and updated in place; outside text is only ever text."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from hitl_nb.panel.controller import Controller, utc_now
from hitl_nb.panel.correction import checker
from hitl_nb.panel.pulse import beat, whenever
from hitl_nb.panel.sitting import State, View
from hitl_nb.task import Reviewer

if TYPE_CHECKING:
    from hitl_nb.queue import ReviewQueue

#: a click so soon after an item came is the second half of a double click, meant for the item before
DOUBLE_CLICK = timedelta(seconds=0.3)
#: shortest time between two drawings, in seconds; of more messages the notebook server would drop some
PACE = 0.15
#: buttons: action, words, tooltip
_BUTTONS = (
    ("approve", "Approve", "The prediction is right"),
    ("reject", "Reject", "The prediction is wrong"),
    ("correct", "Correct", "What stands in the correction is right"),
    ("skip", "Skip", "Give it back with the note as the reason, or go on"),
    ("object", "Object", "Ask for a second look, with the note as the reason"),
    ("retry", "Retry", "Send again what was kept, or look for work"),
    ("unfold", "Show more", "Show what is folded"),
    ("retrain", "Retrain", "Retrain the model from the answers so far"),
    ("undo", "Undo", "Take the last decision back"),
    ("finish", "Finish", "Give open items back and end the sitting"),
)
#: how it looks; nothing from outside stands in it
STYLE = f"<style>{Path(__file__).with_name('panel.css').read_text(encoding='utf-8')}</style>"
#: colour of the bars behind probabilities; smaller ones than ``VISIBLE`` are left out
BAR, VISIBLE = "color-mix(in srgb, var(--jp-brand-color1, #1976d2) 25%, transparent)", 0.005
#: buttons that keep their place when they can do nothing
_ALWAYS = ("approve", "reject", "correct", "skip", "undo", "finish")
_PASSING = (State.SAVING, State.LOADING)
_JUDGE = ("approve", "reject", "correct", "skip")


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
        In place of labels: a pydantic model, or ``(low, high)`` for a number.
    render
        Turns ``input_data`` into a text, a dict, an array or the bytes of a PNG or JPEG file.
    loop
        A ``Loop``: adds a button that retrains while reviews go on.
    audits
        Returns how many audits were disagreed with and how many were judged; default: those of the queue.
    now
        Returns the time, aware.

    Notes
    -----
    There are no single keys. After a click the button gives the focus away, so that the next key does not reach the
    notebook as a command; Tab goes on from that button. JupyterLab stores nothing of an item in the notebook unless its
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
        schema: Any = None, render: Callable[[Any], Any] | None = None, loop: Any = None,
        audits: Callable[[], tuple[int, int]] | None = None, now: Callable[[], datetime] = utc_now,
    ) -> None:  # fmt: skip
        self._now, self._ticket, self._since, self._drawing = now, "", now(), threading.RLock()
        self._drawn, self._later, self._wanted = 0.0, False, threading.Event()
        self._check = checker(labels, schema)
        self._build(loop is not None)
        self.controller = Controller(
            queue, reviewer, check=self._check, render=render, audits=audits or (lambda: _audits(queue)),
            retrain=None if loop is None else (lambda report: _retrain(loop, report)), now=now, on_change=self._draw,
        )  # fmt: skip
        self.controller.start()
        self._draw_now()
        whenever(self._wanted, self._draw_late, lambda: PACE)
        beat(self.controller)

    def __repr__(self) -> str:
        view = self.view
        return f"ReviewPanel({self.controller.reviewer.id!r}: {view.state}, {view.done} of {view.total})"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
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
        """Say what is right instead; None: what stands in the panel."""
        typed = self._typed() if correction is None else correction
        self.controller.correct(typed, self._said(comment))

    @_guarded
    def skip(self, reason: str | None = None) -> None:
        """Give the item back with a reason, by default what stands in the note; others get it first."""
        self.controller.skip(self._said(reason).strip() or "skipped")

    @_guarded
    def undo(self) -> None:
        """Take the last decision back and show its item again."""
        self.controller.undo()

    @_guarded
    def object(self, comment: str | None = None) -> None:
        """Ask for a second look at an answer that stands; needs a comment."""
        self.controller.object(self._said(comment))

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

    def close(self) -> None:
        """End the sitting and remove the widgets; an answer that cannot be saved now is dropped."""
        self.finish()
        self.finish(discard=True)
        self._later = False
        _close(self.widget)

    @_guarded
    def _click(self, action: str) -> None:
        self._buttons[action].blur()  # or the next key would reach the notebook as a command
        if action not in _JUDGE or (self._is_drawn and self._now() - self._since >= DOUBLE_CLICK):
            getattr(self, action)()

    @property
    def _is_drawn(self) -> bool:
        """Whether the widgets show the item that a decision would be about."""
        return self._ticket == self.view.ticket

    def _said(self, comment: str | None) -> str:
        typed = str(self._comment.value) if self._is_drawn else ""
        return typed if comment is None else comment

    def _typed(self) -> Any:
        typed = {name: box.value if self._is_drawn else "" for name, box in self._inputs.items()}
        return {name: _value(text) for name, text in typed.items() if text.strip()} if self._is_form else typed["label"]

    # -- the widgets

    def _build(self, retrains: bool) -> None:
        self._title, self._counts, self._bar = w.Label(), w.Label(), w.IntProgress(_dom_classes=("hitl-bar",))
        self._message, self._why, self._input = _text("Message"), _text("Why here", "why"), _text("Input")
        self._answer, self._shares, self._last = _text("Prediction"), _text("Confidence"), _text("Last")
        self._image, self._retrained = w.Image(format="png", _dom_classes=("hitl-image",)), _text("Retrain")
        self._training = w.IntProgress(max=4, _dom_classes=("hitl-bar",))
        self._is_form = self._check.fields != ("label",)
        self._inputs = {name: self._entry(name) for name in self._check.fields}
        self._comment = w.Textarea(description="Note", rows=1, _dom_classes=("hitl-entry",))
        actions = [one for one in _BUTTONS if one[0] != "retrain" or retrains]
        self._buttons = {
            action: w.Button(description=words, tooltip=tip, _dom_classes=(f"hitl-{action}",))
            for action, words, tip in actions
        }
        for action, button in self._buttons.items():
            button.on_click(lambda _, action=action: self._click(action))
        head = _row("head", self._title, self._counts)
        item = _row("item", w.VBox([self._input, self._image]), w.VBox([self._answer, self._shares]))
        buttons = _row("buttons", *self._buttons.values())
        entries = _row("entries", *self._inputs.values(), self._comment)
        parts = [head, self._bar, self._message, self._why, item, buttons, entries]
        #: what a cell shows
        self.widget = w.VBox([w.HTML(STYLE), *parts, self._last, self._retrained, self._training])

    def _entry(self, name: str) -> Any:
        if self._check.options:
            tip = "type to filter the labels"
            return w.Combobox(
                description="Correct to", options=self._check.options, placeholder=tip, _dom_classes=("hitl-entry",)
            )
        return w.Text(description=name if self._is_form else "Correct to", _dom_classes=("hitl-entry",))

    def _draw(self) -> None:
        """Draw, or a moment later where that would be too soon; what passes at once is not worth a drawing."""
        with self._drawing:
            wait = PACE if self.view.state in _PASSING else self._drawn + PACE - time.monotonic()
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
        """Bring the widgets to what the controller says; the last one to draw has the newest view."""
        with self._drawing:
            self._drawn, self._later = time.monotonic(), False
            view = self.controller.view()
            self.widget._dom_classes = ("hitl", f"hitl-is-{view.state}")
            if view.state in _PASSING:  # the class says so, all the rest would change twice
                return
            if view.ticket != self._ticket or view.state is State.FINISHED:
                self._draw_inputs(view)
            self._draw_item(view)
            self._title.value, self._counts.value = view.title, _counts(view)
            self._bar.max, self._bar.value = max(view.total, 1), view.done
            _fill(self._message, view.summary, view.message)
            _fill(self._last, view.last)
            _fill(self._retrained, f"{view.retrain.state} {view.retrain.text}".strip())
            self._training.value = view.retrain.step
            _show(self._training, view.retrain.state == "running")
            more = {"unfold": view.shown.folded, "retrain": view.retrain.state != "running"}
            for action, button in self._buttons.items():
                button.disabled = not more.get(action, action in view.actions)
                _show(button, action in _ALWAYS or not button.disabled)
            self._buttons["reject"].description = "None fits" if view.blind else "Reject"
            for box in (*self._buttons.values(), *self._inputs.values(), self._comment):
                _answer_beside_cells(box.comm)

    def _draw_inputs(self, view: View) -> None:
        self._ticket, self._since, self._comment.value = view.ticket, self._now(), view.comment
        values = dict(view.entered or (view.predicted if self._is_form else ()))
        for name, box in self._inputs.items():
            box.value = values.get(name, "")

    def _draw_item(self, view: View) -> None:
        _fill(self._why, *view.why, " · ".join(view.facts))
        self._input._dom_classes = ("hitl-text", "hitl-fields" if view.shown.rows else "hitl-prose")
        _fill(self._input, view.shown.text, *_lines(view.shown.rows), view.shown.note)
        _fill(self._answer, view.prediction)
        seen = [(label, share) for label, share in view.bars if share >= VISIBLE]
        _fill(self._shares, view.confidence, *(f"{share:.2f}  {label}" for label, share in seen))
        self._shares.style.background = _bars([share for _, share in seen])
        self._image.value = view.shown.image or b""
        _show(self._image, bool(view.shown.image))


def _text(name: str, short: str = "") -> Any:
    """Return a box that shows outside text as text; unlike a Label it typesets nothing."""
    return w.Textarea(description=name, disabled=True, _dom_classes=("hitl-text", f"hitl-{short or name.lower()}"))


def _row(name: str, *children: Any) -> Any:
    return w.HBox(children, _dom_classes=(f"hitl-{name}",))


def _fill(box: Any, *lines: str) -> None:
    box.value = "\n".join(line for line in lines if line)
    _show(box, bool(box.value))


def _show(widget: Any, visible: bool) -> None:
    widget.layout.display = None if visible else "none"


def _bars(shares: list[float]) -> str:
    """Return a CSS background: below the first line, a bar behind each, as long as its share."""
    return ", ".join(
        f"linear-gradient({BAR}, {BAR}) 0 {line}lh / {min(max(share, 0), 1):.1%} 0.9lh no-repeat content-box"
        for line, share in enumerate(shares, 1)
    )


def _answer_beside_cells(comm: Any) -> None:
    """Let a click be handled in the thread that the front end asks for, also while a cell is busy.

    Where the last message to a widget came out of a cell, ipykernel would keep its clicks for after the next cell.
    """
    if comm is not None:
        vars(comm).pop("_reply_subshell_id", None)


def _value(typed: str) -> Any:
    """Return what was typed into a form: text, or JSON where it is a list or a dict."""
    with suppress(ValueError):  # the schema will say what is wrong with it
        return json.loads(typed) if typed.strip()[:1] in ("[", "{") else typed
    return typed


def _close(widget: Any) -> None:
    for child in getattr(widget, "children", ()):
        _close(child)
    widget.close()


def _lines(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = min(24, max((len(name) for name, value in rows if value), default=0))
    indent = "\n" + " " * (width + 2)  # so that no value looks like a field
    return [f"{name:<{width}}  {value.replace(chr(10), indent)}" if value else name for name, value in rows]


def _counts(view: View) -> str:
    parts = [f"{view.done:,} of {view.total:,}"]
    if view.rate and view.minutes_left is not None:
        parts += [f"{view.rate:.1f}/min", f"~{view.minutes_left:.0f} min left"]
    return " · ".join(parts + ([f"{view.unsaved} not saved"] if view.unsaved else []))


def _audits(queue: ReviewQueue) -> tuple[int, int]:
    found = queue.stats()
    return found.disagreed, found.audited


def _retrain(loop: Any, report: Callable[[str], None]) -> Any:
    loop.refresh()
    return loop.retrain(report)
