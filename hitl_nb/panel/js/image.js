// A picture in its frame: fitted, or as large as it is.

// up to so many pixels a side a picture is drawn with hard edges
const SMALL_PICTURE = 320;

// url: the address of a picture that the kernel encoded
function showImage(part, url) {
  const picture = make("img", "hitl-live-picture");
  picture.alt = part.name ? `Picture: ${part.name}` : "Picture of the item";
  const frame = make("div", "hitl-live-frame", picture);
  const toggle = button("100 %", "Show every pixel, or the whole picture", () => zoom(!frame.classList.contains("hitl-live-full")));
  const caption = make("figcaption", "", part.name ? outside("span", "hitl-live-name", part.name) : null,
    part.note ? outside("span", "", part.note) : null, toggle);
  function zoom(full, x = 0.5, y = 0.5) {
    frame.classList.toggle("hitl-live-full", full);
    frame.tabIndex = full ? 0 : -1;
    toggle.setAttribute("aria-pressed", String(full));
    frame.scrollTo(x * frame.scrollWidth - frame.clientWidth / 2, y * frame.scrollHeight - frame.clientHeight / 2);
  }
  picture.onclick = (event) => zoom(!frame.classList.contains("hitl-live-full"),
    event.offsetX / picture.clientWidth, event.offsetY / picture.clientHeight);
  picture.onload = () => picture.classList.toggle("hitl-live-pixels",
    Math.max(picture.naturalWidth, picture.naturalHeight) <= SMALL_PICTURE);
  picture.onerror = () => frame.replaceChildren(make("span", "", `${picture.alt} cannot be shown`));
  frame.setAttribute("role", "group");
  frame.setAttribute("aria-label", picture.alt);
  zoom(false);
  picture.src = url;
  return make("figure", "hitl-live-figure", frame, caption);
}
