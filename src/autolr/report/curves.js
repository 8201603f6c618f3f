// Rate, losses and metrics: a chart each, over one window of steps, time or share of the run.

const TOP = 28; // of the first chart, for the names of phases
const INKS = 8, DASHES = [[], [7, 4], [2, 3]];
const inkOf = (run) => `var(--run-${run.group % INKS})`;
const dashOf = (run) => DASHES[Math.floor(run.group / INKS) % DASHES.length];

const PHASE_NAMES = { // above the chart, where a phase has room for it
  type: "text", aria: false, from: { data: "bands" },
  encode: { update: {
    x: { signal: "max(0, scale('x', datum.from)) + 6" }, y: { value: -8 }, text: { field: "name" },
    limit: { signal: "max(1, min(width, scale('x', datum.to)) - max(0, scale('x', datum.from)) - 8)" },
    opacity: { signal: "min(width, scale('x', datum.to)) - max(0, scale('x', datum.from)) > 44 ? 1 : 0" },
  } },
};

class Curves {
  constructor(root, announce) {
    this.root = root;
    this.announce = announce;
    this.axis = "step";
    this.shown = new Set(DATA.runs.keys());
    this.phasesOf = 0;
  }

  async draw() {
    this.panels = await Promise.all(DATA.panels.map((panel, i) => this._panel(panel, i)));
    await this._fill();
  }

  // ---- What is drawn
  async _panel(panel, i) {
    const plot = make("div", { class: "plot", tabindex: 0 });
    const heading = make("div", { class: "top" }, make("h3", {}, panel.title), make("p", { class: "finding" }, panel.finding));
    this.root.append(make("div", { class: "panel" }, heading, plot));
    const last = i === DATA.panels.length - 1;
    const view = await chart(plot, { ...this._spec(panel, i === 0, last), height: i ? 170 : 240, top: i ? 10 : TOP, bottom: last ? 48 : 26, description: `${panel.title}. ${panel.finding}` });
    const made = { ...panel, plot, view };
    if (i === 0) reachable(plot, "decisions", (datum) => this._bringIntoView(datum.x));
    this._listen(made);
    return made;
  }

  _spec(panel, first, last) {
    const title = last ? { title: { signal: "xtitle" } } : {};
    return {
      signals: [{ name: "xd", value: [0, 1] }, { name: "yd", value: [0.1, 1] }, { name: "yticks", value: [] }, { name: "xtitle", value: "" }, { name: "xformat", value: "" }],
      data: ["lines", "marks", "bands"].map((name) => ({ name })),
      scales: [
        { name: "x", type: "linear", domain: { signal: "xd" }, range: "width", nice: false, zero: false },
        { name: "y", type: panel.log ? "log" : "linear", domain: { signal: "yd" }, range: "height", nice: !panel.log, zero: false },
      ],
      axes: [
        { scale: "x", orient: "bottom", grid: false, tickCount: { signal: "max(3, floor(width / 110))" }, format: { signal: "xformat" }, ...title },
        { scale: "y", orient: "left", ...(panel.log ? { values: { signal: "yticks" } } : { tickCount: 5 }), format: panel.percent ? ".3~%" : ".3~g" },
      ],
      marks: [inside(
        { type: "rect", aria: false, from: { data: "bands" }, encode: { update: {
          x: at("x", "from"), x2: at("x", "to"), y: { value: 0 }, y2: { signal: "height" }, fill: { signal: "datum.odd ? 'var(--band)' : 'transparent'" },
        } } },
        { ...rule({ x: at("x", "from"), y: { value: 0 }, y2: { signal: "height" }, stroke: { value: "var(--edge)" }, strokeDash: { value: [1, 4] } }), from: { data: "bands" } },
        line("lines", { width: "w", opacity: "o" }),
        ...(first ? [symbols("marks", "decisions")] : []),
      ), ...(first ? [PHASE_NAMES] : [])],
    };
  }

  _fill() {
    const axis = AXES[this.axis], runs = [...this.shown].map((i) => DATA.runs[i]);
    this.full = [0, Math.max(...runs.map((run) => axis.of(run, this.axis === "time" ? run.times?.[0].at(-1) : Math.max(run.last, 1)) ?? 0), 0) || 1];
    this.end = this.full[1];
    this.full = [-0.015 * this.end, 1.015 * this.end]; // room for marks at both ends
    this.window = [...this.full];
    for (const panel of this.panels) {
      panel.curves = runs.flatMap((run) => panel.keys.flatMap((key) => this._curve(panel, run, key)));
      const extent = this._extent(panel, panel.curves.flatMap(({ ys }) => ys));
      panel.view.signal("yd", extent).signal("yticks", panel.log ? logTicks(...extent) : []).signal("xtitle", axis.title).signal("xformat", axis.format);
    }
    const marks = runs.flatMap((run) => run.decisions.map((decision) => this._mark(run, decision)))
      .filter((mark) => mark.x !== null && (!DATA.panels[0].log || mark.y > 0)).sort((a, b) => a.x - b.x);
    this.panels[0].view.data("marks", marks);
    return this._draw();
  }

