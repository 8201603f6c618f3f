"""With the learning rate held, training under AutoLR is the training without it, to the bit, after every step."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, WeightedRandomSampler

import autolr
from training_runs import (
    Script,
    assert_innocent,
    assert_same_run,
    bits,
    classification,
    cross_entropy,
    differences,
    full_print,
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


@pytest.fixture(autouse=True)
def _the_autocast_cache_is_on_again() -> Iterator[None]:
    yield
    leaked = not torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(True)  # one failure must not fail the tests after it
    assert not leaked, "a probe left autocast's weight cache off"


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


# Models that keep state in their forward pass
class Replacing(nn.Module):
    """Puts a new tensor under a buffer's name instead of writing into the old one."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()
        self.register_buffer("mean", torch.zeros(6))
        self.register_buffer("seen", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        self.seen = x.detach().sum(0)
        return self.inner(x - self.mean)


class Registering(nn.Module):
    """Registers its first buffer in its first forward pass, from the data it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "shift"):
            self.register_buffer("shift", x.detach().mean(0))
        return self.inner(x - self.shift)


class Centred(nn.Module):
    """Registers its first buffer inside a layer that has none before."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner = Registering(), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.first(x))


class Resizing(nn.Module):
    """Sizes an empty buffer in place in its first forward pass, as quantization observers do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()
        self.register_buffer("low", torch.empty(0))

    def forward(self, x: Tensor) -> Tensor:
        low = x.detach().amin(0)
        if self.low.numel() == 0:
            self.low.resize_(low.shape).copy_(low)
        self.low.copy_(torch.minimum(self.low, low))
        return self.inner(x - 0.1 * self.low)


class MaxNorm(nn.Module):
    """``nn.Embedding(max_norm=...)`` writes into its own *parameter* in each forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(16, 6, max_norm=0.5)
        self.inner = network()

    def forward(self, x: Tensor) -> Tensor:
        words = (x[:, :3].abs() * 5).long().clamp(max=15)
        return self.inner(self.embedding(words).mean(1) + x)


def spectral_of_old() -> nn.Module:
    return nn.Sequential(nn.utils.spectral_norm(nn.Linear(6, 10)), nn.Tanh(), nn.Linear(10, 2))


def spectral_of_new() -> nn.Module:
    new = nn.utils.parametrizations.spectral_norm
    return nn.Sequential(new(nn.Linear(6, 10), n_power_iterations=2), nn.Tanh(), new(nn.Linear(10, 2)))


def frozen_norm() -> nn.Module:
    model = network()
    model[1].eval()
    return model


def recurrent() -> nn.Module:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(2, 5, num_layers=2, dropout=0.4, batch_first=True)
            self.head = nn.utils.parametrizations.weight_norm(nn.Linear(5, 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.lstm(x.reshape(-1, 3, 2))[0][:, -1])

    return Recurrent()


MODELS = {
    "batch norm": lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)),
    "batch norm, cumulative": lambda: nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8, momentum=None), nn.ReLU(), nn.Linear(8, 2)
    ),
    "batch norm in eval mode": frozen_norm,
    "dropout": lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 2)),
    "spectral norm, hooks": spectral_of_old,
    "spectral norm, parametrized": spectral_of_new,
    "recurrent, weight norm": recurrent,
    "buffer replaced": Replacing,
    "buffer registered late": Registering,
    "buffer registered late in a layer": Centred,
    "buffer resized": Resizing,
    "embedding with max_norm": MaxNorm,
}


@pytest.mark.parametrize("name", MODELS)
def test_a_forward_pass_that_changes_the_model_changes_it_only_in_training(name: str):
    assert_innocent(model=MODELS[name])


def stand_still(model: nn.Module, opt: Optimizer, steps: int) -> None:
    """Steps that move nothing: what changes, a probe has changed."""
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    for _ in range(steps):
        opt.step()


@pytest.mark.parametrize("name", MODELS)
def test_making_an_optimizer_and_probing_while_standing_still_change_nothing(name: str):
    seed_everything(1)
    model = MODELS[name]()
    base = O.SGD(model.parameters(), lr=0.1)
    stand_still(model, base, 0)
    before = full_print(model, base)
    opt = tuned_by(base, model, cross_entropy, shuffling(), 9, policy=autolr.Monitor(), window=1, superbatch=4)
    assert differences(before, full_print(model, opt)) == []
    stand_still(model, opt, 4)
    assert len(opt.history) == 4
    assert differences(before, full_print(model, opt)) == []


def test_a_model_in_eval_mode_is_probed_in_eval_mode():
    def evaluated() -> nn.Module:
        return network().eval()

    done = assert_innocent(model=evaluated)
    assert not any(module.training for module in done.model.modules())


@pytest.mark.parametrize("spread", [1, 2])
def test_dropout_has_one_mask_for_every_eps_and_another_for_the_next_probe(spread: int):
    seed_everything(0)
    model = network()
    opt = tuned_by(
        O.SGD(model.parameters(), lr=0.1),
        model,
        cross_entropy,
        [classification()[:8]] * 4,
        30,
        policy=autolr.Monitor(spread=spread),
        window=1,
        superbatch=4,
    )
    stand_still(model, opt, 10)
    assert len(opt.history) >= 5
    assert all(len(set(record.losses)) == 1 for record in opt.history)
    assert len({record.losses for record in opt.history}) == len(opt.history)


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


