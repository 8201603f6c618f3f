"""Parameters of other precisions than float32: training is left alone, and what a probe sees is not rounding."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader

import autolr
from autolr.numerics.quadratic import fit_quadratic
from training_runs import (
    Script,
    assert_innocent,
    classification,
    cross_entropy,
    differences,
    full_print,
    plain_update,
    run,
    seed_everything,
    tuned_by,
)

PER_BATCH = {"policy": autolr.Monitor.adaptive(), "window": 1, "superbatch": 4, "overhead": float("inf")}


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 32), nn.BatchNorm1d(32), nn.Tanh(), nn.Dropout(0.2), nn.Linear(32, 2))


def logits_in_float32(model: nn.Module, batch: Any) -> Tensor:
    x, y = batch
    return F.cross_entropy(model(x.to(next(model.parameters()).dtype)).float(), y)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("settings", [{}, PER_BATCH], ids=["fixed", "adaptive"])
def test_a_model_in_another_precision(dtype: torch.dtype, settings: dict[str, Any]):
    assert_innocent(
        model=lambda: network().to(dtype),
        base=lambda model: SGD(model.parameters(), lr=0.5, momentum=0.5),
        loss_fn=logits_in_float32,
        probes=2 if settings else 4,
        **settings,
    )


def under_autocast(model: nn.Module, batch: Any) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        out = model(batch[0])
    return F.cross_entropy(out.float(), batch[1])


def test_a_run_under_autocast_that_is_continued_is_the_uninterrupted_one():
    batches = list(DataLoader(classification(), batch_size=8))

    def made() -> tuple[nn.Module, autolr.AutoLR]:
        seed_everything(0)
        model = network()
        base = SGD(model.parameters(), lr=0.05, momentum=0.9)
        return model, tuned_by(base, model, under_autocast, batches, 24, policy=Script(), window=3, superbatch=2)

    def trained(model: nn.Module, optimizer: autolr.AutoLR, first: int, last: int) -> None:
        for step in range(first, last):
            plain_update(model, optimizer, under_autocast, batches[step % len(batches)], step)

    whole, again = made(), made()
    trained(*whole, 0, 11)
    saved = copy.deepcopy([part.state_dict() for part in whole])
    generator = torch.get_rng_state()
    trained(*whole, 11, 24)
    for part, state in zip(again, saved, strict=True):
        part.load_state_dict(state)
    torch.set_rng_state(generator)
    trained(*again, 11, 24)
    assert differences(full_print(*whole), full_print(*again)) == []
    assert whole[1].history == again[1].history != []


LOW = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", LOW, ids=str)
@pytest.mark.parametrize(
    "policy", [autolr.Monitor(), autolr.Monitor(eps=(-0.1, 0.0, 0.1)), autolr.Monitor.adaptive(), Script()], ids=str
)
def test_parameters_of_low_precision_are_sampled_at_the_ends_of_the_step(dtype: torch.dtype, policy: Any):
    done = run(
        tuned=True,
        model=lambda: nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 2)).to(dtype),
        base=lambda model: SGD(model.parameters(), lr=0.5),
        loss_fn=logits_in_float32,
        policy=policy,
        superbatch=4,
        overhead=float("inf"),
    )
    probes = [record for record in done.optimizer.history if record.eps]
    assert probes
    assert {record.eps for record in probes} == {(-1.0, 0.0, 1.0)}


@pytest.mark.parametrize("dtype", LOW, ids=str)
def test_one_layer_of_low_precision_is_enough_and_one_that_is_not_trained_is_not(dtype: torch.dtype):
    def mixed(trained: bool) -> Any:
        model = nn.Sequential(nn.Linear(6, 8).to(dtype), nn.Tanh(), nn.Linear(8, 2))
        held = model.parameters() if trained else model[2].parameters()

        def loss_fn(model: Any, batch: Any) -> Tensor:
            return F.cross_entropy(model[2](model[:2](batch[0].to(dtype)).float()), batch[1])

        data = list(DataLoader(classification(), batch_size=8))
        opt = tuned_by(SGD(held, lr=0.5), model, loss_fn, data, 9, policy=autolr.Monitor(), window=1, superbatch=2)
        for batch in data:
            plain_update(model, opt, loss_fn, batch, 0)
        return opt.history[-1].eps

    assert mixed(trained=True) == (-1.0, 0.0, 1.0)
    assert mixed(trained=False) == (-0.5, -0.25, 0.0, 0.25, 0.5)


@pytest.mark.parametrize("dtype", LOW, ids=str)
@pytest.mark.parametrize("params", [torch.float32, None], ids=["float32 parameters", "its own"])
def test_a_loss_of_low_precision_is_refused_before_training_starts(dtype: torch.dtype, params: Any):
    model = network().to(params or dtype)

    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        x, y = batch
        return F.cross_entropy(model(x.to(params or dtype)), y).to(dtype)

    data = list(DataLoader(classification(), batch_size=8))
    with pytest.raises(TypeError, match=r"float32.*model\(x\)\.float\(\)"):
        autolr.AutoLR(SGD(model.parameters(), lr=0.1), model, loss_fn, data, 50)


class Jump(Optimizer):
    """Its one step goes to given values: the same step for the same model in any precision."""

    def __init__(self, parameters: Any, targets: list[Tensor], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})
        self.targets = targets

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for p, target in zip(self.param_groups[0]["params"], self.targets, strict=True):
            p.copy_(target)


THIRTY = list(DataLoader(classification(30 * 32), batch_size=32))


def a_step(dtype: torch.dtype, lr: float) -> tuple[nn.Module, list[Tensor]]:
    """A model of that precision, a little trained, and where a step down five minibatches' gradient takes it."""
    seed_everything(0)
    model = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 2))
    base = SGD(model.parameters(), lr=0.1)
    for batch in THIRTY[:10]:
        plain_update(model, base, cross_entropy, batch, 0)
    model = model.to(dtype)
    wide = copy.deepcopy(model).float()
    loss = sum(cross_entropy(wide, batch) for batch in THIRTY[:5]) / 5
    slopes = torch.autograd.grad(loss, list(wide.parameters()))
    return model, [(p - lr * slope).detach().to(dtype) for p, slope in zip(wide.parameters(), slopes, strict=True)]


