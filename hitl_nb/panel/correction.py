"""What a reviewer puts in the place of an answer: checked here, so that nothing invalid reaches the queue."""

from __future__ import annotations

import json
import math
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hitl_nb.display import clean, line, spell
from hitl_nb.errors import BadInput, TooLarge
from hitl_nb.payload import MAX_NAME, canonical

#: largest correction, as canonical text, in characters
MAX_SIZE = 1_000_000
#: labels that a view gets to choose from, and their longest text in characters; all others are typed
MAX_OPTIONS, MAX_OPTION = 2_000, 1_000
#: errors of one form that are told
MAX_ERRORS = 100
_NOT_FINITE = '{"$float":'  # in the canonical form


class Checker:
    """How corrections are entered and checked; ``checker`` makes one, of free text by default."""

    __slots__ = ()

    @property
    def options(self) -> tuple[str, ...]:
        """Labels to choose from, as they stand on the screen."""
        return ()

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields to fill in."""
        return tuple(field["name"] for field in self.spec().get("fields", ())) or ("label",)

    def check(self, value: Any) -> dict[str, Any]:
        """Return a correction as a dict.

        Parameters
        ----------
        value
            Whatever a view, or a program, says is right: text, a number, a list, a dict of those.

        Raises
        ------
        BadInput
            It is not valid, too large, nested too deeply, NaN or infinite; what is wrong by field stands in ``fields``.

        Examples
        --------
        >>> checker(["refund", 7]).check("7")
        {'label': 7}
        """
        if not hasattr(value, "model_dump"):  # an instance of a pydantic model was checked when it was made
            _bounded(value)
        found = self._read(value)
        _bounded(found)
        return found

    def spec(self) -> dict[str, Any]:
        """Return what a view needs to know, as JSON: ``kind`` is text, label, labels, number or form.

        Texts are clean and bounded. ``more`` counts the labels that are not among ``options`` and must be typed;
        ``range`` says the bounds in words.

        >>> checker(schema=range(1, 6)).spec()
        {'kind': 'number', 'low': 1, 'high': 5, 'step': 1, 'range': 'a whole number from 1 to 5'}
        """
        return {"kind": "text"}

    def _read(self, value: Any) -> dict[str, Any]:
        correction = dict(value) if isinstance(value, Mapping) else {"label": value}
        label = correction.get("label", 0)
        if not correction or label is None or (isinstance(label, str) and not label.strip()):
            raise _refused(value, "say what is right instead")
        return correction


def checker(
    labels: Sequence[Any] | None = None, schema: Any = None, *, multiple: bool = False, new_labels: bool = False
) -> Checker:
    """Return what checks corrections: a list of labels, a pydantic model, bounds of a number, or free text.

    Parameters
    ----------
    labels
        What can be chosen.
    schema
        In place of labels: a pydantic model; ``(low, high)`` for a number, bounds included, whole or not, since
        ``(0, 1)`` is how one writes a share; ``range(low, high + 1)`` for a whole number.
    multiple
        Any number of the labels but none is right: a correction is a list, stored in the order of ``labels``.
    new_labels
        A text that is not among the labels becomes one of them: up to 200 characters, none of them hidden. One that
        differs from a label in case or spaces only is refused by the name of that label, since it is rarely meant.

    Raises
    ------
    BadInput
        Labels or bounds that cannot be, or more than one way to correct.

    Examples
    --------
    >>> checker(["refund", 7]).check("7"), checker(schema=(0, 5)).check("2.5"), checker().check("hm")
    ({'label': 7}, {'label': 2.5}, {'label': 'hm'})
    >>> several = checker(["red", "green"], multiple=True, new_labels=True)
    >>> several.check(["blue", "green", "red"]), several.options
    ({'label': ['red', 'green', 'blue']}, ('red', 'green', 'blue'))
    """
    if labels is not None and schema is None:
        known = _by_text(labels, new_labels)
        alike = {_alike(text): text for text in reversed(known)}
        return _Labels(known=known, alike=alike, multiple=multiple, new=new_labels)
    if labels is None and not (multiple or new_labels):
        found = Checker() if schema is None else _number(schema) or _form(schema)
        if found is not None:
            return found
    remedy = "pass labels (multiple, new_labels go with them), or a pydantic model class, or (low, high) for a number"
    raise BadInput(name="schema", value=schema, remedy=remedy)


def _bounded(value: Any) -> None:
    text = canonical(value, "correction")
    if len(text) > MAX_SIZE:
        raise TooLarge(name="correction", value=f"{len(text):,} characters", remedy=f"the limit is {MAX_SIZE:,}")
    if _NOT_FINITE in text:
        wrong = "NaN and infinity are no answers"
        fields = dict(value) if isinstance(value, Mapping) else {"label": value}
        raise _refused(value, wrong, {line(k): wrong for k, v in fields.items() if _NOT_FINITE in canonical(v)})


def _refused(value: Any, remedy: str, fields: Mapping[str, str] | None = None) -> BadInput:
    fields = {"label": remedy} if fields is None else fields
    return BadInput(name="correction", value=value, remedy=remedy, fields=fields)


def _bare(value: Any) -> Any:
    return value["label"] if isinstance(value, Mapping) and set(value) == {"label"} else value


# -- labels ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Labels(Checker):
    #: labels by their texts; new ones come to the end
    known: dict[str, Any]
    #: a label's text by how it reads
    alike: dict[str, str]
    multiple: bool
    new: bool

    @property
    def options(self) -> tuple[str, ...]:
        return tuple(self.known)

    def spec(self) -> dict[str, Any]:
        return {"kind": "labels" if self.multiple else "label", "new_labels": self.new} | _offered(self.options)

    def _read(self, value: Any) -> dict[str, Any]:
        given = _bare(value) if self.multiple else [_bare(value)]
        texts = [self._text(one) for one in given] if isinstance(given, (list, tuple)) else []
        if not texts or len({text if text in self.known else _alike(text) for text in texts}) < len(texts):
            raise _refused(value, "pass a list of one label or more, each of them once")
        for text in texts:
            self.known.setdefault(text, text)
            self.alike.setdefault(_alike(text), text)
        chosen = set(texts)
        found = [self.known[text] for text in (self.options if self.multiple else texts) if text in chosen]
        return {"label": found if self.multiple else found[0]}

    def _text(self, value: Any) -> str:
        is_one = value is not None and not isinstance(value, (Mapping, list, tuple))
        text = clean(str(value)).strip() if is_one else ""
        if text in self.known:
            return text
        if _alike(text) in self.alike:
            raise _refused(value, f"no such label; it reads like {line(self.alike[_alike(text)])}, choose that one")
        if not self.new:
            more = f" and {len(self.known) - 20} more" if len(self.known) > 20 else ""
            raise _refused(value, f"labels are {', '.join(map(line, self.options[:20]))}{more}")
        if not isinstance(value, str) or text != value.strip() or not 0 < len(text) <= MAX_NAME:
            raise _refused(value, f"a new label is a text of 1 to {MAX_NAME} characters, none of them hidden")
        return " ".join(text.split())


def _by_text(labels: Sequence[Any], new: bool) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for label in [labels] if isinstance(labels, str) else labels:
        text = clean(str(label)).strip()
        if text in known or not text:
            raise BadInput(name="labels", value=label, remedy="it is empty, or two labels read the same")
        known[text] = label.item() if hasattr(label, "item") else label
        if new and not isinstance(known[text], str):
            raise BadInput(name="labels", value=label, remedy="new labels are texts, so pass texts only")
    if not known and not new:
        raise BadInput(name="labels", value=labels, remedy="pass at least one label, or None for free text")
    return known


def _alike(text: str) -> str:
    """Return what two texts share that differ in case, spaces or the way an accent is written."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _offered(texts: Sequence[str]) -> dict[str, Any]:
    sent = [text for text in texts if len(text) <= MAX_OPTION][:MAX_OPTIONS]
    return {"options": sent, "more": len(texts) - len(sent)}


