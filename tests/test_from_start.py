"""Steps from a run's start, tried in the middle of it: they leave everything as it is, and their word is followed."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

import autolr
from autolr.measure.memory import has_room
from autolr.numerics.scale import trial_forwards
from autolr.policies.guard import LONGER, ShortRuns
from ranks import on_ranks

SHORT = 3
AWAITED = LONGER * SHORT
KNOWN = autolr.PeakSearch(peak=0.01)
# So low that the run is not further by then.
COMPARED = autolr.PeakSearch(peak=0.01, short_runs=ShortRuns(1.0, 0.02, SHORT))


class Noisy(nn.Module):
    """All that a step may change: dropout, running statistics, a counter, a buffer that is replaced."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 1))
        self.register_buffer("seen", torch.zeros(()))
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        self.seen = self.seen + 1
        return self.layers(x)


def squared(model, batch):
    return (model(batch[0]) - batch[1]).square().mean()


def noisy(rows=256):
    """A model, and a list of minibatches of 16."""
    torch.manual_seed(0)
    model, x = Noisy(), torch.randn(rows, 6)
    return model, [(part, part[:, :1]) for part in x.split(16)]


OPTIMIZERS = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
}


def trained(policy, kind="momentum", steps=5 * AWAITED):
    """Model, AutoLR, losses of all steps, and the generators' next number."""
    torch.manual_seed(0)
    model = Noisy()
    x = torch.randn(256, 6)
    data = TensorDataset(x, x[:, :1])
    loader = DataLoader(data, batch_size=16, shuffle=True)
    optimizer = autolr.AutoLR(OPTIMIZERS[kind](model.parameters()), model, squared, loader, steps, policy=policy)
    losses = []
    for batch in itertools.islice(itertools.chain.from_iterable(itertools.repeat(loader)), steps):
        optimizer.zero_grad()
        loss = squared(model, batch)
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    return model, optimizer, losses, torch.rand(()).item()


def triggers(optimizer):
    return [record.trigger for record in optimizer.history]


def same(a, b):
    (model, optimizer, losses, number), (other, another, others, next_one) = a, b
    assert losses == others
    assert number == next_one
    assert model.calls == other.calls
    for one, two in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(one, two)
    for one, two in zip(optimizer.base.state.values(), another.base.state.values(), strict=True):
        assert all(torch.equal(torch.as_tensor(one[name]), torch.as_tensor(two[name])) for name in one)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_run_whose_peak_is_compared_with_a_lower_one_is_bit_for_bit_the_run_without(kind):
    compared = trained(COMPARED, kind)
    assert triggers(compared[1]).count("stands") == 1
    without = trained(KNOWN, kind)
    assert "stands" not in triggers(without[1])
    same(compared, without)
    assert compared[1].cost.search == trial_forwards(SHORT)


def test_a_scheduler_that_warms_up_from_0_leaves_rates_for_the_trial_and_their_ratio():
    """What was saved before the first step has the rate 0."""
    model, data = noisy()
    first, *others = model.parameters()
    base = torch.optim.SGD([{"params": [first], "lr": 0.02}, {"params": others}], lr=0.01)
    optimizer = autolr.AutoLR(base, model, squared, data, 5 * AWAITED, policy=COMPARED)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 10))
    seen = set()

    def rates(*_):
        if optimizer._searches.under_way:
            seen.add(tuple(group["lr"] for group in base.param_groups))

    base.register_step_pre_hook(rates)
    with pytest.warns(UserWarning, match="AutoLR's own"):
        for step in range(AWAITED + 1):
            optimizer.zero_grad()
            squared(model, data[step % 16]).backward()
            optimizer.step()
            scheduler.step()
    assert triggers(optimizer)[-1] == "stands"
    assert len(seen) > 3
    assert all(b > 0 and a == pytest.approx(2 * b) for a, b in seen)


def test_groups_that_change_make_another_start_and_nothing_is_tried_from_it():
    model, data = noisy()
    first, *others = model.parameters()
    base = torch.optim.SGD(others, lr=0.01)
    optimizer = autolr.AutoLR(base, model, squared, data, 5 * AWAITED, policy=COMPARED)
    for step in range(5 * AWAITED):
        if step == AWAITED // 2:
            optimizer.add_param_group({"params": [first]})
        optimizer.zero_grad()
        squared(model, data[step % 16]).backward()
        optimizer.step()
    assert not {"stands", "too high"} & set(triggers(optimizer))


