// The horizontal axis: steps, time or share of a run; and which points of a curve are drawn.

const AXES = {
  step: { title: "optimizer steps", format: ",.9~g", of: (run, step) => step, say: (x) => `step ${count(x)}` },
  time: { title: "", format: ",.4~g", of: timeOf, say: (x) => `${number(x)} ${UNIT.name}` },
  share: { title: "share of the run", format: ".3~%", of: (run, step) => step / run.total, say: (x) => `${percent(x, 1)} of the run` },
};
const longest = Math.max(0, ...DATA.runs.map((run) => run.times?.[1].at(-1) ?? 0));
const UNIT = longest > 7200 ? { name: "hours", seconds: 3600 } : longest > 180 ? { name: "minutes", seconds: 60 } : { name: "seconds", seconds: 1 };
AXES.time.title = `${UNIT.name} since the run began`;

function timeOf(run, step) {
  if (!run.times) return null;
  const [steps, seconds] = run.times, i = indexAfter(steps, step);
  if (step > steps.at(-1) || step < steps[0]) return null;
  const share = (step - steps[i - 1]) / (steps[i] - steps[i - 1] || 1);
  return (seconds[i - 1] + share * (seconds[i] - seconds[i - 1])) / UNIT.seconds;
}

function indexAfter(sorted, value) { // of the first that is not below `value`, but for the first of all
  let low = 1, high = sorted.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1; else high = middle;
  }
  return low;
}

const DRAWN = 24000; // points of a chart

function extremes(ys, first, last, most) { // places of the ends, the least and the greatest of each stretch, and of a gap
  const stretch = Math.ceil((last - first) / (most / 5)), kept = [];
  if (last - first <= most) return Array.from({ length: last - first }, (_, i) => first + i);
  for (let begin = first; begin < last; begin += stretch) {
    const end = Math.min(begin + stretch, last);
    let least = begin, greatest = begin, gap = begin;
    for (let i = begin; i < end; i += 1) {
      if (ys[i] === null) gap = i;
      else {
        if (ys[least] === null || ys[i] < ys[least]) least = i;
        if (ys[greatest] === null || ys[i] > ys[greatest]) greatest = i;
      }
    }
    kept.push(...[...new Set([begin, least, greatest, gap, end - 1])].sort((a, b) => a - b));
  }
  return kept;
}
