"""All that training steps change, kept and put back to the bit: for steps that are taken only to see what they do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from autolr.measure.attributes import CONTAINERS, put_back_slots, slot_names, slots_of
from autolr.measure.forward_state import ForwardState
from autolr.measure.in_place import copy_into
from autolr.measure.optimizer_parts import objects_of
from autolr.measure.outside import outside, step_hooks
from autolr.measure.put_back import WayBack
from autolr.measure.sharded import reshard
from autolr.measure.snapshot import Undisturbed

_HELD_AS_THEY_ARE = (*CONTAINERS, Tensor)


class WholeState:
    """A training's state at one moment: `restore` goes back to it, as often as wanted.

    Parameters, buffers, modules' attributes, gradients, the optimizer's state and settings, training modes and
    ``requires_grad``. Tensors stay where they are in memory; what was not there then is gone afterwards, as the state
    that an optimizer makes in its first step.
    """

    def __init__(self, model: _Holder, kept: ForwardState, beside: nn.Module) -> None:
        self._model, self._kept = model, kept
        parameters = list({id(p): p for p in (*model.parameters(), *beside.parameters())}.values())
        self._gradients = [(p, p.grad, None if p.grad is None else p.grad.detach().clone()) for p in parameters]
        self._wanted = [(p, p.requires_grad) for p in parameters]
        self._modes = [(module, module.training) for module in (*kept.modules, *beside.modules())]

    def moved(self) -> bool:
        """Whether any parameter has another value than at the start, on this rank."""
        return self._kept.parameters_moved()

    def restore(self) -> None:
        """Put everything back but the random generators."""
        reshard(self._model)
        self._kept.written()  # some kernels write into an optimizer's state behind torch's back: compare the values
        self._kept.restore()
        self._kept.restore_parameters()
        for parameter, wanted in self._wanted:
            if parameter.requires_grad != wanted:
                parameter.requires_grad_(wanted)
        for parameter, gradient, value in self._gradients:
            parameter.grad = gradient
            if gradient is not None and value is not None:
                copy_into([gradient], [value])
        for module, training in self._modes:
            module.training = training
        for thing, slots in self._model.slotted:
            put_back_slots(thing, slots)


class EverythingKept:
    """A training, kept to be put back after steps that were taken only to see what they do.

    Random generators too; between `begin` and `back` autocast's cache of weights is off. Call them by
    `put_back.certainly`.

    Args:
        model: with all parameters of the optimizer.
        optimizer: and those that it holds in attributes.
        also: other objects that a training step changes, such as a ``GradScaler``, or a model's moving average.
        loss_fn: modules that it reaches beside the model are put back but for their parameters.
        train_step: those that it reaches, or a hook on the optimizer's steps, are put back whole, unless they are
            larger than the model: an average of the weights moves, and what is larger is frozen.

    Attributes:
        back: puts all of it back; may be called again.
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, also: Iterable[Any] = (), loss_fn: Any = None,
        train_step: Any = None,
    ) -> None:  # fmt: skip
        in_steps = [train_step, *step_hooks(optimizer)]
        averages = [part for part in outside(model, *in_steps).held if _bytes(part) <= _bytes(model)]
        holder = _Holder(model, optimizer, [*also, *averages])
        beside = outside(holder, loss_fn, *in_steps)
        self._kept = Undisturbed(holder, outside=beside)
        self._state = WholeState(holder, self._kept.state, beside)
        self.back = WayBack([self._state.restore, self._kept.back])

    def begin(self) -> WholeState:
        """From here on steps may be taken; the state to go back to between them."""
        self._kept.begin()
        torch.set_grad_enabled(True)
        return self._state


@contextlib.contextmanager
def everything_kept(model: nn.Module, optimizer: Optimizer, also: Iterable[Any] = ()) -> Iterator[WholeState]:
    """`EverythingKept` around a block, for code that no signal handler's exception interrupts."""
    kept = EverythingKept(model, optimizer, also)
    try:
        yield kept.begin()
    finally:
        kept.back()


class _Holder(nn.Module):
    """One module from which everything can be reached that is to be kept."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, also: Iterable[Any]) -> None:
        super().__init__()
        also = list(also)
        self.model = model
        self.models = nn.ModuleList([part for part in also if isinstance(part, nn.Module)])
        # An object's own attributes, as the dictionary that they are: `ForwardState` follows it in depth.
        objects = [part for part in (*objects_of(optimizer), *also) if not isinstance(part, nn.Module)]
        objects += [state for state in hook_states(model) if _can_be_kept(state)]
        self.others = [_attributes(part) for part in objects]
        self.slotted = [(part, slots) for part in objects if (slots := slots_of(part))]


def _can_be_kept(thing: Any) -> bool:
    return isinstance(thing, _HELD_AS_THEY_ARE) or hasattr(thing, "__dict__") or bool(slot_names(thing))


def _attributes(thing: Any) -> Any:
    """A container as it is, else an object's attributes; a TypeError of what has none."""
    if isinstance(thing, _HELD_AS_THEY_ARE):
        return thing
    return {} if slot_names(thing) and not hasattr(thing, "__dict__") else vars(thing)


def hook_states(model: nn.Module) -> list[Any]:
    """What `DistributedDataParallel`'s communication hooks remember, as PowerSGD does its errors."""
    wrapped = [module for module in model.modules() if isinstance(module, DistributedDataParallel)]
    states = [state for module in wrapped for _, state in module._comm_hooks]
    return [state for state in states if state is not None and not isinstance(state, dist.ProcessGroup)]


def _bytes(module: nn.Module) -> int:
    return sum(p.nbytes for p in module.parameters())


def held_tensors(optimizer: Optimizer) -> list[Tensor]:
    """The parameters that an optimizer holds and moves: those that want a gradient."""
    return [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
