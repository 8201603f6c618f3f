"""What a probe costs in memory: one copy of the parameters while it lasts, and nothing between probes."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.optim import SGD, AdamW
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

import autolr
from training_runs import run, seed_everything, tuned_by


class Live(TorchDispatchMode):
    """Follows the storages that live: those it is given, and every one that an operation makes."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0
        self._add(known)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self._add(out)
        self.peak = max(self.peak, self.bytes())
        return out

    def _add(self, values: Any) -> None:
        for value in tree_iter(values):
            if isinstance(value, Tensor):
                storage = value.untyped_storage()
                self._live[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())

    def bytes(self) -> int:
        self._live = {key: (ref, size) for key, (ref, size) in self._live.items() if not ref.expired()}
        return sum(size for _, size in self._live.values())


WIDE, DEEP = 256, 4
SLACK = 64 * 1024  # activations and minibatches of 2 rows, losses, states of generators: a layer has 4 times as much


def memory(make: Any, tuned: Any, steps: int = 4) -> tuple[list[int], list[int], nn.Module, Any]:
    """Peak bytes during each ``step()``, and bytes alive after it."""
    seed_everything(0)
    model = nn.Sequential(*(nn.Linear(WIDE, WIDE) for _ in range(DEEP)))
    data = [torch.randn(2, WIDE) for _ in range(8)]

    def loss_fn(model: nn.Module, x: Tensor) -> Tensor:
        return (model(x) - x).square().mean()

    opt = make(model.parameters())
    if tuned:
        settings = {"window": 1, "superbatch": 6, "overhead": float("inf"), "policy": tuned}
        opt = tuned_by(opt, model, loss_fn, data, steps + 1, **settings)
    peaks, rests = [], []
    with Live([*model.parameters(), *data]) as live:
        for i in range(steps):
            opt.zero_grad()
            loss_fn(model, data[i]).backward()
            live.peak = live.bytes()
            opt.step()
            peaks.append(live.peak)
            rests.append(live.bytes())
    return peaks, rests, model, opt


MAKERS = {
    "SGD": lambda ps: SGD(ps, lr=0.01, momentum=0.9),
    "AdamW": lambda ps: AdamW(ps, lr=1e-3),
    "AdamW foreach": lambda ps: AdamW(ps, lr=1e-3, foreach=True),
    "AdamW fused": lambda ps: AdamW(ps, lr=1e-3, fused=True),
}


FIXED, WHOLE, ADAPTIVE = autolr.Monitor(), autolr.Monitor(eps=(-1.0, 0.0, 1.0)), autolr.Monitor.adaptive(0.99)


@pytest.mark.parametrize(
    ("kind", "policy"),
    [*((kind, FIXED) for kind in MAKERS), ("AdamW", WHOLE), ("AdamW", ADAPTIVE)],
    ids=[*MAKERS, "the step's two ends", "adaptive"],
)
def test_a_probe_has_one_copy_of_the_parameters_and_nothing_is_left_of_it(kind: str, policy: Any):
    alone, rests_alone, model, _ = memory(MAKERS[kind], None)
    tuned, rests, _, opt = memory(MAKERS[kind], policy)
    parameters = sum(p.nbytes for p in model.parameters())
    largest = max(p.nbytes for p in model.parameters())
    assert opt.cost.probes > 0
    assert max(tuned) <= max(alone) + parameters + largest + SLACK
    assert max(tuned) >= min(alone) + parameters, "no copy at all: the bytes are not followed"
    assert all(mine <= bare + SLACK for mine, bare in zip(rests, rests_alone, strict=True))


def test_the_bytes_that_are_followed_are_the_bytes_there_are():
    one = torch.zeros(1000)
    with Live([one]) as live:
        assert live.bytes() == 4000
        two = one + 1
        view = two[:10]
        assert live.bytes() == 8000
        del two
        assert live.bytes() == 8000, "the view keeps it"
        del view
        assert live.bytes() == 4000
        torch._foreach_add([one, one], 1.0)
        assert (live.peak, live.bytes()) == (12000, 4000)


def test_a_finished_run_can_be_freed_whole():
    done = run(tuned=True)
    model = weakref.ref(done.model)
    del done
    gc.collect()
    assert model() is None
