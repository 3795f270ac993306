"""The one thread that writes: no signal reaches it, so nothing that it does is torn."""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

#: most units of work that share one commit
MOST_IN_A_BATCH = 256
#: longest wait for others to share a commit, in seconds; who is alone never waits
LINGER = 0.01


#: threads that run, where their jobs come from, and what does them
_running: weakref.WeakKeyDictionary[threading.Thread, tuple[SimpleQueue[Any], weakref.WeakMethod[Any]]]
_running = weakref.WeakKeyDictionary()


class Job:
    """Something to be done on the writer's thread, and what came of it."""

    def __init__(self, work: Callable[[Any], Any], shared: bool) -> None:
        self.work = work
        #: whether it may share a commit with others
        self.shared = shared
        #: whether nobody waits for it any more
        self.abandoned = False
        #: whether it has come to its end
        self.ended = False
        self._result: Any = None
        self._error: BaseException | None = None
        self._open = threading.Lock()  # one bare lock: a signal cannot leave it half taken
        self._open.acquire()

    def check(self) -> None:
        """Stop here if nobody waits for it any more; long work asks from time to time."""
        if self.abandoned:
            raise CancelledError

    def end(self, result: Any = None, error: BaseException | None = None) -> None:
        """Let the caller go on with a result or an error."""
        if not self.ended:
            self._result, self._error, self.ended = result, error, True
            self._open.release()

    def result(self) -> Any:
        """Wait for the end."""
        with self._open:
            if self._error is not None:
                raise self._error
            return self._result


class Writer:
    """Hands jobs to one thread: those that share a commit together, before those that came among them and stand alone.

    Parameters
    ----------
    owner
        Whose thread it is; held weakly, the thread ends with it.
    serve
        The owner's method that does a batch of jobs: either one, or several that may share a commit.
    """

    def __init__(self, owner: object, serve: Callable[[list[Job]], None]) -> None:
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        weak: weakref.WeakMethod[Callable[[list[Job]], None]] = weakref.WeakMethod(serve)
        self._thread = threading.Thread(target=_run, args=(self._jobs, weak), name="hitl_nb-writer", daemon=True)
        weakref.finalize(owner, self._jobs.put, None).atexit = False  # at exit the queue is closed first
        _running[self._thread] = self._jobs, weak
        self._thread.start()

    def call(self, work: Callable[[Any], T], *, shared: bool = False) -> T:
        """Do ``work`` on the thread and return what it returns.

        A caller that is interrupted meanwhile leaves the work whole: not begun, done, or rolled back.
        """
        if threading.current_thread() is self._thread:
            raise RuntimeError("a callback of the queue called the queue; let it only set an event")
        job = Job(work, shared)
        self._jobs.put(job)
        try:
            found: T = job.result()
            return found
        except BaseException:
            job.abandoned = True
            raise


def rest(seconds: float = 5.0) -> None:
    """Wait until no thread is in the middle of anything: the end of the process would break off what it does."""
    until = time.monotonic() + seconds
    for thread, (jobs, weak) in list(_running.items()):
        last = Job(lambda _: None, shared=False)
        jobs.put(last)
        while thread.is_alive() and not last.ended and time.monotonic() < until:
            time.sleep(0.002)
        if weak() is None:  # it closes what its owner left
            thread.join(max(0.0, until - time.monotonic()))


def _run(jobs: SimpleQueue[Job | None], weak: weakref.WeakMethod[Callable[[list[Job]], None]]) -> None:
    following: deque[Job | None] = deque()
    together, took = 1, 0.0
    while (job := following.popleft() if following else jobs.get()) is not None:
        _linger(jobs, together - 1 if job.shared else 0, took)
        started = time.monotonic()
        batch = _batch(job, jobs, following)
        serve = weak()
        if serve is None:
            return
        wanted = [job for job in batch if not job.abandoned]
        try:
            if wanted:
                serve(wanted)
        except BaseException as error:
            for job in wanted:
                job.end(error=error)
        together, took = len(batch), time.monotonic() - started
        del job, batch, serve, wanted  # an idle thread keeps nothing alive


def _linger(jobs: SimpleQueue[Job | None], others: int, most: float) -> None:
    """Let those who shared the last commit come again, so that they share the next; never longer than that one took."""
    until = time.monotonic() + min(most, LINGER)
    while jobs.qsize() < others and time.monotonic() < until:
        time.sleep(LINGER / 50)


def _batch(first: Job, jobs: SimpleQueue[Job | None], following: deque[Job | None]) -> list[Job]:
    """Return jobs that share a commit; what came among them and shares none is put to those that follow."""
    batch = [first]
    while first.shared and len(batch) < MOST_IN_A_BATCH and None not in following:
        try:
            job = jobs.get_nowait()
        except Empty:
            break
        if job is not None and job.shared:
            batch.append(job)
        else:
            following.append(job)
    return batch
