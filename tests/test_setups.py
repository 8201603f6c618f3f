"""Bit-for-bit innocence on the set-ups that people train with: compiled, mixed precision, and models with a will."""

from __future__ import annotations

import collections
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.optim import Optimizer
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

import autolr
from training_runs import (
    BATCHES_OF_LINES,
    assert_innocent,
    assert_looked,
    assert_same_run,
    classification,
    cross_entropy,
    differences,
    network,
    plain_update,
    run,
    seed_everything,
    sgd,
)

ADAPTIVE = {"policy": autolr.Hold.adaptive(), "window": 2, "superbatch": 5, "overhead": float("inf")}


# Compiled
@pytest.fixture
def compilations() -> Iterator[list[int]]:
    """How many graphs were compiled so far, in its length."""
    torch._dynamo.reset()
    yield []
    torch._dynamo.reset()


def counting(graphs: list[int], model: Callable[[], nn.Module], *, inside: bool = True) -> Callable[[], nn.Module]:
    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(1)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    def compiled() -> nn.Module:
        net = model()
        if inside:
            net.compile(backend=backend)
            return net
        return torch.compile(net, backend=backend)  # type: ignore[return-value]

    return compiled


class Whole(nn.Module):
    """torch's own containers are not compiled by themselves; a user's module is."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.parts(x)


def plain_network() -> nn.Module:
    return Whole(
        nn.Linear(6, 10), nn.BatchNorm1d(10), nn.Tanh(), nn.Dropout(0.3), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 2)
    )


def with_a_short_last_minibatch() -> DataLoader[Any]:
    return DataLoader(classification(45), batch_size=8, shuffle=True)


@pytest.mark.parametrize("inside", [True, False], ids=["module.compile", "torch.compile"])
@pytest.mark.parametrize("settings", [{}, ADAPTIVE], ids=["superbatch", "one a step"])
def test_a_compiled_model_is_compiled_once_more_at_most_for_all_looks(
    compilations: list[int], settings: Any, inside: bool
):
    bare: list[int] = []
    alone = run(
        tuned=False, model=counting(bare, plain_network, inside=inside), batches=with_a_short_last_minibatch, steps=20
    )
    torch._dynamo.reset()
    model = counting(compilations, plain_network, inside=inside)
    tuned = run(tuned=True, model=model, batches=with_a_short_last_minibatch, steps=20, **settings)
    assert_same_run(alone, tuned)
    assert len(tuned.optimizer.history) >= 3
    assert len(compilations) <= len(bare) + 1
    assert len(bare) >= 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_under_inductor_training_is_left_alone_too(compilations: list[int]):
    del compilations

    def compiled() -> nn.Module:
        net = plain_network()
        net.compile()
        return net

    assert_innocent(model=compiled, window=2, superbatch=3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # dynamo's own, of torch.jit
def test_a_compiled_step_is_not_compiled_again_for_a_look(compilations: list[int]):
    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        compilations.append(1)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    def base(model: nn.Module) -> Optimizer:
        optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.01), foreach=False, capturable=False)
        optimizer.step = torch.compile(optimizer.step, backend=backend)  # type: ignore[method-assign]
        return optimizer

    alone = run(tuned=False, base=base)
    bare = len(compilations)
    torch._dynamo.reset()
    compilations.clear()
    tuned = run(tuned=True, base=base)
    assert_same_run(alone, tuned)
    assert 0 < len(compilations) <= bare


Training = Callable[..., Tensor]


def whole_step(model: nn.Module, optimizer: Optimizer, loss_fn: Any, batch: Any) -> Tensor:
    optimizer.zero_grad()
    loss = loss_fn(model, batch)
    loss.backward()
    optimizer.step()
    return loss


def in_autocast_at_once(model: nn.Module, optimizer: Optimizer, loss_fn: Any, batch: Any) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return whole_step(model, optimizer, loss_fn, batch)


def after_each_other(training: Training) -> Callable[..., Tensor]:
    """An update that calls the whole of training's step, and nothing else."""
    return lambda model, optimizer, loss_fn, batch, _: training(model, optimizer, loss_fn, batch)


