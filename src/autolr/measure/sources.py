"""Sources of minibatches that are no loader: a function that makes one, and a stream that can be read only once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
from torch.utils.data.dataloader import _BaseDataLoaderIter

Batches: TypeAlias = Iterable[Any] | Callable[[], Any]

KEPT = 32  # minibatches of a stream that are kept in memory, at least


class Made:
    """Minibatches that a function makes, as ``get_batch()`` of many loops does.

    It is called with the global generators seeded, and these are put back: the same superbatch is the same minibatches,
    and training's own are what they would have been. What else it moves, `Place` puts back.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield self.make()


class Kept:
    """A stream's first minibatches, read when they are first needed and kept in memory, to be drawn from at random."""

    def __init__(self, stream: Iterator[Any]) -> None:
        self._stream, self._read = stream, list[Any]()

    def draw(self, size: int, rng: np.random.Generator) -> Iterator[Any]:
        """Some of at least `KEPT` that are read, or of all that there are."""
        wanted = max(size, KEPT)
        self._read += itertools.islice(self._stream, max(0, wanted - len(self._read)))
        return iter([self._read[i] for i in rng.permutation(min(wanted, len(self._read)))[:size]])

    def __iter__(self) -> Iterator[Any]:
        return iter(self._read)


def as_batches(batches: Any) -> Any:
    """``batches``, if it is a function or a stream as something that can be iterated again; idempotent.

    Raises:
        TypeError: the iterator of a loader, whose minibatches training would miss.
    """
    if isinstance(batches, _BaseDataLoaderIter):
        raise TypeError(
            f"batches must be something that can be iterated again; got a {type(batches).__name__}, which is spent "
            "after one pass. Pass the DataLoader itself, or a list."
        )
    if isinstance(batches, Iterator):
        return Kept(batches)
    if callable(batches) and not isinstance(batches, Iterable):
        return Made(batches)
    return batches
