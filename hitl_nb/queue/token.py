"""Tokens: who may come in over the network, as whom and with which roles. Only the hash of a secret is kept."""

from __future__ import annotations

import json
import math
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, TypeVar

from hitl_nb.display import Table, table
from hitl_nb.errors import BadInput
from hitl_nb.payload import name
from hitl_nb.queue.row import aware
from hitl_nb.queue.store import Store, Transaction
from hitl_nb.task import Reviewer

T = TypeVar("T")

#: what a token may stand for
ROLES = ("producer", "reviewer", "adjudicator", "admin")
#: longest time that a token holds, in days
MOST_DAYS = 3650
#: how long the tokens that were read are known where other processes write, too, in seconds: so long holds one that
#: another process revokes
KNOWN = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """What is kept of a token; whoever shows its secret is this person. Times are UTC."""

    #: names it in lists, logs and ``revoke``; no secret
    id: str
    #: as whom its holder acts
    reviewer: str
    #: what its holder may judge beside the tasks that anyone may
    expertise: tuple[str, ...] = ()
    #: producer, reviewer, adjudicator, admin
    roles: tuple[str, ...]
    #: when it was made
    created_at: datetime
    #: until when it holds
    expires_at: datetime
    #: when it was revoked; None: it was not
    revoked_at: datetime | None = None

    def lives(self, now: datetime) -> bool:
        """Whether it holds at a time, naive UTC."""
        return self.revoked_at is None and self.expires_at > (aware(now) or now)

    @property
    def person(self) -> Reviewer:
        """Its holder, as the queue knows people."""
        return Reviewer(id=self.reviewer, expertise=self.expertise, roles=self.roles)


_COLUMNS = tuple(field.name for field in fields(Token))


def hashed(secret: str) -> str:
    """Return what is kept of a secret; it is random, so that no salt is needed.

    >>> hashed("hitl_…")[:8]
    'c59bfc74'
    """
    return sha256(secret.encode("utf-8", "replace")).hexdigest()


