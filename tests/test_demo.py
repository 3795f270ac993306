"""The command line, as a user types it."""

import re
import subprocess
import sys

import pandas as pd
import pytest

from hitl_nb.cli import main
from hitl_nb.demo import DATA, Demo
from hitl_nb.errors import BadInput


def typed(folder, *words):
    done = subprocess.run(
        [sys.executable, "-m", "hitl_nb.cli", *words], cwd=folder, capture_output=True, text=True, timeout=280
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    code, out, err = typed(folder, "demo", "--rows", "600", "--quiet")
    assert code == 0, err
    return folder, out


def value(out, what):
    return next(line[len(what) :].strip() for line in out.splitlines() if line.startswith(what))


def test_the_demo_prints_one_table(demo):
    _, out = demo
    assert value(out, "inputs").isdigit()
    for what in ("automatic", "audited disagreement", "truth: automatic answers wrong", "accuracy before"):
        assert re.search(r"\d+\.\d%", value(out, what)), what
    assert re.fullmatch(r"\d+ asked by a rule; \d+ stopped a wrong answer, \d+ let one through", value(out, "reviews"))
    assert "v2" in value(out, "retrain")
    assert value(out, "queue file").startswith("hitl-demo.duckdb")


def test_a_new_process_reads_what_the_demo_left(demo):
    folder, out = demo
    code, stats, err = typed(folder, "stats", "hitl-demo.duckdb")
    assert code == 0, err
    assert value(stats, "decisions") == value(out, "inputs")
    assert value(stats, "automatic share") == value(out, "automatic").split()[0]


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_export_writes_every_decision(demo, ending):
    folder, out = demo
    code, _, err = typed(folder, "export", "hitl-demo.duckdb", f"out.{ending}", "--inputs")
    assert code == 0, err
    read = {"csv": pd.read_csv, "parquet": pd.read_parquet, "jsonl": lambda p: pd.read_json(p, lines=True)}[ending]
    frame = read(folder / f"out.{ending}")
    assert len(frame) == int(value(out, "inputs"))
    assert "input.dollar" in frame.columns


def test_a_second_demo_never_touches_the_first_file(demo):
    folder, _ = demo
    before = (folder / "hitl-demo.duckdb").read_bytes()
    code, out, err = typed(folder, "demo", "--rows", "200", "--quiet")
    assert code == 0, err
    assert value(out, "queue file").startswith("hitl-demo-2.duckdb")
    assert (folder / "hitl-demo.duckdb").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["stats", "missing.duckdb"], "there is no such file"),
        (["stats", "text.txt"], "is not a review queue"),
        (["demo", "--path", "text.txt"], "it exists"),
        (["demo", "--rows", "5", "--path", "new.duckdb"], "at least 100 rows"),
        (["demo", "--audit-rate", "7", "--path", "new.duckdb"], "audit_rate"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(tmp_path, monkeypatch, capsys, words, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("no queue")
    assert main(words) == 1
    message = capsys.readouterr().err
    assert says in message
    assert message.count("\n") == 1
    assert (tmp_path / "text.txt").read_text() == "no queue"
    assert not (tmp_path / "new.duckdb").exists()


def test_the_simulated_reviewer_errs_at_the_stated_rate(tmp_path):
    first = Demo("spam", tmp_path / "q.duckdb", error_rate=0.1).first
    judged = [first.judge("spam", "spam")[0] for _ in range(5000)]
    assert judged.count("correct") / 5000 == pytest.approx(0.1, abs=0.015)  # three standard errors: 0.013


def test_unknown_data_is_named(tmp_path):
    with pytest.raises(BadInput, match="birds"):
        Demo("birds", tmp_path / "q.duckdb")


@pytest.mark.nightly
@pytest.mark.parametrize("data", DATA)
def test_the_whole_demo_retrains_and_sees_150_audits(data, tmp_path):
    report = Demo(data, tmp_path / "q.duckdb", quiet=True).run()
    assert len(report.retrains) >= 1
    assert report.audits >= 150
