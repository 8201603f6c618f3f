"""Losses on a superbatch: here, and along the optimizer's last step (eq. 1). Always restores, to the bit."""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from autolr.measure.evaluated import Evaluated, LossFunction
from autolr.measure.forward_state import ForwardState, Written
from autolr.measure.in_place import copy_into
from autolr.measure.outside import outside
from autolr.measure.place import Place
from autolr.measure.put_back import WayBack, certainly
from autolr.measure.refused import FAILURES, is_alone, no_loss
from autolr.measure.replayed import Replayed
from autolr.measure.sharded import own_part, reshard
from autolr.measure.snapshot import Undisturbed, seed_all
from autolr.measure.step_line import StepLine
from autolr.measure.superbatch import Superbatches

T = TypeVar("T")

HELD = 8  # minibatches in memory at a time: enough to make moving the parameters cheap beside the forward passes


class Probe:
    """Measures the loss of each minibatch of a superbatch, at one point or at several.

    The loss is a function of the parameters and the minibatch alone: before every forward pass the generators are
    seeded by the superbatch's number and the minibatch's place in it (one dropout mask for all eps), and buffers are as
    training left them (a power iteration or running statistics do not move between two samples).
    """

    def __init__(self, model: nn.Module, loss_fn: LossFunction, superbatches: Superbatches) -> None:
        self.model, self.loss_fn, self.superbatches = model, loss_fn, superbatches
        self._evaluated = Evaluated(loss_fn)
        self._outside = outside(model, loss_fn)
        self._written: Written | None = None  # until the first forward pass has shown it
        self._refused: list[Exception] = []  # what the loss raised in the measurement under way
        self._few: tuple[tuple[int, int], Replayed] | None = None  # a few minibatches, for the next time

    def __getstate__(self) -> dict[str, Any]:
        # Half-read loaders cannot be copied, and modules that a function names are not copied with it.
        return {name: value for name, value in vars(self).items() if name not in {"_few", "_outside"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._few, self._outside = None, outside(self.model, self.loss_fn)

    def check(self) -> None:
        """One forward pass, so that a loss that cannot be used is an error before training starts.

        It also shows what a forward pass itself writes into, so that later ones need no copy of everything else.

        Raises:
            TypeError: ``loss_fn`` returned something other than a tensor in float32 or float64.
            ValueError: it returned more than one number, or one that is not finite.
        """
        self._measured(self._try)

    def _measured(self, measure: Callable[[ForwardState], T], *back: Callable[[], object]) -> T:
        """What ``measure`` gives; all that it disturbs is put back, and what else ``back`` does is done first."""
        kept, place = Undisturbed(self.model, self._written, self._outside), Place(self.superbatches.source)

        def begun() -> T:
            place.begin()
            return measure(kept.begin())

        return certainly(begun, WayBack([*back, kept.back, place.back]))

    def _try(self, kept: ForwardState) -> None:
        self._refused = []
        loss = self._loss(next(self.superbatches.draw(0)), 0, 0, kept)
        for place, batch in enumerate(self.superbatches.draw(0, HELD) if self._refused else ()):
            if place and self._written is None:  # the first has a corrupt sample, or the loss a mistake: others tell
                loss = self._loss(batch, 0, place, kept)
        self._raise_where_none(loss)
        if not bool(torch.isfinite(loss)):
            raise ValueError(
                f"loss_fn(model, batch) must return a finite loss; got {loss.item()} on the first minibatch. "
                "Check the model's initial weights, the batch, and the loss."
            )

    def here(self, number: int, size: int) -> Tensor:
        """Losses here of the first ``size`` minibatches of superbatch ``number``, shape ``(1, size)``."""
        if self._written is None:
            self.check()
        try:
            return self._measured(lambda kept: self._here(kept, number, size))
        except BaseException:
            self._few = None  # what could not be read to its end is read anew
            raise

    def _here(self, kept: ForwardState, number: int, size: int) -> Tensor:
        self._refused, drawn = [], enumerate(self._drawn(number, size))
        losses = torch.stack([self._loss(batch, number, place, kept) for place, batch in drawn])[None]
        self._raise_where_none(losses)
        self._learn(kept)
        return losses

    def _drawn(self, number: int, size: int) -> Iterator[Any]:
        """A few are kept: the same ones judge a run from its start to its end, and loading starts workers each time."""
        if size > HELD:
            return self.superbatches.draw(number, size)
        if self._few is None or self._few[0] != (number, size):
            self._few = (number, size), Replayed(partial(self.superbatches.draw, number, size))
        return self._few[1]()

    def along(self, line: StepLine, eps: Sequence[float], number: int, size: int) -> Tensor:
        """Losses at theta - (eta + eps) d, float64 on the model's device, shape ``(len(eps), minibatches)``.

        Nothing waits for the device here.

        Args:
            line: through the step just taken: it holds the direction of *any* optimizer, clipping and weight decay
                included. The parameters are where the step left them again afterwards.
            eps: in multiples of the learning rate eta: 0 is the step as taken, -1 undoes it.
            number: of the superbatch.
            size: minibatches to take of it. A single one of a `PeekableLoader` is the one training sees next.
        """
        if self._written is None:
            self.check()
        batches = self._batches(number, size)
        return self._measured(lambda kept: self._along(kept, line, eps, number, batches), line.back)

    def _along(
        self, kept: ForwardState, line: StepLine, eps: Sequence[float], number: int, batches: Iterator[Any]
    ) -> Tensor:
        self._refused = []
        losses: list[list[Tensor]] = [[] for _ in eps]
        for places in _chunks(enumerate(batches), HELD):
            # The step as taken first: the parameters are there already. Other points are reached from each other.
            for e, row in sorted(zip(eps, losses, strict=True), key=lambda sample: sample[0] != 0):
                line.to(e)
                reshard(self.model)
                row += [self._loss(batch, number, place, kept) for place, batch in places]
        self._learn(kept)
        measured = torch.stack([torch.stack(row) for row in losses])
        self._raise_where_none(measured)
        return measured

    def _raise_where_none(self, losses: Tensor) -> None:
        """What the loss raised, where it raised on every minibatch; at ruined weights that is a loss of NaN."""
        refused, self._refused = self._refused, []
        alive = (bool(torch.isfinite(own_part(p.detach())).all()) for p in self.model.parameters())
        if len(refused) >= losses.numel() and bool(losses.isnan().all()) and all(alive):
            raise refused[0]

    def _learn(self, kept: ForwardState) -> None:
        """Notice what no earlier forward pass has written into."""
        if not (missed := kept.missed()):
            return
        assert self._written is not None
        self._written = dataclasses.replace(self._written, places=self._written.places | missed)
        names = ", ".join(sorted(f"{type(module).__name__}.{name}" for module, name in missed))
        warnings.warn(
            f"A forward pass of a probe wrote into {names}, which the first one had left alone: this once it is not "
            "put back as training left it, from now on it is. Make it a buffer, and it always is.",
            stacklevel=2,
        )

    def _batches(self, number: int, size: int) -> Iterator[Any]:
        peeked = self.superbatches.peek() if size == 1 else None
        return self.superbatches.draw(number, size) if peeked is None else iter([peeked])

    def _loss(self, batch: Any, number: int, place: int, kept: ForwardState) -> Tensor:
        torch.clear_autocast_cache()  # of a context that the user made once and enters again and again
        seed_all(self.superbatches.seed, number, place)
        moved = () if self._written is None else self._written.parameters
        parameters = [p.detach().clone() for p in moved]
        try:
            loss = self._evaluated(self.model, batch)
        except FAILURES as error:
            if not is_alone(error):
                raise
            self._refused.append(error)
            loss = no_loss(self.model)
        else:
            if self._written is None:
                self._written = kept.written()
        kept.restore()
        copy_into(moved, parameters)
        return loss


def _chunks(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while chunk := list(itertools.islice(items, size)):
        yield chunk
