"""The nouns and the table of moves. No IO, no clock."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from hitl_nb.errors import BadInput
from hitl_nb.payload import MAX_NAME, name

#: what a prediction may be flagged with
FLAGS = ("is_anomalous", "high_value_transaction", "irreversible", "regulated")


class ReviewOutcome(StrEnum):
    """The answer of a reviewer."""

    APPROVE = "approve"
    REJECT = "reject"
    CORRECT = "correct"


class Priority(StrEnum):
    """Order in the queue."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"

    @property
    def rank(self) -> int:
        """Number to sort by, larger first."""
        return {"high": 2, "medium": 1, "low": 0}[self.value]

    @classmethod
    def ranked(cls, rank: int) -> Priority:
        """Return the priority of a rank."""
        return (cls.LOW, cls.MEDIUM, cls.HIGH)[rank]


class Status(StrEnum):
    """Where a task stands."""

    AUTO_APPROVED = "auto_approved"
    PENDING = "pending_review"
    CLAIMED = "claimed"
    DISPUTED = "disputed"
    REVIEWED = "reviewed"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"


class Move(StrEnum):
    """What can happen to a task; the kinds of events that change its state."""

    AUDIT = "audit"
    CLAIM = "claim"
    RENEW = "renew"
    REVIEW = "review"
    RELEASE = "release"
    LAPSE = "lapse"
    ESCALATE = "escalate"
    HOLD = "hold"
    DENY = "deny"
    NOTE_DEADLINE = "note_deadline"
    UNDO = "undo"
    OBJECT = "object"
    DELIVER = "deliver"
    REOPEN = "reopen"
    REPLACE = "replace"
    REORDER = "reorder"
    WITHDRAW = "withdraw"


_S, _M = Status, Move
_OPEN_MOVES: dict[Move, tuple[Status, ...]] = {
    _M.REPLACE: (_S.PENDING, _S.DISPUTED),
    _M.WITHDRAW: (_S.WITHDRAWN,),
}

#: every state, every legal move, and where it may lead; code only walks this table
MOVES: dict[Status, dict[Move, tuple[Status, ...]]] = {
    _S.AUTO_APPROVED: {_M.AUDIT: (_S.PENDING,)},
    _S.PENDING: {
        _M.CLAIM: (_S.CLAIMED,),
        _M.ESCALATE: (_S.PENDING,),
        _M.HOLD: (_S.PENDING,),
        _M.DENY: (_S.EXPIRED,),
        _M.UNDO: (_S.PENDING,),
        _M.REORDER: (_S.PENDING,),
        **_OPEN_MOVES,
    },
    _S.CLAIMED: {
        _M.REVIEW: (_S.REVIEWED, _S.PENDING, _S.DISPUTED),
        _M.RENEW: (_S.CLAIMED,),
        _M.RELEASE: (_S.PENDING, _S.DISPUTED),
        _M.LAPSE: (_S.PENDING, _S.DISPUTED),
        _M.NOTE_DEADLINE: (_S.CLAIMED,),
        _M.UNDO: (_S.CLAIMED,),
        **_OPEN_MOVES,
    },
    _S.DISPUTED: {
        _M.CLAIM: (_S.CLAIMED,),
        _M.ESCALATE: (_S.DISPUTED,),
        _M.HOLD: (_S.DISPUTED,),
        _M.DENY: (_S.EXPIRED,),
        _M.UNDO: (_S.PENDING, _S.DISPUTED),
        **_OPEN_MOVES,
    },
    _S.REVIEWED: {_M.UNDO: (_S.PENDING, _S.DISPUTED), _M.OBJECT: (_S.DISPUTED,), _M.DELIVER: (_S.REVIEWED,)},
    _S.EXPIRED: {_M.REOPEN: (_S.PENDING,)},
    _S.WITHDRAWN: {},
}

#: what a passed deadline may do; never an approval
ON_DEADLINE = ("escalate", "hold", "deny")
#: how several answers to one task become one
CONSENSUS = ("majority", "unanimous", "adjudicator")
#: states in which an answer is still expected
OPEN = (Status.PENDING, Status.CLAIMED, Status.DISPUTED)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """One rule that fired: why a task was sent to a person."""

    #: name of the rule
    rule: str
    #: sentence with ``{value}`` and ``{bound}`` in it
    says: str
    #: value that the rule saw; None where it could not be read or was erased
    value: Any = None
    #: bound of the rule; None where it has none
    bound: float | str | None = None
    #: where the value stands: ``confidence``, ``input.<name>``, ``prediction.<name>``, ``score.<rule>``; None: nowhere
    field: str | None = None
    #: whether the rule wins over every threshold
    hard: bool = False

    @property
    def text(self) -> str:
        """The reason in words.

        >>> Reason(rule="confidence", says="Low confidence: {value}", value=0.62, bound=0.85).text
        'Low confidence: 0.62'
        """
        value, bound = _number(self.value), _number(self.bound)
        if value == bound and self.value != self.bound:
            value = repr(self.value)
        seen = {"{value}": value[:MAX_NAME], "{bound}": bound[:MAX_NAME]}
        return re.sub(r"\{value\}|\{bound\}", lambda found: seen[found[0]], self.says)

    def as_dict(self) -> dict[str, Any]:
        """Return the reason as a plain dict, its text included."""
        return {"rule": self.rule, "text": self.text, "value": self.value, "bound": self.bound, "field": self.field}


