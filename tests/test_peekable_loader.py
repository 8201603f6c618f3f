"""Minibatches peeked at: the ones that training sees next, and training sees them as if nobody had asked."""

import copy
import gc
import itertools
import multiprocessing
import pickle
import random
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset, RandomSampler, Sampler

import autolr
from autolr.measure.peekable_loader import PeekableLoader
from autolr.measure.snapshot import seed_all, undisturbed
from training_runs import (
    Print,
    Run,
    assert_same_run,
    bits,
    classification,
    cross_entropy,
    network,
    plain_update,
    print_of_generators,
    run,
    seed_everything,
    sgd,
    shuffling,
    tuned_by,
)

# From Python 3.12 on, forking a process with threads warns; torch's workers fork, and torch has threads.
pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")]

DRAWS: dict[str, Callable[[], float]] = {
    "torch": lambda: torch.rand(()).item(),
    "numpy": lambda: float(np.random.rand()),  # noqa: NPY002
    "python": random.random,
}
MODEL = torch.nn.Linear(1, 1)  # for `undisturbed`; made here: its first weights are drawn from the global generators


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


class Noisy(Dataset[Any]):
    """Augmented in the process that loads it, by the generators named."""

    def __init__(self, *names: str) -> None:
        self.data, self.names = classification(), names or tuple(DRAWS)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> Any:
        x, y = self.data[i]
        return x + sum(DRAWS[name]() for name in self.names), y


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(Noisy()[i] for i in range(45))


class AsItGoes(Sampler[int]):
    """Draws each index from the global generator when it is asked for it."""

    def __len__(self) -> int:
        return 48

    def __iter__(self) -> Iterator[int]:
        return (int(torch.randint(48, ())) for _ in range(48))


def sampled(sampler: Any, **settings: Any) -> DataLoader[Any]:
    return DataLoader(classification(), batch_size=8, sampler=sampler, **settings)


LOADERS: dict[str, Callable[[], Any]] = {
    "in order": lambda: DataLoader(classification(), batch_size=8),
    "shuffled": shuffling,
    "own generator": lambda: shuffling(generator=generator()),
    "sampler with a generator": lambda: sampled(RandomSampler(range(48), generator=generator())),
    "with replacement": lambda: sampled(RandomSampler(range(48), replacement=True, generator=generator())),
    "sampler that draws as it goes": lambda: sampled(AsItGoes()),
    "short last": lambda: DataLoader(classification(45), batch_size=8, shuffle=True),
    "augmented": lambda: shuffling(Noisy()),
    "augmented, in order": lambda: DataLoader(Noisy(), batch_size=8),
    "augmented, own generator": lambda: shuffling(Noisy(), generator=generator()),
    "stream": lambda: DataLoader(Stream(), batch_size=8),
    "list": lambda: [tuple(b) for b in DataLoader(classification(), batch_size=8)],
}
WORKING: dict[str, Callable[[], Any]] = {
    "workers": lambda: shuffling(Noisy(), num_workers=1),
    "workers, sampler that draws as it goes": lambda: sampled(AsItGoes(), num_workers=1),
    "persistent workers": lambda: shuffling(Noisy(), num_workers=1, persistent_workers=True),
}

# Innocence


def peeking_run(make: Callable[[], Any], **settings: Any) -> Run:
    """A run that asks for the next minibatch after each step, and draws numbers as a probe does: in a fence."""
    loaders: list[PeekableLoader] = []

    def batches() -> PeekableLoader:
        loaders.append(PeekableLoader(make()))
        return loaders[0]

    def probe() -> None:
        loaders[0].peek()
        with undisturbed(MODEL):
            seed_all(1)
            torch.rand(3)

    return run(tuned=False, batches=batches, also=lambda _: probe, **settings)


@pytest.mark.parametrize("make", (LOADERS | WORKING).values(), ids=LOADERS | WORKING)
def test_training_while_the_next_minibatch_is_peeked_at_is_training(make: Callable[[], Any]):
    assert_same_run(run(tuned=False, batches=make), peeking_run(make))  # two epochs and a beginning, with dropout


