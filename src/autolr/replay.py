"""The rates of a run that is over, given to another one: no search, no probes, any loop."""

from __future__ import annotations

import os

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from autolr.policies.settings import check_count
from autolr.runtime.replayed_rates import logged_rates, stretched


class Replay(LRScheduler):
    """The rate of every step as a run's log tells it, as a torch scheduler. Call ``step()`` after each optimizer step.

    All parameter groups keep the ratios of their rates; the largest becomes the logged one. With the optimizer, data
    and seeds of the logged run, training is that run again, to the bit, unless something was rolled back in it. After
    the last step the last rate stays.

    Args:
        optimizer: whose rates it sets.
        log: the file that ``AutoLR(..., trace=log)`` wrote.
        total_steps: of this run, where it is to be longer or shorter than the logged one: the rates are stretched.
        last_epoch: steps taken so far less one, where a run goes on without its scheduler's ``state_dict``.

    Raises:
        OSError: the log cannot be read.
        TypeError: ``total_steps`` is no whole number.
        ValueError: it is below 1, or the log does not tell the rate of every step, or no group has a rate above 0.

    Examples:
        >>> import torch, autolr
        >>> weight = torch.nn.Parameter(torch.ones(1))
        >>> optimizer = torch.optim.SGD([weight], lr=0.1)
        >>> scheduler = autolr.Replay(optimizer, "run.jsonl", total_steps=2_000)  # doctest: +SKIP
    """

    def __init__(
        self, optimizer: Optimizer, log: str | os.PathLike[str], total_steps: int | None = None, last_epoch: int = -1
    ) -> None:
        steps = None if total_steps is None else check_count("total_steps", total_steps)
        self.rates = logged_rates(log)
        self.total_steps = len(self.rates) if steps is None else steps
        if not any(float(group.get("initial_lr", group["lr"])) > 0 for group in optimizer.param_groups):
            raise ValueError("One parameter group at least needs a rate above 0: their ratios are kept.")
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """The rate of each group at the coming step."""
        bases = [float(base) for base in self.base_lrs]
        rate = stretched(self.rates, self.last_epoch + 1, self.total_steps)
        return [rate * (base / max(bases)) for base in bases]
