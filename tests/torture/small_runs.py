"""Trainings that take milliseconds, saved and continued: what the kills, checkpoints and faults are tried on."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import autolr

STEPS = 24
_WINDOWS: dict[str, Any] = {"window": 4, "superbatch": 3}

POLICIES: dict[str, Callable[[], Any]] = {
    "PeakSearch()": lambda: autolr.PeakSearch(budget=0.9),  # of so short a run, or there is no search
    "PeakSearch(peak=0.02)": lambda: autolr.PeakSearch(peak=0.02),
    "PeakSearch(peak=3.0), diverging": lambda: autolr.PeakSearch(peak=3.0),
    "ExploreExploit()": lambda: autolr.ExploreExploit(**_WINDOWS, spread=2, factor=4.0, saturation=1.1),
    "ExploreExploit.adaptive()": lambda: autolr.ExploreExploit.adaptive(**_WINDOWS, overhead=2.0, saturation=1.1),
    "Monitor()": lambda: autolr.Monitor(**_WINDOWS),
    "Monitor.adaptive()": lambda: autolr.Monitor(**_WINDOWS, eps=(-0.5, 0.0, 0.5), confidence=0.8, overhead=2.0),
}

_O = torch.optim
OPTIMIZERS: dict[str, Callable[[nn.Module], Any]] = {
    "SGD": lambda m: _O.SGD(m.parameters(), lr=0.05),
    "momentum": lambda m: _O.SGD(m.parameters(), lr=0.05, momentum=0.9, nesterov=True),
    "Adam": lambda m: _O.Adam(m.parameters(), lr=0.01),
    "AdamW, amsgrad": lambda m: _O.AdamW(m.parameters(), lr=0.01, amsgrad=True),
    "AdamW, fused": lambda m: _O.AdamW(m.parameters(), lr=0.01, fused=True),
    "NAdam": lambda m: _O.NAdam(m.parameters(), lr=0.01),
    "RAdam": lambda m: _O.RAdam(m.parameters(), lr=0.01),
    "Adamax": lambda m: _O.Adamax(m.parameters(), lr=0.01),
    "RMSprop": lambda m: _O.RMSprop(m.parameters(), lr=0.01, centered=True, momentum=0.5),
    "Adagrad": lambda m: _O.Adagrad(m.parameters(), lr=0.05),
    "Adadelta": lambda m: _O.Adadelta(m.parameters(), lr=1.0),
    "ASGD": lambda m: _O.ASGD(m.parameters(), lr=0.05, t0=3),
    "two, as one": lambda m: [
        _O.SGD([p for p in m.parameters() if p.ndim > 1], lr=0.05, momentum=0.9),
        _O.AdamW([p for p in m.parameters() if p.ndim == 1], lr=0.01),
    ],
}


def data(batches: int = 6) -> list[tuple[Tensor, Tensor]]:
    """Always the same minibatches."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(batches, 8, 4, generator=generator)
    return [(x, (x[:, 0] + x[:, 1] ** 2 > 0.5).long()) for x in inputs]


def network() -> nn.Module:
    """With buffers and a mask."""
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.2), nn.Linear(6, 2))


def loss_fn(model: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


class Run:
    """A training, from its beginning or from a checkpoint on."""

    def __init__(self, policy: str, optimizer: str = "momentum", trace: Path | None = None, steps: int = STEPS) -> None:
        torch.manual_seed(0)
        self.model, self.batches, self.steps = network(), data(), steps
        self.rates: list[float] = []  # of each step
        self.base: Optimizer | list[Optimizer] = OPTIMIZERS[optimizer](self.model)
        self.tuned = autolr.AutoLR(
            self.base, self.model, loss_fn, self.batches, steps, policy=POLICIES[policy](), trace=trace
        )

    def step(self) -> None:
        done = self.tuned.steps_taken
        self.tuned.zero_grad()
        loss_fn(self.model, self.batches[done * 5 % len(self.batches)]).backward()
        self.tuned.step()
        self.rates.append(self.tuned.lr)  # of the coming step

    def state(self) -> dict[str, Any]:
        """All that a checkpoint must carry."""
        return {
            "model": self.model.state_dict(), "optimizer": self.tuned.state_dict(), "rng": torch.get_rng_state(),
            "rates": list(self.rates),
        }  # fmt: skip

    def load(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.tuned.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        self.rates = list(state["rates"])

    def to_end(self) -> Run:
        while self.tuned.steps_taken < self.steps:
            self.step()
        return self

    def end(self) -> dict[str, Any]:
        """What two runs must have in common at their end, to the bit."""
        held = {f"{key}/{name}": v for key, tensors in _tensors(self.tuned).items() for name, v in tensors.items()}
        return {
            **{f"model/{name}": value.clone() for name, value in self.model.state_dict().items()}, **held,
            "rng": torch.get_rng_state(), "rates": list(self.rates), "lr": self.tuned.lr,
            "history": [record.to_json().rpartition('"seconds"')[0] for record in self.tuned.history],
            "forwards": self.tuned.cost.forwards, "discarded": self.tuned.cost.discarded_steps,
        }  # fmt: skip


def _tensors(optimizer: Optimizer) -> dict[int, dict[str, Tensor]]:
    """The optimizer's state, by a parameter's number."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return {
        number: {k: v.clone() for k, v in optimizer.state.get(p, {}).items() if isinstance(v, Tensor)}
        for number, p in enumerate(parameters)
    }


def saved(state: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def loaded(content: bytes) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True)
    return state


def unequal(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of what is not the same to the bit: NaN is itself, and -0 is not 0."""

    def same(a: Any, b: Any) -> bool:
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            return a.dtype == b.dtype and a.shape == b.shape and _raw(a) == _raw(b)
        return repr(a) == repr(b)

    return sorted(n for n in one.keys() | other.keys() if n not in one or n not in other or not same(one[n], other[n]))


def _raw(value: Tensor) -> bytes:
    return bytes(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
