"""The rules that tools check: lint, format, types, direction of imports."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHON = sys.executable


def check(*command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_finds_nothing():
    check(PYTHON, "-m", "ruff", "check")


def test_the_format_is_ruffs():
    check(PYTHON, "-m", "ruff", "format", "--check")


def test_the_types_hold():
    check(PYTHON, "-m", "mypy")


def test_imports_point_down():
    check(Path(PYTHON).with_name("lint-imports"))
