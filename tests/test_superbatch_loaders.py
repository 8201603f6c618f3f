"""Loaders that do more than load: subclasses that prepare minibatches, and workers that open or split the data."""

from __future__ import annotations

import gc
import multiprocessing

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, WeightedRandomSampler, get_worker_info

import autolr
from autolr.measure.snapshot import undisturbed
from autolr.measure.superbatch import Superbatches

# From Python 3.12 on, forking a process with threads warns; torch's workers fork, and torch has threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
MODEL = nn.Linear(1, 1)
NUMBERS = TensorDataset(torch.arange(40))


class Negative(DataLoader):
    """As a prefetcher that normalises: the last part is done on the way out."""

    def __iter__(self):
        for (numbers,) in super().__iter__():
            yield -1 - numbers


class Filtered:
    def __init__(self, loaded):
        self.loaded = loaded

    def __iter__(self):
        return self

    def __next__(self):
        return -1 - next(self.loaded)[0]

    def _reset(self, loader):
        self.loaded._reset(loader)


class Sampled(DataLoader):
    """As loaders of graphs do it."""

    def _get_iterator(self):
        return Filtered(super()._get_iterator())


class Repeating(DataLoader):
    """Keeps one iterator, and its workers, for all passes, as timm's and Ultralytics' loaders do."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.iterator = super().__iter__()

    def __iter__(self):
        for _ in range(len(self)):
            yield -1 - next(self.iterator)[0]


class Endless(torch.utils.data.Sampler):
    def __init__(self):
        self.generator = torch.Generator().manual_seed(3)

    def __len__(self):
        return 40

    def __iter__(self):
        while True:
            yield from torch.randperm(40, generator=self.generator).tolist()


KINDS = {
    "in order": lambda kind: kind(NUMBERS, 4),
    "shuffled": lambda kind: kind(NUMBERS, 4, shuffle=True),
    "with a generator": lambda kind: kind(NUMBERS, 4, shuffle=True, generator=torch.Generator().manual_seed(1)),
    "weighted": lambda kind: kind(
        NUMBERS, 4, sampler=WeightedRandomSampler([1.0] * 40, 40, generator=torch.Generator().manual_seed(2))
    ),
    "workers": lambda kind: kind(NUMBERS, 4, shuffle=True, num_workers=1),
    "workers that stay": lambda kind: kind(
        NUMBERS, 4, shuffle=True, num_workers=1, persistent_workers=True, generator=torch.Generator().manual_seed(1)
    ),
}


def drawn(superbatches, number, size=3):
    with undisturbed(MODEL):
        return [batch.tolist() for batch in superbatches.draw(number, size)]


def epochs(make, disturb):
    torch.manual_seed(0)
    loader = make()
    epoch = iter(loader)
    seen = [next(epoch).tolist() for _ in range(2)]
    if disturb:
        superbatches = Superbatches(loader, 3, seed=5)
        first = drawn(superbatches, 1)
        assert all(number < 0 for batch in first for number in batch)  # prepared
        assert len(first) == 3
        assert drawn(superbatches, 1) == first
        drawn(superbatches, 2, 1)
    seen += [batch.tolist() for batch in epoch]
    seen += [batch.tolist() for batch in loader]
    return [*seen, torch.rand(()).item()]


@pytest.mark.parametrize("kind", [Negative, Sampled], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_what_a_subclass_does_to_minibatches_is_done_and_its_own_passes_are_as_they_were(make, kind):
    assert epochs(lambda: make(kind), disturb=True) == epochs(lambda: make(kind), disturb=False)
    assert not multiprocessing.active_children()


def test_an_iterator_that_a_subclass_keeps_from_pass_to_pass_is_left_where_it_was():
    def make():
        return Repeating(NUMBERS, 4, sampler=Endless(), num_workers=1)

    assert epochs(make, disturb=True) == epochs(make, disturb=False)


def test_another_number_is_another_order_of_a_subclass_s_own_pass():
    superbatches = Superbatches(KINDS["with a generator"](Negative), 3, seed=0)
    assert len({str(drawn(superbatches, number)) for number in range(4)}) == 4


def test_a_search_sees_what_training_sees():
    x = torch.randn(320, 4, generator=torch.Generator().manual_seed(1))

    class Scaled(DataLoader):
        def __iter__(self):
            return ({"x": 100 * x, "y": y} for x, y in super().__iter__())

    def loss_fn(model, batch):
        assert batch["x"].abs().max() > 50
        return F.cross_entropy(model(batch["x"]), batch["y"])

    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    loader = Scaled(TensorDataset(x, (x[:, 0] > 0).long()), 16, shuffle=True)
    peak = autolr.find_peak(model, torch.optim.SGD(model.parameters(), lr=0.001), loss_fn, loader, 1000)
    assert len(peak.start_losses) >= 2


def test_a_subclass_that_changes_no_minibatch_is_drawn_from_at_random_as_any_loader():
    class Named(DataLoader):
        name = "training"

    superbatches = Superbatches(Named(NUMBERS, 4), 2, seed=0)
    with undisturbed(MODEL):
        assert {int(batch[0][0]) for number in range(5) for batch in superbatches.draw(number)} != {0, 4}


class Opened(Dataset):
    """Its file is opened in each worker: a handle does not survive a fork."""

    file = None

    def __len__(self):
        return 64

    def __getitem__(self, place):
        return self.file[0][place], self.file[1][place]


class Shards(IterableDataset):
    def __iter__(self):
        worker = get_worker_info()
        return ((X[place], Y[place]) for place in range(worker.id, 64, worker.num_workers))


X = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
Y = X[:, :3].argmax(1)


def open_file(_):
    get_worker_info().dataset.file = (X, Y)


@pytest.fixture
def _no_collection():
    gc.disable()  # workers that wait for it are left
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collection")
@pytest.mark.parametrize(
    "make",
    [
        lambda: DataLoader(Opened(), 8, shuffle=True, num_workers=1, worker_init_fn=open_file),
        lambda: DataLoader(Shards(), 8, num_workers=2),
    ],
    ids=["opened in workers", "split by worker"],
)
def test_data_that_only_workers_can_read_is_read_in_workers_and_none_is_left(make):
    model, loader = nn.Linear(8, 3), make()

    def loss_fn(model, batch):
        return F.cross_entropy(model(batch[0]), batch[1])

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert autolr.find_peak(model, optimizer, loss_fn, loader, 100).runs
    assert not multiprocessing.active_children()
    tuned = autolr.AutoLR(optimizer, model, loss_fn, loader, 100)
    for batch in loader:
        tuned.zero_grad()
        loss_fn(model, batch).backward()
        tuned.step()
    assert not multiprocessing.active_children()
