"""Which optimizers can be tuned, and what AutoLR's own arguments may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from autolr.measure.sharded import PIPELINE, check_sharding, reshard
from autolr.measure.snapshot import held_parameters
from autolr.policies import Policy
from autolr.policies.settings import check_count
from autolr.runtime.distributed import alike
from autolr.runtime.together import Together
from autolr.unsupported import why_not

SEARCH = ("accumulation", "train_step", "also", "evaluation")  # what a search may be told beside the run
ASKED = [name for name in vars(Policy) if not name.startswith("_")]


def check_optimizer(base: Optimizer, model: nn.Module) -> None:
    """Refuse what cannot be tuned.

    Raises:
        TypeError: not a module, or one that is spread over ranks as no probe can follow; not an optimizer, or one whose
            step is not in proportion to its learning rate.
        ValueError: the optimizer holds parameters that are not the model's.
    """
    if type(model).__module__.startswith("torch.distributed.pipelining"):
        raise TypeError(f"A {type(model).__name__} cannot be tuned: {PIPELINE}")
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module; got {type(model).__name__}.")
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise TypeError(
            "model must not be, or hold, a torch.jit.ScriptModule, whose attributes cannot be put back; got "
            f"{type(model).__name__}. Tune the module that it was made from."
        )
    if not isinstance(base, Optimizer):
        raise TypeError(
            f"base must be a torch.optim.Optimizer, made before it is wrapped; got {type(base).__name__}. For instance "
            "AutoLR(torch.optim.SGD(model.parameters(), lr=0.1), model, ...)."
        )
    if type(base).__module__.startswith("accelerate."):
        raise TypeError(
            f"base is prepared already: got {type(base).__name__}, whose steps that only accumulate would be counted. "
            "Wrap the bare optimizer and prepare the AutoLR, with total_steps from the prepared loader's length; or "
            "let autolr.integrations.accelerate.prepare do both."
        )
    for optimizer in base.optimizers if isinstance(base, Together) else [base]:
        if (reason := why_not(optimizer)) is not None:
            raise TypeError(f"{type(optimizer).__name__} cannot be tuned: {reason}")
    check_sharding(model)
    check_held(base, model)
    if not alike(repr([(name, tuple(p.shape)) for name, p in model.named_parameters()])):
        raise TypeError(f"The ranks have different parameters, as the stages of a pipeline do: {PIPELINE}")


def check_held(base: Optimizer, model: nn.Module) -> None:
    """Refuse an optimizer that holds parameters which are not the model's.

    Raises:
        ValueError: it does.
    """
    reshard(model)  # after a user's own forward pass without gradients, parameters() may be the gathered copies
    own = {id(p) for p in model.parameters()}
    strangers = sum(id(p) not in own for p in held_parameters(base))
    if strangers:
        raise ValueError(
            f"base holds {strangers} parameters that are not the model's: a probe would move them without effect on "
            "loss_fn(model, batch). Pass the module that has all of the optimizer's parameters."
        )


def check_policy(policy: Any) -> Policy:
    """``policy`` if it can be asked as one.

    Raises:
        TypeError: a class, or something without a policy's methods.
    """
    if isinstance(policy, type):
        raise TypeError(f"policy must be a policy, not its class; got {policy.__name__}. Pass {policy.__name__}().")
    missing = [name for name in ASKED if not hasattr(policy, name)]
    if missing:
        raise TypeError(
            f"policy must have {', '.join(missing)}; got {policy!r}. Pass for instance PeakSearch(), "
            "ExploreExploit.from_paper('cifar10') or Monitor()."
        )
    return policy  # type: ignore[no-any-return]


def check_search(search: Mapping[str, Any] | None) -> dict[str, Any]:
    """Further arguments of a policy's search.

    Raises:
        TypeError: not a mapping, or other names than `SEARCH`.
    """
    if not isinstance(search, Mapping | None):
        raise TypeError(f"search must be a mapping of find_peak's arguments; got {type(search).__name__}.")
    unknown = sorted(set(search or ()) - set(SEARCH))
    if unknown:
        raise TypeError(f"search may hold {', '.join(SEARCH)}; got {', '.join(map(str, unknown))}.")
    return dict(search or {})


__all__ = ["check_count", "check_held", "check_optimizer", "check_policy", "check_search"]
