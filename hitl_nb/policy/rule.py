"""Rules: each is one reason to ask a person. One implementation serves one input and a frame of a million."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from hitl_nb.errors import BadInput
from hitl_nb.payload import name
from hitl_nb.policy.batch import Array, Batch, is_bool, is_number, objects, place


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Where one rule fired in a batch, and what it saw there."""

    #: name of the rule
    rule: str
    #: sentence with ``{value}`` and ``{bound}`` in it
    says: str
    #: where it fired, bool of shape (n,)
    fired: Array
    #: what it saw, shape (n,); None where there is no value
    values: Array | None = None
    #: its bound
    bound: float | str | None = None
    #: where the value stands: ``confidence``, ``input.<name>``, ``prediction.<name>``, ``score.<rule>``
    field: str | None = None
    #: whether it wins over every threshold
    hard: bool = True
    #: order among reasons, larger first
    strength: int = 40
    #: who may judge what it sends; None: anyone
    expertise: str | None = None


@runtime_checkable
class Rule(Protocol):
    """What a policy asks of a rule."""

    @property
    def name(self) -> str:
        """Name, unique within a policy."""

    def check(self, batch: Batch) -> list[Finding]:
        """Return where it fires; what it cannot judge, it sends to a person."""

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as a plain dict with its ``kind``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Flag:
    """A true flag in the prediction asks for a person; so does one that is there and neither true nor false."""

    #: key of the prediction
    flag: str
    #: the reason in words
    says: str
    #: order among reasons, larger first
    strength: int = 40
    #: who may judge what it sends
    expertise: str | None = None
    kind: ClassVar[str] = "flag"

    @property
    def name(self) -> str:
        """Name of the rule: the flag."""
        return self.flag

    def check(self, batch: Batch) -> list[Finding]:
        """Return where the flag is set, and where it cannot be read."""
        values = batch.get(f"prediction.{self.flag}")
        if values is None:
            return []
        fired, unjudged = truth(values)
        unjudged &= batch.given(f"prediction.{self.flag}")
        common: dict[str, Any] = {"rule": self.name, "strength": self.strength, "expertise": self.expertise}
        common |= {"field": f"prediction.{self.flag}", "values": values}
        unread = f"{self.flag} is neither true nor false: {{value}}"
        return [Finding(says=self.says, fired=fired, **common), Finding(says=unread, fired=unjudged, **common)]

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as a plain dict."""
        return as_plain(self, "flag", "says", "strength", "expertise")


#: the flags of the contract, strongest first
FLAGS = (
    Flag(flag="irreversible", says="Irreversible action requires approval", strength=90),
    Flag(flag="regulated", says="Regulated decision requires approval", strength=80),
    Flag(flag="high_value_transaction", says="High-value transaction requires approval", strength=70),
    Flag(flag="is_anomalous", says="Anomalous input detected", strength=60),
)


def truth(values: Array) -> tuple[Array, Array]:
    """Return where values are true, and where they are neither true nor false; bool of shape (n,)."""
    if values.dtype.kind == "b":
        return values, np.zeros(len(values), dtype=bool)
    fired, clear = (np.fromiter((_is(value, number) for value in values), bool, len(values)) for number in (1, 0))
    return fired, ~fired & ~clear


def _is(value: object, number: int) -> bool:
    return (is_bool(value) or is_number(value)) and bool(value == number)


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldAbove:
    """A numeric field above a bound asks for a person; so does one that is missing or no finite number.

    ``field`` is of the input, or ``prediction.<name>``; ``bound``, in its unit, is the largest value that needs nobody;
    only who has the ``expertise`` may judge what it sends, None: anyone.

    >>> FieldAbove(field="amount", bound=1000).name
    'amount above 1000'
    """

    #: input field, or ``prediction.<name>``
    field: str
    #: largest value that needs nobody, in the field's unit
    bound: float
    #: who may judge what it sends
    expertise: str | None = None
    kind: ClassVar[str] = "field_above"

    def __post_init__(self) -> None:
        name("field", self.field)
        object.__setattr__(self, "bound", _finite(f"bound of {self.field}", self.bound))

    @property
    def name(self) -> str:
        """Name of the rule."""
        return f"{self.field} above {self.bound}"

    def check(self, batch: Batch) -> list[Finding]:
        """Return where the field is above the bound, and where it cannot be read."""
        found = batch.numbers(self.field)
        common: dict[str, Any] = {"rule": self.name, "bound": self.bound, "expertise": self.expertise}
        common |= seen(batch, self.field)
        close = abs(self.bound) >= 2**53  # float64 cannot tell such a bound from the integers beside it
        fired = found >= self.bound if close else found > self.bound
        above = Finding(says=f"{self.field} {{value}} > {{bound}}", fired=fired, **common)
        unread = f"{self.field} is missing or no finite number: {{value}}"
        return [above, Finding(says=unread, fired=np.isnan(found), **common)]

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as a plain dict."""
        return as_plain(self, "field", "bound", "expertise")


def _finite(what: str, value: Any) -> float:
    """Return a number; whole ones as integers, so that 1000 and 1000.0 are one bound."""
    if not is_number(value) or not abs(value) < 1e300:
        raise BadInput(name=what, value=value, remedy="pass a finite number")
    return int(value) if value == int(value) and abs(value) < 2**53 else float(value)


