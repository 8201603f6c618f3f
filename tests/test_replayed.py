"""What short runs see is loaded once, and again where it must be."""

import itertools
from collections import UserDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, get_worker_info

import autolr
from autolr.measure import replayed
from autolr.measure.replayed import Replayed
from autolr.measure.snapshot import undisturbed
from autolr.measure.superbatch import Superbatches

MODEL = nn.Linear(1, 1)


class Source:
    def __init__(self, make):
        self.make, self.loaded = make, []

    def __call__(self):
        for number in itertools.count():
            self.loaded.append(number)
            yield self.make(number)


def first(run, count):
    return [float(batch[0].sum()) for batch, _ in zip(run, range(count), strict=False)]


def pair(number):
    return [torch.full((2,), float(number)), {"label": torch.tensor(number)}, "name"]


def test_each_minibatch_is_loaded_once():
    source = Source(pair)
    runs = Replayed(source)
    assert first(runs(), 3) == [0, 2, 4]
    assert first(runs(), 5) == [0, 2, 4, 6, 8]
    assert first(runs(), 2) == [0, 2]
    assert len(source.loaded) <= 6  # zip asks for one more


@pytest.mark.parametrize(
    "make",
    [
        lambda n: (torch.full((2,), float(n)), np.zeros(2)),
        lambda n: [torch.full((2,), float(n)), object()],
        lambda n: UserDict({0: torch.full((2,), float(n)), "more": object()}),
    ],
    ids=["an array", "an object", "an object in a mapping"],
)
def test_what_could_change_unnoticed_is_loaded_for_each_run(make):
    source = Source(make)
    runs = Replayed(source)
    assert first(runs(), 3) == first(runs(), 3) == [0, 2, 4]
    assert source.loaded.count(1) == 2


def test_a_mapping_of_tensors_is_kept():
    source = Source(lambda n: UserDict({0: torch.full((2,), float(n))}))
    runs = Replayed(source)
    assert first(runs(), 3) == first(runs(), 3) == [0, 2, 4]
    assert source.loaded.count(1) == 1


def test_what_is_written_into_is_loaded_again():
    source = Source(pair)
    runs = Replayed(source)
    for batch in itertools.islice(runs(), 3):
        batch[0].add_(100)
    assert first(runs(), 3) == [0, 2, 4]
    third = []
    for batch in itertools.islice(runs(), 3):
        third.append(float(batch[0].sum()))
        batch[0].zero_()
    assert third == [0, 2, 4]


def test_a_minibatch_that_is_first_written_into_when_it_comes_again_is_loaded_again():
    source = Source(pair)
    runs = Replayed(source)
    assert first(runs(), 4) == [0, 2, 4, 6]
    seen = []
    for batch in itertools.islice(runs(), 4):
        seen.append(float(batch[0].sum()))
        batch[0].zero_()
    assert seen == first(runs(), 4) == [0, 2, 4, 6]


def test_what_needs_more_memory_is_loaded_for_each_run(monkeypatch):
    monkeypatch.setattr(replayed, "LARGEST", 40)  # two of 16 bytes
    source = Source(pair)
    runs = Replayed(source)
    assert first(runs(), 5) == first(runs(), 5) == [0, 2, 4, 6, 8]
    assert source.loaded.count(1) == 2


class Pictures(Dataset):
    """Counts in this process what it loads, and tells which worker loaded it."""

    def __init__(self):
        self.loaded = 0

    def __len__(self):
        return 64

    def __getitem__(self, place):
        self.loaded += 1
        worker = get_worker_info()
        return torch.tensor(place), torch.tensor(-1 if worker is None else worker.id), torch.rand(())


def test_a_search_loads_a_minibatch_once_whatever_the_number_of_short_runs():
    data = Pictures()
    model = nn.Linear(1, 2)

    def loss_fn(model, batch):
        return F.cross_entropy(model(batch[0][:, None] / 64), (batch[0] > 32).long())

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    peak = autolr.find_peak(model, optimizer, loss_fn, DataLoader(data, 4, shuffle=True), 200, budget=0.5)
    longest = max(run.length for run in peak.runs)
    assert len(peak.runs) > 3
    assert data.loaded <= 4 * (len(peak.start_losses) + longest + 8 + 1)


def drawn(superbatches, number, size):
    with undisturbed(MODEL):
        return [[part.tolist() for part in batch] for batch in superbatches.draw(number, size)]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_many_minibatches_are_loaded_in_as_many_workers_as_the_user_s_and_alike_each_time():
    data = Pictures()
    superbatches = Superbatches(DataLoader(data, 4, shuffle=True, num_workers=2), 8, seed=0)
    state = torch.get_rng_state()
    found = drawn(superbatches, 0, 8)
    assert {worker for _, workers, _ in found for worker in workers} == {0, 1}
    assert data.loaded == 0
    assert drawn(superbatches, 0, 8) == found
    assert drawn(superbatches, 1, 8) != found
    assert torch.equal(torch.get_rng_state(), state)
    few = drawn(superbatches, 0, 2)
    assert {worker for _, workers, _ in few for worker in workers} == {-1}
    assert [places for places, _, _ in few] == [places for places, _, _ in found[:2]]
