"""Capture and restore all that a probe or a rollback can change.

A probe changes random number generators, and what a forward pass writes into, for a moment: `Undisturbed`. A rollback
goes back a whole window: `Snapshot`.
"""

from __future__ import annotations

import contextlib
import copy
import random
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from autolr.measure.forward_state import ForwardState, Written, modules_of
from autolr.measure.host_copy import replace_by, to_host, write_into
from autolr.measure.in_place import copy_into
from autolr.measure.optimizer_parts import inner_state, named_state, nested, plain_attributes
from autolr.measure.put_back import WayBack
from autolr.measure.sharded import reshard


def held_parameters(optimizer: Optimizer) -> list[Tensor]:
    """The parameters an optimizer holds, in the order of its groups."""
    return [p for group in optimizer.param_groups for p in group["params"]]


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


_here = threading.local()  # of each thread: others may train models of their own


def is_probing() -> bool:
    """Whether a forward pass is a probe's and not training's: for a hook or a module that keeps its own books.

    What a probe changes in parameters, buffers and modules' plain attributes is put back. What a hook writes elsewhere
    is not: ``if autolr.is_probing(): return`` in its first line leaves probes out. Told for the thread that asks.
    """
    return getattr(_here, "probing", False)


def _set_probing(value: bool) -> None:
    _here.probing = value


class Undisturbed:
    """The `ForwardState` of a model, and of what is ``outside`` it, and all random generators, to be put back.

    So are the ``written`` parameters; where they are not known yet, all that a forward pass wrote into. Between `begin`
    and `back` gradients are off, and so is autocast's weight cache: it would answer a changed weight with the old
    output. Call them by `put_back.certainly`.

    Attributes:
        state: what is kept, for a caller that wants it fresh between two forward passes.
        back: puts all of it back; may be called again.
    """

    def __init__(self, model: nn.Module, written: Written | None = None, outside: nn.Module | None = None) -> None:
        generators = (torch.default_generator, *_accelerators())
        reshard(model)
        self.state = ForwardState(model, written, outside)
        # A forward pass without gradients tells DDP to skip the next broadcast of buffers, which is training's.
        parallel = [module for module in self.state.modules if isinstance(module, DistributedDataParallel)]
        set_numpy = np.random.set_state
        steps: list[Callable[[], object]] = [
            partial(_set_probing, is_probing()),
            partial(torch.set_grad_enabled, torch.is_grad_enabled()),
            partial(reshard, model),
            torch.clear_autocast_cache,
            self.state.restore,
            self.state.restore_parameters,
            *(partial(setattr, module, _SYNC, getattr(module, _SYNC)) for module in parallel),
            partial(torch.set_autocast_cache_enabled, torch.is_autocast_cache_enabled()),
            partial(random.setstate, random.getstate()),
            partial(set_numpy, np.random.get_state()),  # noqa: NPY002
            *(partial(generator.set_state, generator.get_state()) for generator in generators),
        ]
        self.back = WayBack(steps)

    def begin(self) -> ForwardState:
        """From here on probes are measured; what is kept."""
        torch.set_autocast_cache_enabled(False)
        _set_probing(True)
        torch.set_grad_enabled(False)
        return self.state


@contextlib.contextmanager
def undisturbed(model: nn.Module, written: Written | None = None) -> Iterator[ForwardState]:
    """`Undisturbed` around a block, for code that no signal handler's exception interrupts."""
    kept = Undisturbed(model, written)
    try:
        yield kept.begin()
    finally:
        kept.back()


_SYNC = "require_forward_param_sync"


