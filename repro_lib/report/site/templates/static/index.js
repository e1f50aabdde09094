const collator = new Intl.Collator("en", { numeric: true });
// A cell without a number ("no pair", a missing cell) sorts last, whichever way the column is sorted.
const key = (row, column, numeric) => {
  const cell = row.cells[column];
  if (!numeric) return cell?.textContent.trim() ?? null;
  return cell?.dataset.value === undefined ? null : Number(cell.dataset.value);
};
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const headers = [...table.tHead.rows[0].cells], body = table.tBodies[0], original = [...body.rows];
  headers.forEach((header, column) => {
    const button = makeButton("");
    button.append(...header.childNodes);
    header.append(button);
    const numeric = original.some((row) => row.cells[column]?.dataset.value !== undefined);
    button.addEventListener("click", () => {
      const descending = header.getAttribute("aria-sort") === "ascending";
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const keyed = original.map((row) => [key(row, column, numeric), row]);
      keyed.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        return (descending ? -1 : 1) * (numeric ? a - b : collator.compare(a, b));
      });
      body.append(...keyed.map(([, row]) => row));
    });
  });
}

// Every word of the filter has to occur in a row: "charlm smelu", "flagged", "missing".
const filter = document.getElementById("filter");
if (filter) {
  const rows = [...document.querySelectorAll("table.cells tbody tr")], count = document.getElementById("filter-count");
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const apply = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) row.hidden = !words.every((word) => texts.get(row).includes(word));
    const shown = rows.filter((row) => !row.hidden).length;
    count.textContent = words.length ? `${shown} of ${rows.length} cells` : "";
  };
  filter.closest("form").hidden = false;
  filter.addEventListener("input", apply);
  apply(); // a browser may restore what was typed
}
