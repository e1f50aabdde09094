// The code of the notebook, folded away until asked for.
if (document.querySelector(".jp-CodeCell > .jp-Cell-inputWrapper")) {
  const codeButton = makeButton("Show code");
  codeButton.setAttribute("aria-pressed", "false");
  codeButton.addEventListener("click", () => {
    const hidden = document.documentElement.classList.toggle("code-hidden");
    codeButton.setAttribute("aria-pressed", String(!hidden));
    markScrollers();
  });
  tools.prepend(codeButton);
}
