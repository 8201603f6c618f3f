"""Real ranks on this machine, over gloo: each test's worker runs in all of them and leaves a file of what it saw."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

PATIENCE = 300.0  # [s] a hang is a failure; importing torch in each rank on a busy machine is none

Work = Callable[..., Any]  # work(rank, *args) -> what it saw


def _on_rank(rank: int, work: Work, ranks: int, port: int, folder: str, args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
    torch.save(work(rank, *args), Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def on_ranks(work: Work, ranks: int, folder: Path, *args: Any, patience: float = PATIENCE) -> list[Any]:
    """What ``work(rank, *args)`` gives on each of so many ranks.

    Raises:
        mp.ProcessRaisedException: a rank raised.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.start_processes(
        _on_rank, (work, ranks, port, str(folder), args), ranks, join=False, start_method="spawn"
    )
    assert context is not None
    until = time.monotonic() + patience
    try:
        while not context.join(timeout=1.0):
            if time.monotonic() > until:
                pytest.fail(f"the ranks hung for {patience:g} s")
    finally:
        for process in context.processes:
            if process.is_alive():
                process.kill()
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(ranks)]
