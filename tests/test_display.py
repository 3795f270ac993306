"""What a cell may end with: a table in a notebook, the same in a terminal, and never markup from outside."""

import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.lib.pretty import pretty
from payloads import HIDDEN, MARKUP
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LogisticRegression

from hitl_nb import FieldAbove, Orchestrator, Outlier, Policy, Predicate, Reviewer, open_queue
from hitl_nb.display import MAX_CELL, Table, clean, line, table
from hitl_nb.errors import LeaseLost
from hitl_nb.evidence import Certificate, compare_paired, with_floor
from hitl_nb.learner import Challenger, Learner
from hitl_nb.loop import Loop, RetrainReport
from hitl_nb.policy.rule import Finding

HOSTILE = [*MARKUP, *HIDDEN, "two\nlines\tand a tab", "שלום", "日本語", "&lt;b&gt;", "x" * 10_000]


class Page(HTMLParser):
    """What a browser would make of a table: its elements, their attributes, and the text of each."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.texts, self._open = set(), {}, [], []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self._open.append(tag)
        for name, value in attributes:
            self.attributes.setdefault(name, set()).add(value)
        self.texts += [""] if tag in ("th", "td", "div") else []

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts[-1] += data


def shown(thing):
    """Return the page and the text of whatever shows itself; both hold the same."""
    page, text = Page(thing._repr_html_()), pretty(thing)
    assert page.tags <= {"div", "table", "thead", "tbody", "tr", "th", "td"}
    assert set(page.attributes) <= {"class", "style"}
    for words in filter(None, page.texts):
        assert words in text
    assert clean(text) == text
    return page, text


def frame(labels, confidences):
    return pd.DataFrame({"x": range(len(labels))}), pd.DataFrame({"label": labels, "confidence": confidences})


def route(queue, labels, confidences, policy=None, **options):
    orchestrator = Orchestrator(queue=queue, policy=policy or Policy(0.85, audit_rate=0))
    return orchestrator.process_frame(*frame(labels, confidences), **options)


# -- tables ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE)
def test_a_table_shows_any_text_as_text(text):
    page, plain = shown(table(text, [text, "n"], [(text, 1), ("b", 2)], [text], [text]))
    cell = line(text)
    assert page.texts.count(cell) >= 2
    assert len(cell.splitlines()) == 1
    assert f"{cell}" in plain


@given(st.lists(st.tuples(st.text(), st.floats()), min_size=1), st.text())
def test_html_and_text_hold_the_same_rows(rows, title):
    made = table(title, ["text", "number"], rows)
    cells = [text for text in Page(made._repr_html_()).texts if text]
    assert cells == [text for text in (made.title, "text", "number", *(c for row in made.rows for c in row)) if text]
    assert len(str(made).splitlines()) == 2 + len(rows) if made.title else True


def test_columns_are_aligned_whatever_the_script():
    plain = str(table("t", ["who", "n", "end"], [("日本", 1, "|"), ("e\u0301e", 20, "|"), ("ab", 300, "|")]))
    assert plain.splitlines()[2:] == ["日本    1  |", "e\u0301e     20  |", "ab    300  |"]


def test_a_long_value_is_cut_and_says_so():
    assert line("a" * 1000) == "a" * (MAX_CELL - 1) + "…"
    assert len(line("\u202e" * 1000)) < 9 * MAX_CELL


def test_every_colour_is_the_themes_or_inherited():
    html = table("t", ["a"], [(1,)], ["n"], ["f"])._repr_html_()
    assert re.findall(r"color:([^;\"]+)", html)
    for colour in re.findall(r"(?:color|solid) ?:?\s*([^;\"]+)", html):
        assert re.fullmatch(r"var\(--jp-[a-z0-9-]+,\s*(inherit|currentcolor)\)", colour), colour


def test_mathjax_is_told_to_leave_it_alone():
    assert "mathjax_ignore" in Page(table("$x$")._repr_html_()).attributes["class"]


# -- decisions ---------------------------------------------------------------------------------------------------------


def test_decisions_say_first_what_was_decided_and_why(queue):
    policy = Policy(0.85, audit_rate=1.0, rules=(FieldAbove(field="x", bound=97),))
    decided = route(queue, ["ham"] * 100, [0.9] * 60 + [0.5] * 40, policy)
    first, *rest = pretty(decided).splitlines()
    assert first == "100 inputs: 60 auto-approved (60.0%), 40 for a person; 60 audits"
    assert rest[:2] == ["38 × Low confidence: …", "2 × x … > 97"]
    assert "… 92 more rows" in rest
    shown(decided)


@pytest.mark.parametrize("text", HOSTILE)
def test_decisions_show_hostile_labels_and_names_as_text(text):
    with open_queue(":memory:") as queue:
        label = text.replace("\ud800", "").replace("\x00", "")  # no queue stores those
        odd = Predicate(name="odd", function=lambda batch: batch["x"] >= 0, says=label)
        decided = route(queue, [label, "ham"], [0.9, 0.9], Policy(0.85, rules=(odd,), audit_rate=0))
        page, _ = shown(decided.set_axis([label, "b"]).pipe(type(decided)))
        assert line(label) in page.texts


def test_what_is_made_from_decisions_is_an_ordinary_frame(queue):
    decided = route(queue, ["ham"] * 3, [0.9, 0.5, 0.4])
    assert isinstance(decided, pd.DataFrame)
    for made in (decided[decided["confidence"] > 0.4], decided.head(2), decided.assign(y=1), decided[["label"]]):
        assert type(made) is pd.DataFrame


def test_an_audit_of_a_known_key_is_counted_once(queue):
    policy = Policy(0.85, audit_rate=1.0)
    assert route(queue, ["ham"] * 3, [0.9] * 3, policy, key=["a", "b", "c"]).audits == 3
    again = Orchestrator(queue=queue, policy=policy).process_frame(*frame(["ham"] * 3, [0.9] * 3), key=["a", "b", "c"])
    assert again.audits == 0
    assert "3 auto-approved (100.0%), 0 for a person; 0 audits" in pretty(again)


def test_decisions_changed_in_place_are_still_shown(queue):
    decided = route(queue, ["ham"] * 3, [0.9, 0.5, 0.4])
    del decided["status"]
    assert pretty(decided).splitlines()[0] == "3 rows"
    for name in list(decided.columns):
        del decided[name]
        shown(decided)
    shown(route(queue, [], []))


# -- queue -------------------------------------------------------------------------------------------------------------


def value(text, what):
    return next(row[len(what) :].strip() for row in text.splitlines() if row.startswith(what))


def test_a_queue_says_what_waits_since_when_and_what_to_do(queue, clock, ask):
    shown(queue)
    assert "nothing waits" in pretty(queue)
    ask(confidence=0.4, expertise="law", deadline=timedelta(hours=2))
    clock.forward(minutes=5)
    ask(confidence=0.6)
    _, text = shown(queue)
    assert text.splitlines()[0].endswith(", 2 open")
    assert value(text, "open by priority") == "high 1, medium 1"
    assert value(text, "open by expertise") == "anyone 1, law 1"
    assert value(text, "oldest open") == "2026-01-05 09:00 UTC"
    assert value(text, "next deadline") == "2026-01-05 11:00 UTC"
    assert value(text, "audited disagreement") == "none yet"
    assert 'queue.claim("me")' in text
    assert print(queue) is None
    assert str(queue) == text


def test_a_passed_deadline_is_overdue_and_not_the_next_one(queue, clock, ask):
    ask(deadline=timedelta(hours=1), on_deadline="hold")
    clock.forward(hours=2)
    queue.tick()
    text = pretty(queue)
    assert value(text, "next deadline") == "none"
    assert value(text, "overdue") == "1"


def test_a_queue_states_audited_disagreement_with_its_interval(queue):
    decided = route(queue, ["ham"] * 10, [0.9] * 10, Policy(0.85, audit_rate=1.0, second_audit=0))
    for i, task_id in enumerate(decided["task_id"]):
        queue.resolve(task_id, "ann", *(("correct", {"label": "spam"}) if i == 0 else ("approve",)))
    text = pretty(queue)
    assert value(text, "automatic share") == "100.0%"
    assert value(text, "audits") == "10 drawn, 10 judged"
    assert value(text, "audited disagreement") == "10.0% (0.3% to 44.5% at 95%, n = 10)"


@pytest.mark.parametrize("name", ["<b>ann</b>", "ann\u202e", "$x$"])
def test_a_queue_shows_hostile_reviewers_and_expertise_as_text(queue, ask, name):
    ask(expertise=name)
    queue.resolve(ask().task_id, Reviewer(id=name), "approve")
    page, _ = shown(queue)
    assert f"{line(name)} 1" in page.texts


def test_many_names_are_counted_not_listed(queue, ask):
    for i in range(9):
        ask(expertise=f"field {i}")
    assert value(pretty(queue), "open by expertise").endswith(", field 5 1, … 3 more")


def test_a_closed_queue_says_closed(queue, ask):
    ask()
    queue.close()
    page, text = shown(queue)
    assert page.texts[1].endswith(", closed")
    assert text.splitlines()[0].endswith(", closed")


def test_a_queue_that_cannot_be_read_says_why_instead_of_failing_the_cell(queue, monkeypatch):
    def gone(*_, **__):
        raise LeaseLost(task_id="<b>", holder="eve\u202e")

    monkeypatch.setattr(queue.store, "read", gone)
    _, text = shown(queue)
    assert "cannot be shown now (LeaseLost" in text


def test_the_repr_of_a_queue_reads_nothing(queue, monkeypatch):
    monkeypatch.delattr(type(queue.store), "read")
    assert repr(queue) == f"ReviewQueue({queue.store.name!r})"


# -- policy ------------------------------------------------------------------------------------------------------------


class Weekend:
    """A rule of a user's own."""

    name = "weekend"

    def check(self, batch):
        return [Finding(rule=self.name, says="Weekend", fired=np.ones(batch.n, dtype=bool))]

    def to_dict(self):
        return {"kind": "weekend", "name": self.name}


