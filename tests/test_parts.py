"""An item of several parts: texts, pictures, fields, trees; what is odd or matched in it; what a view is sent of it."""

import io
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from browser.payloads import ALL, hostile
from hypothesis import given
from hypothesis import strategies as st
from payloads import HIDDEN, MARKUP, PICTURES, png
from PIL import Image

from hitl_nb.display import clean, fold
from hitl_nb.panel import picture
from hitl_nb.panel.odd import ENOUGH, MAX_MARKS, MAX_NAMES, MAX_SEEN, Usual, odd, places
from hitl_nb.panel.parts import Custom, Fields, Picture, Text, Tree, as_message
from hitl_nb.panel.picture import MAX_BYTES
from hitl_nb.panel.show import LONG, MAX_DEPTH, MOST, UNFOLDED, show, show_answer, show_input

LETTER = "Dear all,\nplease pay."
NOISE = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)


def kinds(shown):
    return [type(part) for part in shown.parts]


def only(shown, kind):
    (found,) = (part for part in shown.parts if isinstance(part, kind))
    return found


def strings(value):
    """Return every text in what JSON holds."""
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [text for part in inner for text in strings(part)]


def sent(shown):
    message, pictures = as_message(shown)
    said = json.dumps(message, ensure_ascii=False, allow_nan=False)
    return len(said.encode()) + sum(map(len, pictures))


# -- the parts


def test_an_item_is_shown_as_its_texts_pictures_fields_and_trees():
    item = {"amount": 3, "history": {"refunds": [1, {"of": 2}]}, "letter": LETTER, "photo": png(), "who": "ann"}
    shown = show(item)
    assert kinds(shown) == [Text, Picture, Fields, Tree]
    letter, photo, fields, history = shown.parts
    assert (letter.name, letter.text, photo.name, photo.note) == ("letter", LETTER, "photo", "20×10")
    assert [(row.name, row.value, row.number) for row in fields.rows] == [("amount", "3", True), ("who", "ann", False)]
    assert (history.name, history.node) == ("history", (("refunds", (("0", "1"), ("1", (("of", "2"),)))),))


@pytest.mark.parametrize(
    ("text", "kind"),
    [("x" * (LONG - 1), Fields), ("x" * LONG, Text), ("a\nb", Text), ("", Fields)],
    ids=["short", "long", "two lines", "empty"],
)
def test_a_text_stands_for_itself_where_it_is_long_or_has_lines(text, kind):
    assert kind in kinds(show({"a": text, "b": 1}))
    assert kinds(show({"a": text})) == kinds(show(text)) == [Text]


@pytest.mark.parametrize(
    ("value", "kind"),
    [([1, 2], Fields), ([], Fields), ({}, Fields), (list(range(21)), Tree), ([{"a": 1}], Tree), ({"a": 1}, Tree)],
    ids=str,
)
def test_a_short_list_is_a_value_and_what_is_nested_a_tree(value, kind):
    assert kinds(show({"a": value})) == [kind]


def test_texts_share_the_room_and_short_ones_stay_whole():
    shown = show({"a": "x" * 9_000, "b": "y" * 500, "c": "z" * 9_000})
    folded = [fold("x" * 9_000, 1_750), "y" * 500, fold("z" * 9_000, 1_750)]  # (4,000 - 500) / 2 each
    assert ([part.text for part in shown.parts], shown.folded) == (folded, True)


def test_of_many_parts_of_a_kind_the_first_stand_for_themselves():
    item = {f"text {i}": LETTER for i in range(10)} | {f"tree {i}": {"a": i} for i in range(25)}
    shown = show(item | {f"photo {i}": png() for i in range(9)})
    assert [kinds(shown).count(kind) for kind in (Text, Picture, Tree)] == [MOST["text"], MOST["picture"], MOST["tree"]]
    assert [row.name for row in only(shown, Fields).rows] == ["text 8", "text 9", *(f"tree {i}" for i in range(20, 25))]
    assert as_message(shown)[0]["note"] == "5 more pictures are not shown"


