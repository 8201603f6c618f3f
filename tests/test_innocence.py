"""With the learning rate held, training under AutoLR is the training without it, to the bit, after every step."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, WeightedRandomSampler

import autolr
from training_runs import (
    Script,
    assert_innocent,
    classification,
    cross_entropy,
    network,
    plain_update,
    run,
    seed_everything,
    sgd,
    shuffling,
    tuned_by,
    workers_stopped,
)

O = torch.optim  # noqa: E741


def optimizer(name: str, /, **settings: Any) -> Any:
    """A test case: an optimizer's name and settings. One that this torch does not have is skipped by name."""
    label = " ".join([name, *(f"{k}={v}" for k, v in settings.items() if k != "lr")])
    absent = pytest.mark.skipif(not hasattr(O, name), reason=f"this torch has no {name}")
    return pytest.param(lambda ps: getattr(O, name)(ps, **settings), id=label, marks=absent)


OPTIMIZERS = [
    optimizer("SGD", lr=0.05, momentum=0.9),
    optimizer("SGD", lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    optimizer("SGD", lr=0.05, momentum=0.9, foreach=True),
    optimizer("SGD", lr=0.05, momentum=0.9, fused=True),
    optimizer("SGD", lr=torch.tensor(0.05), momentum=0.9),
    optimizer("Adam", lr=0.01),
    optimizer("Adam", lr=0.01, foreach=True, weight_decay=1e-2),
    optimizer("Adam", lr=0.01, fused=True, amsgrad=True),
    optimizer("AdamW", lr=0.01, weight_decay=0.1),
    optimizer("AdamW", lr=torch.tensor(0.01), fused=True),
    optimizer("RMSprop", lr=0.01, centered=True, momentum=0.9),
    optimizer("Adagrad", lr=0.05, lr_decay=0.01, fused=True),
    optimizer("Adadelta", lr=1.0),
    optimizer("NAdam", lr=0.01, decoupled_weight_decay=True),
    optimizer("RAdam", lr=0.01),
    optimizer("Adamax", lr=0.01),
    optimizer("ASGD", lr=0.05, t0=5),
]


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_every_optimizer_trains_as_if_it_were_alone(make: Callable[..., Optimizer]):
    # A settings dict holding a tensor is shared between the two runs: each must start from its own copy.
    assert_innocent(base=lambda model: make_fresh(make, model.parameters()))


def make_fresh(make: Callable[..., Optimizer], parameters: Any) -> Optimizer:
    base = make(parameters)
    for group in base.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"] = group["lr"].clone()
    return base


@pytest.mark.parametrize("make", [optimizer("Muon", lr=0.01), optimizer("Muon", lr=0.01, nesterov=False)])
def test_muon_trains_matrices_as_if_it_were_alone(make: Callable[..., Optimizer]):
    def matrices() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 10, bias=False), nn.Tanh(), nn.Dropout(0.2), nn.Linear(10, 2, bias=False))

    assert_innocent(model=matrices, base=lambda model: make(model.parameters()))


# Parameter groups
def in_groups(model: nn.Module) -> Optimizer:
    layers = [m for m in model if any(True for _ in m.parameters())]
    return O.AdamW(
        [
            {"params": layers[0].parameters(), "lr": 0.02},
            {"params": layers[1].parameters(), "lr": 0.0},  # frozen by its rate
            {"params": [p for m in layers[2:] for p in m.parameters()], "lr": 0.003, "weight_decay": 0.0},
        ],
        lr=0.01,
    )


def test_groups_with_rates_of_their_own_one_of_them_zero_are_left_alone():
    done = assert_innocent(base=in_groups)
    assert [group["lr"] for group in done.optimizer.param_groups] == [0.02, 0.0, 0.003]


def test_a_change_moves_all_groups_by_one_factor_and_leaves_one_at_zero():
    done = run(tuned=True, base=in_groups, policy=Script(verdicts=("raise", "raise", "lower", "raise"), factor=2.0))
    assert [record.verdict for record in done.optimizer.history] == ["raise", "raise", "lower", "raise"]
    for step, factor in ((3, 2), (6, 4), (9, 2), (12, 4)):
        rates = [done.prints[step - 1][f"group/{i}.lr"] for i in range(3)]
        assert rates == [repr(0.02 * factor), repr(0.0), repr(0.003 / 0.02 * (0.02 * factor))], f"after step {step}"


def test_the_users_own_entries_in_a_group_stay_the_very_objects_they_were():
    tag = object()

    def tagged(model: nn.Module) -> Optimizer:
        base = sgd(model)
        base.param_groups[0] |= {"name": "all", "tag": tag, "initial_lr": 0.05}
        return base

    done = assert_innocent(base=tagged)
    assert done.optimizer.param_groups[0]["tag"] is tag
    assert done.optimizer.param_groups is done.optimizer.base.param_groups


