"""Four ranks decide as one; what they move and keep is what `autolr plan` says; one that dies hangs nobody."""

from __future__ import annotations

import os
import socket
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import autolr
from autolr.measure.sharded import own_part
from autolr.measure.snapshot import Snapshot, held_parameters
from autolr.measure.step_line import StepLine
from autolr.measure.whole_state import everything_kept
from autolr.numerics.scale import Training, gathering_bytes, plan_parts
from autolr.runtime.distributed import gather_minibatches, smallest
from ranks import on_ranks
from test_sharded import POLICIES, adam, batches, loss_of, run_of, wrapped
from training_runs import seed_everything

pytestmark = pytest.mark.distributed

WIDTH, LAYERS = 16, 6
# Where the tensor is that is as large as the whole; the second pair has the names of before torch 2.13.
RECEIVED = {
    "all_gather": 0, "all_gather_single": 0, "reduce_scatter_single": 1, "all_gather_into_tensor": 0,
    "reduce_scatter_tensor": 1,
}  # fmt: skip


class Traffic:
    """Counts the bytes that this rank receives in collectives."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes = 0
        for name, place in RECEIVED.items():
            if hasattr(dist, name):
                monkeypatch.setattr(dist, name, self._counting(getattr(dist, name), place))

    def _counting(self, collective: Any, place: int) -> Any:
        def counted(*tensors: Any, **settings: Any) -> Any:
            whole = (*tensors, *settings.values())[place]
            self.bytes += sum(part.nbytes for part in whole) if isinstance(whole, list) else whole.nbytes
            return collective(*tensors, **settings)

        return counted

    def in_(self, function: Any) -> int:
        """Of one call, this rank's own part included."""
        before = self.bytes
        function()
        return self.bytes - before


def deep() -> nn.Sequential:
    seed_everything(0)
    return nn.Sequential(*[nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS)])


def nbytes(tensors: Any) -> int:
    return sum(own_part(t).nbytes for t in tensors)


def measured(ranks: int) -> dict[str, Any]:
    """Bytes that a step, a forward pass and a gathering move, and that search, guard and look keep, on this rank."""
    model, rows = deep(), torch.randn(8, WIDTH)
    for layer in model:
        fully_shard(layer)
    fully_shard(model)
    optimizer = adam(model)

    def step() -> None:
        optimizer.zero_grad()
        model(rows).square().mean().backward()
        optimizer.step()

    told: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        traffic = Traffic(patch)
        step()  # it also makes what is made once
        told["step"] = traffic.in_(step)
        with torch.no_grad():
            told["forward"] = traffic.in_(lambda: model(rows))
        told["gathering"] = traffic.in_(lambda: gather_minibatches(torch.zeros(3, 1, dtype=torch.float64)))
    optimizer.zero_grad()
    with everything_kept(model, optimizer) as state:
        kept = state._kept
        told["search"] = nbytes(value for _, _, value in kept._parameters)
        told["search"] += nbytes(entry[3] for entry in kept._tensors if entry[3].ndim)
    snapshot = Snapshot.capture(model, optimizer)
    told["guard"] = nbytes(snapshot.parameters) + nbytes(
        value for state in snapshot.state for value in state.values() if value.ndim
    )
    told["look"] = nbytes(StepLine(held_parameters(optimizer))._copy)

    reduced = [0]

    def count(_: Any, bucket: Any) -> Any:
        reduced[0] += bucket.buffer().nbytes
        future: Any = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    count.__annotations__.clear()  # torch looks at them, and does not know them as texts
    ddp = DistributedDataParallel(deep())
    ddp.register_comm_hook(None, count)
    ddp(rows).square().mean().backward()
    told["reduced"] = reduced[0]
    assert ranks == dist.get_world_size()
    return told


def gathered(rank: int) -> Any:
    uneven = torch.arange(2 * (rank + 1), dtype=torch.float64).reshape(2, rank + 1) + 100 * rank
    uneven[0, 0] = float("nan") if rank == 1 else 0.1
    return gather_minibatches(uneven), smallest(7 - rank)


def skipping(rank: int) -> list[str]:
    """A loop that skips losses of NaN, once the weights are NaN: only rank 0 calls ``zero_grad`` as often."""
    model, loss_fn, data = wrapped("ddp", "fp32"), loss_of("fp32", "ddp"), batches(rank, dist.get_world_size())
    policy = autolr.PeakSearch(peak=0.01)
    optimizer = autolr.AutoLR(adam(model), model, loss_fn, data, 100, policy=policy)
    for batch in data.batches[:3]:
        optimizer.zero_grad()
        loss_fn(model, batch).backward()
        optimizer.step()
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(60 if rank == 0 else 20):
            optimizer.zero_grad()
    optimizer.start_cooldown(1)
    return [str(one.message) for one in caught]


