// Elements: everything from outside is a text node, never markup.
function make(tag, className = "", ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children.filter((child) => child !== null && child !== ""));
  return element;
}

function button(words, tip, press) {
  const made = make("button", "", words);
  made.type = "button";
  made.title = tip;
  made.onclick = press;
  return made;
}

// Texts are set only where they change, so that a selection and a screen reader are left alone.
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
  element.hidden = !text;
}
