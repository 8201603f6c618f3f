"""Whatever a forward pass writes into is, after a probe, what training left: to the bit, wherever it is held."""

from __future__ import annotations

import collections
import contextlib
import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import autolr
from autolr.measure.forward_state import SMALL, modules_of
from training_runs import (
    Script,
    assert_innocent,
    bits,
    classification,
    cross_entropy,
    network,
    run,
    seed_everything,
    sgd,
    tuned_by,
)

ADAPTIVE = {"policy": autolr.Monitor.adaptive(), "window": 2, "superbatch": 5, "overhead": float("inf")}
ADAPTIVE |= {"probes": 2, "steps": 13}
LARGE = SMALL // 4 + 6  # float32 numbers, more than is kept for nothing


def content(value: Any, above: tuple[int, ...] = ()) -> Any:
    """All that ``value`` holds, as plain lists that can be digested."""
    if id(value) in above:
        return "a circle"
    above = (*above, id(value))
    if isinstance(value, np.ndarray):
        return [str(value.dtype), value.shape, value.tolist() if value.dtype == object else value.tobytes()]
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, nn.Module):
        own = {k: v for k, v in vars(value).items() if k not in vars(nn.Module())}
        held = [*value._parameters.values(), *value._buffers.values(), *value._modules.values(), own]
        return content(held, above)
    if isinstance(value, dict):
        return {str(k): content(v, above) for k, v in value.items()}
    if isinstance(value, (list, tuple, collections.deque)):
        return [content(v, above) for v in value]
    return "a function" if callable(value) else value


class Arrays(nn.Module):
    """Counts in numpy arrays, small and large, in a plain attribute and as numpy's own number."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()
        self.seen, self.rows = np.zeros(6), np.zeros(LARGE, np.float32)
        self.total, self.names = np.float64(0), np.array([None] * 3, dtype=object)

    def forward(self, x: Tensor) -> Tensor:
        self.seen += x.detach().double().sum(0).numpy()
        self.rows[: len(x)] += 1
        self.total += 1
        self.names[int(self.total) % 3] = f"pass {self.total}"
        return self.inner(x - 0.01 * torch.from_numpy(np.tanh(self.seen)).float() / (1 + self.rows[0]))


class Nested(nn.Module):
    """Tensors, arrays and generators inside containers inside containers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()
        self.means: list[Any] = [torch.zeros(6), {"squares": np.zeros(6), "large": torch.zeros(LARGE)}]
        self.pair = (torch.zeros(6), [torch.zeros(()), [0]])
        self.recent: collections.deque[Tensor] = collections.deque(maxlen=3)
        self.counts: dict[str, Any] = collections.defaultdict(collections.Counter)
        self.noise = {"source": [torch.Generator().manual_seed(5)]}
        self.means.append(self.means)  # a circle

    def forward(self, x: Tensor) -> Tensor:
        mean = x.detach().mean(0)
        self.means[0].mul_(0.9).add_(mean)
        self.means[1]["squares"] += mean.square().numpy()
        self.means[1]["large"][:6] += mean
        self.pair[0].add_(mean)
        self.pair[1][0].add_(1)
        self.pair[1][1][0] += 1
        self.counts["passes"][len(x)] += 1
        for past in self.recent:
            past.mul_(0.5)
        self.recent.append(mean)
        noise = torch.randn(6, generator=self.noise["source"][0])
        shift = self.means[0] + self.pair[0] / self.pair[1][0] + sum(self.recent) + 0.1 * noise
        return self.inner(x - 0.01 * torch.tanh(shift) / self.counts["passes"][len(x)])


class Teacher(nn.Module):
    """A moving average of its student, with a batch norm; the student's optimizer and registry do not know it."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.copy, self.norm, self.passes = copy.deepcopy(student).requires_grad_(False), nn.BatchNorm1d(2), 0
        self.source = [student]

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        with torch.no_grad():
            for mine, theirs in zip(self.copy.parameters(), self.source[0].parameters(), strict=True):
                mine.lerp_(theirs, 0.1)
            return self.norm(self.copy(x))


class Student(nn.Module):
    def __init__(self, hide: Callable[[nn.Module], Any], find: Callable[[Any], Any]) -> None:
        super().__init__()
        self.inner, self.find = network(), find
        self.hidden = hide(Teacher(self.inner))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + 0.1 * self.find(self.hidden)(x)


def directly() -> nn.Module:
    student = Student(lambda teacher: [teacher], lambda hidden: hidden)
    vars(student)["hidden"] = student.hidden[0]
    return student


def through_data() -> nn.Module:
    """Writes that leave no trace in a tensor's version."""

    class Clipping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.average, self.calls = network(), torch.zeros(6), [torch.zeros(LARGE)]

        def forward(self, x: Tensor) -> Tensor:
            self.inner[0].weight.data.clamp_(-0.3, 0.3)
            self.average.data.lerp_(x.detach().mean(0), 0.1)
            self.calls[0].data.add_(1)
            return self.inner(x - self.average / self.calls[0][0])

    return Clipping()


MODELS: dict[str, Callable[[], nn.Module]] = {
    "arrays": Arrays,
    "nested": Nested,
    "module in a list": lambda: Student(lambda teacher: [teacher], lambda hidden: hidden[0]),
    "module in a tuple in a dict": lambda: Student(lambda teacher: {0: (teacher, 0)}, lambda hidden: hidden[0][0]),
    "module past the registry": directly,
    "writes through .data": through_data,
}


