// A button with words on it. What it needs beside them comes as properties of the element.
function makeButton(words, properties = {}) {
  const made = Object.assign(document.createElement("button"), { type: "button", textContent: words }, properties);
  return made;
}

// Light or dark, other than the system's choice. Kept for the other pages where the browser has storage for files.
const tools = document.querySelector("header.site .tools");
const themeButton = makeButton("Dark");
const isDark = () => getComputedStyle(document.documentElement).colorScheme === "dark" ||
  (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
const showTheme = () => themeButton.setAttribute("aria-pressed", String(isDark()));
themeButton.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  try { localStorage.setItem("theme", document.documentElement.dataset.theme); } catch { /* for this page alone, then */ }
  showTheme();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
tools.append(themeButton);
showTheme();

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

// A long row of the navigation scrolls, to the side on a narrow screen: start where this page is.
for (const current of document.querySelectorAll("header.site nav [aria-current]")) {
  for (const box of [current.closest("ul"), current.closest("nav")]) {
    const place = current.getBoundingClientRect(), frame = box.getBoundingClientRect();
    box.scrollBy(place.left - frame.left - box.clientWidth / 2, place.top - frame.top - box.clientHeight / 2);
  }
}

// A figure in full size: a click on it or its button (Tab, Enter) opens it, Escape or a click closes it.
const zoom = Object.assign(document.createElement("dialog"), { className: "zoom" });
const zoomBar = Object.assign(document.createElement("div"), { className: "bar" });
const fit = makeButton("Whole figure");
fit.setAttribute("aria-pressed", "false");
fit.addEventListener("click", () => fit.setAttribute("aria-pressed", String(zoom.classList.toggle("whole"))));
zoomBar.append(fit, makeButton("Close", { onclick: () => zoom.close() }));
zoom.setAttribute("aria-label", "Figure in full size");
zoom.addEventListener("click", (event) => { if (!zoomBar.contains(event.target)) zoom.close(); });
document.body.append(zoom);
function openZoom(image) {
  const copy = Object.assign(document.createElement("img"), { src: image.src, alt: image.alt });
  zoom.replaceChildren(zoomBar, copy);
  zoom.showModal();
}
for (const image of document.querySelectorAll("main figure img, main .jp-OutputArea-output img, main .jp-RenderedMarkdown img")) {
  const frame = Object.assign(document.createElement("span"), { className: "zoomable" });
  const button = makeButton("⤢", { title: "Full size", onclick: () => openZoom(image) });
  button.setAttribute("aria-label", "Show this figure in full size");
  button.setAttribute("aria-haspopup", "dialog");
  image.replaceWith(frame);
  frame.append(image, button);
  image.addEventListener("click", () => openZoom(image));
}

// What is shown as a file for other programs: lines of cells.
const asData = (cell) => cell.replaceAll("\u2212", "-");
const quoted = (cell) => /[",\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell;
function saveCsv(name, lines) {
  const file = new Blob([lines.map((line) => line.map(asData).map(quoted).join(",")).join("\n")], { type: "text/csv" });
  Object.assign(document.createElement("a"), { href: URL.createObjectURL(file), download: `${name}.csv` }).click();
}
// A head that spans several rows stands in each of them.
function cellsOf(table) {
  const spans = [];
  return [...table.rows].map((row) => {
    const line = [];
    for (const cell of row.cells) {
      while (spans[line.length]?.rows > 0) spans[line.length].rows--, line.push(spans[line.length].text);
      const text = cell.textContent.trim().replace(/\s+/g, " ");
      spans[line.length] = { text, rows: cell.rowSpan - 1 };
      line.push(text, ...Array(cell.colSpan - 1).fill(""));
    }
    return line;
  });
}
const pageName = location.pathname.split("/").pop().replace(".html", "");
for (const [place, table] of document.querySelectorAll("main table.dataframe, main table[data-sortable]").entries()) {
  const button = makeButton("CSV", { className: "csv", onclick: () => saveCsv(`${pageName}-${place + 1}`, cellsOf(table)) });
  button.setAttribute("aria-label", "This table as a CSV file");
  table.after(button);
}
markScrollers();
