"""The loss of a Transformers Trainer, and a step of a short run, without anybody hearing of it."""

from __future__ import annotations

import collections
import contextlib
import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Dataset
from transformers import Trainer

from autolr.integrations.common import loss_in_float, whole_step
from autolr.measure.forward_state import ForwardState

_LIBRARIES = {"accelerate", "builtins", "datasets", "numpy", "peft", "tokenizers", "torch", "transformers"}
_MADE_WITH = frozenset(inspect.signature(Trainer).parameters)  # its model and data among them
_NO_BOOKS = (nn.Module, Dataset, type, types.FunctionType)


class TrainerLoss:
    """``loss_fn(model, batch)``: the trainer's ``compute_loss`` on a batch as it comes from the loader."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def __call__(self, model: Any, batch: Any) -> Tensor:
        trainer = self.trainer
        with quiet(trainer):
            # The mean over the batch, also where the trainer has the model divide by the items of all accumulated ones.
            _, items = trainer.get_batch_samples(iter([batch]), 1, trainer.args.device)
            inputs = trainer._prepare_inputs(batch)
            with trainer.compute_loss_context_manager():
                loss: Tensor = trainer.compute_loss(model, inputs, num_items_in_batch=items)
        return loss_in_float(loss)


@contextlib.contextmanager
def quiet(trainer: Any) -> Iterator[None]:
    """Inside, the trainer logs nothing; what it counts and collects in attributes is put back."""
    books, before = _Books(trainer), dict(vars(trainer))
    kept = ForwardState(books, known=books.not_kept)
    trainer.log = _nothing
    try:
        yield
    finally:
        for name in vars(trainer).keys() - before.keys():
            delattr(trainer, name)
        vars(trainer).update(before)
        kept.restore()


class _Books(nn.Module):
    """What a trainer keeps its own numbers in, as TRL's do; not its model, nor its data.

    Containers, tensors, and the attributes of objects of the user's own classes. What a trainer is made with is none of
    its books.
    """

    not_kept: tuple[nn.Module, ...]

    def __init__(self, trainer: Any) -> None:
        super().__init__()
        own = [value for name, value in vars(trainer).items() if name not in _MADE_WITH]
        self.books = [value for value in own if isinstance(value, (list, dict, set, collections.deque, Tensor))]
        self.of_objects = [vars(value) for value in own if _is_the_users(value)]
        held = [value for attributes in self.of_objects for value in attributes.values()]
        models = [value for value in (trainer.model, *held) if isinstance(value, nn.Module)]
        # Networks that a user's objects hold, in a wrapper about a teacher: a copy for each loss would be dear.
        self.not_kept = tuple(module for model in models for module in model.modules())


def _is_the_users(value: Any) -> bool:
    library = type(value).__module__.partition(".")[0] in _LIBRARIES
    return hasattr(value, "__dict__") and not library and not isinstance(value, _NO_BOOKS)


def train_step_of(
    trainer: Any, base: Optimizer, model: nn.Module, loss: TrainerLoss, each: int
) -> tuple[Callable[[Any], Any] | None, list[Any]]:
    """A short run's step where it is more than ``backward`` and ``step``: clipping, a scaler."""
    scaler, norm = trainer.accelerator.scaler, trainer.args.max_grad_norm
    if scaler is None and not norm:
        return None, []

    def clip() -> None:
        if norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), norm)

    step = whole_step(base, lambda batch: loss(model, batch), each, scaler, clip)
    return step, [] if scaler is None else [scaler]


def _nothing(*_: Any, **__: Any) -> None:
    pass
