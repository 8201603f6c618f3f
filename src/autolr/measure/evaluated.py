"""A loss that is only looked at: without gradients, unless it needs them itself."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from autolr.measure.memory import ran_out_of_memory
from autolr.measure.rng import random_state, set_random_state


class Evaluated:
    """Calls ``loss_fn`` without gradients, or with them where its loss has a derivative inside.

    A penalty on gradients, a differential equation, a force: such a loss raises where gradients are off. The first call
    tells; from then on it stays as it is.
    """

    def __init__(self, loss_fn: Callable[[Any, Any], Any]) -> None:
        self._loss_fn = loss_fn
        self._with_gradients: bool | None = None  # until the first call has told

    def __call__(self, model: Any, batch: Any) -> Any:
        """The loss of a minibatch, detached where it is a tensor."""
        if self._with_gradients is None:
            return self._first(model, batch)
        with torch.set_grad_enabled(self._with_gradients):
            return _detached(self._loss_fn(model, fresh(batch)))

    def _first(self, model: Any, batch: Any) -> Any:
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
                    loss = self._loss_fn(model, fresh(batch))
            except RuntimeError:  # it was not for the gradients
                raise error from None
            self._with_gradients = True
        else:
            self._with_gradients = False
        return _detached(loss)


def _detached(loss: Any) -> Any:
    return loss.detach() if isinstance(loss, Tensor) else loss


def fresh(batch: Any) -> Any:
    """Containers of its own for each call: a loss_fn may pop the labels, and the same batch comes round again."""
    if isinstance(batch, Tensor):
        return batch
    if type(batch) in {list, tuple}:
        return type(batch)(map(fresh, batch))
    if type(batch) is dict:
        return {k: fresh(v) for k, v in batch.items()}
    return copy.copy(batch)