class Snapshot:
    """Parameters, buffers and optimizer state at one moment, copied to the host.

    Parameters: those that the optimizer holds; and the model's others, where they are no larger together: an average of
    the weights moves with them, and a frozen backbone, which is larger, does not. Buffers: of all registered modules,
    and of those that modules hold in plain attributes. Optimizer state: with the groups' settings, its own numbers and
    tensors in attributes of any name, and the state of optimizers within it. Not the rest of what a forward pass may
    write into (counts, tensors and arrays in plain attributes), not random generators, not the data: they go on.

    A model may be changed after that (a pruning mask, a parametrization): what it has now and had not then stays as it
    is, and what it has no more does not come back.
    """

    def __init__(
        self,
        parameters: list[Tensor],
        buffers: dict[str, dict[str, Tensor | None]],
        state: list[dict[str, Any]],
        groups: list[dict[str, Any]],
        rest: list[dict[str, Any]],
        others: dict[str, Tensor] | None = None,
    ) -> None:
        self.parameters, self.buffers, self.state, self.groups = parameters, buffers, state, groups
        self.rest = rest  # of the optimizer and of each within it
        self.others = others or {}  # parameters that the optimizer does not hold, by name
        self._written: torch.cuda.Event | None = None  # when the queued copies are there

    @classmethod
    def capture(cls, model: nn.Module, optimizer: Optimizer) -> Snapshot:
        """Copy everything; the training goes on with its own tensors.

        From a GPU the copies are queued into pinned memory behind the work that is queued already, and nobody waits
        for them: the next step, queued behind them, cannot overtake.
        """
        held = held_parameters(optimizer)
        captured = cls(
            parameters=[to_host(p) for p in held],
            buffers={name: to_host(module._buffers) for name, module in _named(model).items() if module._buffers},
            # `.get`: state is a defaultdict, and asking it must not make an entry that was not there.
            state=[to_host(optimizer.state.get(p, {})) for p in held],
            groups=[
                {k: to_host(v) if isinstance(v, Tensor) else v for k, v in group.items() if k != "params"}
                for group in optimizer.param_groups
            ],
            rest=[
                {
                    "state": [to_host(state) for _, state in inner_state(optimizer, part)],
                    "named": to_host(named_state(part)),
                    "attributes": to_host(plain_attributes(part)),
                }
                for part in nested(optimizer)
            ],
            others=to_host(_unheld(model, held)),
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
        now = dict(model.named_parameters())
        there = {name: value for name, value in self.others.items() if name in now and now[name].shape == value.shape}
        copy_into([now[name] for name in there], list(there.values()))
        modules, device = _named(model), held[0].device
        for name, buffers in self.buffers.items():
            if name in modules:
                _restore_buffers(modules[name]._buffers, buffers, device)
        _restore_state(optimizer, held, self.state)
        for part, kept in zip(nested(optimizer), self.rest, strict=True):
            if kept["state"]:
                _restore_state(part, held_parameters(part), kept["state"])
            for key in named_state(part).keys() - kept["named"].keys():
                part.state.pop(key)
            state: Any = part.state
            write_into(state, kept["named"], device)
            plain = plain_attributes(part)
            # Where there was nothing and is an object now (a hook's handle), that stays: it is not rolled back either.
            said = {k: v for k, v in kept["attributes"].items() if k in plain or isinstance(v, Tensor) or v}
            write_into(vars(part), said, device)
        for group, saved in zip(optimizer.param_groups, self.groups, strict=True):
            for key, value in saved.items():
                if isinstance(value, Tensor):
                    copy_into([group[key]], [value])
                else:
                    group[key] = value

    def check(self, optimizer: Optimizer) -> None:
        """Whether it can be this optimizer's.

        Raises:
            ValueError: it is of other parameters.
        """
        held = held_parameters(optimizer)
        shapes = [p.shape for p in held], [p.shape for p in self.parameters]
        if (
            shapes[0] != shapes[1]
            or not len(held) == len(self.state)
            or len(self.groups) != len(optimizer.param_groups)
        ):
            raise ValueError("the place to roll back to is of other parameters")

    def state_dict(self) -> dict[str, Any]:
        """Plain containers and tensors, for a checkpoint."""
        self._wait()
        return {
            "parameters": self.parameters, "buffers": self.buffers, "state": self.state, "groups": self.groups,
            "rest": self.rest, "others": self.others,
        }  # fmt: skip

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Snapshot:
        """A snapshot of its own: what it was made from may change afterwards."""
        return cls(**copy.deepcopy(state))


def _unheld(model: nn.Module, held: list[Tensor]) -> dict[str, Tensor]:
    """The parameters that an optimizer does not hold; none where they are larger than those that it does."""
    ours = set(map(id, held))
    found: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if id(p) not in ours}
    return found if sum(p.nbytes for p in found.values()) <= sum(p.nbytes for p in held) else {}


def _named(model: nn.Module) -> dict[str, nn.Module]:
    """All modules that a snapshot knows: by name, since others may be registered between it and a rollback."""
    names = [name for name, _ in model.named_modules()]
    modules = modules_of(model)
    return dict(zip(names + [f"#{i}" for i in range(len(modules) - len(names))], modules, strict=True))


def _restore_state(optimizer: Optimizer, held: list[Tensor], states: list[dict[str, Any]]) -> None:
    for parameter, saved in zip(held, states, strict=True):
        if saved:
            replace_by(optimizer.state[parameter], saved, parameter.device)
        else:  # before its first step an optimizer has no state, and tells so by its absence
            optimizer.state.pop(parameter, None)


def _restore_buffers(now: dict[str, Any], saved: dict[str, Any], device: torch.device) -> None:
    # Not those registered since: a pruned layer's forward pass needs its mask. Nor those that were taken away.
    write_into(now, {key: value for key, value in saved.items() if key in now}, device)
