"""Does an adaptive probe say what a hundred minibatches at five samples say, and for what price?

Training at a held LR; every so many steps an adaptive probe (one minibatch at three samples along each step, until it
is sure or has seen 100) and, along the same steps, the paper's amount: 100 minibatches at five samples, 5 along each of
20 steps, whose answer is taken by its sign. The reference has an error too: it is sure beyond two standard errors.

Each stretch of steps between two probes is also a window, with the drop-rate check that a budget pays for. Where it
says that the LR is saturated, the policy halves the LR after four observations that do not surely ask for more: the
second table holds that, too, against the reference.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from autolr import ExploreExploit
from autolr.measure.probe import Probe
from autolr.measure.snapshot import held_parameters
from autolr.measure.step_line import StepLine
from autolr.measure.superbatch import Superbatches
from autolr.numerics.quadratic import fit_quadratic
from autolr.numerics.saturation import check_saturation, loss_drop
from autolr.numerics.significance import checkpoints
from autolr.policies.base import Trigger
from autolr.policies.sequential import CONFIDENCE, LEAST, if_sure
from autolr.policies.window_plan import CHECKED, FIVE, THREE
from autolr.policies.window_state import ProbeFit
from autolr_lab.runner.markdown import markdown_table
from autolr_lab.runner.results import Row
from autolr_lab.studies.ground import Ground, ground
from autolr_lab.studies.study import Study

MOST, STEPS, SHARE = 100, 20, 5  # minibatches of an adaptive probe; the reference's steps, and minibatches at each
EVERY, PROBES = 100, 14  # steps from the end of one probe to the next
RUNS = [*(("fashion-mnist", name) for name in ("sgd", "momentum", "adam")), ("cifar10", "momentum")]


def measure(data_dir: Path | None, probes: int = PROBES) -> Iterator[Row]:
    """Each of RUNS; CIFAR-10 is a ResNet-8 on 10,000 images."""
    for workload, name in RUNS:
        if workload == "cifar10":
            run = ground("cifar10-small", name, data_dir, lr=0.05, batch=64, images=10_000)
        else:
            run = ground(workload, name, data_dir)
        yield from ({"workload": workload, "optimizer": name, **row} for row in measure_one(run, probes))


def measure_one(run: Ground, probes: int) -> Iterator[Row]:
    """Probe along a run, both ways."""
    probe = Probe(run.model, run.loss, Superbatches(run.batches, MOST, seed=0))
    numbers = itertools.count(1)
    began, step = math.nan, 0
    for number in range(probes):
        before = probe.here(number, CHECKED).tolist()[0]
        run.train(EVERY)
        rate = loss_drop(before, probe.here(number, CHECKED).tolist()[0], EVERY).rate
        began = rate if number == 0 else began
        saturated, _ = check_saturation(rate, began=began, threshold=ExploreExploit().saturation, absolute=None)
        row, steps = _both(run, probe, numbers)
        step += EVERY + steps
        yield {"look": number, "step": step, "used up": saturated, **row}


def _both(run: Ground, probe: Probe, numbers: Iterator[int]) -> tuple[Row, int]:
    """One adaptive probe and the reference along the same steps; and how many steps they were."""
    cheap: list[Tensor] = []
    dear: list[Tensor] = []
    verdict, margin, quick, quick_forwards, steps = "look", 0.0, "look", 0, 0
    while verdict == "look" or len(dear) < STEPS:
        line = StepLine(held_parameters(run.optimizer))
        run.train(1)
        steps += 1
        if verdict == "look":
            cheap.append(probe.along(line, THREE, next(numbers), 1))
            if len(cheap) in checkpoints(MOST):
                verdict, margin = asked(cheap, run.lr)
                if quick == "look":
                    quick, _ = asked(cheap, run.lr, Trigger.SATURATED)
                    quick_forwards = len(THREE) * len(cheap)
        if len(dear) < STEPS:
            dear.append(probe.along(line, FIVE, next(numbers), SHARE).mean(dim=1, keepdim=True))
    reference = fit_quadratic([e * run.lr for e in FIVE], torch.cat(dear, dim=1).tolist())
    return {
        "verdict": verdict, "margin": margin, "forwards": len(THREE) * len(cheap), "reference": reference.margin(0),
        "reference minimum": None if reference.minimum is None else reference.minimum / run.lr,
        "reference forwards": len(FIVE) * SHARE * STEPS, "quick verdict": quick, "quick forwards": quick_forwards,
    }, steps  # fmt: skip


def asked(losses: list[Tensor], lr: float, why: Trigger = Trigger.MONITORING) -> tuple[str, float]:
    """What `ExploreExploit.adaptive` would do in exploit, and the margin that it goes by."""
    fit = fit_quadratic([e * lr for e in THREE], torch.cat(losses, dim=1).tolist())
    last = len(losses) == MOST
    seen = ProbeFit(1, 1, lr, fit.k0, fit, why=why, last=last, checks=len(checkpoints(MOST)))
    advice = if_sure(seen, fit, confidence=CONFIDENCE, least=LEAST, exploring=False)
    if advice.asked is not None:
        return "raise" if advice.asked > 0 else "lower", fit.margin(0)
    return "keep" if advice.final else "undecided" if last else "look", fit.margin(0)


def tables(rows: list[Row]) -> dict[str, str]:
    """Verdicts, and those at a saturated LR where it was seen to."""
    found = {"verdicts": verdict_table(rows)}
    return found | ({"half law": quick_table(rows)} if "used up" in rows[0] else {})


def _by_run(rows: list[Row]) -> Iterator[tuple[str, str, list[Row]]]:
    for workload, optimizer in dict.fromkeys((row["workload"], row["optimizer"]) for row in rows):
        yield workload, optimizer, [r for r in rows if (r["workload"], r["optimizer"]) == (workload, optimizer)]


def verdict_table(rows: list[Row]) -> str:
    """One line a run."""
    lines = []
    for workload, optimizer, some in _by_run(rows):
        decided = [row for row in some if row["verdict"] in {"raise", "lower"}]
        same = [row for row in decided if (row["verdict"] == "raise") == (row["reference"] > 0)]
        against = [row for row in decided if row not in same]
        surely = [row for row in against if abs(row["reference"]) > 2]
        cost = statistics.mean(row["forwards"] for row in some)
        paid = statistics.mean(row["forwards"] for row in decided) if decided else math.nan
        lines.append([
            workload, optimizer, str(len(some)), str(len(decided)), f"{len(same)} of {len(decided)}",
            f"{len(against)}, of them a sure reference: {len(surely)}",
            str(sum(row["verdict"] == "keep" for row in some)), str(sum(row["verdict"] == "undecided" for row in some)),
            str(sum(abs(row["reference"]) > 2 for row in some)),
            f"{cost:.0f} ({paid:.0f})", str(some[0]["reference forwards"]),
        ])  # fmt: skip
    head = [
        "workload", "optimizer", "probes", "raise or lower", "as the reference", "against it", "surely no change",
        "undecided", "reference sure", "forwards a probe, mean (where decided)", "reference's",
    ]  # fmt: skip
    return markdown_table(head, lines)


def quick_table(rows: list[Row]) -> str:
    """The probes at a saturated LR: the half law's verdict beside the reference's."""
    lines = []
    for workload, optimizer, every in _by_run(rows):
        some = [row for row in every if row["used up"]]
        sure = [row for row in some if abs(row["reference"]) > 2]
        same = [row for row in some if (row["quick verdict"] == "raise") == (row["reference"] > 0)]
        bottoms = [row["reference minimum"] for row in some if row["reference minimum"] is not None]
        lines.append([
            workload, optimizer, str(len(some)), str(sum(row["quick verdict"] == "lower" for row in some)),
            f"{len(same)} of {len(some)}", str(sum(row not in same for row in sure)),
            f"{statistics.mean(bottoms) if bottoms else math.nan:+.2f}",
            f"{statistics.mean(row['quick forwards'] for row in some):.0f}" if some else "-",
            str(every[0]["reference forwards"]),
        ])  # fmt: skip
    head = [
        "workload", "optimizer", "probes at a saturated LR", "lower", "as the reference", "against a sure reference",
        "reference's eps_min / LR, mean (half law: -0.50)", "forwards a probe", "reference's",
    ]  # fmt: skip
    return markdown_table(head, lines)


SAME_VERDICTS = Study(
    "same-verdicts", "Adaptive probes beside the paper's amount", measure, tables,
    {"confidence": CONFIDENCE, "most": MOST, "every": EVERY},
)  # fmt: skip
