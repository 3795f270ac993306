// The panel on the screen: built once and brought up to date in place; it never takes the focus by itself.
const JUDGE = ["approve", "reject", "correct", "skip"];
const BUTTONS = [
  ["approve", "Approve", "The prediction is right"],
  ["reject", "Reject", "The prediction is wrong"],
  ["correct", "Correct", "What stands in the correction is right"],
  ["skip", "Skip", "Give it back with the note as the reason, or go on"],
  ["object", "Object", "Ask for a second look, with the note as the reason"],
  ["retry", "Retry", "Send again what was kept, or look for work"],
  ["undo", "Undo", "Take the last decision back, or the last batch"],
  ["grid", "Several", "Look at several items and approve those that are right"],
  ["retrain", "Retrain", "Retrain the model from the answers so far"],
  ["finish", "Finish", "Give open items back and end the sitting"],
  ["export", "Export", "Write every decision with its answer to a CSV file beside the notebook"],
];
const MORE = [["note", "Write a note"], ["unfold", "Show what is folded"], ["similar", "Judged tasks that are like this one"],
  ["help", "Show or hide the keys"], ["leave", "Leave a field, or what was opened"]];
const TRAINS = {running: "Retraining", done: "Retrained", failed: "Not retrained"};
const ALWAYS = ["approve", "reject", "correct", "skip", "undo", "finish"];

function makeView(store, act) {
  const part = (tag, name, ...children) => make(tag, `hitl-live-${name}`, ...children);
  const said = (name, label) => {
    const made = part("div", name);
    made.setAttribute("aria-label", label);
    made.setAttribute("role", "group");
    return made;
  };
  const v = {
    title: part("strong", "title"), focus: part("span", "focus"), counts: part("span", "counts"),
    bar: part("progress", "bar"), message: said("message", "Message"), why: said("why", "Why here"),
    input: said("input", "Input"), answer: said("prediction", "Prediction"), shares: said("shares", "Confidence"),
    more: part("div", "more"), answers: said("answers", "Answers that disagree"),
    last: said("last", "Last"), trained: said("retrain", "Retrain"), heard: part("div", "heard"), help: part("dl", "help"),
    note: part("textarea", "note"), buttons: {},
  };
  v.message.setAttribute("role", "status");
  v.heard.setAttribute("aria-live", "polite");
  v.bar.setAttribute("aria-label", "Judged so far");
  v.note.rows = 1;
  v.note.maxLength = 20000;
  const press = (action) => (event) => event.detail > 1 || act(action); // the second half of a double click is void
  for (const [action, words, tip] of BUTTONS) {
    const made = (v.buttons[action] = button(words, tip, press(action)));
    made.setAttribute("aria-label", words);
    made.dataset.action = action;
  }
  const helps = button("?", "Show what the keys do", press("help"));
  helps.setAttribute("aria-label", "Help");
  const noted = make("label", "hitl-live-entry", make("span", "", "Note"), v.note);
  v.entries = part("div", "entries");
  v.similar = makeSimilar((ticket) => store.send({kind: "similar", ticket}));
  v.single = part("div", "single", v.why, part("div", "item", v.input, part("div", "said", v.answer, v.shares, v.more, v.answers)));
  v.acts = part("div", "buttons", ...Object.values(v.buttons));
  v.entered = part("div", "single", v.entries, v.similar.root);
  v.grid = makeGrid((tickets) => act("batch", tickets), () => act("leave"));
  v.root = part("section", "", part("header", "head", v.title, v.counts, v.focus, helps), v.bar, v.message, v.help,
    v.single, v.acts, v.entered, v.grid.root, v.last, v.trained, v.heard);
  v.root.className = "hitl-live";
  v.root.tabIndex = 0;
  v.root.setAttribute("aria-label", "Review");
  v.noted = noted;
  [v.shown, v.inner] = [{ticket: null, card: null}, []];
  v.isHelping = v.isGrid = false;
  const toggle = () => v.root.classList.toggle("hitl-live-keyed", v.root.contains(document.activeElement));
  v.root.addEventListener("focusin", toggle);
  v.root.addEventListener("focusout", () => queueMicrotask(toggle));
  for (const typed of ["input", "change"]) v.entries.addEventListener(typed, () => keepDraft(store, v));
  return v;
}

function keepDraft(store, v) {
  if (v.shown.ticket) store.drafts.set(taskOf(v.shown.ticket), {comment: v.note.value, typed: v.form.isEmpty() ? null : v.form.texts()});
}

// -- drawing

