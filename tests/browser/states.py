"""Every state of the panel with keys: how to bring it there, and what it then says. All items are invented."""

from dataclasses import dataclass

START = """
import threading
from datetime import UTC, datetime, timedelta
from flaky import Flaky
from hitl_nb import Orchestrator, Policy, Reviewer, open_queue
from hitl_nb.panel import ReviewPanel
from hitl_nb.queue import ReviewQueue
MAILS = [
    "Your parcel could not be delivered. Pay 1.99 to have it sent again.",
    "The minutes of Tuesday are attached; please check the second item.",
    "You won a voucher! Answer within 24 hours to claim it.",
    "Lunch on Friday? The usual place, at noon.",
]
late, gate = [timedelta()], threading.Event()
queue = open_queue(":memory:", clock=lambda: datetime.now(UTC).replace(tzinfo=None) + late[0])
orchestrator = Orchestrator(queue=queue, policy=Policy(0.85, audit_rate=0))
def ask(text, spam=0.62, **more):
    said = {"label": "spam", "confidence": spam, "probabilities": {"spam": spam, "ham": 1 - spam}, "model": "mail-3"}
    return orchestrator.process({"text": text, "links": len(text) % 4, **more}, said)["task_id"]
store = Flaky(queue.store)
def show(reviewer="ann", labels=("ham", "spam"), **options):
    return ReviewPanel(ReviewQueue(store), reviewer=reviewer, labels=labels, **options)
"""
#: the panel before four mails, as most states have it
FOUR = "for mail in MAILS: ask(mail)\npanel = show()\npanel"
#: writes wait from now on
WAIT = """
def held(*work, **options):
    gate.wait()
    return queue.store.write(*work, **options)
store.write = held
"""
LOOP = """
from sklearn.linear_model import LogisticRegression
from hitl_nb.learner import Learner
from hitl_nb.loop import Loop
class Model(LogisticRegression):
    def fit(self, *args, **options):
        {fit}
        return super().fit(*args, **options)
for i in range(12):
    queue.submit(input_data={{"x": float(i)}}, ai_prediction={{"label": "low"}}, confidence=0.5, reason="first labels")
panel = show(labels=["low", "high"], loop=Loop(queue, Learner(Model(), min_samples=4)))
for i in range(6):
    panel.correct("high" if i > 2 else "low")
panel
"""
FORM = """
from typing import Literal
from pydantic import BaseModel, Field
class Claim(BaseModel):
    kind: Literal["water", "fire", "theft"]
    amount: float = Field(ge=0, le=5000)
    urgent: bool = False
queue.submit(input_data={"letter": "The kitchen has been under water since Monday; the repair costs 7,200."},
             ai_prediction={"kind": "fire", "amount": 720.0, "urgent": False}, confidence=0.55, reason="unsure")
panel = show(labels=None, schema=Claim)
panel
"""
DISPUTE = """
task = queue.submit(input_data={"text": MAILS[0]}, ai_prediction={"label": "spam"}, confidence=0.6, reason="unsure",
                    reviews_required=2, consensus="unanimous").task_id
queue.resolve(task, "bob", "approve")
queue.resolve(task, "eve", "correct", {"label": "ham"}, "the sender is our own shop")
panel = show(Reviewer(id="ann", roles=("reviewer", "adjudicator")))
panel
"""
AUDIT = """
queue.submit(input_data={"text": MAILS[3]}, ai_prediction={"label": "ham"}, confidence=0.97, reason="audit", audit=True)
panel = show()
panel
"""
ALIKE = """
queue.resolve(ask(MAILS[0].replace("1.99", "4.50"), links=1), "bob", "approve")
mail = "Could your parcel not be delivered? It was to be sent on Monday."
queue.resolve(ask(mail, links=1), "bob", "correct", {"label": "ham"}, "seen before")
ask(MAILS[0], links=1)
panel = show()
panel
"""
TICKET = "panel.view.ticket.split(':')[0]"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """How a panel comes into a state, and how it looks there."""

    #: what the state is
    about: str
    #: what is then said
    says: str
    #: the cell after ``START``
    code: str = FOUR
    #: run in the kernel once the panel stands
    tell: str = ""
    #: pressed after that
    keys: str = ""
    #: typed into a field after that, and sent with Enter
    typed: tuple[str, str] = ()
    #: whether the kernel ends before the keys are pressed
    ends: bool = False


