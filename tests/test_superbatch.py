"""Superbatches: the same one for a number, a fresh one for the next, and training's own data left where it was."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from autolr.measure.snapshot import undisturbed
from autolr.measure.superbatch import Superbatches, count_batches

EXAMPLES = 40
NUMBERED = TensorDataset(torch.arange(EXAMPLES))  # each example is its own index
WEIGHTS = torch.arange(1, EXAMPLES + 1, dtype=torch.float64)


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


class Stream(IterableDataset):
    def __init__(self, examples=EXAMPLES):
        self.examples = examples

    def __iter__(self):
        return iter(range(self.examples))


class Buckets(Sampler):
    """A batch sampler with a rule, a generator and a count of its own: neighbours go together."""

    def __init__(self, seed=3):
        self.generator, self.passes = generator(seed), 0

    def __len__(self):
        return EXAMPLES // 4

    def __iter__(self):
        self.passes += 1
        for bucket in torch.randperm(EXAMPLES // 4, generator=self.generator).tolist():
            yield [4 * bucket + (i + self.passes) % 4 for i in range(4)]


class Augmented(Dataset):
    """Draws from all three generators that a transform may draw from."""

    def __len__(self):
        return EXAMPLES

    def __getitem__(self, index):
        return torch.tensor([index, torch.rand(()).item(), np.random.rand(), random.random()])  # noqa: NPY002


LOADERS = {
    "in order": lambda: DataLoader(NUMBERED, batch_size=4),
    "shuffled": lambda: DataLoader(NUMBERED, batch_size=4, shuffle=True),
    "with a generator": lambda: DataLoader(NUMBERED, batch_size=4, shuffle=True, generator=generator()),
    "a sampler with a generator": lambda: DataLoader(
        NUMBERED, batch_size=4, sampler=RandomSampler(NUMBERED, generator=generator())
    ),
    "with replacement": lambda: DataLoader(
        NUMBERED, batch_size=4, sampler=RandomSampler(NUMBERED, replacement=True, num_samples=24)
    ),
    "weighted": lambda: DataLoader(NUMBERED, batch_size=4, sampler=WeightedRandomSampler(WEIGHTS, 24)),
    "weighted with a generator": lambda: DataLoader(
        NUMBERED, batch_size=4, sampler=WeightedRandomSampler(WEIGHTS, 24, generator=generator())
    ),
    "a batch sampler of its own": lambda: DataLoader(NUMBERED, batch_sampler=Buckets()),
    "whole minibatches by index": lambda: DataLoader(
        NUMBERED, sampler=BatchSampler(RandomSampler(NUMBERED, generator=generator()), 4, False), batch_size=None
    ),
    "a data set of minibatches": lambda: DataLoader(
        [torch.arange(4) + 4 * i for i in range(10)], batch_size=None, shuffle=True
    ),
    "augmented": lambda: DataLoader(Augmented(), batch_size=4, shuffle=True),
    "a stream": lambda: DataLoader(Stream(), batch_size=4),
    "a list": lambda: [torch.arange(4) + 4 * i for i in range(10)],
}
FRESH = [name for name in LOADERS if name != "a stream"]  # a stream begins where it begins


MODEL = torch.nn.Linear(1, 1)  # made here: its first weights are drawn from the generators that must not move


def draw(superbatches, number, size=None):
    with undisturbed(MODEL):
        return [values(batch) for batch in superbatches.draw(number, size)]


def values(batch):
    """A minibatch as nested lists, to compare with =="""
    return [t.tolist() for t in batch] if isinstance(batch, (list, tuple)) else batch.tolist()


def examples(batches):
    """The indices in minibatches of ``NUMBERED``, flat."""
    return [index for (indices,) in batches for index in indices]


# The number decides.


@pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)
def test_a_number_always_gives_the_same_minibatches(make):
    loader = make()
    superbatches = Superbatches(loader, 3, seed=0)
    first = draw(superbatches, 7)
    assert len(first) == 3
    draw(superbatches, 8)
    list(loader)  # an epoch of training goes by
    assert draw(superbatches, 7) == first
    assert draw(Superbatches(make(), 3, seed=0), 7) == first  # also in a run that was resumed


@pytest.mark.parametrize("make", [LOADERS[name] for name in FRESH], ids=FRESH)
def test_another_number_or_another_seed_gives_other_minibatches(make):
    draws = [draw(Superbatches(make(), 3, seed=seed), number) for seed in range(2) for number in range(3)]
    assert all(a != b for i, a in enumerate(draws) for b in draws[:i])


@pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)
def test_a_smaller_draw_is_the_beginning_of_the_whole_one(make):
    superbatches = Superbatches(make(), 3, seed=0)
    assert draw(superbatches, 7, size=2) == draw(superbatches, 7)[:2]


def test_augmentation_differs_between_minibatches_and_is_the_same_for_the_same_number():
    superbatches = Superbatches(LOADERS["augmented"](), 10, seed=0)
    noise = torch.tensor(draw(superbatches, 1))[..., 1:].reshape(-1)
    assert len(noise.unique()) == len(noise) == 3 * EXAMPLES  # no mask twice, in none of the three generators
    other = torch.tensor(draw(superbatches, 2))[..., 1:].reshape(-1)
    assert not set(noise.tolist()) & set(other.tolist())


def test_what_a_forward_pass_draws_between_two_minibatches_does_not_change_the_next():
    superbatches = Superbatches(LOADERS["augmented"](), 3, seed=0)
    undrawn = draw(superbatches, 1)
    with undisturbed(MODEL):
        between = [(values(batch), torch.rand(3), np.random.rand(), random.random()) for batch in superbatches.draw(1)]  # noqa: NPY002
    assert [batch for batch, *_ in between] == undrawn


def test_a_superbatch_uses_no_example_twice_and_ten_of_them_use_nearly_all():
    superbatches = Superbatches(LOADERS["shuffled"](), 5, seed=0)
    seen = set()
    for number in range(10):
        drawn = examples(draw(superbatches, number))
        assert len(drawn) == len(set(drawn)) == 20
        seen |= set(drawn)
    # Each example is left out of ten fair halves with probability 2^-10: 0.04 of the 40 are expected.
    assert len(seen) >= EXAMPLES - 1


def test_a_list_gives_its_own_minibatches_none_twice():
    batches = LOADERS["a list"]()
    with undisturbed(MODEL):
        drawn = list(Superbatches(batches, 10, seed=0).draw(0))
    assert sorted(map(id, drawn)) == sorted(map(id, batches))


def test_what_a_batch_sampler_put_together_stays_together():
    superbatches = Superbatches(LOADERS["a batch sampler of its own"](), 3, seed=0)
    for (batch,) in draw(superbatches, 0):
        assert len({index // 4 for index in batch}) == 1


def test_a_weighted_sampler_keeps_its_weights():
    # The upper half of the examples has 74 % of the weight; 240 draws give that to 0.03 (one standard deviation).
    superbatches = Superbatches(LOADERS["weighted"](), 6, seed=0)
    drawn = [index for number in range(10) for index in examples(draw(superbatches, number))]
    assert np.mean(np.array(drawn) >= EXAMPLES // 2) == pytest.approx(0.744, abs=0.09)


def test_a_sampler_with_replacement_keeps_it():
    # Of 40 draws from 40, none twice: 40! / 40^40 = 7e-17.
    loader = DataLoader(NUMBERED, batch_size=4, sampler=RandomSampler(NUMBERED, replacement=True))
    drawn = examples(draw(Superbatches(loader, 10, seed=0), 0))
    assert len(set(drawn)) < len(drawn) == 40


@pytest.mark.parametrize("kind", [SequentialSampler, RandomSampler])
def test_examples_that_the_sampler_leaves_out_are_never_drawn(kind):
    loader = DataLoader(NUMBERED, batch_size=2, sampler=kind(range(10)))
    superbatches = Superbatches(loader, 5, seed=0)
    for number in range(5):
        assert sorted(examples(draw(superbatches, number))) == list(range(10))


def test_a_sampler_with_a_generator_of_its_own_gives_fresh_examples_too():
    # Four of 40 examples a pass, one pass a superbatch: ten times the same one would be one estimate and not ten.
    sampler = WeightedRandomSampler(WEIGHTS, 4, generator=generator())
    superbatches = Superbatches(DataLoader(NUMBERED, batch_size=2, sampler=sampler), 2, seed=0)
    assert len({index for number in range(10) for index in examples(draw(superbatches, number))}) > 4


# Training's own data stays where it was.


def epochs_with(make, disturb):
    """Two epochs, looked at in the middle of the first or not, and what the generators give afterwards."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    loader = make()
    epoch = iter(loader)
    seen = [values(next(epoch)) for _ in range(2)]
    if disturb:
        superbatches = Superbatches(loader, 3, seed=5)
        for number in (1, 2, 1):
            draw(superbatches, number)
    seen += [values(batch) for batch in epoch]
    seen += [values(batch) for batch in loader]
    return [*seen, torch.rand(1).item(), np.random.rand(), random.random()]  # noqa: NPY002


@pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)
def test_a_draw_in_the_middle_of_an_epoch_leaves_the_rest_of_it_and_the_next_as_they_were(make):
    assert epochs_with(make, disturb=True) == epochs_with(make, disturb=False)


# From Python 3.12 on, forking a process with threads warns; torch's workers fork, and torch has threads.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_workers_that_stay_between_epochs_are_neither_asked_nor_restarted():
    def make():
        return DataLoader(Augmented(), batch_size=4, shuffle=True, num_workers=2, persistent_workers=True)

    assert epochs_with(make, disturb=True) == epochs_with(make, disturb=False)


def test_the_users_sampler_is_never_asked():
    sampler = Buckets()
    superbatches = Superbatches(DataLoader(NUMBERED, batch_sampler=sampler), 3, seed=0)
    before = sampler.generator.get_state()
    draw(superbatches, 0)
    assert sampler.passes == 0
    assert torch.equal(sampler.generator.get_state(), before)


def test_the_data_set_is_shared_and_not_copied():
    class Heavy(TensorDataset):
        def __deepcopy__(self, memo):
            raise AssertionError("a data set may not fit into memory twice")

    data = Heavy(torch.arange(8))

    class Custom(SequentialSampler):  # not one of the samplers that need no pass
        pass

    superbatches = Superbatches(DataLoader(data, batch_size=2, sampler=Custom(data)), 2, seed=0)
    assert len(draw(superbatches, 0)) == 2


