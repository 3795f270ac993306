// What a reviewer enters: a label, several, a number, a text, or a form of such fields. The kernel checks it again.

const MOST_LISTED = 100;

// What two labels share that differ in case, spaces or the way an accent is written.
function alikeLabel(text) { return text.normalize("NFKC").toLowerCase().trim().split(/\s+/).join(" "); }
function formJson(text) { try { return { value: JSON.parse(text) }; } catch { return null; } }
function formPairs(found) { return new Map(Array.isArray(found) ? found : Object.entries(found ?? {})); }
function formSet(element, all) { Object.entries(all).forEach(([name, value]) => element.setAttribute(name, value)); }

// A number, or its text where a number of JavaScript would lose digits of it.
function exactNumber(text) {
  const isShort = Number.isFinite(Number(text)) && text.replace(/\D/g, "").length <= 15;
  return isShort || String(Number(text)) === text ? Number(text) : text;
}

// -- fields: {control, parts, text(), put(text), value(), wrong(), isEmpty()}; texts are those of the kernel's pairs

function textEntry(field) {
  const area = make("textarea"), text = () => area.value;
  area.rows = 1;
  const isLong = () => field.longest && [...area.value].length > field.longest;
  return { control: area, parts: [area], text, value: text, put: (wanted) => { area.value = wanted; },
    wrong: () => (isLong() ? `at most ${field.longest} characters` : ""), isEmpty: () => !area.value.trim() };
}

function jsonEntry(field) {
  const entry = textEntry(field), found = () => formJson(entry.text());
  const isLost = (value) => (typeof value === "object" && value ? Object.values(value).some(isLost)
    : typeof value === "number" && (!Number.isFinite(value) || Math.abs(value) > Number.MAX_SAFE_INTEGER));
  const value = () => (typeof found()?.value === "number" ? exactNumber(entry.text().trim())
    : found() ? found().value : entry.text());
  return { ...entry, value, put: (text) => entry.put(text && !formJson(text) ? JSON.stringify(text) : text),
    wrong: () => (!found() ? "this is no JSON: texts and names stand in \" \", lists in [ ], fields in { }"
      : isLost(value()) ? "a number in it has too many digits; write it in \" \"" : "") };
}

function numberEntry(field) {
  const input = make("input"), low = field.low ?? -Infinity, high = field.high ?? Infinity;
  formSet(input, { type: "number", inputmode: "decimal", step: field.step ?? "any", min: low, max: high });
  input.onwheel = (event) => { if (input.matches(":focus")) event.preventDefault(); };   // it would change the number
  const fits = (number) => number >= low && number <= high && Number.isFinite(number)
    && (field.type === "number" || Number.isInteger(number));
  return { control: input, parts: [input], text: () => input.value,
    value: () => (input.value === "" ? null : exactNumber(input.value)),
    put: (text) => { input.value = text; },
    wrong: () => (input.validity.badInput || !fits(Number(input.value)) ? `pass ${field.range}` : ""),
    isEmpty: () => !input.value && !input.validity.badInput };
}

function choiceEntry(field) {
  const isYesNo = field.type === "boolean", texts = isYesNo ? ["true", "false"] : field.options;
  const none = field.required ? "choose …" : field.nullable ? "unknown" : "default";
  const words = [none, ...(isYesNo ? ["yes", "no"] : texts)];
  const select = make("select", "", ...words.map((word, i) => new Option(word, i)));
  const text = () => texts[select.value - 1] ?? "";
  return { control: select, parts: [select], text, value: () => (isYesNo ? text() === "true" : text()),
    put: (wanted) => { select.value = texts.indexOf(wanted) + 1; }, wrong: () => "", isEmpty: () => select.value === "0" };
}

