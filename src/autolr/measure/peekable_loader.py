"""Shows a probe the minibatch that training will see next: fresh, unbiased by the step's own, and loaded anyway."""

from __future__ import annotations

import random
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch


class PeekableLoader:
    """A thin wrapper round the training loader: train from it, and give it to `AutoLR` as ``batches``.

    Training gets the loader's own minibatches in their order, with the random numbers that it would have had. A probe
    along a step uses the next of them, without taking it away: it must not write into its tensors. Whatever else is
    asked of it, the loader answers.

    Wrap last, what the training loop itself iterates. A loader that knows how far it has come (torchdata's
    ``StatefulDataLoader``, accelerate's ``end_of_dataloader``) counts one that was shown as given. After a pass that is
    left early, a data set or sampler that counts, and workers that stay, are one minibatch further.

    Args:
        loader: a ``DataLoader``, or an iterable of minibatches that can be iterated again.

    Raises:
        TypeError: not iterable, iterable only once, or a `PeekableLoader` already.

    Examples:
        >>> peekable = PeekableLoader(["first", "second"])
        >>> running = iter(peekable)
        >>> next(running), peekable.peek(), next(running)
        ('first', 'second', 'second')
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        if isinstance(loader, PeekableLoader | Iterator) or not isinstance(loader, Iterable):
            raise TypeError(
                "PeekableLoader needs a DataLoader, or an iterable of minibatches that can be iterated again; got "
                f"{type(loader).__name__}. Wrap the training loader itself, once."
            )
        self.loader = loader
        self._peeks = True
        # Weak: a pass ends where training drops it, and the loader's workers with it, as without the wrapper.
        self._pass: weakref.ref[_Pass] | None = None

    def __iter__(self) -> Iterator[Any]:
        running = _Pass(self)
        self._pass = weakref.ref(running)
        return running

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # how to copy or pickle the loader is not how to do it to this
            raise AttributeError(name)
        return getattr(self.loader, name)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pass": None}  # a pass runs in one place

    def peek(self) -> Any | None:
        """The minibatch that the running pass (of several, the last begun) gives next, the same until it is taken.

        None where no pass is running or it has no more; where loading failed, which training is told at its turn; and
        once peeking was found to change a minibatch. Call it outside `snapshot.undisturbed`: loading in this process
        must find the generators as training left them.
        """
        running = None if self._pass is None else self._pass()
        return None if running is None or not self._peeks else running.peek()


class _Pass:
    """One pass of the loader, up to one minibatch ahead."""

    def __init__(self, peekable: PeekableLoader) -> None:
        self._peekable = peekable
        # At once, not at the first `next`: where the loader draws its random numbers, there it must go on drawing them.
        self._iterator = iter(peekable.loader)
        self._ahead: tuple[Any, Exception | None, list[_Moved]] | None = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._ahead is None:
            return next(self._iterator)
        (batch, error, moved), self._ahead = self._ahead, None
        # Each generator that loading moved goes where it would be, had the loading been done only now.
        untouched = [generator.catch_up() for generator in moved]
        if not all(untouched):
            self._stop_peeking()
        if error is not None:
            try:
                raise error
            finally:
                del error  # it holds this frame, which would hold it, and the pass, until the garbage is collected
        return batch

    def peek(self) -> Any | None:
        if self._ahead is None:
            generators = _generators(self._peekable.loader)
            before = [get() for get, _ in generators]
            batch, error = self._pull()
            moved = [_Moved(*access, then) for access, then in zip(generators, before, strict=True)]
            self._ahead = (batch, error, [generator for generator in moved if generator.put_back()])
        return self._ahead[0]

    def _pull(self) -> tuple[Any, Exception | None]:
        try:
            return next(self._iterator), None
        except StopIteration:
            return None, StopIteration()
        except Exception as error:
            return None, error

    def _stop_peeking(self) -> None:
        if not self._peekable._peeks:
            return
        self._peekable._peeks = False  # or training's random numbers would be changed again and again
        warnings.warn(
            "PeekableLoader had loaded this minibatch for a probe, and random numbers were drawn between step() and "
            "now: loading in this process draws from the same generators, so the minibatch is not the one that it "
            "would have been. From now on it shows none. Load with num_workers=1 or more, or give AutoLR the loader "
            "without PeekableLoader.",
            stacklevel=3,
        )


_Access = tuple[Callable[[], Any], Callable[[Any], Any]]  # get and set a generator's state


def _generators(loader: Any) -> list[_Access]:
    """Those that loading in this process may draw from: the global ones, and those of the loader and its samplers."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    parts = (loader, getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
    private = [g for part in parts if isinstance(g := getattr(part, "generator", None), torch.Generator)]
    # Asking an uninitialised CUDA for its generators would initialise it.
    cuda = torch.cuda.default_generators if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    return [
        (random.getstate, random.setstate),
        (np.random.get_state, np.random.set_state),  # the legacy one, that transforms may draw from
        *((g.get_state, g.set_state) for g in dict.fromkeys((torch.default_generator, *cuda, *private))),
    ]


class _Moved:
    """A generator that loading ahead may have moved, from ``before`` to where it is."""

    def __init__(self, get: Callable[[], Any], put: Callable[[Any], Any], before: Any) -> None:
        self._get, self._put, self._before, self._after = get, put, before, get()

    def put_back(self) -> bool:
        """Whether it had moved."""
        if moved := not _same(self._after, self._before):
            self._put(self._before)
        return moved

    def catch_up(self) -> bool:
        """Whether nobody drew from it in between; if so, loading has drawn from it now."""
        if untouched := _same(self._get(), self._before):
            self._put(self._after)
        return untouched


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))  # numpy's state has an array in it
