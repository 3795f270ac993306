"""What a reviewer puts in the place of an answer: checked here, so that nothing invalid reaches the queue."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from hitl_nb.display import clean
from hitl_nb.errors import BadInput


@dataclass(frozen=True, kw_only=True, slots=True)
class Checker:
    """How corrections are entered and checked."""

    #: returns a correction as a dict, or raises BadInput; what is wrong by field stands in its ``fields``
    check: Callable[[Any], dict[str, Any]]
    #: labels to choose from, as they stand on the screen
    options: tuple[str, ...] = ()
    #: fields to fill in
    fields: tuple[str, ...] = ("label",)


def checker(labels: Sequence[Any] | None = None, schema: Any = None) -> Checker:
    """Return what checks corrections: a list of labels, a pydantic model, bounds ``(low, high)``, or free text.

    >>> checker(["refund", 7]).check("7"), checker(schema=(0, 5)).check("2.5"), checker().check("hm")
    ({'label': 7}, {'label': 2.5}, {'label': 'hm'})
    """
    if labels is not None and schema is None:
        known = _by_text(labels)
        return Checker(check=partial(_label, known), options=tuple(known))
    if labels is None and schema is None:
        return Checker(check=_text)
    if labels is None and hasattr(schema, "model_validate"):
        return Checker(check=partial(_model, schema), fields=tuple(schema.model_fields))
    if labels is None and isinstance(schema, tuple) and len(schema) == 2:
        return Checker(check=partial(_number, *map(float, schema)))
    remedy = "pass labels, or a pydantic model class, or (low, high) for a number; one of them"
    raise BadInput(name="schema", value=schema, remedy=remedy)


def _by_text(labels: Sequence[Any]) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for label in [labels] if isinstance(labels, str) else labels:
        text = clean(str(label)).strip()
        if text in known or not text:
            raise BadInput(name="labels", value=label, remedy="it is empty, or two labels read the same")
        known[text] = label.item() if hasattr(label, "item") else label
    if not known:
        raise BadInput(name="labels", value=labels, remedy="pass at least one label, or None for free text")
    return known


def _bare(value: Any) -> Any:
    return value["label"] if isinstance(value, Mapping) and set(value) == {"label"} else value


def _label(known: Mapping[str, Any], value: Any) -> dict[str, Any]:
    text = clean(str(_bare(value))).strip()
    if text not in known:
        more = f" and {len(known) - 20} more" if len(known) > 20 else ""
        raise BadInput(name="correction", value=value, remedy=f"labels are {', '.join(list(known)[:20])}{more}")
    return {"label": known[text]}


def _text(value: Any) -> dict[str, Any]:
    correction = dict(value) if isinstance(value, Mapping) else {"label": value}
    label = correction.get("label", 0)
    if not correction or label is None or (isinstance(label, str) and not label.strip()):
        raise BadInput(name="correction", value=value, remedy="say what is right instead")
    return correction


def _number(low: float, high: float, value: Any) -> dict[str, Any]:
    try:
        number = math.nan if isinstance(value, bool) else float(_bare(value))
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not (low <= number <= high and math.isfinite(number)):
        raise BadInput(name="correction", value=value, remedy=f"pass a number from {low:g} to {high:g}")
    return {"label": number}


def _model(model: Any, value: Any) -> dict[str, Any]:
    from pydantic import ValidationError

    try:
        valid = value if isinstance(value, model) else model.model_validate(value)
        dumped: dict[str, Any] = valid.model_dump(mode="json")
    except ValidationError as error:
        found = error.errors(include_url=False)
        fields = {clean(".".join(map(str, one["loc"])) or "all"): clean(one["msg"]) for one in found}
        remedy = "; ".join(f"{where}: {what}" for where, what in fields.items())
        raise BadInput(name="correction", value=value, remedy=remedy, fields=fields) from None
    return dumped