def cells(policy):
    return {row[0]: row[1:] for row in policy._table().rows}


def test_a_policy_is_a_table_of_its_rules():
    detector = IsolationForest(n_estimators=2, random_state=0).fit(np.arange(20.0).reshape(-1, 1))
    night = Predicate(name="night", function=lambda batch: batch["hour"] < 6, says="Night: {value}")
    rules = (FieldAbove(field="amount", bound=1000), night, Outlier(detector=detector, fields=("amount",)), Weekend())
    policy = Policy(0.9, rules=rules, label_thresholds={"spam": 0.95})
    found = cells(policy)
    assert list(found)[:4] == ["irreversible", "regulated", "high_value_transaction", "is_anomalous"]
    assert found["amount above 1000"] == ("the field is above the bound, or no number", "1000", "yes", "high")
    assert found["night"][0] == "Night: {value}; or it cannot judge"
    assert found["weekend"] == ("it fires", "", "as it says", "")
    assert found["confidence of spam"][1:] == ("0.95", "no", "by confidence")
    assert found["confidence"][1:] == ("0.9", "no", "by confidence")
    _, text = shown(policy)
    assert text.splitlines()[0] == f"Policy {policy.fingerprint}"
    assert repr(policy).startswith("Policy(confidence_threshold=0.9")


