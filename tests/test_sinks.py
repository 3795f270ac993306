"""No way from data to markup: every place where a front end would run, typeset or load a text is known."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "hitl_nb"
#: what a front end runs, typesets or loads, by kind of file
SINKS = {
    ".py": re.compile(
        r"(?<!\w)(HTML|HTMLMath|Markdown|Latex|Math|Javascript|Output|SVG|IFrame|Label)\("
        r"|def _repr_(html|markdown|latex|javascript|svg)_"
        r"|[\"'](text/(html|markdown|latex)|application/javascript|image/svg)"
        r"|description_allow_html|\.to_html\(|\.to_latex\(|\.style\b"
    ),
    ".js": re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|srcdoc|DOMParser|createContextualFragment"
        r"|(?<![\w.])eval\(|new Function\(|set(Timeout|Interval)\(\s*[\"'`]|javascript:|\bimport\("
        r"|setAttribute\(\s*[\"'`]on"
    ),
    ".css": re.compile(r"@import|url\(|expression\("),
}
#: the places where one is wanted, and why nothing from outside gets there unescaped
WANTED = {
    ("display.py", "def _repr_html_(self) -> str:"): "every text in it went through html.escape",
    ("learner/modal.py", "def _repr_html_(self) -> None:"): "returns None, so that nothing is shown",
    (
        "panel/plain.py",
        'self._title, self._counts, self._bar = w.Label(), w.Label(), w.IntProgress(_dom_classes=("hitl-bar",))',
    ): "a Label typesets TeX; these two hold words and numbers of ours",
    (
        "panel/plain.py",
        "self.widget = w.VBox([w.HTML(STYLE), *parts, self._last, self._retrained, self._training])",
    ): "the style sheet, a constant",
    (
        "panel/plain.py",
        "self._shares.style.background = _bars([share for _, share in seen])",
    ): "a style made of numbers only",
}


def found():
    for path in sorted(ROOT.rglob("*")):
        pattern = SINKS.get(path.suffix)
        for line in path.read_text(encoding="utf-8").splitlines() if pattern else ():
            if pattern.search(line):
                yield path.relative_to(ROOT).as_posix(), line.strip()


def test_every_way_to_markup_is_one_that_is_wanted():
    assert set(found()) == set(WANTED)


@pytest.mark.parametrize(
    ("suffix", "line"),
    [
        (".py", "box = w.HTML(text)"),
        (".py", "ipywidgets.HTMLMath(text)"),
        (".py", "with widgets.Output() as out:"),
        (".py", "display(HTML(text))"),
        (".py", "display(Markdown(text))"),
        (".py", "IPython.display.Javascript(text)"),
        (".py", "IFrame(src=text)"),
        (".py", "w.Label(text)"),
        (".py", "def _repr_html_(self):"),
        (".py", "def _repr_markdown_(self):"),
        (".py", 'return {"text/html": text}'),
        (".py", "return frame.style.format(escape=None)"),
        (".py", "return frame.to_html(escape=False)"),
        (".py", "w.Text(description_allow_html=True)"),
        (".js", "el.innerHTML = text"),
        (".js", "el.outerHTML = text"),
        (".js", 'el.insertAdjacentHTML("beforeend", text)'),
        (".js", "document.write(text)"),
        (".js", "eval(text)"),
        (".js", "new Function(text)"),
        (".js", "setTimeout('f()', 1)"),
        (".js", "frame.srcdoc = text"),
        (".js", "new DOMParser().parseFromString(text)"),
        (".js", 'el.setAttribute("onclick", text)'),
        (".js", 'a.href = "javascript:" + text'),
        (".js", 'await import("https://example.org/x.js")'),
        (".css", "@import 'x.css';"),
        (".css", "background: url(x.png);"),
    ],
)
def test_a_way_to_markup_is_recognised(suffix, line):
    assert SINKS[suffix].search(line)


@pytest.mark.parametrize(
    ("suffix", "line"),
    [
        (".py", "w.Textarea(value=text)"),
        (".py", "result = self._evaluate(text)"),
        (".js", "el.textContent = text"),
        (".js", "setTimeout(() => f(), 1)"),
        (".css", "background: linear-gradient(red, blue);"),
    ],
)
def test_plain_text_is_no_way_to_markup(suffix, line):
    assert not SINKS[suffix].search(line)
