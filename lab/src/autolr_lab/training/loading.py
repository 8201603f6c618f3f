"""A loader's minibatches in part: those of one process among several, and without those that a run has taken already.

What is passed over is not read: the order of the minibatches is drawn, and nothing of them is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import Any

from torch.utils.data import DataLoader, Sampler


class Part(Sampler[Any]):
    """Every so manieth minibatch of a sampler of minibatches, as many for each process.

    Args:
        whole: the sampler; where the number of its minibatches is no multiple of ``ranks``, the last ones are left out.
        rank: of this process.
        ranks: processes.
        taken: minibatches of this process that are passed over.
    """

    def __init__(self, whole: Iterable[Any], rank: int, ranks: int, taken: int) -> None:
        assert isinstance(whole, Sized)
        self.whole, self.rank, self.ranks, self.taken = whole, rank, ranks, taken
        self._groups = len(whole) // ranks

    def __len__(self) -> int:
        return self._groups - self.taken

    def __iter__(self) -> Iterator[Any]:
        # To the very end: a sampler may draw from its generator there, and all processes are to draw the same.
        first, last = self.taken * self.ranks + self.rank, self._groups * self.ranks
        for place, minibatch in enumerate(self.whole):
            if first <= place < last and place % self.ranks == self.rank:
                yield minibatch


def part_of(
    loader: DataLoader[Any],
    *,
    rank: int = 0,
    ranks: int = 1,
    taken: int = 0,
    workers: int | None = None,
    pinned: bool | None = None,
) -> DataLoader[Any]:
    """The same loader for a part of its minibatches.

    Args:
        loader: of a map-style data set, whose ``sampler`` or ``batch_sampler`` gives the places of a minibatch.
        rank: of this process.
        ranks: processes; each has every so manieth minibatch.
        taken: minibatches of this process that are passed over.
        workers: processes that load; None: as many as the loader has.
        pinned: whether minibatches are put into pinned memory; None: as the loader does.
    """
    by_batches = loader.batch_size is None and loader.batch_sampler is None
    part = Part(loader.sampler if by_batches else loader.batch_sampler, rank, ranks, taken)  # type: ignore[arg-type]
    places: dict[str, Any] = {"sampler": part, "batch_size": None} if by_batches else {"batch_sampler": part}
    return DataLoader(
        loader.dataset, **places, generator=loader.generator, collate_fn=loader.collate_fn,
        num_workers=loader.num_workers if workers is None else workers,
        pin_memory=loader.pin_memory if pinned is None else pinned, worker_init_fn=loader.worker_init_fn,
    )  # fmt: skip