def test_a_policy_says_what_becomes_of_audits_and_deadlines():
    text = str(Policy(deadline=timedelta(hours=4), escalation=("senior", "board")))
    assert "audits: 2% of the rest, at random, after the fact; two people judge 10% of them" in text
    assert "deadline: 4:00:00, then escalate to senior, board" in text
    text = str(Policy(audit_rate=0.5, audit_blocks=True, second_audit=0))
    assert "audits: 50% of the rest, at random, before the caller is told; two people judge 0% of them" in text
    assert "deadline: none" in text


CERTIFICATE = {"target_risk": 0.02, "confidence_level": 0.95, "n": 400, "coverage": 0.7, "kind": "certified"}


@pytest.mark.parametrize(
    ("facts", "asks"),
    [
        ({"threshold": 0.9, "model": "v7"}, "the confidence is below the bound, or the model is not v7"),
        ({"threshold": 0.9}, "the confidence is below the bound"),
        ({"threshold": None, "reason_if_none": "149 audits missing"}, "always: 149 audits missing"),
        ({"threshold": 0.9, "revoked_at": datetime(2026, 1, 5, tzinfo=UTC)}, "always: the certificate was revoked"),
    ],
)
def test_a_certificate_says_when_it_holds(facts, asks):
    found = cells(Policy(Certificate(**CERTIFICATE, **facts)))
    assert found["certificate"][0] == asks
    assert found["certificate"][1] == ("" if asks.startswith("always") else "0.9")


