"""The command line: parse, call, print."""

from __future__ import annotations

import dataclasses
import datetime
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from autolr_lab.runner.experiment import SURE
from autolr_lab.paper.paper import VALIDATION_EPS
from autolr_lab.cli.bench import RUNS, bench_command, reproduce_command
from autolr_lab.cli.choices import console, known
from autolr_lab.training.optimizers import OPTIMIZERS
from autolr_lab.baselines import PEERS
from autolr.policies import ExploreExploit
from autolr_lab.training.runs import Run, RunError, Settings, find_runs, read_run
from autolr_lab.baselines.schedules import SCHEDULES, schedule_options
from autolr_lab.training.training import PRECISIONS, TUNED, resolve_device, train
from autolr_lab.training.training import Progress as Point
from autolr_lab.workloads import WORKLOADS, Workload

app = typer.Typer(
    help="Tune the learning rate while training runs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _workload(value: str) -> str:
    return known("workload", WORKLOADS, value)


def _optimizer(value: str | None) -> str | None:
    return None if value is None else known("optimizer", OPTIMIZERS, value)


def _schedule(value: str) -> str:
    return known("schedule", [*TUNED, *SCHEDULES, *PEERS], value)


@app.command("train")
def train_command(
    workload: Annotated[str, typer.Argument(help=f"One of: {', '.join(WORKLOADS)}.", callback=_workload)],
    optimizer: Annotated[
        str | None,
        typer.Option(help=f"One of: {', '.join(OPTIMIZERS)}.", callback=_optimizer, show_default="the workload's"),
    ] = None,
    schedule: Annotated[
        str, typer.Option(help=f"One of: {', '.join([*TUNED, *SCHEDULES, *PEERS])}.", callback=_schedule)
    ] = "autolr",
    lr: Annotated[float | None, typer.Option(help="Seed learning rate.", show_default="the paper's")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, show_default="the paper's")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, show_default="the paper's")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the initial weights, the data order and the looks.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.", show_default="torch's own")] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(envvar="AUTOLR_DATA", help="Folder with the data files.", show_default=False),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder.", show_default="a new one in runs/")] = None,
    explore: Annotated[
        float | None, typer.Option(help="AutoLR: share of the run that explores.", show_default="Table 7")
    ] = None,
    saturation: Annotated[
        float | None, typer.Option(help="AutoLR: relative saturation threshold.", show_default="Table 7")
    ] = None,
    epsilon: Annotated[float | None, typer.Option(help="AutoLR: epsilon threshold r.", show_default="Table 7")] = None,
    spread: Annotated[
        int | None, typer.Option(min=1, help="AutoLR: steps a look is spread over; the paper: 1.", show_default="20")
    ] = None,
    overhead: Annotated[
        float | None,
        typer.Option(
            help="AutoLR: at most this share of the training's cost, for looks that go on until they are sure.",
            show_default="the paper's looks, about 0.2",
        ),
    ] = None,
    lend: Annotated[
        bool, typer.Option("--lend", help="AutoLR: look on the minibatches that training loads next.")
    ] = False,
    window: Annotated[
        int | None,
        typer.Option(min=1, help="AutoLR: steps between looks.", show_default="a 20th of the run, <= 1000"),
    ] = None,
    superbatch: Annotated[
        int | None,
        typer.Option(min=1, help="AutoLR: minibatches a look.", show_default="a look costs a 6th, <= 100"),
    ] = None,
    validation_eps: Annotated[
        bool, typer.Option("--held-out", help="AutoLR: sample four more losses a look, to judge the fits by.")
    ] = False,
    warmup: Annotated[
        float | None,
        typer.Option(min=0, help="Other schedules: steps of a linear warm-up, or its share.", show_default="none"),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(help="Other schedules: NAME=VALUE, such as explore=0.3 of knee; several times for several."),
    ] = None,
    precision: Annotated[
        str, typer.Option(help=f"Of the forward pass: {' or '.join(PRECISIONS)} (autocast).")
    ] = "float32",
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the network.")] = False,
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="The memory layout of images that GPUs are fastest with.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, which was cut off; to the bit.")
    ] = False,
) -> None:
    """Train WORKLOAD and leave everything measured in a run folder."""
    if threads is not None:  # a small model on a busy machine is fastest on one
        torch.set_num_threads(threads)
    chosen = WORKLOADS[workload]
    optimizer = optimizer or chosen.optimizer
    asked: dict[str, Any] = {"explore": explore, "saturation": saturation, "epsilon": epsilon, "spread": spread}
    if overhead is not None:
        asked |= SURE
    options = {"overhead": overhead, "lend": lend or None, "window": window, "superbatch": superbatch}
    _check_idle(schedule, {**options, **asked, "held-out": validation_eps or None})
    if overhead is not None and spread is not None:
        raise typer.BadParameter("--spread is of looks of a fixed size; those of --overhead go on until they are sure.")
    schedule_options = _schedule_options(schedule, warmup, option or [])
    known("precision", PRECISIONS, precision)
    if resume and out is None:
        raise typer.BadParameter("--resume needs the folder of the run to go on with: --out DIR.")
    settings = Settings(
        workload=workload,
        optimizer=optimizer,
        schedule=schedule,
        lr=_rate(chosen, optimizer, schedule) if lr is None else lr,
        epochs=epochs or chosen.epochs,
        batch_size=batch_size or chosen.batch_size,
        seed=seed,
        device=str(resolve_device(device)),
        data_dir=None if data_dir is None else str(data_dir),
        policy=_policy(schedule, chosen.policy, asked),
        window=window,
        superbatch=superbatch,
        validation_eps=VALIDATION_EPS if validation_eps else (),
        overhead=overhead,
        lend=lend,
        schedule_options=schedule_options,
        precision=precision,
        compiled=compiled,
        channels_last=channels_last,
    )
    out = out or _new_folder(settings)
    try:
        with _progress() as bar:
            task = bar.add_task(settings.label, total=None, lr=settings.lr, loss=float("nan"), phase="")
            result = train(settings, out, lambda point: _show(bar, task, point), resume=resume)
    except KeyboardInterrupt:
        console.print(
            f"Stopped. What it had is in {out}; see it with: autolr report {out}\n"
            f"Go on from its last checkpoint with the same command and: --resume --out {out}",
            soft_wrap=True,
        )
        raise typer.Exit(130) from None
    console.print(settings.label)
    console.print(_result_table(settings, result))
    if result["notice"]:
        console.print(result["notice"], markup=False)
    console.print(f"Run folder: {out}\nSee it with: autolr report {out}", soft_wrap=True)


