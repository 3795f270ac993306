"""Memory of the process that owns a file: after opening, and after 100 claims, by the number of waiting tasks.

Run ``python benchmarks/memory.py [ROWS …]``; the default is 10,000 and 1,000,000; 10,000,000 takes minutes.
"""

import multiprocessing
import sys
import tempfile
from pathlib import Path

from claim import filled

from hitl_nb import open_queue


def megabytes():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def measure(path, rows, answer):
    if not Path(path).exists():
        filled(path, rows).close()
        return
    import pyarrow.compute  # noqa: F401  what an owner loads anyway

    before = megabytes()
    with open_queue(path, serve=None) as queue:
        opened = megabytes()
        for _ in range(100):
            [task] = queue.claim("ann")
            queue.resolve(task.task_id, "ann", "approve", submit_id=task.task_id)
        answer.put((before, opened, megabytes()))


if __name__ == "__main__":
    own = multiprocessing.get_context("spawn")
    for rows in [int(text) for text in sys.argv[1:]] or [10_000, 1_000_000]:
        with tempfile.TemporaryDirectory() as folder:
            answer = own.Queue()
            for _ in range(2):  # one process fills the file, another one owns it
                process = own.Process(target=measure, args=(str(Path(folder) / "q.duckdb"), rows, answer))
                process.start()
                process.join()
            before, opened, claimed = answer.get()
            print(
                f"{rows:>10,} waiting: {before:.0f} MB before, {opened:.0f} MB open, {claimed:.0f} MB after 100 claims "
                f"and answers"
            )
