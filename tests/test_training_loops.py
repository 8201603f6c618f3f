"""Loops that do more than step once a minibatch: scalers, shared and frozen weights, several optimizers, formats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

import autolr
from training_runs import (
    Script,
    assert_innocent,
    assert_probed,
    assert_same_run,
    bits,
    classification,
    network,
    plain_update,
    run,
    tuned_by,
)

pytestmark = pytest.mark.long

O = torch.optim  # noqa: E741
PER_BATCH = {"policy": autolr.Monitor.adaptive(), "window": 1, "superbatch": 4, "overhead": float("inf")}


# Mixed precision with a scaler
def leaves_only() -> nn.Module:
    """Every weight a leaf: autocast keeps casts of those only."""
    return nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Dropout(0.2), nn.Linear(10, 2))


def in_autocast(dtype: torch.dtype) -> Callable[[nn.Module, Any], Tensor]:
    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        x, y = batch
        with torch.autocast("cpu", dtype=dtype):
            out = model(x)
        return F.cross_entropy(out.float(), y)

    return loss_fn


def with_scaler(
    dtype: torch.dtype, *, inside: bool, clip: bool, every: int = 1, broken: frozenset[int] = frozenset()
) -> Callable[..., Tensor]:
    """One run's update. Its scaler starts high and grows, and the gradients of ``broken`` minibatches overflow."""
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=4)

    def update(model: nn.Module, opt: Optimizer, loss_fn: Any, batch: Any, i: int) -> Tensor:
        with torch.autocast("cpu", dtype=dtype, enabled=inside):
            scaled = scaler.scale(loss_fn(model, batch) / every)
            scaled.backward()
            if i in broken:
                next(model.parameters()).grad.view(-1)[0] = torch.inf
            if i % every == every - 1:
                if clip:
                    scaler.unscale_(opt)
                    nn.utils.clip_grad_norm_(model.parameters(), 0.1)
                scaler.step(opt)
                scaler.update()
                opt.zero_grad()  # at once: a fused kernel leaves a skipped step's gradients scaled, and no step sees it
        assert torch.is_autocast_cache_enabled()
        return scaled  # by the scale, so that the scaler is compared too

    return update


FAST = {
    "SGD": lambda model: O.SGD(model.parameters(), lr=0.3, momentum=0.9),
    "SGD fused": lambda model: O.SGD(model.parameters(), lr=0.3, momentum=0.9, fused=True),
    "Adam": lambda model: O.Adam(model.parameters(), lr=0.05),
    "Adam fused": lambda model: O.Adam(model.parameters(), lr=0.05, fused=True),
}


@pytest.mark.parametrize(
    ("dtype", "inside", "clip"),
    [(torch.bfloat16, False, True), (torch.float16, True, False), (torch.float16, False, True)],
    ids=["bf16, clipped", "fp16, step inside", "fp16, clipped"],
)
@pytest.mark.parametrize("kind", FAST)
def test_autocast_with_a_scaler_that_skips_steps(kind: str, clip: bool, inside: bool, dtype: torch.dtype):
    broken = frozenset({4, 5, 11})  # not the first: skipping that inside its kernel, a fused optimizer keeps garbage
    runs = []
    for tuned in (False, True):
        update = with_scaler(dtype, inside=inside, clip=clip, broken=broken)
        settings = {"model": leaves_only, "base": FAST[kind], "loss_fn": in_autocast(dtype)}
        runs.append(run(tuned=tuned, update=update, steps=16, **settings))
    assert_same_run(*runs)
    assert_probed(runs[1])
    assert [record.step for record in runs[1].optimizer.history] == [3, 6, 9, 12], "a skipped step counts"


@pytest.mark.parametrize("inside", [False, True], ids=["step outside autocast", "step inside"])
def test_gradients_accumulated_under_a_scaler(inside: bool):
    # 6 minibatches an epoch and 4 to a step: steps straddle epochs. The 3rd step is skipped, by its 2nd minibatch.
    runs = []
    for tuned in (False, True):
        update = with_scaler(torch.float16, inside=inside, clip=True, every=4, broken=frozenset({9}))
        loss_fn = in_autocast(torch.float16)
        runs.append(run(tuned=tuned, model=leaves_only, base=FAST["SGD"], loss_fn=loss_fn, update=update, steps=54))
    assert_same_run(*runs)
    assert_probed(runs[1])
    assert [record.step for record in runs[1].optimizer.history] == [3, 6, 9, 12]