# How many, and how large.


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda data: DataLoader(data, batch_size=4, shuffle=True), id="shuffled"),
        pytest.param(
            lambda data: DataLoader(data, sampler=BatchSampler(SequentialSampler(data), 4, False), batch_size=None),
            id="by index",
        ),
        pytest.param(
            lambda data: DataLoader(data, batch_size=4, sampler=WeightedRandomSampler([1.0] * 10, 10)), id="weighted"
        ),
    ],
)
def test_the_short_minibatch_at_an_epochs_end_is_never_drawn(make):
    # 10 examples are 4 + 4 + 2: the two would count for twice as much as the others.
    superbatches = Superbatches(make(TensorDataset(torch.arange(10))), 3, seed=0)
    for number in range(20):
        assert [len(batch) for (batch,) in draw(superbatches, number)] == [4, 4]


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_data_set_smaller_than_a_minibatch_is_one_minibatch(shuffle):
    loader = DataLoader(TensorDataset(torch.arange(3)), batch_size=8, shuffle=shuffle)
    assert sorted(examples(draw(Superbatches(loader, 1, seed=0), 0))) == [0, 1, 2]


def test_a_stream_that_ends_early_gives_what_it_has():
    superbatches = Superbatches(DataLoader(Stream(8), batch_size=4), 5, seed=0)
    assert draw(superbatches, 0) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_stream_drops_its_short_end_where_the_loader_does():
    superbatches = Superbatches(DataLoader(Stream(6), batch_size=4, drop_last=True), 5, seed=0)
    assert draw(superbatches, 0) == [[0, 1, 2, 3]]


def test_collation_is_the_loaders_own():
    loader = DataLoader(NUMBERED, batch_size=4, collate_fn=lambda rows: torch.stack([-row[0] for row in rows]))
    assert all(index <= 0 for batch in draw(Superbatches(loader, 3, seed=0), 0) for index in batch)
    stream = DataLoader(Stream(), batch_size=4, collate_fn=lambda rows: torch.tensor([-row for row in rows]))
    assert draw(Superbatches(stream, 1, seed=0), 0) == [[0, -1, -2, -3]]


def test_a_batch_sampler_that_does_not_know_its_length_is_as_good_as_any():
    class Unmeasured(Sampler):
        def __iter__(self):
            return iter(Buckets())

    loader = DataLoader(NUMBERED, batch_sampler=Unmeasured())
    assert len(draw(Superbatches(loader, 3, seed=0), 0)) == 3


def test_an_endless_sampler_is_asked_for_no_more_than_is_needed():
    class Endless(Sampler):
        def __iter__(self):
            for asked in range(10_000):
                yield asked % EXAMPLES
            raise AssertionError("asked for 10,000 examples where 12 were needed")

    superbatches = Superbatches(DataLoader(NUMBERED, batch_size=4, sampler=Endless()), 3, seed=0)
    assert len(draw(superbatches, 0)) == 3