# -- numbers -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Number(Checker):
    #: bounds, both included
    low: float
    high: float
    #: None: any number; else a whole one, in steps from ``low``
    step: int | None

    def spec(self) -> dict[str, Any]:
        low, high = (x if math.isfinite(x) else None for x in (self.low, self.high))
        kind = "integer" if self.step else "number"
        return {"kind": "number"} | _bounds({"type": kind, "minimum": low, "maximum": high, "multipleOf": self.step})

    def _read(self, value: Any) -> dict[str, Any]:
        bare = _bare(value)
        number: float = math.nan
        with suppress(TypeError, ValueError, OverflowError):
            if not isinstance(bare, bool) and "_" not in str(bare):  # which Python would skip: 1_5
                number = int(bare) if self.step and (isinstance(bare, str) or bare == int(bare)) else float(bare)
        fits = math.isfinite(number) and self.low <= number <= self.high
        if not fits or (self.step and (number - self.low) % self.step):
            raise _refused(value, f"pass {self.spec()['range']}")
        return {"label": number}


def _number(schema: Any) -> Checker | None:
    if isinstance(schema, range) and schema:
        ends = sorted((schema[0], schema[-1]))
        return _Number(low=ends[0], high=ends[1], step=abs(schema.step))
    if isinstance(schema, tuple) and len(schema) == 2:
        with suppress(TypeError, ValueError, OverflowError):
            low, high = map(float, schema)
            return _Number(low=low, high=high, step=None) if low <= high else None
    return None