def test_a_natural_overflow_of_float16_is_skipped_as_it_is_without_probes():
    runs = []
    for tuned in (False, True):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24, growth_interval=5)

        def update(model: nn.Module, opt: Optimizer, loss_fn: Any, batch: Any, i: int) -> Tensor:
            opt.zero_grad()
            scaled = scaler.scale(loss_fn(model, batch))  # noqa: B023 - called in this very pass of the loop
            scaled.backward()
            scaler.step(opt)  # noqa: B023
            scaler.update()  # noqa: B023
            return scaled

        loss_fn = in_autocast(torch.float16)
        runs.append(run(tuned=tuned, model=leaves_only, base=FAST["Adam"], loss_fn=loss_fn, update=update, steps=30))
        assert scaler.get_scale() < 2.0**24, "nothing overflowed"
    assert_same_run(*runs)
    assert_probed(runs[1], 3)


# Weights that are shared, or not trained
class Language(nn.Module):
    """A next-token model whose output layer is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.mix, self.drop = nn.Embedding(16, 8), nn.Linear(8, 8), nn.Dropout(0.2)
        self.out = nn.Linear(8, 16, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.out(self.drop(torch.tanh(self.mix(self.embedding(words)))))


def next_word(model: nn.Module, batch: Any) -> Tensor:
    words = (batch[0].abs() * 5).long().clamp(max=15)
    return F.cross_entropy(model(words[:, :-1]).flatten(0, 1), words[:, 1:].flatten())


@pytest.mark.parametrize("settings", [{}, PER_BATCH], ids=["fixed", "adaptive"])
def test_an_embedding_that_is_the_output_layer_too(settings: dict[str, Any]):
    probes = 2 if settings else 4
    base = FAST["Adam"]
    done = assert_innocent(model=Language, base=base, loss_fn=next_word, probes=probes, **settings)
    assert done.model.out.weight is done.model.embedding.weight
    assert len(list(done.model.parameters())) == 3


def trainable_only(model: nn.Module) -> Optimizer:
    return O.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)


def all_of_them(model: nn.Module) -> Optimizer:
    return O.AdamW(model.parameters(), lr=0.01)


@pytest.mark.parametrize("base", [trainable_only, all_of_them])
def test_frozen_layers_stay_frozen_and_are_not_moved(base: Callable[[nn.Module], Optimizer]):
    def frozen() -> nn.Module:
        model = network()
        model[0].requires_grad_(False)
        model[5].weight.requires_grad_(False)
        return model

    def flags(model: nn.Module) -> list[bool]:
        return [p.requires_grad for p in model.parameters()]

    done = assert_innocent(model=frozen, base=base, observe=flags)
    first = {print_["parameter/0.weight"] for print_ in done.prints}
    assert len(first) == 1
    assert {print_["gradient/0.weight"] for print_ in done.prints} == {"None"}


def test_layers_that_thaw_and_freeze_while_training_runs():
    def thawing(model: nn.Module, opt: Optimizer, loss_fn: Any, batch: Any, i: int) -> Tensor:
        model[0].requires_grad_(i % 8 >= 4)
        model[7].requires_grad_(i % 8 < 6)
        return plain_update(model, opt, loss_fn, batch, i)

    assert_innocent(base=all_of_them, update=thawing, steps=17)


# More optimizers than one
Second = Callable[[nn.Module], Optimizer]


def beside(second: Second, update: Callable[..., Tensor], **more: Any) -> Callable[..., Tensor]:
    """An update with a second optimizer, made anew at the first minibatch of each run; its state is in the losses."""
    others: list[Any] = []

    def both(model: nn.Module, opt: Any, loss_fn: Any, batch: Any, i: int) -> Tensor:
        if i == 0:
            made: Any = second(model)
            if more and isinstance(opt, autolr.AutoLR):
                made = tuned_by(made, model, policy=autolr.Monitor(), window=2, superbatch=2, **more)
            others.append(made)
        other = others[-1]
        loss = update(model, opt, other, loss_fn, batch, i)
        state = [value for p in other.state for value in other.state[p].values() if isinstance(value, Tensor)]
        digest = bits([loss, *state])
        return torch.tensor([*digest.encode()])

    both.others = others  # type: ignore[attr-defined]
    return both


def at_once(model: nn.Module, one: Optimizer, other: Optimizer, loss_fn: Any, batch: Any, i: int) -> Tensor:
    one.zero_grad()
    other.zero_grad()
    loss = loss_fn(model, batch)
    loss.backward()
    first, second = (one, other) if i % 2 else (other, one)
    first.step()
    second.step()
    return loss


def test_the_parameters_that_it_does_not_hold_train_by_another_optimizer():
    update = beside(lambda model: O.Adagrad([*model[0].parameters(), *model[1].parameters()], lr=0.05), at_once)
    assert_innocent(base=lambda model: O.SGD(model[2:].parameters(), lr=0.05, momentum=0.9), update=update)


class Gan(nn.Module):
    """Both players, both with batch norm and dropout; what is probed is the generator's loss."""

    def __init__(self) -> None:
        super().__init__()
        self.g = nn.Sequential(nn.Linear(4, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 6))
        self.d = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.LeakyReLU(), nn.Dropout(0.3), nn.Linear(12, 1))