// What had the focus may go, or be hidden; the keys stay on.
function draw(store, v) {
  const before = document.activeElement, had = before !== v.root && v.root.contains(before);
  drawParts(store, v);
  const now = document.activeElement;
  if (had && (now === before ? !now.getClientRects().length : !v.root.contains(now))) v.root.focus({preventScroll: true});
}

function drawParts(store, v) {
  const {line, state} = store;
  const ticket = front(line), card = store.cards.get(ticket) ?? null;
  if (!v.form && store.setup) setUp(store, v);
  else if (v.form && v.setup !== store.setup) v.form.offer(store.setup.form); // a new label
  v.setup = store.setup;
  const isFirst = ticket === line.queue[0], over = state?.state === "finished";
  v.root.dataset.state = store.isSilent ? "disconnected" : !state ? "loading" : card || over ? (isFirst || over ? state.state : "item") : line.unsaved.length ? "saving" : state.state;
  v.root.setAttribute("aria-busy", String(isBusy(line)));
  setText(v.title, titleOf(store, card, isFirst));
  setText(v.counts, countsOf(store));
  setText(v.focus, store.setup ? "keys on" : "");
  if (state) [v.bar.max, v.bar.value] = [Math.max(state.total, 1), state.done];
  setText(v.message, messageOf(store, isFirst || !card));
  v.message.hidden = false; // who is told what changes in there must have seen it empty
  setText(v.last, state?.last ?? "");
  setText(v.trained, state?.retrain.state ? `${TRAINS[state.retrain.state]}: ${state.retrain.text}` : "");
  v.help.hidden = !v.isHelping;
  v.isGrid = v.isGrid && Boolean(card) && !store.isSilent;
  v.single.hidden = v.entered.hidden = v.isGrid || !card;
  v.acts.hidden = v.isGrid || !state;
  v.grid.root.hidden = !v.isGrid;
  if (v.isGrid) v.grid.fill(line.queue.map((one) => [one, store.cards.get(one)]).filter(([, one]) => one?.easy));
  if (v.form) drawCard(store, v, ticket, card, isFirst);
  v.similar.show(ticket, Boolean(card) && !card.blind && !store.isSilent);
  for (const [action] of BUTTONS) drawButton(store, v, action, card);
}

function titleOf(store, card, isFirst) {
  if (!store.state) return store.isSilent ? "No answer from the kernel" : "Connecting";
  if (store.isSilent) return "Disconnected";
  if (card && !isFirst) return "Your judgement, please";
  return !card && store.line.unsaved.length ? "Saving; the next item is on its way" : store.state.title;
}

function countsOf({state, line}) {
  if (!state) return "";
  const unsaved = line.unsaved.length + state.unsaved;
  const number = (value) => value.toLocaleString("en");
  const parts = [`${number(state.done)} of ${number(state.total)}`];
  if (state.rate) parts.push(`${state.rate.toFixed(1)}/min`, `~${Math.round(state.minutes)} min left`);
  if (unsaved) parts.push(`${unsaved} ${state.unsaved ? "not saved" : "saving"}`);
  return parts.join(" · ");
}

function messageOf(store, isFirst) {
  const {line, state} = store, told = [];
  if (store.isSilent && !state) told.push("Nothing from the kernel reaches this page. If buttons show below, they work; to have the keys, load the page again, or run the cell again.");
  else if (store.isSilent) told.push("The kernel does not answer: it was restarted, is gone, or the connection is lost. Run the cell again, or load the page again where no cells are shown; what is saved is kept.");
  if (store.isSilent && line.unsaved.length) told.push(`Not known to be saved (${line.unsaved.length}):`, ...line.unsaved.map((one) => `· ${one.words}`));
  if (line.lost.length) told.push(`Not saved, the item is no longer in your hands (${line.lost.length}):`, ...line.lost.map((one) => `· ${one.words}`));
  if (store.hint) told.push(store.hint);
  if (state && isFirst && !store.isSilent) told.push(state.summary, state.message);
  return told.filter(Boolean).join("\n");
}

function drawButton(store, v, action, card) {
  const made = v.buttons[action], can = mayNow(store, v, action, card);
  made.setAttribute("aria-disabled", String(!can)); // never disabled: that would lose the focus, and the keys with it
  made.hidden = !can && !(card && ALWAYS.includes(action));
  if (action === "retrain") made.hidden = !store.setup?.retrains;
  if (action === "reject") {
    const words = card?.blind ? "None fits" : "Reject";
    if (made.firstChild.data !== words) [made.firstChild.data] = [words];
    made.setAttribute("aria-label", words);
  }
}

