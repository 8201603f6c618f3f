"""A training as the report draws it, from the log of a run."""

from __future__ import annotations

from autolr.report.training_record import Training
from autolr.runtime.curve import Curve
from autolr.runtime.run_log import LoggedRun


def training_of(name: str, run: LoggedRun) -> Training:
    """Its rate at every step (evenly thinned), the losses that closures told, and what `AutoLR.log` was given.

    A log without a beginning, which earlier versions wrote, tells no status.
    """
    curve, points = Curve(), []
    for step, lr in run.rates():
        curve.add(step, lr)
    by_step: dict[int, dict[str, float | None]] = {step: {"step": step, "lr": lr} for step, lr in curve.drawn()}
    points = [{"step": beat.step, "loss": beat.loss} for beat in run.beats if beat.loss is not None]
    for point in (*points, *run.points):
        by_step.setdefault(int(point["step"] or 0), {"step": point["step"]}).update(point)
    began = run.began if run.began is not None else run.beats[0].time if run.beats else 0.0
    return Training(
        name, run.records, [by_step[step] for step in sorted(by_step)], run.total_steps,
        status=run.status() if run.about else None,
        times=[(0, 0.0), *((beat.step, max(0.0, beat.time - began)) for beat in run.beats)],
    )  # fmt: skip
