// Wakes every what-if of the page: controls that swap the drawing and the sentence among views computed beforehand.
(() => {
  const control = ({ label, texts, kind, start }) => {
    const input = document.createElement(kind === "slider" ? "input" : "select");
    const output = document.createElement("output");
    const say = () => {
      if (kind !== "slider") return;
      output.textContent = texts[input.value];
      input.setAttribute("aria-valuetext", texts[input.value]);
    };
    if (kind === "slider") {
      Object.assign(input, { type: "range", min: 0, max: texts.length - 1, step: 1 });
      // JupyterLab would otherwise take the arrow keys for its own.
      input.dataset.lmSuppressShortcuts = "true";
    } else {
      input.append(...texts.map((text, value) => new Option(text, value)));
    }
    input.value = start;
    input.setAttribute("aria-label", label);
    const box = document.createElement("label");
    const name = document.createElement("span");
    name.textContent = label;
    box.append(name, input, ...(kind === "slider" ? [output] : []));
    say();
    return { box, input, say, size: texts.length };
  };
  const wake = (section) => {
    // A notebook that is about to be trusted still shows sections without data.
    const data = section.querySelector("script.what-if-data");
    if (!data) return;
    section.dataset.awake = "";
    const { controls, pieces, views, sentences } = JSON.parse(data.textContent);
    const form = section.querySelector(".what-if-controls");
    const drawing = section.querySelector(".what-if-drawing");
    const sentence = section.querySelector(".what-if-sentence");
    const awake = controls.map(control);
    const show = () => {
      awake.forEach(({ say }) => say());
      const place = awake.reduce((before, { input, size }) => before * size + Number(input.value), 0);
      drawing.innerHTML = views[place].map((piece) => pieces[piece]).join("");
      sentence.textContent = sentences[place];
    };
    form.append(...awake.map(({ box }) => box));
    form.addEventListener("input", show);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.hidden = false;
    show();
  };
  document.querySelectorAll("section.what-if:not([data-awake])").forEach(wake);
})();
