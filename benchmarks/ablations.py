"""What each part and each constant of `Auto` is worth: ``python benchmarks/ablations.py --data-dir DIR``.

One thing is changed at a time, everything else as it is. The first study is of four contests of the small benchmark.
They are no held-out ones: all four were looked at while the constants were set. The others are of what makes no
difference there: very short and very long runs, and runs that die, their peak being set far too high.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
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

AS_IT_IS = "as it is"
AS_FOUND = "the peak as it was found"
FOUR = {  # share of a contest's epochs, seeds
    ("digits", "momentum"): (0.4, 3),
    ("digits", "adam"): (0.4, 3),
    ("tiny-imagenet-10", "momentum"): (1.0, 1),
    ("cifar10-small", "momentum"): (0.2, 1),
}


@dataclass(frozen=True)
class Study:
    """Contests, and what is changed on them."""

    contests: Mapping[tuple[str, str], tuple[float, int]]
    constants: Mapping[str, Sequence[float]]
    parts: tuple[str, ...] = (AS_IT_IS,)
    times: float = 1.0  # as high as it was found is the peak


STUDIES = {
    "four": Study(
        FOUR,
        {
            "ABOVE": [0.05, 0.1, 0.2],
            "BEYOND": [1, 4, 16],
            "EARLY": [0.15, 0.3, 0.6],
            "FACTOR": [2, 4, 8],
            "FEWEST": [6, 12, 24],
            "GAINED": [0.7, 0.8, 0.9],
            "HOLD": [0.25, 0.5, 0.75],
            "JUDGES": [1, 4, 16],
            "LONGER": [2, 4, 8],
            "SCOUT": [1e-4, 1e-3, 1e-2],
            "SEARCH": [0.1, 0.2, 0.4],
            "TRIAL": [0.0075, 0.015, 0.03],
            "WARM": [0.02, 0.05, 0.1],
            "hold": [0.2, 0.5, 0.8],
        },
        parts=(
            AS_IT_IS,
            "no decay",
            "no trials",
            "trials without a fall",
            "the best that was tried, no parabola",
            "the lowest loss, however close",
            "no longer trials",
            "longer trials from the parabola's peak down",
            "no rise",
            "no watches",
        ),
    ),
    "dying": Study(
        FOUR,
        {
            "LOST": [0.25, 0.5, 0.9],
            "ERRORS": [1, 2, 6],
            "SURELY": [2, 6, 20],
            "BACK": [2, 3, 10],
            "WATCHES": [4, 8, 16],
            "RARE": [0.005, 0.01, 0.02],
        },
        parts=(AS_IT_IS, AS_FOUND, "no watches"),
        times=32.0,
    ),
    "short": Study(
        {
            ("digits", "momentum"): (0.05, 10),
            ("digits", "adam"): (0.05, 10),
            ("tiny-imagenet-10", "momentum"): (0.2, 5),
        },
        {"MOST": [0.05, 0.1, 0.2], "BRACKET": [2, 3, 4]},
    ),
    "long": Study({("digits", "momentum"): (5.0, 3)}, {"LONGEST": [32, 64, 128]}),  # with Adam the loss comes to 0
}


def _home(what: str) -> Any:
    """The module that has a constant: a trial's shape and the search's factor are not the run's."""
    return trials if what in {"ABOVE", "FACTOR", "GAINED", "HOLD"} else auto


def _best_tried(tried: Sequence[trials.Trial], start: float, doubt: float) -> float:
    """No parabola."""
    rates = sorted(tried)
    return rates[trials._best(rates, start, doubt)][0]


_undoubted = trials._best


def _lowest(tried: Sequence[trials.Trial], start: float, _doubt: float) -> int:
    """Of losses however close the lowest."""
    return _undoubted(tried, start, 0.0)


