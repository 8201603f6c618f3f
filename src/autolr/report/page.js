// The page: what is on it, and what its controls do.

const byId = (id) => document.getElementById(id);
const runs = DATA.runs, said = document.body.appendChild(make("div", { class: "away", role: "status" }));
const MANY = 8; // runs, whose list scrolls
const say = (text) => { said.textContent = text; };

// ---- Theme: the reader's system decides, until the button is pressed.
const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)");
try { root.dataset.theme = sessionStorage.getItem("autolr-theme") ?? ""; } catch { /* none is kept */ } // of a page that renews itself
const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
const nameTheme = () => { byId("theme").textContent = isDark() ? "☀ Light" : "☾ Dark"; byId("theme").setAttribute("aria-label", isDark() ? "Light theme" : "Dark theme"); };
byId("theme").addEventListener("click", () => { 
  root.dataset.theme = isDark() ? "light" : "dark";
  try { sessionStorage.setItem("autolr-theme", root.dataset.theme); } catch { /* none is kept */ }
  nameTheme();
});
dark.addEventListener("change", nameTheme);
nameTheme();

// ---- Curves
const curves = new Curves(byId("panels"), say);
await curves.draw();
const timed = runs.some((run) => run.times);
byId("axis").append(...[["step", "Steps"], ["time", "Time"], ["share", "Share of the run"]].map(([value, text]) => make("label",
  value === "time" && !timed ? { title: "The log of no run tells times" } : {},
  make("input", { type: "radio", name: "axis", value, checked: value === "step", disabled: value === "time" && !timed, onchange: () => curves.setAxis(value) }), text)));
byId("curves").querySelectorAll("[data-do]").forEach((button) => button.addEventListener("click", () => curves.do(button.dataset.do)));

const seen = new Set(runs.flatMap((run) => run.decisions.map(({ kind }) => kind)));
legend(byId("kinds"), Object.entries(KINDS).filter(([kind]) => seen.has(kind)).map(([kind, { shape, ink }]) => [symbol(shape, ink, { scale: kind === "kept" ? 4 : 7 }), kind]));
byId("kinds").hidden = !seen.size;

if (runs.length === 1) byId("status").replaceChildren(state(runs[0].status));
else {
  const boxes = runs.map((run, i) => make("input", { type: "checkbox", checked: true, onchange: (event) => curves.show(i, event.target.checked) }));
  const rows = runs.map((run, i) => make("li", {}, make("label", {}, boxes[i], stroke(inkOf(run), dashOf(run), 3), make("strong", {}, run.name), state(run.status) || make("span"), make("span", { class: "said" }, run.headline))));
  const all = (on) => boxes.forEach((box) => { if (box.checked !== on) box.click(); });
  const buttons = make("div", { class: "tools", role: "group", "aria-label": "Runs" },
    make("button", { type: "button", onclick: () => all(true) }, "Show all runs"), make("button", { type: "button", onclick: () => all(false) }, "Hide all runs"));
  byId("runs").append(make("ul", { class: rows.length > MANY ? "runs many" : "runs", "aria-label": "Runs", tabindex: rows.length > MANY ? 0 : undefined }, ...rows), ...(rows.length > 2 ? [buttons] : []));
}

// ---- One run's search and probes
function detail(index) {
  const run = runs[index], found = run.searches, probes = run.decisions.filter(({ probe }) => probe);
  curves.tellPhasesOf(index);
  byId("search").hidden = !found.length;
  if (found.length) showSearch(found.at(-1));
  byId("probes").hidden = !probes.length;
  if (probes.length) showProbes(probes);
}

function showSearch(search) {
  const box = byId("search");
  box.querySelector(".finding").textContent = search.finding;
  const place = fresh(box);
  reachable(place, "tipped");
  legend(box.querySelector(".legend"), drawSearch(place, search));
  const rows = search.lengths.flatMap(({ length, ends }) => ends.map(([rate, loss]) => [`${length}`, number(rate), loss === null ? "diverged" : number(loss)]));
  table(box.querySelector(".rows"), { label: "Short runs", rows, columns: ["steps", "peak rate", "loss at the end"].map((title) => ({ title, kind: "number" })) });
}

function showProbes(probes) {
  const box = byId("probes"), select = box.querySelector("select"), button = (what) => box.querySelector(`[data-do="${what}"]`);
  select.replaceChildren(...probes.map(({ step, kind }, i) => make("option", { value: i }, `${count(step)} (${kind})`)));
  const show = (i) => {
    select.value = i;
    button("previous").disabled = i === 0;
    button("next").disabled = i === probes.length - 1;
    box.querySelector(".finding").textContent = `Probe ${i + 1} of ${probes.length}, at step ${count(probes[i].step)}: ${probes[i].probe.finding}. ${probes[i].reason}.`;
    const place = fresh(box);
    reachable(place, "tipped");
    legend(box.querySelector(".legend"), drawProbe(place, probes[i]));
  };
  select.onchange = () => show(+select.value);
  button("previous").onclick = () => show(+select.value - 1);
  button("next").onclick = () => show(+select.value + 1);
  show(0);
}

function fresh(section) { // a chart's place, without the listeners of the one before
  const old = section.querySelector(".chart"), box = make("div", { class: "chart" });
  old.replaceWith(box);
  return box;
}

const worthIt = runs.findIndex((run) => run.searches.length || run.decisions.some(({ probe }) => probe));
byId("which").append(...runs.map((run, i) => make("option", { value: i }, run.name)));
byId("which").addEventListener("change", (event) => detail(+event.target.value));
byId("which").value = Math.max(worthIt, 0);
byId("detail").hidden = runs.length === 1;
detail(Math.max(worthIt, 0));

// ---- Tables
const { headings, rows } = DATA.summary;
table(document.querySelector("#summary .rows"), { label: "Costs and results", rows, columns: headings.map((title, i) => ({ title, kind: ["name", "state"][i] ?? "number" })) });

const columns = [
  ["run", "name", (d, run) => run.name], ["step", "number", (d) => `${d.step}`], ["phase", "text", (d) => d.phase], ["decision", "kind", (d) => d.kind],
  ["learning rate", "number", (d) => d.rates], ["loss", "number", (d) => d.loss], ["loss drop per step", "number", (d) => d.drop],
  ["fit's minimum, ε", "number", (d) => d.minimum], ["reason", "long", (d) => d.reason],
].map(([title, kind, of]) => ({ title, kind, cells: runs.flatMap((run) => run.decisions.map((d) => of(d, run))) }))
  .filter(({ title, cells }) => (title === "run" ? runs.length > 1 : cells.some((text) => text !== "–"))); // what says nothing is left out
const decisions = runs.flatMap((run) => run.decisions);
byId("decisions").hidden = !decisions.length;
if (decisions.length) table(document.querySelector("#decisions .rows"), {
  label: "Decisions", columns, rows: decisions.map((_, i) => columns.map(({ cells }) => cells[i])),
  choices: { title: "Decision", column: columns.findIndex(({ kind }) => kind === "kind"), values: Object.keys(KINDS).filter((kind) => seen.has(kind)) },
});
root.dataset.ready = "true";