def _bounds(one: Mapping[str, Any]) -> dict[str, Any]:
    """Return the bounds in a JSON schema; that one of them does not count itself is said in the words only."""
    words = [f"{said} {one[key]:.15g}" for key, said in _SAID.items() if one.get(key) is not None]
    low, high = (one.get(key, one.get(f"exclusive{key.title()}")) for key in ("minimum", "maximum"))
    whole = one["type"] == "integer"
    step = one.get("multipleOf", 1 if whole else None)
    words += [] if step in (None, 1) else [f"in steps of {step:g}"]
    said = " ".join(["a whole number" if whole else "a number", *words])
    return {"low": low, "high": high, "step": step, "range": said}


#: words for bounds in a JSON schema
_SAID = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}


# -- forms -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Form(Checker):
    #: a pydantic model class
    model: Any
    #: what a view needs to know, by the name under which the model takes a field
    parts: dict[str, dict[str, Any]]
    #: values of fields that are chosen, by their texts
    choices: dict[str, dict[str, Any]]

    def spec(self) -> dict[str, Any]:
        return {"kind": "form", "fields": list(self.parts.values())}

    def _read(self, value: Any) -> dict[str, Any]:
        from pydantic import ValidationError

        try:
            given = {k: self._chosen(k, v) for k, v in value.items()} if isinstance(value, dict) else value
            valid = given if isinstance(given, self.model) else self.model.model_validate(given)
            dumped: dict[str, Any] = valid.model_dump(mode="json")
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False, include_context=False)[:MAX_ERRORS]
            fields = {line(".".join(map(str, one["loc"])) or "all"): line(one["msg"], 300) for one in found}
            raise _refused(value, "; ".join(f"{k}: {what}" for k, what in fields.items()), fields) from None
        except Exception as error:  # a validator is the user's; whatever it raises, nothing is stored
            raise _refused(value, f"the schema raised {type(error).__name__}: {spell(str(error))}", {}) from None
        return dumped

    def _chosen(self, name: str, value: Any) -> Any:
        return self.choices.get(name, {}).get(value, value) if isinstance(value, str) else value


def _form(model: Any) -> Checker | None:
    if not hasattr(model, "model_validate") or getattr(model, "__pydantic_root_model__", False):
        return None
    schema: dict[str, Any] = {}
    with suppress(Exception), warnings.catch_warnings(action="ignore"):  # types of the user's that JSON cannot describe
        schema = model.model_json_schema()
    parts, choices = {}, {}
    for name, part in (schema.get("properties") or {key: {} for key in model.model_fields}).items():
        one, nullable = _inner(part, schema.get("$defs", {}))
        values = one.get("enum", [one["const"]] if "const" in one else [])
        by_text = {clean(v if isinstance(v, str) else json.dumps(v)): v for v in values if v is not None}
        nullable = nullable or None in values
        offered = _offered(tuple(by_text))
        is_choice = 0 < len(by_text) == len(values) - (None in values) and not offered.pop("more")
        choices[name] = by_text if is_choice else {}
        default = f"default: {spell(part['default'])}" if part.get("default") not in (None, "") else ""
        told = line("; ".join(filter(None, [part.get("description"), one.get("format"), default])), 300)
        required = name in schema.get("required", ()) and not nullable
        parts[name] = {"name": name, "required": required, "nullable": nullable, "help": told}
        parts[name] |= {"type": "choice"} | offered if is_choice else _typed(one)
    return _Form(model=model, parts=parts, choices=choices)


def _inner(part: Mapping[str, Any], defined: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """Return what a field holds where it is not null, and whether it may be null; ``{}`` for several kinds."""
    found = [defined.get(str(one.get("$ref")).rpartition("/")[2], one) for one in part.get("anyOf", [part])]
    kinds = [one for one in found if one.get("type") != "null"]
    if sorted(str(one.get("type")) for one in kinds) == ["number", "string"]:  # a Decimal: its digits are kept
        return {"type": "string"}, len(kinds) < len(found)
    return kinds[0] if len(kinds) == 1 else {}, len(kinds) < len(found)


def _typed(one: Mapping[str, Any]) -> dict[str, Any]:
    if one.get("type") in ("number", "integer"):
        return {"type": one["type"]} | _bounds(one)
    kind = {"string": "text", "boolean": "boolean"}.get(one.get("type", ""), "json")
    return {"type": kind, "longest": one.get("maxLength")}
