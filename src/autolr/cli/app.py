"""The commands: parse, call, print."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from autolr.cli.watch import Watched

T = TypeVar("T")

MISTAKE = 2  # exit code of a user's mistake; click's own
PAGES = {".html", ".htm"}  # how the name of a page ends; another one is a folder

app = typer.Typer(
    help="Look at trainings whose learning rate AutoLR tuned.", no_args_is_help=True, pretty_exceptions_enable=False,
)  # fmt: skip


def _print_version(wanted: bool) -> None:
    if wanted:
        from autolr import __version__

        typer.echo(f"autolr {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Look at trainings whose learning rate AutoLR tuned."""


@app.command()
def report(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH", help="Decision logs, or folders with some and points of curves.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR",
            help="The page, NAME.html, or its folder.",
            show_default="report/ in or beside the last PATH",
        ),
    ] = None,
) -> None:
    """Show trainings on one self-contained HTML page: learning rate, losses, search, probes, decisions, costs.

    A decision log is what AutoLR(..., trace=FILE) writes. In a folder, another file of JSON lines may hold points of
    curves: {"step": 100, "lr": 0.1, "loss": 1.9, "test_loss": 2.1}. What cannot be read is told and left out.
    """
    try:
        from autolr.report.page import write_page
        from autolr.report.reading import ReportError, read_what_can_be
        from autolr.report.summary import headline
        from autolr.report.words import printable
    except ModuleNotFoundError as error:
        _needs(error)
    trainings, troubles = read_what_can_be(paths)
    for trouble in troubles:
        typer.secho(f"Error: {printable(trouble)}", fg="red", err=True)
    if not trainings:
        raise typer.Exit(MISTAKE)
    target = out or (paths[-1] if paths[-1].is_dir() else paths[-1].parent) / "report"
    try:
        page = write_page(trainings, target if target.suffix in PAGES else target / "index.html")
    except ReportError as error:
        _refuse(str(error))
    for training in trainings:
        typer.echo(f"{training.name}: {headline(training)}")
    typer.echo(f"Report: {printable(str(page))}")


@app.command()
def plan(
    params: Annotated[float, typer.Option(help="Parameters of the model, 7e9 for instance.")],
    tokens: Annotated[float, typer.Option(help="Tokens (examples) of the whole run.")],
    batch: Annotated[float, typer.Option(help="Tokens (examples) of one optimizer step, over all GPUs.")],
    gpus: Annotated[int, typer.Option(help="Ranks.")] = 1,
    strategy: Annotated[str, typer.Option(help="ddp, fsdp, or hsdp: sharded in a node, copied over nodes.")] = "ddp",
    state_bytes: Annotated[int, typer.Option(help="Optimizer state of a parameter: 8 for Adam, 4 for momentum.")] = 8,
    gpu_memory: Annotated[float, typer.Option(help="GB of a GPU.")] = 80.0,
    teraflops: Annotated[float, typer.Option(help="TFLOP/s that a GPU can do, in the precision of training.")] = 990.0,
    utilisation: Annotated[float, typer.Option(help="Share of that which training attains.")] = 0.4,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell what search, guard and looks cost a training: FLOPs, memory, traffic, share of the run.

    Nothing is run: it is arithmetic on counts. docs/scale.md has the formulas and what was measured beside them.
    """
    from autolr.cli.plan import print_plan
    from autolr.numerics.scale import Training

    try:
        training = Training(
            params, tokens, batch, gpus, strategy,  # type: ignore[arg-type]  # it is checked there
            state_bytes=state_bytes, gpu_memory=1e9 * gpu_memory, flops=1e12 * teraflops, utilisation=utilisation,
        )  # fmt: skip
    except ValueError as error:
        typer.secho(f"Error: {error}", fg="red", err=True)
        raise typer.Exit(MISTAKE) from None
    print_plan(training, as_json=as_json)


LOG = typer.Argument(metavar="LOG", help="A decision log: what AutoLR(..., trace=LOG) writes.")


@app.command()
def explain(
    log: Annotated[Path, LOG],
    step: Annotated[int | None, typer.Option(help="Explain the rate of this step, and what it goes back to.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the sentences as JSON.")] = False,
) -> None:
    """Tell in words what was decided in a run, and why."""
    from autolr.cli.explain import explained, print_explained

    print_explained(_read(log, lambda: explained(log, step)), as_json=as_json)


@app.command()
def replay(
    log: Annotated[Path, LOG],
    total_steps: Annotated[
        int | None, typer.Option(min=1, help="Stretch the rates to a run of so many steps.", show_default="the log's")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all of them here, as a CSV file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rate of every step as JSON.")] = False,
) -> None:
    """Tell the rate of every step of a run, for another one: autolr.Replay is the scheduler that follows it."""
    from autolr.cli.replay import print_rates, rates_for, write_rates

    rates = _read(log, lambda: rates_for(log, total_steps))
    print_rates(rates, log, total_steps, as_json=as_json)
    if out is not None:
        try:
            write_rates(rates, out)
        except OSError as error:
            _refuse(f"{out} cannot be written: {error.strerror}.")


@app.command()
def watch(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Decision logs, or folders that hold some.")],
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2.0,
    serve: Annotated[bool, typer.Option("--serve", help="Show the report's page instead, as it grows.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page, on this machine; 0 takes a free one.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print where the runs are now, as JSON, and end.")] = False,
) -> None:
    """Watch runs as they go: curves, phase, last decisions, time left. It ends when none is running any more.

    The exit code is 0 where all runs came to their end, 1 where one stopped before or a log cannot be read.
    """
    from autolr.cli.watch import Watched, print_state
    from autolr.cli.watch import watch as watch_in_terminal

    try:
        watched = Watched(paths)
    except ValueError as error:
        _refuse(str(error))
    if as_json:
        print_state(watched)
        for log, why in watched.troubles.items():
            typer.echo(f"{log}: {why}", err=True)
        if watched.troubles:
            raise typer.Exit(1)
    elif serve:
        _serve(watched, port)
    else:
        from rich.console import Console

        if not watch_in_terminal(watched, Console(), every):
            raise typer.Exit(1)


def _serve(watched: Watched, port: int) -> None:
    try:
        from autolr.cli.serve import server
    except ModuleNotFoundError as error:
        _needs(error)
    try:
        listening = server(watched, port)
    except OSError as error:
        _refuse(f"Port {port} cannot be listened on: {error.strerror}. Name another, or none.")
    with listening, contextlib.suppress(KeyboardInterrupt):
        typer.echo(f"http://{listening.server_address[0]!s}:{listening.server_address[1]} until Ctrl-C")
        listening.serve_forever()


def _read(log: Path, read: Callable[[], T]) -> T:
    """What was read, or the command's end with a sentence."""
    try:
        return read()
    except OSError as error:
        _refuse(f"{log} cannot be read: {error.strerror}. Name a decision log: AutoLR(..., trace=FILE) writes one.")
    except ValueError as error:
        _refuse(str(error))


def _refuse(text: str) -> NoReturn:
    from autolr.report.words import printable

    typer.secho(f"Error: {printable(text)}", fg="red", err=True)
    raise typer.Exit(MISTAKE)


def _needs(error: ModuleNotFoundError) -> NoReturn:
    """Say what to install, where that is what is missing."""
    if (missing := (error.name or "").partition(".")[0]) not in {"jinja2", "vl_convert"}:
        raise error
    typer.secho(f"The report needs {missing}: pip install 'torch-autolr[report]'", fg="red", err=True)
    raise typer.Exit(1)
