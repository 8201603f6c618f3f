"""``autolr-lab reproduce`` and ``autolr-lab bench``: many runs, and the tables and figures that they come to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autolr_lab.cli import names
from autolr_lab.cli.choices import Budget, Device, Precision, completed, one_of, parts
from autolr_lab.cli.runs import RUNS

if TYPE_CHECKING:
    from autolr_lab.runner.experiment import Experiment

# What is run.
Names = Annotated[
    list[str],
    typer.Argument(
        metavar="NAME...", help="Tables and figures: table1 to table9, figure1 to figure19, "
        f"{', '.join(names.EXPERIMENTS[-7:])}; or all.", autocompletion=completed((*names.EXPERIMENTS, "all")),
    ),
]  # fmt: skip
Scale = Annotated[float, typer.Option(metavar="SHARE", help="Share of the full number of epochs.")]
Seeds = Annotated[int | None, typer.Option(min=1, metavar="N", help="Runs of each method.", show_default="the usual")]
Small = Annotated[bool, typer.Option("--small", help="The workload's small setting, for two CPU cores.")]
BudgetName = Annotated[Budget, typer.Option(help="small: minutes a run on a core; full: minutes a run on a GPU.")]
_ALL: dict[str, Any] = {"metavar": "NAME,NAME", "show_default": "all"}
Methods = Annotated[str, typer.Option(help="Methods wanted.", **_ALL)]
Optimizers = Annotated[str, typer.Option(help="Optimizers wanted.", **_ALL)]
Workloads = Annotated[str, typer.Option(help="Workloads wanted.", **_ALL)]

# Where it runs.
_MACHINE: dict[str, Any] = {"rich_help_panel": "Machine"}
DataDir = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", envvar="AUTOLR_DATA", help="With the data files.", show_default="data", **_MACHINE
    ),
]  # fmt: skip
DeviceName = Annotated[Device, typer.Option(**_MACHINE)]
PrecisionName = Annotated[Precision, typer.Option(help="Of the forward pass, by autocast.", **_MACHINE)]
Ranks = Annotated[int, typer.Option(min=1, metavar="N", help="Processes that train each run together.", **_MACHINE)]
Workers = Annotated[
    int, typer.Option(min=0, metavar="N", help="Processes that load.", show_default="the workload's", **_MACHINE)
]
Jobs = Annotated[int, typer.Option(min=1, metavar="N", help="Runs at a time, one thread each.", **_MACHINE)]

# What is kept and written.
_OUTPUT: dict[str, Any] = {"rich_help_panel": "Output"}
Runs = Annotated[Path, typer.Option(metavar="FOLDER", help="Run folders.", **_OUTPUT)]
ResultsFolder = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Kept results, whose runs count.", show_default="lab/results", **_OUTPUT),
]
Out = Annotated[Path, typer.Option(metavar="FOLDER", help="For tables and pictures.", **_OUTPUT)]
AddRecord = Annotated[bool, typer.Option("--record", help="Add a record to --results.", **_OUTPUT)]
Run = Annotated[bool, typer.Option(help="Run what is missing; without it, show what is there.", **_OUTPUT)]
OnlyPlan = Annotated[bool, typer.Option("--plan", help="Only say what would be run.", **_OUTPUT)]


def reproduce_command(
    chosen: Names,
    scale: Scale = 1.0,
    seeds: Seeds = None,
    small: Small = False,
    methods: Methods = "",
    optimizers: Optimizers = "",
    data_dir: DataDir = None,
    device: DeviceName = Device.auto,
    precision: PrecisionName = Precision.float32,
    ranks: Ranks = 1,
    workers: Workers = 0,
    jobs: Jobs = 1,
    runs: Runs = RUNS / "reproduce",
    results: ResultsFolder = None,
    out: Out = Path("reproduced"),
    record: AddRecord = False,
    run: Run = True,
    plan: OnlyPlan = False,
) -> None:
    """Make tables and figures of the paper: run what is missing, go on with what was cut off, reuse the rest."""
    from autolr_lab.paper.paper import EXPERIMENTS

    wanted = EXPERIMENTS if "all" in chosen else [one_of("table or figure", EXPERIMENTS, name) for name in chosen]
    asked = {
        "scale": scale, "seeds": seeds, "small": small, "data_dir": data_dir, "precision": precision.value,
        "ranks": ranks, "workers": workers,
    }  # fmt: skip
    _carry_out(
        [EXPERIMENTS[name] for name in wanted], asked, methods, optimizers, device, runs, results, out,
        jobs=jobs, record=record, run=run, plan=plan,
    )  # fmt: skip


def bench_command(
    workloads: Workloads = "",
    budget: BudgetName = Budget.small,
    scale: Scale = 1.0,
    seeds: Seeds = None,
    methods: Methods = "",
    optimizers: Optimizers = "",
    data_dir: DataDir = None,
    device: DeviceName = Device.auto,
    precision: PrecisionName = Precision.float32,
    jobs: Jobs = 1,
    runs: Runs = RUNS / "bench",
    results: ResultsFolder = None,
    out: Out = Path("reproduced"),
    record: AddRecord = False,
    run: Run = True,
    plan: OnlyPlan = False,
) -> None:
    """Compare every method that needs no tuning with the best of a tuned sweep, on the same work and budget."""
    from autolr_lab.benchmark.benchmark import BENCHMARK
    from autolr_lab.benchmark.tasks import BUDGETS

    there = dict.fromkeys(task.workload for task in BUDGETS[budget.value])
    wanted = tuple(one_of(f"workload in the {budget.value} budget", there, part) for part in parts(workloads))
    asked = {
        "scale": scale, "seeds": seeds, "data_dir": data_dir, "precision": precision.value,
        "workloads": wanted, "budget": budget.value,
    }  # fmt: skip
    _carry_out(
        [BENCHMARK], asked, methods, optimizers, device, runs, results, out,
        jobs=jobs, record=record, run=run, plan=plan,
    )  # fmt: skip


def _carry_out(
    experiments: Sequence[Experiment], asked: dict[str, Any], methods: str, optimizers: str, device: Device,
    runs: Path, results: Path | None, out: Path, *, jobs: int, record: bool, run: bool, plan: bool,
) -> None:  # fmt: skip
    from autolr_lab.runner import reproduce
    from autolr_lab.runner.experiment import RunSpec
    from autolr_lab.runner.results import RESULTS, Results
    from autolr_lab.runner.store import Store
    from autolr_lab.training.prepared import resolve_device

    if not 0 < asked["scale"] <= 1:
        raise typer.BadParameter(f"--scale must be above 0 and at most 1; got {asked['scale']:g}.")
    labels = {label.lower(): label for experiment in experiments for label in experiment.labels}
    has = sorted({name for experiment in experiments for name in experiment.optimizers_of})
    spec = RunSpec(
        **asked, device=str(resolve_device(device.value)),
        methods=tuple(labels[one_of("method", labels, part)] for part in _labels(labels, methods.lower())),
        optimizers=tuple(one_of("optimizer among these", has, part) for part in parts(optimizers)),
    )  # fmt: skip
    kept = Results(results or RESULTS)
    store = Store(runs, kept)
    if plan:
        planned = reproduce.plan(experiments, spec, store)
        for s in planned.missing:
            typer.echo(f"{s.label} {s.lr:g}, {s.epochs} epochs, seed {s.seed}")
        typer.echo(f"{len(planned.wanted)} runs in all, {len(planned.missing)} of them to be run.")
        return
    made = reproduce.reproduce(
        experiments, spec, store, out, jobs=jobs, run=run, record=kept if record else None, report=typer.echo
    )
    for experiment in experiments:
        typer.echo(f"{experiment.heading(spec)}\n\n{made[experiment.name].markdown}")
        typer.echo(f"Written to {out / experiment.name}\n")


def _labels(labels: Iterable[str], listed: str) -> list[str]:
    """The parts of a list in which a label may have a comma of its own."""
    found, rest = [], parts(listed)
    while rest:
        longest = next((n for n in range(len(rest), 1, -1) if ", ".join(rest[:n]) in labels), 1)
        found.append(", ".join(rest[:longest]))
        rest = rest[longest:]
    return found
