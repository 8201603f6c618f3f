"""A million cheap steps under each policy: memory and time per step stay flat, and the log small."""

from __future__ import annotations

import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import autolr

SHARE = int(os.environ.get("AUTOLR_TORTURE_SHARE", "1"))
STEPS = 1_000_000 // SHARE
TENTHS = 10
POLICIES: dict[str, Callable[[], Any]] = {
    "PeakSearch()": lambda: autolr.PeakSearch(budget=0.0005),
    "ExploreExploit()": lambda: autolr.ExploreExploit(superbatch=4, spread=1),
    "ExploreExploit.adaptive()": autolr.ExploreExploit.adaptive,
    "Monitor()": lambda: autolr.Monitor(superbatch=4),
}


class Cheap(torch.optim.Optimizer):
    """Moves its parameters towards zero by hand, in a few microseconds: the steps are AutoLR's cost alone."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})
        self.weight = self.param_groups[0]["params"][0]

    def step(self, closure: Any = None) -> None:  # noqa: ARG002
        with torch.no_grad():
            self.weight.mul_(1 - 1e-3 * self.param_groups[0]["lr"])


def resident() -> float:
    """[MB] of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def soaked(policy: Any, steps: int, trace: Path) -> dict[str, Any]:
    """Memory after, and seconds of a step in, each tenth of the run."""
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1, bias=False)
    data = [torch.randn(4, 2) for _ in range(8)]
    base = Cheap(model.parameters(), lr=0.1)
    tuned = autolr.AutoLR(
        base, model, lambda model, x: model(x).square().mean(), data, steps, policy=policy, trace=trace
    )
    memory, seconds = [], []
    for _ in range(TENTHS):
        batches = []
        for _ in range(TENTHS):  # the least of ten: whatever else the machine does is no growth
            began = time.perf_counter()
            for _ in range(steps // TENTHS**2):
                tuned.step()
            batches.append((time.perf_counter() - began) / (steps // TENTHS**2))
        memory.append(resident())
        seconds.append(min(batches))
    checkpoint = trace.with_suffix(".pt")
    torch.save(tuned.state_dict(), checkpoint)
    return {
        "memory": memory, "seconds": seconds, "log": trace.stat().st_size, "checkpoint": checkpoint.stat().st_size,
        "decisions": len(tuned.history), "lr": tuned.lr,
    }  # fmt: skip


@pytest.mark.torture
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from Linux's /proc")
@pytest.mark.parametrize("policy", POLICIES)
def test_a_million_steps_cost_the_same_at_their_end_as_at_their_beginning(
    policy: str, tmp_path: Path, record_property: Any
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        told = soaked(POLICIES[policy](), STEPS, tmp_path / "log.jsonl")
    grown = told["memory"][-1] - told["memory"][1]
    slower = told["seconds"][-1] / told["seconds"][1]
    record_property("steps", STEPS)
    for name, value in (
        ("policy", policy), ("grown_mb", f"{grown:.1f}"), ("slower", f"{slower:.2f}"),
        ("microseconds", f"{1e6 * statistics.median(told['seconds']):.0f}"), ("log_kb", f"{told['log'] / 1e3:.0f}"),
        ("checkpoint_kb", f"{told['checkpoint'] / 1e3:.0f}"), ("decisions", str(told["decisions"])),
    ):  # fmt: skip
        record_property(name, value)
    assert grown < 20, told["memory"]
    assert slower < 1.6, told["seconds"]
    assert told["log"] < 60e6


@pytest.mark.long
def test_the_rate_has_a_floor_and_says_when_it_rests_there() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1, bias=False)
    data = [torch.randn(4, 3) for _ in range(8)]  # the last column is noise to be fitted

    def loss_fn(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        return (model(x[:, :2]) - x[:, 2:]).square().mean()

    policy = autolr.ExploreExploit(explore=0.0, window=1, superbatch=4, spread=1, rollback=False, saturation=1.01,
                                   floor=0.1)  # fmt: skip
    base = torch.optim.SGD(model.parameters(), lr=0.5)  # too high: a probe asks for less
    tuned = autolr.AutoLR(base, model, loss_fn, data, 60, policy=policy)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for step in range(60):
            tuned.zero_grad()
            loss_fn(model, data[step % 8]).backward()
            tuned.step()
    floor = 0.1 * max(record.lr_before for record in tuned.history)
    assert min(record.lr_after for record in tuned.history) == pytest.approx(floor)
    assert "at floor" in {record.trigger for record in tuned.history}
    assert sum("at its floor" in str(warning.message) for warning in told) == 1
