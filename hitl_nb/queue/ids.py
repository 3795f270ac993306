"""Task ids: UUIDv7, in the order in which they were made."""

from __future__ import annotations

import os
import threading
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

Array = np.ndarray[Any, Any]
_EPOCH = datetime(1970, 1, 1)
_HEX = np.frombuffer("".join(f"{i:02x}" for i in range(256)).encode(), dtype=np.uint8).reshape(256, 2)
#: the five groups of the 32 digits of a UUID
_GROUPS = ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))


class Ids:
    """Makes ids: 48 bits of time, a 42-bit counter that keeps the order within a millisecond, 32 random bits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = (0, 0)

    def make(self, n: int, now: datetime) -> Array:
        """Return ``n`` ids as uint64 of shape (n, 2), ascending, also against all made before."""
        moment = int((now - _EPOCH).total_seconds() * 1000)
        with self._lock:
            stamp, count = max((moment, 0), self._last)
            self._last = (stamp, count + n)
        counter = np.arange(count, count + n, dtype=np.uint64)
        random = np.frombuffer(os.urandom(4 * n), dtype=np.uint32).astype(np.uint64)
        high = np.uint64(stamp << 16 | 0x7000) | counter >> np.uint64(30)
        low = np.uint64(1 << 63) | (counter & np.uint64(2**30 - 1)) << np.uint64(32) | random
        return np.column_stack([high, low])


def one_text(ids: Array) -> str:
    """Return the first of some ids as text."""
    return str(UUID(int=int(ids[0, 0]) << 64 | int(ids[0, 1])))


def as_text(ids: Array) -> pa.Array:
    """Return ids of shape (n, 2) as Arrow text, without a Python object for each."""
    import pyarrow as pa

    digits = _HEX[ids.astype(">u8").view(np.uint8).reshape(-1, 16)].reshape(-1, 32)
    text = np.full((len(ids), 36), ord("-"), dtype=np.uint8)
    for place, (start, stop) in zip((0, 9, 14, 19, 24), _GROUPS, strict=True):
        text[:, place : place + stop - start] = digits[:, start:stop]
    offsets = np.arange(0, 36 * len(ids) + 1, 36, dtype=np.int32)
    return pa.StringArray.from_buffers(len(ids), pa.py_buffer(offsets), pa.py_buffer(text))
