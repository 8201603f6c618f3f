"""What each part and each constant of `Auto` is worth: ``python benchmarks/ablations.py --data-dir DIR``.

One thing is changed at a time, everything else as it is, on four contests of the small benchmark. They are no held-out
ones: all four were looked at while the constants were set.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import matplotlib.pyplot as plt
import torch
import typer

from autolr.bench.contest import SMALL, Contest
from autolr.bench.experiment import Ask
from autolr.policies import auto, trials
from kept import highest_rate, kept_run
from record import markdown, new_record, write_record

CONSTANTS: dict[str, list[float]] = {
    "BEYOND": [1, 4, 16],
    "EARLY": [0.15, 0.3, 0.6],
    "FACTOR": [2, 4, 8],
    "FEWEST": [6, 12, 24],
    "HOLD": [0.25, 0.5, 0.75],
    "JUDGES": [1, 4, 16],
    "LONGER": [2, 4, 8],
    "SCOUT": [1e-4, 1e-3, 1e-2],
    "SEARCH": [0.1, 0.2, 0.4],
    "TRIAL": [0.0075, 0.015, 0.03],
    "WARM": [0.02, 0.05, 0.1],
    "hold": [0.2, 0.5, 0.8],
}
CONTESTS = {  # share of its epochs, seeds
    ("digits", "momentum"): (0.4, 3),
    ("digits", "adam"): (0.4, 3),
    ("tiny-imagenet-10", "momentum"): (1.0, 1),
    ("cifar10-small", "momentum"): (0.2, 1),
}


def _home(what: str) -> Any:
    """The module that has a constant: a trial's shape and the search's factor are not the run's."""
    return trials if what in {"FACTOR", "HOLD"} else auto


def _best_tried(tried: Sequence[trials.Trial], start: float, doubt: float) -> float:
    """No parabola."""
    rates = sorted(tried)
    return rates[trials._best(rates, start, doubt)][0]


_undoubted = trials._best


def _lowest(tried: Sequence[trials.Trial], start: float, _doubt: float) -> int:
    """Of losses however close the lowest."""
    return _undoubted(tried, start, 0.0)


ABLATIONS: dict[str, tuple[Any, str, Any]] = {
    "as it is": (auto, "BEYOND", auto.BEYOND),
    "no decay": (auto, "BEYOND", auto.BEYOND),  # hold=1
    "no trials": (auto, "room", lambda *_: False),
    "trials without a fall": (trials, "HOLD", 1.0),
    "the best that was tried, no parabola": (auto, "best_rate", _best_tried),
    "the lowest loss, however close": (trials, "_best", _lowest),
    "no longer trials": (auto, "room_for_longer", lambda *_: False),
    "longer trials from the parabola's peak down": (auto, "plateau", lambda *_: False),
    "no rise": (auto, "WARM", 0.0),
    "no watches": (auto.Auto, "_watched", lambda *_: ()),
}


@contextlib.contextmanager
def changed(what: str, value: Any) -> Iterator[dict[str, Any]]:
    """The policy's settings, with one thing changed inside."""
    policy: dict[str, Any] = {"within": True}
    if what == "hold":
        yield policy | {"hold": value}
    elif what in CONSTANTS:
        with mock.patch.object(_home(what), what, value):
            yield policy
    else:
        with mock.patch.object(*ABLATIONS[what]):
            yield policy | ({"hold": 1.0} if what == "no decay" else {})


def measure(
    what: str, value: Any, contest: Contest, scale: float, seed: int, data_dir: Path, folder: Path
) -> dict[str, Any]:
    """One run; one that is there already is read."""
    out = folder / f"{what}-{value}-{contest.workload}-{contest.optimizer}-{seed}".replace(" ", "-").replace("'", "")
    with changed(what, value) as policy:
        ask = Ask(scale=scale, data_dir=data_dir)
        settings = contest.settings(ask, "auto", contest.seed_rate, seed, policy=policy)
        result, run = kept_run(settings, out)
    return {
        "what": what, "value": value, "contest": contest.name, "seed": seed,
        "peak": highest_rate(run),
        "test_accuracy": result["test_accuracy"], "final_train_loss": result["final_train_loss"],
        "cost_share": result["cost_share"], "steps": result["steps"],
    }  # fmt: skip


