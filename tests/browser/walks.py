"""What a kernel runs to walk a panel through every hostile payload; the browser sees each item on the way."""

from operator import itemgetter

from browser.payloads import hostile
from hitl_nb import Reviewer, open_queue
from hitl_nb.display import fold
from hitl_nb.panel import ReviewPanel

#: what a person is shown after the walk
NEXT = {"input_data": {"text": "a plain mail"}, "ai_prediction": {"label": "ham"}, "confidence": 0.6, "reason": "next"}


class Panel(ReviewPanel):
    """Draws everything, however soon something else follows."""

    def _draw(self):
        self._draw_now()


def walk_items(plain=True):
    """Show payloads in everything that an item holds; returns the panel, before a plain item."""
    queue, names = open_queue(":memory:"), hostile("ex", 200)
    said = zip(
        hostile("va"), hostile("na"), hostile("la"), hostile("pr"), hostile("pn"), hostile("pv"), hostile("re"),
        hostile("mo", 200), hostile("po", 200), hostile("su", 200), names, hostile("te"), strict=True,
    )  # fmt: skip
    panel = Panel(queue, Reviewer(id="ann", expertise=tuple(names)), labels=hostile("op"), plain=plain)
    for value, name, label, probability, field, part, reason, model, policy, subject, expertise, text in said:
        prediction = {"label": label, "probabilities": {probability: 0.6, "ham": 0.4}, field: part}
        more = {"confidence": 0.6, "reason": reason, "model": model, "policy": policy, "subject": subject}
        for shown in ({"text": text}, {"value": value, name: 1}):
            queue.submit(input_data=shown, ai_prediction=prediction, expertise=expertise, **more)
            panel.retry()
            assert fold(next(iter(shown.values())), 300) in (
                panel.view.shown.text,
                *map(itemgetter(1), panel.view.shown.rows),
            )
            yield panel
            panel.approve()
    queue.submit(**NEXT)
    panel.retry()


def walk_words(plain=True):
    """Show payloads in what people type and in who they are; returns the panel, before a plain item."""
    queue = open_queue(":memory:")
    panel = Panel(queue, "ann", plain=plain)
    for draft, comment, other in zip(hostile("dr"), hostile("co"), hostile("ot", 200), strict=True):
        task = queue.submit(**NEXT)
        panel.retry()
        panel.correct(draft, comment)
        panel.undo()
        assert panel.view.comment.strip() == comment.strip()
        yield panel
        if panel.live:  # what was undone is in hand again
            queue.release(task.task_id, "ann")
        queue.resolve(task.task_id, other, "approve")
        panel.approve()
        yield panel
        panel.skip()
    queue.submit(**NEXT)
    panel.retry()