@pytest.mark.parametrize("policy", [autolr.Monitor(), autolr.Monitor.adaptive()], ids=["superbatch", "one a step"])
@pytest.mark.parametrize("name", ["own generator", "augmented", "short last", "list"])
def test_training_with_peeked_at_minibatches_is_training_without_autolr(name: str, policy: Any):
    settings = {"policy": policy, "window": 2, "superbatch": 5, "overhead": float("inf")}
    alone = run(tuned=False, batches=LOADERS[name])
    tuned = run(tuned=True, batches=lambda: PeekableLoader(LOADERS[name]()), **settings)
    assert_same_run(alone, tuned)
    assert len(tuned.optimizer.history) >= 2


def seen_when_left_after(steps: int, loader: Any) -> list[Any]:
    """A pass left after so many minibatches, though it has more, then a whole one; and the generators at its end."""
    seed_everything(0)
    seen: list[Any] = []
    for length in (steps, None):
        for number, batch in enumerate(loader, start=1):
            seen.append(bits(batch))
            if isinstance(loader, PeekableLoader):
                loader.peek()
            if number == length:
                break
    return [*seen, print_of_generators()]


@pytest.mark.parametrize("steps", [1, 4, 6])  # the sixth is the last: its next is the end
@pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)
def test_a_pass_that_is_left_early_leaves_the_next_one_as_it_was(make: Callable[[], Any], steps: int):
    assert seen_when_left_after(steps, PeekableLoader(make())) == seen_when_left_after(steps, make())


@pytest.mark.parametrize("name", ["workers", "workers, sampler that draws as it goes"])  # not those that stay
def test_workers_that_are_left_early_leave_the_next_ones_as_they_were(name: str):
    make = WORKING[name]
    assert seen_when_left_after(2, PeekableLoader(make())) == seen_when_left_after(2, make())


def test_a_pass_draws_where_the_loader_draws_when_it_begins():
    def begun(loader: Any) -> list[Any]:
        seed_everything(0)
        running = iter(loader)
        return [print_of_generators(), torch.rand(()).item(), *map(bits, running)]

    assert begun(PeekableLoader(shuffling())) == begun(shuffling())


# What is peeked


@pytest.mark.parametrize("make", [LOADERS["augmented"], LOADERS["list"], WORKING["workers"]])
def test_what_is_peeked_at_after_each_step_is_what_training_gets_next(make: Callable[[], Any]):
    peekable = PeekableLoader(make())
    peeked = None
    assert peekable.peek() is None  # no pass is running
    for number, batch in enumerate(peekable):
        assert number == 0 or batch is peeked
        peeked = peekable.peek()
        assert peekable.peek() is peeked
    assert peeked is None  # the pass was at its end
    assert number == len(peekable) - 1


def test_what_is_peeked_at_before_the_first_step_is_the_first_minibatch():
    peekable = PeekableLoader(shuffling())
    running = iter(peekable)
    peeked = peekable.peek()
    assert peeked is not None
    assert next(running) is peeked


def test_a_probe_along_one_step_uses_the_minibatch_that_training_sees_next():
    used: list[str] = []

    def loss(model: Any, batch: Any) -> Any:
        if autolr.is_probing():
            used.append(bits(batch))
        return cross_entropy(model, batch)

    seed_everything(0)
    model = network()
    data = PeekableLoader(shuffling())
    optimizer = tuned_by(
        sgd(model),
        model,
        loss,
        data,
        12,
        policy=autolr.Monitor.adaptive(),
        window=1,
        superbatch=4,
        overhead=float("inf"),
    )
    trained, seen = [], []
    for batch in data:
        trained.append(bits(batch))
        used.clear()
        plain_update(model, optimizer, loss, batch, 0)
        probed = [batch for batch in used if used.count(batch) >= 3]  # the samples at three eps
        seen.append(probed[-1] if probed else None)
    for now, following in zip(seen, trained[1:], strict=False):
        assert now in {None, following}
    assert any(seen[:-1])


