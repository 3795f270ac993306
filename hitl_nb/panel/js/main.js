// One store for each panel, shared by all places where it is shown; the kernel is the only authority.
const PATIENCE = 3000, SILENCE = 10000; // milliseconds until the kernel is asked again, and until it counts as gone

function newName() {
  return [...crypto.getRandomValues(new Uint8Array(12))].map((one) => one.toString(16).padStart(2, "0")).join("");
}

function newStore() {
  return {
    line: newLine(newName()), state: null, setup: null, cards: new Map(), drafts: new Map(), views: new Set(),
    isSilent: false, asks: 0, hint: "", heardAt: performance.now(), askedAt: 0, send: () => {}, widget: () => {},
  };
}

const drawAll = (store) => store.views.forEach((v) => draw(store, v));

function connect(model, store) {
  store.send = (content) => {
    try {
      model.send({...content, session: store.line.session});
    } catch { // the notebook has let its kernel go
      store.isSilent = true;
      drawAll(store);
    }
  };
  store.widget = (id, place) => showWidget(model.widget_manager, id, place);
  const ask = () => {
    store.askedAt = performance.now();
    store.asks = store.state ? 0 : store.asks + 1;
    store.send({kind: "ready", sent: store.line.next - 1, heard: store.state !== null});
  };
  const hear = (message, buffers) => {
    if (message?.kind === "similar") store.views.forEach((v) => v.similar.hear(message, buffers));
    if (message?.kind !== "state") return;
    [store.heardAt, store.isSilent] = [performance.now(), false];
    receive(store, message, buffers);
    drawAll(store);
    if (store.asks > 1) ask(); // the kernel took this page for deaf
  };
  const watch = () => {
    const waits = !store.state || isBusy(store.line) || store.line.unsaved.some((one) => one.n > 0) || store.isSilent;
    const [now, since] = [performance.now(), Math.max(store.heardAt, store.sentAt ?? 0)];
    if (!waits) return;
    if (now - since > SILENCE && !store.isSilent) {
      store.isSilent = true;
      drawAll(store);
    }
    if (now - since > PATIENCE && now - store.askedAt > PATIENCE) ask();
  };
  model.on("msg:custom", hear);
  model.on("comm_live_update", ask);
  const timer = setInterval(watch, 500);
  ask();
  return () => clearInterval(timer);
}

// what a widget waits for before it draws anything
const ATTACHED = {type: "after-attach", isConflatable: false, conflate: () => false};

// Shows a widget of the user's; returns what takes it away again, which must happen while it stands there.
function showWidget(manager, id, place) {
  let view = null, isOver = false;
  (async () => {
    const found = await manager.get_model(id).catch(() => null);
    const made = found && (await manager.create_view(found));
    if (isOver) return made?.remove();
    view = made;
    place.append(view ? view.el : "This widget was closed; what it showed is gone.");
    view?.luminoWidget?.processMessage(ATTACHED);
  })();
  return () => {
    isOver = true;
    if (view?.luminoWidget && view.el.isConnected) view.luminoWidget.dispose();
    else view?.remove();
  };
}

function receive(store, message, buffers) {
  store.setup = message.setup ?? store.setup;
  for (const [ticket, card] of Object.entries(message.cards)) {
    free(store.cards.get(ticket));
    const pictures = [...card.shown.parts, ...card.answer.parts].filter((part) => part.kind === "image");
    card.urls = Object.fromEntries(pictures.map((part) => [part.buffer, URL.createObjectURL(new Blob([buffers[part.buffer]], {type: "image/png"}))]));
    store.cards.set(ticket, card);
  }
  for (const ticket of [...store.cards.keys()]) {
    if (message.queue.includes(ticket)) continue;
    free(store.cards.get(ticket));
    store.cards.delete(ticket);
    if (!message.queue.some((one) => taskOf(one) === taskOf(ticket))) store.drafts.delete(taskOf(ticket));
  }
  store.state = message;
  const {line, again} = reconcile(store.line, message);
  store.line = line;
  again.forEach((one) => submit(store, one));
}

const free = (card) => Object.values(card?.urls ?? {}).forEach((url) => URL.revokeObjectURL(url));

function submit(store, one) {
  store.sentAt = performance.now();
  store.send({kind: "act", ...one});
}

// -- what a reviewer does

function makeAct(store, v) {
  return (action, tickets) => {
    store.hint = "";
    const card = store.cards.get(front(store.line)) ?? null;
    if (action === "help") v.isHelping = !v.isHelping;
    else if (action === "leave") leave(v);
    else if (v.isGrid && action !== "batch" && action !== "undo") action === "approve" && v.grid.press();
    else if (action === "note") v.note.focus();
    else if (action === "similar") v.similar.toggle();
    else if (action === "correct" && card && (v.form.isEmpty() || v.form.check()) && mayNow(store, v, action, card)) begin(store, v);
    else if (JUDGE.includes(action)) judge(store, v, action, card);
    else if (action === "batch" || mayNow(store, v, action, card)) ask(store, v, action, tickets);
    drawAll(store);
  };
}

function leave(v) {
  if (isTyping(document.activeElement)) v.root.focus();
  else v.isHelping = v.isGrid = false;
}

function begin(store, v) {
  if (v.form.isEmpty()) v.form.focus();
  else store.hint = v.form.check(); // which goes to the field that is wrong
}

function judge(store, v, action, card) {
  const correction = action === "correct" ? v.form.read() : null;
  const words = `${action} ${card?.prediction ?? ""}${correction === null ? "" : ` → ${JSON.stringify(correction)}`}`;
  const id = newName();
  const line = mayNow(store, v, action, card) ? decide(store.line, {action, id, comment: v.note.value, correction, words}) : null;
  if (!line) {
    if (!card && store.line.unsaved.length) store.hint = "Not so fast: the next item is on its way; that key was not counted.";
    return;
  }
  store.drafts.delete(taskOf(front(store.line)));
  store.line = line;
  submit(store, line.unsaved.at(-1));
  if (v.root.contains(document.activeElement) && isTyping(document.activeElement)) v.root.focus();
}

function ask(store, v, action, tickets) {
  const name = action === "grid" ? "gather" : action;
  const line = control(store.line, {action: name, comment: v.note.value, tickets});
  if (!line) return;
  if (action === "grid") v.isGrid = true;
  if (action === "batch") v.isGrid = false;
  store.line = line;
  submit(store, line.asked);
}

export default () => {
  const store = newStore();
  return {
    initialize: ({model}) => connect(model, store),
    render({el}) {
      const v = makeView(store, (...asked) => v.act(...asked)), over = new AbortController();
      v.act = makeAct(store, v);
      v.submit = () => v.act("correct");
      listenToKeys(v.root, () => store.setup?.keys ?? {}, v.act, over.signal);
      store.views.add(v);
      el.append(v.root);
      draw(store, v);
      return () => {
        over.abort();
        v.inner.splice(0).forEach((remove) => remove());
        store.views.delete(v);
      };
    },
  };
};
