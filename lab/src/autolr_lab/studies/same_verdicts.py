"""Does an adaptive look say what a hundred minibatches at five samples say, and for what price?

``python benchmarks/same_verdicts.py --data-dir DIR``. Training at a held LR; every so many steps an adaptive look (one
minibatch at three samples along each step, until it is sure at the default confidence or has seen 100) and, along the
same steps, the paper's amount: 100 minibatches at five samples, 5 along each of 20 steps, whose answer is taken by its
sign, as the paper does. An undecided look changes nothing. The reference has an error too: it counts as sure beyond two
standard errors.

Each stretch of steps between two looks is also a window, with the drop-rate check that a budget pays for. Where it says
that the LR is used up, the policy halves the LR after four observations that do not surely ask for more: the second
table holds that, too, against the reference.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn
from torch.optim import Optimizer

from autolr.numerics.significance import checkpoints
from autolr.measure.step_line import Line
from autolr_lab.training.optimizers import OPTIMIZERS
from autolr.policies import Look, ExploreExploit
from autolr.policies.sequential import Why, if_sure
from autolr.policies.sampling import CONFIDENCE, FIVE, LEAST, THREE
from autolr.measure.probe import Probe
from autolr.numerics.quadratic import fit_quadratic
from autolr.numerics.saturation import check_saturation, loss_drop
from autolr.measure.snapshot import held_parameters
from autolr.measure.superbatch import Superbatches
from autolr.runtime.windows import CHECKED
from autolr_lab.workloads import WORKLOADS
from autolr_lab.workloads.workload import loader
from autolr_lab.studies.fixed_rate import FixedRate
from autolr_lab.studies.networks import cifar_images
from autolr_lab.studies.record import markdown, new_record, write_record

MOST, STEPS, SHARE = 100, 20, 5  # minibatches of an adaptive look; the reference's steps, and minibatches at each
EVERY, LOOKS = 100, 14  # steps from the end of one look to the next
RUNS = [("fashion-mnist", name) for name in ("sgd", "momentum", "adam")] + [("cifar10", "momentum")]


class SmallCifar:
    """A ResNet-8 on 10,000 images of CIFAR-10, batch 64, at a rate of 0.05."""

    def __init__(self, optimizer: str, data_dir: Path) -> None:
        torch.manual_seed(0)
        self.workload = WORKLOADS["cifar10-small"]
        self.lr = 0.05
        self.model: nn.Module = self.workload.model()
        self.optimizer: Optimizer = OPTIMIZERS[optimizer](self.model.parameters(), self.lr)
        self.batches = loader(cifar_images(data_dir, sheets=10), 64, torch.Generator().manual_seed(0))
        self._endless = itertools.chain.from_iterable(itertools.repeat(self.batches))

    def train(self, steps: int) -> None:
        """Take so many steps on the next minibatches."""
        for batch in itertools.islice(self._endless, steps):
            self.optimizer.zero_grad()
            self.workload.loss(self.model, batch).backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()


def measure(workload: str, optimizer: str, data_dir: Path, looks: int = LOOKS) -> Iterator[dict[str, Any]]:
    """Look along a run, both ways."""
    run: Any = FixedRate(optimizer, data_dir) if workload == "fashion-mnist" else SmallCifar(optimizer, data_dir)
    probe = Probe(run.model, run.workload.loss, Superbatches(run.batches, MOST, seed=0))
    numbers = itertools.count(1)
    step, began = 0, math.nan
    for number in range(looks):
        before, checked = probe.here(number, CHECKED).tolist()[0], number
        run.train(EVERY)
        step += EVERY
        rate = loss_drop(before, probe.here(checked, CHECKED).tolist()[0], EVERY).rate
        began = rate if number == 0 else began
        used_up, _ = check_saturation(rate, began=began, threshold=ExploreExploit().saturation, absolute=None)
        cheap: list[Tensor] = []
        dear: list[Tensor] = []
        verdict, margin, quick, quick_forwards = "look", 0.0, "look", 0
        while verdict == "look" or len(dear) < STEPS:
            line = Line(held_parameters(run.optimizer))
            run.train(1)
            step += 1
            if verdict == "look":
                cheap.append(probe.along(line, THREE, next(numbers), 1))
                if len(cheap) in checkpoints(MOST):
                    verdict, margin = asked(cheap, run.lr)
                    if quick == "look":
                        quick, _ = asked(cheap, run.lr, "used up")
                        quick_forwards = len(THREE) * len(cheap)
            if len(dear) < STEPS:
                dear.append(probe.along(line, FIVE, next(numbers), SHARE).mean(dim=1, keepdim=True))
        reference = fit_quadratic([e * run.lr for e in FIVE], torch.cat(dear, dim=1).tolist())
        yield {
            "workload": workload, "optimizer": optimizer, "look": number, "step": step, "verdict": verdict,
            "margin": margin, "forwards": len(THREE) * len(cheap), "reference": reference.margin(0),
            "reference minimum": None if reference.minimum is None else reference.minimum / run.lr,
            "reference forwards": len(FIVE) * SHARE * STEPS,
            "used up": used_up, "quick verdict": quick, "quick forwards": quick_forwards,
        }  # fmt: skip


def asked(losses: list[Tensor], lr: float, why: Why = "doubt") -> tuple[str, float]:
    """What `ExploreExploit.adaptive` would do in exploit, and the margin that it goes by."""
    fit = fit_quadratic([e * lr for e in THREE], torch.cat(losses, dim=1).tolist())
    last, checks = len(losses) == MOST, len(checkpoints(MOST))
    seen = Look(1, 1, lr, fit.k0, fit, last=last, checks=checks)
    advice = if_sure(seen, fit, confidence=CONFIDENCE, least=LEAST, exploring=False, why=why)
    if advice.asked is not None:
        return "raise" if advice.asked > 0 else "lower", fit.margin(0)
    return "keep" if advice.final else "undecided" if last else "look", fit.margin(0)


def main(data_dir: Annotated[Path, typer.Option(envvar="AUTOLR_DATA")], looks: int = LOOKS, threads: int = 1) -> None:
    """Measure, print the table, and write a record."""
    torch.set_num_threads(threads)
    rows = []
    for workload, optimizer in RUNS:
        for row in measure(workload, optimizer, data_dir, looks):
            rows.append(row)
            print(row, flush=True)
    table = verdict_table(rows)
    path = new_record("same-verdicts")
    settings = {"confidence": ExploreExploit.adaptive().confidence, "most": MOST, "every": EVERY, "threads": threads}
    write_record(path, settings, rows, table)
    print(table, f"\nRecord: {path}")


def verdict_table(rows: list[dict[str, Any]]) -> str:
    """One line a run."""
    lines = []
    for workload, optimizer in dict.fromkeys((row["workload"], row["optimizer"]) for row in rows):
        some = [row for row in rows if (row["workload"], row["optimizer"]) == (workload, optimizer)]
        decided = [row for row in some if row["verdict"] in {"raise", "lower"}]
        same = [row for row in decided if (row["verdict"] == "raise") == (row["reference"] > 0)]
        opposite = [row for row in decided if row not in same]
        surely = [row for row in opposite if abs(row["reference"]) > 2]
        cost = statistics.mean(row["forwards"] for row in some)
        paid = statistics.mean(row["forwards"] for row in decided) if decided else float("nan")
        lines.append([
            workload, optimizer, str(len(some)), str(len(decided)), f"{len(same)} of {len(decided)}",
            f"{len(opposite)}, of them a sure reference: {len(surely)}",
            str(sum(row["verdict"] == "keep" for row in some)), str(sum(row["verdict"] == "undecided" for row in some)),
            str(sum(abs(row["reference"]) > 2 for row in some)),
            f"{cost:.0f} ({paid:.0f})", str(some[0]["reference forwards"]),
        ])  # fmt: skip
    head = [
        "workload", "optimizer", "looks", "raise or lower", "as the reference", "against it", "surely no change",
        "undecided", "reference sure", "forwards a look, mean (where decided)", "reference's",
    ]  # fmt: skip
    table = markdown(head, lines)
    return f"{table}\n{quick_table(rows)}" if "used up" in rows[0] else table


def quick_table(rows: list[dict[str, Any]]) -> str:
    """The looks at an LR that is used up: the half law's verdict beside the reference's."""
    lines = []
    for workload, optimizer in dict.fromkeys((row["workload"], row["optimizer"]) for row in rows):
        some = [row for row in rows if (row["workload"], row["optimizer"]) == (workload, optimizer) and row["used up"]]
        sure = [row for row in some if abs(row["reference"]) > 2]
        same = [row for row in some if (row["quick verdict"] == "raise") == (row["reference"] > 0)]
        against = [row for row in sure if row not in same]
        forwards = f"{statistics.mean(row['quick forwards'] for row in some):.0f}" if some else "-"
        bottoms = [row["reference minimum"] for row in some if row["reference minimum"] is not None]
        halves = statistics.mean(bottoms) if bottoms else math.nan
        lines.append([
            workload, optimizer, str(len(some)), str(sum(row["quick verdict"] == "lower" for row in some)),
            f"{len(same)} of {len(some)}", str(len(against)), f"{halves:+.2f}", forwards,
            str(rows[0]["reference forwards"]),
        ])  # fmt: skip
    head = [
        "workload", "optimizer", "looks at a used-up LR", "lower", "as the reference", "against a sure reference",
        "reference's eps_min / LR, mean (half law: -0.50)", "forwards a look", "reference's",
    ]  # fmt: skip
    return markdown(head, lines)


if __name__ == "__main__":
    typer.run(main)
