// A button with words on it. What it needs beside them comes as properties of the element.
function makeButton(words, properties = {}) {
  const made = Object.assign(document.createElement("button"), { type: "button", textContent: words }, properties);
  return made;
}

// Light or dark, other than the system's choice. Kept for the other pages where the browser has storage for files.
const tools = document.querySelector("header.site .tools") ?? document.createElement("div");
const themeButton = makeButton("Dark");
const isDark = () => getComputedStyle(document.documentElement).colorScheme === "dark" ||
  (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
const showTheme = () => themeButton.setAttribute("aria-pressed", String(isDark()));
themeButton.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  try { localStorage.setItem("theme", document.documentElement.dataset.theme); } catch { /* for this page alone, then */ }
  showTheme();
});
addEventListener("storage", (event) => {
  if (event.key !== "theme") return;
  document.documentElement.dataset.theme = event.newValue ?? "";
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
const tables = document.querySelectorAll("main table:is(.dataframe, .word-table, [data-sortable])");
for (const [place, table] of tables.entries()) {
  const button = makeButton("CSV", { className: "csv", onclick: () => saveCsv(`${pageName}-${place + 1}`, cellsOf(table)) });
  button.setAttribute("aria-label", "This table as a CSV file");
  table.after(button);
}

// Tables sort by any column, the long ones show only rows with given words.
const collator = new Intl.Collator("en", { numeric: true });
const NUMBER = /^[-+\u2212]?[\d,]*\.?\d+(?![\w.])/;
// Sorted rows stand alone: what spans several is written into each.
function unspan(body) {
  for (const head of body.querySelectorAll("[rowspan]")) {
    const count = head.rowSpan, column = [...head.parentNode.cells].indexOf(head);
    head.removeAttribute("rowspan");
    let row = head.parentNode;
    for (let step = 1; step < count; step++) {
      row = row.nextElementSibling;
      row.insertBefore(head.cloneNode(true), row.cells[column] ?? null);
    }
  }
}
// A cell without a number ("no pair", a missing cell) sorts last, whichever way the column is sorted.
function keyOf(cell, numeric) {
  const text = cell?.textContent.trim() ?? "";
  if (!numeric) return text === "" || text === "\u2013" ? null : text;
  if (cell?.dataset.value !== undefined) return Number(cell.dataset.value);
  const found = NUMBER.exec(text);
  return found ? Number(asData(found[0]).replaceAll(",", "")) : null;
}
function makeSortable(table) {
  const body = table.tBodies[0], headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    if (!header.textContent.trim()) return;
    const button = makeButton("", { className: "sort" });
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      unspan(body);
      const cells = [...body.rows].map((row) => row.cells[column]).filter((cell) => keyOf(cell, false) !== null);
      const numeric = cells.some((cell) => cell.dataset.value !== undefined) || cells.every((cell) => keyOf(cell, true) !== null);
      const descending = header.getAttribute("aria-sort") === "ascending";
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const keyed = [...body.rows].map((row) => [keyOf(row.cells[column], numeric), row]);
      keyed.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        return (descending ? -1 : 1) * (numeric ? a - b : collator.compare(a, b));
      });
      body.append(...keyed.map(([, row]) => row));
    });
  });
}
// Every word of the filter has to occur in a row: "charlm smelu", "flagged", "missing".
function makeFilter(table) {
  const form = Object.assign(document.createElement("form"), { className: "filter", role: "search" });
  const label = Object.assign(document.createElement("label"), { textContent: "Only rows with " });
  const input = Object.assign(document.createElement("input"), { type: "search", autocomplete: "off" });
  const count = document.createElement("output");
  label.append(input);
  form.append(label, count);
  form.addEventListener("submit", (event) => event.preventDefault());
  input.addEventListener("input", () => {
    unspan(table.tBodies[0]);
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean), rows = [...table.tBodies[0].rows];
    for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
    count.textContent = words.length ? `${rows.filter((row) => !row.hidden).length} of ${rows.length}` : "";
  });
  (table.closest(".scroll") ?? table).before(form);
}
for (const table of tables) {
  if (table.rows[0].cells.length < 3) continue; // names and values of one thing
  if (table.tHead?.rows.length === 1 && table.tBodies[0].rows.length > 1) makeSortable(table);
  if (table.tBodies[0].rows.length >= 12) makeFilter(table);
}

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

