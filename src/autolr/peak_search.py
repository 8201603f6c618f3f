"""`find_peak`: the best peak rate of a run, from short runs before it starts. Nothing of them is left behind.

Each short run climbs to its peak rate, holds it, and falls to zero in a line, as the whole run will; all start where
training will, and see the same minibatches. Where their losses are least over the log of the rate is enclosed
(`numerics.bracket`) at one length, or at two (`numerics.plan`), and the peak taken whose loss is least on the average
over how far that place may move until the run's own length (`numerics.expected_loss`); lower by as much as an optimizer
with momentum takes shorter steps in a short run than in a long one (`numerics.build_up`).
"""

from __future__ import annotations

import contextlib
import contextvars
import math
import time
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex

import torch
from torch import nn
from torch.optim import Optimizer

from autolr.measure.evaluated import LossFunction
from autolr.measure.first_steps import first_steps
from autolr.measure.place import Place
from autolr.measure.put_back import WayBack, certainly
from autolr.measure.short_run import ShortRunner
from autolr.measure.sources import Batches, as_batches
from autolr.measure.training_step import TrainStep
from autolr.measure.whole_state import EverythingKept
from autolr.numerics.bracket import ShortRun
from autolr.numerics.build_up import shortfall
from autolr.numerics.cost import FORWARDS_PER_STEP
from autolr.numerics.expected_loss import LITTLE
from autolr.numerics.plan import (
    Plan,
    affordable_candidates,
    affordable_lengths,
    affordable_minibatches,
    affordable_share,
)
from autolr.peak import Peak
from autolr.progress import ProgressBar
from autolr.runtime.distributed import agreed, gather_minibatches, rank
from autolr.runtime.param_group_lrs import ParamGroupLRs
from autolr.runtime.together import as_one
from autolr.runtime.wrapped import WrappedOptimizer
from autolr.unsupported import caution
from autolr.validation import check_count, check_optimizer

_QUIET = contextvars.ContextVar("quiet", default=False)  # of a thread: filters of warnings are the process's


def find_peak(
    model: nn.Module,
    optimizer: Optimizer | Sequence[Optimizer],
    loss_fn: LossFunction,
    batches: Batches,
    total_steps: SupportsIndex,
    *,
    train_step: TrainStep | None = None,
    clip: float | None = None,
    evaluation: Iterable[Any] | None = None,
    budget: float | None = None,
    also: Iterable[Any] = (),
    accumulation: SupportsIndex = 1,
    seed: SupportsIndex = 0,
    progress: bool | None = None,
) -> Peak:
    """Find the peak learning rate for a run of ``total_steps`` from where model and optimizer are now.

    Everything is as it was afterwards, to the bit, however the search ends: parameters, buffers, gradients, optimizer
    state, random generators, training modes. The same call gives the same answer. All ranks of a process group must
    call it.

    Args:
        model: with all parameters of the optimizer.
        optimizer: the one that will train, with its settings and the state that it has. All groups scale by one factor.
            Several that train together come as a list.
        loss_fn: ``loss_fn(model, batch)``, the mean loss of a minibatch as a tensor in float32.
        batches: the training's ``DataLoader``, or a sequence of minibatches. It is not advanced. Or a function that
            makes a minibatch, or a stream of its own: see `AutoLR`, also for what is put back of them.
        total_steps: optimizer steps of the run that the peak is for.
        train_step: ``train_step(batch)``, where training is more than ``loss_fn(...).backward(); optimizer.step()``:
            forward pass, backward pass, clipping, scaler, ``optimizer.step()``. It may return the loss.
        clip: norm that gradients are clipped to, where that is all.
        evaluation: minibatches to judge short runs by, for instance a validation loader; else some of ``batches``.
        budget: share of the run's own cost that may be spent: by default 0.1 at 1,000 steps, 0.05 at 10,000 and 0.01 at
            100,000; of shorter runs 100 steps, but a third at most.
        accumulation: minibatches whose gradients make one step; ``loss_fn`` is the loss of one of them. Of a
            ``train_step`` it tells how many calls lead to a step.
        also: whatever else ``train_step`` changes: a ``GradScaler``, averaged weights.
        seed: of minibatches and masks.
        progress: show a bar; by default on a terminal and in a notebook.

    Raises:
        TypeError: an optimizer whose step is not in proportion to its rate, or batches that can be iterated once only.
        ValueError: settings out of range, or a loss that cannot be used.
    """
    optimizer = as_one(optimizer)
    if isinstance(optimizer, WrappedOptimizer):
        raise TypeError(
            "find_peak needs the bare optimizer; got an AutoLR, which sets the rate of every step itself. Pass its "
            ".base, or let AutoLR search."
        )
    check_optimizer(optimizer, model)
    if (text := caution(optimizer)) is not None:
        _warn(text, stacklevel=2)
    steps = agreed("total_steps", check_count("total_steps", total_steps))
    share = affordable_share(steps) if budget is None else _check_share(budget)
    each = check_count("accumulation", accumulation)
    allowed = share * FORWARDS_PER_STEP * steps  # [forward equivalents] of all that one step takes
    judges = affordable_minibatches(allowed * each)
    candidates = affordable_candidates(allowed * each, judges)
    judging, looking = math.ceil(judges / each), math.ceil(candidates * judges / each)
    lengths = affordable_lengths(allowed - looking, judging, steps)
    batches, given, began = as_batches(batches), ParamGroupLRs(optimizer).lr, time.perf_counter()
    kept, place = EverythingKept(model, optimizer, also, loss_fn, train_step), Place(batches, evaluation)

    def search() -> tuple[Plan, ShortRunner, list[ShortRun], list[str]]:
        place.begin()
        runner = ShortRunner(
            model, optimizer, loss_fn, batches, kept.begin(),
            longest=lengths[-1], train_step=train_step, clip=_check_clip(clip), evaluation=evaluation,
            minibatches=judges, candidates=candidates, accumulation=each, seed=check_count("seed", seed, low=0),
        )  # fmt: skip
        with contextlib.closing(runner):
            shortfalls, notes = _shortfalls(optimizer, lengths, steps)
            plan = Plan(given, steps, lengths, allowed - runner.cost, judging, shortfalls)
            return plan, runner, _run(plan, runner, progress), notes

    plan, runner, runs, notes = certainly(search, WayBack([kept.back, place.back]))
    return _conclude(plan, runner, runs, notes, time.perf_counter() - began)


