"""The paper's Figures 1, 5 and 6: losses along a step, the parabola through them, and the true loss at its minimum.

The minimum is known when the probe is over, and the loss there is wanted on the same minibatches. So a run is carried
out twice: probes change nothing in a training, and the second run, the same to the bit, samples in each probe the
minima that the first one found too.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from autolr import DecisionRecord
from autolr.report.drawing import to_png
from autolr.report.fits import choose, draw_fits
from autolr_lab.paper.figures import OneRunEach
from autolr_lab.runner.experiment import Rendered, RunSpec
from autolr_lab.runner.markdown import markdown_table, origins
from autolr_lab.runner.results import Row
from autolr_lab.runner.store import Find, decisions_of
from autolr_lab.training.runs import Settings

SHOWN = 6  # probes of a workload
REACH = 3.0  # times the samples' range: of minima farther out a picture shows nothing but the distance
BEFORE_THE_STEP = -1.0  # nothing is sampled below it
HEAD = [
    "workload", "optimizer", "probes", "with a minimum", "validation error, median", "worst",
    "error at the minima within the samples, median (n)", "at those outside",
]  # fmt: skip
ABOUT = (
    "Validation error: RMS misfit at samples kept from the fit, over the losses' range in that probe. Error at a "
    "minimum: the parabola's loss there less the true one, absolute, over the same range.\n\n"
)


@dataclass(frozen=True)
class Fits(OneRunEach):
    """Probes of AutoLR runs, with losses kept from the fit, at the minima among other places (Figures 1, 5 and 6)."""

    outside: bool = False  # whether to show probes whose minimum is outside the samples, near and far (Figure 1)

    def runs_so_far(self, spec: RunSpec, find: Find) -> list[Settings]:
        """A run of each workload; and where it is there, the one that samples its minima."""
        firsts = self.runs(spec)
        seconds = (self.second(settings, row) for settings in firsts if (row := find(settings)) is not None)
        return [*firsts, *(settings for settings in seconds if settings is not None)]

    def second(self, settings: Settings, row: Row) -> Settings | None:
        """The run that samples the minima of the chosen probes of the first run too; None where none has one."""
        minima = [probe.eps_min for probe in self._chosen(row)]
        if not minima:
            return None
        kept = (*settings.policy["validation_eps"], *minima)
        return dataclasses.replace(settings, policy={**settings.policy, "validation_eps": kept})

    def _chosen(self, row: Row) -> list[DecisionRecord]:
        """The probes that are shown."""
        probes = [one for one in probes_of(row) if _has_minimum(one)]
        if not self.outside:
            return choose(probes, SHOWN)
        outside = [one for one in probes if 0 < _outside(one) <= REACH * (max(one.eps) - min(one.eps))]
        return sorted(choose(sorted(outside, key=_outside), SHOWN), key=lambda one: one.step)

    def render(self, spec: RunSpec, find: Find) -> Rendered:
        """A picture for each workload; how far the parabola is from the samples that it was not fitted to."""
        lines, pictures, notes = [], {}, ""
        rows: list[Row] = []
        for settings in self.runs(spec):
            first = find(settings)
            again = None if first is None else self.second(settings, first)
            row = None if again is None else find(again)
            rows += [one for one in (first, row) if one is not None]
            if first is None or (again is not None and row is None):
                notes += f"- {settings.workload}: not run yet.\n"
                continue
            if not probes_of(first):
                notes += f"- {settings.workload}: its run was too short for a probe.\n"
                continue
            if row is None:
                notes += f"- {settings.workload}: no minimum{' outside the samples' if self.outside else ''}.\n"
                row = first
            elif not _probed_alike(first, row):
                notes += f"- {settings.workload}: the second run is another one (another machine?); no true losses.\n"
                row = first
            steps = {probe.step for probe in self._chosen(first)}
            every = [_with_own_minimum(one, settings.policy["validation_eps"]) for one in probes_of(row)]
            if shown := [probe for probe in every if probe.step in steps]:
                pictures[f"{self.name}-{settings.workload}.png"] = partial(_picture_of, shown)
            lines.append(_line(settings, every, shown))
        parts = {"table": markdown_table(HEAD, lines), "notes": ABOUT + origins(rows) + notes}
        return Rendered(parts, (), pictures)


def probes_of(row: Row) -> list[DecisionRecord]:
    """The probes of a run that kept samples from the fit."""
    return [one for one in decisions_of(row) if one.validation_eps]


def _probed_alike(first: Row, second: Row) -> bool:
    """Whether the probes of two runs are the same but for what else the second one sampled."""
    pairs = zip(probes_of(first), probes_of(second), strict=False)
    return all((a.step, a.losses) == (b.step, b.losses) for a, b in pairs)


def _line(settings: Settings, every: list[DecisionRecord], shown: list[DecisionRecord]) -> list[str]:
    errors = [error for one in every if (error := _validation_error(one)) is not None]
    within, beyond = (
        [error for one in shown if (_outside(one) > 0) is there and (error := _error_at_minimum(one)) is not None]
        for there in (False, True)
    )
    return [
        settings.workload, settings.optimizer, str(len(every)), str(sum(one.eps_min is not None for one in every)),
        _percent(_median(errors)), _percent(max(errors, default=math.nan)),
        *(f"{_percent(_median(some))} ({len(some)})" for some in (within, beyond)),
    ]  # fmt: skip


def _picture_of(probes: list[DecisionRecord]) -> bytes:
    return to_png(draw_fits(probes))


def _has_minimum(probe: DecisionRecord) -> bool:
    return probe.eps_min is not None and math.isfinite(probe.eps_min) and probe.eps_min >= BEFORE_THE_STEP


def _outside(probe: DecisionRecord) -> float:
    """How far the minimum lies outside the samples of the fit; 0 within them, and where there is none."""
    at = probe.eps_min
    return 0.0 if at is None else max(0.0, min(probe.eps) - at, at - max(probe.eps))


def _with_own_minimum(probe: DecisionRecord, usual: Sequence[float]) -> DecisionRecord:
    """The probe without what was sampled at the minima of others."""
    kept = [
        (eps, loss)
        for eps, loss in zip(probe.validation_eps, probe.validation_losses, strict=True)
        if eps in usual or _is_minimum(probe, eps)
    ]
    eps, losses = zip(*kept, strict=True)
    return dataclasses.replace(probe, validation_eps=eps, validation_losses=losses)


def _is_minimum(probe: DecisionRecord, eps: float) -> bool:
    return eps == probe.eps_min


def _range_of(probe: DecisionRecord) -> float:
    """How much the loss varies over all samples but the one at the minimum."""
    kept = zip(probe.validation_eps, probe.validation_losses, strict=True)
    losses = [loss for loss in probe.losses if loss is not None]
    losses += [loss for eps, loss in kept if loss is not None and not _is_minimum(probe, eps)]
    return max(losses) - min(losses) if losses else 0.0


def _parabola(probe: DecisionRecord, eps: float) -> float:
    return (probe.k0 or 0.0) + (probe.k1 or 0.0) * eps + (probe.k2 or 0.0) * eps**2


def _validation_error(probe: DecisionRecord) -> float | None:
    """RMS misfit of the parabola at the samples kept from the fit, over how much the loss varies over all samples."""
    varies = _range_of(probe)
    kept = zip(probe.validation_eps, probe.validation_losses, strict=True)
    there = [(eps, loss) for eps, loss in kept if not _is_minimum(probe, eps)]
    losses = [*probe.losses, *(loss for _, loss in there)]
    if probe.k0 is None or not varies or not there or any(loss is None for loss in losses):
        return None
    squares = [(_parabola(probe, eps) - (loss or 0.0)) ** 2 for eps, loss in there]
    return math.sqrt(sum(squares) / len(squares)) / varies


def _error_at_minimum(probe: DecisionRecord) -> float | None:
    """Between the parabola's loss at its minimum and the true one, over how much the loss varies over the samples."""
    varies = _range_of(probe)
    true = [
        loss
        for eps, loss in zip(probe.validation_eps, probe.validation_losses, strict=True)
        if loss is not None and _is_minimum(probe, eps)
    ]
    if probe.k0 is None or probe.eps_min is None or not varies or not true:
        return None
    return abs(_parabola(probe, probe.eps_min) - true[0]) / varies


def _median(errors: list[float]) -> float:
    return statistics.median(errors) if errors else math.nan


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.2f} %"
