"""A submit over HTTP beside one in the process that owns the file; a claim and its answer from another process while
the owner's main thread is busy, beside one while it is idle; prints ratios of one run.

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


#: an owner whose main thread counts when it is told to, as it is or with a switch interval in seconds
BUSY = """
import select, sys
from hitl_nb import open_queue
queue = open_queue(sys.argv[1])
print(flush=True)
while word := sys.stdin.readline().strip():
    sys.setswitchinterval(0.001 if word in ("idle", "busy") else float(word))  # the first is what an owner sets
    if word != "idle":
        n = 0
        while n % 100_000 or not select.select([sys.stdin], [], [], 0)[0]:
            n += 1
"""


def submit(queue):
    queue.submit(
        input_data={"text": "hm", "amount": 3.5}, ai_prediction={"label": "a"}, confidence=0.6, reason="unsure"
    )


def timed(call, queue, times):
    start = perf_counter()
    call(queue)
    times.append(perf_counter() - start)


def answer(queue):
    [task] = queue.claim("ann")
    queue.resolve(task.task_id, "ann", "approve", attempt=task.attempt)


def busy_owner(path, rounds):
    """Print how long a claim and its answer take while the owner's main thread is busy with pure Python."""
    command, times = [sys.executable, "-c", BUSY, str(path)], {}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        owner.stdout.readline()
        with open_queue(path) as remote:
            for turn in range(4 * 5):  # by turns, so that noise hits all
                word = ("idle", "busy", "0.005", "0.0005")[turn % 4]
                owner.stdin.write(f"{word}\n")
                owner.stdin.flush()
                for _ in range(rounds // 5):
                    submit(remote)
                    timed(answer, remote, times.setdefault(word, []))
        owner.stdin.close()
    for word, found in times.items():
        p50, p95 = (1000 * sorted(found)[int(share * len(found))] for share in (0.5, 0.95))
        what = word if word in ("idle", "busy") else f"busy, switch interval {1000 * float(word):g} ms"
        ratio = median(found) / median(times["idle"])
        print(f"claim and answer, owner {what}: p50 {p50:.1f} ms, p95 {p95:.1f} ms, ratio {ratio:.1f}")


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
    busy_owner(folder / "busy.duckdb", rounds)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
