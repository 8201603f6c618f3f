"""A run in a folder of its own: one that is whole is read, one that was cut off goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autolr_lab.training.runs import Run, Settings, read_run
from autolr_lab.training.training import train


def kept_run(settings: Settings, out: Path) -> tuple[dict[str, Any], Run]:
    """Its result, and all that its folder holds."""
    if not (out / "result.json").is_file():
        train(settings, out, resume=out.is_dir())
    run = read_run(out)
    assert run.result is not None, "the run is whole"
    return run.result, run


def highest_rate(run: Run) -> float:
    """[lr] Of its steps after `Auto`'s trials, of which only what they found counts.

    In a run of fewer than ten steps there is no line of them, and its epochs' ends have to do.
    """
    since = max((decision.step for decision in run.decisions if decision.verdict == "go on"), default=0)
    return max(float(line["lr"]) for line in (*run.steps, *run.epochs) if line["step"] > since)