def fool(model: Any, batch: Any) -> Tensor:
    return F.softplus(-model.d(model.g(torch.randn(len(batch[0]), 4)))).mean()


def tell_apart(model: Any, batch: Any) -> Tensor:
    with torch.no_grad():
        fake = model.g(torch.randn(len(batch[0]), 4))
    return F.softplus(-model.d(batch[0])).mean() + F.softplus(model.d(fake)).mean()


def in_turns(model: nn.Module, one: Optimizer, other: Optimizer, loss_fn: Any, batch: Any, i: int) -> Tensor:
    other.zero_grad()
    theirs = tell_apart(model, batch)
    theirs.backward()
    other.step()
    if i % 2:  # two steps of the discriminator to one of the generator
        return theirs
    one.zero_grad()
    mine = loss_fn(model, batch)
    mine.backward()
    one.step()
    return mine + theirs


@pytest.mark.parametrize("both", [False, True], ids=["one is tuned", "both are"])
def test_a_generator_and_its_discriminator_in_turns(both: bool):
    data = list(DataLoader(classification(), batch_size=8))
    more = {"loss_fn": tell_apart, "batches": data, "total_steps": 27} if both else {}
    update = beside(lambda model: O.Adam(model.d.parameters(), lr=0.01, betas=(0.5, 0.99)), in_turns, **more)
    assert_innocent(
        model=Gan,
        base=lambda model: O.Adam(model.g.parameters(), lr=0.01, betas=(0.5, 0.99)),
        loss_fn=fool,
        batches=lambda: data,
        update=update,
        steps=27,
    )
    tuned = update.others[1]  # type: ignore[attr-defined]
    assert isinstance(tuned, autolr.AutoLR) is both
    if both:
        assert len(tuned.history) >= 10


# Gradient checkpointing
class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.first, self.last, self.reentrant = nn.Linear(6, 10), nn.Linear(10, 2), reentrant
        self.inner = nn.Sequential(nn.Linear(10, 10), nn.BatchNorm1d(10), nn.Dropout(0.3), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.last(checkpoint(self.inner, self.first(x), use_reentrant=self.reentrant))


@pytest.mark.parametrize("reentrant", [True, False])
# torch's own warning, at any forward pass without gradients.
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
def test_checkpointed_layers_with_batch_norm_recompute_as_if_nobody_probed(reentrant: bool):
    assert_innocent(model=lambda: Checkpointed(reentrant))


# Memory formats
class Images(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU())
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


def of_pictures(model: nn.Module, batch: Any) -> Tensor:
    x = batch[0].repeat_interleave(18, 1).reshape(-1, 3, 6, 6).to(memory_format=torch.channels_last)
    return F.cross_entropy(model(x), batch[1])


@pytest.mark.parametrize(
    "policy",
    [autolr.Monitor(), autolr.Monitor.adaptive(), Script(verdicts=("look",) * 9)],
    ids=["superbatch", "one a step", "script"],
)
def test_channels_last_stays_so_to_the_stride(policy: Any):
    def strides(model: nn.Module) -> Any:
        return [(p.stride(), None if p.grad is None else p.grad.stride()) for p in model.parameters()]

    done = assert_innocent(
        model=lambda: Images().to(memory_format=torch.channels_last),
        base=FAST["Adam"],
        loss_fn=of_pictures,
        observe=strides,
        policy=policy,
        superbatch=4,
        overhead=float("inf"),
        probes=2,
        steps=13,
    )
    weight = done.model.body[0].weight
    state = done.optimizer.state[weight]
    assert weight.stride() == state["exp_avg"].stride() == (27, 1, 9, 3)


def test_a_rollback_keeps_channels_last_too():
    done = run(
        tuned=True,
        model=lambda: Images().to(memory_format=torch.channels_last),
        base=FAST["Adam"],
        loss_fn=of_pictures,
        policy=Script(verdicts=("look", "roll back", "roll back")),
    )
    assert [record.verdict for record in done.optimizer.history][:2] == ["keep", "roll back"]
    weight = done.model.body[0].weight
    assert weight.stride() == done.optimizer.state[weight]["exp_avg"].stride() == (27, 1, 9, 3)
