"""What an item looks like, as texts, pictures, fields and trees; nothing in here is ever markup."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from hitl_nb.display import MAX_TEXT, MAX_VALUE, fold, line, spell
from hitl_nb.panel.odd import Usual, is_number, odd, places
from hitl_nb.panel.parts import Custom, Fields, Node, Part, Row, Shown, Text, Tree
from hitl_nb.panel.picture import is_picture, pictures, pixels
from hitl_nb.task import FLAGS

#: fields, and pairs of one branch of a tree, shown at first; and how deep a tree goes
MAX_FIELDS, MAX_DEPTH = 60, 6
#: longest table and trees shown at first, in characters; and what a line of them counts beside its own
MAX_TABLE, _LINE = 8_000, 20
#: most that is sent of words at first, in bytes as JSON
MAX_SENT = 48_000
#: what one character, what stands around a line, and a text with its name take of that, at most, at most and at least
_CHARACTER, _AROUND, _LEAST = 14, 40, 2_200
#: how many times more is shown on request
UNFOLDED = 5
#: texts so long, in characters, and those of several lines stand for themselves
LONG = 80
#: how many of a kind stand for themselves
MOST = {"text": 8, "picture": 4, "tree": 20}


# -- the input ---------------------------------------------------------------------------------------------------------


def show(value: Any, times: int = 1, *, words: Collection[str] = (), usual: Usual | None = None) -> Shown:
    """Return what a value looks like: its texts, pictures, fields and trees.

    Parameters
    ----------
    value
        A text; a dict; a 2-D or 3-D array; the bytes of a PNG or JPEG file; a Pillow image; an ipywidgets widget.
    times
        How many times the usual length is shown.
    words
        Marked in texts: whole words, whatever their case.
    usual
        Tells what numbers are far away from those before; learns those that are shown.

    Examples
    --------
    >>> show({"amount": 12.5, "note": "hm"}).rows
    (('amount', '12.5'), ('note', 'hm'))
    >>> show({"text": "hm"}).text
    'hm'
    """
    if hasattr(value, "model_id") and hasattr(value, "comm"):
        return Shown(parts=(Custom(widget=value),))
    whole = isinstance(value, (Mapping, str)) or is_picture(value)
    named = value if isinstance(value, Mapping) else {"": value if whole else spell(value, MAX_TEXT * times)}
    square = pixels(named)
    found, left = _sorted(named if square is None else {"": square})
    images, problem = pictures(found["picture"])
    room = _Room(times)
    room.bytes -= _size(problem, *(image.name for image in images))
    texts, fields = _texts(found["text"], room, words), _fields(found["field"], room, usual)
    trees = _trees(found["tree"], room)
    if usual is not None and times == 1:  # what is folded out was learnt before
        usual.learn(found["field"])
    left_out = f"{left:,} more pictures are not shown" if left else ""
    parts: tuple[Part, ...] = (*texts, *images, *fields, *trees)
    return Shown(parts=parts, left_out=left_out, problem=problem, folded=room.folded)


def _sorted(named: Mapping[Any, Any]) -> tuple[dict[str, dict[Any, Any]], int]:
    """Return the values by how they are shown, and how many pictures are left out."""
    kinds: dict[str, dict[Any, Any]] = {"text": {}, "picture": {}, "field": {}, "tree": {}}
    left = 0
    for key, value in named.items():
        kind = "text" if isinstance(value, str) and len(named) == 1 else _kind(value)
        full = len(kinds[kind]) >= MOST.get(kind, len(named))
        left += full and kind == "picture"
        if not full or kind != "picture":
            kinds["field" if full else kind][key] = value
    return kinds, left


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "text" if len(value) >= LONG or "\n" in value else "field"
    if isinstance(value, (list, tuple)) and not any(isinstance(part, (Mapping, list, tuple)) for part in value[:20]):
        return "tree" if len(value) > 20 or len(spell(value)) > LONG else "field"
    if is_picture(value):
        return "picture"
    return "tree" if isinstance(value, (Mapping, list, tuple)) and value else "field"


class _Room:
    """How many words of an item may still be sent, and whether some were folded."""

    def __init__(self, times: int) -> None:
        self.times, self.bytes, self.table, self.folded = times, MAX_SENT * times, MAX_TABLE * times, False

    def lines(self, pairs: Iterable[tuple[Any, Any]], deep: int = 0) -> Iterator[tuple[str, str | None, Any]]:
        """Return names, spelled values and values until the room is used up; of what can be a branch, no spelling."""
        for key, value in islice(pairs, MAX_FIELDS * self.times):
            name, text = line(str(key), MAX_VALUE), None
            if not deep or _kind(value) != "tree":
                text = spell(value, MAX_VALUE * self.times)
                self.folded |= isinstance(value, str) and len(value) > MAX_VALUE * self.times
            size = _size(name, text)
            if self.table <= 0 or size > self.bytes:
                return
            self.bytes, self.table = self.bytes - size, self.table - _LINE - len(name) - len(text or "")
            yield name, text, value

    def fold(self, name: str, text: str, most: int, later: int) -> str:
        """Return a text folded, so that its name and so many later texts have room too."""
        space = self.bytes - later * _LEAST
        if _size(name, fold(text, most)) > space:  # where nearly every character is hidden
            most = max(_AROUND, (space - _size(name)) // _CHARACTER)
        said = fold(text, most)
        self.bytes, self.folded = self.bytes - _size(name, said), self.folded or len(text) > most
        return said

    def more(self, left: int) -> list[str]:
        """Say how much is left."""
        self.folded |= left > 0
        return [f"… {left:,} more"] if left else []


def _size(*words: str | None) -> int:
    return len(json.dumps(words, ensure_ascii=False).encode()) + _AROUND


def _texts(texts: Mapping[Any, str], room: _Room, words: Collection[str]) -> list[Text]:
    """Return texts that share ``MAX_TEXT``: the short ones whole, the others alike."""
    most, left = {}, MAX_TEXT * room.times
    for done, key in enumerate(sorted(texts, key=lambda key: len(texts[key]))):
        most[key] = min(len(texts[key]), left // (len(texts) - done))
        left -= most[key]
    shown: list[Text] = []
    for key, text in texts.items():
        name = line(str(key))
        said = room.fold(name, text, most[key], len(texts) - len(shown) - 1)
        shown.append(Text(name=name, text=said, marks=places(said, words, len(texts))))
    return shown


def _fields(fields: Mapping[Any, Any], room: _Room, usual: Usual | None) -> list[Fields]:
    rows = [
        Row(name=name, value=text or "", number=is_number(value), odd=odd(name, value, usual))
        for name, text, value in room.lines(fields.items())
    ]
    more = [Row(name=text) for text in room.more(len(fields) - len(rows))]
    return [Fields(rows=(*rows, *more))] if fields else []


def _node(branch: Any, room: _Room, deep: int = MAX_DEPTH) -> Node:
    pairs = room.lines(branch.items() if isinstance(branch, Mapping) else enumerate(branch), deep - 1)
    node = [(label, _node(value, room, deep - 1) if text is None else text) for label, text, value in pairs]
    return (*node, *((text, "") for text in room.more(len(branch) - len(node))))


def _trees(trees: Mapping[Any, Any], room: _Room) -> list[Tree]:
    shown = [Tree(name=name, node=_node(value, room)) for name, _, value in room.lines(trees.items(), MAX_DEPTH)]
    return shown + [Tree(name=text, node=()) for text in room.more(len(trees) - len(shown))]


def show_input(
    value: Any, render: Callable[[Any], Any] | None = None, times: int = 1, *, words: Collection[str] = (),
    usual: Usual | None = None,
) -> Shown:  # fmt: skip
    """Return what an input looks like; what goes wrong is named in ``problem``, and the fields are shown instead."""
    if value is None:
        return Shown(problem="the payload was erased on request; there is nothing left to show")
    try:
        return show(value if render is None else render(value), times, words=words, usual=usual)
    except Exception as error:  # a renderer is the user's; whatever it raises, the item stays decidable
        problem = f"render raised {type(error).__name__}: {spell(str(error))}"
        plain = show_input(value, None, times, words=words, usual=usual) if render else Shown()
        return replace(plain, problem=problem)


# -- the prediction ----------------------------------------------------------------------------------------------------


def bars(probabilities: Any, most: int = 10) -> tuple[tuple[str, float], ...]:
    """Return the largest probabilities by label; what is no number is left out.

    >>> bars({"ham": 0.3, "spam": 0.7, "odd": "x"})
    (('spam', 0.7), ('ham', 0.3))
    """
    if not isinstance(probabilities, Mapping):
        return ()
    found = [(line(str(k), 60), float(v)) for k, v in probabilities.items() if is_number(v) and not odd("", v)]
    return tuple(sorted(found, key=lambda one: -one[1])[:most])


def show_prediction(prediction: Any) -> str:
    """Return a prediction as text: its label, or its fields.

    >>> show_prediction({"label": "spam", "confidence": 0.7})
    'spam'
    """
    if not isinstance(prediction, Mapping):
        return "" if prediction is None else spell(prediction)
    lines = [spell(prediction["label"])] if "label" in prediction else []
    lines += [f"{spell(str(key))}: {spell(value)}" for key, value in islice(_rest(prediction).items(), MAX_FIELDS)]
    return fold("\n".join(lines))


def is_long(prediction: Mapping[str, Any]) -> bool:
    """Return whether a label is no word but a text, or a record, of which a line would show a part only."""
    label = prediction.get("label")
    return len(label) > MAX_VALUE if isinstance(label, str) else _kind(label) == "tree"


def show_answer(prediction: Any, times: int = 1) -> Shown:
    """Return what a prediction holds beside its label, confidence, probabilities, model and flags that are False.

    A label that is long stands there too.

    >>> show_answer({"label": "spam", "confidence": 0.7, "language": "en", "regulated": False}).parts[0].text
    'en'
    """
    if not isinstance(prediction, Mapping):
        return Shown()
    rest = ({"label": prediction["label"]} if is_long(prediction) else {}) | _rest(prediction)
    return show_input(rest, times=times) if rest else Shown()


def _rest(prediction: Mapping[Any, Any]) -> dict[Any, Any]:
    idle = (flag for flag in FLAGS if prediction.get(flag) is False)
    known = {"label", "confidence", "probabilities", "model", *idle}
    return {key: value for key, value in prediction.items() if key not in known}
