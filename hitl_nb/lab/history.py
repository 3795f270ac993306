"""A history as checked columns: how sure the model was, whether it was wrong, and how likely that was to be seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hitl_nb.errors import BadInput, EvidenceError

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: groups of about one chance in which it is counted how many answers came
_GROUPS = 16
#: columns in which truth values may stand
_FLAGS = ("wrong", "hard")
#: an audit was drawn where the first lies below the second
_AUDIT = ("audit_uniform", "audit_probability")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class History:
    """Rows of decisions, n of them, each column of shape (n,); made by `read`."""

    #: confidence, 0 to 1; NaN where it is unknown
    confidence: Floats
    #: 1.0 wrong, 0.0 right, NaN while nobody has judged it
    wrong: Floats
    #: chance with which a row was judged by now: `logged`, times the share of the answers that came of those that were
    #: to come, among the rows of that chance; 0 where there is none
    probability: Floats
    #: chance with which a row was to be judged, as logged; 0 where it never could be
    logged: Floats
    #: whether a rule asked a person; the others went through, audited or not
    asked: Bools
    #: whether it was to be judged, by a rule or a drawn audit, and is not
    waiting: Bools
    #: whether a hard rule sent it to a person, whatever its confidence
    hard: Bools
    #: the frame that it was read from
    frame: pd.DataFrame

    def __len__(self) -> int:
        return len(self.confidence)

    def __getitem__(self, some: Bools | NDArray[np.intp]) -> History:
        """Return some of the rows, by a mask or by their positions in another order."""
        each = {name: getattr(self, name)[some] for name in self.__slots__ if name != "frame"}
        return replace(self, frame=self.frame.iloc[some], **each)

    @property
    def judged(self) -> Bools:
        """Rows that somebody judged."""
        return ~np.isnan(self.wrong)

    @property
    def open(self) -> Bools:
        """Rows about which a threshold decides: no hard rule, and a known confidence."""
        return ~self.hard & ~np.isnan(self.confidence)

    @property
    def pace(self) -> float:
        """Rows an hour by their ``at_time``; NaN where no times tell."""
        times = self.times("at_time")
        hours = 0.0 if times is None or np.isnan(times).all() else float(np.nanmax(times) - np.nanmin(times)) / 3600
        return len(self) / hours if hours > 0 else float("nan")

    def times(self, name: str) -> Floats | None:
        """Return a column of times in seconds, NaN where there is none; None without the column."""
        import pandas as pd

        if name not in self.frame:
            return None
        given = self.frame[name]
        try:
            if given.notna().any() and pd.api.types.is_numeric_dtype(given):
                raise TypeError("a number says no unit")
            found = pd.to_datetime(given, format="ISO8601", utc=True)
        except (ValueError, TypeError) as error:
            raise BadInput(name=name, value=given.iloc[0], remedy=f"holds what is no time ({error})") from None
        since = (found - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
        return np.asarray(since.to_numpy(np.float64, na_value=np.nan))

    def evidence(self, seed: int = 0) -> Evidence:
        """Return the judged rows as if all had been drawn with the one probability that the least likely of them had.

        A row is kept with its share of that (least / own), so what remains is a simple random sample of the open rows,
        on which exact tests hold; pooled as they are, reviewed and audited rows would break every promise.

        Raises
        ------
        EvidenceError
            Some open rows could never be judged: nothing can be said about them.
        """
        kept, least = self.sample(seed)
        return Evidence(confidence=self.confidence[kept], wrong=self.wrong[kept] == 1, probability=least)

    def sample(self, seed: int = 0) -> tuple[Bools, float]:
        """Return which rows serve as `evidence`, and the one probability with which each came into it."""
        if not self.open.any():
            raise EvidenceError(what="no row with a known confidence is left to thresholds; nothing can be said")
        least = self._least(self.open)
        drawn = np.random.default_rng(seed).random(len(self))  # the same for a row, however many follow
        return self.open & self.judged & (drawn * self.probability < least), least

    def _least(self, among: Bools) -> float:
        """Return the lowest chance among some rows; where it is 0, say why nothing is known of them."""
        least = float(self.probability[among].min())
        if least > 0:
            return least
        if n := int((self.logged[among] <= 0).sum()):
            todo = (
                "audit them (audit_rate above 0), or leave out rows with review_probability 0: nothing is said of such"
            )
            raise EvidenceError(what=f"{n:,} rows had no chance of being judged; {todo}")
        part = self[among & (self.probability <= 0)]
        seen = f"no judged row among {len(part):,} with review_probability {part.logged.min():.3g}"
        raise EvidenceError(what=f"{seen}: {part.waiting.sum():,} of them wait still; have them judged first")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evidence:
    """A simple random sample of judged rows, n of them, each column of shape (n,)."""

    #: confidence, 0 to 1
    confidence: Floats
    #: whether the model was wrong
    wrong: Bools
    #: chance with which each row came into the sample
    probability: float = 1.0

    def __len__(self) -> int:
        return len(self.confidence)


def read(history: pd.DataFrame | Mapping[str, Any] | History) -> History:
    """Check a history and return its columns.

    Parameters
    ----------
    history
        What ``queue.history()`` returns, or a frame (or a dict of columns) of your own with ``confidence`` and either
        ``wrong`` or both ``prediction`` and ``label``; NA in ``wrong`` or ``label`` is a row that nobody judged.
        ``review_probability`` is how likely a row was to be judged, 0 to 1; without it every row must be. Answers that
        wait still, to a rule or to an audit that ``audit_uniform`` below ``audit_probability`` says was drawn, lower
        the chance of the rows that had the same: what is said holds if those that wait are like those that were judged.

    Raises
    ------
    BadInput
        A value that cannot be, by its column and row.
    EvidenceError
        Rows are unlabelled and nothing says how likely they were to be judged.

    Examples
    --------
    >>> rows = read({"confidence": [0.9, 0.7, 0.95], "prediction": ["a", "b", "a"], "label": ["a", "a", "a"]})
    >>> rows.wrong.tolist(), rows.probability.tolist()
    ([0.0, 1.0, 0.0], [1.0, 1.0, 1.0])
    """
    import pandas as pd

    if isinstance(history, History):
        return history
    try:
        frame = pd.DataFrame(history)
    except (ValueError, TypeError) as error:
        remedy = f"pass a DataFrame, such as queue.history() ({error})"
        raise BadInput(name="history", value=type(history).__name__, remedy=remedy) from None
    if frame.columns.has_duplicates:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise BadInput(name="history", value=twice, remedy="is the name of two columns; leave one out")
    if "task_id" in frame and not _ascending(frame["task_id"]) and frame["task_id"].duplicated().any():
        twice = frame["task_id"][frame["task_id"].duplicated()].iloc[0]
        raise BadInput(name="task_id", value=twice, remedy="stands there twice; pass each decision once")
    confidence, wrong = _shares(frame, "confidence"), _wrong(frame)
    logged = _probability(frame, wrong)
    _in_order(frame)
    hard = np.nan_to_num(_flags(frame, "hard"), nan=1.0) == 1 if "hard" in frame else np.zeros(len(frame), dtype=bool)
    uniform, audited = (_shares(frame, name) if name in frame else confidence * np.nan for name in _AUDIT)
    found = History(
        confidence=confidence, wrong=wrong, probability=logged, logged=logged, hard=hard, frame=frame,
        asked=(logged >= 1) & ~(audited > 0), waiting=((logged >= 1) | (uniform < audited)) & np.isnan(wrong),
    )  # fmt: skip
    return replace(found, probability=logged * _came(found)) if found.judged.any() else found


def _came(rows: History) -> Floats:
    """Return for each row which share of the answers came among the rows of its chance; 1 where none was to come."""
    if not rows.waiting.any():
        return np.ones(len(rows))
    _, level = np.unique(rows.logged, return_inverse=True)
    level = level * _GROUPS // max(int(level.max()) + 1, _GROUPS)  # an active audit gives each row its own chance
    group = 4 * level + 2 * rows.open + rows.asked
    judged, waits = (np.bincount(group, weights=some) for some in (rows.judged, rows.waiting))
    return np.asarray(np.divide(judged, judged + waits, out=np.ones(len(judged)), where=waits > 0)[group])


def _in_order(frame: pd.DataFrame) -> None:
    """Refuse rows that were answered before they were asked."""
    for name in {"claimed_at", "reviewed_at"} & set(frame) if "at_time" in frame else ():
        try:
            odd = (frame[name] < frame["at_time"]).to_numpy(bool, na_value=False)
        except TypeError as error:
            remedy = f"cannot be compared with at_time; make both times ({error})"
            raise BadInput(name=name, value=str(frame[name].dtype), remedy=remedy) from None
        _refuse(name, frame[name], odd, "is before at_time: time went backwards; correct it or leave the column out")


def _column(frame: pd.DataFrame, name: str) -> Floats:
    """Return a column as floats, NaN where it has no value; what is no number is refused by its row."""
    import pandas as pd

    if name not in frame:
        raise _lacks(frame, name)
    given = frame[name]
    plain, truth = given, name in _FLAGS
    if given.dtype.kind not in ("biuf" if truth else "iuf"):  # of other types each value is looked at
        odd = given.map(lambda value: isinstance(value, (str, bytes)) or (not truth and isinstance(value, bool)))
        plain = given.mask(odd.astype(bool))
    odd_says = "must be True, False or missing" if truth else "is no number"
    found = pd.to_numeric(plain, errors="coerce").astype("Float64")
    _refuse(name, given, (given.notna() & found.isna()).to_numpy(bool), odd_says)
    return np.asarray(found.to_numpy(np.float64, na_value=np.nan), dtype=np.float64)


def _shares(frame: pd.DataFrame, name: str) -> Floats:
    found = _column(frame, name)
    _refuse(name, frame[name], (found < 0) | (found > 1), "must lie between 0 and 1, or be missing")
    return found


def _flags(frame: pd.DataFrame, name: str) -> Floats:
    found = _column(frame, name)
    _refuse(name, frame[name], ~np.isin(found, (0, 1)) & ~np.isnan(found), "must be True, False or missing")
    return found


def _ascending(ids: pd.Series[Any]) -> bool:
    """Return whether texts ascend, as a queue's ids do: then none stands there twice, and looking so is cheap."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    if not isinstance(ids.dtype, pd.StringDtype):
        return False
    found = pa.array(ids)
    found = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
    return bool(pc.all(pc.less(found[:-1], found[1:]), skip_nulls=False).as_py())


