"""The notebooks: they run and are compared by nbval (see pyproject.toml); here is what keeps that comparison honest."""

import ast
import json
import os
import re
import subprocess
import sys
import time
import tomllib
import urllib.request
from pathlib import Path

import nbformat
import pytest
from browser.jupyter import free_port
from nbclient import NotebookClient

from hitl_nb import cli
from hitl_nb.cli import main

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
#: calls that write something below their cell
WRITES = {"print", "display", "show"}

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


def writes(source):
    """Tell whether a cell must have an output: it ends with a value that has a name, or prints or shows something."""
    tree = ast.parse(source)
    last = tree.body[-1]
    called = {getattr(n.func, "id", getattr(n.func, "attr", "")) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    named = isinstance(last, ast.Expr) and not isinstance(last.value, ast.Call)
    return named or bool(called & WRITES)


def stripped(book):
    """Return the cells whose stored output is missing, where there must be one."""
    silent = [cell.id for cell in code(book) if writes(cell.source) and not cell.outputs]
    counts = [cell.execution_count for cell in code(book)]
    return silent + ([] if counts == list(range(1, len(counts) + 1)) else ["execution counts"])


def strings(value):
    """Yield every text in what a notebook holds, pictures left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from () if key.startswith("image/") else strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from strings(part)


def test_there_is_a_notebook():
    assert [path.name for path in NOTEBOOKS][:1] == ["01_review.ipynb"]


def test_every_notebook_stands_in_the_list_of_them():
    listed = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\S+\.ipynb)` \|", listed, re.MULTILINE) == [path.name for path in NOTEBOOKS]


def test_the_test_command_runs_the_notebooks_and_compares_every_output():
    options = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    assert "notebooks" in options["testpaths"]
    assert {"--nbval", "--nbval-current-env"} <= set(options["addopts"])
    assert "--nbval-lax" not in options["addopts"]


@each
def test_the_outputs_are_stored_from_one_run_from_top_to_bottom(path):
    assert stripped(nbformat.read(path, 4)) == []


@each
def test_a_stripped_copy_is_refused(path):
    book = nbformat.read(path, 4)
    for cell in code(book):
        cell.outputs = []
    assert len(stripped(book)) >= 5
    book = nbformat.read(path, 4)
    code(book)[0].execution_count = None
    assert stripped(book) == ["execution counts"]


@each
def test_only_what_chance_decides_is_left_out_of_the_comparison(path):
    left_out = [cell.source for cell in code(nbformat.read(path, 4)) if cell.metadata.get("tags")]
    assert {source.splitlines()[-1] for source in left_out} <= {"queue"}


@each
def test_a_notebook_says_first_what_it_is_for(path):
    first, *rest = nbformat.read(path, 4).cells
    assert first.cell_type == "markdown"
    title, _, purpose = first.source.partition("\n\n")
    assert re.fullmatch(r"# \S.*", title)
    assert len(purpose.split()) >= 20
    assert sum(cell.cell_type == "markdown" for cell in rest) >= len(rest) / 3


@each
def test_a_notebook_holds_nothing_of_the_machine_it_was_made_on(path):
    book = json.loads(path.read_text(encoding="utf-8"))
    assert book["metadata"]["kernelspec"]["name"] == "python3"
    assert "widgets" not in book["metadata"]
    for cell in book["cells"]:
        assert set(cell["metadata"]) <= {"tags"}
    found = list(strings(book))
    assert [text for text in found if "application/vnd.jupyter.widget" in text] == []
    assert [
        text for text in found if re.search(r"(?<![\w<])/(home|root|tmp|work|usr|Users|var)/|[A-Z]:\\\\", text)
    ] == []
    assert [text for text in found if len(Path.home().parts) > 1 and str(Path.home()) in text] == []
    assert path.stat().st_size < 300_000


def test_nbval_passes_what_agrees_and_fails_what_differs_or_is_stripped(tmp_path):
    sources = ("x = 20 + 1\nx", "print('a', x)", "import numpy as np\nnp.arange(x)[-3:]")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    NotebookClient(book, kernel_name="python3").execute()
    nbformat.write(book, tmp_path / "agrees.ipynb")
    book.cells[1].outputs[0].text = "a 22\n"
    nbformat.write(book, tmp_path / "differs.ipynb")
    for cell in book.cells:
        cell.outputs = []
    nbformat.write(book, tmp_path / "stripped.ipynb")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml", tmp_path]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    failed = re.findall(r"^FAILED \S*?(\w+)\.ipynb::(Cell \d)", said, re.MULTILINE)
    assert ("differs", "Cell 1") in failed
    assert {name for name, _ in failed} == {"differs", "stripped"}


# -- hitl-nb lab -------------------------------------------------------------------------------------------------------


def test_lab_copies_the_notebooks_and_keeps_what_is_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["lab", "--copy-only"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"copied {Path('hitl-notebooks') / NOTEBOOKS[0].name}"
    copies = sorted((tmp_path / "hitl-notebooks").iterdir())
    assert [copy.name for copy in copies] == [path.name for path in NOTEBOOKS]
    assert [copy.read_bytes() for copy in copies] == [path.read_bytes() for path in NOTEBOOKS]
    copies[0].write_text("mine")
    assert main(["lab", "--copy-only"]) == 0
    assert capsys.readouterr().out.startswith("kept the one that is there:")
    assert copies[0].read_text() == "mine"


def test_lab_follows_no_link_out_of_its_folder(tmp_path):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / NOTEBOOKS[0].name).symlink_to(tmp_path / "elsewhere")
    assert main(["lab", str(tmp_path / "lab"), "--copy-only"]) == 0
    assert not (tmp_path / "elsewhere").exists()


def test_lab_says_what_is_wrong_with_a_folder(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert main(["lab", str(tmp_path / "file"), "--copy-only"]) == 1
    assert "choose another one" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_without_jupyterlab_lab_names_the_command_that_installs_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    monkeypatch.delattr(os, "execv")  # else a failure would leave this process
    assert main(["lab"]) == 1
    assert 'pip install "hitl-nb[lab]"' in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_lab_starts_a_jupyterlab_on_the_copies(tmp_path):
    port, token = free_port(), "secret"
    (tmp_path / "config").mkdir()
    settings = {"ServerApp": {"allow_root": True, "port_retries": 0}}
    (tmp_path / "config" / "jupyter_server_config.json").write_text(json.dumps(settings))
    places = {f"JUPYTER_{what}_DIR": str(tmp_path / what.lower()) for what in ("CONFIG", "DATA", "RUNTIME")}
    environment = {**os.environ, **places, "JUPYTER_PORT": str(port), "JUPYTER_TOKEN": token}
    command = [sys.executable, "-m", "hitl_nb.cli", "lab", "mine", "--no-browser"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        listed = answer(f"http://127.0.0.1:{port}/api/contents?token={token}", process, tmp_path / "log")
    finally:
        process.terminate()
        process.wait(60)
    assert {file["name"] for file in listed["content"]} == {path.name for path in NOTEBOOKS}


def answer(url, process, log):
    """Ask until the server answers, or is gone."""
    until = time.monotonic() + 90
    while process.poll() is None and time.monotonic() < until:
        try:
            with urllib.request.urlopen(url) as found:
                return json.load(found)
        except OSError:
            time.sleep(0.2)
    raise AssertionError(log.read_text())
