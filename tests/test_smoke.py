"""What is installed without extras runs the README's lines and the demo: with the pinned versions, and the lowest."""

import re
import subprocess
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = """
import os, re, sys
text = open(sys.argv[1], encoding="utf-8").read()
space = {"__name__": "__main__"}
for block in re.findall(r"^```python\\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
    exec(compile(block, "README", "exec"), space)
"""


def run(*command, cwd):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def lowest():
    """Return the oldest versions that pyproject.toml allows."""
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    pairs = [re.fullmatch(r"([\w-]+)>=([\d.]+)", need).groups() for need in needs]
    return [f"{name}=={version}" for name, version in pairs]


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("versions", ["pinned", "lowest"])
def test_without_extras_the_readme_and_the_demo_run(tmp_path, versions):
    venv.create(tmp_path / "venv", with_pip=True, symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    asked = ["-c", ROOT / "constraints.txt"] if versions == "pinned" else lowest()
    run(python, "-m", "pip", "install", "-q", *asked, ROOT, cwd=tmp_path)
    ask = "import importlib.util as u; print([n for n in ('psycopg', 'matplotlib', 'jupyterlab') if u.find_spec(n)])"
    assert run(python, "-c", ask, cwd=tmp_path).strip() == "[]"
    script = tmp_path / "readme.py"
    script.write_text(SCRIPT, "utf-8")
    said = run(python, script, ROOT / "README.md", cwd=tmp_path)
    assert "0.9 0.5 ['Low confidence: 0.75', 'amount 5000 > 1000']\n" in said  # an older pandas says 'None', too
    command = python.with_name("hitl-nb")
    assert "audited disagreement" in run(command, "demo", "--rows", "500", "--quiet", cwd=tmp_path)
    for call, extra in ((["lab"], "lab"), (["serve", "postgresql://nobody@localhost/none"], "postgres")):
        refused = subprocess.run([command, *call], cwd=tmp_path, capture_output=True, text=True)
        assert (refused.returncode, f'pip install "hitl-nb[{extra}]"' in refused.stderr) == (1, True), refused.stderr
