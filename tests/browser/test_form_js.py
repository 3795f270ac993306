"""The form in which a correction is entered, on a bare page: filtering, chips, bounds, differences, errors."""

from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pydantic
import pytest
from payloads import HIDDEN, MARKUP

from browser.conftest import LONG
from hitl_nb.errors import BadInput
from hitl_nb.panel import sitting
from hitl_nb.panel.correction import checker
from hitl_nb.panel.view import _pairs

JS = Path(sitting.__file__).parent / "js"
SCRIPT = "".join((JS / f"{name}.js").read_text(encoding="utf-8") for name in ("dom", "form"))
LABELS = ["refund", "delivery", "re-delivery", "refused", "Ärger"]
#: fields that show nothing where nothing is wrong
TEXTS = {"wrong": ".hitl-live-wrong", "was": ".hitl-live-was", "note": ".hitl-live-note"}


class Claim(pydantic.BaseModel):
    kind: Literal["refund", "delivery"]
    amount: float = pydantic.Field(ge=0, le=100)
    count: int = pydantic.Field(gt=0, description="of parcels")
    paid: bool | None = None
    sure: bool = True
    note: str = pydantic.Field(default="", max_length=10)
    tags: list[str] = []
    price: Decimal | None = None


#: what a model said, and what is sent when it is left as it is
SAID = {"kind": "refund", "amount": 12.0, "count": 2, "paid": True, "note": "hm", "tags": ["a"], "price": "12.50"}


@pytest.fixture(scope="module")
def page(chrome):
    found = chrome.new_page()
    found.set_default_timeout(LONG)
    found.set_content("<div id=root></div>")
    found.evaluate("() => { window.hits = []; window.hit = (id) => window.hits.push(id ?? 1); }")
    found.add_script_tag(content=SCRIPT)
    yield found
    found.close()


class Form:
    """A form on the page, and the checker that has the last word."""

    def __init__(self, page, check):
        self.page, self.kernel = page, check
        page.evaluate(
            """(spec) => {
                window.sent = 0;
                window.form = makeForm(spec, () => { window.sent += 1; });
                document.querySelector("#root").replaceChildren(form.root);
            }""",
            check.spec(),
        )
        self.input = page.locator("#root input").first
        self.rows = page.locator("[role=option]")

    def do(self, call, *arguments):
        return self.page.evaluate(f"(given) => form.{call}(...given)", list(arguments))

    def fill(self, entered=(), predicted=(), *more):
        self.do("fill", [list(one) for one in entered], [list(one) for one in predicted], *more)

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)

    def type(self, text):
        self.input.click()
        self.page.keyboard.type(text)

    def stored(self):
        assert self.do("check") == ""
        return self.kernel.check(self.do("read"))

    def field(self, name):
        """Return the box of a named field, by its label."""
        return self.page.locator("#root .hitl-live-field", has=self.page.locator(f"label:text-matches('^{name}( |$)')"))

    def box(self, name):
        return self.field(name).locator("input, select, textarea").first

    def says(self, name, what):
        return self.field(name).locator(TEXTS[what]).first.text_content()

    @property
    def sent(self):
        return self.page.evaluate("window.sent")

    @property
    def focused(self):
        return self.page.evaluate("document.activeElement.labels?.[0]?.textContent ?? document.activeElement.tagName")


@pytest.fixture
def form(page):
    return lambda *args, **options: Form(page, checker(*args, **options))


# -- one label


def test_typing_filters_and_enter_takes_then_sends(form):
    one = form(LABELS)
    one.type("RE")
    assert one.rows.all_text_contents() == ["refund", "re-delivery", "refused"]
    assert one.input.get_attribute("aria-expanded") == "true"
    one.press("ArrowDown", "ArrowDown", "ArrowUp")
    marked = one.page.locator("[aria-selected=true]")
    assert marked.all_text_contents() == ["re-delivery"]
    assert one.input.get_attribute("aria-activedescendant") == marked.get_attribute("id")
    one.press("Enter")
    assert (one.input.input_value(), one.sent, one.rows.count()) == ("re-delivery", 0, 0)
    assert one.input.get_attribute("aria-expanded") == "false"
    one.press("Enter")
    assert one.sent == 1
    assert one.stored() == {"label": "re-delivery"}


