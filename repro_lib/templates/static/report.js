(() => {
  const button = document.getElementById("code-toggle");
  if (button) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const hidden = document.body.classList.toggle("code-hidden");
      button.setAttribute("aria-pressed", String(!hidden));
      markScrollers();
    });
  }
  // Boxes that scroll sideways can be reached and moved with the keyboard; the others are no tab stops.
  const boxes = document.querySelectorAll(".jp-OutputArea-output, .jp-RenderedMarkdown, .highlight, .messages pre");
  function markScrollers() {
    for (const box of boxes) {
      const scrolls = box.scrollWidth > box.clientWidth + 1;
      const attributes = { tabindex: "0", role: "group", "aria-label": "scrolls sideways" };
      for (const [name, value] of Object.entries(attributes)) scrolls ? box.setAttribute(name, value) : box.removeAttribute(name);
    }
  }
  addEventListener("resize", markScrollers);
  markScrollers();
})();
