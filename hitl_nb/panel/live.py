"""The panel as an anywidget: keys, and a look ahead; what goes over the line between kernel and view.

The kernel is the only authority. A view sends ``ready`` and gets everything; each of its acts carries a number, and
each state that goes back says up to which number the kernel has heard and which of them it did not carry out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anywidget

from hitl_nb.errors import BadInput
from hitl_nb.panel.parts import Shown, as_message
from hitl_nb.panel.pulse import answer_beside_cells
from hitl_nb.panel.similar import Similar
from hitl_nb.panel.sitting import JUDGE, says
from hitl_nb.panel.view import Card, View

#: files of the view, in the order in which they become one module
FILES = ("dom", "keys", "line", "fields", "image", "form", "grid", "similar", "view", "main")
_HERE = Path(__file__).parent


def script(*names: str) -> str:
    """Return files of the folder ``js`` as one module."""
    return "\n".join((_HERE / "js" / f"{name}.js").read_text(encoding="utf-8") for name in names)


SCRIPT = script(*FILES)
STYLE = (_HERE / "live.css").read_text(encoding="utf-8")
#: keys of the actions, as they come; they count while the focus is inside the panel
KEYS = {
    "approve": "a", "reject": "r", "correct": "c", "skip": "s", "undo": "u", "note": "n", "object": "o", "retry": "t",
    "unfold": "m", "grid": "g", "similar": "l", "help": "?",
}  # fmt: skip
#: what a view can ask for beside judgements
CONTROLS = ("undo", "object", "retry", "finish", "unfold", "retrain", "gather", "batch", "export")
#: sessions of views that are remembered, and acts of each that were not carried out
SESSIONS, REFUSED = 16, 200
#: so often a page asks before it counts as deaf; on a busy page anywidget may give up before it has started
DEAF = 3
#: longest text that a view may send, in characters
MAX_SAID = 20_000


class _Widget(anywidget.AnyWidget):
    _esm, _css = SCRIPT, STYLE


@dataclass(kw_only=True, slots=True)
class _Session:
    """What the kernel has heard of one page."""

    #: highest number of an act that was heard
    answered: int = 0
    #: highest number that the page has sent
    heard: int = 0
    #: how often the page came without ever having heard the kernel
    unheard: int = 0
    #: numbers of acts that were not carried out
    refused: list[int] = field(default_factory=list)

    def skip_to(self, n: int, done: bool) -> None:
        """Count an act; those before it that never came were not carried out."""
        missing = range(max(self.answered + 1, n - REFUSED), n)  # a page may claim any number
        self.refused = [*self.refused, *missing, *([] if done else [n])][-REFUSED:]
        self.answered = n


class Live:
    """The view with keys; every message is plain JSON, pictures are buffers beside it, and no trait holds an item.

    Parameters
    ----------
    look
        Returns what is to be shown.
    act
        Carries out an act of the view, a dict with ``action``; returns whether it was done.
    fail
        Called with an error of a message that makes no sense.
    setup
        Returns what a view needs to know once, and again when it changes: reviewer, keys, how corrections are entered.
    similar
        Returns judged tasks that are like the one that a ticket names.
    """

    #: shortest time between two drawings that nobody at the panel asked for, in seconds
    pace = 0.05

    def __init__(
        self, look: Callable[[], View], act: Callable[[Mapping[str, Any]], bool],
        fail: Callable[[BaseException], None], setup: Callable[[], Mapping[str, Any]],
        similar: Callable[[str], Sequence[Similar]] = lambda ticket: (),
    ) -> None:  # fmt: skip
        self._look, self._act, self._fail, self._setup = look, act, fail, setup
        self._similar, self._compared, self._told = similar, "", setup()
        self._hearing, self._sending, self._comparing = threading.Lock(), threading.Lock(), threading.Lock()
        self._sessions, self._sent = dict[str, _Session](), dict[str, Card]()
        #: whether a page has shown it
        self.is_ready = threading.Event()
        #: called when one does, and when one does that never hears what is sent
        self.on_ready: Callable[[], None] = lambda: None
        self.on_deaf: Callable[[], None] = lambda: None
        #: whether an act of a page is being carried out; the answer to it says all that has changed
        self.is_answering = False
        self.widget = _Widget()
        self.widget.on_msg(lambda _, content, buffers: self._hear(content))

    def draw(self, passing: bool = False) -> None:
        """Send what has changed; while something passes, or an act is carried out, the page knows enough."""
        if not passing and not self.is_answering and self.is_ready.is_set():
            self._send()

    def _hear(self, content: Any) -> None:
        try:
            with self._hearing:  # one after the other, in their order
                session, kind = self._session(content), content.get("kind")
                if kind == "ready":
                    self._sent.clear()
                    session.heard = max(session.heard, int(content.get("sent") or 0))
                    session.unheard = 0 if content.get("heard") else session.unheard + 1
                    self.is_ready.set()
                    self.on_ready() if session.unheard < DEAF else self.on_deaf()
                elif kind == "act" and content["n"] > session.answered:
                    self._carry_out(session, content)
            if kind == "similar":
                self._compared = str(content.get("ticket"))
                threading.Thread(target=self._compare, args=(self._compared,), daemon=True).start()
            else:
                self._send(setup=kind == "ready")
        except Exception as error:  # in a callback nobody would see it
            self._fail(error)

    def _carry_out(self, session: _Session, content: Mapping[str, Any]) -> None:
        done, self.is_answering = False, True
        try:
            done = self._act(_checked(content))
        finally:
            self.is_answering = False
            session.skip_to(content["n"], done)

    def _compare(self, ticket: str) -> None:
        """Send judged tasks that are like one, if nobody asked about another since; no decision waits for that."""
        with self._comparing:
            if ticket != self._compared or self.widget.comm is None:
                return
            buffers, message = list[bytes](), {"kind": "similar", "ticket": ticket, "problem": ""}
            try:
                found = [{"said": one.said, "shown": _parts(one.shown, buffers)} for one in self._similar(ticket)]
            except Exception as error:  # the item stays decidable
                found, message["problem"] = [], says(error)
            self.widget.send({**message, "found": found}, buffers)

    def _session(self, content: Any) -> _Session:
        name = content.get("session") if isinstance(content, dict) else None
        n = content.get("n", 0) if isinstance(content, dict) else None
        if not isinstance(name, str) or len(name) > 64 or type(n) is not int:
            raise BadInput(name="message of the view", value=str(content)[:100], remedy="run the cell again")
        session = self._sessions.pop(name) if name in self._sessions else _Session()
        self._sessions[name] = session  # the last one heard stands last
        if len(self._sessions) > SESSIONS:
            self._sessions.pop(next(iter(self._sessions)))
        return session

    def _send(self, setup: bool = False) -> None:
        with self._sending:
            view = self._look()
            cards, buffers = {}, list[bytes]()
            current = {card.ticket: card for card in (view, *view.ahead) if card.ticket}
            for ticket, card in current.items():
                if not _same(self._sent.get(ticket), card):
                    cards[ticket] = _card(card, buffers)
            self._sent = current
            message = {"kind": "state", "cards": cards, "queue": list(current), **_state(view)}
            message["sessions"] = {
                name: {"answered": one.answered, "heard": one.heard, "refused": one.refused}
                for name, one in self._sessions.items()
            }
            before, self._told = self._told, self._setup()
            self.widget.send(message | ({"setup": self._told} if setup or self._told != before else {}), buffers)
            answer_beside_cells(self.widget.comm)


def _same(one: Card | None, other: Card) -> bool:
    """Whether a page knows a card already; only its input ever changes, and is made anew then."""
    return one is not None and one.ticket == other.ticket and one.shown is other.shown


def _card(card: Card, buffers: list[bytes]) -> dict[str, Any]:
    shown, answer = (_parts(one, buffers) for one in (card.shown, card.answer))
    return {
        "shown": shown, "answer": answer, "prediction": card.prediction, "label": card.label, "bars": card.bars,
        "why": card.why, "confidence": card.confidence, "facts": card.facts, "blind": card.blind, "easy": card.easy,
        "answers": card.answers, "predicted": card.predicted, "withheld": card.withheld,
    }  # fmt: skip


def _parts(shown: Shown, buffers: list[bytes]) -> dict[str, Any]:
    message, pictures = as_message(shown)
    for part in message["parts"]:
        if part["kind"] == "image":
            part["buffer"] += len(buffers)
    buffers += pictures
    return message


def _state(view: View) -> dict[str, Any]:
    return {
        "state": view.state, "title": view.title, "message": view.message, "summary": view.summary,
        "actions": view.actions, "comment": view.comment, "entered": view.entered, "fields": view.fields,
        "last": view.last, "done": view.done, "total": view.total, "rate": view.rate, "minutes": view.minutes_left,
        "unsaved": view.unsaved,
        "retrain": {"state": view.retrain.state, "text": view.retrain.text, "step": view.retrain.step},
    }  # fmt: skip


def _checked(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an act of a view with every value of the type that it must have."""
    action = content.get("action")
    if action not in (*JUDGE, *CONTROLS):
        raise BadInput(name="action", value=action, remedy=f"actions are {', '.join((*JUDGE, *CONTROLS))}")
    texts = {key: str(content.get(key) or "")[:MAX_SAID] for key in ("ticket", "comment", "id")}
    tickets = content.get("tickets")
    return {
        "action": action, **texts, "correction": content.get("correction"),
        "tickets": [str(one)[:200] for one in tickets[:100]] if isinstance(tickets, list) else [],
    }  # fmt: skip
