"""Do the error bars hold? Looks at a problem whose answer is known: the 90 % interval of eps_min must hold it.

``python benchmarks/coverage.py``. A quadratic bowl, each minibatch with a bottom of its own, trained with and without
momentum at several LRs until the loss has stopped falling. From there on the expected loss is the same at both ends of
a step, so that the expected parabola has its bottom in the middle: eps_min = -LR / 2 exactly, whatever the optimizer
and the LR. Looks are AutoLR's own, one minibatch along each of n consecutive steps.
"""

from __future__ import annotations

import itertools
import math
import statistics
from typing import Any

import torch
import typer
from torch import Tensor, nn

from autolr import AutoLR, Monitor
from autolr.policies import Decision, Look
from autolr.policies.monitor import MonitorState
from autolr_lab.studies.record import markdown, new_record, write_record

CONFIDENCE = 0.9
WIDTH, EXAMPLES = 8, 512  # the bowl's dimensions; minibatches, drawn again and again
SETTINGS = [(beta, lr) for beta, lrs in ((0.9, (0.03, 0.1, 0.3)), (0.0, (0.1, 0.5, 1.0))) for lr in lrs]
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
    """Holds, and keeps the looks."""

    __slots__ = ("seen",)

    def __init__(self, spread: int) -> None:
        super().__init__(eps=(-0.5, 0.0, 0.5), spread=spread)
        object.__setattr__(self, "seen", [])

    def decide(self, state: MonitorState, look: Look) -> tuple[MonitorState, Decision]:
        """Keep the look as well as the LR."""
        self.seen.append(look)  # type: ignore[attr-defined]
        return super().decide(state, look)


def looks_at_the_bowl(beta: float, lr: float, n: int, looks: int, seed: int = 0) -> list[Look]:
    """``looks`` looks of ``n`` steps each, after the loss has stopped falling."""
    torch.manual_seed(seed)
    batches = list(torch.randn(EXAMPLES, WIDTH, dtype=torch.float64))
    bowl = Bowl()
    bowl.theta.data = torch.stack(batches).mean(0)
    base = torch.optim.SGD(bowl.parameters(), lr=lr, momentum=beta)
    order = torch.Generator().manual_seed(seed)
    policy = Remember(n)
    optimizer: Any = base
    for step in itertools.count():
        if step == SETTLE:
            total = looks * (n + 10)
            optimizer = AutoLR(
                base, bowl, lambda m, z: m(z), batches, total, policy=policy, window=5, superbatch=n, seed=seed
            )
        if len(policy.seen) >= looks or step == SETTLE + looks * (n + 10):  # type: ignore[attr-defined]
            break
        z = batches[int(torch.randint(EXAMPLES, (), generator=order))]
        optimizer.zero_grad()
        bowl(z).backward()
        optimizer.step()
    return policy.seen[:looks]  # type: ignore[attr-defined, no-any-return]


def measure(beta: float, lr: float, n: int, looks: int) -> dict[str, Any]:
    """How often the interval holds the truth, and how wide it is."""
    fits = [look.quadratic for look in looks_at_the_bowl(beta, lr, n, looks)]
    intervals = [fit.interval(CONFIDENCE) for fit in fits if fit is not None]
    held = sum(low <= -lr / 2 <= high for low, high in intervals)
    found = [fit.minimum / lr for fit in fits if fit is not None and fit.minimum is not None]
    errors = [fit.stderr / lr for fit in fits if fit is not None and fit.stderr is not None]
    return {
        "beta": beta, "lr": lr, "n": n, "looks": len(intervals), "held": held / len(intervals),
        "unbounded": sum(math.isinf(low) for low, _ in intervals) / len(intervals),
        "median": statistics.median(found), "stderr": statistics.median(errors), "deviation": statistics.stdev(found),
    }  # fmt: skip


def main(looks: int = 600, counts: str = "8,20,60") -> None:
    """Measure, print the table, and write a record."""
    torch.set_num_threads(1)
    rows = []
    for (beta, lr), n in itertools.product(SETTINGS, map(int, counts.split(","))):
        rows.append(measure(beta, lr, n, looks))
        print(rows[-1], flush=True)
    path = new_record("coverage")
    table = coverage_table(rows)
    write_record(path, {"confidence": CONFIDENCE, "looks": looks, "minibatches": EXAMPLES}, rows, table)
    print(table, f"\nRecord: {path}")


def coverage_table(rows: list[dict[str, Any]]) -> str:
    """One line a setting."""
    lines = [
        [f"{r['beta']:g}", f"{r['lr']:g}", str(r["n"]), str(r["looks"]), f"{100 * r['held']:.0f} %",
         f"{100 * r['unbounded']:.0f} %", f"{r['median']:+.2f}", f"{r['stderr']:.2f}", f"{r['deviation']:.2f}"]
        for r in rows
    ]  # fmt: skip
    head = [
        "momentum", "LR", "steps a look", "looks", "90 % interval holds the truth", "interval unbounded",
        "eps_min / LR, median (truth: -0.5)", "its standard error, median", "its standard deviation over looks",
    ]  # fmt: skip
    return markdown(head, lines)


if __name__ == "__main__":
    typer.run(main)
