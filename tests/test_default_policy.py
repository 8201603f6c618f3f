"""`PeakSearch`, AutoLR's default: the peak found first, one schedule to zero, and runs that diverge brought back."""

from __future__ import annotations

import copy
import io
import itertools
import math
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

import autolr
from training_runs import bits, differences, full_print, plain_update, seed_everything

pytestmark = pytest.mark.long

STEPS = 200


def regression() -> list[Any]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(256, 6, generator=generator)
    y = torch.tanh(x @ torch.randn(6, generator=generator)) + x[:, 0] * x[:, 1]
    return list(DataLoader(TensorDataset(x, y), batch_size=16))


DATA = regression()


def squared(model: nn.Module, batch: Any) -> Tensor:
    x, y = batch
    return F.mse_loss(model(x).squeeze(1), y)


def network() -> nn.Module:
    seed_everything(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 1))


def momentum(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def made(steps: int = STEPS, loss_fn: Any = squared, data: Any = DATA, **settings: Any) -> tuple[nn.Module, Any]:
    model = network()
    return model, autolr.AutoLR(momentum(model), model, loss_fn, data, steps, **settings)


def train(
    model: nn.Module, optimizer: Any, steps: int = STEPS, *, first: int = 0, before: Callable[[int], Any] | None = None
) -> list[float]:
    """The rate of each step. ``before(i)`` is called before step i's minibatch."""
    rates: list[float] = []
    held = optimizer.base if isinstance(optimizer, autolr.AutoLR) else optimizer

    def keep(base: torch.optim.Optimizer, *_: Any) -> None:
        if not autolr.is_probing():  # else the step is a short run's
            rates.append(base.param_groups[0]["lr"])

    handle = held.register_step_pre_hook(keep)
    for i in range(first, steps):
        if before is not None:
            before(i)
        plain_update(model, optimizer, squared, DATA[i % len(DATA)], i)
    handle.remove()
    return rates


def loss_at_the_end(model: nn.Module) -> float:
    model.eval()
    with torch.no_grad():
        return sum(float(squared(model, batch)) for batch in DATA) / len(DATA)


def test_it_trains_as_find_peak_and_its_scheduler_do_by_hand_to_the_bit():
    model = network()
    base = momentum(model)
    peak = autolr.find_peak(model, base, squared, DATA, STEPS)
    scheduler = peak.scheduler(base)
    by_hand = []
    for i in range(STEPS):
        by_hand.append(base.param_groups[0]["lr"])
        plain_update(model, base, squared, DATA[i % len(DATA)], i)
        scheduler.step()
    other, optimizer = made()
    rates = train(other, optimizer)
    assert rates == by_hand
    assert [bits(p) for p in other.parameters()] == [bits(p) for p in model.parameters()]
    assert optimizer.history[0].lr_after == peak.lr == max(rates)
    assert all(record.lr_after == record.lr_before for record in optimizer.history[1:])
    assert optimizer.history[0].search is not None
    assert (optimizer.cost.search, optimizer.cost.discarded_steps) == (round(peak.cost), 0)


def test_a_peak_that_is_given_is_taken_and_the_rate_warms_up_holds_and_falls_to_zero_on_a_line():
    model, optimizer = made(policy=autolr.PeakSearch(peak=0.08))
    phases = []
    rates = train(model, optimizer, before=lambda _: phases.append(optimizer.phase))
    assert optimizer.cost.search == 0
    assert rates[:10] == pytest.approx([0.08 * k / 10 for k in range(1, 11)])  # 5 %
    assert rates[9:100] == [0.08] * 91
    slopes = [b - a for a, b in itertools.pairwise(rates[100:])]
    assert slopes == pytest.approx([slopes[0]] * 99)
    assert 0 < rates[-1] < 0.02 * 0.08
    assert [phases[i] for i in (0, 9, 10, 100, 101, 199)] == ["warm-up"] * 2 + ["hold"] * 2 + ["decay"] * 2


@pytest.mark.parametrize("guard", [True, False])
def test_divergence_checks_leave_training_alone_and_cost_what_they_say(guard: bool):
    outcomes = []
    for policy in (autolr.PeakSearch(peak=0.05, guard=guard), autolr.PeakSearch(peak=0.05, guard=False)):
        model, optimizer = made(policy=policy)
        prints = []
        train(
            model,
            optimizer,
            before=lambda i, m=model, o=optimizer, p=prints: p.append(full_print(m, o)) if i % 10 == 0 else None,
        )
        outcomes.append(prints)
    assert outcomes[0] == outcomes[1]
    checks = 0
    model, optimizer = made(policy=autolr.PeakSearch(peak=0.05, guard=guard), loss_fn=Counted())
    train(model, optimizer)
    checks = optimizer.cost.divergence
    assert optimizer._loss_fn.calls == 1 + checks
    assert (checks > 0) is guard


class Counted:
    """How often AutoLR called it."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        self.calls += 1
        return squared(model, batch)


# Runs that diverge
def poison(model: nn.Module, factor: float) -> None:
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(factor)


def poisoned(at: tuple[int, ...], factor: float, **settings: Any) -> tuple[nn.Module, Any, list[str], list[float]]:
    model, optimizer = made(**settings)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rates = train(model, optimizer, before=lambda i: poison(model, factor) if i in at else None)
    return model, optimizer, [str(w.message) for w in caught], rates


@pytest.mark.parametrize("factor", [math.nan, 100.0, -100.0], ids="times {}".format)
def test_a_run_that_diverges_in_its_second_half_is_brought_back_and_ends_near_where_it_would_have(factor: float):
    clean, _ = made()
    train(clean, _)
    model, optimizer, told, rates = poisoned((120,), factor)
    assert [r.trigger for r in optimizer.history].count("diverged") == 1
    back = next(r for r in optimizer.history if r.trigger == "diverged")
    assert back.verdict == "roll back"
    assert back.lr_after < optimizer.history[0].lr_after
    assert optimizer.cost.discarded_steps == 50, "back to the last good check"
    assert "rolled back 50 steps" in back.reason
    (warning,) = told
    assert back.reason in warning
    assert max(rates[150:]) <= back.lr_after, "from a lower peak on"
    assert rates[150:153] == pytest.approx([back.lr_after * k / 10 for k in (1, 2, 3)]), "to which it climbs once more"
    assert loss_at_the_end(model) < 2 * loss_at_the_end(clean)


def test_a_run_that_diverges_again_is_brought_back_again_and_warned_of_once():
    model, optimizer, told, _ = poisoned((60, 120, 170), math.nan)
    assert [r.trigger for r in optimizer.history].count("diverged") == 3
    assert len(told) == 1
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


def test_without_the_guard_nothing_is_brought_back():
    model, optimizer, told, _ = poisoned((120,), math.nan, policy=autolr.PeakSearch(guard=False))
    assert not all(bool(torch.isfinite(p).all()) for p in model.parameters())
    assert (len(optimizer.history), told) == (1, [])


def test_a_peak_far_too_high_is_lowered_until_the_run_lives():
    model, optimizer = made(policy=autolr.PeakSearch(peak=3.0))
    with pytest.warns(UserWarning, match="rolled back"):
        train(model, optimizer)
    assert optimizer.history[-1].trigger == "healthy"
    assert loss_at_the_end(model) < 1.0 < float(DATA[0][1].square().mean()) * 2


def test_a_loss_term_switched_on_in_mid_run_is_not_taken_for_divergence():
    switch = [0.0]

    def penalised(model: nn.Module, batch: Any) -> Tensor:
        return squared(model, batch) + switch[0] * (1 + sum(p.square().mean() for p in model.parameters()))

    def turn_on(i: int) -> None:
        switch[0] = 3.0 if i >= 110 else 0.0

    model, optimizer = made(loss_fn=penalised)
    rates = train(model, optimizer, before=turn_on)
    triggers = [record.trigger for record in optimizer.history]
    assert "objective changed" in triggers
    assert "diverged" not in triggers
    assert optimizer.cost.discarded_steps == 0
    plain, same = made()
    assert rates == train(plain, same)
    assert [bits(p) for p in model.parameters()] == [bits(p) for p in plain.parameters()], "judged where it was, only"


def test_after_the_objective_changed_a_run_that_diverges_is_still_brought_back():
    switch = [0.0]

    def shifted(model: nn.Module, batch: Any) -> Tensor:
        return squared(model, batch) + switch[0]

    model, optimizer = made(loss_fn=shifted)

    def before(i: int) -> None:
        switch[0] = 5.0 if i >= 70 else 0.0
        if i == 170:
            poison(model, 100.0)

    with pytest.warns(UserWarning, match="diverg|improvement is lost"):
        train(model, optimizer, before=before)
    triggers = [record.trigger for record in optimizer.history]
    assert triggers.index("objective changed") < triggers.index("diverged")


def test_rows_of_nan_in_the_data_are_no_divergence_and_the_log_tells_the_loss_of_the_others():
    broken = [(x.clone(), y) for x, y in DATA]
    for place in (3, 6, 9, 12):
        broken[place][0][0, 0] = math.nan
    model, optimizer = made(data=broken, policy=autolr.PeakSearch(peak=0.05))
    judged: list[bool] = []
    probe_here = optimizer._controller._probe.here

    def here(number: int, size: int) -> Tensor:
        losses = probe_here(number, size)
        judged.append(bool(torch.isfinite(losses).all()))
        return losses

    optimizer._controller._probe.here = here
    train(model, optimizer)  # on the good rows, as a loop does that skips a loss of NaN
    assert not all(judged), "no bad minibatch judges: nothing is shown"
    assert {record.trigger for record in optimizer.history} == {"healthy"}
    assert all(record.loss is not None for record in optimizer.history)
    assert not any("nan" in record.reason for record in optimizer.history)


# Checkpoints
RESUMED = 60
POISONED, COOLED = 36, 50
AROUND = {1, 14, 15, 16, 36, 37, 44, 45, 46, 50, 51}  # the search, checks, the rollback, the cooldown


def resumable(start: int = 0) -> tuple[nn.Module, Any]:
    model = network()
    if start:
        poison(model, 0.5)  # other weights: all must come from the checkpoint
    policy = autolr.PeakSearch(budget=0.6, decay=False)
    return model, autolr.AutoLR(momentum(model), model, squared, DATA, RESUMED, policy=policy, seed=3)


def one_step(model: nn.Module, optimizer: Any, i: int) -> str:
    if i == POISONED:
        poison(model, 100.0)
    if i == COOLED:
        optimizer.start_cooldown(RESUMED - COOLED)
    loss = plain_update(model, optimizer, squared, DATA[i % len(DATA)], i)
    return f"loss {bits(loss)}, rate {optimizer.lr!r}, phase {optimizer.phase}, decisions {len(optimizer.history)}"


def save(model: nn.Module, optimizer: Any) -> bytes:
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state()}, file)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:AutoLR, step")
def test_a_run_continued_from_every_third_step_and_around_all_that_happens_is_the_uninterrupted_run():
    """Before the search, after it, before and after each check and a rollback, and in the cooldown."""
    model, optimizer = resumable()
    seed_everything(0)
    saved, steps = [save(model, optimizer)], []
    for i in range(RESUMED):
        steps.append(one_step(model, optimizer, i))
        saved.append(save(model, optimizer))
    end, log = full_print(model, optimizer), optimizer.history
    assert [r.verdict for r in optimizer.history].count("roll back") >= 1
    assert {"search", "warm-up", "hold", "decay"} == {resumable()[1].phase, *(text.split()[5][:-1] for text in steps)}

    for at, checkpoint in enumerate(saved):
        if at % 3 and at not in AROUND:
            continue
        model, optimizer = resumable(start=1)
        loaded = torch.load(io.BytesIO(checkpoint), weights_only=True)
        model.load_state_dict(loaded["model"])
        optimizer.load_state_dict(loaded["optimizer"])
        assert bits(_untimed(optimizer.state_dict())) == bits(_untimed(loaded["optimizer"])), f"loaded at step {at}"
        seed_everything(0)
        torch.set_rng_state(loaded["rng"])
        end_at = RESUMED if at % 12 == 0 else min(RESUMED, at + 17)  # past a check at least
        for i in range(at, end_at):
            assert one_step(model, optimizer, i) == steps[i], f"continued from step {at}, at step {i + 1}"
        if at < RESUMED == end_at:
            assert optimizer.history == log
            assert differences(end, full_print(model, optimizer)) == []


def _untimed(state: dict[str, Any]) -> dict[str, Any]:
    cost = {name: value for name, value in state["autolr"]["cost"].items() if not name.endswith("_seconds")}
    return {**state, "autolr": {**state["autolr"], "cost": cost}}


@pytest.mark.parametrize("at", [0, 70])
def test_a_copy_of_model_and_optimizer_goes_on_as_the_original_does(at: int):
    model, optimizer = made()
    train(model, optimizer, at)
    other, twin = copy.deepcopy((model, optimizer))
    generator = torch.get_rng_state()
    rates = train(model, optimizer, 130, first=at)
    torch.set_rng_state(generator)
    assert train(other, twin, 130, first=at) == rates
    assert [bits(p) for p in other.parameters()] == [bits(p) for p in model.parameters()]
    assert twin.history == optimizer.history


# Loops
def test_beside_a_scheduler_on_the_same_optimizer_its_own_rate_holds_and_one_warning_says_so():
    model, optimizer = made(policy=autolr.PeakSearch(peak=0.05))
    alone = train(model, optimizer)
    model, optimizer = made(policy=autolr.PeakSearch(peak=0.05))
    scheduler = lr_scheduler.StepLR(optimizer, 7, gamma=0.5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rates = train(model, optimizer, before=lambda i: scheduler.step() if i else None)
    assert rates == alone
    (warning,) = caught
    told = str(warning.message)
    was, found = re.search(r"was (\S+) when .* is (\S+) now", told).groups()
    assert was != found
    assert "own rate holds" in told


@pytest.mark.parametrize("outside", [torch.no_grad, torch.enable_grad])
def test_a_closure_is_run_once_a_step_with_gradients_on_and_its_loss_is_returned(outside: Any):
    model, optimizer = made()
    plain, same = made()
    calls = []

    def closure() -> Tensor:
        assert torch.is_grad_enabled()
        calls.append(1)
        optimizer.zero_grad()
        loss = squared(model, DATA[len(calls) % len(DATA)])
        loss.backward()
        return loss

    losses = []
    torch.manual_seed(7)
    for i in range(60):
        with outside():
            returned = optimizer.step(closure)
        assert len(calls) == i + 1
        losses.append(bits(returned))
    torch.manual_seed(7)
    plainly = [bits(plain_update(plain, same, squared, DATA[(i + 1) % len(DATA)], i)) for i in range(60)]
    assert losses == plainly
    assert [bits(p) for p in model.parameters()] == [bits(p) for p in plain.parameters()]


def test_without_decay_the_peak_is_held_until_a_cooldown_is_started_and_ends_where_it_was_told():
    model, optimizer = made(policy=autolr.PeakSearch(peak=0.05, decay=False))
    held = train(model, optimizer, 150)
    assert set(held[10:]) == {0.05}
    optimizer.start_cooldown(20)
    falling = train(model, optimizer, 170, first=150)
    assert falling == pytest.approx([0.05 * (20 - k) / 20 for k in range(20)])
    assert optimizer.phase == "decay"


def test_a_cooldown_during_the_decay_begins_at_the_rate_that_it_had():
    model, optimizer = made(policy=autolr.PeakSearch(peak=0.05))
    before = train(model, optimizer, 150)
    optimizer.start_cooldown(10)
    falling = train(model, optimizer, 160, first=150)
    assert before[-1] > falling[0] > 0.9 * before[-1]
    assert falling[-1] < 0.11 * falling[0]


def test_a_cooldown_that_cannot_be_is_refused():
    model, optimizer = made(policy=autolr.PeakSearch(peak=0.05))
    with pytest.raises(ValueError, match="take a step first"):
        optimizer.start_cooldown(10)
    train(model, optimizer, 150)
    with pytest.raises(ValueError, match="50 steps are left; got 51"):
        optimizer.start_cooldown(51)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        optimizer.start_cooldown(0)
    with pytest.raises(TypeError, match="steps must be a whole number"):
        optimizer.start_cooldown(2.5)
    _, other = made(policy=autolr.Monitor())
    with pytest.raises(TypeError, match=r"start_cooldown needs a policy .*PeakSearch\(\); got Monitor"):
        other.start_cooldown(10)


def test_a_run_longer_than_it_was_said_to_be_is_warned_of_once_and_goes_on_at_its_last_rate():
    model, optimizer = made(steps=40, policy=autolr.PeakSearch(peak=0.05))
    train(model, optimizer, 40)
    with pytest.warns(UserWarning, match=r"step 41 of a run of total_steps=40.*epochs \* len") as caught:
        rates = train(model, optimizer, 60, first=40)
    assert len(caught) == 1
    assert set(rates) == {optimizer.lr}
    assert optimizer.lr > 0


def test_where_no_rate_gains_anything_the_given_one_is_kept_and_the_user_told_once_at_his_own_line():
    def still(model: nn.Module, batch: Any) -> Tensor:
        return squared(model, batch) * 0 + 1

    model, optimizer = made(loss_fn=still)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rates = train(model, optimizer, 30)
    assert max(rates) == 0.01
    (warning,) = caught
    assert "short runs tell too little" in str(warning.message)
    assert "autolr" not in warning.filename.rsplit("/", 2)[-2]
    assert optimizer.history[0].trigger == "no peak"


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        ({"peak": 0}, ValueError, "peak must be above 0; got 0"),
        ({"peak": math.inf}, ValueError, "peak must be above 0; got inf"),
        ({"peak": "0.1"}, TypeError, "peak must be a number above 0; got '0.1'"),
        ({"budget": 0}, ValueError, "budget must be above 0 and at most 1; got 0"),
        ({"budget": 1.5}, ValueError, "budget must be above 0 and at most 1; got 1.5"),
        ({"clip": -1}, ValueError, "clip must be above 0; got -1"),
    ],
    ids=str,
)
def test_a_setting_out_of_range_is_refused_by_name(settings: dict[str, Any], error: type[Exception], told: str):
    with pytest.raises(error) as refused:
        autolr.PeakSearch(**settings)
    assert str(refused.value).startswith(told)
