"""Rules: each is one reason to ask a person. One implementation serves one input and a frame of a million."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from hitl_nb.errors import BadInput, RuleChanged, UnknownRule
from hitl_nb.payload import name
from hitl_nb.policy.batch import Array, Batch, objects


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
    """A true flag in the prediction asks for a person; so does one that is neither true nor false."""

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
        fired, unjudged = _truth(values)
        common: dict[str, Any] = {"rule": self.name, "strength": self.strength, "expertise": self.expertise}
        common |= {"field": f"prediction.{self.flag}", "values": values}
        unread = f"{self.flag} is neither true nor false: {{value}}"
        return [Finding(says=self.says, fired=fired, **common), Finding(says=unread, fired=unjudged, **common)]

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as a plain dict."""
        return _plain(self, "flag", "says", "strength", "expertise")


#: the flags of the contract, strongest first
FLAGS = (
    Flag(flag="irreversible", says="Irreversible action requires approval", strength=90),
    Flag(flag="regulated", says="Regulated decision requires approval", strength=80),
    Flag(flag="high_value_transaction", says="High-value transaction requires approval", strength=70),
    Flag(flag="is_anomalous", says="Anomalous input detected", strength=60),
)


def _truth(values: Array) -> tuple[Array, Array]:
    if values.dtype.kind == "b":
        return values, np.zeros(len(values), dtype=bool)
    fired = np.fromiter((_is(value, 1) for value in values), bool, len(values))
    clear = np.fromiter((value is None or _is(value, 0) for value in values), bool, len(values))
    return fired, ~fired & ~clear


def _is(value: object, number: int) -> bool:
    return isinstance(value, (bool, int, float, np.bool_, np.integer, np.floating)) and bool(value == number)


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldAbove:
    """A numeric field above a bound asks for a person; so does one that is missing or no number."""

    #: input field, or ``prediction.<name>``
    field: str
    #: largest value that needs nobody, in the field's unit
    bound: float
    #: who may judge what it sends
    expertise: str | None = None
    kind: ClassVar[str] = "field_above"

    def __post_init__(self) -> None:
        if not np.isfinite(self.bound):
            raise BadInput(name=f"bound of {self.field}", value=self.bound, remedy="pass a finite number")

    @property
    def name(self) -> str:
        """Name of the rule."""
        return f"{self.field} above {self.bound:g}"

    def check(self, batch: Batch) -> list[Finding]:
        """Return where the field is above the bound, and where it cannot be read."""
        found = batch.numbers(self.field)
        seen = batch.get(self.field)
        values = objects([None] * batch.n) if seen is None else seen
        where = self.field if self.field.startswith("prediction.") else f"input.{self.field.removeprefix('input.')}"
        common: dict[str, Any] = {"rule": self.name, "field": where, "bound": self.bound, "expertise": self.expertise}
        above = Finding(says=f"{self.field} {{value}} > {{bound}}", fired=found > self.bound, values=found, **common)
        unread = f"{self.field} is missing or no number: {{value}}"
        return [above, Finding(says=unread, fired=np.isnan(found), values=values, **common)]

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as a plain dict."""
        return _plain(self, "field", "bound", "expertise")


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
        fields = tuple(self.fields) or tuple(getattr(self.detector, "feature_names_in_", ()))
        if not fields or not callable(getattr(self.detector, "decision_function", None)):
            remedy = "pass a fitted detector with decision_function, and fields=(…) in the order of its columns"
            raise BadInput(name=f"detector of {self.name}", value=self.detector, remedy=remedy)
        object.__setattr__(self, "fields", tuple(map(str, fields)))

    def check(self, batch: Batch) -> list[Finding]:
        """Return the outliers, and what the detector cannot judge."""
        matrix = np.column_stack([batch.numbers(field) for field in self.fields])
        whole = np.isfinite(matrix).all(axis=1)
        scores = np.full(batch.n, np.nan)
        if whole.any():
            scores[whole] = self._scores(matrix[whole])
        common: dict[str, Any] = {"rule": self.name, "expertise": self.expertise}
        outlier = Finding(
            says="Outlier: score {value}, typical inputs are above {bound}",
            fired=scores < 0, values=scores, bound=0.0, field=f"score.{self.name}", **common,
        )  # fmt: skip
        return [outlier, Finding(says=f"{self.name} cannot judge this input", fired=np.isnan(scores), **common)]

    def _scores(self, matrix: Array) -> Array:
        if hasattr(self.detector, "feature_names_in_"):
            import pandas as pd

            matrix = pd.DataFrame(matrix, columns=list(self.fields))
        try:
            return np.asarray(self.detector.decision_function(matrix), dtype=np.float64)
        except Exception:  # a detector that fails has judged nothing: everything goes to a person
            return np.full(len(matrix), np.nan)

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as a plain dict; the detector is named with its content hash."""
        return _plain(self, "name", "fields", "expertise") | {"content": content_hash(self.detector)}