# Dynamo's own, with any optimizer: of torch.jit, and of a loss that outlives a graph break (it asks for its `grad`).
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute of a Tensor that is not a leaf")
# (In autocast aot_eager alone, without AutoLR, rounds at other places than the uncompiled run.)
@pytest.mark.parametrize(
    ("training", "backend"), [(whole_step, "eager"), (whole_step, "aot_eager"), (in_autocast_at_once, "eager")]
)
@pytest.mark.parametrize("settings", [{}, ADAPTIVE], ids=["superbatch", "one a step"])
def test_a_compiled_function_may_step_in_it(compilations: list[int], settings: Any, training: Training, backend: str):
    def compiler(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        compilations.append(1)
        return torch._dynamo.lookup_backend(backend)(graph, inputs)

    common = {"model": plain_network, "base": lambda m: torch.optim.Adam(m.parameters(), lr=0.01), "steps": 16}
    alone = run(tuned=False, update=after_each_other(training), **common)
    uncompiled = run(tuned=True, update=after_each_other(training), **common, **settings)
    tuned = run(tuned=True, update=after_each_other(torch.compile(training, backend=compiler)), **common, **settings)
    assert_same_run(alone, tuned)
    assert_looked(tuned, 2)
    assert [r.losses for r in tuned.optimizer.history] == [r.losses for r in uncompiled.optimizer.history]
    assert 1 <= len(compilations) <= 3, "each look or step compiles anew"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_to_compile_step_itself_changes_nothing(compilations: list[int]):
    del compilations

    def update(model: nn.Module, optimizer: Any, loss_fn: Any, batch: Any, number: int) -> Tensor:
        if number == 0:
            optimizer.step = torch.compile(optimizer.step, backend="aot_eager")
        return plain_update(model, optimizer, loss_fn, batch, number)

    alone = run(tuned=False, model=plain_network)
    tuned = run(tuned=True, model=plain_network, update=update)
    assert_same_run(alone, tuned)
    assert_looked(tuned)


# Mixed precision
def in_autocast(dtype: torch.dtype) -> Callable[[nn.Module, Any], Tensor]:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        with torch.autocast("cpu", dtype=dtype):
            return cross_entropy(model, batch)

    return loss


def scaled(*, inside: bool, clip: bool, broken: frozenset[int] = frozenset()) -> Callable[..., Tensor]:
    """A training step with a GradScaler, inside or outside the user's autocast, with gradients that overflow."""
    scalers: dict[int, torch.amp.GradScaler] = {}

    def update(model: nn.Module, optimizer: Optimizer, loss_fn: Any, batch: Any, number: int) -> Tensor:
        scaler = scalers.setdefault(id(optimizer), torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=3))
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=inside):
            loss = loss_fn(model, batch)
            scaler.scale(loss).backward()
            if number in broken:
                next(p for p in model.parameters() if p.grad is not None).grad.fill_(float("inf"))
            if clip:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            scaler.step(optimizer)
        scaler.update()
        return loss

    return update


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("inside", [True, False], ids=["step inside autocast", "step outside"])
@pytest.mark.parametrize("clip", [True, False], ids=["unscaled and clipped", "plain"])
def test_autocast_with_a_scaler(dtype: torch.dtype, inside: bool, clip: bool):
    update = scaled(inside=inside, clip=clip, broken=frozenset({4, 5}))
    assert_innocent(model=plain_network, loss_fn=in_autocast(dtype), update=update, window=2, looks=3)


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
def test_fused_optimizers_with_a_scaler_and_skipped_steps(make: Any):
    def base(model: nn.Module) -> Optimizer:
        return make(model.parameters(), lr=0.01, fused=True)

    # Wrapped or not, a scaler skips the same steps. Only what it leaves in `grad` at a skipped one differs: inside a
    # fused kernel nothing is unscaled then, outside of it everything is; no step ever sees it.
    broken = frozenset({3, 7})
    runs = [
        run(tuned=tuned, base=base, update=scaled(inside=False, clip=False, broken=broken), window=2)
        if tuned
        else run(tuned=tuned, base=base, update=scaled(inside=False, clip=False, broken=broken))
        for tuned in (False, True)
    ]
    for number, (mine, yours) in enumerate(zip(runs[0].prints, runs[1].prints, strict=True)):
        apart = [name for name in differences(mine, yours) if not (number in broken and name.startswith("gradient/"))]
        assert apart == []
    assert runs[0].losses == runs[1].losses
    assert len(runs[1].optimizer.history) >= 3


