"""The command ``autolr-lab``. Everything heavy is imported inside the commands, so that help is quick."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from autolr_lab.cli.reproduce import bench_command, reproduce_command
from autolr_lab.cli.runs import runs_command
from autolr_lab.cli.train import train_command

app = typer.Typer(
    help="The experiments on AutoLR: train, look at runs, make the paper's tables, the benchmark and the zoo.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"autolr-lab {version('autolr-lab')} (torch-autolr {version('torch-autolr')})")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the versions and exit.")
    ] = False,
) -> None: ...


app.command("train")(train_command)
app.command("runs")(runs_command)
app.command("reproduce")(reproduce_command)
app.command("bench")(bench_command)


@app.command("zoo", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def zoo_command(
    context: typer.Context,
    command: Annotated[str, typer.Argument(metavar="list|run|status|pack", help="What to do.")],
) -> None:
    """Many small tasks with a grid of rates each; the options of its commands: autolr-lab zoo list -- --help."""
    from autolr_lab.zoo.__main__ import main as zoo

    zoo([command, *context.args])


def main() -> None:
    """Run the command line; a user's mistake ends in a sentence, not in a traceback."""
    try:
        app()
    except ValueError as error:  # MissingDataError, RunError, and settings that AutoLR refuses
        from autolr.report.words import printable

        text = "\n".join(map(printable, str(error).split("\n")))
        typer.secho(f"Error: {text}", fg="red", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
