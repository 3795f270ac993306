"""A model's answers as rows of a history: cross-validated probabilities, and JSON Lines of a language model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from hitl_nb.errors import BadInput
from hitl_nb.evidence.check import within

if TYPE_CHECKING:
    import pandas as pd

#: longest line that is read, in bytes
MAX_LINE = 1_000_000
#: what `from_json_lines` takes from a line
FIELDS = ("confidence", "prediction", "label", "wrong", "review_probability", "group", "model")


def from_probabilities(
    probabilities: ArrayLike | pd.DataFrame, truth: ArrayLike | pd.Series[Any], classes: ArrayLike | None = None
) -> pd.DataFrame:
    """Return a history of what a classifier says: its likeliest class, how likely that is, and what is true.

    Parameters
    ----------
    probabilities
        Shape (n, k), such as ``cross_val_predict(model, X, y, method="predict_proba")``: each row adds up to 1.
    truth
        The true label of each row; missing where nobody knows it.
    classes
        The label of each column; default: the sorted labels of `truth`, as scikit-learn has them.

    Examples
    --------
    >>> from_probabilities([[0.9, 0.1], [0.4, 0.6]], ["ham", "ham"], ["ham", "spam"])
       confidence prediction label
    0         0.9        ham   ham
    1         0.6       spam   ham
    """
    import pandas as pd

    said, label = np.asarray(probabilities, dtype=np.float64), pd.Series(truth)
    names = np.asarray(np.unique(label.dropna()) if classes is None else classes)
    if said.shape != (len(label), len(names)) or not len(names):
        remedy = f"needs a row for each of {len(label):,} labels and a column for each of {len(names):,} classes"
        raise BadInput(name="shape of probabilities", value=said.shape, remedy=remedy)
    if (odd := ~((said >= 0).all(axis=1) & np.isclose(said.sum(axis=1), 1, atol=1e-3))).any():
        row = int(np.flatnonzero(odd)[0])
        remedy = 'must be shares that add up to 1; pass method="predict_proba"'
        raise BadInput(name=f"probabilities in row {row}", value=said[row].tolist(), remedy=remedy)
    best = said.argmax(axis=1)
    sure = np.minimum(said[np.arange(len(said)), best], 1.0)
    return pd.DataFrame({"confidence": sure, "prediction": names[best], "label": label}, index=label.index)


def from_json_lines(
    path: str | Path, names: Mapping[str, str] | None = None, keep: Sequence[str] = ()
) -> pd.DataFrame:  # fmt: skip
    """Return a history of answers that stand in a file, one JSON object a line; what is not asked for is not kept.

    Parameters
    ----------
    path
        File in UTF-8. A line is at most 1 MB long; empty lines are skipped.
    names
        How the file calls what the lab knows as ``confidence``, ``prediction``, ``label``, ``wrong``,
        ``review_probability``, ``group``, ``model``: ``{"prediction": "answer"}``.
    keep
        Further keys to keep, such as those that `slices` shall look at.

    Raises
    ------
    BadInput
        A line that is no JSON object or holds what cannot be, by its number.
    """
    import pandas as pd

    if odd := set(names or {}) - set(FIELDS):
        raise BadInput(name="names", value=sorted(odd), remedy=f"are none of {', '.join(FIELDS)}")
    keys = {name: name for name in FIELDS} | dict(names or {}) | {name: name for name in keep}
    columns: dict[str, list[Any]] = {name: [] for name in keys}
    with Path(path).open("rb") as file:
        number = 0
        while text := file.readline(MAX_LINE + 1):
            number += 1
            if row := _row(text, f"line {number:,} of {Path(path).name}"):
                for name, key in keys.items():
                    columns[name].append(_value(name, row.get(key), number))
    frame = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})
    return frame.dropna(axis="columns", how="all").infer_objects()


def _row(text: bytes, where: str) -> dict[str, Any] | None:
    if len(text) > MAX_LINE:
        raise BadInput(name=where, value=text[:40], remedy=f"is longer than {MAX_LINE:,} bytes; split it")
    try:
        row = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise BadInput(name=where, value=text[:80], remedy=f"is no JSON ({error})") from None
    if not isinstance(row, dict):
        raise BadInput(name=where, value=row, remedy='must be an object such as {"confidence": 0.9}')
    return row or None


def _value(name: str, value: Any, number: int) -> Any:
    """Return one value of a line, checked where the lab will count on it."""
    where = f"{name} in line {number:,}"
    if name in ("confidence", "review_probability") and value is not None:
        return within(where, value)
    if name == "wrong" and value not in (None, True, False):
        raise BadInput(name=where, value=value, remedy="must be true, false or null")
    if isinstance(value, (dict, list)):
        raise BadInput(name=where, value=value, remedy="must be a text, a number, true, false or null")
    return value
