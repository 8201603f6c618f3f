"""Bit-for-bit innocence where something is compiled, and where a model keeps count or has hooks."""

from __future__ import annotations

import collections
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.optim import Optimizer
from torch.utils.data import DataLoader

import autolr
from training_runs import (
    assert_innocent,
    assert_probed,
    assert_same_run,
    classification,
    network,
    plain_update,
    run,
)

ADAPTIVE = {"policy": autolr.Monitor.adaptive(), "window": 2, "superbatch": 5, "overhead": float("inf")}


# Compiled: seconds each, and so tests apart (make test-compiled)
@pytest.fixture
def compilations() -> Iterator[list[int]]:
    """How many graphs were compiled so far, in its length."""
    torch._dynamo.reset()
    yield []
    torch._dynamo.reset()


def counting(
    graphs: list[int], model: Callable[[], nn.Module], *, inside: bool, backend: str
) -> Callable[[], nn.Module]:
    def counted(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(1)
        return torch._dynamo.lookup_backend(backend)(graph, inputs)

    def compiled() -> nn.Module:
        net = model()
        if inside:
            net.compile(backend=counted)
            return net
        return torch.compile(net, backend=counted)  # type: ignore[return-value]

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


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("inside", "backend", "settings"),
    [(True, "aot_eager", {}), (False, "eager", ADAPTIVE)],
    ids=["module.compile, superbatch", "torch.compile, one a step"],
)
def test_a_compiled_model_is_compiled_once_more_at_most_for_all_probes(
    compilations: list[int], settings: Any, inside: bool, backend: str
):
    bare: list[int] = []
    alone = run(
        tuned=False,
        model=counting(bare, plain_network, inside=inside, backend=backend),
        batches=with_a_short_last_minibatch,
        steps=20,
    )
    torch._dynamo.reset()
    model = counting(compilations, plain_network, inside=inside, backend=backend)
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


@pytest.mark.compiled
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # dynamo's own, of torch.jit
def test_a_compiled_step_is_not_compiled_again_for_a_probe(compilations: list[int]):
    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        compilations.append(1)
        return torch._dynamo.lookup_backend("eager")(graph, inputs)

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
@pytest.mark.compiled
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute of a Tensor that is not a leaf")
# (In autocast aot_eager alone, without AutoLR, rounds at other places than the uncompiled run.)
@pytest.mark.parametrize(
    ("training", "backend", "settings"),
    [(whole_step, "aot_eager", {}), (in_autocast_at_once, "eager", ADAPTIVE)],
    ids=["superbatch", "autocast, one a step"],
)
def test_a_compiled_function_may_step_in_it(compilations: list[int], settings: Any, training: Training, backend: str):
    def compiler(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        compilations.append(1)
        return torch._dynamo.lookup_backend(backend)(graph, inputs)

    common = {"model": plain_network, "base": lambda m: torch.optim.Adam(m.parameters(), lr=0.01), "steps": 16}
    alone = run(tuned=False, update=after_each_other(training), **common)
    uncompiled = run(tuned=True, update=after_each_other(training), **common, **settings)
    tuned = run(tuned=True, update=after_each_other(torch.compile(training, backend=compiler)), **common, **settings)
    assert_same_run(alone, tuned)
    assert_probed(tuned, 2)
    assert [r.losses for r in tuned.optimizer.history] == [r.losses for r in uncompiled.optimizer.history]
    assert 1 <= len(compilations) <= 3, "each probe or step compiles anew"


@pytest.mark.compiled
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
    assert_probed(tuned)


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


def test_a_hook_that_asks_whether_autolr_is_probing_records_training_alone():
    def watched(records: list[float]) -> Callable[[], nn.Module]:
        def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if not autolr.is_probing():
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
    assert not autolr.is_probing()


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