def seen(batch: Batch, field: str) -> dict[str, Any]:
    """Return the values of a field as they are stored, and where they stand."""
    values = batch.get(field, objects([None] * batch.n))
    return {"values": values, "field": field if field == "confidence" else ".".join(place(field))}


@dataclass(frozen=True, kw_only=True)
class Outlier:
    """A fitted scikit-learn outlier detector: inputs with a negative ``decision_function`` ask for a person."""

    #: fitted detector with ``decision_function``, such as IsolationForest
    detector: Any
    #: numeric input fields in the order of the detector's columns; default: the names it was fitted with
    fields: tuple[str, ...] = ()
    #: name of the rule
    name: str = "outlier"
    #: who may judge what it sends
    expertise: str | None = None
    kind: ClassVar[str] = "outlier"

    def __post_init__(self) -> None:
        name("rule", self.name)
        names = tuple(getattr(self.detector, "feature_names_in_", ()))
        fields = names if not self.fields or isinstance(self.fields, str) else tuple(self.fields)
        fits = len(fields) == getattr(self.detector, "n_features_in_", len(fields)) and not isinstance(self.fields, str)
        if not fields or not fits or not callable(getattr(self.detector, "decision_function", None)):
            remedy = "pass a fitted detector with decision_function, and fields=(…) in the order of its columns"
            raise BadInput(name=f"detector of {self.name}", value=self.detector, remedy=remedy)
        object.__setattr__(self, "fields", tuple(map(str, fields)))

    def check(self, batch: Batch) -> list[Finding]:
        """Return the outliers, and what the detector cannot judge."""
        matrix = np.column_stack([batch.numbers(field) for field in self.fields])
        whole = (np.abs(matrix) <= np.finfo(np.float32).max).all(axis=1)  # detectors look at float32; NaN is not whole
        scores = np.full(batch.n, np.nan)
        if whole.any():
            scores[whole] = self._scores(matrix[whole])
        common: dict[str, Any] = {"rule": self.name, "expertise": self.expertise}
        outlier = Finding(
            says="Outlier: score {value}, typical inputs are above {bound}",
            fired=scores < 0, values=scores, bound=0.0, field=f"score.{self.name}", **common,
        )  # fmt: skip
        unjudged = ~(scores < np.inf)  # NaN too
        return [outlier, Finding(says=f"{self.name} cannot judge this input", fired=unjudged, **common)]

    def _scores(self, matrix: Array) -> Array:
        import pandas as pd

        names = getattr(self.detector, "feature_names_in_", None)
        try:
            columns = matrix if names is None else pd.DataFrame(matrix, columns=names)
            scores = np.ma.asarray(self.detector.decision_function(columns), dtype=np.float64)
            return np.ma.filled(scores, np.nan).reshape(len(matrix))
        except Exception:  # a detector that fails has judged nothing: everything goes to a person
            return np.full(len(matrix), np.nan)

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as a plain dict; the detector is named with its content hash."""
        return as_plain(self, "name", "fields", "expertise") | {"content": content_hash(self.detector)}


def as_plain(rule: Any, *fields: str) -> dict[str, Any]:
    """Return the named fields of a rule that are not None, with its kind."""
    values = {name: getattr(rule, name) for name in fields}
    stated = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items() if v is not None}
    return {"kind": rule.kind} | stated


def check_finding(finding: Finding, n: int) -> None:
    """Refuse what is not one boolean, and one value, a row."""
    fired, shape = np.asarray(finding.fired), np.shape(() if finding.values is None else finding.values)
    plain = type(finding.fired) is np.ndarray and fired.dtype == bool
    if not plain or fired.shape != (n,) or (finding.values is not None and shape != (n,)):
        remedy = f"fired is a plain array of bool, shape ({n},); values are None or of that shape"
        value = (type(finding.fired).__name__, fired.dtype, fired.shape, shape)
        raise BadInput(name=f"rule {finding.rule}", value=value, remedy=remedy)


def content_hash(thing: Any) -> str:
    """Return a short hash of what a detector or function does.

    Of a function: its source, its closure, its defaults and the plain global values that it reads; functions that it
    calls are not looked into. Of anything else: its state.
    """
    if not inspect.isfunction(thing):
        return _state(thing)[:16]
    reads = inspect.getclosurevars(thing)
    cells = [content_hash(v) if inspect.isfunction(v) else v for v in reads.nonlocals.values() if v is not thing]
    plain = {k: v for k, v in reads.globals.items() if isinstance(v, (bool, int, float, str, tuple))}
    state = _state([cells, sorted(plain.items()), thing.__defaults__, thing.__kwdefaults__])
    return sha256(f"{_source(thing)}\n{state}".encode()).hexdigest()[:16]


def _state(thing: Any) -> str:
    import joblib

    try:
        return str(joblib.hash(thing))
    except Exception as error:
        remedy = f"it cannot be told from a changed one ({error}); pass a function or an object that can be pickled"
        raise BadInput(name="rules", value=thing, remedy=remedy) from error


def _source(function: Any) -> str:
    code = function.__code__
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):
        source = code.co_code.hex()
    if function.__name__ != "<lambda>" or source.count("lambda") == 1:
        return source
    return source + repr((code.co_names, [c for c in code.co_consts if not hasattr(c, "co_code")]))  # one of several
