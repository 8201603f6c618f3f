"""Capture and restore all that a look or a rollback can change. The only file that writes training tensors by hand.

A look changes parameters, buffers and random number generators for a moment: `undisturbed`. A rollback goes back a
whole window: `Snapshot`.
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
from torch.nn.parallel import DistributedDataParallel
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


class Kept:
    """A model's buffers and parameters as training left them, and the way back."""

    def __init__(self, model: nn.Module) -> None:
        # Also of modules that have no buffer yet: a forward pass may make one.
        self._registered = [(module._buffers, dict(module._buffers)) for module in model.modules()]
        held = {id(b): b for _, names in self._registered for b in names.values() if b is not None}
        self._buffers = [(b, b.detach().clone()) for b in held.values()]
        self._parameters = {id(p): (p, p._version, p.detach().clone()) for p in model.parameters()}

    def value(self, parameter: Tensor) -> Tensor:
        """The value that training left in a parameter; to be read only."""
        return self._parameters[id(parameter)][2]

    def restore_buffers(self) -> None:
        """Put every buffer back: values, shapes, and which tensor stood under each name."""
        for now, then in self._registered:
            if [(k, id(b)) for k, b in now.items()] != [(k, id(b)) for k, b in then.items()]:
                now.clear()
                now.update(then)
        with torch.no_grad():
            for buffer, value in self._buffers:
                if buffer.shape != value.shape:  # sized by the forward pass
                    buffer.resize_(value.shape)
                buffer.copy_(value)

    def restore_parameters(self) -> None:
        """Put back what a look moved, or what a forward pass itself writes (``nn.Embedding(max_norm=...)``)."""
        moved = [(p, value) for p, version, value in self._parameters.values() if p._version != version]
        copy_into([p for p, _ in moved], [value for _, value in moved])


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[Kept]:
    """Whatever happens inside, parameters, buffers and random number generators are back to the bit afterwards.

    Inside, gradients are off, and so is autocast's weight cache: it would answer a changed weight with the old output.
    Yields what is kept, for a caller that wants buffers fresh between two forward passes.
    """
    with contextlib.ExitStack() as after:  # each step back is taken, whatever becomes of the others
        for generator in (torch.default_generator, *_accelerators()):
            after.callback(generator.set_state, generator.get_state())
        after.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002
        after.callback(random.setstate, random.getstate())
        after.callback(torch.set_autocast_cache_enabled, torch.is_autocast_cache_enabled())
        for module in model.modules():
            if isinstance(module, DistributedDataParallel):
                # A forward pass without gradients tells DDP to skip the next broadcast of buffers, which is training's.
                after.callback(setattr, module, _SYNC, getattr(module, _SYNC))
        kept = Kept(model)
        after.callback(kept.restore_parameters)
        after.callback(kept.restore_buffers)
        after.callback(torch.clear_autocast_cache)
        torch.set_autocast_cache_enabled(False)
        with torch.no_grad():
            yield kept


_SYNC = "require_forward_param_sync"


class Snapshot:
    """Parameters, buffers and optimizer state at one moment, copied to the host."""

    def __init__(
        self,
        parameters: list[Tensor],
        buffers: list[dict[str, Tensor | None]],
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
            buffers=[_to_host(module._buffers) for module in model.modules()],
            # `.get`: state is a defaultdict, and asking it must not make an entry that was not there.
            state=[_to_host(optimizer.state.get(p, {})) for p in held],
            groups=[
                {k: _to_host(v) if isinstance(v, Tensor) else v for k, v in group.items() if k != "params"}
                for group in optimizer.param_groups
            ],
        )

    def restore(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Write everything back, in place where there is a tensor to write into.

        Not by ``optimizer.load_state_dict``: it aliases the tensors it is given, so that a second restore of the same
        snapshot would find it overwritten, and it casts the state to the parameters' precision.
        """
        held = held_parameters(optimizer)
        copy_into(held, self.parameters)
        device = held[0].device
        for module, buffers in zip(model.modules(), self.buffers, strict=True):
            _restore_dict(module._buffers, buffers, device)
        for parameter, saved in zip(held, self.state, strict=True):
            if saved:
                _restore_dict(optimizer.state[parameter], saved, parameter.device)
            else:  # before its first step an optimizer has no state, and tells so by its absence
                optimizer.state.pop(parameter, None)
        for group, saved in zip(optimizer.param_groups, self.groups, strict=True):
            for key, value in saved.items():
                if isinstance(value, Tensor):
                    copy_into([group[key]], [value])
                else:
                    group[key] = value

    def state_dict(self) -> dict[str, Any]:
        """Plain containers and tensors, for a checkpoint."""
        return {"parameters": self.parameters, "buffers": self.buffers, "state": self.state, "groups": self.groups}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Snapshot:
        """A snapshot of its own: what it was made from may change afterwards."""
        return cls(**copy.deepcopy(state))


def _to_host(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    return {k: _to_host(v) for k, v in value.items()} if isinstance(value, dict) else copy.deepcopy(value)


def _restore_dict(now: dict[str, Any], saved: dict[str, Any], device: torch.device) -> None:
    for key in [k for k in now if k not in saved]:
        del now[key]
    for key, value in saved.items():
        current = now.get(key)
        if not isinstance(value, Tensor):
            now[key] = copy.deepcopy(value)
        elif isinstance(current, Tensor) and current.shape == value.shape and current.dtype == value.dtype:
            copy_into([current], [value])
        else:
            now[key] = value.to(current.device if isinstance(current, Tensor) else device, copy=True)
