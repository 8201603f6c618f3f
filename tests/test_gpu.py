"""The core of innocence on a GPU: training bit for bit alone, no memory between probes, one wait a probe."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import autolr
from training_runs import tuned_by

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def network(layout: torch.memory_format) -> nn.Module:
    parts = [nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Dropout(0.2)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)]
    return nn.Sequential(*parts, *head).cuda().to(memory_format=layout)


def loss_of(dtype: torch.dtype | None) -> Any:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        with torch.autocast("cuda", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            return F.cross_entropy(model(batch[0]), batch[1])

    return loss


def trained(
    policy: Any, *, make: Any, dtype: torch.dtype | None, layout: torch.memory_format, steps: int = 12
) -> tuple[list[Tensor], Any]:
    torch.backends.cudnn.deterministic = True
    torch.manual_seed(0)
    model = network(layout)
    data = [(torch.randn(16, 3, 16, 16, device="cuda"), torch.randint(10, (16,), device="cuda")) for _ in range(6)]
    optimizer: Any = make(model.parameters())
    loss_fn = loss_of(dtype)
    if policy is not None:
        optimizer = tuned_by(
            optimizer, model, loss_fn, data, steps, policy=policy, window=2, superbatch=4, overhead=float("inf")
        )
    for step in range(steps):
        optimizer.zero_grad()
        loss_fn(model, data[step % 6]).backward()
        optimizer.step()
    found = [*model.parameters(), *model.buffers(), torch.cuda.get_rng_state(), torch.get_rng_state()]
    return [tensor.detach().clone() for tensor in found], optimizer


MAKERS = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "fused AdamW": lambda p: torch.optim.AdamW(p, lr=1e-3, fused=True),
}


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["float32", "autocast"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["plain", "channels_last"])
@pytest.mark.parametrize("policy", [autolr.Monitor(), autolr.Monitor.adaptive()], ids=["superbatch", "one a step"])
def test_training_on_a_gpu_is_left_alone(maker: str, dtype: Any, layout: Any, policy: Any):
    settings = {"make": MAKERS[maker], "dtype": dtype, "layout": layout}
    alone, _ = trained(None, **settings)
    tuned, optimizer = trained(policy, **settings)
    assert all(torch.equal(a, b) for a, b in zip(alone, tuned, strict=True))
    assert any(record.eps for record in optimizer.history)


def test_nothing_stays_on_the_device_between_probes_and_a_rollback_s_snapshot_is_on_the_host():
    settings = {"make": MAKERS["momentum"], "dtype": None, "layout": torch.contiguous_format}
    trained(None, **settings)  # whatever is allocated once
    before = torch.cuda.memory_allocated()
    _, bare = trained(None, **settings)
    alone = torch.cuda.memory_allocated() - before
    del bare
    before = torch.cuda.memory_allocated()
    _, tuned = trained(autolr.ExploreExploit.adaptive(), **settings)
    assert torch.cuda.memory_allocated() - before <= alone + 64 * 1024
    saved = tuned.state_dict()["autolr"]["controller"]["saved"]
    assert saved is not None
    assert not any(parameter.is_cuda for parameter in saved["snapshot"]["parameters"])


def test_a_probe_waits_for_the_device_once():
    model = nn.Linear(64, 64).cuda()
    data = [torch.randn(8, 64, device="cuda") for _ in range(4)]

    def loss(m: nn.Module, x: Tensor) -> Tensor:
        return m(x).square().mean()

    optimizer = tuned_by(
        torch.optim.SGD(model.parameters(), lr=0.01),
        model,
        loss,
        data,
        100,
        policy=autolr.Monitor(),
        window=5,
        superbatch=4,
    )
    for step in range(40):
        optimizer.zero_grad()
        loss(model, data[step % 4]).backward()
        with warnings.catch_warnings(record=True) as waits:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            optimizer.step()
            torch.cuda.set_sync_debug_mode("default")
        # The check where the window ends, the probe, and for the first probe whether anything moved (two parameters).
        # (Generators are read on the host.)
        if step > 10:
            assert len([w for w in waits if "synchroniz" in str(w.message)]) <= 2