@pytest.mark.parametrize("text", ["<b>amount</b>", "amount\u202e", "$x$"])
def test_a_policy_shows_hostile_names_as_text(text):
    page, _ = shown(Policy(rules=(FieldAbove(field=text, bound=1),), label_thresholds={text: 0.5}))
    assert f"{line(text)} above 1" in page.texts
    assert f"confidence of {line(text)}" in page.texts


def test_a_policy_whose_rule_fails_is_shown_all_the_same():
    class Broken(Weekend):
        def to_dict(self):
            raise RuntimeError("<b>no</b>")

    _, text = shown(Policy(rules=(Broken(),)))
    assert "cannot be shown now (RuntimeError: <b>no</b>)" in text


# -- retrain -----------------------------------------------------------------------------------------------------------


def report(champion=None, challenger=None, **options):
    made = Challenger(version="v2", model=None, n_rows=412, metrics={"reviewed_rows": 262})
    found = None if champion is None else compare_paired(champion, challenger)
    found = options.pop("comparison", found)
    promoted = found is None or found.verdict == "promote"
    given = {"challenger": made, "comparison": found, "promoted": promoted, "looks": 1}
    return RetrainReport(**given | {"before": None if found is None else "v1"} | options)


def test_a_promotion_shows_both_errors_and_the_difference():
    old, new = [True] * 14 + [False] * 136, [False] * 10 + [True] * 5 + [False] * 135
    page, text = shown(report(old, new))
    assert text.splitlines()[0].startswith("v2 is in use now")
    assert page.texts[5:8] == ["v1, in use before", "14", "9.3% (5.2% to 15.2% at 95%, n = 150)"]
    assert page.texts[8:11] == ["v2", "5", "3.3% (1.1% to 7.6% at 95%, n = 150)"]
    assert page.texts[11:13] == ["10 repaired, 1 broken", "-9"]
    assert page.texts[13].startswith("-6.0% (")
    assert "it learned from 412 rows, 262 of them reviewed" in text
    assert "look 1 at this holdout; all looks together share one chance of a wrong promotion" in text
    assert "next: loop.learner.predict(frame)" in text


def test_a_refusal_and_an_open_question_say_what_to_do():
    right, wrong = [False] * 50, [True] * 10 + [False] * 40
    assert shown(report(right, wrong))[1].splitlines()[0] == "v2 is not in use: proven worse"
    found = report(right, right)
    text = shown(found)[1]
    assert text.splitlines()[0] == "v2 is not in use: undecided"
    assert f"next: about {found.comparison.labels_needed} more random labels" in text


def test_a_report_names_the_class_that_is_against_a_promotion_and_those_that_are_not_proven():
    old, new = [True] * 20 + [False] * 410, [False] * 400 + [True] * 5 + [False] * 25
    truth = ["ham"] * 385 + ["<b>"] * 15 + ["spam"] * 30
    text = shown(report(old, new, comparison=with_floor(compare_paired(old, new), truth, old, new)))[1]
    assert text.splitlines()[0] == "v2 is not in use: proven worse"
    assert "against a promotion: class spam: +16.7% errors (+" in text
    assert "too few rows to prove that these classes lose nothing: <b> (15)" in text


def test_a_first_model_is_compared_with_none():
    _, text = shown(report())
    assert text.splitlines()[0] == "v2 is in use: the first model, compared with none"


def test_a_loop_names_the_model_that_was_in_use_before(queue):
    learner = Learner(LogisticRegression(), holdout=0)
    learner.add(pd.DataFrame({"x": [1, 9], "label": ["a", "b"], "task_id": ["1", "2"], "source": "initial"}))
    loop = Loop(queue, learner)
    assert pretty(loop.retrain(force=True)).startswith("v1 is in use")
    again = loop.retrain(force=True)
    assert (again.before, again._table().rows[0][0]) == ("v1", "v1, in use before")
    shown(again)


def test_rows_that_no_longer_stand_are_counted():
    assert "learned from 2 rows that no longer stand" in shown(report(outdated=("a", "b")))[1]


def test_a_report_in_a_sentence_stays_one():
    assert str(report()) == "v2 from 412 rows: in use, as the first model"
    assert isinstance(report()._table(), Table)