  _extent(panel, values) {
    const ys = values.filter((y) => y !== null), zero = panel.least === 0;
    if (!ys.length) return [0.1, 1];
    const low = ys.reduce((a, b) => Math.min(a, b)), high = ys.reduce((a, b) => Math.max(a, b));
    const from = panel.log ? Math.max(low, panel.least ?? 0) : zero ? Math.min(0, low) : low;
    if (panel.log && from < high) return [from / 1.25, high * 1.25];
    return from < high ? [from, high] : panel.log ? [high / 2, high * 2] : [zero ? Math.min(0, high) : high - 1, zero ? Math.max(high * 1.1, 1e-12) : high + 1];
  }

  _curve(panel, run, key) {
    const curve = run.curves[key];
    if (!curve) return [];
    const fine = key === "loss" && run.curves.train_loss; // of the last steps, behind the mean of an epoch
    const look = { s: `${DATA.runs.indexOf(run)} ${key}`, ink: inkOf(run), dash: dashOf(run), w: fine ? 1 : 2, o: fine ? 0.55 : 1 };
    const of = AXES[this.axis].of, xs = [], ys = [];
    curve[0].forEach((step, i) => {
      const x = of(run, step), y = curve[1][i];
      if (x === null) return;
      xs.push(x);
      ys.push(y === null || (panel.log && !(y > 0)) ? null : y);
    });
    return [{ xs, ys, look }];
  }

  _lines({ curves }) { // what is in the window, of as many points as are drawn at once
    const most = Math.max(200, Math.floor(DRAWN / curves.length)), [low, high] = this.window;
    return curves.flatMap(({ xs, ys, look }) => {
      const first = Math.max(0, indexAfter(xs, low) - 1), last = Math.min(xs.length, indexAfter(xs, high) + 1);
      return extremes(ys, first, last, most).map((i) => ({ x: xs[i], y: ys[i], ...look }));
    });
  }

  _mark(run, decision) {
    const { shape, ink, size } = KINDS[decision.kind];
    const where = `Step ${count(decision.step)}, ${decision.phase}: ${decision.change}`;
    const title = DATA.runs.length > 1 ? `${run.name}. ${where}` : where;
    return { x: AXES[this.axis].of(run, decision.step), y: decision.at, shape, ink, size, tip: [title, decision.reason], label: `${title}. ${decision.reason}` };
  }

  _bands() {
    const run = DATA.runs[this.phasesOf], of = AXES[this.axis].of;
    if (!this.shown.has(this.phasesOf) || run.phases.length < 2) return [];
    const end = Math.max(run.last, this.axis === "time" ? 0 : 1);
    const bands = run.phases.map(({ name, from }, i) => ({
      name, odd: i % 2, from: of(run, from) ?? 0, to: of(run, run.phases[i + 1]?.from ?? end) ?? this.end,
    }));
    return bands.filter((band) => band.to > band.from);
  }

  _draw() { // what is wanted now, once what was wanted before is drawn; of several wishes meanwhile, the last
    if (!this.waiting) {
      this.waiting = (this.drawing ?? Promise.resolve()).then(() => {
        this.waiting = null;
        this.drawing = this._drawNow();
        return this.drawing;
      });
    }
    return this.waiting;
  }

  async _drawNow() {
    const bands = this._bands();
    await Promise.all(this.panels.map(async (panel, i) => {
      panel.view.data("lines", this._lines(panel)).data("bands", bands);
      await panel.view.signal("xd", this.window).runAsync();
      panel.plot.dispatchEvent(new Event("drawn"));
    }));
  }

  // ---- What can be done
  setAxis(name) { this.axis = name; return this._fill(); }

  show(run, on) { if (on) this.shown.add(run); else this.shown.delete(run); return this._fill(); }

  tellPhasesOf(run) { this.phasesOf = run; return this._draw(); }

  setWindow(low, high) {
    const [first, last] = this.full, width = Math.min(Math.max(high - low, (last - first) / 1e4), last - first);
    const begin = Math.max(first, Math.min(low, last - width));
    this.window = [begin, begin + width];
    hideTip();
    return this._draw();
  }

  zoom(factor, around = (this.window[0] + this.window[1]) / 2) {
    return this.setWindow(around - (around - this.window[0]) * factor, around + (this.window[1] - around) * factor);
  }

  move(share) {
    const by = share * (this.window[1] - this.window[0]);
    return this.setWindow(this.window[0] + by, this.window[1] + by);
  }

  do(what) {
    const done = { in: () => this.zoom(0.5), out: () => this.zoom(2), left: () => this.move(-0.3), right: () => this.move(0.3), reset: () => this.setWindow(...this.full) }[what]();
    const say = AXES[this.axis].say;
    this.announce(`Shown: ${say(Math.max(this.window[0], 0))} to ${say(Math.min(this.window[1], this.end))}`);
    return done;
  }

