"""Capture and restore all that a look or a rollback can change. The only file that writes training tensors by hand.

A look changes parameters, buffers and random number generators for a moment: `undisturbed` and `restored`. A rollback
goes back a whole window: `Snapshot`.
"""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def held_parameters(optimizer: Optimizer) -> list[Tensor]:
    """The parameters an optimizer holds, in the order of its groups."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def copy_into(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Write ``sources`` into ``targets`` in place: addresses stay, for compiled and captured graphs."""
    with torch.no_grad():
        for target, source in zip(targets, sources, strict=True):
            target.detach().copy_(source)


def _accelerators() -> list[torch.Generator]:
    # Asking an uninitialised CUDA for its generators would initialise it, and seeding it queues a call for later.
    return list(torch.cuda.default_generators) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]


def seed_all(*key: int) -> None:
    """Seed every generator that a forward pass or a data set may draw from with one key; call inside `undisturbed`."""
    words = np.random.SeedSequence(key).generate_state(2)
    seed = int(words[0]) << 32 | int(words[1])
    random.seed(seed)
    np.random.seed(words)  # noqa: NPY002 - the user's transforms may draw from the legacy generator
    for generator in (torch.default_generator, *_accelerators()):
        generator.manual_seed(seed)


class Buffers:
    """A model's buffers, and the way back to them: values, and which tensor stood under each name."""

    def __init__(self, model: nn.Module) -> None:
        self._registered = [(module._buffers, dict(module._buffers)) for module in model.modules() if module._buffers]
        tensors = {id(b): b for _, held in self._registered for b in held.values() if b is not None}
        self._tensors = list(tensors.values())
        self._values = [b.detach().clone() for b in self._tensors]

    def restore(self) -> None:
        """Put every buffer back, also one that a forward pass replaced instead of writing into it."""
        for now, then in self._registered:
            if [(k, id(b)) for k, b in now.items()] != [(k, id(b)) for k, b in then.items()]:
                now.clear()
                now.update(then)
        copy_into(self._tensors, self._values)


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[Buffers]:
    """Whatever happens inside, random number generators and buffers are back to the bit afterwards.

    Inside, gradients are off, and so is autocast's weight cache: it would answer a changed weight with the old output.
    Yields the buffers, for a caller that wants them fresh between two forward passes.
    """
    generators = [torch.default_generator, *_accelerators()]
    torch_states = [generator.get_state() for generator in generators]
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    cached = torch.is_autocast_cache_enabled()
    buffers = Buffers(model)
    torch.set_autocast_cache_enabled(False)
    try:
        with torch.no_grad():
            yield buffers
    finally:
        buffers.restore()
        torch.set_autocast_cache_enabled(cached)
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        for generator, state in zip(generators, torch_states, strict=True):
            generator.set_state(state)


class Snapshot:
    """Parameters, buffers and optimizer state at one moment, copied to the host."""

    def __init__(
        self,
        parameters: list[Tensor],
        buffers: dict[str, Tensor],
        state: list[dict[str, Any]],
        groups: list[dict[str, Any]],
    ) -> None:
        self.parameters, self.buffers, self.state, self.groups = parameters, buffers, state, groups

    @classmethod
    def capture(cls, model: nn.Module, optimizer: Optimizer) -> Snapshot:
        """Copy everything; the training goes on with its own tensors."""
        held = held_parameters(optimizer)
        return cls(
            parameters=[_to_host(p) for p in held],
            buffers={name: _to_host(b) for name, b in model.named_buffers()},
            # `.get`: state is a defaultdict, and asking it must not make an entry that was not there.
            state=[{k: _to_host(v) for k, v in optimizer.state.get(p, {}).items()} for p in held],
            groups=[{k: _to_host(v) for k, v in group.items() if k != "params"} for group in optimizer.param_groups],
        )

    def restore(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Write everything back, in place where there is a tensor to write into.

        Not by ``optimizer.load_state_dict``: it aliases the tensors it is given, so that a second restore of the same
        snapshot would find it overwritten, and it casts the state to the parameters' precision.
        """
        held = held_parameters(optimizer)
        copy_into(held, self.parameters)
        buffers = dict(model.named_buffers())
        copy_into([buffers[name] for name in self.buffers], list(self.buffers.values()))
        for parameter, saved in zip(held, self.state, strict=True):
            if saved:
                _restore_dict(optimizer.state[parameter], saved, parameter.device)
            else:  # before its first step an optimizer has no state, and tells so by its absence
                optimizer.state.pop(parameter, None)
        for group, saved in zip(optimizer.param_groups, self.groups, strict=True):
            _restore_dict(group, saved, torch.device("cpu"))

    def state_dict(self) -> dict[str, Any]:
        """Plain containers and tensors, for a checkpoint."""
        return {
            "parameters": self.parameters,
            "buffers": self.buffers,
            "state": self.state,
            "groups": self.groups,
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Snapshot:
        """A snapshot of its own: what it was made from may change afterwards."""
        return cls(**copy.deepcopy(state))


def _to_host(value: Any) -> Any:
    return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else copy.deepcopy(value)


def _restore_dict(now: dict[str, Any], saved: dict[str, Any], device: torch.device) -> None:
    for key in [k for k in now if k not in saved and k != "params"]:
        del now[key]
    for key, value in saved.items():
        current = now.get(key)
        if not isinstance(value, Tensor):
            now[key] = copy.deepcopy(value)
        elif isinstance(current, Tensor) and current.shape == value.shape and current.dtype == value.dtype:
            copy_into([current], [value])
        else:
            now[key] = value.to(device, copy=True)
