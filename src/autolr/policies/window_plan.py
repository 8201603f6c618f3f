"""A windowed policy's settings for one run, its defaults filled in."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Protocol

from autolr.numerics.budget import Budget
from autolr.numerics.cost import affordable_superbatch
from autolr.numerics.significance import checkpoints
from autolr.policies.base import Run

LONGEST_WINDOW, LARGEST_SUPERBATCH = 1000, 100  # the paper's (appendices B and C)
FEWEST_WINDOWS = 20  # in a short run: docs/method.md, "How often to look"
DEFAULT_OVERHEAD = 0.02
CHECKED = 4  # minibatches of a drop-rate check under a budget: few, and a standard error of their differences
WHOLE_STEPS = (-1.0, 0.0, 1.0)  # in bfloat16 and float16 the ends of the step are exact, and points between are rounded


@dataclass(frozen=True, slots=True)
class Plan:
    """A policy's settings for one run, defaults filled in."""

    window: int  # steps
    eps: tuple[float, ...]
    superbatch: int  # minibatches of a probe
    checked: int  # minibatches of a drop-rate check
    size: int  # minibatches at each of a probe's steps
    checkpoints: tuple[int, ...]  # steps after which the policy is asked; the last one ends the probe
    check_costs: int  # [forward equivalents] of one end of a window, with a snapshot at most
    probe_costs: int  # [forward equivalents] of one step of a probe
    budget: Budget

    @property
    def pooled(self) -> bool:
        """Whether a probe is spread over several steps."""
        return self.checkpoints[-1] > 1


class Settings(Protocol):
    """Those of `windowed.WindowedPolicy` that a plan follows from; hashable."""

    @property
    def eps(self) -> tuple[float, ...]: ...
    @property
    def spread(self) -> int: ...
    @property
    def confidence(self) -> float | None: ...
    @property
    def window(self) -> int | None: ...
    @property
    def superbatch(self) -> int | None: ...
    @property
    def overhead(self) -> float | None: ...
    @property
    def validation_eps(self) -> tuple[float, ...]: ...
    @property
    def rollback(self) -> bool: ...


@functools.lru_cache(maxsize=16)
def plan_of(policy: Settings, run: Run) -> Plan:
    """Its settings for ``run``.

    Raises:
        ValueError: a window as long as the run, or a superbatch of more minibatches than there are.
    """
    total = run.total_steps
    if policy.window is not None and policy.window >= total:
        raise ValueError(
            f"window must be below total_steps ({total}), or there is never a probe; got {policy.window}. "
            "Both count optimizer steps."
        )
    window = policy.window or max(1, min(LONGEST_WINDOW, total // FEWEST_WINDOWS))
    superbatch = policy.superbatch
    if superbatch is None:
        superbatch = min(run.batches or LARGEST_SUPERBATCH, LARGEST_SUPERBATCH)
        if policy.confidence is None:
            superbatch = min(superbatch, affordable_superbatch(window, len(policy.eps)))
    elif run.batches is not None and superbatch > run.batches:
        raise ValueError(
            f"superbatch must be at most the {run.batches} minibatches that batches has; got {superbatch}. "
            "Leave it out to take as many as are worth their cost."
        )
    eps = WHOLE_STEPS if run.low_precision else policy.eps
    if policy.confidence is not None:
        size, asked, checked = 1, checkpoints(superbatch), min(CHECKED, superbatch)
    else:
        steps = min(policy.spread, superbatch)  # each step sees one minibatch at least
        size, asked, checked = superbatch // steps, (steps,), superbatch
    overhead = policy.overhead
    if overhead is None:
        overhead = math.inf if policy.confidence is None else DEFAULT_OVERHEAD
    return Plan(
        window=window, eps=eps, superbatch=superbatch, checked=checked, size=size, checkpoints=asked,
        check_costs=checked + policy.rollback, probe_costs=(len(eps) + len(policy.validation_eps)) * size,
        budget=Budget(overhead),
    )  # fmt: skip
