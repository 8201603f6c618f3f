"""What users do in the middle of a run: cool down twice, add groups, copy, load again, log, search in threads."""

from __future__ import annotations

import copy
import math
import pickle
import threading
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import autolr
from autolr.report.findings import rates_of
from autolr.report.logged import training_of
from autolr.runtime.run_log import read_run
from training_runs import seed_everything

HELD = autolr.PeakSearch(peak=0.1, decay=False)


def batches():
    seed_everything(0)
    x = torch.randn(640, 6)
    return list(zip(x.split(16), (x @ torch.randn(6, 4)).tanh().split(16), strict=True))


def squared(model, batch):
    return F.mse_loss(model(batch[0]), batch[1])


def made(policy=HELD, steps=200, lr=0.02, **settings):
    seed_everything(1)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 4))
    base = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    return model, autolr.AutoLR(base, model, squared, batches(), steps, policy=policy, **settings)


def train(model, optimizer, first, last, before=lambda _: None):
    """The rate of each step."""
    rates, data = [], batches()
    handle = optimizer.base.register_step_pre_hook(lambda base, *_: rates.append(base.param_groups[0]["lr"]))
    for step in range(first, last):
        before(step)
        optimizer.zero_grad()
        squared(model, data[step % len(data)]).backward()
        optimizer.step()
    handle.remove()
    return rates


def poison(model):
    with torch.no_grad():
        model[0].weight.fill_(math.nan)


@pytest.mark.parametrize("decay", [False, True])
def test_a_run_that_diverges_in_a_cooldown_climbs_once_more_and_comes_to_zero(decay):
    model, optimizer = made(autolr.PeakSearch(peak=0.1, decay=decay))
    train(model, optimizer, 0, 70)
    optimizer.start_cooldown(120)
    with pytest.warns(UserWarning, match="it diverged"):
        rates = train(model, optimizer, 70, 190, lambda step: poison(model) if step == 110 else None)
    assert all(0 < rate <= 0.1 for rate in rates)
    assert optimizer.history[-1].lr_after == pytest.approx(0.1 / 3)
    assert rates[-1] == pytest.approx(0.1 / 3 / 120)
    back = 150 - 70  # the check at which it went back
    assert rates[back] == pytest.approx(0.1 / 3 / 10 * 40 / 120)
    assert rates[back + 9] == pytest.approx(0.1 / 3 * 31 / 120)
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


@pytest.mark.parametrize(("cooldown", "phase"), [(None, "decay"), (60, "decay"), (0, "hold")])
def test_a_rollback_is_told_by_its_peaks_and_changes_no_rate_that_a_step_does_not_use(cooldown, phase, tmp_path):
    """At the last step, in the decay, in a cooldown, and where the rate is held."""
    model, optimizer = made(autolr.PeakSearch(peak=0.1, decay=cooldown is None), trace=tmp_path / "log.jsonl")
    used = train(model, optimizer, 0, 140)
    if cooldown:
        optimizer.start_cooldown(cooldown)
    with pytest.warns(UserWarning, match=r"peak 0\.1 to 0\.0333: it diverged"):
        used += train(model, optimizer, 140, 200, lambda step: poison(model) if step == 190 else None)
    told = optimizer.history[-1]
    assert (told.step, told.trigger, told.phase) == (200, "diverged", phase)
    assert (told.lr_before, told.lr_after) == (used[-1], pytest.approx(0.1 / 3))
    assert optimizer.lr == used[-1]
    assert optimizer.phase == phase
    with pytest.warns(UserWarning, match="This is step 201"):
        assert train(model, optimizer, 200, 203) == [used[-1]] * 3
    for training in (optimizer._training(), training_of("run", read_run(tmp_path / "log.jsonl"))):
        assert {(step, lr) for step, lr in training.rates() if step <= 200} == set(enumerate(used, start=1))
    assert rates_of(told) == f"{used[-1]:.3g} → peak 0.0333"


def test_a_rollback_on_the_way_is_followed_by_the_climb_to_its_peak_without_a_jump():
    model, optimizer = made(autolr.PeakSearch(peak=0.1))
    with pytest.warns(UserWarning, match=r"peak 0\.1 to 0\.0333: it diverged"):
        used = train(model, optimizer, 0, 200, lambda step: poison(model) if step == 90 else None)
    assert next(record for record in optimizer.history if record.trigger == "diverged").phase == "hold"
    assert set(optimizer._training().rates()) == set(enumerate(used, start=1))
    assert f"follows a schedule up to 0.1, at last {used[-1]:.3g}: 0 probes, 1 rollback;" in optimizer.summary()