def work(rank: int, ranks: int) -> dict[str, Any]:
    told: dict[str, Any] = {"measured": measured(ranks), "gathered": gathered(rank)}
    if ranks == 4:
        for kind in ("ddp", "fsdp2"):
            for policy in POLICIES:
                told[f"{kind} {policy}"] = run_of(kind, "fp32", policy, rank, ranks)
    else:
        told["skipping"] = skipping(rank)
    return told


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return on_ranks(work, 2, tmp_path_factory.mktemp("two"), 2)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return on_ranks(work, 4, tmp_path_factory.mktemp("four"), 4)


@pytest.mark.parametrize("ranks", [2, 4])
def test_what_ranks_move_and_keep_is_what_the_plan_says(request: pytest.FixtureRequest, ranks: int):
    told = request.getfixturevalue({2: "two", 4: "four"}[ranks])
    params = LAYERS * WIDTH**2
    plan = Training(params, 1e6, 1e3, ranks, "fsdp", compute_bytes=4)
    parts = {part.name: part for part in plan_parts(plan)}
    others = (ranks - 1) / ranks  # a rank's own part is counted here, and not in the plan
    for rank in told:
        seen = rank["measured"]
        assert seen["step"] * others == pytest.approx(plan.step_traffic)
        assert seen["forward"] * others == pytest.approx(plan.forward_traffic)
        assert seen["gathering"] == gathering_bytes(ranks, losses=3)
        assert seen["search"] == parts["search"].device_bytes
        assert seen["guard"] == parts["guard"].host_bytes
        assert seen["look"] == parts["adaptive probes"].device_bytes
        ddp = Training(params, 1e6, 1e3, ranks, "ddp")
        assert 2 * seen["reduced"] * others == pytest.approx(ddp.step_traffic)


@pytest.mark.parametrize("ranks", [2, 4])
def test_losses_come_back_side_by_side_in_the_order_of_ranks(request: pytest.FixtureRequest, ranks: int):
    told = [rank["gathered"] for rank in request.getfixturevalue({2: "two", 4: "four"}[ranks])]
    rows, fewest = told[0]
    assert all(repr(other) == repr(told[0]) for other in told)
    assert fewest == 7 - (ranks - 1)
    assert [len(row) for row in rows] == [sum(range(1, ranks + 1))] * 2
    assert rows[0][0] == 0.1
    assert rows[0][1] != rows[0][1]
    assert rows[1][:3] == [1.0, 102.0, 103.0]


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
@pytest.mark.parametrize("policy", POLICIES)
def test_four_ranks_decide_as_one_process_with_fourfold_batches(four: Any, kind: str, policy: str):
    one = run_of("plain", "fp32", policy, 0, 1)
    for rank in four:
        told = rank[f"{kind} {policy}"]
        assert told["history"] == four[0][f"{kind} {policy}"]["history"]
        assert told["lrs"] == pytest.approx(one["lrs"], rel=0.2 if policy == "search" else 1e-3)
        assert [record["verdict"] for record in told["records"]] == [record["verdict"] for record in one["records"]]


def test_weights_that_are_no_numbers_are_told_by_each_rank_for_itself(two: Any):
    (warning,) = two[0]["skipping"]
    assert "50 calls of zero_grad without a step" in warning
    assert "load a checkpoint" in warning
    assert two[1]["skipping"] == []


def dies(rank: int, port: int, folder: str) -> None:
    """Rank 1 is gone in the middle of a probe; rank 0 tells what it got, and when."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    model, plain, data = wrapped("ddp", "fp32"), loss_of("fp32", "ddp"), batches(rank, 2)
    looks = [0]

    def loss_fn(net: nn.Module, batch: Any) -> Any:
        looks[0] += autolr.is_probing()
        if rank == 1 and looks[0] == 30:
            os._exit(1)
        return plain(net, batch)

    optimizer = autolr.AutoLR(adam(model), model, loss_fn, data, 96, policy=POLICIES["monitor"])
    for step, batch in enumerate(data):
        began = time.monotonic()
        try:
            optimizer.zero_grad()
            plain(model, batch).backward()
            optimizer.step()
        except RuntimeError as error:
            seconds = time.monotonic() - began
            (Path(folder) / "told.txt").write_text(f"{seconds}\n{step}\n{error}")
            os._exit(0)


def test_a_rank_that_dies_in_a_probe_leaves_the_others_with_the_groups_error_and_no_hang(tmp_path: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.start_processes(dies, (port, str(tmp_path)), 2, join=False, start_method="spawn")
    assert context is not None
    for process in context.processes:
        process.join(120)
        assert process.exitcode is not None, "a rank hangs"
    seconds, step, error = (tmp_path / "told.txt").read_text().split("\n", 2)
    assert float(seconds) < 60
    assert int(step) >= 3
    assert "closed by peer" in error.lower() or "connection" in error.lower()
