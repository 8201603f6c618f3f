"""The commands: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer

MISTAKE = 2  # exit code of a user's mistake; click's own

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
        list[Path], typer.Argument(metavar="PATH", help="Decision logs, or folders with one and points of curves.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The report's folder.", show_default="report/ in or beside the last PATH"),
    ] = None,
) -> None:
    """Draw trainings on one self-contained HTML page: learning rate, losses, search, probes, decisions, costs.

    A decision log is what AutoLR(..., trace=FILE) writes. In a folder, another file of JSON lines may hold points of
    curves: {"step": 100, "lr": 0.1, "loss": 1.9, "test_loss": 2.1}.
    """
    try:
        from autolr.report import ReportError, read_trainings, write_report
        from autolr.report.summary import headline
        from autolr.report.words import printable
    except ModuleNotFoundError as error:
        _needs(error)
    try:
        trainings = read_trainings(paths)
        last = paths[-1] if paths[-1].is_dir() else paths[-1].parent
        page = write_report(trainings, out or last / "report")
    except ModuleNotFoundError as error:
        _needs(error)
    except ReportError as error:
        typer.secho(f"Error: {printable(str(error))}", fg="red", err=True)
        raise typer.Exit(MISTAKE) from None
    for training in trainings:
        typer.echo(f"{training.name}: {headline(training)}")
    typer.echo(f"Report: {printable(str(page))}")


def _needs(error: ModuleNotFoundError) -> NoReturn:
    """Say what to install, where that is what is missing."""
    if (missing := (error.name or "").partition(".")[0]) not in {"matplotlib", "jinja2"}:
        raise error
    typer.secho(f"The report needs {missing}: pip install 'torch-autolr[report]'", fg="red", err=True)
    raise typer.Exit(1)
