"""Hostile and awkward inputs: what reaches a screen must show them as text, or say why it cannot."""

import io
import struct
import zlib

from PIL import Image

#: markup, templates and links that some front end would run
MARKUP = [
    "<script>window.hit = 1</script>",
    "<img src=x onerror='hit()'>",
    "'\"><svg/onload=hit()>",
    "</textarea></script><b>out</b>",
    "<a href='javascript:hit()'>here</a>",
    "<style>button{display:none}</style>",
    "![x](javascript:hit())",
    r"$\href{javascript:hit()}{x}$",
    r"$$\style{position:fixed;background:red}{x}$$",
    "{{7*7}}${7*7}<%= 7 %>",
    "data:text/html,<script>hit()</script>",
    "/etc/passwd",
    "'; DROP TABLE task; --",
]
#: characters that hide or reorder text, with the code point that must be seen
HIDDEN = {
    "pay\u200bpal": "U+200B",
    "a\u2060b": "U+2060",
    "\ufeffa": "U+FEFF",
    "ok \u202egnp.exe": "U+202E",
    "\u2066x\u2069": "U+2066",
    "a\x00b": "U+0000",
    "a\x1b[31mb": "U+001B",
    "a\x7fb": "U+007F",
    "a\x85b": "U+0085",
    "a\u2028b": "U+2028",
    "a\ud800b": "U+D800",
    "a\U000e0041b": "U+E0041",
    "soft\u00adhyphen": "U+00AD",
    "\u3164": "U+3164",
    "line\rend": "U+000D",
}


def png(width=20, height=10, mode="RGB"):
    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, format="PNG")
    return buffer.getvalue()


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width, height):
    """Return a PNG that claims a size and holds no pixels."""
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", size) + _chunk(b"IDAT", zlib.compress(b"")) + _chunk(b"IEND", b"")


#: bytes that look like a picture and are none, or too large a one
PICTURES = {
    "a bomb": header(80_000, 80_000),
    "over the limit": header(5_001, 5_000),
    "no pixels": header(10, 10),
    "truncated": png()[:40],
    "only the magic": b"\x89PNG\r\n\x1a\n",
    "a JPEG of nothing": b"\xff\xd8\xff\xe0" + b"x" * 50,
}