@pytest.mark.parametrize(
    ("name", "settings"), [*((name, {}) for name in MODELS), ("arrays", ADAPTIVE), ("nested", ADAPTIVE)]
)
def test_whatever_a_forward_pass_writes_into_only_training_s_passes_do(name: str, settings: Any):
    assert_innocent(model=MODELS[name], observe=content, **settings)


@pytest.mark.parametrize("name", MODELS)
def test_making_an_optimizer_and_probing_while_standing_still_leave_all_of_it_alone(name: str):
    seed_everything(1)
    model = MODELS[name]()
    data = [classification()[:8]] * 4
    before = bits(content(model))
    opt = tuned_by(sgd(model), model, cross_entropy, data, 9, policy=autolr.Monitor(), window=1, superbatch=4)
    assert bits(content(model)) == before
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    for _ in range(4):
        opt.step()
    assert len(opt.history) == 4
    assert bits(content(model)) == before


class Late(nn.Module):
    """Writes nothing at first: into small things, or large ones, only after some steps of training."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.inner, self.held, self.trained = network(), [torch.zeros(size), np.zeros(6)], 0

    def forward(self, x: Tensor) -> Tensor:
        if self.trained > 3:
            self.held[0][:6] += x.detach().mean(0)
            self.held[1] += 1
        return self.inner(x - 0.01 * torch.tanh(self.held[0][:6]))


def counted(model: nn.Module, opt: Any, loss_fn: Any, batch: Any, _: int) -> Tensor:
    model.trained += 1
    opt.zero_grad()
    loss = loss_fn(model, batch)
    loss.backward()
    opt.step()
    return loss


def test_what_is_written_into_later_is_put_back_where_it_is_small():
    assert_innocent(model=lambda: Late(6), update=counted, observe=content)


def test_a_large_tensor_that_is_written_into_late_is_told_of_once_and_kept_from_then_on():
    seed_everything(0)
    model = Late(LARGE)
    data = [classification()[:8]] * 6
    opt = tuned_by(sgd(model), model, cross_entropy, data, 50, policy=autolr.Monitor(), window=1, superbatch=2)
    for i in range(12):
        with pytest.warns(UserWarning, match=r"wrote into Late\.held") if i == 3 else contextlib.nullcontext():
            counted(model, opt, cross_entropy, data[0], i)
    opt.zero_grad()
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    before = bits(content(model.held))
    opt.step()
    assert bits(content(model.held)) == before


def test_a_tensor_or_an_array_that_is_a_parameter_by_another_name_moves_with_it():
    class Aliased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()
            weight = self.inner[0].weight
            self.views = [weight.detach(), weight.data.view(-1), weight.detach().numpy()]

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    tuned = assert_innocent(model=Aliased)
    plain = assert_innocent()
    assert [r.losses for r in tuned.optimizer.history] == [r.losses for r in plain.optimizer.history]


def test_a_tensor_that_training_will_need_for_a_backward_pass_is_not_touched():
    class Remembering(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.scale = network(), torch.ones(6)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x * self.scale)

    def late_backward(model: nn.Module, opt: Any, loss_fn: Any, batch: Any, _: int) -> Tensor:
        opt.zero_grad()
        loss_fn(model, batch).backward()
        x = batch[0].clone().requires_grad_()
        kept = (x * model.scale).square().sum()
        opt.step()
        kept.backward()  # an error, had the probe written into `scale`
        return x.grad.sum()

    assert_innocent(model=Remembering, update=late_backward)


class Waiting(nn.Module):
    """Moves a hidden copy of its weights only once training has gone on for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.trained = network(), 0
        self.target = [copy.deepcopy(self.inner[0])]

    def forward(self, x: Tensor) -> Tensor:
        if self.trained > 3:
            with torch.no_grad():
                self.target[0].weight.lerp_(self.inner[0].weight, 0.1)
        return self.inner(x) + 0.01 * self.target[0](x).mean()


def test_a_hidden_module_s_parameters_are_put_back_though_they_are_written_into_late():
    assert_innocent(model=Waiting, update=counted, observe=content)


def test_hidden_modules_come_after_the_registered_ones_and_each_once():
    model = MODELS["module in a tuple in a dict"]()
    modules = modules_of(model)
    registered = list(model.modules())
    assert modules[: len(registered)] == registered
    hidden = modules[len(registered) :]
    assert hidden == list(model.hidden[0][0].modules())


def test_a_rollback_takes_the_buffers_of_hidden_modules_back_too():
    model = MODELS["module in a list"]
    policy = Script(verdicts=("look", "roll back"), rollback=True)
    done = run(
        tuned=True, model=model, policy=policy, steps=6, window=3, observe=lambda m: m.hidden[0].norm.running_mean
    )
    at_begin, at_end = done.prints[2]["observed"], done.prints[5]["observed"]
    assert [record.verdict for record in done.optimizer.history][-1:] == ["roll back"]
    assert at_begin == at_end != done.prints[4]["observed"]


def test_what_a_module_holds_is_probed_by_a_copy_of_the_optimizer_too():
    seed_everything(0)
    model = Nested()
    data = [classification()[:8]] * 6
    opt = tuned_by(sgd(model), model, cross_entropy, data, 50, policy=autolr.Monitor(), window=1, superbatch=2)
    copied, its_own = copy.deepcopy((opt, model))
    for p in its_own.parameters():
        p.grad = torch.zeros_like(p)
    before = bits(content(its_own))
    for _ in range(3):
        copied.step()
    assert bits(content(its_own)) == before
    assert len(copied.history) == 3
