"""The minibatches that all short runs see, loaded once: decoding images can take longer than training on them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

from torch import Tensor

_NO_MORE = object()
LARGEST = 2**28  # [bytes] of minibatches that are kept in memory; what needs more is loaded for each run anew


class Replayed:
    """Minibatches from the first on, again at every call, as long as they fit in memory and nobody writes into them.

    Args:
        draw: begins to load them anew.
    """

    def __init__(self, draw: Callable[[], Iterator[Any]]) -> None:
        self._draw, self._loading = draw, draw()
        self._held: list[tuple[Any, list[Tensor], list[int]]] = []  # minibatch, its tensors, how often written into
        self._bytes, self._keeps = 0, True

    def __call__(self) -> Generator[Any, None, None]:
        """From the first on."""
        place = 0
        while self._keeps:
            if place == len(self._held):
                batch = next(self._loading, _NO_MORE)
                if batch is _NO_MORE:
                    return
                if not self._hold(batch):  # one too many: the run goes on with what is loaded from here on
                    yield batch
                    yield from self._loading
                    return
            batch, tensors, versions = self._held[place]
            yield batch
            place += 1
            if [tensor._version for tensor in tensors] != versions:
                self._forget()
        yield from itertools.islice(self._draw(), place, None)

    def close(self) -> None:
        """Let go of what is kept, and of the workers that load: a cycle may hold this until garbage is collected."""
        self._forget()
        self._loading = iter(())

    def _hold(self, batch: Any) -> bool:
        """Whether it is kept."""
        tensors = _tensors(batch)
        self._bytes += 0 if tensors is None else sum(tensor.nbytes for tensor in tensors)
        if tensors is None or self._bytes > LARGEST:
            self._forget()
        else:
            self._held.append((batch, tensors, [tensor._version for tensor in tensors]))
        return self._keeps

    def _forget(self) -> None:
        self._keeps, self._held = False, []


def _tensors(batch: Any) -> list[Tensor] | None:
    """All that a minibatch is made of; None where that cannot be told, or be noticed to change."""
    if isinstance(batch, Tensor):
        return None if batch.is_inference() else [batch]
    if isinstance(batch, (str, bytes, int, float, type(None))):
        return []
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    if not isinstance(batch, (list, tuple)):
        return None
    parts = [_tensors(part) for part in batch]
    return None if None in parts else [tensor for part in parts if part for tensor in part]
