"""A run folder as the library's report draws it. ``autolr report FOLDER`` reads the same files by itself."""

from __future__ import annotations

from autolr.report.training_record import Training
from autolr_lab.training.runs import Run


def training_of(run: Run, name: str | None = None) -> Training:
    """Curves from the steps and the epochs, the planned steps from the settings, the numbers of the result.

    Args:
        run: complete or cut off.
        name: in the legend; None for its settings and seed. Runs of one name share a colour.
    """
    points = sorted([*run.steps, *run.epochs], key=lambda row: row["step"])
    numbers = {
        key: value for key, value in (run.result or {}).items() if value is None or isinstance(value, int | float)
    }
    return Training(
        name or f"{run.settings.label}, seed {run.settings.seed}",
        run.decisions,
        points,
        _planned_steps(run),
        numbers if run.result is not None else None,
    )


def _planned_steps(run: Run) -> int | None:
    """None for a run that was cut off before its first evaluation."""
    if run.result is not None and "steps" in run.result:
        return int(run.result["steps"])
    if not run.epochs:
        return None
    steps_per_epoch: float = run.epochs[0]["step"] / run.epochs[0]["epoch"]
    return round(run.settings.epochs * steps_per_epoch)