// A box that filters a list of labels; of several, those chosen stand before it, each a button that takes it away.
function labelEntry(field) {
  const id = `hitl-live-${Math.random().toString(36).slice(2)}`, many = field.type === "labels";
  const input = make("input"), list = make("ul", "hitl-live-options"), chips = make("div", "hitl-live-chips");
  const note = make("div", "hitl-live-note");
  formSet(list, { id, role: "listbox", "aria-label": "labels" });
  formSet(note, { "aria-live": "polite" });
  formSet(input, { type: "text", role: "combobox", "aria-controls": id, "aria-autocomplete": "list",
    autocomplete: "off", spellcheck: "false", placeholder: "type to filter the labels" });
  let options = [], likes = [], more = 0, rows = [], at = -1, taken = "", chosen = [];
  const offer = (spec) => { options = spec.options; likes = options.map(alikeLabel); more = spec.more; };
  const typed = () => input.value.trim();
  const flat = (text) => text.replace(/\n/g, "").trim();   // an input holds no line ends
  const known = () => (taken && flat(taken) === typed() ? taken : options.find((one) => flat(one) === typed()));
  const twin = () => [...options, ...chosen].find((one) => alikeLabel(one) === alikeLabel(typed()));
  const isNew = () => field.new_labels && typed() && known() === undefined && twin() === undefined;
  const changed = () => chips.dispatchEvent(new Event("input", { bubbles: true }));

  function mark(index) {
    at = index;
    [...list.children].forEach((row, i) => row.setAttribute("aria-selected", i === at));
    input.setAttribute("aria-activedescendant", at < 0 ? "" : `${id}-${at}`);
    if (at >= 0) list.children[at].scrollIntoView({ block: "nearest" });
  }
  function show(words) {
    list.replaceChildren(...words);
    list.hidden = !words.length;
    input.setAttribute("aria-expanded", !list.hidden);
    mark(-1);
  }
  function close() {
    show([]);
    note.textContent = isNew() ? `new label: ${typed()}` : "";
  }
  function open() {
    const want = alikeLabel(typed()), rank = (i) => 2 - likes[i].startsWith(want) - (likes[i] === want);
    const hits = options.map((_, i) => i).filter((i) => likes[i].includes(want) && !chosen.includes(options[i]));
    rows = hits.sort((one, other) => rank(one) - rank(other)).slice(0, MOST_LISTED).map((i) => options[i]);
    const words = rows.map((text) => make("li", "", text));
    if (isNew()) words.push(make("li", "hitl-live-new", "new label: ", typed()));
    words.forEach((row, i) => { formSet(row, { id: `${id}-${i}`, role: "option" }); row.onclick = () => take(i); });
    show(words);
    if (want && words.length) mark(isNew() ? words.length - 1 : 0);
    const missing = words.length || !want ? "" : twin() === undefined ? "no such label" : "chosen already";
    const unlisted = more ? `${more} more labels are not listed: type one in full` : "";
    const cut = hits.length > rows.length ? `${hits.length - rows.length} more match` : "";
    note.textContent = [missing, cut, unlisted].filter(Boolean).join("; ");
  }
  function take(index) {
    const text = rows[index] ?? typed();
    if (many) choose([...chosen, text]);
    [input.value, taken] = many ? ["", ""] : [text, rows[index] ?? ""];
    close();
    changed();
  }
  function choose(labels) {
    chosen = [...new Set(labels)];
    chips.replaceChildren(...chosen.map((label) => {
      const without = () => { choose(chosen.filter((one) => one !== label)); changed(); input.focus(); };
      const chip = button(`${label} ×`, "remove", without);
      chip.setAttribute("aria-label", `remove ${label}`);
      return chip;
    }));
  }
  input.oninput = input.onclick = open;
  input.onblur = close;
  list.onmousedown = (event) => event.preventDefault();   // the box keeps the focus
  input.onkeydown = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key], enter = event.key === "Enter";
    if (event.isComposing) return;
    if (list.hidden && (step || (enter && many && typed()))) open();
    const n = list.children.length;
    if (step && n) mark((Math.max(at, step < 0 ? 0 : -1) + step + n) % n);
    const takes = enter && at >= 0 && (many || at >= rows.length || rows[at] !== known());
    const closes = event.key === "Escape" && !list.hidden;
    if (takes) take(at);
    if (closes || enter) close();
    if (step || takes || closes) { event.preventDefault(); event.stopPropagation(); }
    if (many && event.key === "Backspace" && !input.value && chosen.length) chips.lastChild.click();
  };
  function put(text) {
    const found = many ? formJson(text)?.value ?? text : [];
    choose([found].flat().map(String).filter((one) => options.includes(one) || (more && one)));
    input.value = taken = many ? "" : text;
    close();
  }
  function wrong() {
    if (!typed() || (known() !== undefined && !many)) return "";
    if (many) return `press Enter to add ${typed()}, or clear it`;
    if (twin() !== undefined) return `no such label; it reads like ${twin()}`;
    if (field.new_labels) return [...typed()].length > 200 ? "a new label has at most 200 characters" : "";
    return more ? "" : "no such label: choose one of the list";
  }
  offer(field);
  close();
  const text = () => (many ? (chosen.length ? JSON.stringify(chosen) : "") : known() ?? typed());
  return { control: input, parts: [chips, input, list, note], text, put, wrong, offer,
    value: () => (many ? chosen : text()), isEmpty: () => !typed() && !chosen.length };
}

const ENTRIES = { label: labelEntry, labels: labelEntry, number: numberEntry, integer: numberEntry, choice: choiceEntry,
  boolean: choiceEntry, json: jsonEntry, text: textEntry };

