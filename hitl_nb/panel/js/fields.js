// An item, part by part; whatever it says is a text node.

// longer texts are folded on the spot, by lines of about so many characters; deeper branches of a tree start closed
const FOLD_LINES = 30, LINE_CHARACTERS = 80, OPEN_LEVELS = 2;

// options: unfold, a function or null; url(part), the address of a picture; widget(model, place), which shows a widget
function showParts(root, parts, options) {
  const more = options.unfold ? button("Show more", "Show what is folded", options.unfold) : null;
  root.replaceChildren(...parts.map((part) => showPart(part, options)), ...(more ? [more] : []));
}

function showPart(part, options) {
  if (part.kind === "text") return showText(part);
  if (part.kind === "fields") return showFields(part);
  if (part.kind === "tree") return showBranch(part.name, part.node, 0);
  if (part.kind === "image") return showImage(part, options.url(part));
  const place = make("div", "hitl-live-widget");
  options.widget(part.model, place);
  return place;
}

// text from outside in a box of its own, which keeps its direction to itself
function outside(tag, className, ...words) {
  const element = make(tag, `hitl-live-outside ${className}`.trim(), ...words);
  element.dir = "auto";
  return element;
}

function showText(part) {
  const text = outside("div", "hitl-live-text", ...markedText(part.text, part.marks));
  const box = make("section", "hitl-live-part", part.name ? outside("div", "hitl-live-name", part.name) : null, text);
  if (part.name) box.setAttribute("aria-label", part.name);
  if (lineCount(part.text) > FOLD_LINES) box.append(foldLocally(text, part.name));
  return box;
}

// ranges count characters, not the halves of which a string holds some
function markedText(text, marks) {
  const characters = Array.from(text), pieces = [];
  let done = 0;
  for (const [start, end] of marks) {
    pieces.push(characters.slice(done, start).join(""), make("mark", "", characters.slice(start, end).join("")));
    done = end;
  }
  return [...pieces, characters.slice(done).join("")];
}

function lineCount(text) {
  return text.split("\n").reduce((sum, line) => sum + Math.max(1, Math.ceil(line.length / LINE_CHARACTERS)), 0);
}

// a long text scrolls, also by keys, until all of it is asked for
function foldLocally(text, name) {
  const toggle = button("Show all", "Show the whole text at once", () => fold(text.classList.contains("hitl-live-whole")));
  function fold(folded) {
    text.classList.toggle("hitl-live-whole", !folded);
    text.tabIndex = folded ? 0 : -1;
    toggle.textContent = folded ? "Show all" : "Show less";
    toggle.setAttribute("aria-expanded", String(!folded));
  }
  text.classList.add("hitl-live-long");
  text.setAttribute("role", "group");
  text.setAttribute("aria-label", `${name || "Text"}, scrolls`);
  fold(true);
  return toggle;
}

// numbers end at one line, beside the names, however long the texts among them are
function showFields(part) {
  const table = make("table", "hitl-live-fields", make("tbody", "", ...part.rows.map(fieldRow)));
  const widest = Math.max(...part.rows.map(([, value, isNumber]) => (isNumber ? value.length : 0)));
  table.querySelectorAll(".hitl-live-number > .hitl-live-outside").forEach((one) => { one.style.minWidth = `${widest}ch`; });
  table.setAttribute("aria-label", "Fields");
  return table;
}

function fieldRow([name, value, isNumber, odd]) {
  const head = make("th", "", outside("span", "", name));
  head.scope = "row";
  const cell = make("td", isNumber ? "hitl-live-number" : "", outside("span", "", value));
  if (odd) cell.append(make("span", "hitl-live-odd", `⚠ ${odd}`));
  return make("tr", odd ? "hitl-live-is-odd" : "", head, cell);
}

// a branch of a tree; the first two levels are open
function showBranch(label, node, level) {
  const leaves = node.map(([name, below]) =>
    make("li", "", ...(typeof below === "string" ? leaf(name, below) : [showBranch(name, below, level + 1)])));
  const count = make("span", "hitl-live-count", ` ${node.length}`);
  const details = make("details", "hitl-live-tree",
    make("summary", "", outside("span", "hitl-live-name", label), count), make("ul", "", ...leaves));
  details.open = level < OPEN_LEVELS;
  return details;
}

function leaf(name, value) {
  return [outside("span", "hitl-live-name", name), value ? ": " : "", value ? outside("span", "", value) : null];
}