@app.command("report")
def report_command(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    out: Annotated[
        Path | None, typer.Option(help="The report's folder.", show_default="report/ in the last run")
    ] = None,
) -> None:
    """Draw one or several runs: one self-contained HTML page, and its pictures as PNGs."""
    from autolr.report import write_report

    read = [read_run(path) for path in runs]
    page = write_report(read, out or runs[-1] / "report")
    console.print(_runs_table(read))
    console.print(f"Report: {page}", soft_wrap=True)


app.command("reproduce")(reproduce_command)
app.command("bench")(bench_command)


@app.command("runs")
def runs_command(root: Annotated[Path, typer.Argument(help="Folder to look in.")] = RUNS) -> None:
    """List the runs in a folder."""
    found = find_runs(root)
    if not found:
        console.print(f"No runs in {root}. Make one: autolr train digits")
        return
    console.print(_runs_table([run for path in found if (run := _readable(path)) is not None]))


def _readable(path: Path) -> Run | None:
    """The run in a folder; one that is damaged is said to be so, and does not hide the others."""
    try:
        return read_run(path)
    except RunError as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        return None


def _check_idle(schedule: str, asked: dict[str, Any]) -> None:
    """Refuse an option that the schedule has no use for."""
    holding = set(asked) - {"explore", "saturation", "epsilon"}
    useful = {"autolr": set(asked), "hold": holding, "auto": {"lend"}}.get(schedule, set())
    for name, value in asked.items():
        if value is not None and name not in useful:
            raise ValueError(
                f"--{name} is AutoLR's; the schedule {schedule!r} has no use for it. Leave it out, or take "
                "--schedule autolr."
            )


def _rate(workload: Workload, optimizer: str, schedule: str) -> float:
    """The workload's for the optimizer, or what a peer's authors document."""
    seed_rate, peer = workload.rate(optimizer), PEERS.get(schedule)
    if peer is None:
        return seed_rate
    peer.check(optimizer, {})
    return peer.rate(optimizer, seed_rate)