PARTS: dict[str, tuple[Any, str, Any]] = {
    AS_IT_IS: (auto, "BEYOND", auto.BEYOND),
    AS_FOUND: (auto, "BEYOND", auto.BEYOND),  # and times=1
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
    elif what in PARTS:
        with mock.patch.object(*PARTS[what]):
            yield policy | ({"hold": 1.0} if what == "no decay" else {})
    else:
        with mock.patch.object(_home(what), what, value):
            yield policy


@contextlib.contextmanager
def _peak(times: float) -> Iterator[None]:
    """That many times as high as it was found, and not tried in longer trials, which would see it."""
    found = trials.best_rate
    with (
        mock.patch.object(auto, "best_rate", lambda *asked: times * found(*asked)),
        mock.patch.object(auto, "room_for_longer", return_value=False),
    ):
        yield


def measure(
    study: Study, what: str, value: Any, contest: Contest, scale: float, seed: int, data_dir: Path, folder: Path
) -> dict[str, Any]:
    """One run; one that is there already is read."""
    out = folder / f"{what}-{value}-{contest.workload}-{contest.optimizer}-{seed}".replace(" ", "-").replace("'", "")
    with contextlib.ExitStack() as inside:
        policy = inside.enter_context(changed(what, value))
        if study.times != 1:
            inside.enter_context(_peak(1.0 if what == AS_FOUND else study.times))
        ask = Ask(scale=scale, data_dir=data_dir)
        settings = contest.settings(ask, "auto", contest.seed_rate, seed, policy=policy)
        result, run = kept_run(settings, out)
    return {
        "what": what, "value": value, "contest": contest.name, "seed": seed,
        "peak": highest_rate(run),
        "rolled_back": [decision.step for decision in run.decisions if decision.verdict == "roll back"],
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
            pairs = list(zip(runs[name, contest], runs[AS_IT_IS, contest], strict=True))
            gain = 100 * statistics.fmean(a["test_accuracy"] - b["test_accuracy"] for a, b in pairs)
            line.append(f"{gain:+.1f}, x{_times_the_loss(pairs):.2f}")
        lines.append(line)
    return markdown(["changed", *contests], lines)


def _times_the_loss(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> float:
    """Training loss over that of the run it is held against, in the geometric mean; infinite where one diverged.

    NaN where no loss is left, or the run it is held against diverged: to that nothing compares.
    """
    losses, base = ([pair[side]["final_train_loss"] for pair in pairs] for side in (0, 1))  # None: not finite
    if not all(loss and math.isfinite(loss) for loss in base) or 0 in losses:
        return math.nan
    if not all(loss is not None and math.isfinite(loss) for loss in losses):
        return math.inf
    return math.exp(statistics.fmean(math.log(a / b) for a, b in zip(losses, base, strict=True)))


def draw(rows: list[dict[str, Any]], constants: Mapping[str, Sequence[float]], path: Path) -> None:
    """A picture for each constant: the training loss as a multiple of the one at the constant as it is."""
    down = math.ceil(len(constants) / 4)
    across = math.ceil(len(constants) / down)
    figure, axes = plt.subplots(
        down, across, figsize=(3.25 * across, 3 * down), sharey=True, layout="constrained", squeeze=False
    )
    for axis in axes.flat[len(constants) :]:
        axis.set_axis_off()
    for axis, (what, values) in zip(axes.flat, constants.items(), strict=False):
        for contest in dict.fromkeys(row["contest"] for row in rows):
            here = [row for row in rows if row["contest"] == contest]
            base = [row for row in here if row["what"] == AS_IT_IS]
            points = []
            for value in values:
                own = [row for row in here if (row["what"], row["value"]) == (what, value)]
                points.append(_times_the_loss(list(zip(own or base, base, strict=True))))  # base: the value as it is
            axis.plot(values, points, marker="o", label=contest)
        axis.axvline(_as_it_is(what), color="0.8", zorder=0)
        axis.set(title=what, xscale="linear" if what == "hold" else "log", yscale="log")
        axis.set_xticks(values, labels=[f"{value:g}" for value in values])
    first = axes[0, 0]  # whose axis all share
    low, high = first.get_ylim()
    low, high = first.set_ylim(min(low, 0.5), max(high, 2.0))
    ticks = [tick for tick in (0.01, 0.03, 0.1, 0.25, 0.5, 1, 2, 4, 10, 30, 100, 1000) if low <= tick <= high]
    first.set_yticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    for axis in axes.flat:
        axis.minorticks_off()
    first.legend(fontsize="small")
    for row in axes:
        row[0].set_ylabel("training loss, as it is = 1")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _as_it_is(what: str) -> float:
    return auto.Auto().hold if what == "hold" else float(getattr(_home(what), what))


def main(
    data_dir: Annotated[Path, typer.Option(envvar="AUTOLR_DATA")],
    folder: Annotated[Path, typer.Option(help="Where runs are kept, by study; those that are there are read.")] = Path(
        "runs/ablations"
    ),
    pictures: Annotated[Path, typer.Option(help="Folder of auto_STUDY.png.")] = Path("docs/img"),
    study: Annotated[str, typer.Option(help=f"{', '.join(STUDIES)}.")] = "four",
) -> None:
    """Measure, print the table, draw, and write a record."""
    torch.set_num_threads(1)
    asked = STUDIES[study]
    wanted: list[tuple[str, Any]] = [(what, None) for what in asked.parts]
    wanted += [
        (what, value) for what, values in asked.constants.items() for value in values if value != _as_it_is(what)
    ]
    rows = []
    for (workload, optimizer), (scale, seeds) in asked.contests.items():
        contest = next(c for c in SMALL if (c.workload, c.optimizer) == (workload, optimizer))
        for (what, value), seed in itertools.product(wanted, range(seeds)):
            rows.append(measure(asked, what, value, contest, scale, seed, data_dir, folder / study))
            print(json.dumps(rows[-1]), flush=True)
    table = ablations_table(rows)
    path = new_record("ablations")
    contests = [[*key, *value] for key, value in asked.contests.items()]
    write_record(path, {"study": study, **asdict(asked), "contests": contests}, rows, table)
    draw(rows, asked.constants, pictures / f"auto_{study}.png")
    print(table, f"\nRecord: {path}")


if __name__ == "__main__":
    typer.run(main)