def look_along(model: nn.Module, after: list[Tensor], lr: float) -> autolr.DecisionRecord:
    policy = autolr.Monitor(eps=(-1.0, 0.0, 1.0))
    base = Jump(model.parameters(), after, lr)
    opt = tuned_by(base, model, logits_in_float32, THIRTY, 3, policy=policy, window=1, superbatch=30)
    opt.step()
    return opt.history[0]


@pytest.mark.parametrize("dtype", LOW, ids=str)
@pytest.mark.parametrize("lr", [0.3, 1.0])
def test_a_probe_in_low_precision_agrees_with_the_same_probe_in_float32_within_its_error(dtype: torch.dtype, lr: float):
    model, after = a_step(dtype, lr)
    wide = copy.deepcopy(model).float()
    low, high = look_along(model, after, lr), look_along(wide, [a.float() for a in after], lr)
    assert low.eps == high.eps == (-1.0, 0.0, 1.0)
    assert low.eps_min is not None
    assert high.eps_min is not None
    assert low.eps_min_stderr is not None
    assert high.eps_min > 4 * high.eps_min_stderr, "a bottom that is not resolved agrees with anything"
    assert abs(low.eps_min - high.eps_min) < low.eps_min_stderr / 2
    assert low.eps_min_stderr == pytest.approx(high.eps_min_stderr, rel=0.2)


def fit_by_hand(model: nn.Module, before: list[Tensor], after: list[Tensor], eps: Any) -> Any:
    losses = []
    with torch.no_grad():
        for e in eps:
            for p, b, a in zip(model.parameters(), before, after, strict=True):
                p.copy_(torch.lerp(b, a, 1 + e))
            losses.append([float(logits_in_float32(model, batch)) for batch in THIRTY])
    return fit_quadratic(eps, losses)


def test_a_tenth_of_a_step_drowns_in_bfloat16_and_does_not_in_float32():
    # The control of the test above: at the policy's own eps it would have failed.
    lr, near = 0.3, (-0.1, 0.0, 0.1)
    model, after = a_step(torch.bfloat16, lr)
    before = [p.detach().clone() for p in model.parameters()]
    low = fit_by_hand(copy.deepcopy(model), before, after, near)
    wide = copy.deepcopy(model).float()
    high = fit_by_hand(wide, [b.float() for b in before], [a.float() for a in after], near)
    assert high.minimum is not None
    assert high.stderr is not None
    assert low.minimum is None or abs(low.minimum - high.minimum) > 4 * high.stderr