# What models and training loops bring along
class Images(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def pictures() -> DataLoader[Any]:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(48, 3, 6, 6, generator=g).to(memory_format=torch.channels_last)
    return DataLoader(TensorDataset(x, (x[:, 0].mean((1, 2)) > 0).long()), batch_size=8, shuffle=True)


def test_channels_last():
    def model() -> nn.Module:
        return Images().to(memory_format=torch.channels_last)

    seed_everything(0)
    strides = [p.stride() for p in model().parameters()]
    tuned = assert_innocent(model=model, batches=pictures)
    assert [p.stride() for p in tuned.model.parameters()] == strides


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.first, self.last, self.reentrant = nn.Linear(6, 10), nn.Linear(10, 2), reentrant
        self.inner = nn.Sequential(nn.Linear(10, 10), nn.Dropout(0.3), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        hidden = checkpoint(self.inner, self.first(x), use_reentrant=self.reentrant)
        return self.last(hidden)


@pytest.mark.parametrize("reentrant", [True, False])
# The warning is torch's own, at a forward pass without gradients: evaluation has it too.
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
def test_gradient_checkpointing(reentrant: bool):
    assert_innocent(model=lambda: Checkpointed(reentrant))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 6)
        self.last.weight = self.first.weight
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.last(torch.tanh(self.first(x)))))


def test_tied_weights():
    assert_innocent(model=Tied)


def test_frozen_parameters_held_by_the_optimizer_or_not():
    def model() -> nn.Module:
        net = network()
        net[0].weight.requires_grad_(False)
        net[7].bias.requires_grad_(False)
        return net

    assert_innocent(model=model)
    assert_innocent(model=model, base=lambda m: torch.optim.SGD([p for p in m.parameters() if p.requires_grad], 0.05))


def test_two_optimizers_of_which_one_is_tuned():
    others: dict[int, Optimizer] = {}

    def update(model: nn.Module, optimizer: Optimizer, loss_fn: Any, batch: Any, number: int) -> Tensor:
        head = others.setdefault(id(model), torch.optim.Adam(model[7].parameters(), lr=0.01))
        optimizer.zero_grad()
        head.zero_grad()
        loss = loss_fn(model, batch)
        loss.backward()
        (optimizer if number % 2 else head).step()
        return loss

    assert_innocent(
        base=lambda m: torch.optim.SGD(m[:7].parameters(), lr=0.05, momentum=0.9), update=update, steps=26, window=3
    )


def test_gradient_accumulation():
    def update(model: nn.Module, optimizer: Optimizer, loss_fn: Any, batch: Any, number: int) -> Tensor:
        loss = loss_fn(model, batch)
        (loss / 3).backward()
        if number % 3 == 2:
            optimizer.step()
            optimizer.zero_grad()
        return loss

    tuned = assert_innocent(update=update, steps=39, window=3)
    assert max(record.step for record in tuned.optimizer.history) <= 13  # optimizer steps, not minibatches


