"""What a threshold rule promises."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

from hitl_nb.display import Shows, Table, spell, table
from hitl_nb.errors import BadInput
from hitl_nb.evidence.check import count, within


@dataclass(frozen=True, kw_only=True, slots=True)
class Certificate(Shows):
    """What a threshold rule promises: above `threshold`, risk is at most `target_risk`, and how sure that is.

    Examples
    --------
    >>> promise = Certificate(
    ...     threshold=0.9, target_risk=0.02, confidence_level=0.95, n=400, coverage=0.7, kind="certified", model="v7"
    ... )
    >>> Certificate.from_dict(promise.to_dict()) == promise
    True
    >>> print(promise)
    At 0.9 or more, 70 % go through without a person; at most 2 % of those are wrong (with 95 % confidence, 400 judged).
    """

    #: lowest confidence that is decided without a person, a share; None when no threshold qualifies
    threshold: float | None
    #: error rate among automatic decisions that is promised not to be exceeded, a share; None: nothing is promised
    target_risk: float | None
    #: how often such a promise holds, a share; None: nothing is promised
    confidence_level: float | None
    #: labelled cases behind it
    n: int
    #: share of cases decided without a person at that threshold
    coverage: float
    #: name of the threshold rule
    kind: str
    #: version of the model it is valid for, as answers name it (a text or a number); None: any
    model: str | float | None = None
    #: why there is no threshold, one sentence; None when there is one
    reason_if_none: str | None = None
    #: name of the certificate; by default the first 12 hex digits of the sha256 of its content, ``provided`` left out
    id: str = ""
    #: when it was taken back (UTC); None while valid
    revoked_at: datetime | None = None
    #: on what it rests beside the judged cases, such as rows that wait still; None: on nothing else
    provided: str | None = None

    def __post_init__(self) -> None:
        for name in ("threshold", "target_risk", "confidence_level", "coverage"):
            if getattr(self, name) is not None or name == "coverage":
                object.__setattr__(self, name, within(name, getattr(self, name)))  # numpy numbers become plain ones
        object.__setattr__(self, "n", count("n", self.n))
        if (self.threshold is None) != bool(self.reason_if_none):
            remedy = "must say why when threshold is None, and only then"
            raise BadInput(name="reason_if_none", value=self.reason_if_none, remedy=remedy)
        if self.model is not None and not isinstance(self.model, (str, int, float)):
            raise BadInput(name="model", value=self.model, remedy="name it by a text or a number, as answers do")
        if not self.id:
            object.__setattr__(self, "id", self._content_hash())

    def _content_hash(self) -> str:
        content = {k: v for k, v in self.to_dict().items() if k not in ("id", "revoked_at", "provided")}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    def revoked(self, now: datetime) -> Certificate:
        """Return it taken back at a time (UTC); one that is taken back already stays as it is."""
        return self if self.revoked_at else replace(self, revoked_at=now)

    def __str__(self) -> str:
        provided = f" Provided that {spell(self.provided)}." if self.provided else ""
        if self.threshold is None:
            return f"No threshold qualifies: {spell(self.reason_if_none)}.{provided}"
        through = f"At {_up(self.threshold)} or more, {_percent(self.coverage)} go through without a person"
        if self.target_risk is None or self.confidence_level is None:
            return f"{through}; nothing is promised of those."
        behind = f"with {_percent(self.confidence_level)} confidence, {self.n:,} judged"
        return f"{through}; at most {_percent(self.target_risk)} of those are wrong ({behind}).{provided}"

    def _table(self) -> Table:
        facts = [("certificate", self.id), ("threshold rule", self.kind), ("judged cases behind it", f"{self.n:,}"),
                 ("holds for model", "any" if self.model is None else spell(self.model))]  # fmt: skip
        state = "valid" if self.threshold is not None else "sends everything to a person"
        if self.revoked_at:
            state = f"taken back at {self.revoked_at:%Y-%m-%d %H:%M} UTC: everything goes to a person"
        return table(str(self), (), [*facts, ("state", state)], ["next: Policy(certificate) decides by it"])

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values; times as ISO 8601."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values | {"revoked_at": self.revoked_at.isoformat() if self.revoked_at else None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Certificate:
        """Return the certificate that `to_dict` wrote; missing or unknown fields are `BadInput`."""
        needed = {"threshold", "target_risk", "confidence_level", "n", "coverage", "kind"}
        if odd := (set(values) - {field.name for field in fields(cls)}) | (needed - set(values)):
            raise BadInput(name="certificate", value=sorted(odd), remedy="these fields are unknown or missing")
        at = values.get("revoked_at")
        return cls(**{**values, "revoked_at": datetime.fromisoformat(at) if isinstance(at, str) else at})


def _up(threshold: float) -> str:
    """Return it rounded up, so that a copy by hand lets nothing more through."""
    scale = 10**4 if threshold < 0.999 else 10**8
    return f"{math.ceil(round(threshold * scale, 4)) / scale:.8g}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
