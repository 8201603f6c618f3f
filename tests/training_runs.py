"""Small training runs whose every bit can be compared: with and without AutoLR, continued and uninterrupted."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

import autolr
from autolr.policies.base import Decision, Trigger
from autolr.policies.window_state import ProbeFit, WindowResult
from autolr.policies.windowed import WindowedPolicy

Print = dict[str, str]  # what there is, by name -> its bits, digested


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def bits(value: Any) -> str:
    """A digest of a value's very bits: NaN equals itself, -0.0 is not 0.0, and dtype and shape count."""
    if isinstance(value, Tensor):
        value = value.to_local() if hasattr(value, "to_local") else value  # a shard: this rank's
        own = value.detach().cpu().contiguous().clone()  # numpy pins the memory it is shown
        raw = own.reshape(-1).view(torch.uint8).numpy().tobytes()
        return f"{value.dtype}{tuple(value.shape)}{hashlib.sha1(raw).hexdigest()}"
    if isinstance(value, dict):
        return repr({k: bits(v) for k, v in value.items()})
    if isinstance(value, (list, tuple)):
        return repr([bits(v) for v in value])
    return repr(value)


def print_of_generators() -> Print:
    return {
        "rng/torch": bits(torch.default_generator.get_state()),
        "rng/torch seed": str(torch.initial_seed()),
        "rng/numpy": repr([x.tobytes() if hasattr(x, "tobytes") else x for x in np.random.get_state()]),  # noqa: NPY002
        "rng/python": str(hash(random.getstate())),
    }


def print_of_training(model: nn.Module, optimizer: Optimizer) -> Print:
    """Parameters, gradients, buffers, modes, optimizer state and settings, under readable names."""
    found = {}
    for name, p in model.named_parameters():
        found[f"parameter/{name}"] = bits(p)
        found[f"gradient/{name}"] = bits(p.grad)
    for name, module in model.named_modules():
        found[f"mode/{name}"] = str(module.training)
        for key, buffer in module._buffers.items():
            found[f"buffer/{name}.{key}"] = bits(buffer)
    known = set()
    for i, group in enumerate(optimizer.param_groups):
        for key, value in group.items():
            if key != "params":
                found[f"group/{i}.{key}"] = bits(value)
        for j, p in enumerate(group["params"]):
            known.add(p)
            found[f"has state/{i}.{j}"] = str(p in optimizer.state)
            for key, value in dict(optimizer.state).get(p, {}).items():
                found[f"state/{i}.{j}.{key}"] = bits(value)
    found["state of nothing"] = str(sum(p not in known for p in optimizer.state))
    return found


def full_print(model: nn.Module, optimizer: Optimizer) -> Print:
    return print_of_training(model, optimizer) | print_of_generators()


