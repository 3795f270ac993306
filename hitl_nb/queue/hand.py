"""What is at hand: tasks that people hold or get next, in memory, so that a claim and its answer read nothing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hashlib import md5
from sys import getsizeof
from typing import Any

import numpy as np

from hitl_nb.queue.row import TaskRow
from hitl_nb.task import Status

#: payload rows of a task: version, kind, canonical text
Texts = tuple[tuple[int, str, str], ...]
#: memory for all tasks and for one of them, in bytes
MOST_BYTES, MOST_OF_ONE = 32 * 2**20, 2**17
#: tasks whose payload is read together with one that is not at hand
AHEAD = 256
#: memory of a task beside its texts, in bytes
_BESIDE = 2000
#: new submit ids that are sorted in among the others together
_TOGETHER = 50_000


class AtHand:
    """Rows of claimed tasks, and payloads, as the last unit of work left them; for the writer's thread alone.

    It takes 32 MiB at most; what was not changed for longest goes first, a payload over 128 KiB is not kept at all, and
    an erased one goes with its erasure.
    """

    def __init__(self) -> None:
        self.submits = SubmitIds()
        self._kept: OrderedDict[str, tuple[TaskRow | None, Texts | None, int]] = OrderedDict()
        self._bytes = 0

    def row(self, task_id: str) -> TaskRow | None:
        """Return a claimed task, if it is at hand."""
        return self._kept[task_id][0] if task_id in self._kept else None

    def texts(self, task_id: str) -> Texts | None:
        """Return the payload of a task, if it is at hand."""
        return self._kept[task_id][1] if task_id in self._kept else None

    def keep(self, task_id: str, row: TaskRow | None, texts: Texts | None) -> None:
        """Keep what is known of a task, if it is not too much."""
        self._drop(task_id)
        size = _BESIDE + sum(getsizeof(body) for _, _, body in texts or ())
        if size > MOST_OF_ONE:
            texts, size = None, _BESIDE
        if row is None and texts is None:
            return
        self._kept[task_id] = row, texts, size
        self._bytes += size
        while self._bytes > MOST_BYTES:
            self._drop(next(iter(self._kept)))

    def moved(self, before: TaskRow | None, after: TaskRow, stored: Texts) -> None:
        """Take note of a change, and of the payload rows that came with it."""
        texts = () if before is None else self.texts(after.task_id)
        if after.erased_at is not None:
            self._drop(after.task_id)
        else:
            row = after if after.status == Status.CLAIMED else None
            self.keep(after.task_id, row, None if texts is None else texts + stored)

    def _drop(self, task_id: str) -> None:
        if task_id in self._kept:
            self._bytes -= self._kept.pop(task_id)[2]


class SubmitIds:
    """A number for each id under which a client changed something: 8 bytes each, beside 50,000 in a set."""

    def __init__(self) -> None:
        self._sorted: np.ndarray[Any, Any] | None = None
        self._new: set[int] = set()

    def add(self, submit_id: str) -> None:
        """Take note of an id."""
        if self._sorted is None:
            return
        self._new.add(_number(submit_id))
        if len(self._new) >= _TOGETHER:
            self._sorted = np.union1d(self._sorted, np.fromiter(self._new, np.uint64))
            self._new.clear()

    def may_hold(self, submit_id: str, load: Callable[[], np.ndarray[Any, Any]]) -> bool:
        """Whether the log may hold an id; ``load`` returns the numbers of those that it held at first."""
        if self._sorted is None:
            self._sorted = np.unique(load())
        number = _number(submit_id)
        place = np.searchsorted(self._sorted, np.uint64(number))
        return number in self._new or number in self._sorted[place : place + 1]


def _number(submit_id: str) -> int:
    """Return what ``md5_number_lower`` of the engine returns."""
    return int.from_bytes(md5(submit_id.encode(), usedforsecurity=False).digest()[8:], "little")
