// Tables that sort and filter. A column is {title, kind}: "name", "text", "long", "kind" (a decision's) or "number".

const AT_ONCE = 250; // rows; of longer tables the rest is shown when asked for

function sortValue(text, kind) {
  if (kind !== "number") return text;
  const value = parseFloat(text.replaceAll(",", ""));
  return Number.isNaN(value) ? -Infinity : value; // a dash, or "not finite"
}

function cell(text, kind) {
  if (kind === "kind") {
    const { shape, ink } = KINDS[text];
    return make("td", { class: "text" }, make("span", { class: "kind" }, symbol(shape, ink, { scale: text === "kept" ? 4 : 7 }), text));
  }
  if (kind === "state") return make("td", { class: "text" }, STATES[text] ? state(text) : text);
  return make("td", kind === "number" ? {} : { class: kind }, text);
}

function table(box, { label, columns, rows, choices }) {
  let order = null, up = true, all = false;
  const search = make("input", { type: "search", placeholder: "any text", oninput: draw });
  const select = choices && make("select", { onchange: draw }, make("option", { value: "" }, "all"), ...choices.values.map((value) => make("option", {}, value)));
  const told = make("span", { role: "status" });
  const more = make("button", { type: "button", onclick: () => { all = true; draw(); } }, "Show all rows");
  const heads = columns.map(({ title, kind }, i) => make("th", { scope: "col", class: kind === "number" ? undefined : "text" },
    make("button", { type: "button", onclick: () => { up = order === i ? !up : true; order = i; draw(); } }, title)));
  const body = make("tbody");
  const filters = make("div", { class: "filters" }, make("label", {}, "Filter ", search), select && make("label", {}, `${choices.title} `, select), told);
  const scroll = make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label },
    make("table", { "aria-label": label }, make("thead", {}, make("tr", {}, ...heads)), body));
  box.replaceChildren(...(rows.length > 3 ? [filters] : []), scroll, more);

  function draw() {
    const wanted = search.value.toLowerCase();
    const kept = rows.filter((row) => (!wanted || row.join("\n").toLowerCase().includes(wanted)) && (!select?.value || row[choices.column] === select.value));
    if (order !== null) {
      const { kind } = columns[order], value = (row) => sortValue(row[order], kind);
      kept.sort((a, b) => (up ? 1 : -1) * (kind === "number" ? value(a) - value(b) || 0 : value(a).localeCompare(value(b))));
    }
    heads.forEach((head, i) => head.setAttribute("aria-sort", i !== order ? "none" : up ? "ascending" : "descending"));
    const shown = all ? kept : kept.slice(0, AT_ONCE);
    body.replaceChildren(...shown.map((row) => make("tr", {}, ...row.map((text, i) => cell(text, columns[i].kind)))));
    more.hidden = shown.length === kept.length;
    told.textContent = `${shown.length} of ${rows.length} shown`;
  }
  draw();
}