def test_what_the_training_step_needs_the_trial_is_told_of():
    """A user's own step of four minibatches, with a scaler that is put back: it counts as often as the run has."""
    model, data = noisy(rows=1024)
    base = torch.optim.SGD(model.parameters(), lr=0.01)
    calls, scale = [0], {"steps": 0}

    def train_step(batch):
        calls[0] += 1
        (squared(model, batch) / 4).backward()
        if calls[0] % 4 == 0:
            scale["steps"] += 1
            base.step()
            base.zero_grad()

    search = {"train_step": train_step, "accumulation": 4, "also": [scale]}
    optimizer = autolr.AutoLR(base, model, squared, data, 5 * AWAITED, policy=COMPARED, search=search)
    for step in range(AWAITED):
        for batch in data[4 * step % 64 :][:4]:
            (squared(model, batch) / 4).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert triggers(optimizer)[-1] == "stands"
    assert calls == [4 * (AWAITED + 2 * SHORT)]  # down to zero from here and from the start
    assert scale == {"steps": 0}


class Counting:
    """A source that goes on where it stands."""

    def __init__(self, data):
        self.data, self.position = data, 0

    def __call__(self):
        self.position += 1
        return self.data[self.position % len(self.data)]


def test_both_ways_are_trained_and_judged_on_the_same_minibatches():
    model, data = noisy(rows=1024)
    source, seen, begun = Counting(data), [], []

    def loss_fn(model, batch):
        if begun and begun[0]._searches.under_way:
            seen.append(
                (torch.is_grad_enabled(), next(i for i, known in enumerate(data) if torch.equal(known[0], batch[0])))
            )
        return squared(model, batch)

    base = torch.optim.SGD(model.parameters(), lr=0.01)
    begun.append(autolr.AutoLR(base, model, loss_fn, source, 5 * AWAITED, policy=COMPARED))
    position = None
    for step in range(AWAITED):
        begun[0].zero_grad()
        squared(model, data[step % 64]).backward()
        position = source.position
        begun[0].step()
    assert triggers(begun[0])[-1] == "stands"
    assert source.position == position
    trained = [place for training, place in seen if training]
    here, there = trained[:SHORT], trained[SHORT:]
    assert len(there) == AWAITED + SHORT
    assert here == there[:SHORT]
    judged = [place for training, place in seen if not training]
    assert judged[: len(judged) // 2] == judged[len(judged) // 2 :]


@pytest.mark.parametrize(("room", "compared"), [(1, 1), (0, 0)])
def test_where_a_rank_has_no_room_nothing_is_tried_and_that_is_told(monkeypatch, room, compared):
    monkeypatch.setattr("autolr.searches.several", lambda: True)
    monkeypatch.setattr("autolr.searches.smallest", lambda own: min(own, room))
    if room:
        model, optimizer, _, _ = trained(COMPARED)
    else:
        with pytest.warns(UserWarning, match="one of the ranks has no room for a trial of a lower peak"):
            model, optimizer, _, _ = trained(COMPARED)
    assert triggers(optimizer).count("stands") == compared
    assert torch.equal(model.layers[0].weight, trained(KNOWN)[0].layers[0].weight)


@pytest.mark.parametrize(("free", "room"), [(8 * 6 * 2, True), (8 * 6 * 2 - 1, False)])
def test_a_gpu_has_room_for_two_copies_of_weights_gradients_and_state_or_none(monkeypatch, free, room):
    model = nn.Linear(1, 1)
    base = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    model(torch.ones(1, 1)).backward()
    base.step()  # two weights, with a gradient and a momentum each
    assert has_room(base)  # nobody knows of a CPU's
    there = SimpleNamespace(device=torch.device("cuda:0"), nbytes=8)
    monkeypatch.setattr("autolr.measure.memory.own_part", lambda _: there)
    monkeypatch.setattr("autolr.measure.memory.free", lambda _: free)
    assert has_room(base) is room


class Interrupt(BaseException):
    """As a signal handler raises it."""


@pytest.mark.parametrize("at", [1, 9, 9 + SHORT, 20, 9 + 2 * SHORT + 8, AWAITED + 9, AWAITED + 28])
def test_everything_is_put_back_wherever_the_steps_are_interrupted(at):
    calls = [0]

    def loss_fn(model, batch):
        if optimizer and optimizer[0]._searches.under_way:
            calls[0] += 1
            if calls[0] == at:
                raise Interrupt
        return squared(model, batch)

    def begun(policy):
        model, data = noisy()
        base = OPTIMIZERS["momentum"](model.parameters())
        return model, data, autolr.AutoLR(base, model, loss_fn, data, 5 * AWAITED, policy=policy)

    def step(model, data, optimizer, number):
        optimizer.zero_grad()
        squared(model, data[number % 16]).backward()
        optimizer.step()

    optimizer = []
    model, data, tuned = begun(COMPARED)
    optimizer.append(tuned)
    for number in range(AWAITED - 1):
        step(model, data, tuned, number)
    with pytest.raises(Interrupt):
        step(model, data, tuned, AWAITED - 1)
    drawn = torch.rand(())
    optimizer.clear()
    assert tuned._controller._kept is None
    # The step had been taken: all is as where nothing is compared.
    twin, data, other = begun(KNOWN)
    for number in range(AWAITED):
        step(twin, data, other, number)
    assert torch.equal(drawn, torch.rand(()))
    assert model.calls == twin.calls
    for one, two in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.equal(one, two)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)
        assert torch.equal(tuned.base.state[p]["momentum_buffer"], other.base.state[q]["momentum_buffer"])
    assert tuned.base.param_groups[0]["lr"] == other.base.param_groups[0]["lr"]
    step(model, data, tuned, AWAITED)  # and it goes on


