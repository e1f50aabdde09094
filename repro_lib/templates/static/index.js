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
    const button = document.createElement("button");
    button.type = "button";
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
