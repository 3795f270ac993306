"""The gate for CI, as a user types it: exit codes, the table, the summary in Markdown."""

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tomli_w

from hitl_nb import FieldAbove, Orchestrator, Policy, Predicate, open_queue
from hitl_nb.cli import main
from hitl_nb.display import markdown, table

HOSTILE = "<b>|`x`](http://e.vil)"
MODULE = """
def at_night(batch):
    return batch["hour"] < 6


rules = {"night": at_night}
"""


def typed(folder, *words):
    command = [sys.executable, "-m", "hitl_nb.cli", "replay", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a queue, its exports, and policies."""
    place, rng, n = tmp_path_factory.mktemp("gate"), np.random.default_rng(0), 600
    inputs = pd.DataFrame({"amount": rng.random(n) * 1000, "hour": rng.integers(0, 24, n), HOSTILE: 1})
    said = pd.DataFrame({"label": "a", "confidence": rng.beta(8, 0.8, n)})
    policy = Policy(0.85, (FieldAbove(field="amount", bound=900), FieldAbove(field=HOSTILE, bound=5)), audit_rate=0.3)
    with open_queue(place / "q.duckdb") as queue:
        Orchestrator(queue=queue, policy=policy).process_frame(inputs, said)
        for task in queue.pending(limit=1000):
            queue.resolve(task.task_id, "ann", "approve" if rng.random() < task.confidence else "reject")
        for ending in ("parquet", "csv", "jsonl"):
            queue.export(str(place / f"h.{ending}"), inputs=True)
        queue.export(str(place / "bare.parquet"))
    (place / "policy.toml").write_text(tomli_w.dumps(policy.to_dict()), "utf-8")
    (place / "mine.py").write_text(MODULE, "utf-8")
    space = {}
    exec(compile(MODULE, str(place / "mine.py"), "exec"), space)
    night = Policy(0.85, (Predicate(name="night", function=space["at_night"]),))
    (place / "night.toml").write_text(tomli_w.dumps(night.to_dict()), "utf-8")
    return place


def test_demands_that_are_met_end_with_0_and_a_summary(folder):
    summary = folder / "met.md"
    demands = ("--min-coverage", "0.5", "--max-risk", "0.2", "--summary", "met.md")
    code, out, err = typed(folder, "policy.toml", "q.duckdb", *demands)
    assert (code, err) == (0, "")
    assert "0 rows change their route" in out
    assert "wrong, at most (one-sided)" in out
    text = summary.read_text("utf-8")
    assert text.startswith("## hitl-nb replay: met\n\n")
    assert "| go through without a person |" in text
    assert "<b>" not in text
    assert not re.search(r"(?<!\\)[\]`]", text)
    assert r"of the rules: \<b\>\|\`x\`\](http\://e\.vil) above 5 never asks" in text.replace(r"rules\:", "rules:")


def test_a_demand_that_is_not_met_ends_with_1_and_says_which(folder):
    demands = ("--min-coverage", "0.99", "--max-risk", "0.001", "--summary", "both.md")
    for _ in range(2):
        code, out, err = typed(folder, "policy.toml", "h.parquet", *demands)
    assert code == 1
    assert "go through without a person" in out
    assert "not met: " in err
    assert "at least 99.00% are asked for" in err
    assert "its upper bound at 95% is" in err
    assert (folder / "both.md").read_text("utf-8").count("## hitl-nb replay: not met") == 2  # it is appended to


def test_what_cannot_be_replayed_ends_with_2_and_says_why(folder):
    code, out, err = typed(folder, "policy.toml", "bare.parquet")
    assert (code, out) == (2, "")
    assert "rule 'amount above 900' needs 'input.amount'" in err
    code, _, err = typed(folder, "policy.toml")
    assert code == 2
    assert "usage" in err


def test_functions_of_rules_come_from_a_module(folder):
    code, out, err = typed(folder, "night.toml", "h.jsonl", "--using", "mine:rules")
    assert (code, err) == (0, "")
    assert "now to a person, by rule: night" in out
    code, _, err = typed(folder, "night.toml", "h.jsonl")
    assert code == 2
    assert "night" in err


@pytest.mark.parametrize("history", ["q.duckdb", "h.parquet", "h.csv", "h.jsonl"])
def test_every_kind_of_history_says_the_same(folder, history, capsys):
    code = main(["replay", str(folder / "policy.toml"), str(folder / history), "--min-coverage", "0.5"])
    out = capsys.readouterr().out
    assert code == 0
    assert "of 600 go through without a person" in out
    assert "0 rows change their route" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["none.toml", "h.csv"], "policy = .*none.toml'"),
        (["mine.py", "h.csv"], "policy = .*cannot be read"),
        (["odd.toml", "h.csv"], "policy = .*x"),
        (["rules.toml", "h.csv"], "policy = .*cannot be read"),
        (["policy.toml", "none.duckdb"], "there is no such file"),
        (["policy.toml", "none.csv"], "is there"),
        (["policy.toml", "h.csv", "--max-risk", "2"], "max_risk = 2.0"),
        (["policy.toml", "h.csv", "--level", "0.4"], "level = 0.4"),
        (["policy.toml", "h.csv", "--summary", "none/x.md"], "No such file"),
        (["night.toml", "h.csv", "--using", "no_such_module:x"], "cannot be imported"),
        (["night.toml", "h.csv", "--using", "os"], "cannot be imported"),
        (["night.toml", "h.csv", "--using", "os:sep"], "is no dict"),
    ],
)
def test_a_call_that_is_off_ends_with_2_and_is_named(folder, words, says, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (folder / "odd.toml").write_text("x = 1", "utf-8")
    (folder / "rules.toml").write_text("rules = 5", "utf-8")
    assert main(["replay", *words]) == 2
    assert re.search(says, capsys.readouterr().err)


@pytest.mark.parametrize(
    "text", ["a|b", "<b>x</b>", "[x](y)", "![x](y)", "`x`", "*x*", "_x_", "~x~", "www.e.vil", "@ann", "&lt;"]
)
def test_markdown_gives_no_text_a_meaning(text):
    cell = markdown(table("t", ["n"], [(text,)])).splitlines()[4]
    assert cell.startswith("| ")
    for mark in "|<>[]!`*_~@&":
        inside = cell[2:-2]
        assert inside.replace(f"\\{mark}", "").count(mark) == 0
    assert "www.e" not in cell


def test_the_root_of_the_help_names_it(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "hitl-nb replay policy.toml" in capsys.readouterr().out