  _bringIntoView(x) {
    const [low, high] = this.window;
    return x < low || x > high ? this.setWindow(x - (high - low) / 2, x + (high - low) / 2) : undefined;
  }

  // ---- Values under the pointer, or where the arrows are
  _read(panel, x, place) {
    const of = AXES[this.axis].of, rows = [];
    for (const i of this.shown) {
      const run = DATA.runs[i];
      for (const key of panel.keys) {
        if (!run.curves[key] || (key === "loss" && run.curves.train_loss)) continue;
        const [steps, values] = run.curves[key];
        const xs = this.axis === "step" ? steps : steps.map((step) => of(run, step) ?? Infinity);
        const after = indexAfter(xs, x), nearest = xs.length > 1 && Math.abs(xs[after - 1] - x) <= Math.abs(xs[after] - x) ? after - 1 : Math.min(after, xs.length - 1);
        if (x > xs[xs.length - 1] * 1.02 || xs[nearest] === Infinity) continue;
        rows.push(make("div", { class: "value" }, stroke(inkOf(run), dashOf(run)), make("span", {}, DATA.runs.length > 1 ? run.name : panel.title), make("b", {}, panel.percent ? percent(values[nearest], 2) : number(values[nearest], 4))));
      }
    }
    for (const { plot, view } of this.panels) this._bar(plot, "cursor", LEFT + view.scale("x")(x), 1, view.height());
    const more = rows.length > 10 ? [make("div", {}, `and ${rows.length - 10} more`)] : [];
    const label = AXES[this.axis].say(x);
    showTip([make("strong", {}, label[0].toUpperCase() + label.slice(1)), ...rows.slice(0, 10), ...more], place);
  }

  _bar(plot, name, left, width, height) {
    const bar = plot.querySelector(`.${name}`) ?? plot.appendChild(make("div", { class: name }));
    Object.assign(bar.style, { left: `${left}px`, width: `${width}px`, top: `${plot === this.panels[0].plot ? TOP : 10}px`, height: `${height}px` });
  }

  _clear(name) { this.root.querySelectorAll(`.${name}`).forEach((bar) => bar.remove()); }

  _listen(panel) {
    const { plot, view } = panel;
    let drag = null, cursor = null;
    const pixel = (event) => Math.max(0, Math.min(view.width(), event.clientX - plot.getBoundingClientRect().left - LEFT));
    const invert = (px) => view.scale("x").invert(px), read = (px) => Math.max(0, Math.min(this.end, invert(px)));
    plot.addEventListener("pointerdown", (event) => {
      if (event.button || event.pointerType === "touch") return;
      drag = { from: pixel(event), window: [...this.window], moves: event.shiftKey };
      plot.setPointerCapture(event.pointerId);
    });
    plot.addEventListener("pointermove", (event) => {
      const px = pixel(event);
      if (drag?.moves) {
        const by = ((drag.from - px) / view.width()) * (drag.window[1] - drag.window[0]);
        this.setWindow(drag.window[0] + by, drag.window[1] + by);
      } else if (drag) {
        for (const other of this.panels) this._bar(other.plot, "choice", LEFT + Math.min(px, drag.from), Math.abs(px - drag.from), other.view.height());
      } else if (!keys && !datumOf(event.target)?.tip) {
        this._read(panel, read(px), new DOMRect(event.clientX, event.clientY, 0, 0));
      }
    });
    plot.addEventListener("pointerup", (event) => {
      const px = pixel(event);
      if (drag && !drag.moves && Math.abs(px - drag.from) > 5) this.setWindow(invert(Math.min(px, drag.from)), invert(Math.max(px, drag.from)));
      drag = null;
      this._clear("choice");
    });
    plot.addEventListener("pointerleave", () => { if (!drag) { this._clear("cursor"); hideTip(); } });
    plot.addEventListener("dblclick", () => this.do("reset"));
    plot.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return; // the page scrolls
      event.preventDefault();
      this.zoom(Math.exp(event.deltaY / 300), invert(pixel(event)));
    }, { passive: false });
    plot.addEventListener("keydown", (event) => {
      const what = { "+": "in", "=": "in", "-": "out", 0: "reset" }[event.key] ?? (event.shiftKey && { ArrowLeft: "left", ArrowRight: "right" }[event.key]);
      const step = { ArrowLeft: -0.02, ArrowRight: 0.02 }[event.key];
      if (event.ctrlKey || event.metaKey || event.altKey || !(what || step)) return;
      event.preventDefault();
      if (what) { this.do(what); return; }
      const low = Math.max(0, this.window[0]), high = Math.min(this.end, this.window[1]);
      cursor = Math.max(low, Math.min(high, (cursor ?? (low + high) / 2) + step * (high - low)));
      const box = plot.getBoundingClientRect();
      this._read(panel, cursor, new DOMRect(box.left + LEFT + view.scale("x")(cursor), box.top + 10, 0, 0));
      this.announce(tip.innerText);
    });
    plot.addEventListener("blur", () => { this._clear("cursor"); hideTip(); });
  }
}
