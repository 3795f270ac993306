// Judged tasks that are like the one on the screen: asked for while the list is open, a moment after an item appears.
const MOMENT = 250; // milliseconds

// ask(ticket) asks the kernel; what it finds comes with hear()
function makeSimilar(ask) {
  const list = make("ul", "hitl-live-found");
  const summary = make("summary", "", "Similar, judged before");
  const root = make("details", "hitl-live-similar", summary, list);
  const one = {root, summary, ticket: "", urls: [], timer: 0};
  const clear = (words) => {
    one.urls.forEach((url) => URL.revokeObjectURL(url));
    one.urls = [];
    list.replaceChildren(make("li", "hitl-live-faint", words));
  };
  const want = () => {
    clearTimeout(one.timer);
    clear("Looking …");
    if (root.open && one.ticket) one.timer = setTimeout(() => ask(one.ticket), MOMENT);
  };
  one.show = (ticket, isOffered) => {
    root.hidden = !isOffered;
    if (ticket === one.ticket) return;
    one.ticket = ticket;
    want();
  };
  one.hear = (message, buffers) => {
    if (message.ticket !== one.ticket) return;
    clear(message.problem || "Nothing like it was judged yet.");
    if (message.problem || !message.found.length) return;
    const url = (part) => one.urls[one.urls.push(URL.createObjectURL(new Blob([buffers[part.buffer]], {type: "image/png"}))) - 1];
    list.replaceChildren(...message.found.map(({said, shown}) => {
      const parts = make("div", "hitl-live-once");
      showParts(parts, shown.parts, {unfold: null, url, widget: null});
      return make("li", "", make("div", "hitl-live-said-before", said), parts);
    }));
  };
  one.toggle = () => (root.open = !root.open);
  root.addEventListener("toggle", want);
  return one;
}
