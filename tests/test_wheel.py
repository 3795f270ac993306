"""What is shipped is what is tested: the wheel, installed away from the checkout."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]


def run(*command, cwd):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, cwd=ROOT)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def elsewhere(wheel, tmp_path_factory):
    """A venv with the wheel, which finds its dependencies where the tests find theirs."""
    home = tmp_path_factory.mktemp("elsewhere")
    venv.create(home / "venv", symlinks=True)
    python = home / "venv" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel, cwd=home)
    # only now: before, pip would find the package there and install nothing; .pth files in there have no effect here
    (site_packages(python) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def site_packages(python):
    return Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=python.parent).strip())


def test_the_wheel_holds_the_package_its_data_and_nothing_else(wheel):
    names = ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"hitl_nb"}
    tracked = run("git", "ls-files", "hitl_nb", "data", "notebooks", cwd=ROOT).split()
    shipped = {name if name.startswith("hitl_nb/") else f"hitl_nb/_shipped/{name}" for name in tracked}
    assert {name for name in names if ".dist-info/" not in name} == shipped
    assert {Path(name).suffix for name in shipped} >= {".py", ".js", ".css", ".sql", ".csv", ".ipynb"}
    assert [name for name in names if "checkpoint" in name or name.endswith((".duckdb", ".pyc"))] == []


def test_the_installed_package_is_not_the_checkout(elsewhere):
    ask = "from hitl_nb import __file__, shipped as s; print(__file__, s.shipped('data'), len(s.load_spam()), sep='|')"
    file, data, rows = run(elsewhere, "-c", ask, cwd=elsewhere.parent).strip().split("|")
    assert Path(file).is_relative_to(site_packages(elsewhere))
    assert Path(data).is_relative_to(site_packages(elsewhere))
    assert rows == "4601"


@pytest.mark.parametrize("rows", [["--rows", "500"], pytest.param([], marks=pytest.mark.nightly)], ids=["500", "all"])
def test_the_demo_runs_from_the_wheel(elsewhere, tmp_path, rows):
    command = elsewhere.with_name("hitl-nb")
    out = run(command, "demo", *rows, "--path", tmp_path / "demo.duckdb", cwd=tmp_path)
    inputs = next(line.split()[1] for line in out.splitlines() if line.startswith("inputs"))
    assert f"decisions             {inputs}" in run(command, "stats", tmp_path / "demo.duckdb", cwd=tmp_path)
