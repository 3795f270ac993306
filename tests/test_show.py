"""What an item looks like: text, fields, pictures; hostile input is shown, not obeyed."""

import io
import json
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from payloads import HIDDEN, MARKUP, PICTURES, png
from PIL import Image

from hitl_nb.display import clean, fold, spell
from hitl_nb.panel import picture as module
from hitl_nb.panel.parts import Fields
from hitl_nb.panel.picture import MAX_BYTES
from hitl_nb.panel.show import UNFOLDED, bars, show, show_answer, show_input, show_prediction


@pytest.mark.parametrize(("text", "code"), HIDDEN.items(), ids=HIDDEN.values())
def test_a_character_that_cannot_be_seen_becomes_its_code_point(text, code):
    assert f"⟨{code}⟩" in clean(text)


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_clean_text_can_be_sent_and_hides_nothing(text):
    shown = clean(text)
    shown.encode()
    assert all(char in "\n\t" or char.isprintable() or char.isspace() for char in shown)
    assert not set("\u200b\u200d\u202e\u2066\ufeff\x00") & set(shown)
    assert clean(shown) == shown


@pytest.mark.parametrize("text", MARKUP)
def test_markup_stays_as_it_is_written(text):
    assert show(text).text == text
    assert show({"a": text, "b": 1}).rows[0] == ("a", text)
    assert show({text: 1, "b": 1}).rows[0] == (text, "1")
    assert show_prediction({"label": text}) == text


def test_a_long_text_is_folded_and_its_missing_part_counted():
    shown = show("x\n" * 1_000_000)
    assert shown.folded
    assert "… 1,996,000 more characters …" in shown.text
    assert len(shown.text) < 4_100
    assert len(show("x\n" * 1_000_000, times=20).text) > 80_000


def test_many_fields_are_counted_not_shown():
    shown = show({f"f{i}": i for i in range(9_960)})
    assert shown.rows[-1] == ("… 9,900 more", "")
    assert len(shown.rows) == 61
    assert shown.folded


@pytest.mark.parametrize("times", [1, UNFOLDED])
@pytest.mark.parametrize("char", ["x", "\u4e00", "\U0001f600", "\u202e"], ids=["ASCII", "CJK", "emoji", "hidden"])
def test_what_is_shown_of_an_item_stays_below_256_kib(char, times):
    long = {"text": char * 10**6}
    wide = {f"{char * 300}{i}": char * 10**4 for i in range(2000)}
    for item in (long, wide):
        shown = show(item, times)
        sent = json.dumps([shown.text, *shown.rows], ensure_ascii=False)
        assert shown.folded
        assert len(sent.encode()) + MAX_BYTES * (times == 1) < 256 * 1024


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("nan"), "NaN"),
        ([float("nan"), {"a": float("nan")}], "[NaN, {'a': NaN}]"),
        (np.float64("nan"), "NaN"),
        (None, "None"),
        (True, "True"),
        (12, "12"),
        (datetime(2026, 1, 5, 9, tzinfo=UTC), "2026-01-05T09:00:00+00:00"),
        (b"\x00\x01", "2 bytes: 00 01"),
        (np.arange(10), "[0, 1, 2, 3, 4, 5, 6, 7, …] (10 int64)"),
        ("a\u202eb", "a⟨U+202E⟩b"),
        (["a\u202eb"], r"['a\u202eb']"),
    ],
)
def test_a_value_is_spelled_out(value, text):
    assert spell(value) == text


def test_a_deep_and_wide_value_stays_short():
    value = [[[[[list(range(1000))] * 100] * 100] * 100] * 100]
    assert len(spell(value)) < 400


def test_one_text_is_shown_as_text_and_several_fields_as_a_table():
    assert show({"text": "hello"}).text == "hello"
    assert show({"a": "hello", "b": 2}).rows == (("a", "hello"), ("b", "2"))
    assert show({"amount": 2}).rows == (("amount", "2"),)


# -- pictures


def decoded(shown):
    assert shown.problem == ""
    assert len(shown.image) <= MAX_BYTES
    return Image.open(io.BytesIO(shown.image), formats=("PNG",))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 8)),
        np.linspace(0, 16, 64).reshape(8, 8),
        np.full((8, 8), np.nan),
        np.array([[0.0, np.inf], [-np.inf, 1.0]]),
        np.zeros((8, 8), dtype=bool),
        np.zeros((4, 4, 3), dtype=np.uint8),
        np.zeros((4, 4, 4), dtype=np.int16),
        np.zeros((4, 4, 1), dtype=np.float32),
    ],
    ids=lambda a: f"{a.shape} {a.dtype}",
)
def test_an_array_is_shown_as_a_picture(array):
    assert decoded(show(array)).width >= 64


@pytest.mark.parametrize(
    "names",
    [
        [f"pixel_{y}_{x}" for y in range(12) for x in range(12)],
        [f"pixel{i}" for i in range(1, 145)],
        [f"PIX_{i}" for i in range(144)],
    ],
    ids=lambda names: names[0],
)
def test_columns_of_pixels_are_a_picture_in_the_order_of_their_numbers(names):
    pixels = np.arange(144.0).reshape(12, 12)
    item = dict(
        sorted(zip(names, pixels.ravel().tolist(), strict=True))
    )  # as the queue gives it back: pixel10 < pixel2
    assert show(item) == show(pixels)


@pytest.mark.parametrize(
    "item",
    [
        {f"pixel_{i}": 0.5 for i in range(9)},  # too few
        {f"pixel_{i}": 0.5 for i in range(20)},  # no square
        {f"pixel_{i}": 0.5 for i in range(15)} | {"amount": 1.0},
        {f"pixel_{i}": "x" for i in range(16)},
        {f"pixel_{i}": None for i in range(16)},
        {f"pixel_{i}" + "_9" * 5: 0.5 for i in range(16)},
    ],
    ids=["few", "no square", "another column", "text", "nothing", "other names"],
)
def test_other_columns_are_fields(item):
    shown = show(item)
    assert (shown.image, len(shown.rows), shown.problem) == (None, len(item), "")