def test_parameters_without_a_gradient_get_no_state():
    def half_frozen() -> nn.Module:
        model = network()
        model[0].requires_grad_(False)
        return model

    assert_innocent(model=half_frozen, base=lambda model: O.Adam(model.parameters(), lr=0.01))


# How the user steps
def test_accumulated_gradients_are_left_alone():
    def accumulate(model: nn.Module, opt: Optimizer, loss_fn: Any, batch: Any, i: int) -> Tensor:
        loss = loss_fn(model, batch) / 3
        loss.backward()
        if i % 3 == 2:
            opt.step()
            opt.zero_grad()
        return loss

    done = assert_innocent(update=accumulate, steps=39)
    assert done.optimizer.state_dict()["autolr"]["steps"] == 13, "optimizer steps count, not minibatches"


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad_does_what_the_users_optimizer_does(set_to_none: bool):
    def update(model: nn.Module, opt: Optimizer, loss_fn: Any, batch: Any, i: int) -> Tensor:
        opt.zero_grad(set_to_none)
        assert all((p.grad is None) if set_to_none or i == 0 else not p.grad.any() for p in model.parameters())
        loss = loss_fn(model, batch)
        loss.backward()
        opt.step()
        return loss

    assert_innocent(update=update)


def clipped(model: nn.Module, opt: Optimizer, loss_fn: Any, batch: Any, _: int) -> Tensor:
    opt.zero_grad()
    loss = loss_fn(model, batch)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.05)
    opt.step()
    return loss


def test_clipped_gradients_are_left_alone():
    assert_innocent(update=clipped)


# Data
class Augmented(Dataset[Any]):
    """Draws from one of the global generators for each example."""

    def __init__(self, source: str) -> None:
        self.data, self.source = classification(), source

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        x, y = self.data[i]
        noise = {
            "torch": lambda: torch.randn(6),
            "numpy": lambda: torch.from_numpy(np.random.normal(size=6).astype(np.float32)),  # noqa: NPY002
            "python": lambda: torch.tensor([random.gauss(0, 1) for _ in range(6)]),
        }[self.source]()
        return x + 0.1 * noise, y


@pytest.mark.parametrize("source", ["torch", "numpy", "python"])
def test_random_augmentation_goes_on_as_it_would_have(source: str):
    assert_innocent(batches=lambda: shuffling(Augmented(source)))


@pytest.mark.filterwarnings("ignore:This DataLoader will create", "ignore:This process:DeprecationWarning")
def test_worker_processes_serve_training_as_if_nobody_probed():
    settings = {"num_workers": 2, "persistent_workers": True, "prefetch_factor": 1}
    with workers_stopped(lambda: shuffling(Augmented("torch"), **settings)) as batches:
        assert_innocent(batches=batches)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        for i in torch.randperm(48):
            yield classification()[int(i)]


class Endless(Sampler[int]):
    """Goes on for ever, as samplers of long runs do; ``len`` says what an epoch is."""

    def __iter__(self) -> Iterator[int]:
        for _ in range(200):
            yield from torch.randperm(48).tolist()
        raise AssertionError("nobody should want this many indices of an endless sampler")

    def __len__(self) -> int:
        return 48


def weighted() -> DataLoader[Any]:
    sampler = WeightedRandomSampler([1.0 + i % 3 for i in range(48)], 48)
    return DataLoader(classification(), batch_size=8, sampler=sampler)


LOADERS = {
    "own generator": lambda: shuffling(generator=torch.Generator().manual_seed(5)),
    "last minibatch short": lambda: DataLoader(classification(45), batch_size=8, shuffle=True),
    "last minibatch dropped": lambda: DataLoader(classification(45), batch_size=8, shuffle=True, drop_last=True),
    "in order": lambda: DataLoader(classification(), batch_size=8),
    "weighted": weighted,
    "weighted, own generator": lambda: DataLoader(
        classification(),
        batch_size=8,
        sampler=WeightedRandomSampler([1.0] * 48, 48, generator=torch.Generator().manual_seed(1)),
    ),
    "endless sampler": lambda: DataLoader(classification(), batch_size=8, sampler=Endless()),
    "stream": lambda: DataLoader(Stream(), batch_size=8),
    "list": lambda: list(DataLoader(classification(), batch_size=8)),
    "tuple": lambda: tuple(DataLoader(classification(), batch_size=8)),
}


@pytest.mark.parametrize("name", LOADERS)
def test_minibatches_keep_their_order(name: str):
    assert_innocent(batches=LOADERS[name])


def test_the_private_generator_of_a_loader_is_never_advanced():
    generator = torch.Generator().manual_seed(5)
    before = generator.get_state()
    seed_everything(0)
    model = network()
    data = shuffling(generator=generator)
    opt = tuned_by(sgd(model), model, cross_entropy, data, 9, policy=autolr.Monitor(), window=2, superbatch=3)
    for batch in list(DataLoader(classification(), batch_size=8)):
        plain_update(model, opt, cross_entropy, batch, 0)
    assert len(opt.history) == 3
    assert torch.equal(generator.get_state(), before)
