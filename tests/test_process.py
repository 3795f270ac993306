"""What the processes around a file may do to it: fork, exit, copy it, open it under a second name."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest

from hitl_nb import open_queue
from hitl_nb.errors import QueueLocked

LONG = 60


def run(code, *args):
    """Run ``code`` in a process of its own; its file descriptors are its own, too."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=LONG)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "q.duckdb"


def said(done):
    """Return what a process wrote to its stderr, without the remarks of the engine's bindings on threads that live."""
    remarks = ("nanobind", " - leaked ", " - ... skipped", "See https://nanobind")
    return [line for line in done.stderr.splitlines() if not line.startswith(remarks)]


def put(queue, n=1):
    return queue.submit(input_data={"n": n}, ai_prediction={"label": "a"}, reason="r")


# -- the lock


STEAL = """
    import sys
    from hitl_nb import connect, open_queue
    from hitl_nb.errors import QueueLocked
    connect.PATIENCE = 0.3
    try:
        open_queue(sys.argv[1], serve=None)
    except QueueLocked as error:
        print("locked by", error.pid)
"""


def copied(path):
    shutil.copy(path, f"{path}.copy")


def read(path):
    path.read_bytes()


def opened_by_another_name(path):
    os.link(path, path.with_name("second.duckdb"))
    with pytest.raises(QueueLocked, match="this process as"):
        open_queue(path.with_name("second.duckdb"), serve=None)


@pytest.mark.parametrize("look", [copied, read, opened_by_another_name])
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system has one kind of lock")
def test_nobody_gets_in_after_the_owners_process_has_looked_into_the_file(path, look, monkeypatch):
    monkeypatch.setattr("hitl_nb.connect.PATIENCE", 0.3)
    with open_queue(path, serve=None) as queue:
        put(queue)
        look(path)
        assert run(STEAL, path).stdout == f"locked by {os.getpid()}\n"
        put(queue)
    with open_queue(path, serve=None) as queue:
        assert queue.verify() == []
        assert queue.stats().total == 2


def test_a_queue_that_is_gone_gives_the_file_free(path):
    queue = open_queue(path, serve=None)
    put(queue)
    del queue
    assert run(STEAL.replace("0.3", "30"), path).stdout == ""


# -- forks


FORK = """
    import gc, os, sys
    from hitl_nb import open_queue
    queue = open_queue(sys.argv[1])
    for n in range(20):
        queue.submit(input_data={"n": n}, ai_prediction={}, reason="r")
    def files():
        return [open(sys.argv[1] + end, "rb").read() for end in ("", ".wal", ".owner", ".last")]
    before = files()
    pid = os.fork()
    if pid == 0:
        if sys.argv[2] == "closes":
            queue.close()
        if sys.argv[2] == "forgets":
            del queue
            gc.collect()
        sys.exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert files() == before
    for n in range(20):
        queue.submit(input_data={"n": n}, ai_prediction={}, reason="r")
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("how", ["exits", "closes", "forgets"])
def test_a_fork_that_ends_leaves_the_file_to_its_parent(path, how):
    done = run(FORK, path, how)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with open_queue(path, serve=None) as queue:
        assert queue.stats().total == 40
        assert queue.verify() == []


MULTI = """
    import multiprocessing, sys
    from hitl_nb import open_queue
    def work():
        with open_queue(sys.argv[1]) as queue:
            queue.submit(input_data={}, ai_prediction={}, reason="r")
    queue = open_queue(sys.argv[1])
    workers = [multiprocessing.get_context("fork").Process(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert queue.stats().total == 3
    assert queue.verify() == []
"""


def test_a_fork_that_opens_the_file_again_talks_to_its_parent(path):
    done = run(MULTI, path)
    assert (done.returncode, done.stderr) == (0, "")


ORPHAN = """
    import os, sys
    from hitl_nb import connect, open_queue
    from hitl_nb.errors import QueueLocked
    connect.PATIENCE = 0.3
    queue = open_queue(sys.argv[1], serve=None)
    queue.submit(input_data={}, ai_prediction={}, reason="r")
    parent = os.getpid()
    if os.fork():
        os.kill(os.getpid(), 9)
    while os.getppid() == parent:
        pass
    try:
        open_queue(sys.argv[1], serve=None)
    except QueueLocked as error:
        open(sys.argv[1] + ".said", "w").write(str(error))
    os._exit(0)
"""


def test_a_fork_never_owns_a_file_that_its_parent_had_open(path):
    done = run(ORPHAN, path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert "spawn" in path.with_name("q.duckdb.said").read_text()
    with open_queue(path, serve=None) as queue:  # and it does not keep others out
        assert queue.stats().total == 1
        assert queue.verify() == []


# -- the end of the interpreter


ENDS = {
    "the main thread ends": "",
    "an exception ends it": "raise SystemExit(0)",
    "a thread is writing": """
        from hitl_nb.errors import QueueClosed
        def write():
            try:
                while True:
                    queue.submit(input_data={}, ai_prediction={}, reason="r")
            except QueueClosed:
                pass
        threading.Thread(target=write, daemon=True).start()
        while queue.stats().total < 10:
            pass
    """,
    "a thread ends after it": """
        def late():
            threading.main_thread().join()
            queue.submit(input_data={}, ai_prediction={}, reason="r")
        threading.Thread(target=late).start()
    """,
    "a reader is reading": """
        queue.submit(input_data={}, ai_prediction={}, reason="r")
        from hitl_nb.errors import QueueClosed
        def look():
            try:
                while True:
                    queue.history()
                    started.set()
            except QueueClosed:
                pass
        started = threading.Event()
        threading.Thread(target=look, daemon=True).start()
        started.wait()
    """,
    "a panel shows a task": """
        from hitl_nb.panel import ReviewPanel
        for n in range(3):
            queue.submit(input_data={}, ai_prediction={"label": "a"}, reason="r")
        panel = ReviewPanel(queue, reviewer="ann", labels=["a"])
        threading.Thread(target=panel.approve).start()
    """,
    "the queue was closed": "queue.close()",
    "with closes it": "with queue: pass",
}


@pytest.mark.parametrize("end", ENDS)
def test_an_interpreter_that_ends_leaves_a_clean_file_and_says_nothing(path, end):
    start = "import sys, threading\nfrom hitl_nb import open_queue\nqueue = open_queue(sys.argv[1])\n"
    done = run(start + textwrap.dedent(ENDS[end]), path)
    assert (done.returncode, said(done)) == (0, [])
    assert sorted(os.listdir(path.parent)) == ["q.duckdb"]
    with open_queue(path, serve=None) as queue:
        assert queue.verify() == []
