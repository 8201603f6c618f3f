"""Capture and restore all that a look or a rollback can change. The only file that writes training tensors by hand.

A look changes parameters, buffers and random number generators for a moment: `undisturbed`. A rollback goes back a
whole window: `Snapshot`.
"""

from __future__ import annotations

import collections
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
    """What a forward pass may change in a model, as training left it, and the way back.

    Args:
        model: with buffers, and modules that keep count in plain attributes.
        written: the tensors beside buffers that a forward pass writes into (``nn.Embedding(max_norm=...)``); all that
            it could write into, where that is not known yet.
    """

    def __init__(self, model: nn.Module, written: Sequence[Tensor] | None = None) -> None:
        # Also of modules that have no buffer yet: a forward pass may make one.
        self._registered = [(module._buffers, dict(module._buffers)) for module in model.modules()]
        held = {id(b): b for _, names in self._registered for b in names.values() if b is not None}
        self._buffers = [(b, b.detach().clone()) for b in held.values()]
        self._plain = [PlainState(vars(module)) for module in model.modules() if not isinstance(module, _OWN_AFFAIRS)]
        watched = _unregistered(model) if written is None else written
        self._written = [(t, t._version, t.detach().clone()) for t in watched]

    def restore(self) -> None:
        """Put back every buffer (values, shapes, which tensor stood under each name) and every plain attribute."""
        for now, then in self._registered:
            if [(k, id(b)) for k, b in now.items()] != [(k, id(b)) for k, b in then.items()]:
                now.clear()
                now.update(then)
        with torch.no_grad():
            for buffer, value in self._buffers:
                if buffer.shape != value.shape:  # sized by the forward pass
                    buffer.resize_(value.shape)
                buffer.copy_(value)
        for plain in self._plain:
            plain.restore()

    def restore_written(self) -> None:
        """Put back the tensors that forward passes wrote into."""
        written = [(t, value) for t, version, value in self._written if t._version != version]
        copy_into([t for t, _ in written], [value for _, value in written])

    def written(self) -> list[Tensor]:
        """Those of the watched tensors that were written into since."""
        return [t for t, version, _ in self._written if t._version != version]


class PlainState:
    """The attributes of a module that are plain values, lists and such of them, or generators: its counts and caches.

    What they hold is kept one level deep.
    """

    def __init__(self, attributes: dict[str, Any]) -> None:
        self._attributes = attributes
        self._kept = {k: (v, _contents(v)) for k, v in attributes.items() if _is_plain(k, v)}

    def restore(self) -> None:
        """Put every value and its contents back; what was not there is gone."""
        for name in [k for k, v in self._attributes.items() if k not in self._kept and _is_plain(k, v)]:
            del self._attributes[name]
        for name, (value, contents) in self._kept.items():
            if self._attributes.get(name, _ABSENT) is not value:
                self._attributes[name] = value
            if contents is not None:
                _refill(value, contents)


_ABSENT = object()
_VALUES = (bool, int, float, complex, str, bytes, tuple, type(None), Tensor)
_CONTAINERS = (
    list,
    dict,
    set,
    collections.deque,
    collections.Counter,
    collections.OrderedDict,
    collections.defaultdict,
)
_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_PLAIN = frozenset({*_VALUES, *_CONTAINERS, *_GENERATORS})
_TORCHS_OWN = frozenset(vars(nn.Module())) | {"_is_full_backward_hook"}
_OWN_AFFAIRS = (DistributedDataParallel,)  # what it keeps count of, it must not be told twice; see _SYNC


def _is_plain(name: str, value: Any) -> bool:
    return name not in _TORCHS_OWN and type(value) in _PLAIN


def _contents(value: Any) -> Any:
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, np.random.Generator):
        return copy.deepcopy(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return value.get_state()
    if isinstance(value, random.Random):
        return value.getstate()
    return copy.copy(value) if type(value) in _CONTAINERS else None


def _refill(value: Any, contents: Any) -> None:
    if isinstance(value, torch.Generator | np.random.RandomState):
        value.set_state(contents)
    elif isinstance(value, np.random.Generator):
        value.bit_generator.state = contents
    elif isinstance(value, random.Random):
        value.setstate(contents)
    else:
        value.clear()
        value.extend(contents) if isinstance(value, list | collections.deque) else value.update(contents)


def _unregistered(model: nn.Module) -> list[Tensor]:
    """Parameters, and tensors that are plain attributes."""
    plain = [v for module in model.modules() for k, v in vars(module).items() if isinstance(v, Tensor)]
    return list({id(t): t for t in (*model.parameters(), *plain)}.values())


_underway = False


def looking() -> bool:
    """Whether a forward pass is a look's and not training's: for a hook or a module that keeps its own books.

    What a look changes in parameters, buffers and modules' plain attributes is put back. What a hook writes elsewhere
    is not: ``if autolr.looking(): return`` in its first line leaves looks out.
    """
    return _underway


def _set_underway(value: bool) -> None:
    global _underway  # noqa: PLW0603 - one process, one look at a time
    _underway = value


@contextlib.contextmanager
def undisturbed(model: nn.Module, written: Sequence[Tensor] | None = None) -> Iterator[Kept]:
    """Whatever happens inside, the model's buffers and plain attributes and all random generators are back afterwards.

    So are the ``written`` tensors; without them, all parameters that a forward pass wrote into. Inside, gradients are
    off, and so is autocast's weight cache: it would answer a changed weight with the old output. Yields what is kept,
    for a caller that wants it fresh between two forward passes.
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
        kept = Kept(model, written)
        after.callback(kept.restore_written)
        after.callback(kept.restore)
        after.callback(torch.clear_autocast_cache)
        torch.set_autocast_cache_enabled(False)
        after.callback(_set_underway, _underway)
        _set_underway(True)
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
        self._written: torch.cuda.Event | None = None  # when the queued copies are there

    @classmethod
    def capture(cls, model: nn.Module, optimizer: Optimizer) -> Snapshot:
        """Copy everything; the training goes on with its own tensors.

        From a GPU the copies are queued into pinned memory behind the work that is queued already, and nobody waits
        for them: the next step, queued behind them, cannot overtake.
        """
        held = held_parameters(optimizer)
        captured = cls(
            parameters=[_to_host(p) for p in held],
            buffers=[_to_host(module._buffers) for module in model.modules()],
            # `.get`: state is a defaultdict, and asking it must not make an entry that was not there.
            state=[_to_host(optimizer.state.get(p, {})) for p in held],
            groups=[
                {k: _to_host(v) if isinstance(v, Tensor) else v for k, v in group.items() if k != "params"}
                for group in optimizer.param_groups
            ],
        )
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            captured._written = torch.cuda.Event()  # type: ignore[no-untyped-call]
            captured._written.record()
        return captured

    def _wait(self) -> None:
        if self._written is not None:
            self._written.synchronize()

    def restore(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Write everything back, in place where there is a tensor to write into.

        Not by ``optimizer.load_state_dict``: it aliases the tensors it is given, so that a second restore of the same
        snapshot would find it overwritten, and it casts the state to the parameters' precision.
        """
        self._wait()
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
        self._wait()
        return {"parameters": self.parameters, "buffers": self.buffers, "state": self.state, "groups": self.groups}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Snapshot:
        """A snapshot of its own: what it was made from may change afterwards."""
        return cls(**copy.deepcopy(state))


def _to_host(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_cuda:
        pinned = torch.empty_like(value, device="cpu", pin_memory=True)  # torch keeps freed ones for the next window
        return pinned.copy_(value.detach(), non_blocking=True)
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
