"""Lend a look the minibatch that training will see next: fresh, unbiased by the step's own, and loaded anyway."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch


class LendingLoader:
    """A thin wrapper round the training loader: train from it, and give it to `AutoLR` as ``batches``.

    Training gets the loader's own minibatches in their order. A look along a step takes the next of them, without
    taking it away. Whatever else is asked of it, the loader answers. A loader that knows how far it has come
    (torchdata's ``StatefulDataLoader``) counts a lent minibatch as given.

    Args:
        loader: a ``DataLoader``, or an iterable of minibatches that can be iterated again.

    Raises:
        TypeError: not iterable, iterable only once, or a `LendingLoader` already.

    Example:
        >>> lending = LendingLoader(["first", "second"])
        >>> running = iter(lending)
        >>> next(running), lending.lend(), next(running)
        ('first', 'second', 'second')
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        if isinstance(loader, LendingLoader | Iterator) or not isinstance(loader, Iterable):
            raise TypeError(
                "LendingLoader needs a DataLoader, or an iterable of minibatches that can be iterated again; got "
                f"{type(loader).__name__}. Wrap the training loader itself, once."
            )
        self.loader = loader
        self._pass: _Pass | None = None

    def __iter__(self) -> Iterator[Any]:
        # At once, not at the first `next`: where the loader draws its random numbers, there it must go on drawing them.
        self._pass = _Pass(iter(self.loader))
        return self._pass

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        if name == "loader":  # not there yet: while it is copied or unpickled
            raise AttributeError(name)
        return getattr(self.loader, name)

    def lend(self) -> Any | None:
        """The minibatch that the running pass gives next; None where none is running or it has no more."""
        return None if self._pass is None else self._pass.peek()


class _Pass:
    """One pass of the loader, up to one minibatch ahead."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator
        self._ahead: tuple[Any, Exception | None, _Generators, _Generators] | None = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._ahead is None:
            return next(self._iterator)
        (batch, error, before, after), self._ahead = self._ahead, None
        if not before.same_as(after):
            self._catch_up(before, after)
        if error is not None:
            raise error
        return batch

    def peek(self) -> Any | None:
        if self._ahead is None:
            before, batch, error = _Generators(), None, None
            try:
                batch = next(self._iterator)
            except Exception as raised:
                error = raised
            after = _Generators()
            if not before.same_as(after):
                before.set()
            self._ahead = (batch, error, before, after)
        return self._ahead[0]

    @staticmethod
    def _catch_up(before: _Generators, after: _Generators) -> None:
        """Loading drew random numbers: leave the generators where they would be, had it been done only now."""
        if _Generators().same_as(before):
            after.set()
            return
        warnings.warn(
            "LendingLoader had loaded this minibatch for a look, and random numbers were drawn between step() and "
            "now: loading in this process draws from the same generators, so the minibatch is not the one that it "
            "would have been. Load with num_workers=1 or more, or give AutoLR the loader without LendingLoader.",
            stacklevel=3,
        )


class _Generators:
    """The states of the global random generators."""

    def __init__(self) -> None:
        self.python = random.getstate()
        self.numpy: Any = np.random.get_state(legacy=True)  # noqa: NPY002 - the one that transforms may draw from
        self.torch = [torch.get_rng_state()]
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            self.torch += torch.cuda.get_rng_state_all()

    def same_as(self, other: _Generators) -> bool:
        return (
            self.python == other.python
            and bool(np.array_equal(self.numpy[1], other.numpy[1]))
            and self.numpy[2:] == other.numpy[2:]
            and all(torch.equal(a, b) for a, b in zip(self.torch, other.torch, strict=True))
        )

    def set(self) -> None:
        random.setstate(self.python)
        np.random.set_state(self.numpy)  # noqa: NPY002
        torch.set_rng_state(self.torch[0])
        if len(self.torch) > 1:
            torch.cuda.set_rng_state_all(self.torch[1:])
