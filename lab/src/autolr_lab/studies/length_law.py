"""Does the best rate follow a law in the length of the run? Published sweeps, and the zoo's learning half.

For each problem that was swept at two lengths or more, the exponent of the best rate over the steps: the slope of the
bottom's logarithm over that of the length. A bottom is that of the parabola through the best rate and its neighbours;
lengths whose best rate lies at the grid's edge are left out, as it may lie anywhere beyond. Runs that differ in nothing
that is told are averaged.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import fmean

import numpy as np

from autolr_lab.runner.markdown import markdown_table
from autolr_lab.runner.results import RESULTS, Row
from autolr_lab.studies.deepobs.published import FIRST_SEED
from autolr_lab.studies.study import Study
from autolr_lab.workloads.workload import find_folder, read_file
from autolr_lab.zoo.offline import tables as zoo_tables
from autolr_lab.zoo.store import unpack

FILES = ("deepobs-baselines.csv", "llama-cooldown-lr.csv", "step-law-dense.csv", "step-law-moe.csv")
SOURCE = (
    "https://github.com/fsschneider/DeepOBS_Baselines, https://github.com/fabian-sp/lr-scheduling and "
    "https://github.com/step-law/steplaw"
)
TOKENS = 2048  # of a sequence of Step Law
FEWEST = 4  # rates of a length, below which a bottom is chance
DENSE = "Step Law, dense, AdamW, cosine"
WITHIN = (0, 8_000, 25_000, 60_000, 150_000, 10_000_000)  # [steps] between which Step Law's neighbouring lengths lie
APART = 1.4  # times longer, below which two lengths tell little
Losses = Mapping[float, float]  # by rate
Group = tuple[str, str]  # what the table tells apart, and the problem within it


def bottom(losses: Losses) -> float | None:
    """[octaves] Where the loss is least over the log of the rate; None at an edge of the rates that ended."""
    known = sorted((math.log2(lr), loss) for lr, loss in losses.items() if math.isfinite(loss))
    if len(known) < FEWEST:
        return None
    best = min(range(len(known)), key=lambda i: known[i][1])
    if best in {0, len(known) - 1}:
        return None
    x, y = np.array(known[best - 1 : best + 2]).T
    bend, slope, _ = np.polyfit(x - x[1], y, 2)
    return float(x[1] - (slope / (2 * bend) if bend > 0 else 0.0))


def exponent(bottoms: Mapping[float, float]) -> float:
    """The slope of the bottoms [octaves] over the log of the length; of two lengths or more."""
    x = np.log2(list(bottoms))
    return float(np.polyfit(x - x.mean(), list(bottoms.values()), 1)[0])


def measure(data_dir: Path | None) -> Iterator[Row]:
    """A row for each problem that has a bottom at two lengths or more."""
    folder = find_folder(data_dir, "Published sweeps", ("sweeps", "."), FILES, SOURCE)
    swept: dict[Group, dict[float, dict[float, list[float]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for name, read in zip(FILES, (_deepobs, _llama, _step_law, _step_law), strict=True):
        rows = csv.DictReader(io.StringIO(read_file(folder, name).decode("utf8")))
        for group, length, lr, loss in read(name, rows):
            swept[group][length][lr].append(loss)
    for group, length, lr, loss in _zoo():
        swept[group][length][lr].append(loss)
    for (source, problem), lengths in swept.items():
        means = {length: {lr: fmean(losses) for lr, losses in lengths[length].items()} for length in sorted(lengths)}
        found = {length: place for length, losses in means.items() if (place := bottom(losses)) is not None}
        if len(found) > 1:
            yield _row(source, problem, found, neighbours=False)
        for two in itertools.pairwise(found.items()):
            if two[1][0] > APART * two[0][0]:
                yield _row(source, problem, dict(two), neighbours=True)


def _row(source: str, problem: str, found: Mapping[float, float], *, neighbours: bool) -> Row:
    return {
        "source": source, "problem": problem, "neighbours": neighbours, "shortest": min(found), "longest": max(found),
        "exponent": exponent(found), "move": found[max(found)] - found[min(found)],
    }  # fmt: skip


Read = Iterator[tuple[Group, float, float, float]]  # group, length, rate, loss


def _deepobs(_: str, rows: Iterable[Mapping[str, str]]) -> Read:
    """Lengths in epochs: constant rates, so that a longer run is the shorter one continued."""
    for row in rows:
        if int(row["seed"]) == FIRST_SEED and int(row["epoch"]) > 0:
            group = f"DeepOBS, {row['optimizer']}, constant rates [epochs]", row["problem"]
            yield group, float(row["epoch"]), float(row["lr"]), float(row["train_loss"] or "inf")


def _llama(_: str, rows: Iterable[Mapping[str, str]]) -> Read:
    for row in rows:
        if row["final_val_loss"] and row["schedule"] == "wsd" and float(row["decay_fraction"]) > 0:
            names = ("dataset", "model", "parameters", "decay_fraction", "decay_type", "batch_size", "seed")
            group = "Llama-like models, AdamW, decay to zero", " ".join(row[name] for name in names)
            yield group, float(row["steps"]), float(row["lr"]), float(row["final_val_loss"])


def _step_law(name: str, rows: Iterable[Mapping[str, str]]) -> Read:
    source = DENSE if "dense" in name else "Step Law, mixture of experts, AdamW, cosine"
    for row in rows:
        problem = f"{float(row['N']):.3g} parameters {row.get('topk', '')}, batch {row['bs']}"
        steps = round(float(row["D"]) / (float(row["bs"]) * TOKENS))
        yield (source, problem), steps, float(row["lr"]), float(row["smooth loss"])


def _zoo() -> Read:
    """The learning half: those of the others are for reports."""
    for table in zoo_tables(unpack(RESULTS / "zoo" / "grid.csv.gz")):
        for steps, rows in table.grid.items():
            for octave, row in rows.items():
                yield (f"zoo, {table.optimizer}", table.task), steps, 2.0**octave, row.train_loss


def tables(rows: list[Row]) -> dict[str, str]:
    """Markdown: a line for each source; and of Step Law's neighbouring lengths, one for how long they are."""
    whole = [row for row in rows if not row["neighbours"]]
    sources = dict.fromkeys(row["source"] for row in whole)
    steps = {
        f"{low:,} to {high:,} steps": [
            row for row in rows
            if row["neighbours"] and row["source"] == DENSE
            and low <= math.sqrt(row["shortest"] * row["longest"]) < high
        ]
        for low, high in itertools.pairwise(WITHIN)
    }  # fmt: skip
    return {
        "length": _table("sweeps", {source: [r for r in whole if r["source"] == source] for source in sources}),
        "steps": _table("Step Law, dense, neighbouring lengths", {name: some for name, some in steps.items() if some}),
    }


def _table(of: str, groups: Mapping[str, list[Row]]) -> str:
    lines = []
    for name, some in groups.items():
        low, median, high = np.quantile([row["exponent"] for row in some], [0.25, 0.5, 0.75])
        moves, longer = [row["move"] for row in some], np.median([row["longest"] / row["shortest"] for row in some])
        lines.append([
            name, str(len(some)), f"{min(r['shortest'] for r in some):,.0f} to {max(r['longest'] for r in some):,.0f}",
            f"{longer:.3g}", f"{median:+.2f}", f"{low:+.2f} to {high:+.2f}", f"{np.mean(moves):+.2f}",
            f"{np.std(moves):.2f}",
        ])  # fmt: skip
    heads = (
        of, "problems", "steps", "times longer, median", "exponent, median", "quartiles",
        "move of the best rate, octaves, mean", "its standard deviation",
    )  # fmt: skip
    return markdown_table(heads, lines)


LENGTH_LAW = Study(
    "length-law", "How the best rate moves with the length of the run", measure, tables,
    {"rates at least": FEWEST, "times longer at least": APART},
)  # fmt: skip
