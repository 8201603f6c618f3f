"""Whatever a forward pass writes into is, after a probe, what training left: to the bit, wherever it is held."""

from __future__ import annotations

import collections
import contextlib
import copy
import dataclasses
import enum
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import autolr
from autolr.measure.attributes import slots_of
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
        own = {k: v for k, v in (vars(value) | slots_of(value)).items() if k not in vars(nn.Module())}
        held = [*value._parameters.values(), *value._buffers.values(), *value._modules.values(), own]
        return content(held, above)
    if isinstance(value, Cache):
        return [value.reads, content(list(collections.OrderedDict.items(value)), above)]
    if isinstance(value, Rows):
        return content([*list.__iter__(value)], above)
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


class State(NamedTuple):
    mean: Tensor
    passes: int


@dataclasses.dataclass(frozen=True)
class Level:
    value: float


class Phase(enum.Enum):
    EVEN, ODD = 1.0, -1.0


class Values(nn.Module):
    """Puts a new value that cannot be changed in an attribute's place, of many kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()
        self.state, self.level, self.phase = State(torch.zeros(6), 0), Level(0.0), Phase.EVEN
        self.seen, self.span, self.held = frozenset[int](), range(0), [Level(0.0)]

    def forward(self, x: Tensor) -> Tensor:
        self.state = State(0.9 * self.state.mean + x.detach().mean(0), self.state.passes + 1)
        self.level, self.held[0] = Level(self.level.value + 1), Level(self.held[0].value + 1)
        self.phase = Phase.ODD if self.phase is Phase.EVEN else Phase.EVEN
        self.seen, self.span = self.seen | {self.state.passes}, range(self.state.passes)
        shift = self.phase.value + self.level.value + self.held[0].value + len(self.seen) + len(self.span)
        return self.inner(x - 0.01 * torch.tanh(self.state.mean + shift))


class Cache(collections.OrderedDict[str, Any]):
    """Counts what is read, and moves it to the end; not to be copied."""

    reads = 0

    def __getitem__(self, key: str) -> Any:
        self.reads += 1
        self.move_to_end(key)
        return super().__getitem__(key)

    def __reduce__(self) -> Any:
        raise TypeError

    clear = update = copy = __iter__ = keys = values = items = __reduce__  # type: ignore[assignment]


class Rows(list[Any]):
    def __iter__(self) -> Any:
        raise TypeError

    extend = clear = __len__ = __copy__ = __iter__  # type: ignore[assignment]


class Recent(collections.deque[Any]):
    pass


class Names(dict[str, Any]):
    """Items are attributes, as configurations have them."""

    __slots__ = ()
    __getattr__, __setattr__ = dict.__getitem__, dict.__setitem__


class Unique(set[Any]):
    def clear(self) -> None:
        raise TypeError


class Containers(nn.Module):
    """Writes into containers of its own kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()
        self.cache, self.rows, self.recent = Cache(a=torch.zeros(6), b=1), Rows([torch.zeros(6), 0]), Recent([], 2)
        self.names, self.unique = Names(count=0, means=Rows([torch.zeros(6)])), Unique()

    def forward(self, x: Tensor) -> Tensor:
        mean = x.detach().mean(0)
        self.cache["a"].lerp_(mean, 0.1)
        self.rows[0].add_(mean)
        self.rows[1] += 1
        self.rows.append(self.rows[1])
        self.recent.append(mean)
        self.names.count += 1
        self.names.means[0].sub_(mean)
        self.unique.add(self.names.count)
        known = self.cache.reads + self.rows[-1] + self.names.count + len(self.unique) + len(self.recent)
        shift = self.cache["a"] + self.rows[0] + self.names.means[0] + sum(self.recent)
        return self.inner(x - 0.01 * torch.tanh(shift / known))


class Slotted(nn.Module):
    """Attributes that are in no dictionary."""

    __slots__ = ("mean", "passes", "rows")

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.mean, self.rows = network(), torch.zeros(6), [0]

    def forward(self, x: Tensor) -> Tensor:
        self.passes = getattr(self, "passes", 0) + 1
        self.mean.lerp_(x.detach().mean(0), 0.1)
        self.rows.append(self.passes)
        return self.inner(x - 0.1 * self.mean * len(self.rows) / self.passes)


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
    "values of many kinds": Values,
    "containers of many kinds": Containers,
    "slots": Slotted,
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


@pytest.mark.filterwarnings("ignore:No rate is expected")
@pytest.mark.parametrize("name", MODELS)
def test_a_search_leaves_all_of_it_alone(name: str):
    seed_everything(1)
    model = MODELS[name]()
    data = [classification()[8 * i : 8 * i + 8] for i in range(6)]
    base = sgd(model)
    for batch in data[:2]:
        cross_entropy(model, batch).backward()
        base.step()
    before = bits(content(model))
    autolr.find_peak(model, base, cross_entropy, data, 300)
    assert bits(content(model)) == before


class Outward(nn.Module):
    """Holds what leads out of it, made before or in its first forward pass."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.inner, self.path = network(), path
        self.lock, self.weak, self.numbers = threading.Lock(), weakref.ref(self.inner), self.count()
        self.recent = Recent([1, 2])
        self.proxy = weakref.proxy(self.recent)
        self.passes, self.file, self.handle, self.scaled = 0, None, None, None

    def count(self) -> Iterator[int]:
        yield from range(10**6)

    def hook(self, *_: Any) -> None:
        self.passes += 1

    def forward(self, x: Tensor) -> Tensor:
        if self.handle is None:
            self.handle, self.scaled = self.inner.register_forward_hook(self.hook), self.inner.forward
            self.file = self.path.open("a", encoding="utf8")
        with self.lock:
            next(self.numbers)
            self.file.write("pass\n")
        return self.weak()(x)


def test_hooks_locks_files_and_generators_go_on_as_they_are(tmp_path: Path):
    seed_everything(1)
    model = Outward(tmp_path / "passes")
    held = {name: vars(model)[name] for name in ("lock", "weak", "numbers", "recent", "proxy")}
    data = [classification()[:8]] * 4
    opt = tuned_by(sgd(model), model, cross_entropy, data, 9, policy=autolr.Monitor(), window=1, superbatch=4)
    made = {name: vars(model)[name] for name in ("file", "handle", "scaled")}
    for batch in data:
        opt.zero_grad()
        cross_entropy(model, batch).backward()
        opt.step()
    assert all(vars(model)[name] is value for name, value in (held | made).items())
    assert len(model.inner._forward_hooks) == 1
    assert model.passes == len(data)
    model.file.close()
    assert next(model.numbers) == len((tmp_path / "passes").read_text().split())


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
