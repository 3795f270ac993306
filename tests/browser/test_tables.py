"""A cell that ends with decisions, a policy or a queue shows outside text as text, in JupyterLab itself."""

import re
from pathlib import Path

from playwright.sync_api import expect

TESTS = Path(__file__).parents[1]
SETUP = f"""
import sys; sys.path.append({str(TESTS)!r})
import pandas as pd
from payloads import MARKUP
from hitl_nb import FieldAbove, Orchestrator, Policy, Reviewer, open_queue
texts = ["$x^2$ and $$y$$", r"\\(z\\)", *MARKUP]
queue, policy = open_queue(":memory:"), Policy(rules=[FieldAbove(field=text, bound=1) for text in texts])
inputs = pd.DataFrame([dict.fromkeys(texts, 2)] * len(texts), index=texts)
decided = Orchestrator(queue=queue, policy=policy).process_frame(inputs, [dict(label=t, confidence=0.9) for t in texts])
for text in texts:
    queue.resolve(queue.submit(input_data={{}}, ai_prediction={{}}, reason=text, expertise=text).task_id,
                  Reviewer(id=text, expertise=(text,)), "reject", comment=text)
"""


def test_no_table_runs_or_typesets_what_comes_from_outside(page, watch, open_notebook):
    book = open_notebook(SETUP)
    book.run()
    watch.forget()
    for thing, text in {"decided": "$x^2$", "policy": "$x^2$ and $$y$$ above 1", "queue": r"$\href{"}.items():
        book.type(f"from IPython.display import HTML, display\ndisplay({thing}, HTML('$control^2$'))")
        shown, control = (page.locator(".jp-OutputArea-output:visible").nth(i) for i in (-2, -1))
        expect(control.locator("mjx-container")).to_be_visible()
        expect(shown).to_contain_text(re.compile(re.escape(text)))
        assert shown.locator("table").count() == 1
        assert shown.locator("script, img, svg, style, a, mjx-container").count() == 0
    assert watch.harm() == {}
