"""What is shown of an item, part by part, as records of clean text; nothing in here is ever markup."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

Node: TypeAlias = "tuple[tuple[str, str | Node], ...]"


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """A text of several lines."""

    #: the field that it stands in; empty if it is the whole item
    name: str = ""
    #: the text, folded
    text: str
    #: what is marked in it: first character and the one after the last, in order, never overlapping
    marks: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A field with a short value."""

    #: the field
    name: str
    #: its value, spelled out
    value: str = ""
    #: whether that is a number
    number: bool = False
    #: why it looks odd, in words; empty if it does not
    odd: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fields:
    """Fields with short values."""

    #: one a field
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A picture, encoded anew."""

    #: the field that it stands in; empty if it is the whole item
    name: str = ""
    #: a PNG
    png: bytes
    #: its size, and how its values became grey
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tree:
    """A field that holds fields or a list."""

    #: the field
    name: str
    #: pairs of a label and its value, or the pairs below it
    node: Node


@dataclass(frozen=True, kw_only=True, slots=True)
class Custom:
    """A widget that the user's ``render`` made."""

    #: the widget
    widget: Any


Part: TypeAlias = Text | Fields | Picture | Tree | Custom


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """An item as it is shown; every text is clean."""

    #: what it consists of: texts, pictures, fields, trees
    parts: tuple[Part, ...] = ()
    #: what is not shown and cannot be folded out
    left_out: str = ""
    #: why it cannot be shown; empty if it can
    problem: str = ""
    #: whether more can be shown
    folded: bool = False

    # -- for a view that shows one text and one picture

    @property
    def text(self) -> str:
        """The text, where the item is one text."""
        only = self.parts[0] if len(self.parts) == 1 else None
        return (
            only.text if isinstance(only, Text) else "a widget; only the live panel shows it" * isinstance(only, Custom)
        )

    @property
    def rows(self) -> tuple[tuple[str, str], ...]:
        """Every field, text and tree as name and value; none where the item is one text."""
        texts = [(part.name, part.text) for part in self.parts if isinstance(part, Text) and len(self.parts) > 1]
        rows = [(row.name, row.value) for part in self.parts if isinstance(part, Fields) for row in part.rows]
        trees = [(part.name, _lines(part.node)) for part in self.parts if isinstance(part, Tree)]
        return (*texts, *rows, *trees)

    @property
    def image(self) -> bytes | None:
        """The first picture, a PNG."""
        return next((part.png for part in self.parts if isinstance(part, Picture)), None)

    @property
    def note(self) -> str:
        """What to know about the first picture, and what is not shown."""
        pictures = [part for part in self.parts if isinstance(part, Picture)]
        others = ", ".join(part.name for part in pictures[1:])
        more = f"only the live panel shows {others}" if others else ""
        return "; ".join(filter(None, [*(part.note for part in pictures[:1]), more, self.left_out]))


def _lines(node: Node, indent: str = "") -> str:
    """Return a tree as lines, what is below a label indented."""
    deeper = f"{indent}  "
    return "\n".join(
        f"{indent}{label}: {value.replace(chr(10), chr(10) + deeper)}".removesuffix(": ")
        if isinstance(value, str)
        else f"{indent}{label}:\n{_lines(value, deeper)}"
        for label, value in node
    )


def as_message(shown: Shown) -> tuple[dict[str, Any], list[bytes]]:
    """Return what a view is sent of an item: what JSON holds, and the pictures beside it.

    Examples
    --------
    >>> message, pictures = as_message(Shown(parts=(Text(text="hm"), Picture(name="photo", png=b"..."))))
    >>> message["parts"][1], len(pictures)
    ({'kind': 'image', 'name': 'photo', 'note': '', 'buffer': 0}, 1)
    """
    pictures: list[bytes] = []
    parts = [_message(part, pictures) for part in shown.parts]
    return {"parts": parts, "note": shown.left_out, "problem": shown.problem, "folded": shown.folded}, pictures


def _message(part: Part, pictures: list[bytes]) -> dict[str, Any]:
    match part:
        case Text():
            return {"kind": "text", "name": part.name, "text": part.text, "marks": part.marks}
        case Fields():
            return {"kind": "fields", "rows": [(row.name, row.value, row.number, row.odd) for row in part.rows]}
        case Picture():
            pictures.append(part.png)
            return {"kind": "image", "name": part.name, "note": part.note, "buffer": len(pictures) - 1}
        case Tree():
            return {"kind": "tree", "name": part.name, "node": part.node}
        case Custom():
            return {"kind": "widget", "model": part.widget.model_id}