def test_pictures_share_the_bytes():
    shown = show({str(i): NOISE for i in range(4)})
    sizes = [len(part.png) for part in shown.parts]
    assert len(sizes) == 4
    assert all(MAX_BYTES // 8 < size <= MAX_BYTES // 4 for size in sizes)


def test_pictures_share_the_pixels_that_are_decoded(monkeypatch):
    monkeypatch.setattr(picture, "MAX_PIXELS", 500)
    shown = show({"a": png(20, 10), "b": png(20, 10), "c": png(20, 10), "d": 1})
    assert [part.name for part in shown.parts if isinstance(part, Picture)] == ["a", "b"]
    assert shown.problem == "cannot show this image: 20×10 pixels; up to 0 megapixels are shown (c)"


@pytest.mark.parametrize("data", PICTURES.values(), ids=PICTURES)
def test_a_picture_that_cannot_be_shown_leaves_the_others(data):
    shown = show({"bad": data, "good": png(), "amount": 3})
    assert kinds(shown) == [Picture, Fields]
    assert shown.problem.endswith(" (bad)")


# -- bounds


def deep(levels):
    value = "bottom"
    for _ in range(levels):
        value = {"in": value}
    return value


def depth(node):
    return 1 + max((depth(below) for _, below in node if not isinstance(below, str)), default=0)


def pairs(node):
    return sum(1 if isinstance(below, str) else 1 + pairs(below) for _, below in node)


def test_a_tree_ends_at_a_depth_and_says_what_is_below():
    tree = only(show({"a": deep(50)}), Tree)
    assert depth(tree.node) == MAX_DEPTH
    assert "{'in': {'in':" in str(tree.node)


def test_a_tree_that_holds_itself_ends():
    loop = {}
    loop["again"] = loop
    assert depth(only(show({"a": loop}), Tree).node) == MAX_DEPTH


def test_a_wide_tree_says_how_much_is_left():
    shown = show({"a": list(range(1_000))})
    assert only(shown, Tree).node[-1] == ("… 940 more", "")
    assert shown.folded
    assert only(show({"a": list(range(1_000))}, UNFOLDED), Tree).node[-1] == ("… 700 more", "")


def test_a_tree_that_is_wide_on_every_level_stays_small():
    wide = {str(i): {str(j): [[k] for k in range(60)] for j in range(60)} for i in range(60)}
    assert pairs(only(show({"a": wide}), Tree).node) < 500


@pytest.mark.parametrize("char", ["x", "\u4e00", "\U0001f600", "\u202e", '"', "\n", "\U0010ffff"], ids=ascii)
@pytest.mark.parametrize("times", [1, UNFOLDED])
def test_all_parts_together_stay_below_256_kib(char, times):
    long, name = char * 10**5, char * 300
    item = {f"{name}text {i}": long for i in range(20)} | {f"{name}field {i}": char * 70 for i in range(500)}
    item |= {f"{name}tree {i}": {f"{name}{j}": [long] * 30 for j in range(100)} for i in range(30)}
    item |= {f"{name}photo {i}": NOISE for i in range(4 * (times == 1))}
    shown = show(item | {"bad " * 300: PICTURES["a bomb"]}, times, words=[char, "more", "U"])
    assert shown.folded
    assert sent(shown) < 256 * 1024


# -- what is odd


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "missing"),
        (math.nan, "not a number"),
        (np.float64("nan"), "not a number"),
        (math.inf, "infinite"),
        (-math.inf, "infinite"),
        (0, ""),
        (10**300, ""),
        (True, ""),
        ("nan", ""),
    ],
)
def test_an_odd_value_says_why(value, why):
    assert odd("x", value, Usual()) == why
    assert only(show({"x": value, "y": 1}), Fields).rows[0].odd == why


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (90, ""),  # quartiles of 0..39: 10 and 30; 30 + 3 * 20
        (90.5, "far above the usual 10 to 30"),
        (-50, ""),  # 10 - 3 * 20
        (-51, "far below the usual 10 to 30"),
        (1e308, "far above the usual 10 to 30"),
    ],
)
def test_a_number_far_from_those_before_is_odd(value, why):
    usual = Usual()
    for number in range(40):
        show_input({"x": number, "y": 1}, usual=usual)
    row = only(show_input({"x": value, "y": 1}, usual=usual), Fields).rows[0]
    assert (row.odd, row.number) == (why, True)