def _lacks(frame: pd.DataFrame, name: str) -> BadInput:
    remedy = f"has no column {name!r}; rename yours to confidence (0 to 1), and wrong, or prediction and label"
    return BadInput(name="history", value=sorted(map(str, frame.columns))[:20], remedy=remedy)


def _refuse(name: str, given: pd.Series[Any], odd: Bools, remedy: str) -> None:
    if odd.any():
        row = int(np.flatnonzero(odd)[0])
        raise BadInput(name=f"{name} in row {row}", value=given.astype(object).iloc[row], remedy=remedy)


def _wrong(frame: pd.DataFrame) -> Floats:
    if "wrong" in frame:
        return _flags(frame, "wrong")
    for name in ("prediction", "label"):
        if name not in frame:
            raise _lacks(frame, name)
    both = (frame["prediction"], frame["label"])
    said, label = (one.astype(object) if one.dtype == "category" else one for one in both)  # categories may differ
    known = (said.notna() & label.notna()).to_numpy(bool)
    kinds = [{_kind(value) for value in column[known]} for column in (said, label)]
    if known.any() and not kinds[0] & kinds[1]:
        words = " and ".join(" or ".join(sorted(kind)) for kind in kinds)
        raise BadInput(
            name="label", value=label[known].iloc[0], remedy=f"predictions and labels are {words}; make them one type"
        )
    return np.where(known, (said != label).to_numpy(bool, na_value=False), np.nan)


def _kind(value: Any) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "true or false"
    return "numbers" if isinstance(value, (int, float, np.number)) else type(value).__name__


def _probability(frame: pd.DataFrame, wrong: Floats) -> Floats:
    judged = ~np.isnan(wrong)
    if "review_probability" not in frame:
        if judged.all():
            return np.ones(len(frame))
        n = int((~judged).sum())
        what = (
            f"{n:,} rows have no label, and no review_probability says how likely each was to get one; add that column"
        )
        what += " (1 where all are judged, 0.1 where a random tenth is, 0 where none is)"
        raise EvidenceError(what=what)
    found = _shares(frame, "review_probability")
    given = frame["review_probability"]
    _refuse("review_probability", given, judged & ~(found > 0), "cannot be, since that row was judged")
    return np.nan_to_num(found)
