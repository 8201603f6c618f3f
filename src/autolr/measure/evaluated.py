"""A loss that is only looked at: without gradients, unless it needs them itself."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from autolr.measure.forward_state import modules_of
from autolr.measure.graphs import cut_graphs
from autolr.measure.memory import ran_out_of_memory
from autolr.measure.rng import random_state, set_random_state

LossFunction = Callable[[Any, Any], Tensor]


class Evaluated:
    """Calls ``loss_fn`` without gradients, or with them where its loss has a derivative inside.

    A penalty on gradients, a differential equation, a force: such a loss raises where gradients are off. The first call
    tells; from then on it stays as it is.

    Raises:
        TypeError, ValueError: as `check_loss`, when it is called.
    """

    def __init__(self, loss_fn: LossFunction) -> None:
        self._loss_fn = loss_fn
        self._with_gradients: bool | None = None  # until the first call has told

    def __call__(self, model: Any, batch: Any) -> Tensor:
        """The loss of a minibatch, of shape () and in float64."""
        if self._with_gradients is None:
            loss = self._first(model, batch)
        else:
            with torch.set_grad_enabled(self._with_gradients):
                loss = self._loss(model, batch)
        return check_loss(loss).detach().reshape(()).double()

    def _loss(self, model: Any, batch: Any) -> Tensor:
        if torch.is_grad_enabled() and isinstance(model, nn.Module):
            cut_graphs(modules_of(model))
        return self._loss_fn(model, fresh(batch))

    def _first(self, model: Any, batch: Any) -> Tensor:
        before = random_state()
        try:
            with torch.no_grad():
                loss = self._loss_fn(model, fresh(batch))
        except RuntimeError as error:
            if ran_out_of_memory(error):  # with gradients it takes more
                raise
            set_random_state(before)
            try:
                with torch.enable_grad():
                    loss = self._loss(model, batch)
            except RuntimeError:  # it was not for the gradients
                raise error from None
            self._with_gradients = True
        else:
            self._with_gradients = False
        return loss


def check_loss(loss: Any) -> Tensor:
    """``loss`` if it can be compared with another.

    Raises:
        TypeError: not a tensor in float32 or float64.
        ValueError: more than one number.
    """
    if not isinstance(loss, Tensor) or not loss.is_floating_point():
        got = f"a {loss.dtype} tensor" if isinstance(loss, Tensor) else type(loss).__name__
        raise TypeError(
            f"loss_fn(model, batch) must return the loss as a floating-point tensor; got {got}. "
            "Return for instance F.cross_entropy(model(x), y)."
        )
    if loss.dtype not in {torch.float32, torch.float64}:
        raise TypeError(
            f"loss_fn(model, batch) must return the loss in float32; got {loss.dtype}, in which the losses at two "
            "learning rates are mostly one number. Compute it in float32: F.cross_entropy(model(x).float(), y)."
        )
    if loss.numel() != 1:
        raise ValueError(
            f"loss_fn(model, batch) must return one number, the mean loss of the minibatch; got a tensor of shape "
            f"{tuple(loss.shape)}. Take its mean."
        )
    return loss


def fresh(batch: Any) -> Any:
    """The minibatch in containers and tensors of its own for each call, which share its memory.

    The same one comes round again: a ``loss_fn`` may pop the labels, and ask for a gradient of the inputs, which would
    gather in ``x.grad`` from call to call. A tensor that has a graph behind it stays as it is, and so does what cannot
    be copied.
    """
    if isinstance(batch, Tensor):
        return batch if batch.grad_fn is not None else batch.detach().requires_grad_(batch.requires_grad)
    if isinstance(batch, tuple) and hasattr(batch, "_make"):  # a named one
        return type(batch)._make(map(fresh, batch))
    if type(batch) in {list, tuple}:
        return type(batch)(map(fresh, batch))
    if type(batch) is dict:
        return {k: fresh(v) for k, v in batch.items()}
    try:
        return copy.copy(batch)
    except Exception:  # as many kinds as there are classes: a file that is open, a class that refuses
        return batch
