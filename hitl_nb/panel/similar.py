"""Judged tasks that are like the one in front: near in their numbers and in their words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from hitl_nb.display import fold
from hitl_nb.panel.odd import is_number, odd
from hitl_nb.panel.parts import Shown
from hitl_nb.panel.show import show_prediction
from hitl_nb.panel.sitting import told
from hitl_nb.task import ReviewTask

#: judged tasks among which those are looked for, and how many of them are shown
AMONG, SHOWN = 200, 3
#: values of an input that are compared, and how much of each text, in characters
MAX_VALUES, MAX_WORDS = 2_000, 5_000
#: longest answer that is shown with one, in characters
MAX_SAID = 1_000
#: squared distance from which nothing is alike; two tasks drawn at random are about 1 apart
FAR = 0.9
#: most that one number counts, so that no single one decides
MOST = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Similar:
    """A judged task that is like another one."""

    #: its input, as it is shown
    shown: Shown
    #: what the model had said and what came of it, in words, without names
    said: str


def outcome(task: ReviewTask) -> str:
    """Return what was answered to a task, and what the model had said."""
    final = [review for review in task.reviews if review.adjudication] or task.reviews
    counted = Counter(told(review, task.ai_prediction) for review in final)
    judged = " · ".join(said if n == 1 else f"{n} × {said}" for said, n in counted.items())
    return fold(f"{judged} (the model: {show_prediction(task.ai_prediction) or 'nothing'})", MAX_SAID)


def nearest(item: Any, others: Sequence[Any], most: int = SHOWN) -> list[int]:
    """Return which inputs are most like one, nearest first; none that is as far away as any other.

    Numbers are standardised and texts weighted by how rare their words are (tf-idf); each kind counts as much as it has
    fields.

    Parameters
    ----------
    item, others
        Inputs as they are stored: dicts, lists, texts and numbers.
    most
        How many are returned.

    Examples
    --------
    >>> mails = [{"text": "your invoice is due"}, {"text": "see you at lunch"}, {"text": "invoice overdue"}]
    >>> nearest({"text": "the invoice, please"}, mails)
    [2, 0]
    >>> nearest({"amount": 12.0}, [{"amount": amount} for amount in (900, 11, 14, 500)], most=1)
    [1]
    """
    if not others:
        return []
    values = [dict(islice(_values(one), MAX_VALUES)) for one in (item, *others)]
    numbers = [{k: v for k, v in one.items() if not isinstance(v, str)} for one in values]
    texts = [" ".join(v for v in one.values() if isinstance(v, str)) for one in values]
    share = len(numbers[0]) / max(len(values[0]), 1)
    apart = np.zeros(len(others))
    if numbers[0]:
        apart += share * _numbers_apart(numbers)
    if share < 1:
        apart += (1 - share) * _texts_apart(texts)
    order = np.argsort(apart, kind="stable")[:most]
    return [int(i) for i in order if apart[i] < FAR]


def _values(value: Any, name: str = "") -> Iterator[tuple[str, str | float]]:
    """Yield the texts and numbers of an input by their place in it; other values are texts that name their field."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _values(part, f"{name}.{key}"[:MAX_WORDS])
    elif isinstance(value, (list, tuple)):
        for i, part in enumerate(value[:MAX_VALUES]):
            yield from _values(part, f"{name}[{i}]")
    elif is_number(value) and not odd("", value):
        yield name, float(value)
    else:
        yield name, value[:MAX_WORDS] if isinstance(value, str) else f"{name}={value}"[:MAX_WORDS]


def _numbers_apart(rows: list[dict[str, float]]) -> Any:
    """Return how far the first of some rows is from each other; a number that another one lacks is an ordinary one."""
    import pandas as pd

    found = pd.DataFrame(rows, columns=list(rows[0])).to_numpy(float)
    with np.errstate(all="ignore"):  # a number that never changes, and those near the largest float
        scaled = (found - np.nanmean(found, axis=0)) / np.nanstd(found, axis=0)
    near = np.clip(np.nan_to_num(scaled, posinf=0, neginf=0), -3, 3)
    return np.minimum(np.square(near[1:] - near[0]) / 2, MOST).mean(axis=1)


def _texts_apart(texts: list[str]) -> Any:
    """Return how far the first of some texts is from each other, 0 to 1."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        weights = TfidfVectorizer(sublinear_tf=True).fit_transform(texts)
    except ValueError:  # there is no word at all
        return np.ones(len(texts) - 1)
    return 1 - (weights[1:] @ weights[0].T).toarray()[:, 0]
