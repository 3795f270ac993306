"""The documentation is built, and every block of Python in it runs."""

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from hitl_nb.cli import _parser
from hitl_nb.task import state_diagram

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
RUNNING = [page for page in PAGES if "```python\n" in page.read_text("utf-8")]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built pages."""
    place = tmp_path_factory.mktemp("docs")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", place / "trees", DOCS, place / "site"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return place / "site"


def test_every_link_leads_somewhere(site):
    broken = []
    for page in site.rglob("*.html"):
        for target in re.findall(r'(?:href|src)="([^"#:?]+)(?:[#?][^"]*)?"', page.read_text("utf-8")):
            if not (page.parent / target).resolve().exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []


def test_every_public_name_is_in_the_reference(site):
    told = (site / "genindex.html").read_text("utf-8")
    missing = []
    for page in (DOCS / "reference").glob("*.md"):
        for module in re.findall(r"automodule:: (\S+)", page.read_text("utf-8")):
            names = getattr(import_module(module), "__all__", ())
            missing += [f"{module}.{name}" for name in names if not re.search(rf">{name}( \(|\(\)|<)", told)]
    packages = {f"hitl_nb.{path.parent.name}" for path in (ROOT / "hitl_nb").glob("*/__init__.py")}
    pages = {path.stem for path in (DOCS / "reference").glob("*.md")}
    elsewhere = {"hitl_nb.orchestrator", "hitl_nb.server"}  # at the front door, and in /openapi.json
    assert packages - {f"hitl_nb.{page}" for page in pages} == elsewhere
    assert missing == []


def test_the_states_are_printed_from_the_table_of_moves():
    assert f"```text\n{state_diagram()}\n```" in (DOCS / "explanation" / "states.md").read_text("utf-8")


def test_the_layers_are_those_of_the_import_contract():
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"][0]
    layers = [[name.strip(" ()") for name in layer.split("|")] for layer in contract["layers"]]
    drawn = re.findall(r"^\| (`[^|]*) \|", (DOCS / "architecture.md").read_text("utf-8"), re.MULTILINE)
    assert [re.findall(r"`(\w+)`", names) for names in drawn] == layers


def test_the_commands_are_printed_from_the_parser(monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")
    parser = _parser()
    told = f"# Commands\n\n```text\n{parser.format_help()}```\n"
    for name, command in _commands(parser, "hitl-nb"):
        told += f"\n## {name}\n\n```text\n{command.format_help()}```\n"
    page = DOCS / "reference" / "commands.md"
    if os.environ.get("HITL_STORE_PICTURE"):
        page.write_text(told, "utf-8")
    assert page.read_text("utf-8") == told


def test_every_command_says_what_it_ends_with_and_has_an_example_that_can_be_called():
    parser = _parser()
    for name, command in _commands(parser, "hitl-nb"):
        told = command.format_help()
        assert "exit codes: 0 " in told, name
        examples = re.findall(rf"^  hitl-nb ({name.partition(' ')[2]} \S.*?|lab)(?:  .*)?$", told, re.MULTILINE)
        assert examples, name
        for example in examples:
            assert callable(parser.parse_args(example.split()).run)


def _commands(parser, name):
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, command in action.choices.items():
                yield f"{name} {word}", command
                yield from _commands(command, f"{name} {word}")


@pytest.mark.parametrize("page", RUNNING, ids=lambda page: page.stem)
def test_every_block_runs(page, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    document = Sybil(parsers=[PythonCodeBlockParser()]).parse(page)
    if "<!-- url:" in page.read_text("utf-8"):
        document.namespace["url"] = request.getfixturevalue("postgres")
    for block in document.examples():
        block.evaluate()


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page is about curl, which is not there")
def test_the_calls_of_a_program_run_as_they_stand(tmp_path):
    blocks = re.findall(r"^```sh\n(.*?)^```$", (DOCS / "how-to" / "programs.md").read_text("utf-8"), re.M | re.S)
    script = "set -e -m\ntrap 'kill %1' ERR\n" + "".join(blocks).replace("8000", str(free_port()))
    script = script.replace("hitl-nb serve", "timeout 100 hitl-nb serve")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads((tmp_path / "answer.json").read_text("utf-8"))["answer"] == {"label": "spam"}
    assert "/review/queue" in json.loads((tmp_path / "openapi.json").read_text("utf-8"))["paths"]
