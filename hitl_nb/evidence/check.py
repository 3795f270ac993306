"""Numbers that must lie somewhere."""

from __future__ import annotations

import math
from numbers import Real

import numpy as np

from hitl_nb.errors import BadInput


def within(name: str, value: float, low: float = 0.0, high: float = 1.0, *, inside: bool = False) -> float:
    """Return a number from `low` to `high`, refuse any other value by name; with `inside` the ends do not count."""
    number = isinstance(value, Real) and not isinstance(value, (bool, np.bool_))
    if not number or not low <= value <= high or (inside and value in (low, high)):  # NaN lies nowhere
        strictly = "strictly " if inside else ""
        raise BadInput(name=name, value=value, remedy=f"must be a number {strictly}between {low:g} and {high:g}")
    return float(value)


def count(name: str, value: int, most: float = math.inf) -> int:
    """Return a whole number from 0 to `most`, refuse any other value by name."""
    if within(name, value, 0, most) % 1 or value == math.inf:
        raise BadInput(name=name, value=value, remedy="must be a whole number")
    return int(value)
