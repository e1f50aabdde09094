const button = document.getElementById("code-toggle");
if (button) {
  button.hidden = false;
  button.addEventListener("click", () => {
    const hidden = document.body.classList.toggle("code-hidden");
    button.setAttribute("aria-pressed", String(!hidden));
    markScrollers();
  });
}
