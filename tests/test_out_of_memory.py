"""Where a measurement finds no memory, it is left out and told of: training, which has enough, goes on as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import autolr
from training_runs import BATCHES_OF_LINES, cross_entropy, seed_everything

FULL = {
    "device": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "host": MemoryError(),
    "allocator": RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
}
POLICIES = {
    "guard": autolr.PeakSearch(peak=0.05),
    "windowed": autolr.ExploreExploit(window=3, superbatch=2, spread=1),
    "monitor": autolr.Monitor(window=3, superbatch=2),
}


def trained(policy, error=None, probes=range(10**9), steps=30):
    """A run in which the named calls of the loss in probes find no memory; without a policy a plain one."""
    seed_everything(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    calls = [-1]  # the first one tries loss_fn, before training

    def loss_fn(model, batch):
        if autolr.is_probing() and error is not None:
            calls[0] += 1
            if calls[0] in probes and calls[0]:
                raise error
        return cross_entropy(model, batch)

    if policy is not None:
        optimizer = autolr.AutoLR(optimizer, model, loss_fn, BATCHES_OF_LINES, steps, policy=policy)
    for step in range(steps):
        optimizer.zero_grad()
        cross_entropy(model, BATCHES_OF_LINES[step % len(BATCHES_OF_LINES)]).backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()], optimizer, calls[0]


@pytest.mark.parametrize("error", FULL.values(), ids=FULL)
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_training_goes_on_where_no_measurement_finds_memory(policy, error):
    with pytest.warns(UserWarning, match="Memory ran out in a measurement") as told:
        _, optimizer, _ = trained(policy, error)
    assert len(told) == 1
    assert optimizer.steps_taken == 30
    assert not any(record.eps for record in optimizer.history)
    assert not autolr.is_probing()


def test_what_is_measured_not_at_all_changes_no_bit():
    with pytest.warns(UserWarning, match="Memory ran out"):
        weights, _, _ = trained(POLICIES["monitor"], FULL["device"])
    assert all(torch.equal(a, b) for a, b in zip(weights, trained(None)[0], strict=True))


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_the_next_measurement_is_taken_when_there_is_memory_again(policy):
    with pytest.warns(UserWarning, match="Memory ran out"):
        _, optimizer, calls = trained(policy, FULL["device"], probes=range(1, 4))
    assert calls > 4
    assert optimizer.history


def test_another_error_of_the_loss_is_raised_as_it_is():
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        trained(POLICIES["monitor"], RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_a_search_that_finds_no_memory_says_so_before_training():
    with pytest.raises(torch.OutOfMemoryError):
        trained(autolr.PeakSearch(), FULL["device"])
