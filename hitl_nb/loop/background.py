"""A retrain in the background: reviews go on, it can be watched and cancelled."""

from __future__ import annotations

import threading
from collections.abc import Callable

from hitl_nb.display import Shows, Table, table
from hitl_nb.errors import LearnerError, RetrainCancelled, plain
from hitl_nb.loop.report import RetrainReport

Progress = Callable[[str], None]


class Retraining(Shows):
    """A retrain that runs on a thread of its own; made by ``Loop.start``.

    Parameters
    ----------
    work : does it; called with a function that takes a line at each stage
    progress : called with each line, on that thread
    """

    def __init__(self, work: Callable[[Progress], RetrainReport], progress: Progress | None = None) -> None:
        #: what was said so far, a line a stage
        self.lines: list[str] = []
        self._work, self._progress, self._cancelled = work, progress, threading.Event()
        self._report: RetrainReport | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="hitl_nb-retrain", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._report = self._work(self._stage)
        except BaseException as error:  # it is raised by wait()
            self._error = error

    def _stage(self, text: str) -> None:
        if self._cancelled.is_set():
            raise RetrainCancelled(stage=plain(f"before {text}"))
        self.lines.append(text)
        if self._progress is not None:
            self._progress(text)

    @property
    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._report is not None or self._error is not None

    def cancel(self) -> None:
        """End it at its next stage; a fit that runs is finished first, and its model thrown away.

        Once the comparison has begun it is too late: a look at the holdout counts. Then there is ``Loop.rollback``.
        """
        self._cancelled.set()

    def wait(self, timeout: float | None = None) -> RetrainReport:
        """Return the report when it has ended.

        Raises
        ------
        TimeoutError : it runs still after so many seconds
        RetrainCancelled, FitFailed, NotEnoughSamples, LearnerError : what ended it; or this is a fork, and it runs
            where it was begun
        """
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f"the retrain runs still ({(self.lines or ['just begun'])[-1]}); wait again or cancel()")
        if self._error is not None:
            raise self._error
        if self._report is None:
            raise LearnerError(what=plain("it runs in the process from which this one was forked; wait for it there"))
        return self._report

    def _table(self) -> Table:
        if not self.done:
            return table("retraining", (), (), ["next: wait() for the report, or cancel()"], self.lines)
        return table(f"not retrained: {self._error}", facts=self.lines) if self._error else self.wait()._table()