def test_a_second_cooldown_and_another_length_never_raise_the_rate():
    model, optimizer = made()
    train(model, optimizer, 0, 70)
    optimizer.start_cooldown(100)
    rates = train(model, optimizer, 70, 120)
    optimizer.start_cooldown(20)
    rates += train(model, optimizer, 120, 130)
    optimizer.change_length(1000)
    rates += train(model, optimizer, 130, 140)
    assert rates == sorted(rates, reverse=True)
    assert rates[50] == pytest.approx(0.05)
    assert rates[-1] == pytest.approx(0.05 / 20)


def test_a_run_that_becomes_shorter_than_its_cooldown_ends_near_zero():
    model, optimizer = made()
    train(model, optimizer, 0, 70)
    optimizer.start_cooldown(100)
    train(model, optimizer, 70, 90)
    optimizer.change_length(120)
    assert train(model, optimizer, 90, 120)[-1] == pytest.approx(0.1 / 50)


def test_a_cooldown_that_begins_in_the_climb_falls_from_where_it_is():
    model, optimizer = made()
    rates = train(model, optimizer, 0, 5)
    optimizer.start_cooldown(50)
    later = train(model, optimizer, 5, 55)
    assert later[0] == pytest.approx(rates[-1] * 6 / 5)
    assert later == sorted(later, reverse=True)


def test_a_new_group_with_a_higher_rate_lowers_no_other():
    for at in (60, 180):  # while the rate is held, and where it is low
        model, optimizer = made(autolr.PeakSearch(peak=0.1))
        alone, bare = made(autolr.PeakSearch(peak=0.1))
        expected = train(alone, bare, 0, 200)
        rates = train(model, optimizer, 0, at)
        model.append(nn.Linear(4, 4))
        optimizer.add_param_group({"params": model[3].parameters(), "lr": 0.5})
        first = optimizer.param_groups[0]["lr"]
        assert rates + train(model, optimizer, at, 200) == pytest.approx(expected)
        assert optimizer.param_groups[1]["lr"] / optimizer.param_groups[0]["lr"] == pytest.approx(0.5 / first)
        again = copy.deepcopy(model)
        other = autolr.AutoLR(
            torch.optim.SGD([{"params": again[:3].parameters()}, {"params": again[3].parameters()}], 0.02, 0.9),
            again, squared, batches(), 200, policy=autolr.PeakSearch(peak=0.1),
        )  # fmt: skip
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        assert [group["lr"] for group in other.param_groups] == [group["lr"] for group in optimizer.param_groups]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])
def test_a_copy_beside_a_torch_scheduler_is_a_run_of_its_own(copied):
    model, optimizer = made(autolr.Monitor(window=5, superbatch=2))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    train(model, optimizer, 0, 10)
    scheduler.step()
    before = [p.detach().clone() for p in model.parameters()]
    twin, tuned = copied((model, optimizer))
    train(twin, tuned, 10, 20)
    assert all(map(torch.equal, model.parameters(), before))
    assert (optimizer.steps_taken, tuned.steps_taken) == (10, 20)


def test_one_state_can_be_loaded_twice_and_the_second_run_is_the_first():
    model, optimizer = made()
    train(model, optimizer, 0, 60)
    saved, weights = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(model.state_dict())
    ends = []
    for _ in range(2):
        again, resumed = made()
        again.load_state_dict(weights)
        resumed.load_state_dict(saved)
        train(again, resumed, 60, 90)
        ends.append([p.detach().clone() for p in again.parameters()])
    assert all(map(torch.equal, *ends))


def test_a_state_that_training_went_on_from_says_so():
    model, optimizer = made()
    train(model, optimizer, 0, 60)
    saved = optimizer.state_dict()
    train(model, optimizer, 60, 61)
    with pytest.raises(ValueError, match=r"or training went on since.*copy\.deepcopy"):
        made()[1].load_state_dict(saved)


