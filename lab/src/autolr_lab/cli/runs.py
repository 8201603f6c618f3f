"""``autolr-lab runs``: what is in a folder of runs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from autolr_lab.training.runs import Run

RUNS = Path("runs")


def runs_command(
    root: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder to look in.")] = RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False,
) -> None:
    """List the runs in a folder."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from autolr.report.words import printable
    from autolr_lab.training.runs import find_runs, read_run

    table = Table("run", "what", *("lr", "seed", "epochs", "train loss", "test accuracy", "cost"))
    rows = []
    for path in find_runs(root):
        with _told_of_damage(path):
            run = read_run(path)
            table.add_row(*(Text(printable(cell)) for cell in _line(run)))  # no path is markup
            rows.append(_row(run))
    if as_json:
        typer.echo(json.dumps(rows))
        return
    if not table.row_count:
        typer.echo(f"No runs in {printable(str(root))}. Make one: autolr-lab train digits")
        return
    for column in table.columns[:2]:
        column.overflow = "fold"
    Console().print(table)


@contextlib.contextmanager
def _told_of_damage(path: Path) -> Iterator[None]:
    """A run that cannot be read, or holds something else than numbers, does not hide the others."""
    from autolr.report.words import printable
    from autolr_lab.training.access import RunError

    try:
        yield
    except RunError as error:
        typer.secho(printable(str(error)), fg="red", err=True)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        text = f"{path} cannot be shown: {error!s:.200}. Its files were changed or damaged."
        typer.secho(printable(text), fg="red", err=True)


def _row(run: Run) -> dict[str, Any]:
    s, last = run.settings, run.epochs[-1] if run.epochs else {}
    return {
        "run": str(run.path), "what": s.label, "lr": s.lr, "seed": s.seed, "epochs": s.epochs,
        "finished": bool(run.result), **{name: value for name, value in last.items() if name != "lr"},
        "cost_share": (run.result or {}).get("cost_share"),
    }  # fmt: skip


def _line(run: Run) -> list[str]:
    s, last = run.settings, run.epochs[-1] if run.epochs else {}
    done = f"{s.epochs}" if run.result else f"{last.get('epoch', 0)} of {s.epochs}, cut off"
    cost = percent((run.result or {}).get("cost_share"))
    figures = [number(last.get("train_loss")), percent(last.get("test_accuracy")), cost]
    return [str(run.path), s.label, f"{s.lr:g}", str(s.seed), done, *figures]


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"