// Whether something can be done about what is on the screen.
function mayNow(store, v, action, card) {
  const {line, state} = store;
  if (!state || store.isSilent || isBusy(line)) return false;
  const ahead = front(line) !== line.queue[0] && ORDINARY.includes(state.state);
  if (action === "undo") return state.actions.includes("undo") || (line.unsaved.length > 0 && ORDINARY.includes(state.state));
  if (action === "grid") return state.actions.includes("batch") && !line.unsaved.length;
  if (action === "unfold") return Boolean(card) && !ahead && (card.shown.folded || card.answer.folded);
  if (action === "retrain") return state.retrain.state !== "running";
  if (!JUDGE.includes(action)) return state.actions.includes(action);
  return Boolean(card) && (ahead ? !(action === "approve" && card.blind) : state.actions.includes(action));
}

function setUp(store, v) {
  const {keys, form, reviewer} = store.setup;
  v.form = makeForm(form, () => v.submit());
  v.entries.append(make("div", "hitl-live-correction", v.form.root), v.noted);
  v.root.setAttribute("aria-label", `Review as ${reviewer}`);
  for (const [action, made] of Object.entries(v.buttons)) {
    if (!keys[action]) continue;
    made.append(make("kbd", "", keys[action]));
    made.setAttribute("aria-keyshortcuts", keys[action]);
  }
  v.similar.summary.append(make("kbd", "", keys.similar));
  v.similar.summary.setAttribute("aria-keyshortcuts", keys.similar);
  v.noted.firstChild.append(make("kbd", "", keys.note));
  v.note.setAttribute("aria-label", "Note");
  v.note.setAttribute("aria-keyshortcuts", keys.note);
  const tips = new Map([...BUTTONS.map(([action, words, tip]) => [action, `${words}: ${tip}`]), ...MORE]);
  v.help.append(...[...Object.entries(keys), ["leave", "Esc"]].flatMap(([action, key]) =>
    [make("dt", "", make("kbd", "", key)), make("dd", "", tips.get(action))]));
}

function drawCard(store, v, ticket, card, isFirst) {
  const {shown} = v, isSameTask = shown.ticket && ticket && taskOf(shown.ticket) === taskOf(ticket);
  if (ticket !== shown.ticket) fillEntries(store, v, ticket, card, isFirst, isSameTask);
  else if (isFirst && store.state.fields.length && store.state.fields !== v.errors) v.form.showErrors((v.errors = store.state.fields));
  if (card === shown.card) return;
  v.shown = {ticket, card};
  if (!card) return;
  v.inner.splice(0).forEach((remove) => remove());
  const widget = (id, place) => v.inner.push(store.widget(id, place));
  const url = (one) => card.urls[one.buffer], folds = (shown) => (shown.folded ? () => v.act("unfold") : null);
  showParts(v.input, card.shown.parts, {unfold: folds(card.shown), url, widget});
  if (card.shown.note) v.input.append(make("p", "hitl-live-faint", card.shown.note));
  showParts(v.more, card.answer.parts, {unfold: folds(card.answer), url, widget});
  setText(v.answer, card.answer.parts.length ? card.label : card.prediction);
  const sure = card.confidence.replace(/^(?=\d)/, "confidence ");
  v.shares.replaceChildren(make("div", "hitl-live-faint", sure), ...card.bars.filter(([, share]) => share >= 0.005).map(makeShare));
  v.why.replaceChildren(...card.why.map((one) => make("div", "", one)), make("div", "hitl-live-faint", card.facts.join(" · ")));
  v.answers.replaceChildren(...card.answers.map((one, i) => make("div", "", make("strong", "", `Answer ${i + 1}`), make("div", "", one))));
  v.answers.hidden = !card.answers.length;
  v.heard.textContent = `${card.blind ? "Audit" : card.prediction}. ${card.why[0] ?? ""}`;
}

function fillEntries(store, v, ticket, card, isFirst, isSameTask) {
  v.shown = {ticket, card: null};
  if (isSameTask && (v.note.value || !v.form.isEmpty())) return; // what is being typed stays
  const draft = store.drafts.get(taskOf(ticket)), kernel = isFirst ? store.state : {comment: "", entered: [], fields: []};
  v.note.value = draft?.comment ?? kernel.comment;
  v.form.fill(draft?.typed ?? kernel.entered, card?.predicted ?? [], `${ticket} ${(v.fills = (v.fills ?? 0) + 1)}`, card?.withheld ?? []);
  v.form.showErrors((v.errors = kernel.fields));
}

function makeShare([label, share]) {
  const bar = make("span", "hitl-live-share");
  bar.style.width = `${Math.min(Math.max(share, 0), 1) * 100}%`;
  return make("div", "hitl-live-row", bar, make("span", "hitl-live-number", share.toFixed(2)), make("span", "hitl-live-label", label));
}
