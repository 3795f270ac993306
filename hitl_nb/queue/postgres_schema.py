"""Where a queue lives in PostgreSQL: its name, its tables, and what dead processes left there."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

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
    facts = _facts(url)
    host, port = facts.get("host", "localhost"), facts.get("port", 5432)
    if "@" in f"{host}{facts.get('dbname', '')}":  # the rest of a password, which is not to be shown
        remedy = "write @ / : ? # % in a password as %40 %2F %3A %3F %23 %25"
        raise BadInput(name="url", value="postgresql://…", remedy=remedy)
    return f"postgresql://{facts.get('user', '')}@{host}:{port}/{facts.get('dbname', '')}"


def connectable(url: str) -> str:
    """Return a URL with what holds unless it says otherwise: a lost server is missed soon; texts are always UTF-8."""
    facts: dict[str, Any] = {
        "application_name": "hitl_nb", "connect_timeout": 10, "tcp_user_timeout": 30_000,
        "keepalives_idle": 20, "keepalives_interval": 5, "keepalives_count": 3,
    }  # fmt: skip
    return make_conninfo(**facts | _facts(url) | {"client_encoding": "utf8"})


def _facts(url: str) -> dict[str, Any]:
    try:
        return conninfo_to_dict(url)
    except psycopg.Error:
        remedy = "it cannot be read; pass postgresql://user@host/name"
        raise BadInput(name="url", value="postgresql://…", remedy=remedy) from None


def is_direct(connection: psycopg.Connection[Any]) -> bool:
    """Whether the server itself is at the other end, and no pooler that gives each transaction another session of it.

    What is prepared in one session is not there in the next, or is another client's statement of the same name.
    """
    [(pid,)] = connection.execute("SELECT pg_backend_pid()").fetchall()
    return bool(pid == connection.info.backend_pid)


def make(connection: psycopg.Connection[Any], name: str) -> None:
    """Make the tables if there are none; one process does."""
    [(encoding,)] = connection.execute("SHOW server_encoding").fetchall()
    if encoding != "UTF8":
        remedy = f"its texts are {encoding}; create a database with ENCODING 'UTF8' TEMPLATE template0"
        raise BadInput(name="url", value=name, remedy=remedy)
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
    sweep(connection)


def sweep(connection: psycopg.Connection[Any]) -> None:
    """Drop tables that rows of a batch came in and that nobody needs any more; a killed process leaves some."""
    for (table,) in connection.execute(dialect("staged"), {"begins": STAGING}).fetchall():
        with suppress(psycopg.Error), connection.transaction():  # it may be another role's, who drops it in its time
            connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(table)))
