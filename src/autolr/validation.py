"""Which optimizers can be tuned, and what AutoLR's own arguments may be."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any, SupportsIndex

from torch import nn
from torch.optim import Optimizer

from autolr.policies import Policy, SteeringPolicy
from autolr.measure.snapshot import held_parameters

UNSUPPORTED = {
    "LBFGS": "it searches along its own step and needs a closure",
    "SparseAdam": "it moves only the rows that a minibatch touched",
    "Adafactor": "its step is bounded by 1/sqrt(t), whatever the learning rate",
    "Rprop": "its steps do not depend on the learning rate after the first one",
}


def check_optimizer(base: Optimizer, model: nn.Module) -> None:
    """Refuse what cannot be tuned.

    Raises:
        TypeError: not a module, not an optimizer, or one whose step is not in proportion to its learning rate.
        ValueError: the optimizer holds parameters that are not the model's.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module; got {type(model).__name__}.")
    if not isinstance(base, Optimizer):
        raise TypeError(
            f"base must be a torch.optim.Optimizer, made before it is wrapped; got {type(base).__name__}. For instance "
            "AutoLR(torch.optim.SGD(model.parameters(), lr=0.1), model, ...)."
        )
    for kind in type(base).__mro__:
        if kind.__module__.startswith("torch.optim") and kind.__name__ in UNSUPPORTED:
            raise TypeError(
                f"{kind.__name__} cannot be tuned: {UNSUPPORTED[kind.__name__]}. Wrap an optimizer whose step is in "
                "proportion to its lr: SGD, Adam, AdamW, RMSprop, Adagrad and most others."
            )
    check_held(base, model)


def check_held(base: Optimizer, model: nn.Module) -> None:
    """Refuse an optimizer that holds parameters which are not the model's.

    Raises:
        ValueError: it does.
    """
    own = {id(p) for p in model.parameters()}
    strangers = sum(id(p) not in own for p in held_parameters(base))
    if strangers:
        raise ValueError(
            f"base holds {strangers} parameters that are not the model's: a look would move them without effect on "
            "loss_fn(model, batch). Pass the module that has all of the optimizer's parameters."
        )


def check_count(name: str, value: SupportsIndex, low: int = 1) -> int:
    """``value`` if it is a whole number of at least ``low``.

    Raises:
        TypeError: not a whole number.
        ValueError: below ``low``.
    """
    try:
        count = operator.index(value)  # numpy's whole numbers too
    except TypeError:
        count = None
    if count is None or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, at least {low}; got {value!r}.")
    if count < low:
        raise ValueError(f"{name} must be at least {low}; got {value}.")
    return count


def check_window(window: SupportsIndex | None, total_steps: int, default: int) -> int:
    """``window`` as a number of steps, or the default, which is 1 at least.

    Raises:
        TypeError: not a whole number.
        ValueError: below 1, or not below ``total_steps``.
    """
    if window is None:
        return max(1, default)
    steps = check_count("window", window)
    if steps >= total_steps:
        raise ValueError(
            f"window must be below total_steps ({total_steps}), or there is never a look; got {steps}. "
            "Both count optimizer steps."
        )
    return steps


def check_policy(policy: Any) -> Policy | SteeringPolicy:
    """``policy`` if it can be asked as one, of either kind.

    Raises:
        TypeError: a class, or something without a policy's methods.
    """
    if isinstance(policy, type):
        raise TypeError(f"policy must be a policy, not its class; got {policy.__name__}. Pass {policy.__name__}().")
    asked = ("eps", "spread", "confidence", "rollback", "begin", "phase", "judge", "decide")
    missing = [name for name in asked if not hasattr(policy, name)]
    if missing and steers(policy) is None:
        raise TypeError(
            f"policy must have {', '.join(missing)}; got {policy!r}. Pass for instance ExploreExploit(), "
            "ExploreExploit.from_paper('cifar10') or Monitor()."
        )
    return policy  # type: ignore[no-any-return]


def steers(policy: Policy | SteeringPolicy, **settings: Any) -> SteeringPolicy | None:
    """``policy`` if it sets the rate of every step, None if it decides at the end of windows.

    Args:
        policy: to be asked.
        settings: what only a policy with windows has a use for; None where it was not given.

    Raises:
        ValueError: one of them was given to a policy that steers.
    """
    if not all(hasattr(policy, name) for name in ("begin", "rate", "looks", "see", "stage", "stuck", "finish")):
        return None
    for name, value in settings.items():
        if value is not None:
            raise ValueError(
                f"{type(policy).__name__} has no use for {name}: it looks along single steps, and how often is its "
                f"own affair; got {name}={value!r}. Leave it out, or take a policy with windows, such as ExploreExploit()."
            )
    return policy  # type: ignore[return-value]


def check_validation_eps(validation_eps: Any) -> tuple[float, ...]:
    """``validation_eps`` as numbers.

    Raises:
        TypeError: not a sequence of numbers.
        ValueError: one that is not finite, or below -1, before the step.
    """
    if not isinstance(validation_eps, Sequence) or not all(isinstance(e, (int, float)) for e in validation_eps):
        raise TypeError(f"validation_eps must be a sequence of numbers, in multiples of the learning rate; got {validation_eps!r}.")
    if not all(math.isfinite(e) and e >= -1 for e in validation_eps):
        raise ValueError(f"validation_eps must be finite and at least -1, which is before the step; got {validation_eps!r}.")
    return tuple(float(e) for e in validation_eps)


def check_overhead(overhead: float | None, default: float) -> float:
    """``overhead`` as a number, or the default.

    Raises:
        TypeError: not a number.
        ValueError: not above 0, or NaN.
    """
    if overhead is None:
        return default
    if isinstance(overhead, bool) or not isinstance(overhead, (int, float)):
        raise TypeError(f"overhead must be a number above 0, for instance 0.02, or math.inf; got {overhead!r}.")
    if not overhead > 0:
        raise ValueError(
            f"overhead must be above 0; got {overhead}. 0.02 lets AutoLR take 2 % of the training's own cost, "
            "math.inf all that it asks for."
        )
    return float(overhead)
