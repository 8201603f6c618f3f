"""What the frameworks' files share: a scheduler that only tells the rate, and runs that go on from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from autolr.measure.whole_state import held_tensors
from autolr.optimizer import AutoLR
from autolr.schedules import PeakSchedule

HOOK = "_autolr_follows"  # where an optimizer keeps the handle of the schedule that steps with it


class ReportedRate(LRScheduler):
    """Stands where a framework keeps a scheduler: it sets nothing, and `get_last_lr` tells the optimizer's own rate.

    Between an optimizer's step and its own `step` that is the rate of the step just taken, as with any scheduler.

    Args:
        optimizer: whose rates it tells: the wrapped one, by whose class loggers name it.
        replaced: the scheduler that stood there. Its state goes into checkpoints, untouched, so that they can be read
            without us.
    """

    def __init__(self, optimizer: Optimizer, replaced: Any = None) -> None:
        # Not LRScheduler.__init__: it would set the rate, and patch the optimizer's step.
        self.optimizer, self.replaced = optimizer, replaced
        self.last_epoch = 0
        self._told = self._rates()
        optimizer.register_step_pre_hook(self._about_to_step)

    def _rates(self) -> list[float]:
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def _about_to_step(self, *_: Any) -> None:
        self._told = self._rates()

    def step(self, *_: Any, **__: Any) -> None:
        """Whatever is passed: nothing is set."""
        self.last_epoch += 1
        self._told = self._rates()

    def get_last_lr(self) -> list[float | Tensor]:
        """The rate of each group."""
        return list(self._told)

    def state_dict(self) -> dict[str, Any]:
        """The replaced scheduler's."""
        return {} if self.replaced is None else dict(self.replaced.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Likewise."""
        if self.replaced is not None and state_dict:
            self.replaced.load_state_dict(state_dict)


def follow(optimizer: Optimizer, peak: float, total_steps: int, taken: int = 0) -> PeakSchedule:
    """A `PeakSchedule` that steps whenever the optimizer does, in the place of one set so before.

    Args:
        optimizer: whose rates it sets, the innermost one.
        peak: [lr] of the schedule.
        total_steps: of the schedule.
        taken: how many of them are taken already.
    """
    for group in optimizer.param_groups:  # of an optimizer that is made anew within a run: torch asks for it
        rate = group["lr"]
        group.setdefault("initial_lr", rate.clone() if isinstance(rate, Tensor) else rate)
    schedule = PeakSchedule(optimizer, peak, total_steps, taken - 1)

    def step(*_: Any) -> None:
        vars(optimizer)["_opt_called"] = True  # torch's own mark, which a step begun before the schedule has not set
        schedule.step()

    if (before := vars(optimizer).get(HOOK)) is not None:
        before.remove()
    vars(optimizer)[HOOK] = optimizer.register_step_post_hook(step)
    return schedule


def given_rates(optimizer: Optimizer) -> None:
    """Set the rates that the user gave, where a scheduler has moved them since: a search begins at these."""
    for group in optimizer.param_groups:
        if "initial_lr" in group:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(group["initial_lr"])
            else:
                group["lr"] = group["initial_lr"]


def continue_run(optimizer: AutoLR, state: Mapping[str, Any], taken: int, planned: int) -> None:
    """Go on from a checkpoint: of a run with AutoLR, also of another length; or of one without, whose rest is ours.

    Args:
        optimizer: that has taken no step.
        state: its ``state_dict``, or the bare optimizer's.
        taken: optimizer steps of the framework's run before this moment.
        planned: optimizer steps of that run in all.

    Raises:
        ValueError: of another policy or seed; or nothing is left of the run.
    """
    own = state.get("autolr")
    if own is None:
        optimizer.base.load_state_dict(dict(state))
        if optimizer.policy.foreign_rate == "overwritten":
            given_rates(optimizer.base)
        optimizer.begin_after(planned - taken)
        return
    optimizer.change_length(own["total_steps"])
    optimizer.load_state_dict(dict(state))
    length = planned - (taken - own["steps"])
    if length != optimizer.total_steps and length > own["steps"]:
        optimizer.change_length(length)


def loss_in_float(loss: Tensor) -> Tensor:
    """In float32 at least: in bfloat16 the losses at two rates are often one number."""
    return loss if loss.element_size() >= 4 else loss.float()


def accumulating(each: int, base: Optimizer) -> Callable[[], tuple[bool, bool]]:
    """Tells, call by call, whether a minibatch is the first and whether it is the last of the ``each`` of a step.

    A short run that was left in the middle begins anew: it starts without gradients.
    """
    seen = [0]

    def place() -> tuple[bool, bool]:
        if all(p.grad is None for p in held_tensors(base)):
            seen[0] = 0
        seen[0] += 1
        return seen[0] % each == 1 or each == 1, seen[0] % each == 0

    return place


def whole_step(
    base: Optimizer,
    loss: Callable[[Any], Tensor],
    each: int,
    scaler: Any,
    clip: Callable[[], object],
) -> Callable[[Any], Tensor]:
    """A short run's step where it is more than ``backward`` and ``step``: ``train_step`` for `find_peak`.

    Args:
        base: the optimizer.
        loss: of a minibatch.
        each: minibatches of a step.
        scaler: a ``GradScaler``, or None.
        clip: clips the gradients, which are unscaled by then.
    """
    place = accumulating(each, base)

    def step(batch: Any) -> Tensor:
        first, last = place()
        if first:
            base.zero_grad()
        measured = loss(batch)
        part = measured / each
        (part if scaler is None else scaler.scale(part)).backward()
        if last:
            if scaler is not None:
                scaler.unscale_(base)
            clip()
            if scaler is None:
                base.step()
            else:
                scaler.step(base)
                scaler.update()
            base.zero_grad()
        return measured.detach()

    return step