# Modules that keep count
class Counting(nn.Module):
    """Counts its forward passes in every way a module can, and anneals its noise by the count."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.calls, self.seen = nn.Linear(6, 2), 0, []
        self.by_mode: dict[bool, int] = collections.Counter()
        self.last = torch.zeros(())
        self.total = torch.zeros(())
        self.noise = torch.Generator().manual_seed(3)
        self.numpy, self.python = np.random.default_rng(3), random.Random(3)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen.append(self.calls)
        self.by_mode[self.training] += 1
        self.last = x.detach().mean()
        self.total += 1
        self.cache = float(self.total)  # was not there before the first pass
        shift = torch.randn((), generator=self.noise) + self.numpy.normal() + self.python.random()
        return self.inner(x) + shift / self.calls


@pytest.mark.parametrize("settings", [{}, ADAPTIVE], ids=["superbatch", "one a step"])
def test_modules_that_count_their_forward_passes_count_training_s_alone(settings: Any):
    alone = run(tuned=False, model=Counting)
    tuned = run(tuned=True, model=Counting, **settings)
    assert_same_run(alone, tuned)
    for name in ("calls", "seen", "by_mode", "last", "total", "cache"):
        assert getattr(alone.model, name) == getattr(tuned.model, name), name
    assert torch.equal(alone.model.noise.get_state(), tuned.model.noise.get_state())
    assert alone.model.numpy.bit_generator.state == tuned.model.numpy.bit_generator.state
    assert alone.model.python.getstate() == tuned.model.python.getstate()


def test_a_hook_that_asks_whether_autolr_is_looking_records_training_alone():
    def watched(records: list[float]) -> Callable[[], nn.Module]:
        def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if not autolr.looking():
                records.append(float(output.detach().sum()))

        def model() -> nn.Module:
            net = network()
            net[0].register_forward_hook(keep)
            return net

        return model

    bare: list[float] = []
    tuned: list[float] = []
    assert_same_run(run(tuned=False, model=watched(bare)), run(tuned=True, model=watched(tuned)))
    assert bare == tuned
    assert not autolr.looking()


def doubled(_: nn.Module, inputs: Any) -> Any:
    return (inputs[0] * 2,)


def shifted(_: nn.Module, __: Any, output: Tensor) -> Tensor:
    return output + 1


def test_hooks_that_change_what_passes_through_are_part_of_the_model():
    def model() -> nn.Module:
        net = network()
        net[0].register_forward_pre_hook(doubled)
        net[0].register_forward_hook(shifted)
        prune.random_unstructured(net[7], "weight", amount=0.3)
        return net

    assert_innocent(model=model)


# Low precision
def in_float32(model: nn.Module, batch: Any) -> Tensor:
    x, y = batch
    return F.cross_entropy(model(x.to(next(model.parameters()).dtype)).float(), y)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_models_in_another_precision(dtype: torch.dtype):
    assert_innocent(model=lambda: plain_network().to(dtype), loss_fn=in_float32, base=sgd)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_loss_in_low_precision_is_refused_with_what_to_do(dtype: torch.dtype):
    model = nn.Linear(6, 2).to(dtype)

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return model(batch[0].to(dtype)).square().mean()

    with pytest.raises(TypeError, match=r"must return the loss in float32; got torch\.\w+.*model\(x\)\.float\(\)"):
        autolr.AutoLR(sgd(model), model, loss, BATCHES_OF_LINES, 50, policy=autolr.Hold())


def looks_at(dtype: torch.dtype, eps: tuple[float, ...] | None = None) -> list[autolr.Record]:
    """Looks along the steps of a bfloat16 model, taken in ``dtype``: the same parameters, minibatches and steps."""
    seed_everything(0)
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(4096, 32, generator=generator)
    y = (x[:, 0] + x[:, 1] ** 2 > 0.5).long()
    model = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 2)).to(torch.bfloat16)
    copy = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 2)).to(dtype)
    batches = list(zip(x.split(128), y.split(128), strict=True))
    base = torch.optim.SGD(model.parameters(), lr=0.5)
    follower = Follower(copy, model)
    policy = autolr.Hold(eps=(-0.5, 0.0, 0.5)) if eps is None else autolr.Hold(eps=eps)
    optimizer = autolr.AutoLR(follower, copy, in_float32, batches, 60, policy=policy, window=20, superbatch=32)
    if eps is None:
        optimizer.eps = (-1.0, 0.0, 1.0)
    else:
        optimizer.eps = eps
    for step in range(60):
        base.zero_grad()
        in_float32(model, batches[step % 32]).backward()
        base.step()
        optimizer.step()
    return [record for record in optimizer.history if record.eps]


class Follower(torch.optim.SGD):
    """Takes another model's steps: its parameters are that model's, in a precision of their own."""

    def __init__(self, copy: nn.Module, model: nn.Module) -> None:
        super().__init__(copy.parameters(), lr=0.5)
        self.model = model
        self.follow()

    @torch.no_grad()
    def follow(self) -> None:
        for mine, yours in zip(self.param_groups[0]["params"], self.model.parameters(), strict=True):
            mine.copy_(yours)

    def step(self) -> None:  # type: ignore[override]
        self.follow()


def test_a_look_at_a_bfloat16_model_agrees_with_the_same_look_in_float32_within_its_error():
    low, high = looks_at(torch.bfloat16), looks_at(torch.float32)
    assert len(low) == len(high) >= 2
    for ours, true in zip(low, high, strict=True):
        assert ours.eps_min is not None
        assert true.eps_min is not None
        assert ours.eps_min_stderr is not None
        assert abs(ours.eps_min - true.eps_min) < 2 * ours.eps_min_stderr


def test_the_eps_of_a_bfloat16_model_are_whole_steps():
    model = plain_network().to(torch.bfloat16)
    data = BATCHES_OF_LINES
    optimizer = autolr.AutoLR(sgd(model), model, in_float32, data, 50, policy=autolr.Hold(), window=3, superbatch=2)
    assert optimizer.eps == (-1.0, 0.0, 1.0)
    model.float()
    fine = autolr.AutoLR(sgd(model), model, in_float32, data, 50, policy=autolr.Hold(), window=3, superbatch=2)
    assert fine.eps == autolr.Hold().eps


def test_nearer_points_would_drown_in_bfloat16():
    # The control: at a hundredth of the step most entries do not move at all, and the two precisions part.
    near = (-0.01, 0.0, 0.01)
    low, high = looks_at(torch.bfloat16, near), looks_at(torch.float32, near)
    apart = [
        ours.eps_min is None or true.eps_min is None or abs(ours.eps_min - true.eps_min) > abs(true.eps_min)
        for ours, true in zip(low, high, strict=True)
    ]
    assert any(apart)


# Memory
def test_a_look_holds_one_copy_of_the_parameters_and_nothing_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(__import__("pathlib").Path(__file__).parent.parent / "benchmarks"))
    from memory import LiveTensors

    def bytes_of(policy: Any) -> tuple[int, int, int, int]:
        seed_everything(0)
        model = nn.Sequential(*[nn.Linear(256, 256) for _ in range(6)])
        data = [torch.randn(2, 256) for _ in range(8)]

        def loss(m: nn.Module, x: Tensor) -> Tensor:
            return m(x).square().mean()

        optimizer: Any = torch.optim.SGD(model.parameters(), lr=1e-3, foreach=False)
        if policy is not None:
            optimizer = autolr.AutoLR(
                optimizer, model, loss, data, 100, policy=policy, window=1, superbatch=8, overhead=float("inf")
            )
        tracked = LiveTensors()
        with tracked:
            for step in range(6):
                optimizer.zero_grad()
                loss(model, data[step]).backward()
                tracked.peak = tracked.live
                optimizer.step()
            optimizer.zero_grad()
        size = sum(p.nbytes for p in model.parameters())
        return tracked.peak, tracked.live, size, max(p.nbytes for p in model.parameters())

    bare_peak, bare_live, size, largest = bytes_of(None)
    slack = 64 * 1024  # activations of two rows, the losses, generators' states
    for policy in (autolr.Hold.adaptive(0.99), autolr.Hold()):
        peak, live, _, _ = bytes_of(policy)
        assert bare_peak + 0.9 * size < peak <= bare_peak + size + largest + slack
        assert live <= bare_live + slack