def test_what_begins_with_the_typed_text_comes_before_what_holds_it(form):
    one = form(LABELS)
    one.type("deli")
    assert one.rows.all_text_contents() == ["delivery", "re-delivery"]


def test_a_click_takes_a_label_and_the_box_keeps_the_focus(form):
    one = form(LABELS)
    one.input.click()
    assert one.rows.count() == len(LABELS)
    one.rows.nth(1).click()
    assert one.stored() == {"label": "delivery"}
    assert one.focused == "Correct to"


def test_a_whole_label_that_was_typed_is_sent_at_once(form):
    one = form(LABELS)
    one.type("refund")
    one.press("Enter")
    assert (one.sent, one.stored()) == (1, {"label": "refund"})


def test_escape_closes_the_list_and_goes_no_further(form):
    one = form(LABELS)
    one.page.evaluate("() => { document.onkeydown = (event) => { window.seen = event.key; }; }")
    one.type("re")
    one.page.evaluate("window.seen = null")
    one.press("Escape")
    assert (one.rows.count(), one.page.evaluate("window.seen")) == (0, None)
    one.press("Escape")
    assert one.page.evaluate("window.seen") == "Escape"
    one.page.evaluate("() => { document.onkeydown = null; }")


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("", "needed"),
        ("x", "no such label: choose one of the list"),
        ("ref", "no such label: choose one of the list"),
        ("Refund", "no such label; it reads like refund"),
        ("A\u0308RGER", "no such label; it reads like Ärger"),
    ],
)
def test_only_a_whole_label_is_right(form, typed, says):
    one = form(LABELS)
    one.type(typed)
    assert one.do("check") == says
    assert one.says("Correct to", "wrong") == says
    assert one.input.get_attribute("aria-invalid") == "true"
    with pytest.raises(BadInput):
        one.kernel.check(one.do("read"))
    one.type("y")
    assert (one.says("Correct to", "wrong"), one.input.get_attribute("aria-invalid")) == ("", "false")


def test_a_new_label_is_named_as_one_before_it_is_sent(form):
    one = form(LABELS, new_labels=True)
    one.type("re lost")
    assert one.rows.all_text_contents() == ["new label: re lost"]
    one.press("Enter")
    assert (one.sent, one.says("Correct to", "note")) == (0, "new label: re lost")
    one.press("Enter")
    assert (one.sent, one.stored()) == (1, {"label": "re lost"})
    one.do("offer", one.kernel.spec())
    one.fill((), (), "next item")
    one.type("re l")
    assert one.rows.all_text_contents() == ["re lost", "new label: re l"]


def test_what_reads_like_a_label_is_that_label_and_no_new_one(form):
    one = form(LABELS, new_labels=True)
    one.type(" REFUND")
    assert one.rows.all_text_contents() == ["refund"]
    assert "reads like refund" in one.do("check")
    one.input.press("Enter")
    assert one.stored() == {"label": "refund"}


def test_labels_that_are_not_listed_can_be_typed(form):
    one = form([f"label {i}" for i in range(3000)])
    one.type("label 2999")
    assert "1000 more labels are not listed" in one.says("Correct to", "note")
    assert one.stored() == {"label": "label 2999"}
    one.input.fill("label")
    assert one.rows.count() == 100
    assert "1900 more match" in one.says("Correct to", "note")


def test_a_label_of_two_lines_can_be_chosen(form):
    one = form(["a\nb", "ab "])
    one.type("a")
    one.press("Enter")
    assert one.stored() == {"label": "a\nb"}


# -- several labels


def test_several_labels_are_chips_that_can_be_taken_away(form):
    many = form(LABELS, multiple=True)
    many.type("refus")
    many.press("Enter")
    many.page.keyboard.type("deliv")
    many.press("Enter")
    many.page.keyboard.type("refund")
    many.press("Enter")
    assert (many.sent, many.do("read")) == (0, ["refused", "delivery", "refund"])
    many.page.get_by_role("button", name="remove refused").click()
    assert (many.do("read"), many.focused) == (["delivery", "refund"], "Correct to")
    many.press("Backspace")
    assert many.do("read") == ["delivery"]
    many.press("Enter")
    assert (many.sent, many.stored()) == (1, {"label": ["delivery"]})