# Passes


def test_an_abandoned_pass_gives_nothing_to_the_next_one():
    peekable = PeekableLoader([1, 2, 3])
    running = iter(peekable)
    assert next(running) == 1
    assert peekable.peek() == 2
    assert list(peekable) == [1, 2, 3]


def test_two_passes_at_a_time_each_give_all_and_the_later_one_shows():
    peekable = PeekableLoader(["a", "b", "c"])
    first = iter(peekable)
    assert (next(first), peekable.peek()) == ("a", "b")
    second = iter(peekable)
    assert (next(second), peekable.peek(), next(second), peekable.peek()) == ("a", "b", "b", "c")
    assert (list(first), list(second)) == (["b", "c"], ["c"])


@pytest.mark.parametrize("steps", [1, 3, 4], ids=["early", "at the last", "at the end"])
def test_a_pass_that_training_drops_is_gone_and_shows_no_more(steps: int):
    class Loader:
        def __iter__(self) -> Iterator[int]:
            iterator = iter(x for x in range(3))
            self.running = weakref.ref(iterator)
            return iterator

    peekable = PeekableLoader(Loader())
    gc.disable()  # at once, and not when the garbage happens to be collected
    try:
        for _ in itertools.islice(peekable, steps):
            peekable.peek()
        assert peekable.running() is None
    finally:
        gc.enable()
    assert peekable.peek() is None


def test_workers_stop_when_the_pass_is_left_as_without_the_wrapper():
    peekable = PeekableLoader(shuffling(num_workers=1))
    for _ in peekable:
        peekable.peek()
        assert multiprocessing.active_children()
        break
    assert not multiprocessing.active_children()


def test_an_exhausted_iterator_stays_exhausted():
    peekable = PeekableLoader([1])
    running = iter(peekable)
    assert (next(running), peekable.peek(), peekable.peek()) == (1, None, None)
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(running)
        assert peekable.peek() is None


# Random numbers drawn between the step and the next minibatch


def seen_with_numbers_drawn(name: str, loader: Any) -> list[Any]:
    """Each minibatch, with a number drawn after each has been peeked at."""
    seed_everything(0)
    seen: list[Any] = []
    for batch in loader:
        if isinstance(loader, PeekableLoader):
            loader.peek()
        seen.append((bits(batch), DRAWS[name]()))
    return [*seen, print_of_generators()]


@pytest.mark.parametrize("mine", DRAWS)
@pytest.mark.parametrize("loading", DRAWS)
def test_numbers_drawn_from_the_generator_that_loading_draws_from_are_noticed_once(loading: str, mine: str):
    peekable = PeekableLoader(DataLoader(Noisy(loading), batch_size=8))
    bare = seen_with_numbers_drawn(mine, peekable.loader)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        seen = seen_with_numbers_drawn(mine, peekable)
    if loading != mine:  # a validation loader's base seed, say, while augmentation is numpy's
        assert seen == bare
        assert not caught
    else:
        (warning,) = caught
        assert "random numbers were drawn between step() and now" in str(warning.message)
        assert "num_workers=1 or more" in str(warning.message)
        assert warning.filename == __file__
        assert seen[0] == bare[0]
        assert seen[1] != bare[1]


def test_after_numbers_were_drawn_in_between_nothing_is_peeked_at_so_that_no_later_minibatch_is_changed():
    # Loading ahead from a state that is then put back would give the same augmentation again and again.
    peekable = PeekableLoader(DataLoader(Noisy("torch"), batch_size=8))
    running = iter(peekable)
    next(running)
    peekable.peek()
    torch.rand(())
    with pytest.warns(UserWarning, match="shows none"):
        next(running)
    assert peekable.peek() is None
    assert len([*running]) == 4
    for _ in peekable:
        assert peekable.peek() is None


