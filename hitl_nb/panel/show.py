"""What an item looks like, as text, fields and pictures; nothing in here is ever markup."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hitl_nb.display import MAX_TEXT, MAX_VALUE, fold, line, spell

#: fields shown at first
MAX_FIELDS = 60
#: longest table shown at first, in characters
MAX_TABLE = 8_000
#: how many times more is shown on request
UNFOLDED = 5
#: largest picture that is decoded, in pixels
MAX_PIXELS = 25_000_000
#: largest picture that is sent, in bytes
MAX_BYTES = 200_000
#: smaller pictures are enlarged to about this many pixels a side
SMALL = 160
#: what columns of pixels are called
_PIXEL = re.compile("pix(el)?_?[0-9]{1,4}(_[0-9]{1,4})?", re.IGNORECASE)
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


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
    pixels = _pixels(value)
    if pixels is not None:
        return _picture(pixels)
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
        rows.append((line(str(key), MAX_VALUE), spell(part, MAX_VALUE * times)))
        size, cut = size + sum(map(len, rows[-1])), cut or (isinstance(part, str) and len(part) > MAX_VALUE * times)
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


def _pixels(value: Mapping[Any, Any]) -> np.ndarray[Any, Any] | None:
    """Return a square picture whose pixels are the fields, such as ``pixel_0_0`` or ``pixel784``."""
    side = math.isqrt(len(value))
    if side < 4 or side * side != len(value) or not all(_is_pixel(key, part) for key, part in value.items()):
        return None
    in_order = sorted(value, key=lambda key: [int(number) for number in re.findall("[0-9]+", key)])
    return np.array([float(value[key]) for key in in_order]).reshape(side, side)


def _is_pixel(key: Any, value: Any) -> bool:
    return isinstance(value, (int, float)) and isinstance(key, str) and _PIXEL.fullmatch(key) is not None


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
    found = [(line(str(k), 60), float(v)) for k, v in probabilities.items() if isinstance(v, (int, float)) and v == v]
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
    return fold("\n".join(lines))
