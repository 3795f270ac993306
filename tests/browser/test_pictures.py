"""The pictures of the README that no other test takes: real rows, in JupyterLab itself.

``HITL_STORE_PICTURE=1 pytest tests/browser`` stores every picture of the documentation anew.
"""

import io
import os
import re
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect

from browser.test_first_minutes import STORE
from browser.test_look import keep, theme, width  # noqa: F401

DOCS = Path(__file__).parents[2] / "docs"
ROWS = """
import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LogisticRegression
from hitl_nb.lab import explore, from_probabilities, risk_coverage
from hitl_nb.shipped import load_spam
plt.style.use("hitl_nb.notebook")
mails = load_spam().sample(frac=1, random_state=0)
X, y = np.log1p(mails.drop(columns="label")), mails["label"]
model = LogisticRegression(solver="newton-cg", tol=1e-8).fit(X[:1000], y[:1000])
said = from_probabilities(model.predict_proba(X[1000:2800]), y[1000:2800], model.classes_)
"""


@pytest.fixture
def stored(page):
    """Take a picture of an output; returns it, and stores it where that is asked for."""

    def take(area, name):
        area.scroll_into_view_if_needed()
        page.mouse.move(0, 0)
        png = area.screenshot()
        if os.environ.get(STORE):
            keep(png, DOCS / name)
        return Image.open(io.BytesIO(png)).convert("RGB")

    return take


@pytest.mark.parametrize("name", ["Light", "Dark"])
def test_the_explorer_on_real_mails(book, page, theme, width, stored, name):  # noqa: F811
    theme(f"JupyterLab {name}")
    width(1000)
    book.type(ROWS + "explore(said, review_cost=1, error_cost=20)")
    area = page.locator(".jp-OutputArea:visible .widget-vbox").last
    expect(area.locator("textarea").first).to_have_value(re.compile("go through without a person"))
    picture = stored(area, f"explorer-{name.lower()}.png")
    assert picture.width > 500
    assert (sum(picture.resize((1, 1)).getpixel((0, 0))) > 384) == (name == "Light")


def test_the_curve_on_real_mails(book, page, width, stored):  # noqa: F811
    width(1000)
    book.type(ROWS + "risk_coverage(said).plot(); plt.gcf().set_size_inches(7, 3.2)")
    image = page.locator(".jp-OutputArea:visible .jp-RenderedImage img").last
    expect(image).to_be_visible()
    page.wait_for_function("() => [...document.images].every(image => image.complete)")
    picture = stored(image, "curve.png")
    assert picture.width > 400
    assert len(picture.getcolors(2**24)) > 50