@pytest.mark.parametrize("make", [LOADERS["shuffled"], WORKING["workers"]], ids=["shuffled", "workers"])
@pytest.mark.parametrize("name", DRAWS)
def test_where_loading_draws_nothing_numbers_may_be_drawn_in_between(make: Callable[[], Any], name: str):
    assert seen_with_numbers_drawn(name, PeekableLoader(make())) == seen_with_numbers_drawn(name, make())


def test_a_generator_that_appears_between_the_peekable_and_its_turn_is_no_trouble(monkeypatch: pytest.MonkeyPatch):
    # CUDA's, when the first thing on it happens there.
    peekable = PeekableLoader(DataLoader(Noisy("torch"), batch_size=8))
    running = iter(peekable)
    next(running)
    peeked = peekable.peek()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "default_generators", (generator(),))
    assert next(running) is peeked
    peeked = peekable.peek()
    assert next(running) is peeked


# Errors


class Bad(Noisy):
    def __getitem__(self, i: int) -> Any:
        example = super().__getitem__(i)
        if i == 17:
            raise OSError("example 17 cannot be read")
        return example


def outcomes(loader: Any) -> list[tuple[str, Print]]:
    seed_everything(0)
    running, seen = iter(loader), []
    for _ in range(8):
        try:
            came = bits(next(running))
        except Exception as error:  # also the end
            came = f"{type(error).__name__}: {error}"
        if isinstance(loader, PeekableLoader):
            loader.peek()
            loader.peek()
        seen.append((came, print_of_generators()))
    return seen


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_the_loader_comes_at_its_turn_and_what_follows_it_too(workers: int):
    def make() -> DataLoader[Any]:
        return DataLoader(Bad(), batch_size=8, num_workers=workers)

    bare = outcomes(make())
    assert "example 17 cannot be read" in bare[2][0]
    assert [came for came, _ in bare[6:]] == ["StopIteration: "] * 2
    assert outcomes(PeekableLoader(make())) == bare


def test_an_error_is_not_shown():
    peekable = PeekableLoader(DataLoader(Bad(), batch_size=17))
    running = iter(peekable)
    next(running)
    assert peekable.peek() is None
    with pytest.raises(OSError, match="example 17"):
        next(running)
    assert peekable.peek() is not None


# As the loader


def test_whatever_else_is_asked_of_it_the_loader_answers():
    loader = shuffling()
    peekable = PeekableLoader(loader)
    assert len(peekable) == len(loader)
    assert peekable.dataset is loader.dataset
    assert peekable.batch_size == 8
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = peekable.no_such_thing
    with pytest.raises(TypeError):
        len(PeekableLoader(DataLoader(Stream())))


def test_a_distributed_sampler_is_told_the_epoch_through_it():
    peekable = PeekableLoader(sampled(DistributedSampler(range(48), num_replicas=2, rank=1)))
    orders = []
    for epoch in (0, 1, 0):
        peekable.sampler.set_epoch(epoch)
        orders.append([bits(batch) for batch in peekable])
    assert orders[0] == orders[2] != orders[1]


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_is_a_peekable_loader_of_its_own_and_no_pass_of_it_runs(duplicate: Callable[[Any], Any]):
    peekable = PeekableLoader(shuffling())
    running = iter(peekable)
    copied = duplicate(peekable)
    assert type(copied) is PeekableLoader
    assert copied.peek() is None
    assert len(list(copied)) == len(list(running)) == 6


def test_how_the_loader_is_copied_is_not_how_its_wrapper_is():
    class Shared(list[int]):
        def __deepcopy__(self, memo: Any) -> "Shared":
            return self

    peekable = PeekableLoader(Shared([1]))
    copied = copy.deepcopy(peekable)
    assert type(copied) is PeekableLoader
    assert copied.loader is peekable.loader


@pytest.mark.parametrize("bad", [3, iter([1]), (x for x in [1]), PeekableLoader([1])])
def test_what_cannot_be_wrapped_is_refused(bad: Any):
    with pytest.raises(TypeError, match=rf"needs a DataLoader.*got {type(bad).__name__}\. Wrap the training loader"):
        PeekableLoader(bad)
