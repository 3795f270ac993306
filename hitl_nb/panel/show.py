"""What an item looks like, as text, fields and pictures; nothing in here is ever markup."""

from __future__ import annotations

import io
import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from reprlib import Repr
from typing import Any

import numpy as np

#: longest text shown at first, in characters; the rest is folded
MAX_TEXT = 4_000
#: fields shown at first
MAX_FIELDS = 60
#: longest table shown at first, in characters
MAX_TABLE = 20_000
#: how many times more is shown on request
UNFOLDED = 10
#: longest value of one field, in characters
MAX_VALUE = 300
#: largest picture that is decoded, in pixels
MAX_PIXELS = 25_000_000
#: largest picture that is sent, in bytes
MAX_BYTES = 200_000
#: smaller pictures are enlarged to about this many pixels a side
SMALL = 160
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
#: characters that cannot be seen although their category says letter or mark
_UNSEEN = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0d\uffa0\U000e0000-\U000e0fff"
_SUSPECT = re.compile(rf"[^\n\t\x20-\x7e\u00a1-\u00ac\u00ae-\u02ff]|[{_UNSEEN}]")
_IS_UNSEEN = re.compile(f"[{_UNSEEN}]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """An item as it is shown; every text is clean."""

    #: the input as one text
    text: str = ""
    #: the input as fields: name and value
    rows: tuple[tuple[str, str], ...] = ()
    #: the input as a PNG
    image: bytes | None = None
    #: what a reviewer should know about it, such as what was left out
    note: str = ""
    #: why it cannot be shown; empty if it can
    problem: str = ""
    #: whether more can be shown
    folded: bool = False


def clean(text: str) -> str:
    r"""Return a text in which every character can be seen.

    Lone surrogates, controls, bidirectional and zero-width characters become code points; line ends and tabs stay.

    >>> clean("approve \u202egnp.exe\x00")
    'approve ⟨U+202E⟩gnp.exe⟨U+0000⟩'
    """
    return _SUSPECT.sub(lambda found: _visible(found.group()), text.replace("\r\n", "\n"))


def _visible(char: str) -> str:
    hidden = unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") or _IS_UNSEEN.match(char)
    return f"⟨U+{ord(char):04X}⟩" if hidden else char


def fold(text: str, most: int = MAX_TEXT) -> str:
    r"""Return a clean text of about ``most`` characters; the middle of a longer one is left out and counted.

    >>> fold("a" * 100 + "b" * 100, most=20)
    'aaaaaaaaaaaaaaa\n… 180 more characters …\nbbbbb'
    """
    if len(text) <= most:
        return clean(text)
    end = most // 4
    left = len(text) - most
    return f"{clean(text[: most - end])}\n… {left:,} more characters …\n{clean(text[-end:])}"


class _Short(Repr):
    """A bounded repr, whatever the size of the value."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist, self.maxtuple, self.maxset = 4, 20, 20, 20, 20
        self.maxstring = self.maxother = self.maxlong = MAX_VALUE

    def repr_float(self, value: float, level: int) -> str:
        return "NaN" if math.isnan(value) else repr(value)

    def repr_ndarray(self, value: np.ndarray[Any, Any], level: int) -> str:
        head = ", ".join(self.repr(x) for x in value.ravel()[:8].tolist())
        return f"[{head}{', …' if value.size > 8 else ''}] ({'×'.join(map(str, value.shape))} {value.dtype})"


_short = _Short()


def spell(value: Any, most: int = MAX_VALUE) -> str:
    """Return a value as a bounded, clean text.

    >>> spell({"x": [float("nan"), None]}), spell("a b")
    ("{'x': [NaN, None]}", 'a b')
    """
    if isinstance(value, str):
        return fold(str.__str__(value), most)
    if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0:
        value = value.item()
    if isinstance(value, (bytes, bytearray)):
        return f"{len(value):,} bytes: {bytes(value[:16]).hex(' ')}{' …' if len(value) > 16 else ''}"
    return fold(value.isoformat() if isinstance(value, date) else _short.repr(value), most)


# -- the input ---------------------------------------------------------------------------------------------------------


def show(value: Any, times: int = 1) -> Shown:
    """Return what a value looks like: text, fields, or a picture with the other fields beside it.

    Parameters
    ----------
    value
        A text; a dict; a 2-D or 3-D array; the bytes of a PNG or JPEG file; a Pillow image.
    times
        How many times the usual length is shown.

    Examples
    --------
    >>> show({"amount": 12.5, "note": "hm"}).rows
    (('amount', '12.5'), ('note', 'hm'))
    >>> show({"text": "hm"}).text
    'hm'
    """
    if isinstance(value, Mapping):
        return _fields(value, times)
    if _is_picture(value):
        return _picture(value)
    text = value if isinstance(value, str) else spell(value, MAX_TEXT * times)
    return Shown(text=fold(text, MAX_TEXT * times), folded=len(text) > MAX_TEXT * times)


def _fields(value: Mapping[Any, Any], times: int) -> Shown:
    pictures = [key for key, part in value.items() if _is_picture(part)][:1]
    rest = {key: part for key, part in value.items() if key not in pictures}
    shown = _picture(value[pictures[0]]) if pictures else Shown()
    only = next(iter(value.values())) if len(value) == 1 else None
    if isinstance(only, str):
        return show(only, times)
    rows, size, cut = [], 0, False
    for key, part in list(rest.items())[: MAX_FIELDS * times]:
        if size > MAX_TABLE * times:
            break
        rows.append((spell(str(key)), spell(part, MAX_VALUE * times)))
        size, cut = size + len(rows[-1][1]), cut or (isinstance(part, str) and len(part) > MAX_VALUE * times)
    left = len(rest) - len(rows)
    more = [(f"… {left:,} more", "")] if left else []
    return replace(shown, rows=(*rows, *more), folded=cut or left > 0)


def show_input(value: Any, render: Callable[[Any], Any] | None = None, times: int = 1) -> Shown:
    """Return what an input looks like; what goes wrong is named in ``problem``, and the fields are shown instead."""
    if value is None:
        return Shown(problem="the payload was erased on request; there is nothing left to show")
    try:
        return show(value if render is None else render(value), times)
    except Exception as error:  # a renderer is the user's; whatever it raises, the item stays decidable
        problem = f"render raised {type(error).__name__}: {spell(str(error))}"
        return replace(show_input(value, None, times), problem=problem) if render else Shown(problem=problem)


# -- pictures ----------------------------------------------------------------------------------------------------------


def _is_picture(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        flat = value.ndim == 2 or (value.ndim == 3 and value.shape[2] in (1, 3, 4))
        return flat and value.dtype.kind in "biuf" and min(value.shape[:2]) > 1
    return _is_file(value) or type(value).__module__.startswith("PIL.")


def _is_file(value: Any) -> bool:
    return isinstance(value, (bytes, bytearray)) and bytes(value[:8]).startswith((_PNG, _JPEG))


def _picture(value: Any) -> Shown:
    try:
        image, note = _opened(value)
        return Shown(image=_png(image), note=note)
    except Exception as error:  # damaged files raise nearly anything
        return Shown(problem=f"cannot show this image: {spell(str(error) or type(error).__name__)}")


def _opened(value: Any) -> tuple[Any, str]:
    """Return a Pillow image, its size checked before anything is decoded."""
    from PIL import Image, ImageOps

    if isinstance(value, np.ndarray):
        _small_enough(value.shape[1], value.shape[0])
        levels, note = _levels(value)
        return Image.fromarray(levels[..., 0] if levels.ndim == 3 and levels.shape[2] == 1 else levels), note
    image = Image.open(io.BytesIO(value), formats=("PNG", "JPEG")) if _is_file(value) else value
    width, height = image.size
    _small_enough(width, height)
    return ImageOps.exif_transpose(image), f"{width}×{height}"


def _small_enough(width: int, height: int) -> None:
    if not 0 < width * height <= MAX_PIXELS:
        raise ValueError(f"{width:,}×{height:,} pixels; up to {MAX_PIXELS // 10**6} megapixels are shown")


def _levels(array: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], str]:
    """Return an array as bytes 0..255, and how it was scaled."""
    size = "×".join(map(str, array.shape))
    if array.dtype == np.uint8:
        return array, size
    values = array.astype(np.float64)
    finite = np.isfinite(values)
    low, high = (float(values[finite].min()), float(values[finite].max())) if finite.any() else (0.0, 1.0)
    low, high = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
    scaled = (np.where(finite, values, low) - low) / ((high - low) or 1.0) * 255
    gaps = "" if finite.all() else f", {int((~finite).sum()):,} not finite"
    return scaled.astype(np.uint8), f"{size}, {low:g} to {high:g}{gaps}"


def _png(image: Any) -> bytes:
    """Return a PNG of at most ``MAX_BYTES``, encoded anew; nothing of the old file is kept but what it looks like."""
    from PIL import Image

    if image.mode in ("I", "I;16", "F"):
        image = Image.fromarray(_levels(np.asarray(image))[0])
    image = image.convert(
        "L" if image.mode in ("1", "L") else "RGBA" if "A" in image.mode or "transparency" in image.info else "RGB"
    )
    times = SMALL // max(image.size)
    if times > 1:
        image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    image.thumbnail((1600, 1600))
    while True:
        image.info.clear()
        buffer = io.BytesIO()
        image.save(buffer, format="PNG", optimize=True)
        if buffer.tell() <= MAX_BYTES:
            return buffer.getvalue()
        ratio = 0.95 * math.sqrt(MAX_BYTES / buffer.tell())
        image = image.resize((max(1, int(image.width * ratio)), max(1, int(image.height * ratio))))


# -- the prediction ----------------------------------------------------------------------------------------------------


def bars(probabilities: Any, most: int = 10) -> tuple[tuple[str, float], ...]:
    """Return the largest probabilities by label; what is no number is left out.

    >>> bars({"ham": 0.3, "spam": 0.7, "odd": "x"})
    (('spam', 0.7), ('ham', 0.3))
    """
    if not isinstance(probabilities, Mapping):
        return ()
    found = [(spell(str(k), 60), float(v)) for k, v in probabilities.items() if isinstance(v, (int, float)) and v == v]
    return tuple(sorted(found, key=lambda one: -one[1])[:most])


def show_prediction(prediction: Any) -> str:
    """Return a prediction as text: its label, or its fields.

    >>> show_prediction({"label": "spam", "confidence": 0.7})
    'spam'
    """
    if not isinstance(prediction, Mapping):
        return "" if prediction is None else spell(prediction)
    fields = {k: v for k, v in prediction.items() if k not in ("label", "confidence", "probabilities", "model")}
    lines = [spell(prediction["label"])] if "label" in prediction else []
    lines += [f"{spell(str(k))}: {spell(v)}" for k, v in list(fields.items())[:MAX_FIELDS] if v is not False]
    return "\n".join(lines)
