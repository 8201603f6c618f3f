"""Which minibatches judge short runs: few rare examples have a voice, none twice, and what is held stays small."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import autolr
from autolr.measure.judges import Chosen, Judges
from autolr.measure.short_run import ShortRunner
from autolr.measure.whole_state import everything_kept


def chosen(losses, count, candidates):
    seen = Chosen(count, candidates)
    for place, loss in enumerate(losses):
        seen.add(torch.tensor(loss), f"minibatch {place}")
    return [(place, float(loss), batch) for place, loss, batch in seen.chosen()]


def test_the_highest_stands_for_its_share_and_the_first_ones_for_the_others():
    losses = [5.0, 1.0, 9.0, 2.0, 8.0, 3.0, 4.0, 0.0]  # of eight, two judge: 9, 8, 5 and 4 are the highest four
    assert chosen(losses, 2, 4) == [(1, 1.0, "minibatch 1"), (2, 9.0, "minibatch 2")]


@pytest.mark.parametrize("order", list(itertools.permutations([0.5, 1.0, 1.5, 2.0])))
def test_as_many_as_are_wanted_and_in_the_order_in_which_they_came(order):
    assert [place for place, _, _ in chosen([*order], 4, 1)] == [0, 1, 2, 3]
    kept = chosen([*order, 0.0, 0.1, 0.2, 0.3], 4, 2)
    assert len(kept) == 4
    assert max(order) in [loss for _, loss, _ in kept]
    assert [place for place, _, _ in kept] == sorted({place for place, _, _ in kept})


def test_fewer_than_are_wanted_all_judge_and_losses_that_are_no_numbers_stand_for_nothing():
    assert len(chosen([3.0, 1.0, 2.0], 8, 4)) == 3
    assert [place for place, _, _ in chosen([math.nan, math.inf, 1.0, 2.0], 2, 2)] == [2, 3]
    assert [place for place, _, _ in chosen([math.nan] * 6 + [1.0, 2.0], 4, 2)] == [0, 1, 6, 7]
    assert len(chosen([math.nan] * 9, 2, 4)) == 2


def test_no_more_are_held_than_may_judge():
    seen = Chosen(8, 4)
    for place in range(1000):
        seen.add(torch.tensor(float(place * 7919 % 1000)), place)
        assert len(seen._high) + len(seen._others) <= 12


def rare(rows, one_in):
    x = torch.randn(rows, 4, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(rows)
    y[::one_in] = 1.0
    return DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True)


def weighted(model, batch):
    return F.binary_cross_entropy_with_logits(model(batch[0])[:, 0], batch[1], pos_weight=torch.tensor(199.0))


def test_a_class_that_comes_once_in_two_hundred_has_a_voice():
    loader, model = rare(12_800, 200), nn.Linear(4, 1)
    without = {1: 0, 4: 0}
    for candidates in without:
        for seed in range(40):
            judges = Judges(model, weighted, loader, 8, candidates, seed)
            without[candidates] += not any(bool(batch[1].any()) for batch in judges.batches)
    assert without[1] >= 6  # 28 % of 40 are expected: the eight alone are blind so often
    assert without[4] <= 1  # 0.6 %


def test_their_losses_are_those_of_the_places_that_they_were_seen_at():
    loader = rare(12_800, 200)
    model = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.5), nn.Linear(16, 1))  # a mask for each place
    judges = Judges(model, weighted, loader, 8, 4, seed=0)
    assert judges.looked_at == 32
    assert judges.losses() == judges.start
    assert max(judges.places) > 7


def test_half_of_the_minibatches_at_least_are_left_to_train_with():
    for rows, looked_at in ((32 * 20, 8), (32 * 40, 16), (32 * 80, 32)):
        model = nn.Linear(4, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with everything_kept(model, optimizer) as state:
            runner = ShortRunner(
                model, optimizer, weighted, rare(rows, 200), state, longest=5, minibatches=8, candidates=4
            )
        assert runner.judges.looked_at == runner.cost == looked_at


def test_with_evaluation_minibatches_all_of_them_may_be_looked_at():
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    held_out = list(rare(32 * 20, 20))
    with everything_kept(model, optimizer) as state:
        runner = ShortRunner(
            model,
            optimizer,
            weighted,
            rare(640, 20),
            state,
            longest=5,
            minibatches=8,
            candidates=4,
            evaluation=held_out,
        )
    assert runner.judges.looked_at == 20
    assert len(runner.start) == 8


@pytest.mark.parametrize("batches", [[None] * 3, lambda: None], ids=["a list", "a function"])
def test_none_is_a_minibatch_like_any_other(batches):
    """A loss that makes its own points needs no data."""
    model = nn.Linear(1, 1)

    def loss_fn(model, _):
        x = torch.rand(8, 1)
        return (model(x) - x.sin()).square().mean()

    assert len(Judges(model, loss_fn, batches, 2, 1, seed=0).losses()) == 2
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    autolr.AutoLR(optimizer, model, loss_fn, batches, 100).step()
