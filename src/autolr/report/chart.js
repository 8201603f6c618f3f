"use strict";
const DATA = JSON.parse(document.getElementById("data").textContent);
// What all charts share: making elements, symbols, Vega's look, and a word for whatever is pointed at or focused.

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== undefined)); // text stays text: no markup is ever parsed
  return element;
}

function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const points = (n, radius) => Array.from({ length: n }, (_, i) => {
  const angle = (2 * Math.PI * i) / n - Math.PI / 2;
  return `${(radius(i) * Math.cos(angle)).toFixed(3)},${(radius(i) * Math.sin(angle)).toFixed(3)}`;
});
const SHAPES = { // within -1 to 1, as Vega wants them
  star: `M${points(10, (i) => (i % 2 ? 0.42 : 1)).join("L")}Z`,
  up: "M0,-0.9L0.95,0.75L-0.95,0.75Z",
  down: "M0,0.9L0.95,-0.75L-0.95,-0.75Z",
  cross: "M-0.9,-0.55L-0.55,-0.9L0,-0.35L0.55,-0.9L0.9,-0.55L0.35,0L0.9,0.55L0.55,0.9L0,0.35L-0.55,0.9L-0.9,0.55L-0.35,0Z",
  circle: `M${points(24, () => 0.85).join("L")}Z`,
  square: "M-0.75,-0.75L0.75,-0.75L0.75,0.75L-0.75,0.75Z",
  diamond: "M0,-1L0.8,0L0,1L-0.8,0Z",
};
const KINDS = { // of decisions: told apart by shape and by colour
  "peak found": { shape: SHAPES.star, ink: "var(--good)", size: 330 },
  raised: { shape: SHAPES.up, ink: "var(--ink)", size: 120 },
  lowered: { shape: SHAPES.down, ink: "var(--ink)", size: 120 },
  "rolled back": { shape: SHAPES.cross, ink: "var(--bad)", size: 150 },
  kept: { shape: SHAPES.circle, ink: "var(--kept)", size: 42 },
};
const STATES = { running: SHAPES.circle, finished: "M-0.9,0.1L-0.3,0.7L0.9,-0.6", stopped: SHAPES.square };

function symbol(shape, ink, { hollow = false, scale = 6 } = {}) {
  const look = { d: shape, transform: `scale(${scale})`, fill: hollow ? "none" : ink, stroke: hollow ? ink : "none", "stroke-width": 2 / scale };
  return svg("svg", { viewBox: "-8 -8 16 16", "aria-hidden": "true" }, svg("path", look));
}

function stroke(ink, dash = [], width = 2.5) {
  const look = { x1: 0, x2: 28, y1: 8, y2: 8, stroke: ink, "stroke-width": width, "stroke-dasharray": dash.join(" ") };
  return svg("svg", { viewBox: "0 0 28 16", class: "swatch", "aria-hidden": "true" }, svg("line", look));
}

function state(name) {
  if (!name) return "";
  const shape = symbol(STATES[name] ?? SHAPES.circle, "currentColor", { hollow: name === "finished" });
  return make("span", { class: `status ${name}` }, shape, name);
}

const legend = (list, entries) => list.replaceChildren(...entries.map(([mark, text]) => make("li", {}, mark, text)));

const number = (value, digits = 3) => (value === null || value === undefined ? "not finite" : `${Number(value.toPrecision(digits))}`);
const count = (value) => Math.round(value).toLocaleString("en");
const percent = (value, digits) => `${(100 * value).toFixed(digits)} %`;

// ---- Vega's look: colours are CSS variables, so that a theme is nothing that a chart knows of.
const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', sans-serif";
const CONFIG = {
  background: "transparent",
  axis: {
    domain: false, ticks: false, grid: true, gridColor: "var(--grid)", labelColor: "var(--soft)", titleColor: "var(--soft)",
    labelFont: FONT, titleFont: FONT, labelFontSize: 12, titleFontSize: 12, titleFontWeight: 400, labelPadding: 8, titlePadding: 10,
    labelOverlap: true, labelBound: false, aria: false,
  },
  text: { font: FONT, fontSize: 12, fill: "var(--soft)" },
};
const LEFT = 62, RIGHT = 16;

async function chart(box, { height, top = 10, bottom = 30, description, ...spec }) {
  const room = () => Math.max(120, box.clientWidth - LEFT - RIGHT);
  const whole = { width: room(), height, autosize: "none", description, padding: { left: LEFT, right: RIGHT, top, bottom }, ...spec };
  const { view } = await vegaEmbed(box, whole, { mode: "vega", renderer: "svg", actions: false, config: CONFIG, tooltip: false, defaultStyle: false });
  new ResizeObserver(() => {
    if (box.clientWidth && view.width() !== room()) view.width(room()).runAsync().then(() => box.dispatchEvent(new Event("drawn")));
  }).observe(box);
  box.dispatchEvent(new Event("drawn"));
  return view;
}

// Where a logarithmic axis is labelled: plain numbers, as many as it has room for.
function logTicks(low, high) {
  const decades = Math.log10(high / low), every = Math.ceil(decades / 6);
  const subs = decades < 0.7 ? [1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9] : decades < 1.5 ? [1, 2, 3, 5] : decades < 2.5 ? [1, 3] : [1];
  const first = Math.floor(Math.log10(low)), ticks = [];
  for (let k = first; k <= Math.ceil(Math.log10(high)); k += 1) if (k % every === 0) ticks.push(...subs.map((sub) => Number(`${sub}e${k}`)));
  return ticks.filter((tick) => tick >= low && tick <= high);
}

