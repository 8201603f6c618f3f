"""`torch.distributed.checkpoint`: model, optimizer and AutoLR as one ``Stateful``, for any number of ranks.

    state = {"training": TrainingState(model, optimizer)}
    torch.distributed.checkpoint.save(state, checkpoint_id="...")  # and .load, into a model and an AutoLR made anew

Tensors are saved under the names of the model's parameters, sharded as they are; torch puts them together for another
number of ranks. What AutoLR remembers is one text beside them. The tree is the same at every step, as a load needs it:
an optimizer without state is saved with zeros, and the place to roll back to with what is there now, until there is
one; both are marked so.

Frameworks that shard (Lightning's ModelParallelStrategy, Accelerate's FSDP2) keep model and optimizer themselves, by
torch's functions, which drop what AutoLR remembers: a `Memory` of that is saved beside it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from autolr.measure.sharded import reshard
from autolr.measure.snapshot import Snapshot, held_parameters
from autolr.optimizer import AutoLR
from autolr.policies import Monitor, PeakSearch


class TrainingState:
    """What `torch.distributed.checkpoint` saves and loads of a training under AutoLR. All ranks take part.

    A run that goes on with as many ranks is the uninterrupted one, to the bit, given that data and random generators go
    on too. With another number of ranks, losses are measured on other minibatches: a window or probe under way is left,
    and the guard against divergence begins anew where the run is.

    Args:
        model: plain, DDP, or sharded by ``fully_shard``, with all parameters of the optimizer.
        optimizer: made with the same policy, length and seed as the one that was saved.

    Raises:
        TypeError: ``optimizer`` is no AutoLR.
    """

    def __init__(self, model: nn.Module, optimizer: AutoLR) -> None:
        if not isinstance(optimizer, AutoLR):
            raise TypeError(
                f"optimizer must be an AutoLR; got {type(optimizer).__name__}. For another optimizer use "
                "torch.distributed.checkpoint.state_dict.get_state_dict."
            )
        self._model, self._optimizer = model, optimizer
        policy = optimizer.policy
        # Others may roll back: they may have a place to go back to, as large as model and optimizer.
        self._never_back = isinstance(policy, Monitor) or (isinstance(policy, PeakSearch) and not policy.guard)

    def state_dict(self) -> dict[str, Any]:
        """Tensors by name, and one text; the same names at every step. Nothing of the training is changed."""
        reshard(self._model)  # after an evaluation parameters() may be gathered copies
        own = self._optimizer.state_dict()["autolr"]
        saved = own["controller"].pop("saved")
        tree: dict[str, Any] = {}
        tree["present"], own["without_state"] = _tree(self._model, self._optimizer.base)
        if not self._never_back:
            place = None if saved is None else saved["snapshot"]
            tree["place"], own["place_without_state"] = _tree_at(place, self._model, self._optimizer.base)
            own["place"] = None if saved is None else saved["steps"]
        return {**tree, "autolr": json.dumps(own)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what was loaded.

        Raises:
            ValueError: it is of a run with another plan (policy, length or seed).
        """
        reshard(self._model)
        own = json.loads(state_dict["autolr"])
        base = self._optimizer.base
        _set(state_dict["present"], own.pop("without_state"), self._model, base)
        own["controller"]["saved"] = None
        if not self._never_back:
            steps, bare = own.pop("place"), own.pop("place_without_state")
            if steps is not None:
                place = _snapshot_of(state_dict["place"], bare, self._model, base)
                own["controller"]["saved"] = {"steps": steps, "snapshot": place}
        self._optimizer.load_state_dict({**base.state_dict(), "autolr": own})


