"""A submit over HTTP beside one in the process that owns the file; prints ratios of one run.

Run: python benchmarks/sharing.py [rounds]
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

from hitl_nb import open_queue

OWN = "import sys; from hitl_nb import open_queue; q = open_queue(sys.argv[1]); print(flush=True); sys.stdin.read()"


def submit(queue):
    queue.submit(
        input_data={"text": "hm", "amount": 3.5}, ai_prediction={"label": "a"}, confidence=0.6, reason="unsure"
    )


def timed(call, queue, times):
    start = perf_counter()
    call(queue)
    times.append(perf_counter() - start)


def main(rounds):
    folder = Path(tempfile.mkdtemp())
    there = folder / "there.duckdb"
    command = [sys.executable, "-c", OWN, str(there)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        owner.stdout.readline()
        with open_queue(folder / "here.duckdb", serve=None) as here, open_queue(there) as remote:
            for name, call in (("submit", submit), ("get nothing: now", lambda queue: queue.now)):
                alone, http = [], []
                for _ in range(rounds):  # one after the other, so that noise hits both
                    timed(call, here, alone)
                    timed(call, remote, http)
                one, other = (sorted(times)[len(times) // 20 :] for times in (alone, http))
                p95 = [1000 * sorted(times)[int(0.95 * len(times))] for times in (alone, http)]
                print(
                    f"{name:<18} in process {1000 * median(one):.2f} ms, over HTTP {1000 * median(other):.2f} ms, "
                    f"ratio {median(other) / median(one):.2f}; p95 {p95[0]:.2f} and {p95[1]:.2f} ms"
                )
        owner.stdin.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