def _schedule_options(schedule: str, warmup: float | None, options: list[str]) -> dict[str, Any]:
    """The options of a schedule that is not AutoLR's, each read as its default is."""
    if schedule in TUNED:
        if warmup is not None or options:
            raise typer.BadParameter(f"--warmup and --option are other schedules'; {schedule} has no use for them.")
        return {}
    if warmup is not None and warmup >= 1 and warmup != int(warmup):
        raise typer.BadParameter(
            f"--warmup must be a whole number of steps, or a share of the run below 1; got {warmup}."
        )
    if warmup is not None and schedule not in SCHEDULES:
        raise typer.BadParameter(f"--warmup is the schedules'; {schedule} has no use for it, or brings its own.")
    read: dict[str, Any] = {} if warmup is None else {"warmup": warmup if warmup < 1 else int(warmup)}
    there = schedule_options(schedule) if schedule in SCHEDULES else PEERS[schedule].defaults
    for option in options:
        name, sign, value = option.partition("=")
        if not sign or name not in there:
            allowed = ", ".join(f"{k}={v}" for k, v in there.items()) or "none"
            raise typer.BadParameter(
                f"--option must be NAME=VALUE with an option of {schedule}; got {option!r}. "
                f"It has (with defaults): {allowed}."
            )
        try:
            read[name] = _like(there[name], value)
        except ValueError:
            raise typer.BadParameter(f"--option {name} must look like {there[name]}; got {value!r}.") from None
    return read


def _like(default: Any, value: str) -> Any:
    if isinstance(default, tuple):
        return tuple(float(part) for part in value.strip("()").split(",") if part)
    return int(value) if isinstance(default, int) else float(value)


def _policy(schedule: str, preset: ExploreExploit, asked: dict[str, Any]) -> dict[str, Any]:
    """The settings of AutoLR's policy: the workload's own, but for what the command line says."""
    said = {name: value for name, value in asked.items() if value is not None}
    return dataclasses.asdict(dataclasses.replace(preset, **said)) if schedule == "autolr" else said


def _new_folder(settings: Settings) -> Path:
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    name = f"{now}-{settings.workload}-{settings.optimizer}-{settings.schedule}-seed{settings.seed}"
    return next(path for n in range(1000) if not (path := RUNS / (name + (f"-{n}" if n else ""))).exists())


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("lr {task.fields[lr]:.3g}  loss {task.fields[loss]:.3g}  {task.fields[phase]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        refresh_per_second=4,
    )


def _show(bar: Progress, task: Any, point: Point) -> None:
    bar.update(task, completed=point.step, total=point.total_steps, lr=point.lr, loss=point.loss, phase=point.phase)


def _result_table(settings: Settings, result: dict[str, Any]) -> Table:
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("epochs", str(settings.epochs))
    table.add_row("seed learning rate", f"{settings.lr:g}")
    table.add_row("train loss, last epoch", _number(result["train_loss"]))
    for name, value in result.items():
        if name.startswith(("test_", "valid_", "best_")):
            table.add_row(name.replace("_", " "), _percent(value) if "accuracy" in name else _number(value))
    table.add_row("training, seconds", f"{result.get('own_seconds', result['training_seconds']):.1f}")
    if result["cost"] is not None:
        table.add_row("looks", str(result["looks"]))
        table.add_row("changes of the rate", str(result["changes"]))
        table.add_row("rollbacks", str(result["rollbacks"]))
        table.add_row("AutoLR's cost, forward equivalents", str(result["cost_forward_equivalents"]))
        table.add_row("  of training's own", _percent(result["cost_share"]))
        seconds, own = result["cost_seconds"], result["own_seconds"]
        table.add_row("AutoLR's cost, seconds", f"{seconds:.1f}")
        table.add_row("  of training's own", _percent(seconds / own))
    return table


def _runs_table(runs: list[Run]) -> Table:
    table = Table()
    table.add_column("run", overflow="fold")
    table.add_column("what", overflow="fold")
    for name in ("lr", "seed", "epochs", "train loss", "test accuracy", "cost"):
        table.add_column(name, justify="right")
    for run in runs:
        s, last = run.settings, run.epochs[-1] if run.epochs else {}
        done = f"{s.epochs}" if run.result else f"{last.get('epoch', 0)} of {s.epochs}, cut off"
        share = (run.result or {}).get("cost_share")
        table.add_row(
            str(run.path), s.label, f"{s.lr:g}", str(s.seed), done,
            _number(last.get("train_loss")), _percent(last.get("test_accuracy")),
            _percent(share) if share is not None else "-",
        )  # fmt: skip
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


def main() -> None:
    """Run the command line; a user's mistake ends in a sentence, not in a traceback."""
    try:
        app()
    except ValueError as error:  # MissingDataError, RunError, and settings that AutoLR refuses
        Console(stderr=True).print(f"Error: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
