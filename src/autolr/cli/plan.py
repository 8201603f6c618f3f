"""``autolr plan``: the arithmetic of `autolr.numerics.scale`, as a table or as JSON."""

from __future__ import annotations

import dataclasses
import json

from autolr.numerics.scale import Part, Training, advice, plan_parts, short_runs


def planned(training: Training) -> dict[str, object]:
    """All of it as plain values."""
    parts = plan_parts(training)
    return {
        "training": {
            **dataclasses.asdict(training), "steps": training.steps, "step_seconds": training.step_seconds,
            "held_bytes": training.held, "step_traffic": training.step_traffic,
            "forward_traffic": training.forward_traffic,
        },
        "short_runs": list(short_runs(training)),
        "parts": [dataclasses.asdict(part) for part in parts],
        "advice": advice(training, parts),
    }  # fmt: skip


def print_plan(training: Training, *, as_json: bool) -> None:
    """To standard output."""
    if as_json:
        print(json.dumps(planned(training), indent=1))
        return
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    parts, console = plan_parts(training), Console()
    console.print(
        f"{amount(training.params)} parameters, {amount(training.tokens)} tokens, {training.steps:,} steps on "
        f"{training.gpus:,} GPUs ({training.strategy}): {training.step_seconds:.3g} s a step, "
        f"{amount(training.held)}B of weights, gradients and state on a GPU.",
        highlight=False,
    )
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 0, 0, 1))  # all of it within 80 columns
    for name in ("", "of the\nrun", "\nFLOP", "GPU\nhours", "on a\nGPU", "on a\nhost", "re-\nceived", "\nwaits"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for part in parts:
        table.add_row(*_cells(part))
    console.print(table)
    console.print(f"Lengths of the search's short runs: {', '.join(map(str, short_runs(training)))} steps.")
    for text in advice(training, parts):
        console.print(f"- {text}", highlight=False)


def _cells(part: Part) -> tuple[str, ...]:
    return (
        part.name, f"{part.share:.2%}", amount(part.flops), amount(part.gpu_hours), f"{amount(part.device_bytes)}B",
        f"{amount(part.host_bytes)}B", f"{amount(part.traffic)}B", f"{part.gatherings:,}",
    )  # fmt: skip


def amount(value: float) -> str:
    """With a unit's prefix.

    Example:
        >>> amount(7e9), amount(0), amount(1.5e22)
        ('7 G', '0 ', '15 Z')
    """
    for power, prefix in ((24, "Y"), (21, "Z"), (18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 10.0**power:
            return f"{value / 10.0**power:.3g} {prefix}"
    return f"{value:.3g} "
