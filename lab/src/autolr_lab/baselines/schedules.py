"""Learning-rate schedules to compare with, on torch's own schedulers: one step of each is one optimizer step.

Each is a shape between 0 and 1 times the peak, the rate that the optimizer was given. All but one-cycle and the inverse
square root, which bring their own, may follow a linear warm-up.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
)

WARM_UP_START = 1e-3  # share of the peak at which a warm-up begins; torch's must be above 0


class Schedule:
    """Moves a rate after each optimizer step; a plateau schedule after each epoch, by its loss."""

    def __init__(self, steps: LRScheduler, plateau: ReduceLROnPlateau | None = None) -> None:
        self._steps, self._plateau = steps, plateau

    def step(self) -> None:
        self._steps.step()

    def epoch(self, loss: float) -> None:
        """After an epoch, with the loss on the evaluation data."""
        if self._plateau is not None:
            self._plateau.step(loss)

    def state_dict(self) -> dict[str, Any]:
        plateau = None if self._plateau is None else self._plateau.state_dict()
        return {"steps": self._steps.state_dict(), "plateau": plateau}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._steps.load_state_dict(state["steps"])
        if self._plateau is not None:
            self._plateau.load_state_dict(state["plateau"])


def fixed(optimizer: Optimizer, total_steps: int) -> LRScheduler:  # noqa: ARG001
    """The peak throughout."""
    return ConstantLR(optimizer, factor=1.0)


def staircase(
    optimizer: Optimizer, total_steps: int, stairs: Sequence[float] = (0.5, 0.75), factor: float = 0.1
) -> LRScheduler:
    """A tenth at each of ``stairs``, shares of the run: by default the paper's for CIFAR-10 (100/50/50 epochs)."""
    return MultiStepLR(optimizer, [max(1, int(stair * total_steps + 1e-9)) for stair in stairs], factor)


def exponential(optimizer: Optimizer, total_steps: int, end: float = 0.01) -> LRScheduler:
    """The same factor each step, to ``end`` of the peak."""
    return ExponentialLR(optimizer, end ** (1 / total_steps))


def polynomial(optimizer: Optimizer, total_steps: int, power: float = 2.0) -> LRScheduler:
    """(1 - step / total) ** power."""
    return PolynomialLR(optimizer, total_steps, power)


def linear(optimizer: Optimizer, total_steps: int) -> LRScheduler:
    """A straight line to 0: the paper's baseline for SQuAD."""
    return PolynomialLR(optimizer, total_steps, 1.0)


def cosine(optimizer: Optimizer, total_steps: int) -> LRScheduler:
    """Half a period, to 0."""
    return CosineAnnealingLR(optimizer, total_steps)


