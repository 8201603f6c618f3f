"""Lent minibatches: the ones that training sees next, and training sees them as if nobody had asked."""

import random
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

import autolr
from autolr.lending import LendingLoader
from training_runs import (
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
)


class Noisy(Dataset[Any]):
    """Augmented in the process that loads it, by all three generators."""

    def __init__(self) -> None:
        self.data = classification()

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> Any:
        x, y = self.data[i]
        return x + torch.randn(()) + random.random() + float(np.random.rand()), y  # noqa: NPY002


LOADERS = {
    "shuffled": shuffling,
    "own generator": lambda: shuffling(generator=torch.Generator().manual_seed(5)),
    "in order": lambda: DataLoader(classification(), batch_size=8),
    "augmented": lambda: shuffling(Noisy()),
    "short last": lambda: DataLoader(classification(45), batch_size=8, shuffle=True),
    "list": lambda: [tuple(b) for b in DataLoader(classification(), batch_size=8)],
    "workers": lambda: shuffling(num_workers=2),
    "persistent workers": lambda: shuffling(num_workers=1, persistent_workers=True),
}


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("policy", [autolr.Hold(), autolr.Hold.adaptive()], ids=["superbatch", "one a step"])
def test_training_with_lent_minibatches_is_training_without_autolr(name: str, policy: Any):
    settings = {"policy": policy, "window": 2, "superbatch": 5, "overhead": float("inf")}
    alone = run(tuned=False, batches=LOADERS[name], steps=17)
    tuned = run(tuned=True, batches=lambda: LendingLoader(LOADERS[name]()), steps=17, **settings)
    assert_same_run(alone, tuned)
    assert len(tuned.optimizer.history) >= 2


def test_what_is_lent_after_each_step_is_what_training_gets_next():
    lending = LendingLoader(shuffling())
    lent = None
    assert lending.lend() is None  # no pass is running
    for number, batch in enumerate(lending):
        assert number == 0 or batch is lent
        lent = lending.lend()
        assert lending.lend() is lent
    assert lent is None  # the pass was at its end
    assert number == len(lending) - 1


def test_a_look_along_one_step_uses_the_minibatch_that_training_sees_next():
    used: list[str] = []

    def loss(model: Any, batch: Any) -> Any:
        if autolr.looking():
            used.append(bits(batch))
        return cross_entropy(model, batch)

    seed_everything(0)
    model = network()
    data = LendingLoader(shuffling())
    optimizer = autolr.AutoLR(
        sgd(model), model, loss, data, 12, policy=autolr.Hold.adaptive(), window=1, superbatch=4, overhead=float("inf")
    )
    trained, seen = [], []
    for batch in [b for _ in range(0) for b in data] or data:
        trained.append(bits(batch))
        used.clear()
        plain_update(model, optimizer, loss, batch, 0)
        looked = [batch for batch in used if used.count(batch) >= 3]  # the samples at three eps
        seen.append(looked[-1] if looked else None)
    for now, following in zip(seen, trained[1:], strict=False):
        assert now in {None, following}
    assert any(seen[:-1])


def test_an_abandoned_pass_gives_nothing_to_the_next_one():
    lending = LendingLoader([1, 2, 3])
    running = iter(lending)
    assert next(running) == 1
    assert lending.lend() == 2
    assert list(lending) == [1, 2, 3]


def test_random_numbers_drawn_before_an_augmented_minibatch_are_noticed():
    lending = LendingLoader(shuffling(Noisy()))
    running = iter(lending)
    next(running)
    lending.lend()
    torch.rand(())
    with pytest.warns(UserWarning, match=r"random numbers were drawn between step\(\) and now.*num_workers=1"):
        next(running)


def test_without_random_loading_numbers_may_be_drawn_in_between():
    lending = LendingLoader(DataLoader(classification(), batch_size=8))
    running = iter(lending)
    next(running)
    lending.lend()
    torch.rand(())
    before = print_of_generators()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        next(running)
    assert print_of_generators() == before


def test_an_error_of_the_loader_comes_at_its_turn():
    class Bad(TensorDataset):
        def __getitem__(self, i: int) -> Any:
            if i == 1:
                raise OSError("example 1 cannot be read")
            return super().__getitem__(i)

    lending = LendingLoader(DataLoader(Bad(torch.arange(3.0)), batch_size=1))
    running = iter(lending)
    next(running)
    assert lending.lend() is None
    with pytest.raises(OSError, match="example 1"):
        next(running)


def test_whatever_else_is_asked_of_it_the_loader_answers():
    loader = shuffling()
    lending = LendingLoader(loader)
    assert len(lending) == len(loader)
    assert lending.dataset is loader.dataset
    assert lending.batch_size == 8
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = lending.no_such_thing


@pytest.mark.parametrize("bad", [3, iter([1]), LendingLoader([1])], ids=["number", "iterator", "twice"])
def test_what_cannot_be_wrapped_is_refused(bad: Any):
    with pytest.raises(TypeError, match=r"LendingLoader needs a DataLoader.*got.*Wrap the training loader itself"):
        LendingLoader(bad)