@pytest.mark.parametrize(
    ("make", "count"),
    [(lambda: [1, 2, 3], 3), (LOADERS["shuffled"], 10), (LOADERS["a stream"], None), (lambda: [], 0)],
    ids=["a list", "a loader", "a stream", "nothing"],
)
def test_minibatches_are_counted_where_their_number_is_known(make, count):
    assert count_batches(make()) == count


# What it refuses.


class Again:
    """Can be asked for an iterator any number of times; the later ones are empty."""

    def __init__(self):
        self.iterator = iter([torch.zeros(1)])

    def __iter__(self):
        return self.iterator


class OwnIterator(IterableDataset):
    def __iter__(self):
        return self

    def __next__(self):
        return 0


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        pytest.param(3, "iterable of minibatches, or a function that makes one; got int", id="a number"),
        pytest.param(iter(DataLoader(NUMBERED)), "which is spent after one pass. Pass the DataLoader", id="a loader's"),
        pytest.param(DataLoader(OwnIterator()), r"data set \(OwnIterator\) is its own iterator", id="a spent stream"),
    ],
)
def test_what_can_be_read_only_once_is_refused_with_its_type_and_a_remedy(batches, message):
    with pytest.raises(TypeError, match=message):
        Superbatches(batches, 1, seed=0)


@pytest.mark.parametrize(
    "batches",
    [
        pytest.param([], id="a list"),
        pytest.param(DataLoader([]), id="a loader of nothing"),
        pytest.param(DataLoader(NUMBERED, batch_size=64, drop_last=True), id="all dropped"),
    ],
)
def test_no_minibatches_at_all_are_refused_with_a_remedy(batches):
    with pytest.raises(ValueError, match="batches is empty; pass the DataLoader that training uses"):
        Superbatches(batches, 1, seed=0)


def test_a_function_makes_the_same_minibatches_for_the_same_number_and_training_s_own_are_undisturbed():
    def get_batch():  # as in nanoGPT
        return torch.randint(1000, (3,))

    superbatches = Superbatches(get_batch, 2, seed=0)
    torch.manual_seed(5)
    undrawn = get_batch()
    torch.manual_seed(5)
    first, second, again = (draw(superbatches, number) for number in (0, 1, 0))
    assert torch.equal(get_batch(), undrawn)
    assert first == again
    assert first[0] != first[1]
    assert first[0] != second[0]
    assert superbatches.available is None


def test_of_a_stream_the_first_minibatches_are_kept_and_drawn_from():
    read = []

    def stream():
        for number in range(1000):
            read.append(number)
            yield torch.tensor(number)

    superbatches = Superbatches(stream(), 5, seed=0)
    first, second, again = (draw(superbatches, number) for number in (0, 1, 0))
    assert first == again != second
    assert len(set(first)) == 5
    assert read == list(range(32))
    more = draw(superbatches, 2, 50)
    assert sorted(more) == list(range(50))
    assert draw(superbatches, 0) == first


def test_a_stream_with_fewer_minibatches_gives_what_it_has():
    superbatches = Superbatches(iter(torch.arange(3)), 5, seed=0)
    assert sorted(draw(superbatches, 0)) == [0, 1, 2]


def test_more_minibatches_than_there_are_are_refused_with_both_numbers():
    with pytest.raises(ValueError, match="at most the 10 minibatches that batches has; got 11"):
        Superbatches(LOADERS["shuffled"](), 11, seed=0)
    assert Superbatches(LOADERS["shuffled"](), 10, seed=0).size == 10


def test_an_iterable_that_is_empty_the_second_time_is_an_error_and_not_an_empty_superbatch():
    superbatches = Superbatches(Again(), 1, seed=0)
    assert len(draw(superbatches, 0)) == 1
    with pytest.raises(ValueError, match=r"no minibatch this time.*iterated again and again"):
        draw(superbatches, 1)


def test_a_sampler_that_cannot_be_copied_is_refused_and_not_drawn_from():
    class Uncopyable(Sampler):
        def __init__(self):
            self.source = (index for index in range(EXAMPLES))

        def __iter__(self):
            return self.source

    sampler = Uncopyable()
    with pytest.raises(TypeError, match=r"sampler \(BatchSampler\) cannot be copied.*Pass batches=\.\.\. another"):
        Superbatches(DataLoader(NUMBERED, batch_size=4, sampler=sampler), 3, seed=0)
    assert next(iter(sampler)) == 0
