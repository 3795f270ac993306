// How a queue stands: asked for again and again while it can be seen, and brought up to date in place.
const PATIENCE = 3000, SILENCE = 10000; // milliseconds until it is asked for again, and until the kernel counts as gone

const write = (element, text) => element.textContent !== text && (element.textContent = text);

// As many children as there are texts; those that stay are the same elements.
function fit(parent, n, child) {
  while (parent.children.length > n) parent.lastElementChild.remove();
  while (parent.children.length < n) parent.append(child(parent.children.length));
  return [...parent.children];
}

function header(scope) {
  const made = make("th");
  made.scope = scope;
  return made;
}

function drawTable(root, {title, columns, rows}) {
  const [caption, head, body] = fit(root, 3, (i) => make(["caption", "thead", "tbody"][i]));
  write(caption, title);
  fit(head, columns.length ? 1 : 0, () => make("tr")).forEach((row) => {
    fit(row, columns.length, () => header("col")).forEach((cell, i) => write(cell, columns[i]));
  });
  fit(body, rows.length, () => make("tr")).forEach((row, r) => {
    fit(row, rows[r].length, (i) => (i ? make("td") : header("row"))).forEach((cell, i) => write(cell, rows[r][i]));
  });
}

function drawOverview(v, state, isSilent) {
  const gone = `not reached since ${state.at}, trying again`;
  const alarms = isSilent ? [gone, ...state.alarms] : state.alarms;
  fit(v.alarms, alarms.length, () => make("li")).forEach((one, i) => write(one, alarms[i]));
  write(v.at, state.tables.length ? `as of ${state.at}` : "Looking …");
  fit(v.tables, state.tables.length, () => make("table")).forEach((one, i) => drawTable(one, state.tables[i]));
}

function makeOverview() {
  const [alarms, tables, at] = [make("ul", "hitl-live-alarms"), make("div", "hitl-live-tables"), make("p", "hitl-live-faint")];
  alarms.setAttribute("aria-live", "polite");
  alarms.setAttribute("aria-label", "Alarms");
  return {alarms, tables, at, root: make("section", "hitl-live hitl-overview", alarms, tables, at)};
}

export default () => {
  const views = new Set();
  let state = {alarms: [], tables: [], at: "the start"}, timer = 0, heardAt = 0, isSilent = false;
  const drawAll = () => views.forEach((v) => drawOverview(v, state, isSilent));
  return {
    initialize({model}) {
      const wait = (milliseconds) => {
        clearTimeout(timer);
        timer = setTimeout(ask, milliseconds);
      };
      const ask = () => {
        wait(PATIENCE);
        if (document.hidden) return void (heardAt = performance.now());
        isSilent = performance.now() - heardAt > SILENCE + 1000 * (state.again ?? 0);
        if (isSilent) drawAll();
        try {
          model.send({kind: "look"});
        } catch { /* the notebook has let its kernel go; that shows as silence */ }
      };
      model.on("msg:custom", (message) => {
        [state, heardAt, isSilent] = [message, performance.now(), false];
        drawAll();
        if (message.again === null) clearTimeout(timer);
        else wait(1000 * message.again);
      });
      heardAt = performance.now();
      ask();
      return () => clearTimeout(timer);
    },
    render({el}) {
      const v = makeOverview();
      views.add(v);
      el.append(v.root);
      drawOverview(v, state, isSilent);
      return () => views.delete(v);
    },
  };
};
