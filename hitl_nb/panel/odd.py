"""What in an item is worth a second look: odd values, and words that matched."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import numpy as np

from hitl_nb.display import MAX_VALUE, clean, line

#: numbers remembered of a field, and fields remembered
MAX_SEEN, MAX_NAMES = 200, 200
#: so many numbers of a field are seen before one is called far away
ENOUGH = 20
#: words looked for, their length in characters, and marks in the texts of an item
MAX_WORDS, MAX_WORD, MAX_MARKS = 200, 200, 200
#: what `clean` and `fold` put into a text; no word is found in there
_OURS = r"⟨U\+[0-9A-F]{4,6}⟩|\n… [0-9,]+ more characters …\n"


class Usual:
    """The numbers of the items before, field by field; tells what is far away from them.

    Far away is what lies more than three interquartile ranges beyond the quartiles of the last ``MAX_SEEN`` numbers of
    that field.

    Examples
    --------
    >>> usual = Usual()
    >>> for amount in range(40):
    ...     usual.learn({"amount": amount})
    >>> usual.says("amount", 900), usual.says("amount", 41)
    ('far above the usual 10 to 30', '')
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, ...]] = {}

    def learn(self, fields: Mapping[Any, Any]) -> None:
        """Remember the numbers of an item."""
        for key, value in islice(fields.items(), MAX_NAMES):
            name = line(str(key), MAX_VALUE)
            if is_number(value) and not odd(name, value) and (name in self._seen or len(self._seen) < MAX_NAMES):
                self._seen[name] = (*self._seen.get(name, ()), float(value))[-MAX_SEEN:]  # whole: threads may read it

    def says(self, name: str, value: float) -> str:
        """Say that a number is far away from those before, and what is usual: the middle half of them."""
        seen = sorted(self._seen.get(name, ()))
        low, high = (seen[len(seen) // 4], seen[len(seen) * 3 // 4]) if len(seen) >= ENOUGH else (0.0, 0.0)
        if high <= low or low - 3 * (high - low) <= value <= high + 3 * (high - low):
            return ""
        return f"far {'above' if value > high else 'below'} the usual {low:.4g} to {high:.4g}"


def is_number(value: Any) -> bool:
    """Return whether a value is a number; True and False are none.

    >>> is_number(3), is_number(True), is_number("3")
    (True, False, False)
    """
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def odd(name: str, value: Any, usual: Usual | None = None) -> str:
    """Say why a value looks odd.

    >>> odd("x", None), odd("x", float("nan")), odd("x", 3)
    ('missing', 'not a number', '')
    """
    if not is_number(value):
        return "missing" if value is None else ""
    if value != value or abs(value) > sys.float_info.max:
        return "infinite" if value == value else "not a number"
    return "" if usual is None else usual.says(name, value)


def places(text: str, words: Iterable[str], texts: int = 1) -> tuple[tuple[int, int], ...]:
    """Return where words stand in a clean text: whole words, whatever their case.

    Parameters
    ----------
    text
        A text as `fold` returns it; what stands there for hidden or left out characters holds no word.
    words
        Taken as they are, never as a pattern.
    texts
        How many texts share ``MAX_MARKS``.

    Examples
    --------
    >>> places("Pay now, payee: pay.", ["pay", ".*"])
    ((0, 3), (16, 19))
    """
    wanted = {clean(str(word)[:MAX_WORD]).strip() for word in islice(words, MAX_WORDS)} - {""}
    if not wanted:
        return ()
    longest_first = "|".join(map(re.escape, sorted(wanted, key=lambda word: (-len(word), word))))
    matches = re.finditer(rf"((?<!\w)(?:{longest_first})(?!\w))|{_OURS}", text, re.IGNORECASE)
    return tuple(islice((one.span() for one in matches if one[1] and _is_whole(text, *one.span())), MAX_MARKS // texts))


def _is_whole(text: str, start: int, end: int) -> bool:
    r"""Return whether no accent or vowel sign, which ``\w`` does not count, ties the ends to what is around them."""
    around = text[max(start - 1, 0) : start] + text[end : end + 1]
    return not any(unicodedata.category(char).startswith("M") for char in around)
