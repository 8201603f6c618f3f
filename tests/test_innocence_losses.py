"""Losses that draw, keep books or bring their own autocast: probes of them leave training alone, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

import autolr
from training_runs import (
    Script,
    assert_innocent,
    assert_same_run,
    classification,
    cross_entropy,
    network,
    plain_update,
    run,
    seed_everything,
    sgd,
    shuffling,
    tuned_by,
)

O = torch.optim  # noqa: E741


# Loss functions
def pops(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    labels = batch.pop("labels")
    return F.cross_entropy(model(**batch), labels)


def pops_nested(model: nn.Module, batch: list[Any]) -> Tensor:
    inputs, labels = batch
    return F.cross_entropy(model(inputs.pop("input")), labels)


def to_dict(items: list[Any]) -> dict[str, Tensor]:
    x, y = zip(*items, strict=True)
    return {"input": torch.stack(x), "labels": torch.stack(y)}


def to_nested(items: list[Any]) -> list[Any]:
    x, y = zip(*items, strict=True)
    return [{"input": torch.stack(x)}, torch.stack(y)]


def test_a_loss_may_pop_the_labels_out_of_its_minibatch():
    assert_innocent(loss_fn=pops, batches=lambda: shuffling(collate_fn=to_dict))


def test_a_loss_may_pop_from_a_dict_inside_its_minibatch():
    assert_innocent(loss_fn=pops_nested, batches=lambda: shuffling(collate_fn=to_nested))


def in_bf16(model: nn.Module, batch: Any) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return cross_entropy(model, batch).float()


KEPT = torch.autocast("cpu", dtype=torch.bfloat16)  # made once, entered at each step: a common idiom


def in_kept_bf16(model: nn.Module, batch: Any) -> Tensor:
    with KEPT:
        return cross_entropy(model, batch).float()


def gradient_penalty(model: nn.Module, batch: Any) -> Tensor:
    x, y = batch
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        loss = F.cross_entropy(model(x), y)
        (slope,) = torch.autograd.grad(loss, x, create_graph=True)
    return loss + slope.square().sum()


@pytest.mark.parametrize("loss_fn", [in_bf16, in_kept_bf16, gradient_penalty])
def test_a_loss_may_bring_its_own_autocast_or_gradients(loss_fn: Any):
    # bf16 hides small moves: at this rate the losses of a probe differ.
    assert_innocent(loss_fn=loss_fn, base=lambda model: O.SGD(model.parameters(), lr=0.3))


@pytest.mark.parametrize("loss_fn", [cross_entropy, in_bf16, in_kept_bf16])
@pytest.mark.parametrize(
    "policy", [autolr.Monitor(), Script(verdicts=("look",) * 9)], ids=["Monitor", "with snapshots"]
)
def test_a_probe_inside_the_users_autocast_sees_the_weights_move(loss_fn: Any, policy: Any):
    def whole_step_in_autocast(model: nn.Module, opt: Optimizer, loss: Any, batch: Any, i: int) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = plain_update(model, opt, loss, batch, i)
        assert torch.is_autocast_cache_enabled()
        return value

    done = assert_innocent(
        # Every weight a leaf: autocast keeps casts of those only, and one that is computed would move the loss.
        model=lambda: nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 2)),
        loss_fn=loss_fn,
        base=lambda model: O.SGD(model.parameters(), lr=0.5),
        update=whole_step_in_autocast,
        policy=policy,
    )
    for record in done.optimizer.history:
        assert len(set(record.losses)) == len(record.losses), "two eps saw the same weights"


# GradScaler
def scaled(scaler: Any, fail_at: frozenset[int]) -> Callable[..., Tensor]:
    def update(model: nn.Module, opt: Optimizer, loss_fn: Any, batch: Any, i: int) -> Tensor:
        opt.zero_grad()
        loss = loss_fn(model, batch)
        scaler.scale(loss).backward()
        if i in fail_at:
            next(model.parameters()).grad.fill_(torch.inf)
        scaler.unscale_(opt)
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        scaler.step(opt)
        scaler.update()
        return loss

    return update


@pytest.mark.parametrize(
    ("fused", "fail_at"),
    [(False, {0, 4, 5, 11}), (True, {3, 4, 5, 11})],  # a skipped first step leaves a fused optimizer with garbage
)
def test_a_grad_scaler_unscales_once_and_its_skipped_steps_do_not_count(fused: bool, fail_at: set[int]):
    def base(model: nn.Module) -> Optimizer:
        return O.SGD(model.parameters(), lr=0.05, momentum=0.9, fused=fused)

    runs = []
    for tuned in (False, True):
        update = scaled(torch.amp.GradScaler("cpu", init_scale=1024.0), frozenset(fail_at))
        runs.append(run(tuned=tuned, base=base, update=update, steps=17))
    assert_same_run(*runs)
    assert runs[1].optimizer.state_dict()["autolr"]["steps"] == 13
    assert [record.step for record in runs[1].optimizer.history] == [3, 6, 9, 12]


# Validation samples
def test_validation_samples_change_no_decision():
    def tuned(**settings: Any) -> Any:
        policy = autolr.ExploreExploit(explore=0.5, saturation=1.5)
        base = lambda model: O.SGD(model.parameters(), lr=0.02)  # noqa: E731
        return run(tuned=True, base=base, policy=policy, steps=40, **settings)

    without, with_validation = tuned(), tuned(validation_eps=(-0.75, 0.6))
    assert_same_run(without, with_validation)
    lrs = [record.lr_after for record in without.optimizer.history]
    assert len(set(lrs)) > 2, "a rate that never moves proves nothing"
    assert lrs == [record.lr_after for record in with_validation.optimizer.history]
    assert with_validation.optimizer.cost.validation > 0 == without.optimizer.cost.validation


@pytest.mark.parametrize("total_steps", [6, 9, 10, 11, 14, 15])
@pytest.mark.parametrize("spread", [1, 4])
def test_nothing_is_probed_or_decided_at_the_last_step_or_after_it(total_steps: int, spread: int):
    seed_everything(0)
    model = network()
    policy = Script(verdicts=("raise",) * 9, spread=spread)
    data = list(DataLoader(classification(), batch_size=8))
    opt = tuned_by(sgd(model), model, cross_entropy, data, total_steps, policy=policy, window=5, superbatch=4)
    for i in range(total_steps - 1):
        plain_update(model, opt, cross_entropy, data[i % 6], i)
    before = opt.lr, opt.cost.probes, len(opt.history)
    assert opt.history or total_steps < 5 + spread + 1
    plain_update(model, opt, cross_entropy, data[0], 0)
    assert (opt.lr, opt.cost.probes, len(opt.history)) == before
    with pytest.warns(UserWarning, match="total_steps"):
        for i in range(12):
            plain_update(model, opt, cross_entropy, data[i % 6], i)
    assert (opt.lr, opt.cost.probes, len(opt.history)) == before
