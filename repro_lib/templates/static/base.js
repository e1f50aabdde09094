// Boxes that scroll sideways can be reached and moved with the keyboard and show that they scroll; others are no tab stops.
const boxes = document.querySelectorAll(".scroll, .jp-OutputArea-output, .jp-RenderedMarkdown, .highlight, .messages pre");
function markScrollers() {
  for (const box of boxes) {
    const scrolls = box.scrollWidth > box.clientWidth + 1;
    const attributes = { "data-scrolls": "", tabindex: "0", role: "group", "aria-label": "scrolls sideways" };
    for (const [name, value] of Object.entries(attributes)) scrolls ? box.setAttribute(name, value) : box.removeAttribute(name);
  }
}
addEventListener("resize", markScrollers);
document.addEventListener("toggle", markScrollers, true);
markScrollers();
