"""Errors as others get them: a status, and the error's name, values and next step as problem+json (RFC 9457)."""

from __future__ import annotations

import json
from typing import Any

from hitl_nb import errors
from hitl_nb.errors import HitlError
from hitl_nb.queue import wire

#: status of an error, the first class that fits
STATUS: tuple[tuple[type[HitlError], int], ...] = (
    (errors.WrongToken, 401),
    (errors.TokenRefused, 401),
    (errors.NotAllowed, 403),
    (errors.NotQualified, 403),
    (errors.NoSuchPage, 404),
    (errors.TaskNotFound, 404),
    (errors.TooSlow, 408),
    (errors.TooLarge, 413),
    (errors.BadInput, 422),
    (errors.PayloadErased, 410),
    (errors.TaskExpired, 410),
    (errors.TaskWithdrawn, 410),
    (errors.QueueClosed, 503),
    (errors.ServerBusy, 503),
    (errors.OutcomeUnknown, 504),
    (errors.StorageFailed, 507),
    (errors.OwnerFailed, 500),
    (errors.QueueError, 409),
)
#: statuses of errors that any call may answer with
STATUSES = sorted({400, 405, *(number for _, number in STATUS)})
#: what else is told in the answer to an error
_HEADERS = {401: [(b"www-authenticate", b"Bearer")], 503: [(b"retry-after", b"1")]}


def status_of(error: HitlError) -> int:
    """Return the status of an error.

    >>> status_of(errors.TaskNotFound(task_id="42"))
    404
    """
    return next((number for kind, number in STATUS if isinstance(error, kind)), 400)


def problem(error: HitlError, *, wired: bool = False, status: int | None = None) -> tuple[int, list[Any], bytes]:
    """Return an error as status, headers and content; ``wired``: with values that a ``RemoteQueue`` makes it of anew.

    Examples
    --------
    >>> json.loads(problem(errors.TaskNotFound(task_id="42"))[2])["next"]
    'queue.pending() lists the open ones'
    """
    status = status or status_of(error)
    kind, values = error.__reduce__()[1]
    said = {
        "type": f"urn:hitl-nb:{kind.__name__}",
        "title": str(kind.__doc__).partition("\n")[0],
        "status": status,
        "detail": str(error),
        "error": kind.__name__,
        "values": {name: _shown(value) for name, value in values.items()},
        "next": values.get("remedy") or str(error).partition("; ")[2] or "read what it says, and ask again",
    }
    if wired:
        said["values"] = json.loads(wire.dump_error(error))["values"]
    content = json.dumps(said, default=str).encode()
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(content)).encode())]
    return status, headers + _HEADERS.get(status, []), content


def nowhere(scope: dict[str, Any]) -> HitlError:
    """Return the error of a request that no route is for."""
    remedy = "see /openapi.json for what is there"
    return errors.NoSuchPage(name=errors.plain(scope["method"][:20]), value=scope["path"], remedy=remedy)


def _shown(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int)):
        return value
    return str(value)[: errors.SHOWN] if isinstance(value, str) else errors.shown(value)
