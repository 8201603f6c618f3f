"""The settings of a policy with windows, and what follows from them for one run."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from autolr.numerics.budget import Budget
from autolr.numerics.cost import affordable_superbatch
from autolr.numerics.significance import checkpoints
from autolr.policies.base import Run
from autolr.policies.settings import as_plain, check_count, check_eps, check_overhead, check_range, check_validation_eps

FIVE = (-0.5, -0.25, 0.0, 0.25, 0.5)  # the paper's number: docs/method.md, "Where and how often to sample"
THREE = (-0.5, 0.0, 0.5)  # a parabola's fewest: more steps are worth more than more samples of one
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


@dataclass(frozen=True, kw_only=True)
class WindowSettings:
    """Settings that all policies with windows have.

    Args:
        eps: perturbations sampled at a probe, in multiples of the LR.
        spread: optimizer steps that a probe's superbatch is spread over; 1 is the paper's. The noise of one step's
            direction is larger than what a probe is after, and no superbatch removes it: docs/method.md. With a
            ``confidence`` it has no meaning: each minibatch has a step of its own.
        confidence: probe on until the verdict is this sure, all the times together that it is asked for; None for the
            paper's fixed superbatch.
        window: steps between probes. By default a twentieth of the run, at most 1,000.
        superbatch: minibatches of a probe; with a ``confidence`` the most of them. By default 100 with a
            ``confidence``, and without one as many as keep probing at 1/6 of the training's cost, at most 100; never
            more than there are.
        overhead: share of the training's forward equivalents that probes, drop-rate checks, snapshots and undone steps
            may take together. It is earned step by step and holds from the first window's end on; what cannot be paid
            yet waits. Only a diverged run is brought back whatever it costs. By default 0.02 with a ``confidence``,
            without one no bound (``math.inf``).
        validation_eps: further eps to sample, kept from the fit: for judging it.

    Raises:
        TypeError, ValueError: a setting is of the wrong kind or out of range.
    """

    eps: tuple[float, ...] = FIVE
    spread: int = 1
    confidence: float | None = None
    window: int | None = None
    superbatch: int | None = None
    overhead: float | None = None
    validation_eps: tuple[float, ...] = ()
    rollback = False  # whether a window can be rolled back, and so needs a snapshot where it begins

    def __post_init__(self) -> None:
        check_eps(self.eps)
        check_count("spread", self.spread)
        if self.confidence is not None:  # below, a coin decides as well; above, no superbatch is large enough
            check_range("confidence", self.confidence, low=0.5, high=0.99)
        if self.window is not None:
            check_count("window", self.window)
        if self.superbatch is not None:
            check_count("superbatch", self.superbatch)
        check_overhead(self.overhead)
        check_validation_eps(self.validation_eps)
        as_plain(self)

    def usual_window(self, run: Run) -> int:
        """[steps] Where none was asked for."""
        return max(1, min(LONGEST_WINDOW, run.total_steps // FEWEST_WINDOWS))

    def usual_superbatch(self, run: Run, window: int) -> int:
        """[minibatches] Likewise."""
        superbatch = min(run.batches or LARGEST_SUPERBATCH, LARGEST_SUPERBATCH)
        if self.confidence is None:
            superbatch = min(superbatch, affordable_superbatch(window, len(self.eps)))
        return superbatch


@functools.lru_cache(maxsize=16)
def plan_of(policy: WindowSettings, run: Run) -> Plan:
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
    window = policy.window or policy.usual_window(run)
    superbatch = policy.superbatch
    if superbatch is None:
        superbatch = policy.usual_superbatch(run, window)
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
