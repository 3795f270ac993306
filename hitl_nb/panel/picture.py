"""Pictures: arrays, files and Pillow images as PNGs of bounded size, encoded anew."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from hitl_nb.display import line, spell
from hitl_nb.panel.parts import Picture

#: most pixels that are decoded for one item
MAX_PIXELS = 25_000_000
#: most bytes of pictures that are sent for one item
MAX_BYTES = 200_000
#: smaller pictures are enlarged to about this many pixels a side
SMALL = 160
#: what columns of pixels are called
_PIXEL = re.compile("pix(el)?_?[0-9]{1,4}(_[0-9]{1,4})?", re.IGNORECASE)
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


def pixels(value: Mapping[Any, Any]) -> np.ndarray[Any, Any] | None:
    """Return a square picture whose pixels are the fields, such as ``pixel_0_0`` or ``pixel784``."""
    side = math.isqrt(len(value))
    if side < 4 or side * side != len(value) or not all(_is_pixel(key, part) for key, part in value.items()):
        return None
    in_order = sorted(value, key=lambda key: [int(number) for number in re.findall("[0-9]+", key)])
    return np.array([float(value[key]) for key in in_order]).reshape(side, side)


def _is_pixel(key: Any, value: Any) -> bool:
    return isinstance(value, (int, float)) and isinstance(key, str) and _PIXEL.fullmatch(key) is not None


def is_picture(value: Any) -> bool:
    """Return whether a value is an array, a file or an image that can be a picture."""
    if isinstance(value, np.ndarray):
        flat = value.ndim == 2 or (value.ndim == 3 and value.shape[2] in (1, 3, 4))
        return flat and value.dtype.kind in "biuf" and min(value.shape[:2]) > 1
    return _is_file(value) or type(value).__module__.startswith("PIL.")


def _is_file(value: Any) -> bool:
    return isinstance(value, (bytes, bytearray)) and bytes(value[:8]).startswith((_PNG, _JPEG))


def pictures(named: Mapping[Any, Any]) -> tuple[list[Picture], str]:
    """Return the pictures of an item, and why some of them cannot be shown; they share the bytes and the pixels.

    >>> pictures({"photo": np.eye(4)})[0][0].note
    '4×4, 0 to 1'
    """
    shown, problems, pixels = [], [], MAX_PIXELS
    for key, value in named.items():
        name = line(str(key))
        try:
            image, note = _opened(value, pixels)
            pixels -= image.width * image.height
            shown.append(Picture(name=name, png=_png(image, MAX_BYTES // len(named)), note=note))
        except Exception as error:  # damaged files raise nearly anything
            why = f"cannot show this image: {spell(str(error) or type(error).__name__)}"
            problems.append(f"{why} ({name})" if name else why)
    return shown, "\n".join(problems)


def _opened(value: Any, most: int) -> tuple[Any, str]:
    """Return a Pillow image, its size checked before anything is decoded."""
    from PIL import Image, ImageOps

    if isinstance(value, np.ndarray):
        _small_enough(value.shape[1], value.shape[0], most)
        levels, note = _levels(value)
        return Image.fromarray(levels[..., 0] if levels.ndim == 3 and levels.shape[2] == 1 else levels), note
    image = Image.open(io.BytesIO(value), formats=("PNG", "JPEG")) if _is_file(value) else value
    width, height = image.size
    _small_enough(width, height, most)
    return ImageOps.exif_transpose(image), f"{width}×{height}"


def _small_enough(width: int, height: int, most: int) -> None:
    if not 0 < width * height <= most:
        raise ValueError(f"{width:,}×{height:,} pixels; up to {most // 10**6} megapixels are shown")


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


def _png(image: Any, most: int) -> bytes:
    """Return a PNG of at most ``most`` bytes, encoded anew; nothing of the old file is kept but what it looks like."""
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
        if buffer.tell() <= most:
            return buffer.getvalue()
        ratio = 0.95 * math.sqrt(most / buffer.tell())
        image = image.resize((max(1, int(image.width * ratio)), max(1, int(image.height * ratio))))
