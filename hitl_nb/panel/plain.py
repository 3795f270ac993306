"""The panel as plain ipywidgets, built once and updated in place; outside text is only ever text."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import ipywidgets as w

from hitl_nb.panel.correction import Checker
from hitl_nb.panel.parts import Text
from hitl_nb.panel.pulse import answer_beside_cells
from hitl_nb.panel.sitting import JUDGE, State
from hitl_nb.panel.view import View

#: a click so soon after an item came is the second half of a double click, meant for the item before
DOUBLE_CLICK = timedelta(seconds=0.3)
#: buttons: action, words, tooltip
BUTTONS = (
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
    ("export", "Export", "Write every decision with its answer to a CSV file beside the notebook"),
)
#: how it looks; nothing from outside stands in it
STYLE = f"<style>{Path(__file__).with_name('panel.css').read_text(encoding='utf-8')}</style>"
#: colour of the bars behind probabilities; smaller ones than ``VISIBLE`` are left out
BAR, VISIBLE = "color-mix(in srgb, var(--jp-brand-color1, #1976d2) 25%, transparent)", 0.005
#: buttons that keep their place when they can do nothing
_ALWAYS = ("approve", "reject", "correct", "skip", "undo", "finish")


class Plain:
    """Buttons and boxes without single keys, for front ends that can show no more.

    Parameters
    ----------
    look
        Returns what is to be shown.
    check
        How corrections are entered.
    press
        Called with the action, the note and what is typed as a correction, after each click that is meant.
    retrains
        Whether there is a button that retrains.
    now
        Returns the time.
    """

    #: shortest time between two drawings, in seconds; of more messages the notebook server would drop some
    pace = 0.15

    def __init__(
        self, look: Callable[[], View], check: Checker, press: Callable[[str, str, Any], None], retrains: bool,
        now: Callable[[], datetime],
    ) -> None:  # fmt: skip
        self._look, self._check, self._press, self._now = look, check, press, now
        self._ticket, self._since = "", now()
        self._build(retrains)

    @property
    def note(self) -> str:
        """What stands in the note about the item that is to be judged."""
        return str(self._comment.value) if self._is_drawn else ""

    @property
    def typed(self) -> Any:
        """What stands in the correction of the item that is to be judged."""
        typed = {name: box.value for name, box in self._inputs.items()} if self._is_drawn else {}
        if self._kind == "form":
            return {name: _value(text) for name, text in typed.items() if text.strip()}
        if self._kind == "labels":
            return [*typed.get("label", ()), *filter(None, [typed.get("new", "").strip()])]
        return typed.get("label", "")

    @property
    def _is_drawn(self) -> bool:
        """Whether the widgets show the item that a decision would be about."""
        return self._ticket == self._look().ticket

    def _click(self, action: str) -> None:
        self._buttons[action].blur()  # or the next key would reach the notebook as a command
        if action not in JUDGE or (self._is_drawn and self._now() - self._since >= DOUBLE_CLICK):
            self._press(action, self.note, self.typed)

    def _build(self, retrains: bool) -> None:
        self._title, self._counts, self._bar = w.Label(), w.Label(), w.IntProgress(_dom_classes=("hitl-bar",))
        self._message, self._why, self._input = _text("Message"), _text("Why here", "why"), _text("Input")
        self._answer, self._shares, self._last = _text("Prediction"), _text("Confidence"), _text("Last")
        self._answers = _text("Answers that disagree", "answers")
        self._image, self._retrained = w.Image(format="png", _dom_classes=("hitl-image",)), _text("Retrain")
        self._training = w.IntProgress(max=4, _dom_classes=("hitl-bar",))
        spec = self._check.spec()
        self._kind, more = spec["kind"], ("new",) * (spec["kind"] == "labels" and spec["new_labels"])
        self._inputs = {name: self._entry(name) for name in (*self._check.fields, *more)}
        self._comment = w.Textarea(description="Note", rows=1, _dom_classes=("hitl-entry",))
        actions = [one for one in BUTTONS if one[0] != "retrain" or retrains]
        self._buttons = {
            action: w.Button(description=words, tooltip=tip, _dom_classes=(f"hitl-{action}",))
            for action, words, tip in actions
        }
        for action, button in self._buttons.items():
            button.on_click(lambda _, action=action: self._click(action))
        head = _row("head", self._title, self._counts)
        item = _row("item", w.VBox([self._input, self._image]), w.VBox([self._answer, self._shares, self._answers]))
        buttons = _row("buttons", *self._buttons.values())
        entries = _row("entries", *self._inputs.values(), self._comment)
        parts = [head, self._bar, self._message, self._why, item, buttons, entries]
        #: what a cell shows
        self.widget = w.VBox([w.HTML(STYLE), *parts, self._last, self._retrained, self._training])

    def _entry(self, name: str) -> Any:
        words = {"label": "Correct to", "new": "New label"}.get(name, name) if self._kind != "form" else name
        if self._kind == "labels" and name == "label":
            return w.SelectMultiple(description=words, rows=4, _dom_classes=("hitl-entry",))
        if self._kind == "label":
            return w.Combobox(description=words, placeholder="type to filter the labels", _dom_classes=("hitl-entry",))
        return w.Text(description=words, _dom_classes=("hitl-entry",))

    def draw(self, passing: bool = False) -> None:
        """Bring the widgets to what is to be shown; while something passes, only say so."""
        view = self._look()
        self.widget._dom_classes = ("hitl", f"hitl-is-{view.state}")
        if passing:  # the class says so, all the rest would change twice
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
        more = {"unfold": view.shown.folded or view.answer.folded, "retrain": view.retrain.state != "running"}
        for action, button in self._buttons.items():
            button.disabled = not more.get(action, action in view.actions)
            _show(button, action in _ALWAYS or not button.disabled)
        self._buttons["reject"].description = "None fits" if view.blind else "Reject"
        for box in (*self._buttons.values(), *self._inputs.values(), self._comment):
            answer_beside_cells(box.comm)

    def _draw_inputs(self, view: View) -> None:
        self._ticket, self._since, self._comment.value = view.ticket, self._now(), view.comment
        values = dict(view.entered or (view.predicted if self._kind in ("form", "labels") else ()))
        for name, box in self._inputs.items():
            value: Any = values.get(name, "")
            if hasattr(box, "options"):
                box.options = self._check.options  # new labels among them
            box.value = value if isinstance(box, w.Text) else [one for one in box.options if one in _chosen(value)]

    def _draw_item(self, view: View) -> None:
        _fill(self._why, *view.why, " · ".join(view.facts))
        self._input._dom_classes = ("hitl-text", "hitl-fields" if view.shown.rows else "hitl-prose")
        _fill(self._input, view.shown.text, *_lines(view.shown.rows), view.shown.note)
        _fill(self._answer, *_said(view))
        _fill(self._answers, *(f"{i}: {one}" for i, one in enumerate(view.answers, 1)))
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


def _value(typed: str) -> Any:
    """Return what was typed into a form: text, or JSON where it is a list or a dict."""
    with suppress(ValueError, RecursionError):  # the schema will say what is wrong with it
        return json.loads(typed) if typed.strip()[:1] in ("[", "{") else typed
    return typed


def _chosen(text: str) -> list[str]:
    """Return the labels in a text: one, or those of a list."""
    with suppress(ValueError, RecursionError):
        found = json.loads(text)
        return [str(one) for one in found] if isinstance(found, list) else [text]
    return [text]


def _said(view: View) -> list[str]:
    """Return what the model said: its label, and below it what else it said."""
    shown = view.answer
    alone = [(part.name, part.text) for part in shown.parts if isinstance(part, Text) and shown.text]
    rows = [f"{name}: {value}" if value else name for name, value in alone or shown.rows]
    return [view.label, *rows, shown.note] if shown.parts else [view.prediction]


def _lines(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = min(24, max((len(name) for name, value in rows if value), default=0))
    indent = "\n" + " " * (width + 2)  # so that no value looks like a field
    return [f"{name:<{width}}  {value.replace(chr(10), indent)}" if value else name for name, value in rows]


def _counts(view: View) -> str:
    parts = [f"{view.done:,} of {view.total:,}"]
    if view.rate and view.minutes_left is not None:
        parts += [f"{view.rate:.1f}/min", f"~{view.minutes_left:.0f} min left"]
    return " · ".join(parts + ([f"{view.unsaved} not saved"] if view.unsaved else []))