# Schedulers and the rest of what a torch.optim.Optimizer is
SCHEDULERS = {
    "LambdaLR": lambda opt: lr_scheduler.LambdaLR(opt, lambda epoch: 1 / (1 + epoch)),
    "StepLR": lambda opt: lr_scheduler.StepLR(opt, 4, gamma=0.5),
    "CosineAnnealingLR": lambda opt: lr_scheduler.CosineAnnealingLR(opt, 20),
    "OneCycleLR": lambda opt: lr_scheduler.OneCycleLR(opt, 0.1, total_steps=20),
    "ReduceLROnPlateau": lambda opt: lr_scheduler.ReduceLROnPlateau(opt, patience=1),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_accepts_it_and_sets_the_same_rates_as_on_the_bare_optimizer(name: str):
    def also(opt: Optimizer) -> Callable[[], None]:
        scheduler = SCHEDULERS[name](opt)
        if name == "ReduceLROnPlateau":
            return lambda: scheduler.step(1.0)
        return scheduler.step

    alone = run(tuned=False, also=also)
    with pytest.warns(UserWarning, match="scheduler"):
        tuned = run(tuned=True, also=also, policy=Script(rollback=False))
    assert_same_run(alone, tuned)
    assert len({p["group/0.lr"] for p in tuned.prints}) > 1


def test_holding_beside_a_scheduler_is_what_the_warning_recommends_and_so_is_silent():
    def also(opt: Optimizer) -> Callable[[], None]:
        return lr_scheduler.StepLR(opt, 4, gamma=0.5).step

    assert_innocent(also=also)  # warnings are errors here


def made(**settings: Any) -> tuple[nn.Module, Any]:
    seed_everything(0)
    model = network()
    settings = {"policy": autolr.Monitor(), "window": 2, "superbatch": 2} | settings
    return model, tuned_by(sgd(model), model, cross_entropy, shuffling(), 50, **settings)


def test_it_is_an_optimizer_and_shows_the_wrapped_ones_own_parts():
    _, opt = made()
    assert isinstance(opt, Optimizer)
    assert opt.param_groups is opt.base.param_groups
    assert opt.state is opt.base.state
    assert opt.defaults is opt.base.defaults
    assert not hasattr(opt, "_step_supports_amp_scaling")


def test_its_repr_fits_a_line_and_names_the_wrapped_optimizer_and_the_policy():
    _, opt = made()
    assert repr(opt) == "AutoLR(SGD, Monitor, step 0 of 50, monitor, lr 0.05)"


@pytest.mark.parametrize("through", ["AutoLR", "base before", "base after", "all optimizers"])
def test_step_hooks_fire_once_a_step(through: str):
    calls: list[str] = []

    def pre(*_: Any) -> None:
        calls.append("pre")

    def post(*_: Any) -> None:
        calls.append("post")

    seed_everything(0)
    model = network()
    base = sgd(model)
    if through == "base before":
        handles = [base.register_step_pre_hook(pre), base.register_step_post_hook(post)]
    opt = tuned_by(base, model, cross_entropy, shuffling(), 50, policy=autolr.Monitor(), window=1, superbatch=1)
    if through == "AutoLR":
        handles = [opt.register_step_pre_hook(pre), opt.register_step_post_hook(post)]
    elif through == "base after":
        handles = [base.register_step_pre_hook(pre), base.register_step_post_hook(post)]
    elif through == "all optimizers":
        from torch.optim import optimizer as module

        handles = [
            module.register_optimizer_step_pre_hook(pre),
            module.register_optimizer_step_post_hook(post),
        ]
    batches = list(DataLoader(classification(), batch_size=8))
    try:
        for batch in batches[:3]:
            plain_update(model, opt, cross_entropy, batch, 0)
    finally:
        for handle in handles:
            handle.remove()
    assert calls == ["pre", "post"] * 3
    plain_update(model, opt, cross_entropy, batches[3], 0)
    assert len(calls) == 6, "a removed hook still fires"


def test_state_dict_hooks_registered_on_it_fire():
    _, opt = made()
    seen: list[str] = []
    opt.register_state_dict_pre_hook(lambda *_: seen.append("save"))
    opt.register_load_state_dict_post_hook(lambda *_: seen.append("loaded"))
    opt.load_state_dict(opt.state_dict())
    assert seen == ["save", "loaded"]


def test_its_state_dict_can_be_copied_and_training_does_not_change_the_copy():
    model, opt = made(policy=autolr.ExploreExploit(explore=0.5))
    batches = list(DataLoader(classification(), batch_size=8))
    for batch in batches:
        plain_update(model, opt, cross_entropy, batch, 0)
    held = opt.state_dict()
    kept = copy.deepcopy(held)
    before = bits(kept)
    assert bits(held) == before
    for batch in batches * 2:
        plain_update(model, opt, cross_entropy, batch, 0)
    assert bits(kept) == before
    assert bits(held["autolr"]) == bits(kept["autolr"]), "AutoLR's own part is shared with the running optimizer"
    assert bits(opt.state_dict()["autolr"]) != bits(kept["autolr"])


def test_a_group_added_in_the_middle_of_a_window_is_trained_and_probed_along():
    def later(tuned: bool) -> Any:
        seed_everything(0)
        model = network()
        base = O.SGD(model[0].parameters(), lr=0.05, momentum=0.9)
        opt: Any = base
        data = shuffling()
        if tuned:
            opt = tuned_by(base, model, cross_entropy, data, 13, policy=autolr.Monitor(), window=3, superbatch=2)
        prints = []
        for _ in range(2):
            for batch in data:
                if len(prints) == 4:
                    opt.add_param_group({"params": model[-1].parameters(), "lr": 0.01})
                plain_update(model, opt, cross_entropy, batch, 0)
                prints.append(full_print(model, opt))
        return opt, prints

    (_, alone), (opt, tuned) = later(False), later(True)
    for one, other in zip(alone, tuned, strict=True):
        assert differences(one, other) == []
    assert [group["lr"] for group in opt.param_groups] == [0.05, 0.01]
    assert [record.step for record in opt.history] == [3, 7, 10], "a new window begins with the new group"
