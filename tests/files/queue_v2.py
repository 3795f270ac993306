"""Wrote queue-v2.duckdb.gz: what queue_v1.py made, and tokens: one that holds, one that was revoked.

python tests/files/queue_v2.py tests/files/queue-v2.duckdb.gz
"""

import gzip
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from queue_v1 import fill

from hitl_nb import open_queue
from hitl_nb.queue.token import Token, hashed


def main(target):
    now = [datetime(2026, 1, 5, 9)]

    def forward(**span):
        now[0] += timedelta(**span)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "queue-v2.duckdb"
        with open_queue(path, clock=lambda: now[0]) as queue:
            fill(queue, forward)
            made = datetime(2026, 1, 5, 9, tzinfo=UTC)
            for name in ("holds", "revoked"):
                until = made + timedelta(days=90)
                token = Token(
                    id=name, reviewer="lea", expertise=("law",), roles=("reviewer",), created_at=made, expires_at=until
                )
                queue.store_token(token, hashed(f"hitl_{name}"))
            queue.revoke_token("revoked")
        Path(target).write_bytes(gzip.compress(path.read_bytes(), mtime=0))


if __name__ == "__main__":
    main(sys.argv[1])