class Book:
    """The tokens of a queue in memory, so that who shows a wrong one costs the queue nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until, self._known = 0.0, dict[str, Token]()

    def peek(self, digest: str) -> Token | None:
        """Return the token of a hash if that is in memory; never waits."""
        return self._known.get(digest) if time.monotonic() <= self._until else None

    def find(self, digest: str, read: Callable[[], dict[str, Token]], seconds: float) -> Token | None:
        """Return the token of a hash; what was read holds for some seconds."""
        with self._lock:
            if time.monotonic() > self._until:
                self._known, self._until = read(), time.monotonic() + seconds
            return self._known.get(digest)

    def put(self, digest: str, token: Token) -> None:
        """Take note of a token that was stored."""
        with self._lock:
            self._known = self._known | {digest: token}

    def drop(self, token_id: str) -> None:
        """Take note of a token that lets nobody in any more."""
        with self._lock:
            self._known = {digest: token for digest, token in self._known.items() if token.id != token_id}


class Tokens:
    """The calls of a queue about tokens."""

    store: Store
    _write: Callable[..., Any]
    _read: Callable[..., Any]
    now: Any
    _tokens: Book

    def create_token(
        self, reviewer: str, roles: Sequence[str] = ("reviewer",), expertise: Sequence[str] = (), days: float = 90
    ) -> tuple[str, Token]:
        """Let somebody in over the network; returns the secret, which is kept nowhere, and what is kept.

        Examples
        --------
        >>> from hitl_nb import open_queue
        >>> secret, token = open_queue(":memory:").create_token("ann", expertise=["law"])
        >>> len(secret), token.reviewer, token.expertise, token.roles
        (48, 'ann', ('law',), ('reviewer',))
        """
        if not _listed("roles", roles) or not set(roles) <= set(ROLES):
            raise BadInput(name="roles", value=roles, remedy=f"pass some of {', '.join(ROLES)}")
        if isinstance(days, bool) or not isinstance(days, (int, float)) or not 0 < days <= MOST_DAYS:
            raise BadInput(name="days", value=days, remedy=f"pass how long it holds, up to {MOST_DAYS} days")
        secret, now = f"hitl_{secrets.token_urlsafe(32)}", self.now.replace(microsecond=0, tzinfo=UTC)
        token = Token(
            id=secrets.token_hex(6), reviewer=name("reviewer", reviewer), created_at=now,
            expertise=tuple(name("expertise", word) for word in _listed("expertise", expertise)),
            roles=tuple(role for role in ROLES if role in roles), expires_at=now + timedelta(days=days),
        )  # fmt: skip
        self.store_token(token, hashed(secret))
        return secret, token

    def store_token(self, token: Token, digest: str) -> None:
        """Keep a token made by ``create_token``, under the hash of its secret."""
        self._write(lambda tx: _put(tx, token, digest))
        self._tokens.put(digest, token)

    def tokens(self) -> list[Token]:
        """Return every token, the newest last; those that no longer hold, too."""
        return [*self._by_hash().values()]

    def revoke_token(self, token_id: str) -> None:
        """Let nobody in any more with a token; a server on another machine lets it in for a second yet."""
        self._write(lambda tx: _revoke(tx, token_id))
        self._tokens.drop(token_id)

    def _by_hash(self) -> dict[str, Token]:
        found: dict[str, Token] = self._read(_by_hash, search=False)
        return found

    def token_at_hand(self, secret: str) -> Token | None:
        """Return the token of a secret if it holds and need not be looked up; never waits."""
        token = None if self.store.shared else self._tokens.peek(hashed(secret))
        return token if token is not None and token.lives(self.now) else None

    def token_of(self, secret: str) -> Token | None:
        """Return the token of a secret if it holds."""
        token = self._tokens.find(hashed(secret), self._by_hash, KNOWN if self.store.shared else math.inf)
        return token if token is not None and token.lives(self.now) else None


def _listed(what: str, words: Sequence[str]) -> Sequence[str]:
    if isinstance(words, str) or not all(isinstance(word, str) for word in words):
        raise BadInput(name=what, value=words, remedy=f"pass a list of texts, such as [{words!r}]")
    return words


def _by_hash(tx: Transaction) -> dict[str, Token]:
    return {digest: _token(row) for digest, *row in tx.rows("tokens")}


def _token(row: Sequence[Any]) -> Token:
    found = dict(zip(_COLUMNS, row, strict=True))
    lists = {column: tuple(json.loads(found[column])) for column in ("expertise", "roles")}
    times = {column: aware(found[column]) for column in ("created_at", "expires_at", "revoked_at")}
    return Token(**found | lists | times)


def token_table(tokens: Sequence[Token], now: datetime) -> Table:
    """Return tokens as people see them."""
    heads = ("id", "reviewer", "roles", "expertise", "until", "state")
    rows = [
        (
            one.id, one.reviewer, ", ".join(one.roles), ", ".join(one.expertise), f"{one.expires_at:%Y-%m-%d}",
            "revoked" if one.revoked_at else "holds" if one.lives(now) else "expired",
        )
        for one in tokens
    ]  # fmt: skip
    return table(f"{len(rows)} tokens", heads, rows, [])


def token_row(token: Token, digest: str) -> dict[str, Any]:
    """Return what is stored of a token."""
    naive = {c: getattr(token, c).replace(tzinfo=None) for c in ("created_at", "expires_at")}
    lists = {c: json.dumps(getattr(token, c)) for c in ("expertise", "roles")}
    return {"hash": digest, "id": token.id, "reviewer": token.reviewer, **lists, **naive}


def _put(tx: Transaction, token: Token, digest: str) -> None:
    tx.rows("put_token", **token_row(token, digest))
    tx.note("token", token.reviewer, {"id": token.id, "roles": list(token.roles), "expertise": list(token.expertise)})


def _revoke(tx: Transaction, token_id: str) -> None:
    found = {token.id: token for token in _by_hash(tx).values()}
    if token_id not in found:
        raise BadInput(name="token id", value=token_id, remedy="no token has it; list them with: hitl-nb token list")
    if found[token_id].revoked_at is None:
        tx.rows("revoke_token", id=token_id, now=tx.now)
        tx.note("revoke_token", found[token_id].reviewer, {"id": token_id})
