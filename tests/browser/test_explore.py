"""The slider of the lab, moved by the mouse in JupyterLab itself."""

import re
import tomllib

from playwright.sync_api import expect

from hitl_nb import Policy

CODE = """
import numpy as np
from hitl_nb.lab import explore
rng = np.random.default_rng(0)
sure = rng.beta(8, 0.8, 2000)
slider = explore({{"confidence": sure, "wrong": rng.random(2000) > sure}}, path={path!r}, review_cost=1, error_cost=20)
slider
"""


def test_the_mouse_moves_the_slider_and_makes_the_policy(book, page, watch, tmp_path):
    path = tmp_path / "policy.toml"
    book.type(CODE.format(path=str(path)))
    said, done = (page.locator(".jp-OutputArea .widget-textarea textarea").nth(i) for i in (-2, -1))
    expect(said).to_have_value(re.compile("go through without a person .* reviews in 1,000"))
    before = said.input_value()
    handle = page.locator(".widget-hslider .noUi-handle").last
    box = handle.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    expect(said).not_to_have_value(before)
    page.get_by_role("button", name="Make this my policy").last.click()
    expect(done).to_have_value(re.compile("^policy .* is in"))
    made = Policy.from_dict(tomllib.loads(path.read_text("utf-8")))
    assert made.confidence_threshold == book.ask("float(slider.outlook.threshold)")
    assert watch.harm() == {}
