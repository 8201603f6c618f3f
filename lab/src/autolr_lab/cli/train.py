"""``autolr-lab train``: one run of a workload."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import datetime
import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from autolr_lab.cli import names
from autolr_lab.cli.choices import Device, Precision, checked, completed
from autolr_lab.cli.runs import RUNS, number, percent

if TYPE_CHECKING:
    from autolr_lab.training.runs import Settings
    from autolr_lab.training.training import Progress
    from autolr_lab.workloads import Workload

_METHODS = (*names.POLICIES, *names.SCHEDULES, *names.BASELINES)

# What is trained.
WorkloadName = Annotated[
    str,
    typer.Argument(
        metavar="WORKLOAD", help=f"One of: {', '.join(names.WORKLOADS)}.",
        callback=checked("workload", names.WORKLOADS), autocompletion=completed(names.WORKLOADS),
    ),
]  # fmt: skip
OptimizerName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help=f"One of: {', '.join(names.OPTIMIZERS)}.", show_default="the workload's",
        callback=checked("optimizer", names.OPTIMIZERS), autocompletion=completed(names.OPTIMIZERS),
    ),
]  # fmt: skip
Epochs = Annotated[int | None, typer.Option(min=1, metavar="N", show_default="the paper's")]
BatchSize = Annotated[int | None, typer.Option(min=1, metavar="N", show_default="the paper's")]
Seed = Annotated[int, typer.Option(min=0, metavar="N", help="Of the initial weights, the data order and the probes.")]

# What sets the learning rate.
_RATE: dict[str, Any] = {"rich_help_panel": "Learning rate"}
ScheduleName = Annotated[
    str,
    typer.Option(
        metavar="NAME", callback=checked("schedule", _METHODS), autocompletion=completed(_METHODS), **_RATE,
        help=f"AutoLR: {', '.join(names.POLICIES)}. Schedules: {', '.join(names.SCHEDULES)}. What others made: "
        f"{', '.join(names.BASELINES)}.",
    ),
]  # fmt: skip
Rate = Annotated[
    float | None,
    typer.Option(metavar="RATE", help="Seed or peak rate.", show_default="the method's", **_RATE),
]
Option = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE", help="An option of the schedule, such as explore=0.3 or warmup=0.05; may be repeated.",
        **_RATE,
    ),
]  # fmt: skip
Overhead = Annotated[
    float | None,
    typer.Option(metavar="SHARE", help="AutoLR: at most this share of the training's cost for probes.", **_RATE),
]
ValidationEps = Annotated[
    bool, typer.Option("--validation-eps", help="AutoLR: four more losses a probe, to judge the fits by.", **_RATE)
]

# Where it runs.
_MACHINE: dict[str, Any] = {"rich_help_panel": "Machine"}
DeviceName = Annotated[Device, typer.Option(**_MACHINE)]
Threads = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="CPU threads.", show_default="torch's own", **_MACHINE)
]
PrecisionName = Annotated[Precision, typer.Option(help="Of the forward pass, by autocast.", **_MACHINE)]
Workers = Annotated[
    int,
    typer.Option(
        min=0, metavar="N", help="Processes that load minibatches.", show_default="the workload's", **_MACHINE
    ),
]
Pinned = Annotated[bool, typer.Option("--pinned", help="Load minibatches into pinned memory.", **_MACHINE)]
DataDir = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", envvar="AUTOLR_DATA", help="With the data files.", show_default="data", **_MACHINE
    ),
]  # fmt: skip

# Where it is written.
_OUTPUT: dict[str, Any] = {"rich_help_panel": "Output"}
Out = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="The run folder.", show_default="a new one in runs/", **_OUTPUT)
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the run in --out, which was cut off; to the bit.", **_OUTPUT)
]


def train_command(
    workload: WorkloadName,
    optimizer: OptimizerName = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    seed: Seed = 0,
    schedule: ScheduleName = "find-peak",
    lr: Rate = None,
    option: Option = None,
    overhead: Overhead = None,
    validation_eps: ValidationEps = False,
    device: DeviceName = Device.auto,
    threads: Threads = None,
    precision: PrecisionName = Precision.float32,
    workers: Workers = 0,
    pinned: Pinned = False,
    data_dir: DataDir = None,
    out: Out = None,
    resume: Resume = False,
) -> None:
    """Train WORKLOAD and leave everything measured in a run folder.

    Under torchrun its processes train one run together, each on its part of a minibatch.
    """
    import torch

    from autolr_lab.training.prepared import resolve_device
    from autolr_lab.training.ranks import asked_for
    from autolr_lab.training.runs import Settings
    from autolr_lab.workloads import WORKLOADS

    if threads is not None:  # a small model on a busy machine is fastest on one
        torch.set_num_threads(threads)
    chosen = WORKLOADS[workload]
    optimizer = optimizer or chosen.optimizer
    settings = Settings(
        workload, optimizer, schedule,
        lr=_usual_rate(chosen, optimizer, schedule) if lr is None else lr,
        epochs=epochs or chosen.epochs, batch_size=batch_size or chosen.batch_size, seed=seed,
        device=str(resolve_device(device.value)), data_dir=None if data_dir is None else str(data_dir),
        precision=precision.value, ranks=asked_for(), workers=workers, pinned=pinned,
        **_options(chosen, schedule, option or [], overhead, validation_eps=validation_eps),
    )  # fmt: skip
    if out is None and settings.ranks > 1:
        raise typer.BadParameter("Processes that train one run share its folder: name it, by --out FOLDER.")
    _run(settings, out or _new_folder(settings), resume=resume)


def _usual_rate(workload: Workload, optimizer: str, schedule: str) -> float:
    """The workload's for the optimizer, or what a baseline's authors document."""
    from autolr_lab.baselines import BASELINES

    rate = workload.rate(optimizer)
    if schedule in BASELINES:
        BASELINES[schedule].check(optimizer, {})
        rate = BASELINES[schedule].rate(optimizer, rate)
    return rate


def _options(
    workload: Workload, schedule: str, options: Sequence[str], overhead: float | None, *, validation_eps: bool
) -> dict[str, Any]:
    """``policy`` or ``schedule_options`` of the settings; the schedule itself refuses what it has not."""
    asked: dict[str, Any] = {}
    for option in options:
        name, sign, value = option.partition("=")
        if not sign:
            raise typer.BadParameter(f"--option must be NAME=VALUE; got {option!r}.")
        try:
            asked[name.replace("-", "_")] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            raise typer.BadParameter(f"--option {name} must be a number or several, a,b; got {value!r}.") from None
    if overhead is not None:
        asked["overhead"] = overhead
    if validation_eps:
        from autolr_lab.paper.paper import VALIDATION_EPS

        asked["validation_eps"] = VALIDATION_EPS
    if schedule not in names.POLICIES:
        return {"schedule_options": asked}
    preset = dataclasses.asdict(workload.policy) if schedule in {"explore-exploit", "literal"} else {}
    return {"policy": preset | asked}


def _new_folder(settings: Settings) -> Path:
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    name = f"{now}-{settings.workload}-{settings.optimizer}-{settings.schedule}-seed{settings.seed}"
    return next(path for n in range(1000) if not (path := RUNS / (name + (f"-{n}" if n else ""))).exists())


DIVERGED = 3  # exit code


def _run(settings: Settings, out: Path, *, resume: bool) -> None:
    """Train with a progress bar, and show what came of it."""
    from autolr.report.words import printable
    from autolr_lab.training.ranks import tells
    from autolr_lab.training.training import train

    if not tells():
        train(settings, out, resume=resume)
        return
    shown = printable(str(out))
    try:
        with _terminated_as_interrupted(), _progress_bar(settings) as show:
            result = train(settings, out, show, resume=resume)
    except KeyboardInterrupt:
        typer.echo(
            f"Stopped. What it had is in {shown}; see it with: autolr report {shown}\n"
            f"Go on from its last checkpoint with the same command and: --resume --out {shown}"
        )
        raise typer.Exit(130) from None
    _show_result(settings, result)
    typer.echo(f"Run folder: {shown}\nSee it with: autolr report {shown}")
    if (told := diverged(result)) is not None:
        typer.secho(told, fg="red", err=True)
        raise typer.Exit(DIVERGED)


def diverged(result: Mapping[str, Any]) -> str | None:
    """What is said of a run whose training loss ends above where it began, or is no number."""
    first, last = result.get("first_loss"), result.get("train_loss")
    if last is not None and math.isfinite(last) and not (first is not None and last > first):
        return None
    began = "" if first is None else f", after {number(first)} before its first step"
    ended = "not finite" if last is None or not math.isfinite(last) else number(last)
    return f"This run diverged: its training loss of the last epoch is {ended}{began}. Take a lower --lr, or find-peak."


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM, as a cluster sends it, is told as Ctrl-C is."""
    if threading.current_thread() is not threading.main_thread():  # others may not set handlers
        yield
        return

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _progress_bar(settings: Settings) -> Iterator[Callable[[Progress], None]]:
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"), progress.BarColumn(), progress.MofNCompleteColumn(),
        progress.TextColumn("lr {task.fields[lr]:.3g}  loss {task.fields[loss]:.3g}  {task.fields[phase]}"),
        progress.TimeRemainingColumn(),
    )  # fmt: skip
    with progress.Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as bar:
        task = bar.add_task(settings.label, total=None, lr=settings.lr, loss=float("nan"), phase="")

        def show(now: Progress) -> None:
            bar.update(task, completed=now.step, total=now.total_steps, lr=now.lr, loss=now.loss, phase=now.phase)

        yield show


def _show_result(settings: Settings, result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=settings.label, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("epochs", str(settings.epochs))
    table.add_row("seed learning rate", f"{settings.lr:g}")
    table.add_row("train loss, last epoch", number(result["train_loss"]))
    for name, value in result.items():
        if name.startswith(("test_", "valid_", "best_")):
            table.add_row(name.replace("_", " "), percent(value) if "accuracy" in name else number(value))
    table.add_row("training, seconds", f"{result.get('own_seconds', result['training_seconds']):.1f}")
    if result["cost"] is not None:
        for title, name in (("probes", "probes"), ("changes of the rate", "changes"), ("rollbacks", "rollbacks")):
            table.add_row(title, str(result[name]))
        table.add_row("AutoLR's cost, forward equivalents", str(result["cost_forward_equivalents"]))
        table.add_row("  of training's own", percent(result["cost_share"]))
        table.add_row("AutoLR's cost, seconds", f"{result['cost_seconds']:.1f}")
        table.add_row("  of training's own", percent(result["cost_seconds"] / result["own_seconds"]))
    Console().print(table)
    if result["notice"]:
        typer.echo(result["notice"])
