// Wakes every chart of the page. Vega stands before this in the same file; without it a page is whole, and still.
// The rows of a table whose columns are texts; see packed of repro_lib/plots/vega.py.
const rowsOf = (texts) => {
  const lists = Object.fromEntries(Object.entries(texts).map(([name, text]) => [name, text.split("|")]));
  const columns = Object.entries(lists).filter(([name]) => !name.endsWith("_words")).map(([name, values]) =>
    [name, lists[`${name}_words`] ? values.map((place) => lists[`${name}_words`][place]) : values]);
  return (columns[0]?.[1] ?? []).map((_, place) => Object.fromEntries(columns.map(([name, values]) => [name, values[place]])));
};
const withMinus = (text) => text.replace(/(^|[^\w.)-])-(?=\d)/g, "$1\u2212");
for (const section of document.querySelectorAll("section.chart")) {
  const { spec, ...about } = JSON.parse(section.querySelector("script").textContent);
  const [controls, drawing, sentence] = ["controls", "drawing", "sentence"].map((part) => section.querySelector(`.chart-${part}`));
  const table = section.querySelector("tbody"), still = drawing.firstElementChild;
  const names = (spec.params ?? []).filter(({ value }) => value !== undefined).map(({ name }) => name);
  const numbers = rowsOf(spec.datasets?.[spec.data?.name]?.[0] ?? {}), sentences = rowsOf(about.sentences);
  const alive = drawing.appendChild(document.createElement("div"));
  // "ast": without eval, which the page's security policy forbids. Level 1 leaves out warnings of scales that are empty at first.
  const how = { ast: true, renderer: "svg", actions: false, defaultStyle: false, bind: controls, logLevel: 1 };
  vegaEmbed(alive, spec, how).then(({ view }) => {
    still.remove();
    const chosen = (row) => names.every((name) => {
      const mine = row[name === "shown" ? "measure" : name], value = view.signal(name);
      return !mine || mine === value || Math.abs(mine - value) < 1e-9;
    });
    const say = () => {
      if (sentences.length) sentence.textContent = sentences.filter(chosen).map((row) => withMinus(row.sentence)).join(" ");
      view.description(sentence.textContent);
      table?.replaceChildren(...numbers.filter(chosen).map((row) => {
        const line = document.createElement("tr");
        for (const name of ["measure", "label", "reading", "n"]) line.insertCell().textContent = withMinus(row[name] ?? "");
        return line;
      }));
    };
    for (const name of names) view.addSignalListener(name, () => setTimeout(say));
    say();
    const title = section.getAttribute("aria-label").replace(/\W+/g, "-").toLowerCase();
    const save = (url, kind) => Object.assign(document.createElement("a"), { href: url, download: `${title}.${kind}` }).click();
    const picture = async (kind) => {
      const before = view.background();
      view.background("white");
      save(await view.toImageURL(kind, 2), kind);
      view.background(before);
    };
    const csv = () => saveCsv(title, [Object.keys(numbers[0]), ...numbers.map(Object.values)]);
    const files = Object.assign(document.createElement("p"), { className: "chart-files" });
    const buttons = { SVG: () => picture("svg"), PNG: () => picture("png"), ...(numbers.length ? { CSV: csv } : {}) };
    files.append(...Object.entries(buttons).map(([words, onclick]) => makeButton(words, { onclick })));
    section.append(files);
  });
}
