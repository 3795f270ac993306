"""Where a queue lives in PostgreSQL: its name, its tables, and what dead processes left there."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from hitl_nb.errors import BadInput, NotAQueue, QueueTooNew
from hitl_nb.queue.file import SCHEMA_VERSION
from hitl_nb.queue.postgres_engine import STAGING, dialect
from hitl_nb.queue.store import statements

#: lock under which tables are made
_MAKING = 7_226_317


def shown(url: str) -> str:
    """Return a URL without its password.

    >>> shown("postgresql://ann:secret@db.local:5433/reviews")
    'postgresql://ann@db.local:5433/reviews'
    """
    try:
        facts = conninfo_to_dict(url)
    except psycopg.Error:
        raise BadInput(
            name="url", value="postgresql://…", remedy="it cannot be read; pass postgresql://user@host/name"
        ) from None
    host, port = facts.get("host", "localhost"), facts.get("port", 5432)
    return f"postgresql://{facts.get('user', '')}@{host}:{port}/{facts.get('dbname', '')}"


def make(connection: psycopg.Connection[Any], name: str) -> None:
    """Make the tables if there are none; one process does."""
    connection.execute("SELECT pg_advisory_xact_lock(%s)", [_MAKING])
    here = "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()"
    tables = {table for (table,) in connection.execute(here).fetchall()}
    if not tables & {"meta", "payload", "event", "task"}:
        for statement in sorted(one for one in statements() if one.startswith("create_")):
            connection.execute(dialect(statement))
        for statement in dialect("create_index").split(";"):
            connection.execute(statement)
        connection.execute(dialect("put_meta"), {"name": "schema_version", "value": str(SCHEMA_VERSION)})
    elif not {"meta", "payload", "event", "task"} <= tables:
        raise NotAQueue(path=name, reason=f"its schema holds other tables: {', '.join(sorted(tables)[:5])}")
    facts = dict(connection.execute(dialect("get_meta")).fetchall())
    version = int(facts["schema_version"]) if facts.get("schema_version", "").isdecimal() else 0
    if version != SCHEMA_VERSION:
        raise QueueTooNew(path=name, version=version, known=SCHEMA_VERSION)
    old = (datetime.now() - timedelta(days=2)).strftime("%Y%m%d")
    for table in tables:
        if table.startswith(STAGING) and table.removeprefix(STAGING)[:8] < old:
            connection.execute(f'DROP TABLE IF EXISTS "{table}"')
