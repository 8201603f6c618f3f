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
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from autolr import peak_search
from autolr.peak_search import find_peak
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
