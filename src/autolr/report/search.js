// The search for the peak, and a probe's fit.

const LENGTHS = [ // the shortest first
  { ink: "var(--run-0)", shape: SHAPES.circle, dash: [] },
  { ink: "var(--run-1)", shape: SHAPES.square, dash: [7, 4] },
  { ink: "var(--run-2)", shape: SHAPES.diamond, dash: [2, 3] },
  { ink: "var(--run-3)", shape: SHAPES.up, dash: [9, 3, 2, 3] },
];
const ROOM = 0.4; // above the start's loss, as a share of what lies between it and the lowest

function drawSearch(box, search) {
  const ends = search.lengths.flatMap(({ ends: runs }) => runs), finite = ends.map(([, loss]) => loss).filter((loss) => loss !== null);
  const start = search.start ?? Math.max(...finite, 1);
  const low = Math.min(start, ...finite), top = start + ROOM * (start - low || 1), pad = 0.1 * (top - low);
  const rates = [search.lr, ...ends.map(([rate]) => rate)];
  const reach = [Math.min(...rates) / 1.5, Math.max(...rates) * 1.5], marks = [], joined = [], fits = [], bottoms = [];
  search.lengths.forEach(({ length, ends: runs, parabola, bottom }, i) => {
    const { ink, shape, dash } = LENGTHS[i % LENGTHS.length];
    for (const [rate, loss] of runs) {
      const above = loss === null || loss >= top, said = loss === null ? "diverged" : `ended at loss ${number(loss)}`;
      const told = [`Run of ${length} steps at peak rate ${number(rate)}`, above && loss !== null ? `${said}, above this chart` : said];
      marks.push({ x: rate, y: above ? top : loss, ink, shape: above ? SHAPES.up : shape, hollow: above, size: 90, tip: told, label: told.join(": ") });
      if (!above) joined.push({ s: length, x: rate, y: loss, ink, dash });
    }
    fits.push(...parabola.map(([x, y]) => ({ s: length, x, y, ink, dash })));
    if (bottom && parabola.length) {
      const y = Math.min(...parabola.map(([, loss]) => loss)), told = [`Bottom at ${length} steps: rate ${number(bottom[0])}`, `one standard error: ${number(bottom[1])} to ${number(bottom[2])}`];
      bottoms.push({ from: bottom[1], to: bottom[2], y, ink });
      marks.push({ x: bottom[0], y, ink, shape: SHAPES.cross, size: 80, tip: told, label: told.join(", ") });
    }
  });
  const across = { x: { value: 0 }, x2: { signal: "width" } }, upright = { y: { value: 0 }, y2: { signal: "height" } };
  chart(box, {
    height: 320, top: 32, bottom: 48, description: `The search for the peak. ${search.finding}`,
    data: [
      ...Object.entries({ marks, joined, fits, bottoms }).map(([name, values]) => ({ name, values })),
      { name: "chosen", values: [search] },
    ],
    scales: [
      { name: "x", type: "log", domain: reach, range: "width", nice: false },
      { name: "y", type: "linear", domain: [low - pad, top], range: "height", nice: false, zero: false },
    ],
    axes: [
      { scale: "x", orient: "bottom", grid: false, title: "peak learning rate (logarithmic)", values: logTicks(...reach), format: "~g" },
      { scale: "y", orient: "left", tickCount: 5, format: ".3~g", ...upward("loss at the end of a short run") },
    ],
    marks: [
      inside(
        { type: "rect", aria: false, from: { data: "chosen" }, encode: { update: { x: at("x", "low"), x2: at("x", "high"), ...upright, fill: { value: "var(--accent)" }, fillOpacity: { value: 0.1 } } } },
        ...["low", "high"].map((end) => ({ ...rule({ x: at("x", end), ...upright, stroke: { value: "var(--accent)" }, strokeDash: { value: [2, 4] } }), from: { data: "chosen" } })),
        rule({ ...across, y: { scale: "y", value: start }, stroke: { value: "var(--soft)" }, strokeDash: { value: [1, 4] }, strokeWidth: { value: 1.5 } }),
        { ...rule({ x: at("x", "lr"), ...upright, stroke: { value: "var(--accent)" }, strokeWidth: { value: 2 } }), from: { data: "chosen" } },
        line("joined", { width: 1, opacity: 0.45 }), line("fits", { width: 2.5 }),
        { ...rule({ x: at("x", "from"), x2: at("x", "to"), y: at("y", "y"), stroke: { field: "ink" }, strokeWidth: { value: 1.5 } }), from: { data: "bottoms" } },
        { type: "text", aria: false, encode: { update: { x: { signal: "width - 4" }, y: { scale: "y", value: start, offset: -6 }, align: { value: "right" }, text: { value: search.start === null ? "" : "loss at the start" } } } },
        { type: "text", aria: false, from: { data: "chosen" }, encode: { update: { x: { scale: "x", field: "lr", offset: 7 }, y: { value: 6 }, baseline: { value: "top" }, fill: { value: "var(--accent)" }, fontWeight: { value: 600 }, text: { value: `chosen ${number(search.lr)}` } } } },
      ),
      symbols("marks", "tipped"),
    ],
  });
  const legend = [
    ...search.lengths.map(({ length, parabola }, i) => {
      const { ink, shape, dash } = LENGTHS[i % LENGTHS.length], line = stroke(ink, dash, 2);
      line.append(svg("path", { d: shape, fill: ink, transform: "translate(14 8) scale(5)" }));
      return [line, `runs of ${count(length)} steps${parabola.length ? ", with the parabola through the best" : ""}`];
    }),
    [symbol(SHAPES.cross, "var(--soft)", { scale: 4.5 }), "bottom of a parabola, ± one standard error"],
    [symbol(SHAPES.up, "var(--soft)", { hollow: true }), "diverged, or ended above the chart"],
    [stroke("var(--accent)"), `chosen peak, ${number(search.lr)}`],
    ...(search.low < search.high ? [[stroke("var(--accent)", [2, 4], 2), `where the best peak is believed, ${number(search.low)} to ${number(search.high)}`]] : []),
  ];
  return legend;
}