def test_a_chosen_label_is_not_offered_again(form):
    many = form(LABELS, multiple=True)
    many.fill((), _pairs({"label": ["refund", "unknown"]}))
    assert many.do("read") == ["refund"]
    many.type("refund")
    assert (many.rows.count(), many.says("Correct to", "note")) == (0, "chosen already")
    assert many.do("check") == "press Enter to add refund, or clear it"
    assert many.says("Correct to", "was") == 'was: ["refund", "unknown"]'


def test_several_labels_may_be_new(form):
    many = form(LABELS, multiple=True, new_labels=True)
    for text in ("lost", "broken"):
        many.type(text)
        many.press("Enter")
    many.type("LOST")
    assert many.rows.count() == 0
    many.input.fill("")
    assert many.stored() == {"label": ["lost", "broken"]}


# -- numbers


@pytest.mark.parametrize(
    ("schema", "typed", "says", "stored"),
    [
        ((0, 5), "2.5", "", 2.5),
        ((0, 5), "0", "", 0.0),
        ((0, 5), "5.1", "pass a number from 0 to 5", None),
        ((0, 5), "-", "pass a number from 0 to 5", None),
        ((0, 5), "", "needed", None),
        (range(1, 6), "3", "", 3),
        (range(1, 6), "2.5", "pass a whole number from 1 to 5", None),
        (range(2**60), "9007199254740993", "", 9007199254740993),
    ],
)
def test_a_number_is_within_its_bounds(form, schema, typed, says, stored):
    one = form(schema=schema)
    assert one.says("Correct to", "note") == one.kernel.spec()["range"]
    one.type(typed)
    assert one.do("check") == says
    if says:
        with pytest.raises(BadInput):
            one.kernel.check(one.do("read"))
    else:
        assert one.stored() == {"label": stored}


def test_turning_the_wheel_changes_no_number(form):
    one = form(schema=(0, 5))
    one.type("3")
    one.input.hover()
    one.page.mouse.wheel(0, 300)
    one.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert one.stored() == {"label": 3.0}


# -- free text


def test_free_text_is_sent_as_it_was_typed(form):
    one = form()
    box = one.page.locator("#root textarea")
    box.fill("two")
    box.press("Shift+Enter")
    one.page.keyboard.type("lines")
    box.press("Enter")
    assert (one.sent, one.stored()) == (1, {"label": "two\nlines"})


# -- forms


def test_a_form_starts_from_the_prediction_and_left_alone_it_is_the_prediction(form):
    claim = form(schema=Claim)
    claim.fill((), _pairs(SAID), "item 1")
    assert claim.do("isEmpty")
    empty = {name: claim.box(name).locator("option").first.text_content() for name in ("kind", "paid", "sure")}
    assert empty == {"kind": "choose …", "paid": "unknown", "sure": "default"}
    assert claim.page.locator(".hitl-live-was:not(:empty)").count() == 0
    assert claim.stored() == Claim.model_validate(SAID).model_dump(mode="json")


def test_beside_what_was_changed_stands_what_it_was(form):
    claim = form(schema=Claim)
    claim.fill((), _pairs(SAID), "item 1")
    claim.box("kind").select_option("delivery")
    claim.box("amount").fill("13")
    claim.box("tags").fill('["a", "b"]')
    claim.box("paid").select_option("unknown")
    seen = {name: claim.says(name, "was") for name in Claim.model_fields}
    assert {name: text for name, text in seen.items() if text} == {
        "kind": "was: refund",
        "amount": "was: 12.0",
        "tags": 'was: ["a"]',
        "paid": "was: true",
    }
    assert not claim.do("isEmpty")
    changed = SAID | {"kind": "delivery", "amount": 13, "tags": ["a", "b"], "paid": None}
    assert claim.stored() == Claim.model_validate(changed).model_dump(mode="json")
    claim.box("amount").fill("12")
    assert claim.says("amount", "was") == ""


def test_what_is_certainly_wrong_is_said_by_field_before_it_is_sent(form):
    claim = form(schema=Claim)
    claim.box("amount").fill("101")
    claim.box("count").fill("1.5")
    claim.box("note").fill("x" * 11)
    claim.box("tags").fill("a, b")
    said = claim.do("check")
    assert "kind: needed; amount: pass a number from 0 to 100; count: pass a whole number above 0" in said
    assert claim.says("note", "wrong") == "at most 10 characters"
    assert claim.says("tags", "wrong").startswith("this is no JSON")
    assert claim.focused == "kind (needed)"
    assert claim.says("count", "note") == "a whole number above 0; of parcels"
    with pytest.raises(BadInput):
        claim.kernel.check(claim.do("read"))


