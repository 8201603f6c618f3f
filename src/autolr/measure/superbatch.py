"""The minibatches that a loss is measured on (paper, part 2.2), drawn without touching the run's data or randomness.

A superbatch is known by its number: drawing the same number again gives the same minibatches, so that both ends of a
window, and a run resumed from a checkpoint, see the same data without anybody keeping it in memory. Of a source that
counts how far it has come they are those from there on: after a resume, others.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler
from torch.utils.data.dataloader import _BaseDataLoaderIter

from autolr.measure.peekable_loader import PeekableLoader
from autolr.measure.snapshot import seed_all
from autolr.measure.sources import Batches, Kept, as_batches
from autolr.runtime.quiet import quiet

POOL = 10  # superbatches' worth of minibatches to choose from, where a sampler does not say how many it has
IN_WORKERS = 4  # minibatches from which on the user's number of workers load them: starting these takes its time
WORKERS = ("num_workers", "worker_init_fn", "multiprocessing_context", "prefetch_factor", "timeout")
LOADING = 2**32 - 1  # the last word of the key for loading; forward passes use the minibatch's place, far below it


class Superbatches:
    """Draws superbatches from a ``DataLoader``, a sequence, anything that can be iterated again, a function, a stream.

    From a ``DataLoader`` over a map-style data set it draws minibatches at random and loads them by a private loader, a
    few in this process, and from `IN_WORKERS` on, or where the user's prepares its workers, in as many as that has.
    The user's own loader, its workers, its sampler and its generator are never started or advanced. Of a subclass that
    makes or changes minibatches itself, a private copy is iterated.

    Args:
        batches: where training's own minibatches come from.
        size: minibatches in a superbatch; fewer are drawn where there are fewer.
        seed: of every draw.

    Raises:
        TypeError: neither iterable nor a function, or a loader's running iterator.
        ValueError: empty, or fewer minibatches than ``size`` where their number is known.
    """

    def __init__(self, batches: Batches, size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        self._peek: Callable[[], Any] | None = None
        if isinstance(batches, PeekableLoader):
            self._peek, batches = batches.peek, batches.loader
        drawable: Iterable[Any] = as_batches(batches)
        self.available = count_batches(drawable)
        if self.available == 0:
            raise ValueError("batches is empty; pass the DataLoader that training uses, or a list of minibatches.")
        if self.available is not None and size > self.available:
            raise ValueError(
                f"superbatch must be at most the {self.available} minibatches that batches has; got {size}. "
                "Leave it out to take as many as are worth their cost."
            )
        self.source = drawable
        self._draw = _drawing_from(drawable)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_draw"}  # a closure cannot be pickled

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._draw = _drawing_from(self.source)

    def peek(self) -> Any | None:
        """The minibatch that training will see next, where ``batches`` is a `PeekableLoader` and has one."""
        return None if self._peek is None else self._peek()

    def draw(self, number: int, size: int | None = None) -> Iterator[Any]:
        """The minibatches of superbatch ``number`` (the first ``size``), one at a time.

        Call it inside `snapshot.undisturbed`.
        """
        size = self.size if size is None else size
        chosen = np.random.default_rng([self.seed, number])
        seed_all(self.seed, number, LOADING)
        minibatches = self._draw(size, chosen)
        for place in range(size):
            seed_all(self.seed, number, LOADING, place)  # augmentation: its own randomness for each minibatch
            try:
                yield next(minibatches)
            except StopIteration:
                if place == 0:
                    raise ValueError(
                        "batches gave no minibatch this time, although it did before. Pass something that can be "
                        "iterated again and again: a DataLoader or a list."
                    ) from None
                return


def count_batches(batches: Batches) -> int | None:
    """How many minibatches there are; None where nobody knows.

    Raises:
        TypeError: ``batches`` is neither iterable nor a function, or a loader's running iterator.
    """
    if not isinstance(as_batches(batches), Iterable):
        raise TypeError(
            "batches must be a DataLoader, or an iterable of minibatches, or a function that makes one; got "
            f"{type(batches).__name__}."
        )
    try:
        return len(batches)  # type: ignore[arg-type]
    except TypeError:  # no __len__: an iterable-style data set, for instance
        return None


_Drawing = Callable[[int, np.random.Generator], Iterator[Any]]


def _drawing_from(batches: Iterable[Any]) -> _Drawing:
    if isinstance(batches, DataLoader):
        if isinstance(data := batches.dataset, Iterator):
            raise TypeError(
                f"The loader's data set ({type(data).__name__}) is its own iterator: a probe would take examples away "
                "from training. Pass batches=... another loader, or a list of minibatches."
            )
        if prepares(batches):
            return _from_itself(batches)
        return _from_stream(batches) if isinstance(batches.dataset, IterableDataset) else _from_map(batches)
    if isinstance(batches, Kept):
        return batches.draw
    if isinstance(batches, Sequence):
        return lambda k, rng: (batches[i] for i in rng.permutation(len(batches))[:k])
    return lambda k, rng: itertools.islice(iter(batches), k)  # noqa: ARG005 - freshness is the iterable's own


def _from_map(loader: DataLoader[Any]) -> _Drawing:
    batched = loader.batch_sampler is not None  # else batch_size=None: whatever the sampler gives is a whole minibatch
    sampler = loader.batch_sampler if batched else loader.sampler
    indices = _uniform(sampler, loader) or _any_of_a_pass(sampler, loader)

    def draw(size: int, rng: np.random.Generator) -> Iterator[Any]:
        chosen = indices(size, rng)
        fetch: dict[str, Any] = {"batch_sampler": chosen} if batched else {"batch_size": None, "sampler": chosen}
        if loader.num_workers and (size >= IN_WORKERS or loader.worker_init_fn is not None):  # it may open the data
            fetch |= {name: getattr(loader, name) for name in WORKERS}  # seeded by the default generator, as it is now
        with quiet("This DataLoader will create"):  # as the user's has said already
            return iter(DataLoader(loader.dataset, collate_fn=loader.collate_fn, **fetch))

    return draw


def _from_stream(loader: DataLoader[Any]) -> _Drawing:
    # In the user's workers, however few are drawn: a stream may ask which of them it is in, and read its own share.
    fetch = {name: getattr(loader, name) for name in ("batch_size", "collate_fn", "drop_last", *WORKERS)}

    def draw(size: int, rng: np.random.Generator) -> Iterator[Any]:  # noqa: ARG001
        with quiet("This DataLoader will create"):  # as the user's has said already
            return itertools.islice(iter(DataLoader(loader.dataset, **fetch)), size)

    return draw


def prepares(loader: DataLoader[Any]) -> bool:
    """Whether it is of a subclass that makes minibatches, or changes them on the way out, in methods of its own."""
    kind = loader.__class__  # of accelerate's wrappers the class that they wrap: they move minibatches only
    makers = (kind.__iter__, kind._get_iterator)
    return any(maker.__module__.partition(".")[0] not in {"torch", "torchdata"} for maker in makers)


def _from_itself(loader: DataLoader[Any]) -> _Drawing:
    """The first minibatches of a pass of a private copy, with all that the subclass does to them."""
    parts = _private_copy((loader.sampler, loader.batch_sampler, loader.generator), loader)

    def draw(size: int, rng: np.random.Generator) -> Iterator[Any]:
        sampler, batch_sampler, generator = _copy_sampler(parts, loader.dataset, rng)
        copied = copy.copy(loader)
        own = {"sampler": sampler, "batch_sampler": batch_sampler, "generator": generator, "_iterator": None}
        # Its workers go with it, and what torch warns of them the user's has said already.
        own |= {"persistent_workers": False, "check_worker_number_rationality": lambda: None}
        vars(copied).update(own)  # not by setattr, which torch forbids
        for name, value in vars(loader).items():
            # One that is kept from pass to pass is training's.
            if name != "_iterator" and isinstance(value, _BaseDataLoaderIter):
                vars(copied)[name] = DataLoader.__iter__(copied)
        return itertools.islice(iter(copied), size)

    return draw


def _uniform(sampler: Any, loader: DataLoader[Any]) -> Callable[[int, np.random.Generator], list[Any]] | None:
    """Examples at random without replacement, where that is what the sampler does: no pass over all indices."""
    order: Any = sampler.sampler if type(sampler) is BatchSampler else None
    examples: int = len(loader.dataset)  # type: ignore[arg-type]
    if type(order) not in {RandomSampler, SequentialSampler} or len(order) != examples:
        return None
    if getattr(order, "replacement", False):
        return None
    width: int = min(sampler.batch_size, examples)

    def draw(size: int, rng: np.random.Generator) -> list[Any]:
        # Full minibatches only: the short one at an epoch's end would weigh its examples more than the others.
        full = max(1, min(size, examples // width))
        return rng.permutation(examples)[: full * width].reshape(full, width).tolist()

    return draw


def _any_of_a_pass(sampler: Any, loader: DataLoader[Any]) -> Callable[[int, np.random.Generator], list[Any]]:
    """Some of the minibatches of a pass of a private copy of the sampler, whatever its rule."""
    private = _private_copy(sampler, loader)

    def draw(size: int, rng: np.random.Generator) -> list[Any]:
        copied = _copy_sampler(private, loader.dataset, rng)
        passed = list(itertools.islice(copied, count_batches(loader) or POOL * size))
        if len(passed) > 1 and isinstance(sampler, BatchSampler) and len(passed[-1]) < len(passed[0]):
            passed.pop()
        return [passed[i] for i in rng.permutation(len(passed))[:size]]

    return draw


def _private_copy(sampler: Any, loader: DataLoader[Any]) -> Any:
    try:
        return _copy_sampler(sampler, loader.dataset, np.random.default_rng(0))
    except Exception as error:
        asked = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
        raise TypeError(
            f"The loader's sampler ({type(asked).__name__}) cannot be copied ({error}), and drawing from it "
            "would change the order of training's own batches. Pass batches=... another loader, or a list of "
            "minibatches."
        ) from error


def _copy_sampler(sampler: Any, dataset: Any, rng: np.random.Generator) -> Any:
    """A copy that shares the data, with fresh seeds in the generators that it holds."""
    memo: dict[int, Any] = {id(dataset): dataset}
    copied = copy.deepcopy(sampler, memo)
    for part in list(memo.values()):
        if isinstance(part, torch.Generator):
            part.manual_seed(int(rng.integers(2**63)))
    return copied
