"""Every error of the package, as one tree.

Each class states a fact; the values are attributes; the message ends with the next step.

>>> TaskNotFound(task_id="42").task_id
'42'
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

#: values that are words of our own and stand in a message without quotes
_OURS = ("move", "name", "problems", "reason", "remedy", "status", "what")
#: longest piece of an outside value that a message repeats, in characters
SHOWN = 200


def shown(value: object) -> str:
    """Return outside data as one short, printable line.

    >>> shown("two lines".replace(" ", chr(10)))  # doctest: +ELLIPSIS
    "'two...lines'"
    """
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S} {value.tzname() or 'UTC'}"
    text = str(value) if isinstance(value, _Plain) else repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


class _Plain(str):
    """Text of our own, shown in a message without quotes."""

    __slots__ = ()


def plain(text: object) -> str:
    """Mark text of our own, to be shown in a message as it is."""
    return _Plain(text)


class HitlError(Exception):
    """Root of all errors; keyword arguments become attributes and fill the sentence."""

    says = "{what}"

    def __init__(self, **values: Any) -> None:
        self.values = values
        for name, value in values.items():
            setattr(self, name, value)
        ours = {name: str(value) if name in _OURS else shown(value) for name, value in values.items()}
        super().__init__(self.says.format(**ours))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.values)


def _restore(kind: type[HitlError], values: dict[str, Any]) -> HitlError:
    return kind(**values)


# -- bad input ---------------------------------------------------------------------------------------------------------


class BadInput(HitlError, ValueError):
    """A value from outside that cannot be used; nothing was written."""

    says = "{name} = {value}: {remedy}"

    def __init__(self, *, name: str, value: object, remedy: str, **more: Any) -> None:
        super().__init__(name=name, value=value, remedy=remedy, **more)


class NoCanonicalForm(BadInput):
    """A value that has no canonical text, named by the key under which it stands."""


class TooLarge(BadInput):
    """A value over a stated limit."""


# -- policy ------------------------------------------------------------------------------------------------------------


class PolicyError(HitlError):
    """Something about rules and policies."""


class UnknownRule(PolicyError):
    """A stored policy names a rule, detector or predicate that was not handed in."""

    says = "rule {rule} is not known here; pass it as Policy.from_dict(d, using={{{rule}: object}})"


class RuleChanged(UnknownRule):
    """A detector or predicate of that name was handed in, but its content is another."""

    says = (
        "{rule} was stored with content {stored} and the object given has {given}; "
        "pass the object that the policy was made with, or make a new policy"
    )


# -- queue -------------------------------------------------------------------------------------------------------------


class QueueError(HitlError):
    """Something about the queue or one of its tasks."""


class TaskNotFound(QueueError, LookupError):
    """No task has this id."""

    says = "no task {task_id} in this queue; queue.pending() lists the open ones"


class IllegalMove(QueueError):
    """The task is in a state that does not allow the call."""

    says = "task {task_id} is {status} and cannot {move}; {remedy}"


class LeaseLost(QueueError):
    """Somebody else holds the task, or the caller's own lease has ended."""

    says = "task {task_id} is held by {holder}; nothing was stored, claim another task"


class AlreadyReviewed(QueueError):
    """The task has its answer; a late one never overwrites it."""

    says = "task {task_id} was answered by {by} at {when}; use object() to ask for a second look"


class SubmitConflict(QueueError):
    """A submit id came again with other content."""

    says = "submit id {submit_id} was used for another answer (task {task_id}); use a new id for a new answer"


class KeyConflict(QueueError):
    """An ingest key came again with other content."""

    says = "key {key} belongs to task {task_id} with other content; use replace() to change it, or a new key"


class NotQualified(QueueError, PermissionError):
    """The reviewer may not judge this task."""

    says = "{reviewer} may not judge task {task_id}: {remedy}"


class UndoRefused(QueueError):
    """The answer was delivered already, or is not the caller's."""

    says = "the answer to task {task_id} cannot be undone: {remedy}"


class ItemChanged(QueueError):
    """The payload was replaced after it was shown; the answer was about the old one."""

    says = "task {task_id} was changed after it was shown; look at it again and answer anew"


class PayloadErased(QueueError):
    """The payload was erased on request; only its facts remain."""

    says = "the payload of task {task_id} was erased at {when}; there is nothing left to show or to judge"


class QueueClosed(QueueError):
    """The queue was closed, or stopped after a fatal error of the engine."""

    says = "the queue {path} is closed ({reason}); open it again with open_queue({path})"


class QueueLocked(QueueError):
    """Another process owns the file."""

    says = (
        "{path} is open in {owner}; close the queue there (queue.close(), or end that process) and try again, "
        "or choose another path"
    )


class OwnerEnded(QueueError):
    """A process that was started to own the file ended before it answered."""

    says = (
        "a process that was started to own {path} ended at once, {times} times; see why with: "
        "hitl-nb serve {path} --idle 300, or own the file here: open_queue(path)"
    )


class WrongToken(QueueError, PermissionError):
    """The process that owns the file refused the token."""

    says = (
        "process {pid}, which has {path} open, refused the token; pass open_queue(path, token=…) with the one that it "
        "was opened with, or close the queue there"
    )