def test_errors_of_the_kernel_stand_under_their_fields(form):
    claim = form(schema=Claim)
    claim.fill((), _pairs(SAID), "item 1")
    claim.box("count").fill("0")
    claim.box("tags").fill("[1]")
    assert claim.do("check") == ""
    with pytest.raises(BadInput) as error:
        claim.kernel.check(claim.do("read"))
    fields = [*error.value.fields.items(), ("whole", "kinds do not match"), ("__proto__", "no")]
    claim.do("showErrors", fields, "the whole message")
    assert claim.says("count", "wrong") == "Input should be greater than 0"
    assert claim.says("tags", "wrong") == "tags.0: Input should be a valid string"
    box = claim.box("count")
    ids = box.get_attribute("aria-describedby").split()
    described = [claim.page.locator(f"#{one}").text_content() for one in ids]
    assert described == ["Input should be greater than 0", "was: 2", "a whole number above 0; of parcels"]
    assert (box.get_attribute("aria-invalid"), claim.focused) == ("true", "count (needed)")
    top = claim.page.locator(".hitl-live-form > .hitl-live-wrong")
    assert top.text_content() == "whole: kinds do not match\n__proto__: no"
    claim.do("showErrors", {}, "the store is away")
    assert top.text_content() == "the store is away"
    assert claim.page.locator("[aria-invalid=true]").count() == 0


def test_an_answer_that_was_given_is_shown_again_beside_the_prediction(form):
    claim = form(schema=Claim)
    claim.fill(_pairs(SAID | {"count": 3}), _pairs(SAID), "item 1")
    assert (claim.box("count").input_value(), claim.says("count", "was")) == ("3", "was: 2")


def test_an_optional_field_that_is_emptied_is_null_and_no_default(form):
    model = pydantic.create_model("M", x=(int | None, 5), y=(int, 7))
    one = form(schema=model)
    one.fill((), _pairs({"x": 1, "y": 2}), "item 1")
    one.box("x").fill("")
    assert one.stored() == {"x": None, "y": 2}
    assert one.says("y", "note") == "a whole number; default: 7"


def test_a_text_that_the_model_left_empty_may_stay_empty(form):
    one = form(schema=pydantic.create_model("M", x=(str, ...), y=(int, ...)))
    one.fill((), _pairs({"x": "", "y": 1}), "item 1")
    assert one.stored() == {"x": "", "y": 1}
    one.fill((), _pairs({"y": 1}), "item 2")
    assert one.do("check") == "x: needed"


def test_a_value_that_cannot_be_shown_is_typed_anew(form):
    one = form(schema=pydantic.create_model("M", x=(str | None, None), y=(int, ...)))
    said = {"x": "a\u200bb", "y": 1}
    one.fill((), _pairs(said), "item 1", ["x"])
    assert one.says("x", "was") == "was: too long, or with hidden characters"
    assert one.do("check") == "x: needed"


def test_digits_that_javascript_would_lose_are_kept_or_named(form):
    model = pydantic.create_model("M", x=(int, ...), price=(Decimal, ...), many=(list[int], []), any=(Any, None))
    one = form(schema=model)
    one.box("x").fill("9007199254740993")
    one.box("price").fill("0.10000000000000000001")
    one.box("any").fill("2.50")
    assert one.stored() == {"x": 9007199254740993, "price": "0.10000000000000000001", "many": [], "any": 2.5}
    one.box("many").fill("[9007199254740993]")
    assert "too many digits" in one.do("check")


def test_fields_may_be_called_like_anything(form):
    names = {"constructor": "a", "toString": "b", "hasOwnProperty": "c"}
    one = form(schema=pydantic.create_model("M", **dict.fromkeys(names, (str, ...))))
    one.fill((), _pairs(names), "item 1")
    assert one.stored() == names
    one.do("showErrors", [["valueOf", "x"], ["__proto__", "y"], ["toString", "z"]])
    assert one.says("toString", "wrong") == "z"


# -- typing


