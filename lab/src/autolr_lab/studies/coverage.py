"""Do the error bars hold? Probes of a problem whose answer is known: the 90 % interval of eps_min must hold it.

A quadratic bowl, each minibatch with a bottom of its own, trained with and without momentum at several LRs until the
loss has stopped falling. From there on the expected loss is the same at both ends of a step, so that the expected
parabola has its bottom in the middle: eps_min = -1/2 of the step exactly, whatever the optimizer and the LR. Probes are
AutoLR's own, one minibatch along each of n consecutive steps.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autolr import AutoLR, Monitor
from autolr.policies.base import Decision
from autolr.policies.monitor import MonitorState
from autolr.policies.window_state import ProbeFit
from autolr_lab.runner.markdown import markdown_table
from autolr_lab.runner.results import Row
from autolr_lab.studies.study import Study

CONFIDENCE = 0.9  # the policy's own: what is measured is whether its intervals are what they say
WIDTH, EXAMPLES = 8, 512  # the bowl's dimensions; minibatches, drawn again and again
SETTINGS = [(beta, lr) for beta, lrs in ((0.9, (0.03, 0.1, 0.3)), (0.0, (0.1, 0.5, 1.0))) for lr in lrs]
COUNTS, PROBES = (8, 20), 500  # steps a probe, and probes
SETTLE = 3000  # steps, of a LR of 0.03 with momentum ten times what its slowest direction needs


class Bowl(nn.Module):
    """0.5 sum h (theta - z)^2 with a curvature h between 0.05 and 1 in each direction, z the minibatch's own bottom."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(WIDTH, dtype=torch.float64))
        self.h: Tensor
        self.register_buffer("h", torch.logspace(-1.3, 0, WIDTH, dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        """The loss at one minibatch."""
        return 0.5 * (self.h * (self.theta - z) ** 2).sum()


class Remember(Monitor):
    """Holds the LR, and keeps what it saw."""

    def __init__(self, steps: int) -> None:
        super().__init__(eps=(-0.5, 0.0, 0.5), spread=steps, window=5, superbatch=steps)
        object.__setattr__(self, "seen", [])

    def advise(self, own: MonitorState, fit: ProbeFit) -> tuple[MonitorState, Decision]:
        """Keep the fit as well as the LR."""
        self.seen.append(fit)  # type: ignore[attr-defined]
        return super().advise(own, fit)


def probes_of_the_bowl(beta: float, lr: float, n: int, probes: int, seed: int = 0) -> list[ProbeFit]:
    """``probes`` fits of ``n`` steps each, after the loss has stopped falling."""
    torch.manual_seed(seed)
    batches = list(torch.randn(EXAMPLES, WIDTH, dtype=torch.float64))
    bowl = Bowl()
    bowl.theta.data = torch.stack(batches).mean(0)
    base = torch.optim.SGD(bowl.parameters(), lr=lr, momentum=beta)
    order = torch.Generator().manual_seed(seed)
    policy, total = Remember(n), probes * (n + 10)
    optimizer: Any = base
    for step in range(SETTLE + total):
        if step == SETTLE:
            optimizer = AutoLR(base, bowl, lambda m, z: m(z), batches, total, policy=policy, seed=seed)
        z = batches[int(torch.randint(EXAMPLES, (), generator=order))]
        optimizer.zero_grad()
        bowl(z).backward()
        optimizer.step()
        if len(policy.seen) >= probes:  # type: ignore[attr-defined]
            break
    seen: list[ProbeFit] = policy.seen[:probes]  # type: ignore[attr-defined]
    return seen


def measure_one(beta: float, lr: float, n: int, probes: int) -> Row:
    """How often the interval holds the truth, and how wide it is."""
    fits = [seen.quadratic for seen in probes_of_the_bowl(beta, lr, n, probes) if seen.quadratic is not None]
    intervals = [fit.interval(CONFIDENCE) for fit in fits]
    found = [fit.minimum for fit in fits if fit.minimum is not None]
    return {
        "beta": beta, "lr": lr, "n": n, "looks": len(intervals),
        "held": sum(low <= -0.5 <= high for low, high in intervals) / len(intervals),
        "unbounded": sum(math.isinf(low) for low, _ in intervals) / len(intervals),
        "median": statistics.median(found), "deviation": statistics.stdev(found),
        "stderr": statistics.median(fit.stderr for fit in fits if fit.stderr is not None),
    }  # fmt: skip


def measure(data_dir: Path | None, probes: int = PROBES) -> Iterator[Row]:  # noqa: ARG001 - it makes its data
    """A row a setting."""
    for (beta, lr), n in itertools.product(SETTINGS, COUNTS):
        yield measure_one(beta, lr, n, probes)


def tables(rows: list[Row]) -> dict[str, str]:
    """One line a setting."""
    lines = [
        [f"{r['beta']:g}", f"{r['lr']:g}", str(r["n"]), str(r["looks"]), f"{100 * r['held']:.0f} %",
         f"{100 * r['unbounded']:.0f} %", f"{r['median']:+.2f}", f"{r['stderr']:.2f}", f"{r['deviation']:.2f}"]
        for r in rows
    ]  # fmt: skip
    head = [
        "momentum", "LR", "steps a probe", "probes", "90 % interval holds the truth", "interval unbounded",
        "eps_min / LR, median (truth: -0.5)", "its standard error, median", "its standard deviation over probes",
    ]  # fmt: skip
    return {"table": markdown_table(head, lines)}


COVERAGE = Study(
    "coverage", "Whether the intervals of probes hold the truth", measure, tables,
    {"confidence": CONFIDENCE, "probes": PROBES, "minibatches": EXAMPLES},
)  # fmt: skip
