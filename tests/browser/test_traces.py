"""What a panel leaves behind: no widgets in the browser, and nothing of an item in the saved notebook."""

from playwright.sync_api import expect

from browser.test_judging import MAILS, QUEUE, code

#: comms that the browser holds; each is a model of a widget
MODELS = """() => {
    const {kernel} = window.jupyterapp.shell.currentWidget.context.sessionContext.session;
    return [kernel._comms.size, document.querySelectorAll('.hitl *').length];
}"""


MORE = """
import pandas as pd
said = {"label": "spam", "confidence": 0.6, "probabilities": {"spam": 0.6, "ham": 0.4}}
orchestrator.process_frame(pd.DataFrame({"text": ["x" * (i % 50) for i in range(500)], "n": range(500)}), [said] * 500)
"""


def test_five_hundred_decisions_add_no_widget_and_no_element(book, panel, page):
    book.type(code(MAILS, n=3))
    book.tell(MORE)
    panel.judge("Approve", 1)
    count = "len(__import__('ipywidgets').widgets.widget._instances)"
    before, shown = book.ask(count), page.evaluate(MODELS)
    for _ in range(10):  # of thousands of messages at once a slow notebook server loses some
        book.tell("for i in range(50): panel.correct('ham') if i % 2 else panel.approve()")
    panel.counts(501)
    panel.judge("Approve", 502)
    assert book.ask(count) - before <= 10
    models, elements = page.evaluate(MODELS)
    assert models - shown[0] <= 10
    assert elements - shown[1] <= 10


SECRET = """
mark = "-".join(["top", "secret"])
queue.submit(
    input_data={{"text": f"{{mark}} input", f"{{mark}} name": 1}}, confidence=0.5, model=f"{{mark}} model",
    ai_prediction={{"label": f"{{mark}} label", "probabilities": {{f"{{mark}} share": 0.5}}}},
    reason=f"{{mark}} reason", subject=f"{{mark}} subject", priority="high",
)
panel = ReviewPanel(queue, reviewer="ann", plain=True)
panel
"""


def test_a_saved_notebook_holds_nothing_of_an_item(book, panel):
    book.type(code(QUEUE + SECRET, n=0))
    panel.says("top-secret input", box="Input")
    panel.box("Note").fill("top-secret note")
    panel.box("Correct to").fill("top-secret answer")
    while_shown = book.save()
    panel.click("Correct")
    panel.says("top-secret answer", box="Last")
    panel.click("Finish")
    expect(panel.root).to_contain_text("Finished")
    for saved in (while_shown, book.save()):
        assert "application/vnd.jupyter.widget-view+json" in saved
        assert "ReviewPanel('ann'" in saved
        assert "top-secret" not in saved
