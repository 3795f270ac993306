"""How things look at the end of a cell and in a terminal: clean text, and tables of it. Nothing in here is markup."""

from __future__ import annotations

import html
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from reprlib import Repr
from typing import Any

import numpy as np

#: longest text shown at first, in characters; the rest is folded
MAX_TEXT = 4_000
#: longest value of one field, in characters
MAX_VALUE = 300
#: longest text in a cell of a table, in characters
MAX_CELL = 100
#: characters that cannot be seen although their category says letter or mark
_UNSEEN = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0d\uffa0\U000e0000-\U000e0fff"
_SUSPECT = re.compile(rf"[^\n\t\x20-\x7e\u00a1-\u00ac\u00ae-\u02ff]|[{_UNSEEN}]")
_IS_UNSEEN = re.compile(f"[{_UNSEEN}]")
#: what Markdown gives a meaning to
_MARKS = re.compile(r"[!\"#$&*:;<=>?@\[\\\]^_`{|}~]|\.(?=[^\W\d])")
_NUMBER = re.compile(r"[-+]?[\d,]*\.?\d+(e[-+]?\d+)?%?|NaN|")


def clean(text: str) -> str:
    r"""Return a text in which every character can be seen.

    Lone surrogates, controls, bidirectional and zero-width characters become code points; line ends and tabs stay.

    >>> clean("approve \u202egnp.exe\x00")
    'approve ⟨U+202E⟩gnp.exe⟨U+0000⟩'
    """
    return _SUSPECT.sub(lambda found: _visible(found.group()), text.replace("\r\n", "\n"))


def _visible(char: str) -> str:
    hidden = unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") or _IS_UNSEEN.match(char)
    return f"⟨U+{ord(char):04X}⟩" if hidden else char


def fold(text: str, most: int = MAX_TEXT) -> str:
    r"""Return a clean text of about ``most`` characters; the middle of a longer one is left out and counted.

    >>> fold("a" * 100 + "b" * 100, most=20)
    'aaaaaaaaaaaaaaa\n… 180 more characters …\nbbbbb'
    """
    if len(text) <= most:
        return clean(text)
    end = most // 4
    left = len(text) - most
    return f"{clean(text[: most - end])}\n… {left:,} more characters …\n{clean(text[-end:])}"


class _Short(Repr):
    """A bounded repr, whatever the size of the value."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist, self.maxtuple, self.maxset = 4, 20, 20, 20, 20
        self.maxstring = self.maxother = self.maxlong = MAX_VALUE

    def repr_float(self, value: float, level: int) -> str:
        return "NaN" if math.isnan(value) else repr(value)

    def repr_ndarray(self, value: np.ndarray[Any, Any], level: int) -> str:
        head = ", ".join(self.repr(x) for x in value.ravel()[:8].tolist())
        return f"[{head}{', …' if value.size > 8 else ''}] ({'×'.join(map(str, value.shape))} {value.dtype})"


_short = _Short()


def spell(value: Any, most: int = MAX_VALUE) -> str:
    """Return a value as a bounded, clean text.

    >>> spell({"x": [float("nan"), None]}), spell("a b")
    ("{'x': [NaN, None]}", 'a b')
    """
    if isinstance(value, str):
        return fold(str.__str__(value), most)
    if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0:
        value = value.item()
    if isinstance(value, (bytes, bytearray)):
        return f"{len(value):,} bytes: {bytes(value[:16]).hex(' ')}{' …' if len(value) > 16 else ''}"
    return fold(value.isoformat() if isinstance(value, date) else _short.repr(value), most)


def line(value: Any, most: int = MAX_CELL) -> str:
    r"""Return a value as one short, clean line.

    >>> line("two\nlines"), line("a" * 9, most=5), line(None)
    ('two⟨U+000A⟩lines', 'aaaa…', '')
    """
    text = "" if value is None else str.__str__(value) if isinstance(value, str) else spell(value)
    text = clean(text if len(text) <= most else f"{text[: most - 1]}…")
    return text.replace("\n", "⟨U+000A⟩").replace("\t", "⟨U+0009⟩")


# -- tables ------------------------------------------------------------------------------------------------------------

#: styles; the variables are JupyterLab's, what follows them holds elsewhere
_ALL = "color:var(--jp-ui-font-color1,inherit);white-space:pre-wrap;overflow-wrap:anywhere"
_TITLE, _FACT, _NOTE = "font-weight:600", "margin:0", "color:var(--jp-ui-font-color2,inherit)"
_GRID = "border-collapse:collapse;table-layout:auto;margin:4px 0"
_CELL = "padding:2px 16px 2px 0;vertical-align:top;white-space:pre-wrap"
_HEAD = f"{_CELL};font-weight:600;border-bottom:1px solid var(--jp-border-color2,currentcolor)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Lines of clean text, alike in a notebook (``_repr_html_``) and in a terminal (``repr``); `table` makes one."""

    #: what it is about
    title: str
    #: said under the title, a line each
    facts: tuple[str, ...]
    #: names of the columns; empty: the rows need none
    columns: tuple[str, ...]
    #: a text for each column
    rows: tuple[tuple[str, ...], ...]
    #: said at the end, such as what to do next; a line each
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        lines = [row for row in (self.columns, *self.rows) if row]
        widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
        rows = ["  ".join(map(_padded, row, widths, self._right)).rstrip() for row in lines]
        return "\n".join([self.title, *self.facts, *rows, *self.notes])

    @property
    def _right(self) -> list[bool]:
        found = [all(map(_NUMBER.fullmatch, column)) for column in zip(*self.rows, strict=True)]
        return found or [False] * len(self.columns)

    def _repr_html_(self) -> str:
        names = f"<thead>{self._tr(self.columns, 'th', _HEAD)}</thead>" if self.columns else ""
        body = "".join(self._tr(row, "td", _CELL) for row in self.rows)
        grid = f'<table style="{_GRID}">{names}<tbody>{body}</tbody></table>' if body else ""
        above = [_element("div", _TITLE, self.title), *(_element("div", _FACT, fact) for fact in self.facts)]
        below = [_element("div", _NOTE, note) for note in self.notes]
        return f'<div class="mathjax_ignore" style="{_ALL}">{"".join([*above, grid, *below])}</div>'

    def _tr(self, row: tuple[str, ...], tag: str, style: str) -> str:
        sides = ["right" if right else "left" for right in self._right]
        cells = zip(row, sides, strict=True)
        return "".join(["<tr>", *(_element(tag, f"{style};text-align:{side}", text) for text, side in cells), "</tr>"])