// The contents stay in sight: beside the text where there is room, folded at the top where there is none.
const toc = document.querySelector("nav.toc");
if (toc) {
  const fold = toc.querySelector("details"), narrow = matchMedia("(max-width: 100rem)");
  const where = toc.querySelector("summary").appendChild(document.createElement("span"));
  const links = [...toc.querySelectorAll("a")], heads = links.map((link) => document.getElementById(link.hash.slice(1)));
  let folded = false;
  const follow = () => {
    const here = heads.findLastIndex((head) => head.getBoundingClientRect().top < 120);
    links.forEach((link, k) => k === here ? link.setAttribute("aria-current", "location") : link.removeAttribute("aria-current"));
    where.textContent = here < 0 ? "" : `: ${links[here].textContent}`;
    if (here >= 0 && narrow.matches && !folded) folded = !(fold.open = false);
  };
  toc.classList.add("stays");
  toc.addEventListener("click", (event) => { if (event.target.closest("a") && narrow.matches) fold.open = false; });
  addEventListener("scroll", follow, { passive: true });
}
for (const head of document.querySelectorAll("main h2[id]")) {
  const link = Object.assign(document.createElement("a"), { href: `#${head.id}`, className: "anchor", textContent: "#" });
  link.setAttribute("aria-label", "Link to this section");
  head.append(" ", link);
}

// What a word means, where it first stands on a page: pointed at, tapped, or reached with Tab.
const GLOSSARY = {
  "relative PD": "Relative prediction difference: the mean over characters and vocabulary of 2|p - q| / (p + q) between two models, from 0 to 2",
  "total variation": "The probability mass that two models place differently, from 0 to 1",
  churn: "The share of characters whose most probable prediction differs between two models",
  jackknife: "An interval from what the number is when one trained model at a time is left out",
  Holm: "A correction of p values for asking many questions at once",
  margin: "Two activations that surely differ by less than this count as equal",
};
const wordsOf = document.createTreeWalker(document.querySelector("main") ?? document.body, NodeFilter.SHOW_TEXT, (node) =>
  node.parentElement.closest("a, button, code, pre, svg, script, summary, h1, h2, h3, .chart, .jp-InputArea")
    ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT);
const texts = [];
while (wordsOf.nextNode()) texts.push(wordsOf.currentNode);
for (const [term, meaning] of Object.entries(GLOSSARY)) {
  const pattern = new RegExp(`\\b${term}\\b`, "i"), place = texts.findIndex((text) => pattern.test(text.data));
  if (place < 0) continue;
  const rest = texts[place].splitText(texts[place].data.search(pattern)), after = rest.splitText(term.length);
  const button = makeButton(rest.data, { className: "term" });
  button.dataset.meaning = meaning;
  button.setAttribute("aria-description", meaning);
  rest.replaceWith(button);
  texts.push(after);
}

// Search over all pages of the site. Its index is a script of its own, which is loaded when somebody searches.
const search = Object.assign(document.createElement("input"), { type: "search", placeholder: "Search", autocomplete: "off" });
const found = Object.assign(document.createElement("ol"), { className: "found", hidden: true });
search.setAttribute("aria-label", "Search all pages");
function look() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean), hits = [];
  for (const [href, title, sections] of words.length ? window.searchIndex ?? [] : []) {
    for (const [anchor, heading, text] of sections) {
      const whole = `${title} ${heading} ${text}`.toLowerCase(), head = `${title} ${heading}`.toLowerCase();
      if (!words.every((word) => whole.includes(word))) continue;
      const start = Math.max(0, text.toLowerCase().indexOf(words[0]) - 40);
      hits.push({ rank: words.filter((word) => head.includes(word)).length, href: `${href}${anchor && "#"}${anchor}`,
        title: heading ? `${title}: ${heading}` : title, text: text.slice(start, start + 130) });
    }
  }
  hits.sort((a, b) => b.rank - a.rank);
  found.replaceChildren(...hits.slice(0, 12).map((hit) => {
    const line = document.createElement("li"), link = Object.assign(document.createElement("a"), { href: hit.href, textContent: hit.title });
    line.append(link, Object.assign(document.createElement("small"), { textContent: hit.text }));
    return line;
  }));
  if (words.length && !hits.length) found.append(Object.assign(document.createElement("li"), { textContent: "Nothing found" }));
  found.hidden = !words.length;
}
search.addEventListener("focus", () => {
  const script = Object.assign(document.createElement("script"), { src: "search.js", onload: look });
  document.head.append(script);
}, { once: true });
search.addEventListener("input", look);
document.addEventListener("keydown", (event) => { if (event.key === "Escape") found.hidden = true; });
tools.prepend(search, found);
markScrollers();