@dataclass(frozen=True, kw_only=True)
class Predicate:
    """Any vectorised function of the columns: true asks for a person.

    >>> rule = Predicate(name="night", function=lambda columns: columns["hour"] < 6, says="Night: {value}", field="hour")
    >>> [f.fired.tolist() for f in rule.check(Batch.from_rows([{"hour": 3}, {"hour": 9}], [{}, {}]))]
    [[True, False]]
    """

    #: name of the rule
    name: str
    #: takes the batch (a mapping from field to array), returns bool of shape (n,)
    function: Callable[[Batch], Any]
    #: the reason in words; default: the name
    says: str = ""
    #: field to show as the value
    field: str | None = None
    #: who may judge what it sends
    expertise: str | None = None
    kind: ClassVar[str] = "predicate"

    def __post_init__(self) -> None:
        name("rule", self.name)
        if not callable(self.function):
            raise BadInput(name=f"function of {self.name}", value=self.function, remedy="pass a function of the batch")

    def check(self, batch: Batch) -> list[Finding]:
        """Return where the function is true, and where it cannot be evaluated."""
        values = batch.get(self.field) if self.field else None
        fired, unjudged = self._evaluate(batch)
        where = self.field if values is not None else None
        if where and where != "confidence" and not where.startswith("prediction."):
            where = f"input.{where.removeprefix('input.')}"
        common: dict[str, Any] = {"rule": self.name, "expertise": self.expertise}
        true = Finding(says=self.says or self.name, fired=fired, values=values, field=where, **common)
        if not unjudged.any():
            return [true]
        return [true, Finding(says=f"{self.name} cannot judge this input", fired=unjudged, **common)]

    def _evaluate(self, batch: Batch) -> tuple[Array, Array]:
        try:
            result = np.asarray(self.function(batch))
        except Exception:  # a rule that fails has judged nothing: everything goes to a person
            return np.zeros(batch.n, dtype=bool), np.ones(batch.n, dtype=bool)
        if result.shape != (batch.n,):
            remedy = f"returned shape {result.shape}, return one boolean a row: shape ({batch.n},)"
            raise BadInput(name=f"predicate {self.name}", value=type(result).__name__, remedy=remedy)
        return _truth(result)

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as a plain dict; the function is named with its content hash."""
        return _plain(self, "name", "says", "field", "expertise") | {"content": content_hash(self.function)}


def _plain(rule: Any, *fields: str) -> dict[str, Any]:
    values = {name: getattr(rule, name) for name in fields}
    return {"kind": rule.kind} | {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def content_hash(thing: Any) -> str:
    """Return a short hash of what a detector or function does: source and closure, or fitted state."""
    import joblib

    if not inspect.isfunction(thing):
        return str(joblib.hash(thing))[:16]
    try:
        source = inspect.getsource(thing)
    except (OSError, TypeError):
        source = repr(thing.__code__.co_code) + repr(thing.__code__.co_names) + repr(thing.__code__.co_consts)
    cells = [cell.cell_contents for cell in thing.__closure__ or ()]
    state = joblib.hash([cells, thing.__defaults__, thing.__kwdefaults__])
    return sha256(f"{source}\n{state}".encode()).hexdigest()[:16]


def rule_from_dict(stored: Mapping[str, Any], using: Mapping[str, Any]) -> Rule:
    """Return the rule of a dict; detectors and predicates are looked up in ``using`` by name.

    Raises
    ------
    UnknownRule
        The kind is unknown, or the object is missing from ``using``.
    RuleChanged
        The object's content is not the one that was stored.
    """
    values = {
        key: tuple(v) if isinstance(v, list) else v for key, v in stored.items() if key not in ("kind", "content")
    }
    if stored["kind"] in ("flag", "field_above"):
        return Flag(**values) if stored["kind"] == "flag" else FieldAbove(**values)
    if stored["kind"] not in ("outlier", "predicate") or stored["name"] not in using:
        raise UnknownRule(rule=stored.get("name", stored["kind"]))
    thing = using[stored["name"]]
    given = content_hash(thing)
    if given != stored["content"]:
        raise RuleChanged(rule=stored["name"], stored=stored["content"], given=given)
    return Outlier(detector=thing, **values) if stored["kind"] == "outlier" else Predicate(function=thing, **values)


def check_rule(rule: Rule, batch: Batch) -> None:
    """Check that a rule keeps the contract: run it on ``batch`` whole and row by row.

    Raises
    ------
    BadInput
        What it found differs, has another shape, or the rule cannot be stored.
    """
    whole = rule.check(batch)
    for finding in whole:
        if finding.fired.shape != (batch.n,) or finding.fired.dtype != bool:
            raise BadInput(name=f"rule {rule.name}", value=finding.fired.shape, remedy=f"fired is bool ({batch.n},)")
    together = np.zeros(batch.n, dtype=bool)
    for finding in whole:
        together |= finding.fired
    single = [any(f.fired[0] for f in rule.check(row)) for row in batch.rows()]
    if together.tolist() != single:
        raise BadInput(name=f"rule {rule.name}", value=single, remedy="one row alone must be judged as in the batch")
    if not isinstance(rule.to_dict().get("kind"), str):
        raise BadInput(name=f"rule {rule.name}", value=rule.to_dict(), remedy="to_dict needs a kind")
