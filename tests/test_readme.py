"""The README is tested against the code."""

import re
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from hitl_nb.task import state_diagram

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DEMO = "python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt . && .venv/bin/hitl-nb demo"
TEST = '.venv/bin/pip install -q -c constraints.txt -e ".[test]" && .venv/bin/pytest -n auto --dist loadscope'


def test_the_python_blocks_run(tmp_path, monkeypatch):
    blocks = Sybil(parsers=[PythonCodeBlockParser()]).parse(README)
    monkeypatch.chdir(tmp_path)
    for block in blocks.examples():
        block.evaluate()


@pytest.mark.parametrize("command", [DEMO, TEST], ids=["demo", "test"])
def test_each_command_is_a_block_of_one_line(command):
    assert f"```sh\n{command}\n```\n" in README.read_text(encoding="utf-8")


def test_the_diagram_is_printed_from_the_table_of_moves():
    blocks = re.findall(r"^```mermaid\n(.*?)\n```$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert blocks == [state_diagram()]


def test_there_are_two_commands():
    section = README.read_text(encoding="utf-8").partition("## Two commands\n")[2].partition("\n## ")[0]
    assert section.count("```sh\n") == 2


def test_continuous_integration_runs_the_command_of_the_readme():
    assert TEST in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
