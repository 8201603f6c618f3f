"""The minibatches that short runs are judged by, the same for all of them, and their losses.

Few examples may decide what a rate is worth: a class that comes once in 200 has none in eight minibatches of 32 every
fourth time, and any rate looks good that forgets it. So more minibatches are looked at where runs start, and one of
the judges is the one whose loss is highest there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from autolr.measure.evaluated import Evaluated, LossFunction
from autolr.measure.refused import FAILURES, is_alone, no_loss
from autolr.measure.snapshot import seed_all
from autolr.measure.sources import Batches
from autolr.measure.superbatch import Superbatches
from autolr.runtime.distributed import gather_minibatches, rank, smallest

EVALUATION = 0  # number of the draw
_NO_MORE = object()

T = TypeVar("T")


class Judges:
    """Minibatches, and their losses on all ranks. Losses are in the order of the ranks, and of the draw on each.

    Args:
        model: that ``loss_fn`` is called with.
        loss_fn: mean loss of a minibatch.
        batches: where they are drawn from.
        minibatches: so many, where there are.
        candidates: looked at for each of them.
        seed: of the draw and the masks, another one on each rank.

    Raises:
        ValueError: no minibatch has a finite loss; or what ``loss_fn`` raises, where it raises on all without one.
    """

    def __init__(
        self, model: nn.Module, loss_fn: LossFunction, batches: Batches, minibatches: int, candidates: int, seed: int
    ) -> None:
        self._model, self._evaluated, self._seed = model, Evaluated(loss_fn), seed
        source = Superbatches(batches, 1, seed)
        wanted = minibatches * candidates
        size = smallest(wanted if source.available is None else min(wanted, source.available))
        seen = Chosen[Any](minibatches, candidates)
        self._error: Exception | None = None  # the first that a minibatch raised
        self._refused = set[int]()  # places of those that raised: they judge nothing
        self.looked_at = 0  # minibatches of this rank, each of which took a forward pass
        for place, batch in _as_many_everywhere(source.draw(EVALUATION, size), size):
            seen.add(self._first_loss(place, batch), batch)
            self.looked_at += 1
        chosen = seen.chosen()
        self.places, self.batches = [place for place, _, _ in chosen], [batch for _, _, batch in chosen]
        losses = self._gathered(loss for _, loss, _ in chosen)
        self._finite = [i for i, loss in enumerate(losses) if math.isfinite(loss)]
        if not self._finite and self._error is not None:
            raise self._error
        if not self._finite:
            raise ValueError(
                "loss_fn(model, batch) gives no finite loss on any of the evaluation minibatches, before any step. "
                "Check the model's initial weights, the data, and the loss."
            )
        self.start = tuple(losses[i] for i in self._finite)  # before any step; the others judge nothing
        self.left_out = len(losses) - len(self._finite)

    def __len__(self) -> int:
        """Of one rank."""
        return len(self.batches)

    def losses(self) -> tuple[float, ...]:
        """Here, of those whose loss was finite at the start."""
        losses = self._gathered(map(self._loss, self.places, self.batches))
        return tuple(losses[i] for i in self._finite)

    def first_losses(self) -> list[float]:
        """Likewise of one of each rank that has one."""
        firsts = {i // len(self): i % len(self) for i in reversed(self._finite)}
        own = firsts.get(rank(), 0)
        losses = self._gathered([self._loss(self.places[own], self.batches[own])])
        return [losses[other] for other in firsts]

    def _first_loss(self, place: int, batch: Any) -> torch.Tensor:
        """At the start; NaN of a minibatch that the loss refuses, a corrupt sample for instance."""
        try:
            return self._loss(place, batch)
        except FAILURES as error:
            if not is_alone(error):
                raise
            self._error = self._error or error
            self._refused.add(place)
            return self._loss(place, batch)

    def _loss(self, place: int, batch: Any) -> torch.Tensor:
        if place in self._refused:
            return no_loss(self._model)
        seed_all(self._seed, EVALUATION, place)
        torch.clear_autocast_cache()
        return self._evaluated(self._model, batch)

    def _gathered(self, losses: Iterable[torch.Tensor]) -> list[float]:
        return gather_minibatches(torch.stack(list(losses))[None])[0]


def _as_many_everywhere(minibatches: Iterator[Any], size: int) -> Iterator[tuple[int, Any]]:
    """With their places; until some rank has no more, since a forward pass may be a collective."""
    for place in range(size):
        batch = next(minibatches, _NO_MORE)  # None is a minibatch like any other
        if not smallest(int(batch is not _NO_MORE)):
            return
        yield place, batch


class Chosen(Generic[T]):
    """Which of a stream of minibatches judge; no more are held than may.

    Of every ``candidates`` one judges. The share of them whose losses are highest is stood for by its highest, the
    others by those that came first. Losses that are not finite are among the others.
    """

    def __init__(self, count: int, candidates: int) -> None:
        self._count, self._candidates = count, candidates
        self._high: list[tuple[int, torch.Tensor, T]] = []  # highest first
        self._others: list[tuple[int, torch.Tensor, T]] = []  # in the order in which they came
        self._seen = 0

    def add(self, loss: torch.Tensor, minibatch: T) -> None:
        """One more."""
        one = (self._seen, loss, minibatch)
        self._seen += 1
        if bool(torch.isfinite(loss)):
            self._high = sorted([*self._high, one], key=lambda other: -float(other[1]))
            if len(self._high) <= self._candidates:
                return
            one = self._high.pop()
        self._others = sorted([*self._others, one], key=lambda other: other[0])[: self._count]

    def chosen(self) -> list[tuple[int, torch.Tensor, T]]:
        """Place, loss and minibatch of each, in the order in which they came."""
        share = max(1, self._seen // self._count)
        others = sorted([*self._high[share:], *self._others], key=lambda other: other[0])
        others = others[: self._count - len(self._high[:1])]
        finite = [other for other in others if bool(torch.isfinite(other[1]))]
        spare = self._high[1:share][: len(others) - len(finite)]  # in the place of those that judge nothing
        rest = [other for other in others if not bool(torch.isfinite(other[1]))]
        kept = [*self._high[:1], *finite, *spare, *rest[: len(rest) - len(spare)]]
        return sorted(kept, key=lambda other: other[0])