def test_a_trial_that_fails_is_left_out_and_told_of():
    """Nobody asked for it: it must not end a training."""

    def trained(policy, fails):
        model, data = noisy()
        base = OPTIMIZERS["momentum"](model.parameters())

        def loss_fn(model, batch):
            if fails and tuned and tuned[0]._searches.under_way and torch.is_grad_enabled():
                raise KeyError("labels")
            return squared(model, batch)

        tuned = []
        tuned.append(autolr.AutoLR(base, model, loss_fn, data, 5 * AWAITED, policy=policy))
        for number in range(5 * AWAITED):
            tuned[0].zero_grad()
            squared(model, data[number % 16]).backward()
            tuned[0].step()
        return model, tuned[0]

    with pytest.warns(UserWarning, match=r"A trial of a lower peak failed \(KeyError: 'labels'\): it is left out"):
        model, optimizer = trained(COMPARED, fails=True)
    assert not {"stands", "too high"} & set(triggers(optimizer))
    twin, _ = trained(KNOWN, fails=False)
    for one, two in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.equal(one, two)


def least_squares(noise):
    """Minibatches of 4, and targets with so much noise."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1200, 10, generator=generator)
    y = x.sum(1, keepdim=True) + noise * torch.randn(1200, 1, generator=generator)
    return list(zip(x.split(4), y.split(4), strict=True))


def on_rank(rank: int, policy: autolr.PeakSearch) -> Any:
    """Parameters, buffers and decisions of a run with data of its own on each rank, and dropout."""
    torch.manual_seed(0)
    model = DistributedDataParallel(Noisy())
    torch.manual_seed(100 + rank)
    x = torch.randn(128, 6)
    data = DataLoader(TensorDataset(x, x[:, :1]), batch_size=8, shuffle=True)
    base = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    optimizer = autolr.AutoLR(base, model, squared, data, 5 * AWAITED, policy=policy)
    for batch in itertools.islice(itertools.chain.from_iterable(itertools.repeat(data)), 5 * AWAITED):
        optimizer.zero_grad()
        squared(model, batch).backward()
        optimizer.step()
    told = [(record.step, record.trigger, record.lr_after) for record in optimizer.history]
    return [t.detach() for t in model.state_dict().values()], torch.rand(()), told


@pytest.mark.distributed
def test_all_ranks_compare_and_decide_alike_and_are_left_as_they_were(tmp_path):
    first, second = on_ranks(on_rank, 2, tmp_path, COMPARED)
    assert first[2] == second[2]
    assert [trigger for _, trigger, _ in first[2]].count("stands") == 1
    for compared, without in zip((first, second), on_ranks(on_rank, 2, tmp_path, KNOWN), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(compared[0], without[0], strict=True))
        assert torch.equal(compared[1], without[1])


def test_a_peak_tells_its_policy_how_far_its_short_runs_came():
    torch.manual_seed(0)
    model, data = nn.Linear(10, 1), least_squares(noise=1.0)
    base = torch.optim.SGD(model.parameters(), lr=0.01)
    peak = autolr.find_peak(model, base, squared, data, 300, progress=False)
    policy = autolr.Peak.from_json(peak.to_json()).policy(decay=False)
    longest = max(run.length for run in peak.runs)
    assert policy == autolr.PeakSearch(
        peak=peak.lr, decay=False, short_runs=ShortRuns(peak.start_loss, peak.best_loss, longest)
    )
    # The same run as where AutoLR searches by itself.
    rates = []
    for one in (autolr.PeakSearch(), peak.policy()):
        torch.manual_seed(0)
        model = nn.Linear(10, 1)
        base = torch.optim.SGD(model.parameters(), lr=0.01)
        optimizer = autolr.AutoLR(base, model, squared, data, 300, policy=one)
        rates.append([])
        for batch in data:
            optimizer.zero_grad()
            squared(model, batch).backward()
            optimizer.step()
            rates[-1].append((base.param_groups[0]["lr"], model.weight[0, 0].item()))
    assert rates[0] == rates[1]


def test_a_peak_that_could_not_be_told_has_nothing_to_surpass():
    torch.manual_seed(0)
    model, data = nn.Linear(10, 1), least_squares(noise=1.0)
    base = torch.optim.SGD(model.parameters(), lr=0.01)
    with pytest.warns(UserWarning, match="find_peak returns"):
        peak = autolr.find_peak(model, base, lambda m, b: squared(m, b) * 0 + 1.0, data, 300, progress=False)
    assert peak.policy() == autolr.PeakSearch(peak=0.01)
