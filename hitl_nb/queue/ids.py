"""Task ids: UUIDv7, in the order in which they were made."""

from __future__ import annotations

import os
import threading
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

Array = np.ndarray[Any, Any]
_EPOCH = datetime(1970, 1, 1)
_HEX = np.frombuffer("".join(f"{i:02x}" for i in range(256)).encode(), dtype=np.uint8).reshape(256, 2)
#: places of the 32 digits among the 36 characters of a UUID
_PLACES = np.array([i for i in range(36) if i not in (8, 13, 18, 23)])


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


def as_text(ids: Array) -> pa.Array:
    """Return ids of shape (n, 2) as Arrow text, without a Python object for each."""
    octets = ids.astype(">u8").view(np.uint8).reshape(-1, 16)
    text = np.full((len(ids), 36), ord("-"), dtype=np.uint8)
    text[:, _PLACES] = _HEX[octets].reshape(-1, 32)
    offsets = np.arange(0, 36 * len(ids) + 1, 36, dtype=np.int32)
    return pa.StringArray.from_buffers(len(ids), pa.py_buffer(offsets), pa.py_buffer(text.tobytes()))
