"""Losses on a superbatch: here, and along the optimizer's last step (eq. 1). Always restores, to the bit."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from autolr.snapshot import Kept, copy_into, seed_all, undisturbed
from autolr.superbatch import Superbatches

HELD = 8  # minibatches in memory at a time: enough to make moving the parameters cheap beside the forward passes

LossFunction = Callable[[Any, Any], Tensor]


class Probe:
    """Measures the loss of each minibatch of a superbatch, at one point or at several.

    The loss is a function of the parameters and the minibatch alone: before every forward pass the generators are
    seeded by the superbatch's number and the minibatch's place in it (one dropout mask for all eps), and buffers are as
    training left them (a power iteration or running statistics do not move between two samples).
    """

    def __init__(self, model: nn.Module, loss_fn: LossFunction, superbatches: Superbatches) -> None:
        self.model, self.loss_fn, self.superbatches = model, loss_fn, superbatches

    def here(self, number: int) -> list[float]:
        """The loss of each minibatch of superbatch ``number`` at the present parameters."""
        with undisturbed(self.model) as kept:
            losses = [
                self._loss(batch, number, place, kept) for place, batch in enumerate(self.superbatches.draw(number))
            ]
            return _to_floats([losses])[0]

    def along(
        self,
        parameters: Sequence[Tensor],
        before: Sequence[Tensor],
        eps: Sequence[float],
        number: int,
        size: int,
    ) -> list[list[float]]:
        """Losses at theta - (eta + eps) d, shape ``(len(eps), minibatches)``.

        Args:
            parameters: as the optimizer's step left them: theta - eta d. They are there again afterwards.
            before: what they were before that step: theta. With the former it holds the direction of *any* optimizer,
                clipping and weight decay included.
            eps: in multiples of the learning rate eta: 0 is the step as taken, -1 undoes it.
            number: of the superbatch.
            size: minibatches to take of it.
        """
        losses: list[list[Tensor]] = [[] for _ in eps]
        with undisturbed(self.model) as kept:
            after = [kept.value(p) for p in parameters]
            for places in _chunks(enumerate(self.superbatches.draw(number, size)), HELD):
                for row, e in zip(losses, eps, strict=True):
                    _move(parameters, before, after, e)
                    row += [self._loss(batch, number, place, kept) for place, batch in places]
            return _to_floats(losses)

    def check(self) -> None:
        """One forward pass, so that a loss that cannot be used is an error before training starts.

        Raises:
            TypeError: ``loss_fn`` returned something other than a floating-point tensor.
            ValueError: it returned more than one number, or one that is not finite.
        """
        with undisturbed(self.model) as kept:
            loss = self._loss(next(self.superbatches.draw(0)), 0, 0, kept)
            if not bool(torch.isfinite(loss)):
                raise ValueError(
                    f"loss_fn(model, batch) must return a finite loss; got {loss.item()} on the first minibatch. "
                    "Check the model's initial weights, the batch, and the loss."
                )

    def _loss(self, batch: Any, number: int, place: int, kept: Kept) -> Tensor:
        kept.restore_buffers()
        torch.clear_autocast_cache()  # of a context that the user made once and enters again and again
        seed_all(self.superbatches.seed, number, place)
        loss = self.loss_fn(self.model, _own(batch))
        if not isinstance(loss, Tensor) or not loss.is_floating_point():
            got = f"a {loss.dtype} tensor" if isinstance(loss, Tensor) else type(loss).__name__
            raise TypeError(
                f"loss_fn(model, batch) must return the loss as a floating-point tensor; got {got}. "
                "Return for instance F.cross_entropy(model(x), y)."
            )
        if loss.numel() != 1:
            raise ValueError(
                f"loss_fn(model, batch) must return one number, the mean loss of the minibatch; got a tensor of shape "
                f"{tuple(loss.shape)}. Take its mean."
            )
        return loss.detach().reshape(()).double()


def _own(batch: Any) -> Any:
    """Containers of its own for each call: a loss_fn may pop the labels, and the same batch comes round again."""
    if isinstance(batch, Tensor):
        return batch
    if type(batch) in {list, tuple}:
        return type(batch)(map(_own, batch))
    if type(batch) is dict:
        return {k: _own(v) for k, v in batch.items()}
    return copy.copy(batch)


def _move(parameters: Sequence[Tensor], before: Sequence[Tensor], after: Sequence[Tensor], e: float) -> None:
    if e == 0:  # the step as taken, to the bit
        copy_into(parameters, after)
    else:
        copy_into(parameters, torch._foreach_lerp(list(before), list(after), 1.0 + e))


def _chunks(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while chunk := list(itertools.islice(items, size)):
        yield chunk


def _to_floats(losses: list[list[Tensor]]) -> list[list[float]]:
    return [[float(x) for x in row] for row in torch.stack([torch.stack(row) for row in losses]).tolist()]
