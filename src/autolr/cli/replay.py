"""``autolr replay``: the rates of a logged run, for another program."""

from __future__ import annotations

import json
from pathlib import Path

from autolr.policies.wording import number
from autolr.runtime.replayed_rates import logged_rates, stretched
from autolr.runtime.whole_file import write_whole

SHOWN = 12  # rows of the table


def rates_for(log: Path, total_steps: int | None) -> list[float]:
    """The rate of each step, of a run of the logged length or another.

    Raises:
        OSError: the log cannot be read.
        ValueError: a step is missing.
    """
    rates = logged_rates(log)
    steps = total_steps or len(rates)
    return [stretched(rates, step, steps) for step in range(1, steps + 1)]


def write_rates(rates: list[float], out: Path) -> None:
    """As a table of two columns: step, lr."""
    lines = ["step,lr", *(f"{step},{rate!r}" for step, rate in enumerate(rates, start=1))]
    write_whole(out, "\n".join(lines) + "\n")


def print_rates(rates: list[float], log: Path, total_steps: int | None, *, as_json: bool) -> None:
    """To standard output: some of them, and the line that replays them; as JSON all of them."""
    if as_json:
        print(json.dumps(rates))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    table = Table("step", "rate")
    shown = sorted({round(1 + k * (len(rates) - 1) / (SHOWN - 1)) for k in range(SHOWN)})
    for step in shown:
        table.add_row(f"{step:,}", number(rates[step - 1]))
    console.print(table)
    length = f", total_steps={total_steps}" if total_steps else ""
    console.print(f"In any loop: scheduler = autolr.Replay(optimizer, {str(log)!r}{length})")