def differences(one: Print, other: Print) -> list[str]:
    """Names under which two prints differ, or which only one of them has."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


# Data and losses
def classification(n: int = 48, width: int = 6, seed: int = 3) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, width, generator=generator)
    return TensorDataset(x, (x[:, 0] + x[:, 1] ** 2 > 0.5).long())


def shuffling(dataset: Any = None, **settings: Any) -> DataLoader[Any]:
    return DataLoader(dataset or classification(), batch_size=8, shuffle=True, **settings)


@contextlib.contextmanager
def workers_stopped(make: Callable[[], DataLoader[Any]]) -> Iterator[Callable[[], DataLoader[Any]]]:
    """``make``, and at the end its loaders' persistent workers are stopped.

    Left to the garbage collector, each of them is waited for five seconds: its queue's thread may be gone before it.
    """
    made: list[DataLoader[Any]] = []

    def remembered() -> DataLoader[Any]:
        made.append(make())
        return made[-1]

    yield remembered
    for loader in made:
        if loader._iterator is not None:
            loader._iterator._shutdown_workers()  # type: ignore[attr-defined]


def cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    x, y = batch
    return F.cross_entropy(model(x), y)


spectral = nn.utils.parametrizations.spectral_norm


def network() -> nn.Module:
    """A little of everything that keeps state in a forward pass."""
    return nn.Sequential(
        nn.Linear(6, 10),
        nn.BatchNorm1d(10),
        nn.Tanh(),
        nn.Dropout(0.3),
        spectral(nn.Linear(10, 10)),
        nn.BatchNorm1d(10, momentum=None),
        nn.ReLU(),
        nn.Linear(10, 2),
    )


# Runs
Update = Callable[[nn.Module, Optimizer, Any, Any, int], Tensor]


def plain_update(model: nn.Module, optimizer: Optimizer, loss_fn: Any, batch: Any, _: int) -> Tensor:
    optimizer.zero_grad()
    loss = loss_fn(model, batch)
    loss.backward()
    optimizer.step()
    return loss


@dataclass
class Run:
    model: nn.Module
    optimizer: Any
    losses: list[str] = field(default_factory=list)
    batches: list[str] = field(default_factory=list)
    prints: list[Print] = field(default_factory=list)


def sgd(model: nn.Module) -> Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def run(
    *,
    tuned: bool,
    model: Callable[[], nn.Module] = network,
    base: Callable[[nn.Module], Optimizer] = sgd,
    batches: Callable[[], Iterable[Any]] = shuffling,
    loss_fn: Any = cross_entropy,
    update: Update = plain_update,
    also: Callable[[Optimizer], Callable[[], Any]] | None = None,
    observe: Callable[[nn.Module], Any] | None = None,
    steps: int = 13,
    seed: int = 0,
    **settings: Any,
) -> Run:
    """Train once, alone or under AutoLR, and keep a full print after every minibatch.

    ``also(optimizer)`` makes something that is called after each minibatch: a scheduler's step, for instance. What
    ``observe(model)`` returns belongs to the print.
    """
    seed_everything(seed)
    net = model()
    optimizer = base(net)
    data = batches()
    if tuned:
        settings = {"policy": autolr.Monitor(), "window": 3, "superbatch": 2} | settings
        optimizer = tuned_by(optimizer, net, loss_fn, data, steps, **settings)
    after = also(optimizer) if also else None
    done = Run(net, optimizer)
    while len(done.losses) < steps:
        for batch in data:
            done.batches.append(bits(batch))
            done.losses.append(bits(update(net, optimizer, loss_fn, batch, len(done.losses))))
            if after:
                after()
            done.prints.append(full_print(net, optimizer))
            if observe:
                done.prints[-1]["observed"] = bits(observe(net))
            if len(done.losses) == steps:
                break
    return done


def assert_same_run(one: Run, other: Run) -> None:
    assert one.batches == other.batches, "the order or content of the minibatches changed"
    for step, (mine, yours) in enumerate(zip(one.prints, other.prints, strict=True), start=1):
        assert differences(mine, yours) == [], f"after step {step}"
    assert one.losses == other.losses


def assert_innocent(*, probes: int = 4, **settings: Any) -> Run:
    """The run under AutoLR with the LR held is the run without it, over an epoch and a half at least; it did probe."""
    settings = {"steps": 9, "window": 2, "policy": autolr.Monitor(eps=(-0.5, 0.0, 0.5))} | settings
    alone = run(tuned=False, **{name: value for name, value in settings.items() if name not in OF_THE_POLICY})
    tuned = run(tuned=True, **settings)
    assert_same_run(alone, tuned)
    assert_probed(tuned, probes)
    return tuned


def assert_probed(tuned: Run, probes: int = 4) -> None:
    """It probed that often, and each time it saw the loss change along the step."""
    history = tuned.optimizer.history
    assert len(history) >= probes
    assert all(len(set(record.losses)) > 1 for record in history), "a probe that moves nothing proves nothing"


# Policies
def with_settings(policy: Any, **settings: Any) -> Any:
    """The policy with those of the ``settings`` that are its own; None leaves one as it is."""
    return replace(policy, **{name: value for name, value in settings.items() if value is not None})


OF_THE_POLICY = ("window", "superbatch", "overhead", "validation_eps")


def tuned_by(
    base: Optimizer, model: nn.Module, loss_fn: Any, batches: Any, total_steps: Any, *, policy: Any, **settings: Any
) -> autolr.AutoLR:
    """AutoLR, with the policy's settings given beside its own."""
    policy = with_settings(policy, **{name: settings.pop(name) for name in OF_THE_POLICY if name in settings})
    return autolr.AutoLR(base, model, loss_fn, batches, total_steps, policy=policy, **settings)


@dataclass(frozen=True)
class ScriptState:
    windows: int = 0
    asked: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Script(WindowedPolicy):
    """Does ``verdicts[i]`` at the end of window i: "keep", "look", "raise", "lower" or "roll back"; then looks."""

    verdicts: tuple[str, ...] = ()
    factor: float = 1.7
    eps: tuple[float, ...] = (-0.5, 0.0, 0.5)
    rollback: bool = True

    def own_state(self) -> ScriptState:
        return ScriptState()

    def phase_at(self, *_: int) -> str:
        return "script"

    def _now(self, own: ScriptState) -> str:
        return self.verdicts[own.windows] if own.windows < len(self.verdicts) else "look"

    def judge(self, own: ScriptState, window: WindowResult) -> tuple[ScriptState, Decision]:
        verdict = self._now(own)
        if verdict in {"raise", "lower"}:
            return own, Decision("look", window.lr, Trigger.MONITORING)
        own = ScriptState(own.windows + (verdict != "look"), (*own.asked, window.end_loss))
        lr = window.lr / self.factor if verdict == "roll back" else window.lr
        return own, Decision(verdict, lr, Trigger.MONITORING)  # type: ignore[arg-type]

    def advise(self, own: ScriptState, fit: ProbeFit) -> tuple[ScriptState, Decision]:
        verdict = self._now(own)
        after = ScriptState(own.windows + 1, (*own.asked, fit.loss))
        lr = {"raise": fit.lr * self.factor, "lower": fit.lr / self.factor}.get(verdict, fit.lr)
        return after, Decision(verdict if verdict != "look" else "keep", lr, Trigger.MONITORING)  # type: ignore[arg-type]


def script(*verdicts: str, **settings: Any) -> Script:
    return Script(verdicts=verdicts, **settings)


BATCHES_OF_LINES = list(DataLoader(classification(), batch_size=8))  # six minibatches, always the same