def test_names_of_parameters_in_a_group_are_no_damage_and_another_number_of_groups_is_none():
    model, optimizer = made()
    train(model, optimizer, 0, 60)
    again, _ = made()
    named = autolr.AutoLR(
        torch.optim.SGD(again.named_parameters(), lr=0.02, momentum=0.9), again, squared, batches(), 200, policy=HELD
    )
    named.load_state_dict(optimizer.state_dict())
    split = autolr.AutoLR(
        torch.optim.SGD([{"params": again[0].parameters()}, {"params": again[2].parameters()}], 0.02, 0.9),
        again, squared, batches(), 200, policy=HELD,
    )  # fmt: skip
    with pytest.raises(ValueError, match="saved with 1 parameter groups; this optimizer has 2"):
        split.load_state_dict(optimizer.state_dict())


def test_a_run_that_was_resumed_late_is_told_of_as_the_uninterrupted_one():
    model, optimizer = made(autolr.PeakSearch(peak=0.1))
    train(model, optimizer, 0, 195)
    again, resumed = made(autolr.PeakSearch(peak=0.1))
    again.load_state_dict(model.state_dict())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(again, resumed, 195, 197)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.end_run()
        resumed.end_run()


@pytest.mark.parametrize("name", ["step", "lr"])
def test_a_number_that_autolr_keeps_itself_is_refused_and_the_log_stays_whole(name, tmp_path):
    model, optimizer = made(trace=tmp_path / "log.jsonl")
    train(model, optimizer, 0, 10)
    with pytest.raises(ValueError, match=f"log\\(\\) was given {name}"):
        optimizer.log(val_loss=0.5, **{name: 3})
    with pytest.raises(ValueError, match=r"log\(\) takes numbers; got val_loss='low'"):
        optimizer.log(val_loss="low")
    with pytest.raises(TypeError, match=r"log\(\) takes numbers; got val_loss=\[1\]"):
        optimizer.log(val_loss=[1])
    optimizer.log(val_loss=torch.tensor(0.5, requires_grad=True))
    train(model, optimizer, 10, 20)
    optimizer._recorder.flush()
    assert read_run(tmp_path / "log.jsonl").steps == 20


def test_a_refused_beginning_changes_nothing():
    _, optimizer = made()
    optimizer.param_groups[0]["lr"] = math.nan
    with pytest.raises(ValueError, match="must be finite"):
        optimizer.begin_after(100)
    assert optimizer.total_steps == 200


def test_what_a_search_would_warn_of_is_told_once_by_its_decision():
    model, optimizer = made(autolr.PeakSearch(), steps=20)
    with pytest.warns(UserWarning, match="too little") as warned:
        train(model, optimizer, 0, 1)
    assert len(warned) == 1


def test_searches_in_threads_leave_the_filters_of_warnings_alone():
    before = list(warnings.filters)

    def search():
        model, optimizer = made(autolr.PeakSearch(), steps=300)
        train(model, optimizer, 0, 2)

    for _ in range(3):
        threads = [threading.Thread(target=search) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [one for one in warnings.filters if one not in before] == []


def test_a_given_peak_is_summed_up_and_explained_by_its_schedule(tmp_path):
    model, optimizer = made(autolr.PeakSearch(peak=0.1), trace=tmp_path / "log.jsonl")
    train(model, optimizer, 0, 200)
    assert "follows a schedule up to 0.1, at last 0.00099: " in optimizer.summary()
    from autolr.report.explain import explain_step

    told = " ".join(explain_step(read_run(tmp_path / "log.jsonl"), 5))
    assert "No decision had changed the rate by then: it follows the schedule." in told


def test_groups_that_are_added_before_the_first_step_are_searched_with_the_others():
    peaks = []
    for added in (False, True):
        seed_everything(1)
        model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 4))
        groups = [{"params": model[0].parameters(), "lr": 0.001}, {"params": model[2].parameters(), "lr": 0.1}]
        base = torch.optim.SGD(groups[:1] if added else groups, lr=0.1, momentum=0.9)
        optimizer = autolr.AutoLR(base, model, squared, batches(), 300)
        if added:
            optimizer.add_param_group(groups[1])
        train(model, optimizer, 0, 1)
        peaks.append((optimizer.history[0].lr_after, [group["lr"] for group in optimizer.param_groups]))
    assert peaks[0] == peaks[1]
