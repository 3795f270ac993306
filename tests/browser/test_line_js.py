"""What the view decides and the kernel saves, reconciled exactly; what keys mean. Pure functions, on a bare page."""

import pytest

from hitl_nb.panel.live import SCRIPT

#: a kernel that takes decisions in their order, with a line that loses messages and a store that fails; seeded
SIMULATION = """(seed) => {
    const random = () => ((seed = (seed * 1103515245 + 12345) % 2147483648) / 2147483648);
    const total = 40, size = 8, saved = [];
    let line = newLine('s'), claimed = size, queue = [], state = 'item', answered = 0, heard = 0, refused = [];
    let up = [], down = [], undecided = 0;
    for (let i = 0; i < size; i++) queue.push(`task${i}:1:1`);
    const told = () => ({state, queue: [...queue], message: state === 'error' ? 'no connection' : '',
        sessions: {s: {answered, heard, refused: [...refused]}}});
    const refill = () => { while (queue.length < size && claimed < total) queue.push(`task${claimed++}:1:1`); };
    const next = (one) => { saved.push([one.ticket, one.action, one.id]); queue.shift(); refill(); };
    let kept = null;
    const take = (one) => {
        if (one.n <= answered) return;
        for (let n = answered + 1; n < one.n; n++) refused.push(n);
        answered = one.n;
        if (one.action === 'retry') {
            if (!kept) { refused.push(one.n); return; }
            next(kept); kept = null; state = queue.length ? 'item' : 'empty';
        } else if (state !== 'item' || one.ticket !== queue[0]) refused.push(one.n);
        else if (random() < 0.1) { kept = one; state = 'error'; refused.push(one.n); }
        else { next(one); state = queue.length ? 'item' : 'empty'; }
    };
    const send = (one) => { if (random() > 0.15) up.push({...one}); };
    const hear = (message) => {
        const found = reconcile(line, message);
        line = found.line;
        found.again.forEach(send);
    };
    hear(told());
    const judged = new Map();
    for (let step = 0; step < 4000 && saved.length < total; step++) {
        const what = random();
        if (what < 0.45) {
            if (line.state === 'error') { const asked = control(line, {action: 'retry'});
                if (asked) { line = asked; send(asked.asked); } }
            else { const id = `id${step}`, action = random() < 0.5 ? 'approve' : 'reject';
                const after = decide(line, {action, id});
                if (after) { const one = after.unsaved.at(-1); judged.set(one.ticket, id); line = after; send(one); } }
        } else if (what < 0.75 && up.length) { take(up.shift()); if (random() > 0.15) down.push(told()); }
        else if (down.length) hear(down.shift());
        else if (!up.length) { heard = line.next - 1; down.push(told()); } // the view asks, and is answered
    }
    return {saved, judged: [...judged], lost: line.lost, left: line.unsaved.length};
}"""


@pytest.fixture(scope="module")
def bare(chrome):
    """A page with the functions of the view, without a notebook."""
    page = chrome.new_page()
    page.set_content("<div id=root></div>")
    page.add_script_tag(content=SCRIPT.replace("export default", "window.made ="))
    yield page
    page.close()


@pytest.mark.parametrize("seed", range(40))
def test_every_decision_is_saved_once_and_in_order_whatever_is_lost_on_the_way(bare, seed):
    found = bare.evaluate(SIMULATION, seed * 7919 + 1)
    assert [ticket for ticket, _, _ in found["saved"]] == [f"task{i}:1:1" for i in range(40)]
    assert len({one[2] for one in found["saved"]}) == 40
    last = dict(found["judged"])
    assert all(last[ticket] == name for ticket, _, name in found["saved"])
    assert found["lost"] == []


@pytest.mark.parametrize(
    ("event", "typing", "asked"),
    [
        ({"key": "a"}, False, "approve"),
        ({"key": "A", "shiftKey": True}, False, "approve"),
        ({"key": "a"}, True, None),
        ({"key": "a", "ctrlKey": True}, False, None),
        ({"key": "a", "metaKey": True}, False, None),
        ({"key": "a", "altKey": True}, False, None),
        ({"key": "a", "repeat": True}, False, "held"),
        ({"key": "a", "isComposing": True}, False, None),
        ({"key": "Process"}, False, None),
        ({"key": "Escape"}, True, "leave"),
        ({"key": "q"}, False, None),
        ({"key": "?"}, False, "help"),
    ],
)
def test_a_key_asks_for_one_thing_or_nothing(bare, event, typing, asked):
    keys = {"approve": "a", "help": "?"}
    assert bare.evaluate("([event, keys, typing]) => keyOf(event, keys, typing)", [event, keys, typing]) == asked


def test_a_decision_whose_item_went_to_somebody_else_is_told(bare):
    lost = bare.evaluate("""() => {
        let line = {...newLine('s'), state: 'item', queue: ['a:1:1', 'b:1:1']};
        line = decide(line, {action: 'approve', id: 'x', words: 'approve spam'});
        const sessions = {s: {answered: 1, heard: 0, refused: [1]}};
        const told = {state: 'item', queue: ['b:1:1'], message: '', sessions};
        return reconcile(line, told).line.lost.map(one => one.words);
    }""")
    assert lost == ["approve spam"]


#: a view on a model that hears nothing until it is told to
DEAF = """() => {
    window.said = [];
    window.heard = {};
    const model = {send: (content) => said.push(content), on: (what, does) => (heard[what] = does)};
    window.made().initialize({model});
}"""
STATE = """() => heard['msg:custom'](
    {kind: 'state', cards: {}, queue: [], sessions: {}, state: 'empty', actions: []}, []
)"""


def test_a_page_says_whether_it_has_heard_the_kernel(chrome):
    page = chrome.new_page()
    page.clock.install()
    page.set_content("<div id=root></div>")
    page.add_script_tag(content=SCRIPT.replace("export default", "window.made ="))
    page.evaluate(DEAF)
    page.clock.run_for(7_500)
    assert page.evaluate("said.map(one => [one.kind, one.heard])") == [["ready", False]] * 3
    page.evaluate(STATE)  # it was slow, not deaf, and says so
    assert page.evaluate("said.slice(3).map(one => [one.kind, one.heard])") == [["ready", True]]
    page.evaluate(STATE)
    page.clock.run_for(20_000)
    assert page.evaluate("said.length") == 4
    page.close()