const upward = (title) => ({ title, titleAnchor: "end", titleAlign: "left", titleAngle: 0, titleX: 4 - LEFT, titleY: -14, titleBaseline: "bottom" });

const inside = (...marks) => ({
  type: "group", clip: true, encode: { update: { width: { signal: "width" }, height: { signal: "height" } } }, marks,
});

const at = (scale, field) => ({ scale, field });

function line(data, { width = 2, dash, opacity = 1, ink } = {}) {
  return {
    type: "group", aria: false, from: { facet: { name: `of-${data}`, data, groupby: "s" } },
    marks: [{
      type: "line", aria: false, from: { data: `of-${data}` },
      encode: { update: {
        x: at("x", "x"), y: at("y", "y"), defined: { signal: "isValid(datum.y) && isValid(datum.x)" }, stroke: ink ? { value: ink } : { field: "ink" },
        strokeWidth: width === "w" ? { field: "w" } : { value: width }, strokeDash: dash ? { value: dash } : { field: "dash" },
        strokeOpacity: opacity === "o" ? { field: "o" } : { value: opacity }, strokeJoin: { value: "round" },
      } },
    }],
  };
}

function symbols(data, name) { // each with a word: `label` is read out, `tip` is shown
  return {
    type: "symbol", name, from: { data }, zindex: 2,
    encode: { update: {
      x: at("x", "x"), y: at("y", "y"), shape: { field: "shape" }, size: { field: "size" }, description: { field: "label" },
      fill: { signal: "datum.hollow ? 'var(--page)' : datum.ink" }, stroke: { signal: "datum.hollow ? datum.ink : 'var(--page)'" },
      strokeWidth: { signal: "datum.hollow ? 2 : 1" },
    } },
  };
}

const rule = (encode) => ({ type: "rule", aria: false, encode: { update: encode } });

// ---- The tip: what a mark means, on hover and on focus; Escape takes it away.
const tip = document.getElementById("tip");

function showTip(content, place) {
  tip.replaceChildren(...content);
  tip.hidden = false;
  const box = tip.getBoundingClientRect(), gap = 14, edge = document.documentElement.clientWidth - 8;
  const left = place.right + gap + box.width > edge ? Math.max(8, Math.min(place.left - gap - box.width, edge - box.width)) : place.right + gap;
  const under = place.left - gap - box.width < 8 && place.right + gap + box.width > edge; // no room at either side
  const top = under ? place.bottom + gap : Math.max(8, Math.min(place.top, innerHeight - box.height - 8));
  tip.style.left = `${left + scrollX}px`;
  tip.style.top = `${top + scrollY}px`;
}

const hideTip = () => { tip.hidden = true; };
addEventListener("keydown", (event) => event.key === "Escape" && hideTip());

// While keys are used, the page may move under a pointer that lies there: that is no hover.
let keys = false, resting = null;
addEventListener("keydown", () => { keys = true; resting = null; }, true);
addEventListener("pointermove", ({ clientX, clientY }) => {
  resting ??= [clientX, clientY];
  if (Math.hypot(clientX - resting[0], clientY - resting[1]) > 2) keys = false;
}, true);

const datumOf = (element) => element?.__data__?.datum;
const tipOf = (datum) => [make("strong", {}, datum.tip[0]), ...datum.tip.slice(1).map((text) => make("div", {}, text))];

// Marks of a chart can be reached: one stop of Tab for all of them, then arrows.
function reachable(box, name, onFocus = () => {}) {
  const marks = () => [...box.querySelectorAll(`.${name} path`)];
  box.addEventListener("drawn", () => {
    const all = marks(), current = all.find((mark) => mark.tabIndex === 0) ?? all[0];
    box.querySelector(`.${name}`)?.setAttribute("role", "group"); // also where there is none
    for (const mark of all) {
      if (mark.getAttribute("role") !== "img") mark.setAttribute("role", "img");
      if (mark.getAttribute("tabindex") !== (mark === current ? "0" : "-1")) mark.setAttribute("tabindex", mark === current ? 0 : -1);
    }
  });
  box.addEventListener("keydown", (event) => {
    const all = marks(), here = all.indexOf(event.target), step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (here < 0 || !step) return;
    event.preventDefault();
    event.stopImmediatePropagation(); // the chart itself moves on arrows, too
    const next = all[Math.max(0, Math.min(all.length - 1, here + step))];
    event.target.setAttribute("tabindex", -1);
    next.setAttribute("tabindex", 0);
    next.focus();
  });
  box.addEventListener("focusin", async (event) => {
    const datum = datumOf(event.target);
    if (!datum?.tip) return;
    await onFocus(datum);
    showTip(tipOf(datum), event.target.getBoundingClientRect());
  });
  box.addEventListener("focusout", hideTip);
  box.addEventListener("pointermove", (event) => {
    if (keys) return;
    const datum = datumOf(event.target);
    if (datum?.tip) showTip(tipOf(datum), event.target.getBoundingClientRect());
    else if (!box.classList.contains("plot")) hideTip();
  });
  box.addEventListener("pointerleave", hideTip);
}