def test_the_scale_of_an_array_is_stated():
    shown = show(np.linspace(0, 16, 64).reshape(8, 8))
    assert shown.note == "8×8, 0 to 16"
    assert decoded(shown).getextrema() == (0, 255)


def test_a_picture_stands_beside_the_other_fields():
    shown = show({"photo": png(), "amount": 3})
    assert decoded(shown).size == (160, 80)  # 20×10, enlarged eight times
    assert shown.rows == (("amount", "3"),)


def test_a_large_noisy_picture_is_shrunk_until_it_fits():
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1200, 3), dtype=np.uint8)
    assert 100 < decoded(show(noise)).width < 400


def test_a_jpeg_is_turned_as_its_camera_says_and_loses_its_notes():
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "where I live"
    buffer = io.BytesIO()
    Image.new("RGB", (200, 100)).save(buffer, format="JPEG", exif=exif)
    shown = show(buffer.getvalue())
    assert decoded(shown).size == (100, 200)
    assert b"where I live" not in shown.image


def test_what_a_file_says_beside_its_pixels_is_left_out():
    buffer = io.BytesIO()
    Image.new("RGB", (200, 100)).save(buffer, format="PNG", icc_profile=b"where I live")
    assert b"iCCP" in buffer.getvalue()
    assert b"iCCP" not in show(buffer.getvalue()).image


def test_a_pillow_image_and_a_16_bit_file_are_shown():
    assert decoded(show(Image.new("RGB", (200, 100)))).size == (200, 100)
    buffer = io.BytesIO()
    Image.fromarray(np.array([[0, 1000], [2000, 4000]], dtype=np.uint16)).save(buffer, format="PNG")
    assert decoded(show(buffer.getvalue())).getextrema() == (0, 255)


@pytest.mark.parametrize("data", PICTURES.values(), ids=PICTURES)
def test_what_only_looks_like_a_picture_is_named_and_not_decoded(data):
    shown = show({"photo": data, "amount": 3})
    assert shown.problem.startswith("cannot show this image: ")
    assert shown.image is None
    assert shown.rows == (("amount", "3"),)


def test_the_size_is_checked_before_anything_is_decoded(monkeypatch):
    monkeypatch.setattr(module, "MAX_PIXELS", 199)
    assert show(png(20, 10)).problem == "cannot show this image: 20×10 pixels; up to 0 megapixels are shown"
    assert "20×10 pixels" in show(np.zeros((10, 20))).problem


@pytest.mark.parametrize("data", [b"<html><script>hit()</script>", b"GIF89a", b"", b"<svg onload=hit()>"])
def test_other_bytes_are_bytes(data):
    assert show({"a": data, "b": 1}).rows[0][1].startswith(f"{len(data)} bytes")


# -- renderers, predictions


@pytest.mark.parametrize(
    ("render", "check"),
    [
        (lambda d: f"{d['x']} euros", lambda s: s.text == "3 euros"),
        (lambda d: {"euros": d["x"], "y": 1}, lambda s: s.rows == (("euros", "3"), ("y", "1"))),
        (lambda d: np.eye(4), lambda s: s.image is not None),
        (lambda d: png(), lambda s: s.image is not None),
        (lambda d: 7, lambda s: s.text == "7"),
    ],
    ids=["text", "dict", "array", "file", "number"],
)
def test_a_renderer_may_return(render, check):
    assert check(show_input({"x": 3, "z": 1}, render))


def test_a_renderer_that_raises_is_named_and_the_fields_are_shown():
    shown = show_input({"x": 3}, lambda d: d["y\u202e"])
    assert shown.problem == r"render raised KeyError: 'y\u202e'"
    assert shown.rows == (("x", "3"),)


def test_an_erased_payload_is_said_to_be_erased():
    assert "erased" in show_input(None, lambda d: "x").problem


def test_bars_are_the_largest_first_and_numbers_only():
    odd = {"c": float("nan"), "d": None, "e": float("inf"), "f": True}
    assert bars({"a": 0.1, "b": 0.9} | odd) == (("b", 0.9), ("a", 0.1))
    assert bars("no dict") == ()
    assert len(bars({str(i): i / 100 for i in range(100)})) == 10


def test_a_huge_prediction_is_folded():
    said = {"label": "x" * 10**6} | {f"{i}" * 300: "y" * 10**6 for i in range(100)}
    assert len(show_prediction(said)) < 5000


def test_a_prediction_is_its_label_and_the_fields_that_say_something():
    said = {"label": "ham", "confidence": 0.9, "probabilities": {"ham": 0.9}, "regulated": True, "is_anomalous": False}
    assert show_prediction(said) == "ham\nregulated: True"
    assert show_prediction({"amount": 3}) == "amount: 3"
    assert show_prediction(None) == ""


@pytest.mark.parametrize("label", ["word " * 200, {"names": ["ann", "bob"]}, [{"page": 1}]])
def test_a_label_of_which_a_line_would_show_a_part_only_stands_below_it(label):
    shown = show_answer({"label": label, "confidence": 0.9, "language": "en"})
    assert "label" in {part.name for part in shown.parts if not isinstance(part, Fields)}
    assert ("language", "en") in shown.rows
    assert show_answer({"label": "spam"}).parts == ()


@pytest.mark.parametrize("most", [10, 100])
def test_folding_keeps_both_ends(most):
    text = fold("a" + "x" * 500 + "b", most)
    assert text.startswith("a")
    assert text.endswith("b")
