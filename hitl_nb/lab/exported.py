"""A history from a file, as ``queue.export`` writes it."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hitl_nb.errors import BadInput
from hitl_nb.payload import parse
from hitl_nb.policy.batch import objects
from hitl_nb.task import FLAGS

if TYPE_CHECKING:
    import pandas as pd

#: columns whose values may be of any kind, and stand as canonical text in Parquet and CSV
_ANY = ("prediction", "label", *FLAGS)
_TIMES = {"at_time", "deadline", "claimed_at", "reviewed_at"}
#: an apostrophe that keeps spreadsheets from running a text
_GUARD = "\\A'(?=[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20])"


def read_export(path: str | Path) -> pd.DataFrame:
    """Return the history of a .parquet, .csv or .jsonl file, as ``queue.export(path, inputs=True)`` writes it.

    Parquet and JSON Lines keep the types of inputs; CSV does not: there ``007`` is a number.

    Raises
    ------
    BadInput
        No such file, another ending, or content that is none.
    """
    import pandas as pd

    source = Path(path)
    reader = _READERS.get(source.suffix)
    if reader is None or not source.is_file():
        remedy = f"pass a file that is there and ends in {', '.join(_READERS)}"
        raise BadInput(name="history", value=str(path), remedy=remedy)
    try:
        frame = reader(source)
        for name in _TIMES & set(frame):
            frame[name] = pd.to_datetime(frame[name], format="ISO8601", utc=True)
    except (ValueError, OSError) as error:
        raise BadInput(name="history", value=str(path), remedy=f"cannot be read ({error}); export it again") from None
    for name in set(FLAGS) & set(frame):
        frame[name] = _flag(frame, name)
    return frame


def _parquet(path: Path) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    def listed(kind: Any) -> Any:  # objects of a million lists would take seconds
        return pd.ArrowDtype(kind) if pa.types.is_list(kind) else None

    found = pq.read_table(path).to_pandas(types_mapper=listed)
    text = pd.StringDtype(na_value=pd.NA)  # inputs that are texts; canonical ones are of another type
    return _decoded(found, [name for name in found if name.startswith("input.") and found[name].dtype != text])


def _csv(path: Path) -> pd.DataFrame:
    import pandas as pd

    frame = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=dict.fromkeys(_ANY, "str"))
    for name in filter(lambda name: pd.api.types.is_string_dtype(frame[name]), frame):
        frame[name] = frame[name].str.replace(_GUARD, "", regex=True)
    return _decoded(frame, [])


def _json_lines(path: Path) -> pd.DataFrame:
    import pandas as pd

    with path.open(encoding="utf-8") as file:
        return pd.DataFrame([json.loads(text) for text in file])


def _decoded(frame: pd.DataFrame, more: list[str]) -> pd.DataFrame:
    """Read canonical texts back; a column that holds others stays as it is."""
    import pandas as pd

    for name in [*(set(_ANY) & set(frame)), *more]:
        if frame[name].dtype.kind == "O":  # texts of whatever type
            codes, texts = pd.factorize(frame[name])
            with suppress(BadInput):
                frame[name] = objects([*map(parse, texts), pd.NA])[codes]
    return frame


def _flag(frame: pd.DataFrame, name: str) -> pd.Series[Any]:
    """Return a flag, NA where it was not given, and None where it was given as null: there the log names it."""
    import pandas as pd

    gone, found = frame[name].isna(), frame[name]
    if found.dtype == object:
        found = found.where(~gone, pd.NA)
    if {"hard", "reasons"} <= set(frame):
        asked = np.flatnonzero(gone & frame["hard"].astype(bool))
        null = asked[[f"'{name}'" in str(why) for why in frame["reasons"].iloc[asked]]]
        found = found.astype(object) if len(null) else found
        found.iloc[null] = None
    return found


_READERS = {".parquet": _parquet, ".csv": _csv, ".jsonl": _json_lines}
