"""What an optimizer has beside the state of its parameters: optimizers within it, its own numbers, objects."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

_PLAIN = (bool, int, float, str, type(None), Tensor)


def nested(optimizer: Optimizer) -> list[Optimizer]:
    """The optimizer and those that it wraps, however deep."""
    found = [optimizer]
    for part in found:
        values = [value for held in vars(part).values() for value in (held if type(held) is list else [held])]
        held = [value for value in values if isinstance(value, Optimizer)]
        found += [inner for inner in held if all(inner is not known for known in found)]
    return found


def objects_of(optimizer: Optimizer) -> list[Any]:
    """The `nested` ones, and the objects with attributes that they hold in their own or in their state."""
    found: list[Any] = list(nested(optimizer))
    known = set(map(id, found))
    for part in found:  # it grows on the way
        for value in _within(list(vars(part).values())):
            if id(value) not in known and _is_helper(value):
                known.add(id(value))
                found.append(value)
    return found


def inner_state(outer: Optimizer, inner: Optimizer) -> list[tuple[Tensor, dict[str, Any]]]:
    """The state of the parameters of an ``inner`` optimizer that is not the ``outer`` one's state as well."""
    if inner is outer:
        return []
    held = [p for group in inner.param_groups for p in group["params"]]
    own = [(p, inner.state.get(p, {})) for p in held]
    made = [(p, state) for p, state in own if state]
    return [] if made and all(outer.state.get(p) is state for p, state in made) else own


def named_state(optimizer: Optimizer) -> dict[str, Any]:
    """Entries of its state under a name: MADGRAD counts its steps in one."""
    state: dict[Any, Any] = optimizer.state
    return {key: value for key, value in state.items() if isinstance(key, str)}


def plain_attributes(optimizer: Optimizer) -> dict[str, Any]:
    """Its own numbers, texts, tensors, and containers of those."""
    return {key: value for key, value in vars(optimizer).items() if key not in _torchs_own() and _is_plain(value)}


@functools.cache
def _torchs_own() -> frozenset[str]:
    """What every optimizer has: groups and state, which are kept elsewhere, hooks, and torch's own marks."""
    # Asked for where there is an optimizer already: the first one that a process makes has torch import its compiler.
    return frozenset(vars(Optimizer([torch.zeros((), device="cpu")], {}))) | {"_opt_called"}


def _is_plain(value: Any) -> bool:
    if type(value) in {list, tuple}:
        return all(map(_is_plain, value))
    if type(value) is dict:
        return all(isinstance(key, str) and _is_plain(inner) for key, inner in value.items())
    return type(value) in _PLAIN


def _is_helper(value: Any) -> bool:
    if isinstance(value, (Optimizer, LRScheduler)):
        return True
    of_a_library = type(value).__module__.partition(".")[0] in {
        "torch",
        "builtins",
        "numpy",
        "functools",
        "collections",
    }
    return hasattr(value, "__dict__") and not of_a_library and not isinstance(value, (Tensor, nn.Module, type))


def _within(values: list[Any]) -> Iterator[Any]:
    """All that lies in containers, however deep."""
    for value in values:
        if isinstance(value, dict):
            yield from _within(list(value.values()))
        elif type(value) in {list, tuple, set}:
            yield from _within(list(value))
        else:
            yield value