class TokenRefused(QueueError, PermissionError):
    """A server was shown no token, or one that lets nobody in."""

    says = "no token, or one that is unknown, expired or revoked; ask an admin for one (hitl-nb token create)"


class NotAllowed(QueueError, PermissionError):
    """The holder of a token may not make this call."""

    says = "{who} may not {call}: {remedy}"


class NoSuchPage(BadInput):
    """A server has nothing under this method and path."""


class TooSlow(BadInput):
    """A message was not there in time; nothing of it was done."""


class ServerBusy(QueueError):
    """The server has as much to do as it takes on; nothing of this call was done."""

    says = "the server is busy with {calls} calls; ask again in a second"


class NoServer(QueueError):
    """Nobody answers at an address."""

    says = "{url} does not answer ({reason}); see that it is served there (hitl-nb serve), and call again"


class OwnerFailed(QueueError):
    """The process that owns the file met an error that is none of the queue's own."""

    says = "the process that owns {path} failed in {call} ({reason}); look into what it has logged"


class NotAQueue(QueueError):
    """The file is no queue of this package."""

    says = "{path} is not a review queue ({reason}); choose another path, the file was left as it is"


class QueueReadOnly(QueueError):
    """The file cannot be written."""

    says = "{path} cannot be written ({reason}); make it and its folder writable, or copy it elsewhere"


class QueueTooNew(QueueError):
    """The file was written by a newer version."""

    says = "{path} has schema version {version}, this package knows up to {known}; install a newer hitl_nb"


class MigrationFailed(QueueError):
    """A file of an older version could not be brought to the present one."""

    says = (
        "{path} could not be brought to schema version {version} ({reason}); nothing is lost: see that its folder can "
        "be written and has room for a copy and open it again, or use the hitl_nb that wrote it"
    )


class StorageFailed(QueueError):
    """The engine could not write; nothing of this call was stored."""

    says = "nothing of this call was stored: {reason}; what was acknowledged before is safe"


class OutcomeUnknown(QueueError):
    """The server went away while it stored something, and did not come back to tell."""

    says = (
        "the server went away in the middle of a commit ({reason}), and whether this call was stored is not known; "
        "once it is back, look with queue.get(), or repeat the call with the same submit_id or key: it is stored once"
    )


class QueueDamaged(QueueError):
    """The file, or what belongs to it, is not what was written; nothing in it was changed."""

    says = (
        "{path} is damaged: {problems}; save what its log holds with: hitl-nb rebuild {path} NEW, or restore the "
        "newest backup (hitl-nb doctor {path} looks into everything); nothing was changed"
    )


# -- waiting -----------------------------------------------------------------------------------------------------------


class WaitTimeout(HitlError, TimeoutError):
    """No answer yet; neither an approval nor a rejection."""

    says = "no answer for task {task_id} after {seconds} s; the task stays in the queue, wait again"


class TaskExpired(HitlError):
    """The deadline passed and the policy said deny; nobody judged the task."""

    says = "task {task_id} expired at {when} without a judgement; queue.reopen() asks again"


class TaskEscalated(HitlError):
    """The task went to the next level while the caller waited; it is still open."""

    says = "task {task_id} was escalated to level {level} (expertise {expertise}); it is still open, wait again"


class TaskWithdrawn(HitlError):
    """The task was taken back; there will be no answer."""

    says = "task {task_id} was withdrawn: {reason}; submit it anew if it is still needed"


# -- evidence, lab, learner --------------------------------------------------------------------------------------------


class EvidenceError(HitlError):
    """The data cannot carry the statement."""


class CannotReplay(EvidenceError):
    """A rule needs a field that the history does not hold."""

    says = "rule {rule} needs {field}, which this history does not hold; use history(inputs=True)"


class LearnerError(HitlError):
    """Something about selection, training or stored models."""


class NotEnoughSamples(LearnerError):
    """Fewer usable rows than a fit needs."""

    says = "{have} reviewed samples, {needed} needed to retrain; review {missing} more or lower min_samples"

    def __init__(self, *, have: int, needed: int) -> None:
        super().__init__(have=have, needed=needed, missing=needed - have)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), {"have": self.values["have"], "needed": self.values["needed"]})


class FitFailed(LearnerError):
    """The estimator raised; champion and buffer are as they were."""

    says = "the estimator could not be fitted ({reason}); champion and buffer are unchanged"


class RetrainRunning(LearnerError):
    """Another retrain or rollback has the models, here or in another process."""

    says = "a retrain is running already in {where}; wait for its report"


class RetrainCancelled(LearnerError):
    """Somebody cancelled a retrain; the model in use, its rows and its count are as they were."""

    says = "cancelled {stage}; the model in use stays, start it again whenever you like"


class ModelNotFound(LearnerError, LookupError):
    """The model store has no such version."""

    says = "no model {version} in {path}; stored versions: {known}"


class UntrustedModel(LearnerError):
    """A model file is altered or holds types that are not on the list."""

    says = "model {version} was not loaded: {reason}; retrain, or name the types in trusted=[…] if you wrote them"
