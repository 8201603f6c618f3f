"""The commands that carry out many runs: the paper's tables and figures, and the benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from autolr_lab.benchmark.contest import BUDGETS
from autolr_lab.runner.experiment import Ask, Experiment
from autolr_lab.paper.paper import EXPERIMENTS
from autolr_lab.cli.choices import console, known, parts
from autolr_lab.training.optimizers import OPTIMIZERS
from autolr_lab.training.training import PRECISIONS, resolve_device

RUNS = Path("runs")
RECORDS = Path("benchmarks/records")

# Options of both.
Scale = Annotated[float, typer.Option(help="Share of the epochs in full.")]
Methods = Annotated[str, typer.Option(help="Names of the methods wanted, separated by commas.", show_default="all")]
Optimizers = Annotated[str, typer.Option(help="Optimizers wanted, separated by commas.", show_default="all")]
DataDir = Annotated[
    Path | None, typer.Option(envvar="AUTOLR_DATA", help="Folder with the data files.", show_default=False)
]
Device = Annotated[str, typer.Option(help="cpu, cuda or auto.")]
Precision = Annotated[str, typer.Option(help=f"Of the forward pass: {' or '.join(PRECISIONS)}.")]
Compiled = Annotated[bool, typer.Option("--compile", help="Compile the networks.")]
Jobs = Annotated[int, typer.Option(min=1, help="Runs at a time on this machine, one thread each.")]
EngineName = Annotated[str, typer.Option(help="local, or ray: over a cluster.")]
Runs = Annotated[Path, typer.Option(help="Folder that the runs are kept in.")]
Records = Annotated[Path, typer.Option(help="Folder of records: their rows count as runs.")]
Out = Annotated[Path, typer.Option(help="Folder for tables and pictures.")]
Record = Annotated[bool, typer.Option("--record", help="Add a record to --records.")]
Run = Annotated[bool, typer.Option(help="Run what is missing; without it, show what is there.")]
OnlyPlan = Annotated[bool, typer.Option("--plan", help="Only say what would be run.")]


def reproduce_command(
    names: Annotated[list[str], typer.Argument(help=f"Any of: {', '.join(EXPERIMENTS)}; or all.")],
    scale: Scale = 1.0,
    seeds: Annotated[int | None, typer.Option(min=1, help="Runs of each kind.", show_default="the paper's")] = None,
    small: Annotated[bool, typer.Option("--small", help="The workload's small setting, for two CPU cores.")] = False,
    methods: Methods = "",
    optimizers: Optimizers = "",
    data_dir: DataDir = None,
    device: Device = "auto",
    precision: Precision = "float32",
    compiled: Compiled = False,
    jobs: Jobs = 1,
    engine: EngineName = "local",
    runs: Runs = RUNS / "reproduce",
    records: Records = RECORDS,
    out: Out = Path("reproduced"),
    record: Record = False,
    run: Run = True,
    plan: OnlyPlan = False,
) -> None:
    """Make tables and figures of the paper: run what is missing, go on with what was cut off, reuse the rest."""
    chosen = list(EXPERIMENTS) if "all" in names else [known("table or figure", EXPERIMENTS, name) for name in names]
    experiments = [EXPERIMENTS[name] for name in chosen]
    ask = _ask(experiments, scale, seeds, methods, optimizers, data_dir, device, precision, compiled, small=small)
    _carry_out(experiments, ask, jobs, engine, runs, records, out, record=record, run=run, plan=plan)


def bench_command(
    workloads: Annotated[
        str, typer.Option(help="Workloads wanted, separated by commas.", show_default="all of the budget")
    ] = "",
    budget: Annotated[
        str, typer.Option(help="small: minutes a run on a core; full: minutes a run on a GPU.")
    ] = "small",
    scale: Scale = 1.0,
    seeds: Annotated[int | None, typer.Option(min=1, help="Runs of each method.", show_default="3")] = None,
    methods: Methods = "",
    optimizers: Optimizers = "",
    data_dir: DataDir = None,
    device: Device = "auto",
    precision: Precision = "float32",
    compiled: Compiled = False,
    jobs: Jobs = 1,
    engine: EngineName = "local",
    runs: Runs = RUNS / "bench",
    records: Records = RECORDS,
    out: Out = Path("reproduced"),
    record: Record = False,
    run: Run = True,
    plan: OnlyPlan = False,
) -> None:
    """Monitor every method that does without tuning against the best of a tuned sweep, on the same work and budget."""
    from autolr_lab.benchmark.benchmark import BENCHMARK

    known("budget", BUDGETS, budget)
    there = dict.fromkeys(contest.workload for contest in BUDGETS[budget])
    wanted = tuple(known(f"workload in the {budget} budget", there, part) for part in parts(workloads))
    ask = _ask(
        [BENCHMARK], scale, seeds, methods, optimizers, data_dir, device, precision, compiled,
        workloads=wanted, budget=budget,
    )  # fmt: skip
    _carry_out([BENCHMARK], ask, jobs, engine, runs, records, out, record=record, run=run, plan=plan)


def _ask(
    experiments: Sequence[Experiment], scale: float, seeds: int | None, methods: str, optimizers: str,
    data_dir: Path | None, device: str, precision: str, compiled: bool, *,
    small: bool = False, workloads: tuple[str, ...] = (), budget: str = "small",
) -> Ask:  # fmt: skip
    if not 0 < scale <= 1:
        raise typer.BadParameter(
            f"--scale must be a share of the epochs in full, above 0 and at most 1; got {scale:g}."
        )
    known("precision", PRECISIONS, precision)
    labels = {label.lower(): label for experiment in experiments for label in experiment.labels}
    ask = Ask(
        scale, seeds, small, data_dir, str(resolve_device(device)),
        tuple(known("method", labels, part) for part in _labels(labels, methods.lower())),
        tuple(known("optimizer", OPTIMIZERS, part) for part in parts(optimizers)), precision, compiled,
        workloads, budget,
    )  # fmt: skip
    here = {name for experiment in experiments for name in experiment.optimizers_of}
    if ask.optimizers and not here & set(ask.optimizers):
        raise typer.BadParameter(f"None of these has {optimizers}; they have: {', '.join(sorted(here)) or 'none'}.")
    return ask


def _labels(labels: Iterable[str], listed: str) -> list[str]:
    """The parts of a list in which a label may have a comma of its own."""
    found, rest = [], parts(listed)
    while rest:
        longest = next((n for n in range(len(rest), 1, -1) if ", ".join(rest[:n]) in labels), 1)
        found.append(", ".join(rest[:longest]))
        rest = rest[longest:]
    return found


def _carry_out(
    experiments: Sequence[Experiment], ask: Ask, jobs: int, engine: str, runs: Path, records: Path, out: Path, *,
    record: bool, run: bool, plan: bool,
) -> None:  # fmt: skip
    from autolr.bench import reproduce as bench
    from autolr_lab.runner.engine import ENGINES
    from autolr_lab.runner.store import Store

    known("engine", ENGINES, engine)
    if records != RECORDS and not records.is_dir() and not record:
        raise typer.BadParameter(f"--records: there is no folder {records}. Name the one that holds the records.")
    store = Store(runs, records if records.is_dir() else None)
    if plan:
        planned = bench.plan(experiments, ask, store)
        for settings in planned.missing:
            told = f"{settings.label} {settings.lr:g}, {settings.epochs} epochs, seed {settings.seed}"
            console.print(told, markup=False)
        console.print(f"{len(planned.wanted)} runs in all, {len(planned.missing)} of them to be run.")
        return
    shown = bench.reproduce(
        experiments, ask, store, out, engine="ray" if engine == "ray" else "local", jobs=jobs, run=run,
        record=records if record else None, report=lambda text: console.print(text, markup=False, soft_wrap=True),
    )  # fmt: skip
    headings = {experiment.name: experiment.heading(ask) for experiment in experiments}
    for name, result in shown.items():
        console.print(f"{headings[name]}\n\n{result.markdown}", markup=False, highlight=False, soft_wrap=True)
        console.print(f"Written to {out / name}\n", soft_wrap=True)
