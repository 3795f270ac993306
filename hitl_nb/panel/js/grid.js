// Items side by side: mark the wrong ones, approve the others at once. What a hard rule sent never comes here.
function makeGrid(approve, leave) {
  const tiles = make("div", "hitl-live-tiles");
  const say = make("p", "hitl-live-say");
  const go = button("", "Approve every item that is not marked as wrong", () => (asked ? confirm() : ask()));
  const back = button("Back", "Go back to one item at a time", () => (asked ? draw() : leave()));
  const root = make("div", "hitl-live-grid", tiles, say, make("div", "hitl-live-buttons", go, back));
  const wrong = new Set();
  let cards = [], asked = false;
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", "Items to approve together");
  say.setAttribute("role", "status");

  const rest = () => cards.filter(([ticket]) => !wrong.has(ticket)).map(([ticket]) => ticket);

  function ask() {
    if (!rest().length) return leave();
    asked = true;
    const marked = cards.length - rest().length;
    say.textContent = `Approve ${rest().length} of ${cards.length}?` + (marked ? ` ${marked} marked wrong come${marked === 1 ? "s" : ""} one by one.` : "");
    go.textContent = `Yes, approve ${rest().length}`;
    back.textContent = "No";
    go.focus();
  }

  function confirm() {
    const tickets = rest();
    draw();
    approve(tickets);
  }

  function draw() {
    asked = false;
    say.textContent = cards.length ? "Mark the wrong ones." : "Nothing in hand may be approved together; the rest needs a look each.";
    go.textContent = rest().length ? `Approve ${wrong.size ? "the other" : "all"} ${rest().length}` : "Judge them one by one";
    back.textContent = "Back";
  }

  function tile(ticket, card) {
    const [first] = card.shown.parts.filter((part) => part.kind === "image" || part.kind === "text" || part.kind === "fields");
    const face = make("div", "hitl-live-face");
    if (first?.kind === "image") {
      const image = make("img");
      image.src = card.urls[first.buffer];
      image.alt = first.name || "the item";
      face.append(image);
    } else if (first) face.append(first.kind === "text" ? first.text.slice(0, 400) : first.rows.slice(0, 6).map((row) => `${row[0]}: ${row[1]}`).join("\n"));
    const mark = make("span", "hitl-live-mark");
    const made = button("", "Mark as wrong, or take the mark back", () => {
      wrong.has(ticket) ? wrong.delete(ticket) : wrong.add(ticket);
      show();
      draw();
    });
    const show = () => {
      made.setAttribute("aria-pressed", wrong.has(ticket));
      mark.textContent = wrong.has(ticket) ? "✗ wrong" : "";
    };
    made.className = "hitl-live-tile";
    made.append(face, make("span", "hitl-live-says", `${card.prediction}  ${card.confidence}`), mark);
    show();
    return made;
  }

  return {
    root,
    press: () => go.click(),
    // Shows some items; marks of those that stay are kept.
    fill(shown) {
      const same = shown.length === cards.length && shown.every(([ticket], i) => ticket === cards[i][0]);
      if (same) return;
      cards = shown;
      for (const ticket of [...wrong]) if (!cards.some(([one]) => one === ticket)) wrong.delete(ticket);
      tiles.replaceChildren(...cards.map(([ticket, card]) => tile(ticket, card)));
      draw();
    },
  };
}
