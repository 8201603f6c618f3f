"""An optimizer that is another one seen from outside: LR schedulers, scalers and trainers take it for the real one."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer

from autolr.runtime.together import without_schedulers


class WrappedOptimizer(Optimizer):
    """``param_groups``, ``state``, ``defaults`` and hooks are the base's own; nothing is copied, nothing is added.

    It does not expose the base's ``_step_supports_amp_scaling``: a GradScaler would hand the scale of the gradients to
    this object, where a fused base does not look for it.
    """

    def __init__(self, base: Optimizer) -> None:
        # Not Optimizer.__init__: the groups are the base's. Hooks are registered there, so that they fire once.
        self.base = base
        vars(self).update({name: value for name, value in vars(base).items() if name.startswith("_optimizer_")})

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The wrapped optimizer's parameter groups."""
        return self.base.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self.base.param_groups = groups

    @property
    def state(self) -> Any:
        """The wrapped optimizer's state."""
        return self.base.state

    @state.setter
    def state(self, state: Any) -> None:
        self.base.state = state

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        """The wrapped optimizer's defaults."""
        return self.base.defaults

    @property
    def optimizer(self) -> Optimizer:
        """The wrapped optimizer, under the name by which frameworks look for it."""
        return self.base

    def __getattr__(self, name: str) -> Any:
        # Frameworks look whether an optimizer has these two, and schedule-free ones need them called.
        if name in {"train", "eval"} and "base" in vars(self):
            return getattr(self.base, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As the wrapped optimizer does."""
        self.base.zero_grad(set_to_none=set_to_none)

    def __getstate__(self) -> dict[str, Any]:
        # To be copied with its model; Optimizer's own keeps only what a plain one has.
        return without_schedulers(vars(self))

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