def _number(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".") if 1000 <= abs(value) < 1e15 else f"{value:.4g}"
    return value if isinstance(value, str) else repr(value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reviewer:
    """Who answers: an ``id``, the ``expertise`` beside what anyone may judge, and ``roles``.

    A ``reviewer`` answers, an ``adjudicator`` settles disputes.

    >>> Reviewer(id="ada", expertise=("law",), roles=("reviewer", "adjudicator")).adjudicates
    True
    """

    #: id, as it stands in the log
    id: str
    #: what this person may judge beside the tasks that anyone may
    expertise: tuple[str, ...] = ()
    #: ``reviewer`` answers, ``adjudicator`` settles disputes
    roles: tuple[str, ...] = ("reviewer",)

    def __post_init__(self) -> None:
        name("reviewer", self.id)
        for word in self.expertise:
            name("expertise", word)
        unknown = set(self.roles) - {"reviewer", "adjudicator", "producer", "admin"}
        if unknown:
            raise BadInput(name="roles", value=sorted(unknown), remedy="roles are reviewer and adjudicator")

    @classmethod
    def of(cls, reviewer: str | Reviewer) -> Reviewer:
        """Accept an id where a reviewer is meant; the id alone may judge what anyone may."""
        if isinstance(reviewer, Reviewer):
            return reviewer
        return cls(id=name("reviewer", reviewer))

    @property
    def adjudicates(self) -> bool:
        """Whether this person settles disputes."""
        return "adjudicator" in self.roles


@dataclass(frozen=True, kw_only=True, slots=True)
class Review:
    """One answer to one task."""

    #: task that was answered
    task_id: str
    #: who answered
    reviewer: str
    #: approve, reject or correct
    outcome: ReviewOutcome
    #: what is right instead, for ``correct``
    correction: dict[str, Any] | None = None
    #: what the reviewer wrote beside it
    comment: str | None = None
    #: when, UTC
    at_time: datetime
    #: when the task was taken, UTC; None when it was answered without a claim
    claimed_at: datetime | None = None
    #: lease under which it was answered
    attempt: int
    #: ordinal of the answer within the task, from 1
    number: int
    #: version of the payload that was judged
    version: int
    #: sha256 of that payload
    shown: str
    #: id that the client gave before its first try
    submit_id: str | None = None
    #: whether an adjudicator gave it
    adjudication: bool = False
    #: what now holds: the prediction, the correction, or None for a rejection
    answer: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewTask:
    """One model output that may need a person."""

    #: id, a UUIDv7 as text
    task_id: str
    #: what the model saw; None after erasure
    input_data: dict[str, Any] | None
    #: what it answered; None after erasure
    ai_prediction: dict[str, Any] | None
    #: its confidence, 0 to 1; None if unknown
    confidence: float | None
    #: the strongest reason, in words
    reason: str
    #: order in the queue
    priority: Priority
    #: when it was submitted, UTC
    created_at: datetime
    #: latest time, UTC; None: no deadline
    deadline: datetime | None
    #: where it stands
    status: Status
    #: every rule that fired, strongest first
    reasons: tuple[Reason, ...] = ()
    #: who may judge it; None: anyone
    expertise: str | None = None
    #: how often it has been leased
    attempt: int = 0
    #: version of the payload
    version: int = 1
    #: sha256 of that payload
    shown: str | None = None
    #: escalation level, 0 at first
    level: int = 0
    #: whether its deadline has passed
    overdue: bool = False
    #: whether it is a random audit of an auto-approved decision
    audit: bool = False
    #: probability with which an audit was drawn; 0 where a rule asked for a person; None: not by a policy
    audit_probability: float | None = None
    #: whether answers to it disagree, or one was objected to: an adjudicator settles it
    disputed: bool = False
    #: who holds it
    holder: str | None = None
    #: until when, UTC
    lease_until: datetime | None = None
    #: model that made the prediction
    model: str | None = None
    #: fingerprint of the policy that sent it
    policy: str | None = None
    #: answers that stand, in order; hidden from reviewers until they have answered
    reviews: tuple[Review, ...] = field(default=(), repr=False)


def state_diagram() -> str:
    """Return the table of moves as a Mermaid diagram, as the README prints it: an arrow from state to state."""
    arrows: dict[tuple[Status, Status], list[Move]] = {}
    for status, moves in MOVES.items():
        for move, targets in moves.items():
            for target in targets:
                arrows.setdefault((status, target), []).append(move)
    first = [f"    [*] --> {status}: submit" for status in (Status.AUTO_APPROVED, Status.PENDING)]
    rest = [f"    {status} --> {target}: {', '.join(moves)}" for (status, target), moves in arrows.items()]
    return "\n".join(["stateDiagram-v2", *first, *rest])