STATES = {
    "connecting": Stage(
        about="Nothing has come from the kernel yet.", says="Connecting",
        code=FOUR.removesuffix("panel") + "panel.live._send = lambda **options: None\npanel",
    ),
    "item": Stage(about="An item waits for a judgement.", says="Your judgement, please"),
    "help": Stage(about="All keys, after `?`.", says="The prediction is right", keys="?"),
    "refused": Stage(
        about="A correction that cannot be right is not stored.", says="labels are ham, spam",
        tell="panel.correct('eggs')",
    ),
    "form": Stage(
        about="A correction of several fields, each checked before anything is stored.",
        says="pass a number from 0 to 5000", code=FORM, typed=("amount", "7200"),
    ),
    "several": Stage(about="Several items at once, after `g`.", says="Approve all 4", keys="g"),
    "similar": Stage(about="Judged tasks that are like this one, after `l`.", says="seen before", code=ALIKE, keys="l"),
    "audit": Stage(about="An audit is judged without seeing the model's answer.", says="judged blind", code=AUDIT),
    "dispute": Stage(about="Two answers disagree; no name is shown.", says="our own shop", code=DISPUTE),
    "saving": Stage(
        about="The last item is being saved.", says="Saving", code="ask(MAILS[0])\npanel = show()\npanel", tell=WAIT,
        keys="a",
    ),
    "empty": Stage(
        about="Nothing waits for this reviewer; others have work.", says="Open for others: law 2", code="""
for text in MAILS[:2]:
    queue.submit(input_data={"text": text}, ai_prediction={"label": "ham"}, reason="a contract", expertise="law")
ask(MAILS[0])
panel = show()
panel
""", tell="panel.approve()",
    ),
    "error": Stage(
        about="An answer could not be saved; it is kept.", says="Not saved yet",
        tell="store.fails = 9; panel.correct('ham')",
    ),
    "lease_expired": Stage(
        about="The lease ran out while the item was on the screen.", says="Your time for this item ran out",
        tell="late[0] = timedelta(hours=1); queue.tick(); queue.claim('bob'); panel.controller.heartbeat()",
    ),
    "conflict": Stage(
        about="Somebody else was faster.", says="answered by 'bob'",
        tell=f"task = {TICKET}; queue.release(task, 'ann')\nqueue.resolve(task, 'bob', 'approve'); panel.reject('hm')",
    ),
    "item_changed": Stage(
        about="The item was replaced meanwhile.", says="changed",
        tell=f"queue.replace({TICKET}, {{'text': 'new'}}, {{'label': 'ham'}}); panel.approve()",
    ),
    "cannot_display": Stage(
        about="The user's own renderer failed; the fields stand in its place.", says="render raised KeyError",
        code=FOUR.replace("show()", "show(render=lambda item: item['page'])"),
    ),
    "read_only": Stage(
        about="The file cannot be written.", says="nothing can be saved", tell=(
            "from hitl_nb.errors import QueueReadOnly\n"
            "store.error, store.fails = QueueReadOnly(path='reviews.duckdb', reason='disk mounted read-only'), 9\n"
            "panel.approve()"
        ),
    ),
    "retraining": Stage(
        about="A model is trained while reviews go on.", says="Retraining: fitting", tell="panel.retrain()",
        code=LOOP.format(fit="gate.wait()"),
    ),
    "retrain_failed": Stage(
        about="That failed; the reviews go on.", says="no room for the features", tell="panel.retrain()",
        code=LOOP.format(fit="raise MemoryError('no room for the features')"),
    ),
    "disconnected": Stage(
        about="The kernel is gone; what was not saved is listed.", says="Not known to be saved", keys="ar", ends=True
    ),
    "finished": Stage(
        about="The end of a sitting, in one sentence.", says="judged", tell="panel.correct('ham')\npanel.finish()"
    ),
}  # fmt: skip