class Memory:
    """What AutoLR remembers of a sharded training, in one piece: a text, and whole tensors where it may roll back.

    All ranks call both methods; the tensors are gathered on rank 0, on its host, and every rank loads from there. Model
    and optimizer are the framework's to save and to load before this.

    Args:
        model: sharded by ``fully_shard``.
        optimizer: of its parameters.
    """

    def __init__(self, model: nn.Module, optimizer: AutoLR) -> None:
        self._model, self._optimizer = model, optimizer

    def state_dict(self) -> dict[str, Any]:
        """A text, and the place to roll back to, where there is one."""
        reshard(self._model)
        own = self._optimizer.state_dict()["autolr"]
        saved = own["controller"].pop("saved")
        told: dict[str, Any] = {"autolr": json.dumps(own), "place": None}
        if saved is not None:
            place, bare = _tree_at(saved["snapshot"], self._model, self._optimizer.base, WHOLE)
            told |= {"place": place, "place_without_state": bare, "place_steps": saved["steps"]}
        return told

    def read(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """``AutoLR.state_dict()["autolr"]`` as it was, for this rank."""
        reshard(self._model)
        own: dict[str, Any] = json.loads(state_dict["autolr"])
        own["controller"]["saved"] = None
        if state_dict["place"] is not None:
            place = _snapshot_of(
                state_dict["place"], state_dict["place_without_state"], self._model, self._optimizer.base, WHOLE
            )
            own["controller"]["saved"] = {"steps": state_dict["place_steps"], "snapshot": place}
        return own

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what was loaded.

        Raises:
            ValueError: it is of a run with another plan (policy, length or seed).
        """
        self._optimizer.load_state_dict({**self._optimizer.base.state_dict(), "autolr": self.read(state_dict)})


def is_sharded(model: nn.Module) -> bool:
    """Whether a parameter lies on several ranks (``DTensor``): what a checkpoint of one rank does not hold."""
    return any(hasattr(p, "to_local") for p in model.parameters())


WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def _tree(
    model: nn.Module, base: Optimizer, options: StateDictOptions | None = None
) -> tuple[dict[str, Any], list[int]]:
    """Model and optimizer as torch has them in a checkpoint; and which parameters have no state in truth."""
    with _all_with_state(model, base) as bare:
        parameters, state = get_state_dict(model, base, options=options)
    return {"model": parameters, "optimizer": state}, bare


def _tree_at(
    place: dict[str, Any] | None, model: nn.Module, base: Optimizer, options: StateDictOptions | None = None
) -> tuple[dict[str, Any], list[int]]:
    """Likewise as they were at a place, copied; without one as they are."""
    here = Snapshot.capture(model, base)
    try:
        if place is not None:
            Snapshot.from_state_dict(place).restore(model, base)
        tree, bare = _tree(model, base, options)
        return tree_map_only(Tensor, lambda t: t.detach().clone(), tree), bare
    finally:
        here.restore(model, base)


def _set(
    tree: dict[str, Any], bare: list[int], model: nn.Module, base: Optimizer, options: StateDictOptions | None = None
) -> None:
    set_state_dict(
        model, base, model_state_dict=tree["model"], optim_state_dict=tree["optimizer"], options=options
    )  # fmt: skip
    held = held_parameters(base)
    for place in bare:
        base.state.pop(held[place], None)


def _snapshot_of(
    tree: dict[str, Any], bare: list[int], model: nn.Module, base: Optimizer, options: StateDictOptions | None = None
) -> dict[str, Any]:
    """A place to roll back to, from a tree; model and optimizer stay as they are."""
    here = Snapshot.capture(model, base)
    try:
        _set(tree, bare, model, base, options)
        return Snapshot.capture(model, base).state_dict()
    finally:
        here.restore(model, base)


@contextlib.contextmanager
def _all_with_state(model: nn.Module, base: Optimizer) -> Iterator[list[int]]:
    """Inside, each parameter that can move has a state, zeros where it had none; afterwards all is as it was.

    Yields the places of those that had none. It is made as torch makes it before a load: by a step at a rate of 0 with
    gradients of 0.
    """
    held = held_parameters(base)
    bare = [i for i, p in enumerate(held) if p.requires_grad and not base.state.get(p)]
    if not bare:
        yield bare
        return
    here = Snapshot.capture(model, base)
    gradients = [p.grad for p in held]
    had = dict(base.state)
    rates = [group["lr"] for group in base.param_groups]
    try:
        base.state.clear()
        for p in held:
            p.grad = torch.zeros_like(p) if p.requires_grad else None
        for group in base.param_groups:
            group["lr"] = torch.zeros_like(group["lr"]) if isinstance(group["lr"], Tensor) else 0.0
        base.step()
        for group, lr in zip(base.param_groups, rates, strict=True):
            group["lr"] = lr
        base.state.update(had)
        yield bare
    finally:
        for p, gradient in zip(held, gradients, strict=True):
            p.grad = gradient
        base.state.clear()
        base.state.update(had)
        here.restore(model, base)
