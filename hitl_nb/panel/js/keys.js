// Keys count while the focus is inside the panel; chords stay with the notebook, and typed text with its field.

// Returns what a key asks for: an action, "leave" for Escape, "held" for one to be swallowed, or null.
function keyOf(event, keys, typing) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.key === "Process") return null;
  if (event.key === "Escape") return "leave";
  if (typing) return null;
  const found = Object.keys(keys).find((action) => keys[action] === event.key.toLowerCase());
  return found && event.repeat ? "held" : (found ?? null);
}

function isTyping(element) {
  if (element?.isContentEditable || element?.tagName === "TEXTAREA" || element?.tagName === "SELECT") return true;
  return element?.tagName === "INPUT" && !["checkbox", "radio", "button"].includes(element.type);
}

// Listens on the window before the notebook does. Its shortcuts are off while a plain key is on its way to the panel,
// and only then: set for good, the mark would take Ctrl+S from the notebook too. The element that has the focus needs
// the mark itself: the notebook's shortcuts look at it before they look at what is around it.
function listenToKeys(root, keys, act, signal) {
  const onKey = (event) => {
    const path = event.composedPath();
    if (!path.includes(root)) return;
    const chord = event.ctrlKey || event.metaKey || event.altKey;
    for (const one of [root, path[0]]) one.toggleAttribute("data-lm-suppress-shortcuts", !chord);
    const asked = keyOf(event, keys(), isTyping(path[0]));
    if (asked === null) return;
    event.preventDefault();
    event.stopPropagation();
    if (asked !== "held") act(asked);
  };
  window.addEventListener("keydown", onKey, {capture: true, signal});
}
