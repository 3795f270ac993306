"""What the review API takes: the bodies of its routes, with an example each."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from hitl_nb.task import ReviewTask

Count = Annotated[int, Field(ge=1, le=1000)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Text = Annotated[str, Field(max_length=10_000)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class Form(BaseModel):
    """A body; what it does not name is refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Claim(Form):
    """How many tasks to take, and for how long."""

    n: Count = Field(1, description="how many tasks at most")
    expertise: Name | None = Field(None, description="only tasks that need it or need none; part of the token's")
    lease_seconds: Seconds = Field(600.0, description="how long they are yours")


class Renewal(Form):
    """Which leases to lengthen."""

    task_ids: list[Name] = Field(min_length=1, max_length=1000, description="tasks that you hold; all of them or none")
    lease_seconds: Seconds = Field(600.0, description="how long they are yours, from now")


class Answer(Form):
    """What a reviewer says about a task."""

    outcome: Literal["approve", "reject", "correct"] = Field(
        description="whether the prediction holds", examples=["correct"]
    )
    correction: dict[str, Any] | None = Field(
        None, description="what is right, for correct", examples=[{"label": "refund"}]
    )
    comment: Text | None = Field(None, description="for people")
    attempt: int | None = Field(None, description="of the task that you claimed: refuses an answer that comes too late")
    submit_id: Name | None = Field(None, description="made before the first try: the same again is stored once")
    shown: str | None = Field(
        None, max_length=64, description="of the task that you saw: refuses an answer about another"
    )


class Remark(Form):
    """Why."""

    reason: Text | None = Field(None, description="in words; of a release: the task is skipped, others get it first")


class Objection(Form):
    """What is wrong with an answer."""

    comment: Text = Field(min_length=1, description="for the adjudicator")


class Task(Form):
    """One model output that a person should judge."""

    input_data: dict[str, Any] = Field(description="what the model saw", examples=[{"text": "Where is my parcel?"}])
    ai_prediction: dict[str, Any] = Field(description="what it answered", examples=[{"label": "refund"}])
    confidence: float | None = Field(None, description="0 to 1; anything else is unknown", examples=[0.62])
    reason: Text = Field(min_length=1, description="why a person is asked", examples=["Low confidence: 0.62"])
    priority: Literal["high", "medium", "low"] | None = Field(None, description="by default from the confidence")
    key: Name | None = Field(None, description="your own id: the same again returns the task that is there")
    subject: Name | None = Field(None, description="whom it is about, for erasure")
    expertise: Name | None = Field(None, description="who may judge it; none: anyone")
    deadline: Annotated[AwareDatetime, Field(strict=False)] | None = Field(
        None, description="latest time, with its zone"
    )
    deadline_seconds: Seconds | None = Field(None, description="latest time, from now")
    on_deadline: Literal["escalate", "hold", "deny"] = Field(
        "escalate", description="what then happens; never an approval"
    )
    escalation: list[Name] = Field([], max_length=20, description="expertise of level 1, 2, …")
    reviews_required: int = Field(1, ge=1, le=20, description="how many people judge it, blind to each other")
    consensus: Literal["majority", "unanimous", "adjudicator"] = Field(
        "majority", description="how their answers become one"
    )
    model: Name | None = Field(None, description="which model predicted")
    policy: Name | None = Field(None, description="which policy sent it")
    group: Name | None = Field(None, description="for statements by group")
    value: float | None = Field(None, allow_inf_nan=False, description="what a wrong decision costs")


class Tasks(Form):
    """Several tasks, stored all or none."""

    tasks: list[Task] = Field(min_length=1, max_length=1000, description="all of them have a key, or none has")


class Claimed(BaseModel):
    """Tasks, best first."""

    tasks: list[ReviewTask]


class Waiting(BaseModel):
    """Where a task stands that has no answer yet; this is neither an approval nor a rejection."""

    task_id: str
    status: str
    level: int = Field(description="escalation level; pass it on to the next call")
    expertise: str | None
    escalated: bool = Field(description="it went to another level since the one that you passed")


class Happening(BaseModel):
    """A line of the log; more of it for an admin."""

    model_config = ConfigDict(extra="allow")
    seq: int
    task_id: str | None
    move: str
    at_time: AwareDatetime


class Happenings(BaseModel):
    """The log after a place."""

    events: list[Happening]


class Well(BaseModel):
    """The queue has just stored something."""

    status: Literal["ok"]


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(examples=["urn:hitl-nb:TaskNotFound"])
    title: str = Field(examples=["No task has this id."])
    status: int = Field(examples=[404])
    detail: str
    error: str = Field(description="its name, which stays the same", examples=["TaskNotFound"])
    values: dict[str, Any]
    next: str = Field(description="what to do", examples=["queue.pending() lists the open ones"])
