"""Several optimizers as one: stepped together, rates in their ratio, resumed to the bit, searched without a trace."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

import autolr
from autolr.runtime.together import Together
from training_runs import BATCHES_OF_LINES, Script, cross_entropy, differences, full_print, seed_everything

STEPS = 24


def muon_and_adamw(model: nn.Module) -> list[torch.optim.Optimizer]:
    matrices = [p for p in model.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if p.ndim != 2]
    return [torch.optim.Muon(matrices, lr=0.02), torch.optim.AdamW(rest, lr=0.005)]


def network() -> nn.Module:
    seed_everything(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2))


def train(model: nn.Module, optimizers: Any, first: int = 0, last: int = STEPS) -> list[Any]:
    prints = []
    for step in range(first, last):
        for optimizer in optimizers:
            optimizer.zero_grad()
        cross_entropy(model, BATCHES_OF_LINES[step % len(BATCHES_OF_LINES)]).backward()
        for optimizer in optimizers:
            optimizer.step()
        prints.append({k: v for each in optimizers for k, v in full_print(model, each).items() if "/" in k})
    return prints


def tuned(model: nn.Module, policy: Any, optimizers: Any = muon_and_adamw) -> autolr.AutoLR:
    return autolr.AutoLR(optimizers(model), model, cross_entropy, BATCHES_OF_LINES, STEPS, policy=policy)


def test_with_the_rate_held_two_optimizers_train_as_they_would_have_alone():
    alone, model = network(), network()
    both = muon_and_adamw(alone)
    train(alone, both)
    optimizer = tuned(model, autolr.Monitor(window=3, superbatch=2))
    train(model, [optimizer])
    assert differences(full_print(alone, both[0]), full_print(model, optimizer.base.optimizers[0])) == []
    assert differences(full_print(alone, both[1]), full_print(model, optimizer.base.optimizers[1])) == []
    assert sum(bool(record.eps) for record in optimizer.history) >= 3


def test_rates_keep_their_ratio():
    model = network()
    optimizer = tuned(model, autolr.PeakSearch(peak=0.4))
    seen = []
    for step in range(STEPS):
        train(model, [optimizer], step, step + 1)
        seen.append([group["lr"] for member in optimizer.base.optimizers for group in member.param_groups])
    assert max(rates[0] for rates in seen) == pytest.approx(0.4)
    assert len({rates[0] for rates in seen}) > 10
    assert all(muon == pytest.approx(4 * adamw) for muon, adamw in seen)


def test_find_peak_of_both_leaves_no_trace_in_either():
    model = network()
    both = muon_and_adamw(model)
    train(model, both, last=3)
    before = [full_print(model, optimizer) for optimizer in both]
    peak = autolr.find_peak(model, both, cross_entropy, BATCHES_OF_LINES, 300)
    assert [differences(b, full_print(model, optimizer)) for b, optimizer in zip(before, both, strict=True)] == [[], []]
    assert len({run.loss for run in peak.runs}) >= 3
    assert math.log2(peak.runs[1].lr / 0.02) == pytest.approx(round(math.log2(peak.runs[1].lr / 0.02)))


def test_a_users_own_step_of_both_is_one_step_of_the_search():
    model = network()
    both = muon_and_adamw(model)

    def step(batch: Any) -> Any:
        for optimizer in both:
            optimizer.zero_grad()
        loss = cross_entropy(model, batch)
        loss.backward()
        for optimizer in both:
            optimizer.step()
        return loss

    by_hand = autolr.find_peak(model, both, cross_entropy, BATCHES_OF_LINES, 300, train_step=step)
    by_itself = autolr.find_peak(model, both, cross_entropy, BATCHES_OF_LINES, 300)
    assert [run.losses for run in by_hand.runs] == [run.losses for run in by_itself.runs]


@pytest.mark.parametrize("at", [0, 5, 13])
def test_a_run_continued_from_a_checkpoint_is_the_uninterrupted_one(at: int):
    policy = Script(verdicts=("raise", "roll back", "look", "lower"), spread=3, window=3, superbatch=3)
    model = network()
    optimizer = tuned(model, policy)
    train(model, [optimizer], last=at)
    kept = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    train(model, [optimizer], first=at)
    again = network()
    resumed = tuned(again, policy)
    again.load_state_dict(kept[0])
    resumed.load_state_dict(kept[1])
    train(again, [resumed], first=at)
    assert resumed.history == optimizer.history
    assert any(record.verdict == "roll back" for record in optimizer.history)
    for mine, yours in zip(optimizer.base.optimizers, resumed.base.optimizers, strict=True):
        assert differences(full_print(model, mine), full_print(again, yours)) == []


def test_its_checkpoint_is_that_of_one_optimizer_with_their_groups():
    def adam_twice(model: nn.Module) -> list[torch.optim.Optimizer]:
        first, *others = model.parameters()
        return [torch.optim.AdamW([first], lr=0.02), torch.optim.AdamW(others, lr=0.01)]

    def adam_once(model: nn.Module) -> list[torch.optim.Optimizer]:
        first, *others = model.parameters()
        return [torch.optim.AdamW([{"params": [first], "lr": 0.02}, {"params": others, "lr": 0.01}], lr=0.02)]

    two, one = network(), network()
    several, single = Together(adam_twice(two)), adam_once(one)[0]
    train(two, [several])
    train(one, [single])
    assert differences(full_print(two, several), full_print(one, single)) == []
    third = network()
    loaded = Together(adam_twice(third))
    loaded.load_state_dict(single.state_dict())
    third.load_state_dict(one.state_dict())
    assert [n for n in differences(full_print(third, loaded), full_print(one, single)) if "gradient" not in n] == []


def test_a_list_that_cannot_be_one_is_refused_with_what_to_do():
    model = network()
    parameters = list(model.parameters())
    one, other = torch.optim.SGD(parameters, lr=0.1), torch.optim.AdamW(parameters[:1])
    with pytest.raises(ValueError, match="1 parameters are held by two of the optimizers"):
        autolr.find_peak(model, [one, other], cross_entropy, BATCHES_OF_LINES, 300)
    with pytest.raises(TypeError, match="got list with a Linear in it"):
        Together([one, model[0]])
    with pytest.raises(ValueError, match="must not be empty"):
        Together([])
    with pytest.raises(TypeError, match="LBFGS cannot be tuned"):
        autolr.AutoLR(
            [one, torch.optim.LBFGS([nn.Parameter(torch.ones(1))])], model, cross_entropy, BATCHES_OF_LINES, 9
        )
    optimizer = tuned(model, autolr.Monitor())
    with pytest.raises(TypeError, match="add the group to the one"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    with pytest.raises(ValueError, match="1 parameter groups; these optimizers have 2"):
        optimizer.base.load_state_dict(one.state_dict())


def test_a_list_of_one_is_that_one():
    model = network()
    optimizer = tuned(model, autolr.Monitor(), lambda net: [torch.optim.SGD(net.parameters(), lr=0.1)])
    assert isinstance(optimizer.base, torch.optim.SGD)


def test_the_scheduler_of_a_peak_takes_the_list_that_was_searched():
    model = network()
    both = muon_and_adamw(model)
    peak = autolr.find_peak(model, both, cross_entropy, BATCHES_OF_LINES, 300)
    scheduler = peak.scheduler(both)
    rates = []
    for step in range(3):
        rates.append([group["lr"] for optimizer in both for group in optimizer.param_groups])
        train(model, both, step, step + 1)
        scheduler.step()  # warnings are errors: torch asks for the order of the two
    assert [muon for muon, _ in rates] == pytest.approx([peak.lr * k / 15 for k in (1, 2, 3)])
    assert all(muon == pytest.approx(4 * adamw) for muon, adamw in rates)
