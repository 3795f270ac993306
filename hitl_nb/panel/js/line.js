// What was decided here and is not saved yet. Pure: every function returns a new line and looks at no clock.
// The kernel takes decisions in their order; what it could not take comes back and is sent again when its turn comes.

const ORDINARY = ["item", "cannot_display", "loading", "saving"];

function newLine(session) {
  return {session, next: 1, answered: 0, state: "loading", queue: [], unsaved: [], lost: [], control: 0};
}

const taskOf = (ticket) => ticket.split(":")[0];

// The item to be shown: the first one in hand that nothing was decided about; after trouble, the one in trouble.
function front(line) {
  if (!ORDINARY.includes(line.state)) return line.queue[0] ?? "";
  const decided = new Set(line.unsaved.map((one) => taskOf(one.ticket)));
  return line.queue.find((ticket) => !decided.has(taskOf(ticket))) ?? "";
}

// Decides about the item that is shown; null where that is not possible now.
function decide(line, decision) {
  const ticket = front(line);
  const twice = line.unsaved.some((one) => taskOf(one.ticket) === taskOf(ticket));
  if (!ticket || twice || isBusy(line)) return null;
  const one = {...decision, ticket, n: line.next};
  return {...line, next: line.next + 1, unsaved: [...line.unsaved, one], lost: []};
}

// Asks for something else, such as undo; until it is answered nothing can be decided.
function control(line, asked) {
  if (isBusy(line)) return null;
  return {...line, next: line.next + 1, control: line.next, asked: {...asked, n: line.next}};
}

const isBusy = (line) => line.control > line.answered;

// Brings the line to a state of the kernel; returns it with what is to be sent again, in order.
function reconcile(line, state) {
  const heard = state.sessions[line.session] ?? {answered: 0, heard: 0, refused: []};
  const refused = new Set(heard.refused);
  const after = {...line, answered: heard.answered, state: state.state, queue: state.queue, unsaved: [], lost: [...line.lost]};
  if (heard.heard >= line.control) after.control = Math.min(line.control, heard.answered);
  for (const one of line.unsaved) {
    const answered = one.n > 0 && one.n <= heard.answered;
    const gone = one.n > heard.answered && one.n <= heard.heard; // it never came
    if (answered && !refused.has(one.n)) continue; // saved
    if (one.n > 0 && !answered && !gone) after.unsaved.push(one); // on its way
    else if (isToWait(one, state, one.n === 0 || gone)) after.unsaved.push({...one, n: 0, tries: (one.tries ?? 0) + 1});
    else if (!state.queue.length || taskOf(state.queue[0]) !== taskOf(one.ticket)) after.lost.push(one);
  }
  return sendAgain(after);
}

// Whether a decision that was not taken waits for its turn; about the item in front, the kernel says what is wrong.
function isToWait(one, state, isUnheard) {
  const place = state.queue.indexOf(one.ticket);
  const early = ORDINARY.includes(state.state) && !state.message && (one.tries ?? 0) < 20; // it came before its turn
  return place > 0 || (place === 0 && (isUnheard || early));
}

function sendAgain(line) {
  const first = line.unsaved[0];
  const turn = first?.n === 0 && first.ticket === line.queue[0] && ORDINARY.includes(line.state) && !isBusy(line);
  if (!turn) return {line, again: []};
  let next = line.next;
  const unsaved = line.unsaved.map((one) => (one.n === 0 ? {...one, n: next++} : one));
  return {line: {...line, next, unsaved}, again: unsaved.filter((one) => one.n >= line.next)};
}