// A field with its name, what is wrong with it, and what the model had said where that differs.
function formRow(field) {
  const entry = ENTRIES[field.type](field), id = `hitl-live-${Math.random().toString(36).slice(2)}`;
  const name = make("label", "", `${field.name}${field.required && !field.alone ? " (needed)" : ""}`);
  const help = make("div", "hitl-live-note", [field.range, field.help].filter(Boolean).join("; "));
  const was = make("div", "hitl-live-was"), wrong = make("div", "hitl-live-wrong");
  [entry.control, wrong, was, help].forEach((element, i) => { element.id = `${id}-${i}`; });
  name.htmlFor = entry.control.id;
  entry.control.setAttribute("aria-describedby", [wrong, was, help].map((element) => element.id).join(" "));

  let before = null, isHidden = false;
  const plain = (text) => (["text", "label", "choice"].includes(field.type) ? text
    : JSON.stringify(formJson(text)?.value ?? text));
  const isAsBefore = () => before !== null && plain(before) === plain(entry.text());
  const isBlank = () => entry.isEmpty() && !(field.type === "text" && before === "");   // the model said: nothing
  function say(text) {
    wrong.textContent = text;
    entry.control.setAttribute("aria-invalid", text !== "");
  }
  function changed() {
    say("");
    const differs = before !== null && !isAsBefore() && !(field.alone && entry.isEmpty());
    was.textContent = isHidden ? "was: too long, or with hidden characters" : differs ? `was: ${before}` : "";
  }
  const root = make("div", "hitl-live-field", name, ...entry.parts, wrong, was, help);
  root.oninput = changed;
  function fill(text, predicted = null, isWithheld = false) {
    [before, isHidden] = [predicted, isWithheld];
    entry.put(text);
    changed();
  }
  return { field, entry, root, say, fill, isUntouched: () => entry.isEmpty() || isAsBefore(),
    wrong: () => (!isBlank() ? entry.wrong() : field.required || isHidden ? "needed" : ""),
    pairs: () => (!isBlank() ? [[field.name, entry.value()]] : field.nullable ? [[field.name, null]] : []) };
}

// `spec` is what the kernel says can be entered; `onEnter` is called when Enter means: send it.
function makeForm(spec, onEnter) {
  const type = spec.kind === "number" && spec.step ? "integer" : spec.kind, isForm = spec.kind === "form";
  const alone = { ...spec, name: "Correct to", type, required: true, alone: true };
  const rows = (isForm ? spec.fields : [alone]).map(formRow), top = make("div", "hitl-live-wrong");
  const root = make("div", "hitl-live-form", top, ...rows.map((row) => row.root));
  top.setAttribute("role", "alert");
  let filled = null;
  const nameOf = (row) => (isForm ? row.field.name : "label");

  root.addEventListener("keydown", (event) => {
    const isProse = event.target.tagName === "TEXTAREA" && (isForm ? !event.ctrlKey && !event.metaKey : event.shiftKey);
    if (event.key !== "Enter" || event.isComposing || event.target.tagName === "BUTTON" || isProse) return;
    event.preventDefault();
    onEnter();
  });
  // What is wrong, by field; what belongs to no field, or the whole message where nothing does, stands on top.
  function showErrors(fields, message = "") {
    const told = [...formPairs(fields)], by = new Map(rows.map((row) => [row, []]));
    const of = (name) => rows.find((row) => [name, name.split(".")[0]].includes(nameOf(row)));
    const rest = told.filter(([name]) => !of(name)).map((pair) => pair.join(": "));
    told.forEach(([name, what]) => by.get(of(name))?.push(name === nameOf(of(name)) ? what : `${name}: ${what}`));
    by.forEach((all, row) => row.say(all.join("\n")));
    top.textContent = told.length ? rest.join("\n") : message;
    const isHere = root.closest(".hitl-live")?.contains(document.activeElement) ?? true;   // it never takes the focus from elsewhere
    if (isHere) rows.find((row) => by.get(row).length)?.entry.control.focus();
  }
  // Says what is certainly wrong, under the fields too; "" if nothing is.
  function check() {
    const found = rows.map((row) => [nameOf(row), row.wrong()]).filter(([, what]) => what);
    showErrors(found);
    return found.map(([name, what]) => (isForm ? `${name}: ${what}` : what)).join("; ");
  }
  // Once for an item, which `ticket` names: what is being typed stays, whatever is said of that item later on.
  function fill(entered, predicted, ticket = null, withheld = []) {
    const [typed, was] = [formPairs(entered), formPairs(predicted)];
    const now = ticket ?? JSON.stringify([[...typed], [...was], withheld]);
    if (now === filled) return;
    filled = now;
    const start = typed.size ? typed : isForm || spec.kind === "labels" ? was : new Map();
    rows.forEach((row) => row.fill(start.get(nameOf(row)) ?? "", was.get(nameOf(row)), withheld.includes(nameOf(row))));
    showErrors([]);
  }
  return { root, fill, showErrors, check, focus: () => rows[0]?.entry.control.focus(),
    read: () => (isForm ? Object.fromEntries(rows.flatMap((row) => row.pairs())) : rows[0].pairs()[0]?.[1] ?? null),
    texts: () => rows.map((row) => [nameOf(row), row.entry.text()]),
    isEmpty: () => rows.every((row) => row.isUntouched()), offer: (next) => rows[0].entry.offer?.(next) };
}
