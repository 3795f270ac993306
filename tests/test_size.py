"""Small enough to be read in an afternoon, and no way in for code that hides in data."""

import ast
import re
import subprocess
from pathlib import Path
from statistics import median, quantiles

import pytest

ROOT = Path(__file__).parents[1]
PYTHON = sorted((ROOT / "hitl_nb").rglob("*.py"))
SCRIPTS = sorted((ROOT / "hitl_nb").rglob("*.js"))

#: code that runs whatever a file or a text says
RUNS_ANYTHING = re.compile(
    r"\b(pickle|dill|cloudpickle|marshal|joblib)\.loads?\(|\bread_pickle\(|(?<![\w.])(eval|exec)\("
)
#: registries change, and a clone must not care where packages come from (written so that no name stands here)
REGISTRY = re.compile(r"\b(py(pi)|(python)hosted|npm(js)|(debian))\.(org|com|net)\b")


def lines(path):
    return path.read_text(encoding="utf-8").count("\n")


def code_lines(path):
    """Return the lines that hold code: none that are blank, comment or docstring."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return sum(bool(line.strip()) and not line.strip().startswith("//") for line in text.splitlines())
    skipped = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            skipped.update(range(node.lineno, node.end_lineno + 1))
    numbered = enumerate(text.splitlines(), 1)
    return sum(n not in skipped and bool(line.strip()) and not line.strip().startswith("#") for n, line in numbered)


def function_lengths():
    """Return the lines of each function from `def` to its end; lines of its own docstring do not count."""
    for path in PYTHON:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0]
                docstring = first.end_lineno - first.lineno + 1 if ast.get_docstring(node) is not None else 0
                yield node.end_lineno - node.lineno + 1 - docstring, f"{path.relative_to(ROOT)}:{node.name}"


def offenders(paths, pattern):
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]


#: code lines that each part may have, so that it is read in one go; what is not named here stands in single files
MOST = {
    "queue": 4_870, "server": 1_135,
    "lab": 2_450, "panel": 2_200, "learner": 1_370, "policy": 850, "evidence": 560, "loop": 550,
    "orchestrator": 450, "": 1_700,
}  # fmt: skip


def part_of(path):
    """Return the folder of the package in which a file stands; nothing for a single file."""
    first, *rest = path.relative_to(ROOT / "hitl_nb").parts
    return first if rest else ""


@pytest.mark.parametrize("part", MOST)
def test_each_part_is_small(part):
    assert sum(code_lines(path) for path in PYTHON if part_of(path) == part) <= MOST[part]


def test_each_part_has_its_limit():
    assert {part_of(path) for path in PYTHON} == set(MOST)


def test_the_scripts_are_small():
    assert sum(map(code_lines, SCRIPTS)) <= 1_200


def test_a_file_has_at_most_400_lines():
    assert {str(path.relative_to(ROOT)): lines(path) for path in PYTHON + SCRIPTS if lines(path) > 400} == {}


def test_functions_are_short():
    found = sorted(function_lengths())
    counts = [count for count, _ in found]
    assert [name for count, name in found if count > 60] == []
    assert median(counts) <= 8
    assert quantiles(counts, n=10)[-1] <= 30


def test_nothing_from_a_file_is_run():
    assert offenders(PYTHON, RUNS_ANYTHING) == []


def test_no_package_registry_is_named():
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    kept = [ROOT / name for name in listed.stdout.splitlines() if not name.endswith((".png", ".duckdb", ".gz"))]
    assert offenders([path for path in kept if path.is_file()], REGISTRY) == []


@pytest.mark.parametrize("line", ["pickle.load(f)", "joblib.load(path)", "eval(text)", "exec(text)"])
def test_what_runs_anything_is_recognised(line):
    assert RUNS_ANYTHING.search(line)
