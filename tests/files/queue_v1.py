"""Wrote queue-v1.duckdb.gz with the first version of the package: a queue with tasks in every state.

Nobody can write it anew once the schema has moved on, and nobody has to: it stays as that version left it. With each
version of the schema comes another such script and file:

    python tests/files/queue_v1.py tests/files/queue-v1.duckdb.gz
"""

import gzip
import sys
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd

from hitl_nb import Orchestrator, Policy, Reviewer, open_queue

LEA = Reviewer(id="lea", expertise=("law",))
ADA = Reviewer(id="ada", roles=("reviewer", "adjudicator"))


def fill(queue, forward):
    """Bring tasks into every state; the key of each says which."""

    def ask(key, **options):
        given = {"input_data": {"text": f"<{key}> ü"}, "ai_prediction": {"label": "a", "model": "v1"}}
        return queue.submit(**given | {"confidence": 0.6, "reason": "unsure", "key": key} | options).task_id

    queue.resolve(ask("approved"), "ann", "approve")
    queue.resolve(ask("corrected", expertise="law"), LEA, "correct", {"label": "b"}, "the other one")
    forward(minutes=1)
    queue.resolve(ask("delivered"), "ann", "reject", submit_id="once")
    queue.deliver(last(queue), "a service")
    queue.resolve(ask("undone"), "ann", "reject")
    queue.undo(last(queue), "ann")
    queue.resolve(ask("disputed"), "ann", "approve")
    queue.object(last(queue), "bob", "look again")
    queue.resolve(ask("settled"), "ann", "approve")
    queue.object(last(queue), "bob", "no")
    queue.resolve(last(queue), ADA, "correct", {"label": "c"})
    queue.resolve(ask("one of two", reviews_required=2), "ann", "approve")
    ask("denied", deadline=timedelta(minutes=1), on_deadline="deny")
    ask("escalated", deadline=timedelta(minutes=1), escalation=["law"])
    forward(minutes=2)
    queue.tick()
    queue.withdraw(ask("withdrawn"), "not needed")
    queue.replace(ask("replaced"), {"text": "new"}, {"label": "c", "model": "v2"})
    queue.resolve(ask("erased", subject="somebody"), "ann", "approve", comment="personal")
    queue.forget("somebody")
    ask("claimed", priority="high")
    queue.claim("bob")
    ask("pending", priority="low", group="g", value=12.5)
    frame = pd.DataFrame({"n": range(30)}), pd.DataFrame({"label": ["a"] * 30, "confidence": [0.5] * 10 + [0.95] * 20})
    Orchestrator(queue=queue, policy=Policy(0.85, audit_rate=0.2)).process_frame(*frame)


def last(queue):
    return next(event["task_id"] for event in reversed(queue.events()) if event["move"] == "submit")


def main(target):
    now = [datetime(2026, 1, 5, 9)]

    def forward(**span):
        now[0] += timedelta(**span)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "queue-v1.duckdb"
        with open_queue(path, clock=lambda: now[0]) as queue:
            fill(queue, forward)
        Path(target).write_bytes(gzip.compress(path.read_bytes(), mtime=0))


if __name__ == "__main__":
    main(sys.argv[1])