def find_peak_quietly(*arguments: Any, **settings: Any) -> Peak:
    """`find_peak` for a caller that tells what came of it in its own way: nothing is warned of."""

    def search() -> Peak:
        _QUIET.set(True)
        return find_peak(*arguments, **settings)

    return contextvars.copy_context().run(search)


def _warn(text: str, stacklevel: int) -> None:
    if not _QUIET.get():
        warnings.warn(text, stacklevel=stacklevel + 1)


def _shortfalls(optimizer: Optimizer, lengths: Sequence[int], steps: int) -> tuple[tuple[float, ...], list[str]]:
    """[octaves] By how much the steps of each length are too short, as the first rank has it; and what to say of it."""
    growth = first_steps(optimizer)
    own = [shortfall(growth or (1.0,), length, steps) for length in lengths]
    told = gather_minibatches(torch.tensor([own], dtype=torch.float64))[0][: len(own)]
    if growth:
        return tuple(told), []
    text = _unknown_growth(optimizer)
    _warn(text, stacklevel=5)
    return tuple(told), [text]


def _unknown_growth(optimizer: Optimizer) -> str:
    kind = " + ".join(type(one).__name__ for one in getattr(optimizer, "optimizers", [optimizer]))
    return (
        f"How the steps of {kind} grow is not known: no other of its kind could be made from the settings in its "
        "groups, and stepped on a small matrix. If they do, as with momentum, the peak is too high by as much."
    )


def _run(plan: Plan, runner: ShortRunner, progress: bool | None) -> list[ShortRun]:
    runs: list[ShortRun] = []
    with ProgressBar("find_peak", False if rank() else progress) as bar:
        while (wanted := plan.next(runner.start, runs)) is not None:
            length, lr = wanted
            spent = sum(run.cost for run in runs) / plan.budget
            bar.show(spent, f"run {len(runs) + 1}: {length} steps at {lr:.2g}")
            runs.append(runner.run(length, lr))
    return runs


def _conclude(plan: Plan, runner: ShortRunner, runs: list[ShortRun], notes: list[str], seconds: float) -> Peak:
    cost = runner.cost + sum(run.cost for run in runs)
    start, left_out = runner.start, runner.judges.left_out
    if left_out:
        notes.append(
            f"{left_out} of the evaluation minibatches have no finite loss at the start and judge nothing; a "
            "step with such a loss was skipped."
        )
    choice, fallback = plan.choice(start, runs), None
    low, high, lowered = 0.0, float("inf"), 0.0
    if choice is None:
        lr = plan.given * 2.0 ** plan.guess(start, runs)
        fallback = (
            f"No rate is expected to gain {100 * LITTLE:.0f} % of the loss, by {len(runs)} short runs of up to "
            f"{plan.lengths[-1]} steps"
        )
        why = "the optimizer's own rate" if lr == plan.given else "a guess"
        _warn(
            f"{fallback}: find_peak returns {why}, {lr:.3g}. A larger budget makes the short runs longer; check the "
            "loss, or set the rate by hand.",
            stacklevel=3,
        )
    else:
        lr, low, high = (plan.given * 2.0**octaves for octaves in (choice.place, choice.low, choice.high))
        lowered = choice.shortfall
    return Peak(
        lr=lr, low=low, high=high, total_steps=plan.total_steps, runs=tuple(runs), start_losses=start,
        bottoms=tuple(plan.bottoms(start, runs)), cost=cost,
        share=cost / (FORWARDS_PER_STEP * plan.total_steps), seconds=seconds, given=plan.given, fallback=fallback,
        notes=tuple(notes), shortfall=lowered,
    )  # fmt: skip


def _check_share(budget: float) -> float:
    if not 0 < budget <= 10:
        raise ValueError(
            f"budget is the share of the run's own cost that the search may take, above 0; got {budget}. 0.1 lets it "
            "take as much as a tenth of the run."
        )
    return float(budget)


def _check_clip(clip: float | None) -> float | None:
    if clip is not None and not clip > 0:
        raise ValueError(f"clip is the largest norm of the gradient, above 0; got {clip}. Leave it out for none.")
    return clip
