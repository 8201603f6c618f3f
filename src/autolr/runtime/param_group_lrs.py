"""The learning rates of all parameter groups, moved by one factor so that their ratios stay."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer


class ParamGroupLRs:
    """Reads and writes the ``lr`` of an optimizer's groups, be they numbers or tensors.

    "The" learning rate is the largest over the groups that were there first. Ratios are kept once and applied to it, so
    that a thousand changes do not wear them down by rounding; a group at 0 stays at 0.

    Args:
        optimizer: whose groups they are.
        told: called with the largest rate that was last set, and the largest now, where somebody else has set one.

    Raises:
        ValueError: a group without a usable ``lr``, or no group with one above 0.
    """

    def __init__(self, optimizer: Optimizer, told: Callable[[float, float], None] | None = None) -> None:
        self._optimizer, self._told = optimizer, told
        self._parameters = self._held()
        self._adopt()
        if not (self.usable and all(0 <= rate < math.inf for rate in self._written)):
            raise ValueError(
                f"The learning rates must be finite, 0 or more, and one of them above 0; got {self._written}. A rate "
                "of 0 cannot be scaled: give the optimizer a small one to begin with."
            )

    def _adopt(self) -> None:
        self._written = self._read()
        self.lr = max(self._written, default=0.0)
        if self.usable:
            self._ratios = [rate / self.lr for rate in self._written]

    @property
    def usable(self) -> bool:
        """Whether there is a rate to scale."""
        return math.isfinite(self.lr) and self.lr > 0

    def _read(self) -> list[float]:
        return [self._rate_of(group) for group in self._optimizer.param_groups]

    def _rate_of(self, group: Mapping[str, Any]) -> float:
        rate: Any = group.get("lr")
        fits = isinstance(rate, numbers.Real) and not isinstance(rate, bool)
        if isinstance(rate, Tensor):  # it is written into: whole numbers would be cut off
            fits = rate.is_floating_point() and not rate.requires_grad
        if not fits:
            raise ValueError(
                f"Every parameter group needs a learning rate to tune; got lr={rate!r:.60}. Give "
                f"{type(self._optimizer).__name__} an lr above 0: a number, or a tensor of floats without a gradient."
            )
        return float(rate)

    def others(self) -> bool:
        """Whether the optimizer has other groups, or other parameters in them, than these rates are of."""
        groups, now = len(self._optimizer.param_groups), self._held()
        known = groups == len(self._written) and len(now) == len(self._parameters)
        return not known or any(map(operator.is_not, now, self._parameters))

    def _held(self) -> list[Tensor]:
        return [p for group in self._optimizer.param_groups for p in group["params"]]

    def taken(self) -> float:
        """The largest rate there is now, whoever set it; of rates on a device, to be waited for, the one set last."""
        rates = [group["lr"] for group in self._optimizer.param_groups]
        if any(isinstance(rate, Tensor) and rate.device.type != "cpu" for rate in rates):
            return self.lr
        return max(self._read(), default=0.0)

    def set(self, lr: float) -> None:
        """Make ``lr`` the largest rate. Nothing is written where nothing changes.

        Raises:
            ValueError: it is not above 0, or not finite.
        """
        if not 0 < lr < math.inf:
            raise ValueError(
                f"A policy asked for a learning rate of {lr}. It must be finite and above 0: a rate of 0 cannot be "
                "scaled any more."
            )
        if lr == self.lr and self._read() == self._written:
            return
        for group, ratio in zip(self._optimizer.param_groups, self._ratios, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr * ratio)  # in place: a compiled or captured step reads this very tensor
            else:
                group["lr"] = lr * ratio
        self.lr, self._written = lr, self._read()

    def hold(self, lr: float) -> None:
        """Make ``lr`` the largest rate whatever somebody else has set since; that is told, and overwritten."""
        now = self._read()
        if now != self._written and self._told is not None:
            self._told(self.lr, max(now, default=0.0))
        self.set(lr)

    def foreign(self) -> tuple[float, float] | None:
        """Whether somebody else changed a rate since it was last set: (largest then, largest now), and adopt it."""
        if self._read() == self._written:
            return None
        before = self.lr
        self._adopt()
        return before, self.lr

    def check(self) -> bool:
        """Notice a rate that somebody else set; and whether there is one to scale: a rate of 0 moves nothing."""
        if (changed := self.foreign()) is not None and self._told is not None:
            self._told(*changed)
        return self.usable

    def regroup(self, *, keep: bool = False) -> None:
        """Take the optimizer's present groups on, each at its present rate.

        To ``keep`` the rate that of the groups of before, where these are as they were: a new group with a higher one
        keeps its ratio to them, and lowers none of them.

        Raises:
            ValueError: one has no usable ``lr``. All is then as before.
        """
        taken = ParamGroupLRs(self._optimizer, self._told)
        if keep and self.usable and taken._written[: len(self._written)] == self._written:
            taken.lr, taken._ratios = self.lr, [rate / self.lr for rate in taken._written]
        vars(self).update(vars(taken))

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, for a checkpoint."""
        return {"lr": self.lr, "ratios": list(self._ratios), "written": list(self._written)}

    def prepare(self, own: Mapping[str, Any]) -> Callable[[], None]:
        """What continues from a checkpoint, the optimizer's own being loaded then; nothing is changed before.

        Raises:
            KeyError, TypeError, ValueError: it is not of this form.
        """
        state = own["rates"]
        lr, ratios, written = float(state["lr"]), list(map(float, state["ratios"])), list(map(float, state["written"]))
        if not len(ratios) == len(written) == len(self._optimizer.param_groups):
            raise ValueError(f"{len(ratios)} rates for {len(self._optimizer.param_groups)} parameter groups")

        def take() -> None:
            self.lr, self._ratios, self._written = lr, ratios, written

        return take