def inverse_sqrt(
    optimizer: Optimizer, total_steps: int, warmup: int | None = None, start: float = 2.5e-4
) -> LRScheduler:
    """Vaswani et al. 2017: a line from ``start`` of the peak over ``warmup`` steps, then sqrt(warmup / step).

    By default fairseq's for IWSLT'14, the paper's baseline: from 1.25e-7 to 5e-4 over 4,000 steps; in a run of under
    40,000 steps over a tenth of it.
    """
    warm = max(1, min(4000, total_steps // 10)) if warmup is None else max(1, warmup)
    return LambdaLR(optimizer, lambda step: min(start + (1 - start) * step / warm, math.sqrt(warm / max(step, warm))))


def one_cycle(optimizer: Optimizer, total_steps: int, rise: float = 0.3) -> LRScheduler:
    """Smith & Topin 2017, torch's form: up for ``rise`` of the run, then far below where it began, in cosines.

    The optimizer's momentum stays: only the rate is compared.
    """
    peaks = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, peaks, total_steps=total_steps, pct_start=rise, cycle_momentum=False)


def warmup_stable_decay(optimizer: Optimizer, total_steps: int, decay: float = 0.2) -> LRScheduler:
    """The peak, and in the last ``decay`` of the run a straight line to 0."""
    return knee(optimizer, total_steps, explore=1 - decay)


def knee(optimizer: Optimizer, total_steps: int, explore: float = 0.5) -> LRScheduler:
    """Iyer et al. 2020: the peak for ``explore`` of the run, half by its authors' default, then a line to 0."""
    stays = explore * total_steps
    return LambdaLR(optimizer, lambda step: min(1.0, max(0.0, (total_steps - step) / (total_steps - stays))))


def plateau(
    optimizer: Optimizer,
    total_steps: int,  # noqa: ARG001
    factor: float = 0.1,
    patience: int = 10,
) -> ReduceLROnPlateau:
    """Torch's: times ``factor`` once the evaluated loss has not fallen for more than ``patience`` epochs."""
    return ReduceLROnPlateau(optimizer, factor=factor, patience=patience)


SCHEDULES: dict[str, Callable[..., LRScheduler | ReduceLROnPlateau]] = {
    "fixed": fixed,
    "staircase": staircase,
    "exponential": exponential,
    "polynomial": polynomial,
    "linear": linear,
    "cosine": cosine,
    "inverse-sqrt": inverse_sqrt,
    "one-cycle": one_cycle,
    "warmup-stable-decay": warmup_stable_decay,
    "plateau": plateau,
    "knee": knee,
}
OWN_WARM_UP = ("inverse-sqrt", "one-cycle")
# What an option may be: in words, and as a check.
ALLOWED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(("explore", "decay", "rise"), ("a share of the run, from 0 to below 1", lambda v: 0 <= v < 1)),
    **dict.fromkeys(("factor", "end"), ("between 0 and 1", lambda v: 0 < v < 1)),
    "start": ("a share of the peak, above 0 and at most 1", lambda v: 0 < v <= 1),
    "power": ("above 0", lambda v: v > 0),
    "patience": ("a number of epochs, 0 or more", lambda v: type(v) is int and v >= 0),
    "stairs": ("rising shares of the run", lambda v: list(v) == sorted(v) and all(0 <= s <= 1 for s in v)),
}


def schedule_options(name: str) -> dict[str, Any]:
    """A schedule's options with their defaults."""
    parameters = list(inspect.signature(SCHEDULES[name]).parameters.values())[2:]
    own = {p.name: p.default for p in parameters}
    return own if name in OWN_WARM_UP else {"warmup": 0, **own}


def make_schedule(name: str, optimizer: Optimizer, total_steps: int, **options: Any) -> Schedule:
    """A schedule for a run.

    Args:
        name: one of `SCHEDULES`.
        optimizer: at its peak rates.
        total_steps: of the run, the warm-up among them.
        options: those of `schedule_options`; ``warmup`` in steps (a whole number) or as a share of the run (below 1).

    Raises:
        ValueError: the schedule has no such option, or the value is out of range.
    """
    if isinstance(options.get("warmup"), float) and 0 <= options["warmup"] < 1:
        options["warmup"] = int(options["warmup"] * total_steps)
    _check(name, total_steps, options)
    warmup = 0 if name in OWN_WARM_UP else options.pop("warmup", 0)
    if name == "plateau":  # beside a warm-up, which leaves the rate alone once it is over
        rising = LinearLR(optimizer, WARM_UP_START if warmup else 1.0, total_iters=warmup)
        return Schedule(rising, plateau(optimizer, total_steps, **options))
    main = SCHEDULES[name](optimizer, total_steps - warmup, **options)
    assert isinstance(main, LRScheduler)
    if not warmup:
        return Schedule(main)
    return Schedule(SequentialLR(optimizer, [LinearLR(optimizer, WARM_UP_START, total_iters=warmup), main], [warmup]))


def _check(name: str, total_steps: int, options: dict[str, Any]) -> None:
    has = schedule_options(name)
    of_steps = f"a number of steps from 0 to below the run's {total_steps}, or a share of it"
    allowed = {**ALLOWED, "warmup": (of_steps, lambda v: type(v) is int and 0 <= v < total_steps)}
    for option, value in options.items():
        if option not in has:
            raise ValueError(f"The schedule {name} has no option {option!r}. It has: {', '.join(has) or 'none'}.")
        words, fits = allowed[option]
        if not fits(value):
            raise ValueError(f"{option} must be {words}; got {value!r}.")