def test_an_item_is_judged_by_those_before_it_and_learnt_once():
    usual = Usual()
    for number in range(ENOUGH):
        assert (
            show_input({"x": 10**6 if number == ENOUGH - 1 else number, "y": 1}, usual=usual).parts[0].rows[0].odd == ""
        )
    shown = [show_input({"x": 10**6, "y": 1}, None, UNFOLDED, usual=usual) for _ in range(ENOUGH)]
    assert all(one.parts[0].rows[0].odd.startswith("far above") for one in shown)


def test_what_is_remembered_of_numbers_is_bounded():
    usual = Usual()
    for number in range(1_000):
        usual.learn({f"{number} {i}": 1.0 for i in range(300)} | {"x": number})
    usual.learn({f"{i}": math.nan for i in range(10)} | {"y" * 10**6: 1.0})
    assert len(usual._seen) == MAX_NAMES
    for number in range(1_000):
        usual.learn({"0 0": number})
    assert usual._seen["0 0"] == tuple(range(1_000 - MAX_SEEN, 1_000))


def test_numbers_that_never_vary_make_nothing_odd():
    usual = Usual()
    for _ in range(50):
        usual.learn({"x": 1})
    assert usual.says("x", 10**6) == ""


# -- what matched


@pytest.mark.parametrize(
    ("text", "words", "marked"),
    [
        ("Pay now. PAY! payee repay", ["pay"], ["Pay", "PAY"]),
        ("a.b axb", ["a.b"], ["a.b"]),
        ("cost (net) net", ["(net)"], ["(net)"]),
        ("wire transfer, wire", ["wire", "wire transfer"], ["wire transfer", "wire"]),
        ("\U0001f600 pay \U0001f600", ["pay"], ["pay"]),
        ("ok \u202epay\u202c", ["pay", "U", "202E", "⟨", "+"], ["pay"]),
        ("pay\u200bpal", ["pay\u200bpal"], ["pay⟨U+200B⟩pal"]),
        ("cafe\u0301 cafe", ["cafe"], ["cafe"]),
        ("नमस्ते ते", ["ते"], ["ते"]),
        ("x\r\npay", ["pay"], ["pay"]),
        ("nothing", ["", " ", "\n"], []),
        ("(a+)+ aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!", ["(a+)+"], ["(a+)+"]),
    ],
)
def test_whole_words_are_marked_as_they_are_written(text, words, marked):
    part = only(show_input(text, words=words), Text)
    assert [part.text[start:end] for start, end in part.marks] == marked


def test_marks_stand_in_the_text_as_it_is_folded():
    part = only(
        show({"text": "pay " + "\u200b" * 5_000 + " more characters pay"}, words=["pay", "more", "characters"]), Text
    )
    assert [part.text[start:end] for start, end in part.marks] == ["pay", "more", "characters", "pay"]
    assert "… 1,024 more characters …" in part.text


def test_marks_and_words_are_bounded():
    assert len(places("pay " * 1_000, ["pay"])) == MAX_MARKS
    assert places("a b", (f"{i}" for i in range(10**6))) == ()
    assert places("x" * 4_000, ["x" * 10**6]) == ()


@given(st.text(alphabet=st.characters(exclude_categories=())), st.lists(st.text(min_size=1), max_size=3))
def test_marks_are_in_order_and_hold_a_word(text, words):
    shown = fold(text, 50)
    wanted = {clean(word).strip().casefold() for word in words}
    last = 0
    for start, end in places(shown, words):
        assert last <= start < end <= len(shown)
        assert shown[start:end].casefold() in wanted or shown[start:end].lower() in {w.lower() for w in wanted}
        last = end


# -- renderers and predictions


class Chart:
    """What is told apart as a widget."""

    model_id, comm = "abc", object()


def test_a_renderer_may_return_a_widget():
    chart = Chart()
    shown = show_input({"x": 1}, lambda d: chart)
    assert (shown.parts, shown.text) == ((Custom(widget=chart),), "a widget; only the live panel shows it")
    assert as_message(shown)[0]["parts"] == [{"kind": "widget", "model": "abc"}]