def _changed(row: dict[str, Any]) -> str:
    """What was, in words."""
    value = row["value"]
    known = value is not None and math.isfinite(value)
    return f"{row['what']} = {value:g}" if known else row["what"]


def ablations_table(rows: list[dict[str, Any]]) -> str:
    """A line for each thing changed: test accuracy in points, and the factor of the training loss, as it is = 1."""
    contests = list(dict.fromkeys(row["contest"] for row in rows))
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        runs.setdefault((_changed(row), row["contest"]), []).append(row)
    lines = []
    for name in dict.fromkeys(map(_changed, rows)):
        line = [name]
        for contest in contests:
            pairs = list(zip(runs[name, contest], runs["as it is", contest], strict=True))
            gain = 100 * statistics.fmean(a["test_accuracy"] - b["test_accuracy"] for a, b in pairs)
            ratios = [math.log(a["final_train_loss"] / b["final_train_loss"]) for a, b in pairs]
            line.append(f"{gain:+.1f}, x{math.exp(statistics.fmean(ratios)):.2f}")
        lines.append(line)
    return markdown(["changed", *contests], lines)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """A picture for each constant: the training loss as a multiple of the one at the constant as it is."""
    figure, axes = plt.subplots(3, 4, figsize=(13, 9), sharey=True, layout="constrained")
    for axis, (what, values) in zip(axes.flat, CONSTANTS.items(), strict=True):
        for contest in dict.fromkeys(row["contest"] for row in rows):
            base = {r["seed"]: r for r in rows if (r["what"], r["contest"]) == ("as it is", contest)}
            points = []
            for value in values:
                own = [r for r in rows if (r["what"], r["value"], r["contest"]) == (what, value, contest)]
                own = own or list(base.values())  # the value as it is
                logs = [math.log(r["final_train_loss"] / base[r["seed"]]["final_train_loss"]) for r in own]
                points.append(math.exp(statistics.fmean(logs)))
            axis.plot(values, points, marker="o", label=contest)
        axis.axvline(0.5 if what == "hold" else getattr(_home(what), what), color="0.8", zorder=0)
        axis.set(title=what, xscale="linear" if what == "hold" else "log", yscale="log")
        axis.set_xticks(values, labels=[f"{value:g}" for value in values])
        axis.set_yticks([0.5, 1, 2], labels=["0.5", "1", "2"])
        axis.minorticks_off()
    axes[0, 0].legend(fontsize="small")
    for row in axes:
        row[0].set_ylabel("training loss, as it is = 1")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(
    data_dir: Annotated[Path, typer.Option(envvar="AUTOLR_DATA")],
    folder: Annotated[Path, typer.Option(help="Where runs are kept; those that are there are read.")] = Path(
        "runs/ablations"
    ),
    picture: Annotated[Path, typer.Option()] = Path("docs/img/auto_sensitivity.png"),
) -> None:
    """Measure, print the table, draw, and write a record."""
    torch.set_num_threads(1)
    wanted: list[tuple[str, Any]] = [(what, None) for what in ABLATIONS]
    wanted += [
        (what, value)
        for what, values in CONSTANTS.items()
        for value in values
        if value != (0.5 if what == "hold" else getattr(_home(what), what))
    ]
    rows = []
    for (workload, optimizer), (scale, seeds) in CONTESTS.items():
        contest = next(c for c in SMALL if (c.workload, c.optimizer) == (workload, optimizer))
        for (what, value), seed in itertools.product(wanted, range(seeds)):
            rows.append(measure(what, value, contest, scale, seed, data_dir, folder))
            print(json.dumps(rows[-1]), flush=True)
    table = ablations_table(rows)
    path = new_record("ablations")
    settings = {"contests": [[*key, *value] for key, value in CONTESTS.items()], "constants": CONSTANTS}
    write_record(path, settings, rows, table)
    draw(rows, picture)
    print(table, f"\nRecord: {path}")


if __name__ == "__main__":
    typer.run(main)
