"""A trial of a lower peak that gets further is the run from there on, with one process, with ranks, and resumed."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import autolr
from autolr.measure.snapshot import Snapshot
from autolr.numerics.scale import trial_forwards
from autolr.policies.guard import LONGER, ShortRuns
from ranks import on_ranks
from stuck_runs import Fragile, least_squares, squared

SHORT, STEPS = 30, 1200
AWAITED = LONGER * SHORT
POLICY = autolr.PeakSearch(peak=0.1, short_runs=ShortRuns(11.0, 1.6, SHORT))
TOLD = r"rolled back 240 steps, peak 0\.1 to 0\.0111: the peak is too high"


def begun(model, data):
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.1)
    return base, autolr.AutoLR(base, model, squared, data, STEPS, policy=POLICY)


def fragile():
    torch.manual_seed(0)
    return Fragile()


def step(model, optimizer, data, number):
    optimizer.zero_grad()
    squared(model, data[number % len(data)]).backward()
    optimizer.step()


def place(model, base):
    momenta = [base.state[p]["momentum_buffer"] for p in model.parameters()]
    return [t.detach().clone() for t in (*model.state_dict().values(), *momenta)]


def same(here, there):
    return all(torch.equal(a, b) for a, b in zip(here, there, strict=True))


def test_the_run_is_where_the_trial_was_before_its_rate_came_down():
    model, data = fragile(), least_squares()
    base, optimizer = begun(model, data)
    tried = []  # places of the trial, after each of its steps
    base.register_step_post_hook(lambda *_: tried.append(place(model, base)) if optimizer._searches.under_way else None)
    with pytest.warns(UserWarning, match=TOLD):
        for number in range(AWAITED):
            step(model, optimizer, data, number)
    assert len(tried) == SHORT + AWAITED + SHORT  # down from here; from the start, and down
    assert same(place(model, base), tried[SHORT + AWAITED - 1])
    assert base.param_groups[0]["lr"] == pytest.approx(0.1 / 9)
    assert not model.broken
    for number in range(AWAITED, STEPS):
        step(model, optimizer, data, number)
    back = next(record for record in optimizer.history if record.trigger == "too high")
    assert back.lr_after == pytest.approx(0.1 / 9)
    # What the run took beside its steps: those that were undone have others in their place.
    assert optimizer.cost.discarded_steps == 0
    assert optimizer.cost.search == trial_forwards(SHORT)
    assert [record.trigger for record in optimizer.history].count("diverged") == 0
    with torch.no_grad():
        assert sum(squared(model, batch).item() for batch in data) / len(data) < 1e-6


def test_a_run_that_diverges_afterwards_goes_back_to_the_trials_place_and_not_to_the_start():
    model, data = fragile(), least_squares()
    base, optimizer = begun(model, data)
    with pytest.warns(UserWarning, match=TOLD):
        for number in range(AWAITED):
            step(model, optimizer, data, number)
    there = place(model, base)
    for p in model.parameters():
        p.data.fill_(float("nan"))
    with pytest.warns(UserWarning, match=r"rolled back \d+ steps, peak 0\.0111 to 0\.0037: it diverged"):
        for number in range(AWAITED, AWAITED + 120):
            step(model, optimizer, data, number)
            if optimizer.history[-1].trigger == "diverged":
                break
    assert optimizer.history[-1].lr_after == pytest.approx(0.1 / 27)
    assert same(place(model, base), there)


def test_the_seconds_of_keeping_the_place_are_counted_once(monkeypatch):
    """They lie within the trial's own. A clock that only copies to the host move."""
    clock, capture = [0.0], Snapshot.capture

    def slow(*arguments):
        clock[0] += 1.0
        return capture(*arguments)

    monkeypatch.setattr(Snapshot, "capture", slow)
    monkeypatch.setattr("autolr.numerics.cost.time.perf_counter", lambda: clock[0])
    model, data = fragile(), least_squares()
    _, optimizer = begun(model, data)
    with pytest.warns(UserWarning, match=TOLD):
        for number in range(AWAITED):
            step(model, optimizer, data, number)
    assert optimizer.cost.snapshots == clock[0] == 2  # at the start, and on the way from there
    assert optimizer.cost.seconds == 2


@pytest.mark.parametrize("steps", [1, 7])
def test_a_training_step_of_the_users_own_may_take_several_steps(steps):
    """So that the trial comes past the place that is to be kept, and not to it."""
    model, data = fragile(), least_squares()
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.1)

    def train_step(batch):
        for _ in range(steps):
            base.zero_grad()
            squared(model, batch).backward()
            base.step()

    optimizer = autolr.AutoLR(base, model, squared, data, STEPS, policy=POLICY, search={"train_step": train_step})
    with pytest.warns(UserWarning, match=TOLD):
        for number in range(AWAITED):
            step(model, optimizer, data, number)
    assert not model.broken


def test_a_request_to_stop_is_no_failure_of_the_trial():
    model, data = fragile(), least_squares()

    def loss_fn(model, batch):
        if tuned and tuned[0]._searches.under_way:
            raise TimeoutError("60 s are left")
        return squared(model, batch)

    tuned = []
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.1)
    tuned.append(autolr.AutoLR(base, model, loss_fn, data, STEPS, policy=POLICY))
    for number in range(AWAITED - 1):
        step(model, tuned[0], data, number)
    with pytest.raises(TimeoutError, match="60 s are left"):
        step(model, tuned[0], data, AWAITED - 1)


@pytest.mark.parametrize("at", [AWAITED - 10, AWAITED, AWAITED + 10])
def test_resumed_before_or_after_the_trial_the_run_is_the_uninterrupted_one(at):
    def trained(resumed):
        model, data = fragile(), least_squares()
        base, optimizer = begun(model, data)
        for number in range(AWAITED + 200):
            if resumed and number == at:
                file = io.BytesIO()
                torch.save([model.state_dict(), optimizer.state_dict()], file)
                file.seek(0)
                kept = torch.load(file, weights_only=True)
                model = Fragile()
                base, optimizer = begun(model, data)
                model.load_state_dict(kept[0])
                optimizer.load_state_dict(kept[1])
            step(model, optimizer, data, number)
        return place(model, base), [(record.step, record.trigger, record.lr_after) for record in optimizer.history]

    with pytest.warns(UserWarning, match=TOLD):
        whole, again = trained(resumed=False), trained(resumed=True)
    assert same(whole[0], again[0])
    assert whole[1] == again[1]


def on_rank(rank: int, strategy: str) -> Any:
    """Parameters and momenta right after the trial, the last loss, and what was decided; data of each rank's own."""
    model, data = fragile(), least_squares(seed=1 + rank)
    if strategy == "ddp":
        model = DistributedDataParallel(model)
    else:
        fully_shard(model)
    base, optimizer = begun(model, data)
    kept: list[torch.Tensor] = []
    for number in range(STEPS):
        step(model, optimizer, data, number)
        if number == AWAITED - 1:
            kept = place(model, base)
    told = [(record.step, record.trigger, record.lr_after) for record in optimizer.history]
    kept = [t.full_tensor() if hasattr(t, "full_tensor") else t for t in kept]
    return kept, squared(model, data[0]).item(), told


@pytest.mark.distributed
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_all_ranks_go_on_from_the_trial_alike(tmp_path, strategy):
    first, second = on_ranks(on_rank, 2, tmp_path, strategy)
    assert first[2] == second[2]
    assert [(at, trigger) for at, trigger, _ in first[2] if trigger == "too high"] == [(AWAITED, "too high")]
    assert same(first[0], second[0])
    assert max(first[1], second[1]) < 1e-6