def table(
    title: str, columns: Sequence[str] = (), rows: Iterable[Sequence[Any]] = (), notes: Iterable[str] = (),
    facts: Iterable[str] = (),
) -> Table:  # fmt: skip
    """Return a table of whatever is given; every value becomes one clean line.

    >>> print(table("2 mails", ["who", "p"], [("ann", 0.5), ("<b>", 0.25)], ["that is all"]))
    2 mails
    who     p
    ann   0.5
    <b>  0.25
    that is all
    """
    cells = tuple(tuple(map(line, row)) for row in rows)
    title, *said = (line(text, MAX_VALUE) for text in (title, *facts))
    return Table(
        title=title, facts=tuple(said), columns=tuple(map(line, columns)), rows=cells,
        notes=tuple(line(note, MAX_VALUE) for note in notes),
    )  # fmt: skip


def markdown(shown: Table, more: Iterable[str] = ()) -> str:
    r"""Return a table as Markdown in which every text is literal.

    >>> print(markdown(table("<b> of 2", ["who"], [("a|b",)])))
    \<b\> of 2
    <BLANKLINE>
    | who |
    | --- |
    | a\|b |
    <BLANKLINE>
    """
    lines = [shown.columns, ("---",) * len(shown.columns), *(map(_literal, row) for row in shown.rows)]
    grid = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return (
        "\n\n".join([*map(_literal, (shown.title, *shown.facts)), grid, *map(_literal, (*shown.notes, *more))]) + "\n"
    )


def _literal(text: str) -> str:
    return _MARKS.sub(r"\\\g<0>", line(text, MAX_VALUE))


class Shows:
    """Shows itself as a table at the end of a cell and when it is printed; subclasses say which."""

    __slots__ = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._repr_pretty_ = Shows._repr_pretty_  # type: ignore[method-assign]  # IPython looks beside a __repr__ only

    def _table(self) -> Table:
        raise NotImplementedError

    def _shown(self) -> Table:
        try:
            return self._table()
        except Exception as error:  # a cell that ends with it must not fail
            return table(f"{type(self).__name__}: cannot be shown now ({type(error).__name__}: {error})")

    def __repr__(self) -> str:
        return repr(self._shown())

    def __str__(self) -> str:
        return repr(self._shown())

    def _repr_html_(self) -> str:
        return self._shown()._repr_html_()

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self._shown()))


def _element(tag: str, style: str, text: str) -> str:
    return f'<{tag} style="{style}">{html.escape(text)}</{tag}>'


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else not unicodedata.combining(c) for c in text)


def _padded(text: str, width: int, right: bool) -> str:
    space = " " * (width - _width(text))
    return space + text if right else text + space