def test_a_renderer_may_return_a_real_widget():
    widgets = pytest.importorskip("ipywidgets")
    label = widgets.Text("hm")
    assert as_message(show_input({"x": 1}, lambda d: label))[0]["parts"] == [
        {"kind": "widget", "model": label.model_id}
    ]


def test_showing_loads_no_widgets():
    package = "p = types.ModuleType('hitl_nb.panel'); p.__path__ = [hitl_nb.__path__[0] + '/panel']"
    ask = f"import sys, types, hitl_nb; {package}; sys.modules['hitl_nb.panel'] = p"  # not what its __init__ loads
    ask += "; import hitl_nb.panel.show as module; print(module.show({'x': 1}).rows, 'ipywidgets' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "(('x', '1'),) False"), done.stderr


def test_a_record_of_a_renderer_is_shown_in_parts():
    photo = Image.new("RGB", (40, 30))
    shown = show_input({"x": 1}, lambda d: {"letter": LETTER, "photo": photo, "grid": np.eye(4), "x": d["x"]})
    assert kinds(shown) == [Text, Picture, Picture, Fields]


def test_of_a_prediction_the_rest_is_shown():
    said = {
        "label": "a",
        "confidence": 0.5,
        "probabilities": {"a": 1},
        "model": "v7",
        "regulated": True,
        "irreversible": False,
    }
    shown = show_answer(said | {"why": LETTER, "heat": png(), "boxes": [{"x": 1}]})
    assert kinds(shown) == [Text, Picture, Fields, Tree]
    assert shown.parts[2].rows[0].name == "regulated"
    assert show_answer(said | {"urgent": False}).rows[-1] == ("urgent", "False")  # no flag, but part of the answer
    assert show_answer(said | {"regulated": False}).parts == show_answer(None).parts == show_answer("a").parts == ()


# -- what a view is sent


def test_a_view_is_sent_json_and_pictures():
    item = {"amount": math.nan, "letter": LETTER, "photo": png(), "mask": png(4, 4), "tree": {"a": {"b": math.inf}}}
    message, pictures = as_message(show(item, words=["pay"]))
    assert [Image.open(io.BytesIO(one)).format for one in pictures] == ["PNG", "PNG"]
    assert json.loads(json.dumps(message, allow_nan=False)) == {
        "parts": [
            {"kind": "text", "name": "letter", "text": LETTER, "marks": [[17, 20]]},
            {"kind": "image", "name": "photo", "note": "20×10", "buffer": 0},
            {"kind": "image", "name": "mask", "note": "4×4", "buffer": 1},
            {"kind": "fields", "rows": [["amount", "NaN", True, "not a number"]]},
            {"kind": "tree", "name": "tree", "node": [["a", [["b", "inf"]]]]},
        ],
        "note": "",
        "problem": "",
        "folded": False,
    }


HOSTILE = [*MARKUP, *HIDDEN, *hostile("p"), *hostile("long", 10**6)]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_text_stays_a_clean_text_in_every_place(text):
    places = {
        "text": f"{text}\n",
        "field": text[: LONG - 1],
        text: 1,
        f"{text} tree": {text: {text: [text, {"a": text}]}},
    }
    photos = {f"{text} photo": png(), f"{text} bad": PICTURES["truncated"]}
    shown = show_input(places | photos, words=[text])
    message, _ = as_message(shown)
    for said in strings(message):
        said.encode()
        assert clean(said) == said
    assert clean(f"{text}\n") == message["parts"][0]["text"] or shown.folded
    assert json.loads(json.dumps(message, allow_nan=False))["parts"][0]["kind"] == "text"


def test_every_payload_of_the_browser_is_among_them():
    assert len(hostile("p")) == len(ALL)


# -- the view of one text and one picture


def test_a_plain_view_has_every_part_as_rows_one_picture_and_notes():
    item = {"letter": LETTER, "n": 3, "photo": png(), "mask": png(4, 4), "tree": {"a": {"b": "c\nd"}, "e": ""}}
    shown = show(item)
    rows = (("letter", LETTER), ("n", "3"), ("tree", "a:\n  b: c\n    d\ne"))
    assert (shown.text, shown.rows) == ("", rows)
    assert (shown.image, shown.note) == (shown.parts[1].png, "20×10; only the live panel shows mask")