function drawProbe(box, decision) {
  const { eps, losses, keptEps, keptLosses, fit, minimum, change } = decision.probe;
  const sampled = [...eps, ...keptEps];
  let low = Math.min(...sampled), high = Math.max(...sampled);
  const near = 0.5 * (high - low); // a minimum so far outside still stretches the axis
  if (minimum !== null && low - near <= minimum && minimum <= high + near) [low, high] = [Math.min(low, minimum), Math.max(high, minimum)];
  const pad = 0.07 * (high - low) || 1, domain = [low - pad, high + pad];
  const of = (x) => fit[0] + fit[1] * x + fit[2] * x * x;
  const curve = fit ? Array.from({ length: 121 }, (_, i) => domain[0] + ((domain[1] - domain[0]) * i) / 120).map((x) => ({ s: 0, x, y: of(x) })) : [];
  const mark = (x, y, shape, ink, size, what) => ({ x, y, shape, ink, size, tip: [what, `loss ${number(y, 5)} at ε ${number(x)}`], label: `${what}: loss ${number(y, 5)} at ε ${number(x)}` });
  const marks = [
    ...keptEps.map((x, i) => mark(x, keptLosses[i], SHAPES.square, "var(--run-2)", 75, "Sample kept from the fit")),
    ...(fit && minimum !== null && minimum >= domain[0] && minimum <= domain[1] ? [mark(minimum, of(minimum), SHAPES.circle, "var(--bad)", 130, "Minimum of the parabola")] : []),
    ...eps.map((x, i) => mark(x, losses[i], SHAPES.up, "var(--run-1)", 100, "Sample of the fit")),
  ].filter(({ y }) => y !== null);
  const changed = change && change >= domain[0] && change <= domain[1] ? [{ change }] : [];
  const ys = [...marks.map(({ y }) => y), ...curve.map(({ y }) => y)], least = Math.min(...ys), most = Math.max(...ys), air = 0.06 * (most - least) || 1;
  chart(box, {
    height: 300, top: 32, bottom: 48, description: `Probe at step ${decision.step}: ${decision.probe.finding}; ${decision.change}.`,
    data: Object.entries({ curve, marks, changed }).map(([name, values]) => ({ name, values })),
    scales: [
      { name: "x", type: "linear", domain, range: "width", zero: false, nice: false },
      { name: "y", type: "linear", domain: [least - air, most + air], range: "height", zero: false, nice: false },
    ],
    axes: [
      { scale: "x", orient: "bottom", grid: false, title: "ε, in multiples of the step", tickCount: 6, format: "~g" },
      { scale: "y", orient: "left", tickCount: 5, format: ".4~g", ...upward("loss") },
    ],
    marks: [
      inside(
        rule({ x: { scale: "x", value: 0 }, y: { value: 0 }, y2: { signal: "height" }, stroke: { value: "var(--line)" }, strokeWidth: { value: 1.5 } }),
        { ...rule({ x: at("x", "change"), y: { value: 0 }, y2: { signal: "height" }, stroke: { value: "var(--ink)" }, strokeDash: { value: [5, 4] } }), from: { data: "changed" } },
        line("curve", { ink: "var(--run-0)", dash: [], width: 2.5 }),
      ),
      symbols("marks", "tipped"),
    ],
  });
  return [
    [symbol(SHAPES.up, "var(--run-1)"), "samples of the fit"],
    ...(keptEps.length ? [[symbol(SHAPES.square, "var(--run-2)"), "samples kept from the fit"]] : []),
    ...(fit ? [[stroke("var(--run-0)"), "fitted parabola"]] : []),
    ...(marks.some(({ shape }) => shape === SHAPES.circle) ? [[symbol(SHAPES.circle, "var(--bad)"), "its minimum"]] : []),
    ...(changed.length ? [[stroke("var(--ink)", [5, 4], 1.5), "change that was made"]] : []),
  ];
}
