"""find_peak on two real ranks: one answer, no hang where one rank alone sees a bad loss, and training undisturbed."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from autolr import AutoLR, peak_search
from autolr.peak_search import find_peak
from ranks import on_ranks
from test_short_run import Awkward, Noisy, assert_same, everything, loss_fn

pytestmark = pytest.mark.distributed

RANKS = 2


def on_rank(rank: int, port: int, folder: str) -> None:
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=RANKS)
    torch.manual_seed(0)
    model = DistributedDataParallel(Awkward())
    torch.manual_seed(100 + rank)
    data = Noisy()
    if rank:
        data.x[5] = float("nan")  # of this rank alone: all skip that step, or none
    sampler: DistributedSampler[Any] = DistributedSampler(data, RANKS, rank, seed=4)
    loader = DataLoader(data, batch_size=8, sampler=sampler)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    if rank:  # which cannot tell how the steps grow: it takes the first one's word
        peak_search.first_steps = lambda _: ()  # type: ignore[attr-defined]
    before = everything(model.module, optimizer)
    peak = find_peak(model, optimizer, loss_fn, loader, 1000)
    assert_same(before, everything(model.module, optimizer))
    first = next(iter(loader))
    uneven = [[part + 0 for part in first] for _ in range(31 if rank else 40)]  # candidates for 8 judges: 8 or 16
    other = find_peak(model, optimizer, loss_fn, uneven, 300)
    (Path(folder) / f"{rank}.json").write_text(
        json.dumps([peak.lr, len(peak.start_losses), [r.losses for r in peak.runs], peak.shortfall, other.lr])
    )
    dist.destroy_process_group()


def test_all_ranks_find_one_peak(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(on_rank, (port, str(tmp_path)), RANKS, start_method="spawn")
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(RANKS)]
    assert told[0] == told[1]
    lr, judges, runs, shortfall, _ = told[0]
    assert lr > 0
    assert shortfall > 0.5
    assert 8 < judges <= 16
    assert sum(len(losses) == judges for losses in runs) >= 3


def compressed(rank: int, search: bool) -> Any:
    """Parameters and what the hook remembers, after 30 steps with compressed gradients."""
    torch.manual_seed(0)
    model = DistributedDataParallel(
        torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 3))
    )
    state = PowerSGDState(None, start_powerSGD_iter=4, min_compression_rate=1)
    model.register_comm_hook(state, powerSGD_hook)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    generator = torch.Generator().manual_seed(rank)
    batches = [torch.randn(8, 8, generator=generator) for _ in range(12)]

    def loss_of(model: Any, x: torch.Tensor) -> torch.Tensor:
        return (model(x) - x[:, :3].sin()).square().mean()

    for step in range(30):
        if search and step in {0, 15}:
            peak = find_peak(model, optimizer, loss_of, batches, 300)
            assert max(run.length for run in peak.runs) > 4  # so that short runs compress, too
        optimizer.zero_grad()
        loss_of(model, batches[step % 12]).backward()
        optimizer.step()
    errors = [state.error_dict[key] for key in sorted(state.error_dict)]
    return [p.detach() for p in model.parameters()], [state.iter, len(state.p_memory_dict), state.rng.rand()], errors


def counting(state, bucket):  # type: ignore[no-untyped-def]  # torch takes no annotations that are texts
    """A hook of one's own, whose state is a plain dictionary."""
    state["calls"] = state.get("calls", 0) + 1
    return allreduce_hook(None, bucket)


def counted(rank: int) -> dict[str, Any]:
    model = DistributedDataParallel(torch.nn.Linear(3, 1))
    state: dict[str, Any] = {}
    model.register_comm_hook(state, counting)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    find_peak(model, optimizer, lambda m, x: m(x).square().mean(), [torch.ones(4, 3)] * 8, 90)
    before = dict(state)
    model(torch.ones(4, 3)).sum().backward()
    return {"before": before, "after": state}


def test_a_hook_s_own_dictionary_is_put_back(tmp_path: Path) -> None:
    for told in on_ranks(counted, RANKS, tmp_path):
        assert told == {"before": {}, "after": {"calls": 1}}


def bare_and_searched(rank: int) -> Any:
    return compressed(rank, search=False), compressed(rank, search=True)


def test_what_a_communication_hook_remembers_is_put_back(tmp_path: Path) -> None:
    for bare, searched in on_ranks(bare_and_searched, RANKS, tmp_path):
        for left, right in zip((*bare[0], *bare[2]), (*searched[0], *searched[2]), strict=True):
            assert torch.equal(left, right)
        assert bare[1] == searched[1]
        assert bare[2]  # it did compress


def different_lengths(rank: int) -> list[str]:
    model = DistributedDataParallel(torch.nn.Linear(3, 1))
    batches = [torch.ones(4, 3)] * 8

    def loss_of(model: Any, x: torch.Tensor) -> torch.Tensor:
        return model(x).square().mean()

    said = []
    for door in (
        lambda base: AutoLR(base, model, loss_of, batches, 41 if rank else 40),
        lambda base: find_peak(model, base, loss_of, batches, 41 if rank else 40),
    ):
        with pytest.raises(ValueError, match="total_steps must be the same on every rank") as refused:
            door(torch.optim.SGD(model.parameters(), lr=0.01))
        said.append(str(refused.value))
    return said


def test_ranks_of_different_lengths_are_refused_on_each_with_both(tmp_path: Path) -> None:
    first, second = on_ranks(different_lengths, RANKS, tmp_path)
    assert all("got 40 on rank 0, and 40 to 41" in text for text in first)
    assert all("got 41 on rank 1, and 40 to 41" in text for text in second)