def test_what_is_being_typed_stays_with_its_caret(form):
    claim = form(schema=Claim)
    claim.fill((), _pairs(SAID), "item 1")
    box = claim.box("note")
    box.focus()
    claim.press("Home")
    claim.page.keyboard.type("a")
    claim.fill((), _pairs(SAID), "item 1")
    claim.fill(_pairs({"note": "older"}), _pairs(SAID), "item 1")
    claim.page.keyboard.type("b")
    assert box.input_value() == "abhm"
    claim.fill((), _pairs(SAID), "item 2")
    assert box.input_value() == "hm"


def test_without_a_ticket_the_same_values_twice_are_one_filling(form):
    one = form(LABELS)
    one.fill()
    one.type("refnd")
    one.press("ArrowLeft", "ArrowLeft")
    one.fill()
    one.page.keyboard.type("u")
    assert one.input.input_value() == "refund"


def test_enter_that_ends_a_composition_neither_takes_nor_sends(form):
    compose = """(composing) => document.activeElement.dispatchEvent(
        new KeyboardEvent("keydown", {key: "Enter", isComposing: composing, bubbles: true, cancelable: true}))"""
    one = form(LABELS)
    one.type("re")
    one.page.evaluate(compose, True)
    assert (one.input.input_value(), one.sent, one.rows.count()) == ("re", 0, 3)
    one.page.evaluate(compose, False)
    assert (one.input.input_value(), one.sent) == ("refund", 0)
    one.page.evaluate(compose, True)
    assert one.sent == 0
    one.page.evaluate(compose, False)
    assert one.sent == 1
    text = form()
    text.page.locator("#root textarea").fill("言")
    text.page.locator("#root textarea").focus()
    text.page.evaluate(compose, True)
    assert text.sent == 0


def test_enter_writes_a_line_in_a_form_and_ctrl_enter_sends_it(form):
    claim = form(schema=Claim)
    box = claim.box("note")
    box.fill("a")
    box.press("Enter")
    assert (box.input_value(), claim.sent) == ("a\n", 0)
    box.press("Control+Enter")
    assert claim.sent == 1
    claim.box("amount").press("Enter")
    claim.box("kind").press("Enter")
    assert claim.sent == 3


# -- hostile texts


@pytest.mark.parametrize("options", [{}, {"new_labels": True}, {"multiple": True}], ids=["one", "new", "several"])
def test_hostile_labels_are_texts(form, options):
    hostile = [*MARKUP, *(text for text in HIDDEN if not {"\0", "\ud800"} & set(text)), "__proto__"]
    one = form(hostile, **options)
    one.input.click()
    assert one.rows.all_text_contents() == list(one.kernel.options)
    for i, label in list(enumerate(hostile))[::4]:
        one.fill((), _pairs({"label": MARKUP[0]}), f"item {i}")
        while one.page.locator(".hitl-live-chips button").count():
            one.press("Backspace")
        one.input.focus()
        one.input.fill(one.kernel.options[i])
        one.press("Enter")
        found = one.stored()["label"]
        assert (found[0] if isinstance(found, list) else found) == label
    tags = one.page.evaluate("[...new Set([...document.querySelectorAll('#root *')].map((e) => e.tagName))]")
    assert set(tags) <= {"DIV", "LABEL", "INPUT", "UL", "LI", "BUTTON"}
    assert one.page.evaluate("window.hits") == []


def test_hostile_texts_of_a_form_are_texts(form):
    model = pydantic.create_model("M", x=(Literal[tuple(MARKUP)], pydantic.Field(description=MARKUP[1])), y=(str, ""))
    one = form(schema=model)
    one.fill((), _pairs({"x": MARKUP[0], "y": MARKUP[2]}), "item 1")
    assert one.stored() == {"x": MARKUP[0], "y": MARKUP[2]}
    one.box("y").fill(MARKUP[3])
    one.do("showErrors", [["x", MARKUP[0]], ["z", MARKUP[1]]], MARKUP[1])
    assert (one.says("x", "wrong"), one.says("y", "was")) == (MARKUP[0], f"was: {MARKUP[2]}")
    tags = one.page.evaluate("[...new Set([...document.querySelectorAll('#root *')].map((e) => e.tagName))]")
    assert set(tags) <= {"DIV", "LABEL", "SELECT", "OPTION", "TEXTAREA"}
    assert one.page.evaluate("window.hits") == []
