"""Two real ranks: one decision, one rate, one set of parameters; with the rate held, the run without AutoLR."""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

import autolr
from autolr.policies.windowed import WindowedPolicy
from training_runs import (
    Script,
    bits,
    classification,
    cross_entropy,
    differences,
    full_print,
    plain_update,
    seed_everything,
    spectral,
    tuned_by,
)

pytestmark = pytest.mark.distributed

RANKS = 2
PATIENCE = 300.0  # [s] a hang is a failure; importing torch three times on a busy machine is none
STEPS = 26


class Centre(nn.Module):
    """Takes a running mean of the data off it: a loss that depends on a buffer, and so on every broadcast of it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean.lerp_(x.detach().mean(0), 0.3)
        return x - self.mean


def network(rank: int) -> DistributedDataParallel:
    seed_everything(0)
    model = nn.Sequential(
        Centre(), spectral(nn.Linear(6, 8)), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 2)
    )
    ddp = DistributedDataParallel(model)
    seed_everything(100 + rank)  # as it should be: other dropout masks on other ranks
    return ddp


def loader_of(rank: int) -> tuple[DataLoader[Any], DistributedSampler[Any]]:
    data = classification(64)
    sampler: DistributedSampler[Any] = DistributedSampler(data, RANKS, rank, seed=4)
    return DataLoader(data, batch_size=4, sampler=sampler), sampler


def train(
    rank: int,
    policy: Any,
    *,
    look_at: Callable[[DistributedDataParallel], nn.Module] = lambda ddp: ddp,
    steps: int = STEPS,
    total_steps: int = STEPS,
    load: tuple[Any, ...] | None = None,
    save_at: int | None = None,
    lr: float = 0.05,
    poisoned_at: int | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """A run on this rank; ``policy=None`` is the bare optimizer."""
    ddp = network(rank)
    optimizer: Any = torch.optim.SGD(ddp.parameters(), lr=lr, momentum=0.9)
    loader, sampler = loader_of(rank)
    if policy is not None:
        if isinstance(policy, WindowedPolicy):
            settings = {"window": 3, "superbatch": 3} | settings
        data = settings.pop("batches", loader)
        optimizer = tuned_by(optimizer, look_at(ddp), cross_entropy, data, total_steps, policy=policy, **settings)
    first = 0
    if load is not None:
        first, model_state, optimizer_state, generator = load
        ddp.load_state_dict(model_state)
        optimizer.load_state_dict(optimizer_state)
    told: dict[str, Any] = {"prints": [], "lrs": [], "losses": []}
    for step in range(steps):
        if step % len(loader) == 0:
            sampler.set_epoch(step // len(loader))
            batches = list(loader)
        if step < first:
            continue
        if load is not None and step == first:
            torch.set_rng_state(generator)
        if step == poisoned_at:
            with torch.no_grad():
                for p in ddp.parameters():
                    p.fill_(float("nan"))
        told["losses"].append(bits(plain_update(ddp, optimizer, cross_entropy, batches[step % len(loader)], step)))
        told["prints"].append(full_print(ddp.module, optimizer))
        told["lrs"].append(optimizer.param_groups[0]["lr"])
        if step + 1 == save_at:
            kept = [{k: v.clone() for k, v in ddp.state_dict().items()}, optimizer.state_dict()]
            kept[1] = torch.load(_through_file(kept[1]), weights_only=True)
            told["checkpoint"] = (save_at, *kept, torch.get_rng_state())
    if policy is not None:
        told["history"] = [repr(record) for record in optimizer.history]
        told["verdicts"] = [record.verdict for record in optimizer.history]
        told["forwards"] = optimizer.cost.forwards
    return told


def _through_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


def module_of(ddp: DistributedDataParallel) -> nn.Module:
    return ddp.module


PAPER = autolr.ExploreExploit(explore=0.5, saturation=1.3, spread=1)
SCRIPT = Script(verdicts=("raise", "roll back", "look", "lower"), spread=3)


def uneven(rank: int) -> list[Any]:
    """A list of minibatches, longer on one rank than on the other."""
    return list(DataLoader(classification(40 if rank else 24), batch_size=4))


def work(rank: int, port: int, folder: str, scenario: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=RANKS)
    told: dict[str, Any] = {}
    if scenario == "even":
        told["alone"] = train(rank, None)
        told["monitor"] = train(rank, autolr.Monitor())
        told["monitor, spread"] = train(rank, autolr.Monitor(spread=3))
        told["monitor, module"] = train(rank, autolr.Monitor(), look_at=module_of)
        told["paper"] = train(rank, PAPER, trace=Path(folder) / "trace.jsonl")
        told["script"] = train(rank, SCRIPT, save_at=11)
        # The checkpoint of rank 0 is loaded everywhere, as most training scripts do; generators are each rank's own.
        checkpoint = [told["script"].pop("checkpoint")]
        generator = checkpoint[0][3]
        dist.broadcast_object_list(checkpoint, src=0)
        told["resumed"] = train(rank, SCRIPT, load=(*checkpoint[0][:3], generator))
        told["default"] = train(rank, autolr.PeakSearch(budget=0.5), steps=160, total_steps=160, poisoned_at=100)
        told["default"]["searched"] = told["default"]["history"].pop(0)
        told["diverging"] = train(rank, autolr.ExploreExploit(spread=1, factor=4.0), lr=1e4)
    else:
        told["uneven"] = train(
            rank,
            autolr.ExploreExploit(explore=1.0),
            batches=uneven(rank),
            superbatch=None,
            window=120,
            steps=145,
            total_steps=150,
        )
    torch.save(told, Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def on_two_ranks(folder: Path, scenario: str) -> list[dict[str, Any]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.spawn(work, args=(port, str(folder), scenario), nprocs=RANKS, join=False)
    assert context is not None
    until = time.monotonic() + PATIENCE
    try:
        while not context.join(timeout=1.0):
            if time.monotonic() > until:
                pytest.fail(f"the ranks hung for {PATIENCE:g} s")
    finally:
        for process in context.processes:
            if process.is_alive():
                process.kill()
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(RANKS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, Any]]:
    return on_two_ranks(folder, "even")


RUNS = ["monitor", "monitor, spread", "monitor, module", "paper", "script", "resumed", "diverging", "default"]


@pytest.mark.parametrize("name", RUNS)
def test_both_ranks_take_the_same_decisions_for_the_same_reasons(ranks: list[dict[str, Any]], name: str):
    one, other = (rank[name] for rank in ranks)
    assert one["lrs"] == other["lrs"]
    assert one["history"] == other["history"]
    assert len(one["history"]) >= 3
    assert one["losses"] != other["losses"], "ranks that see the same data prove nothing"


@pytest.mark.parametrize("name", ["alone", *RUNS])
def test_both_ranks_have_the_same_parameters_and_optimizer_state_after_every_step(
    ranks: list[dict[str, Any]], name: str
):
    for step, (one, other) in enumerate(zip(*(rank[name]["prints"] for rank in ranks), strict=True), start=1):
        found = [n for n in differences(one, other) if n.split("/")[0] in {"parameter", "state", "group", "has state"}]
        assert found == [], f"after step {step}"


@pytest.mark.parametrize("name", ["monitor", "monitor, spread", "monitor, module"])
@pytest.mark.parametrize("rank", range(RANKS))
def test_with_the_rate_held_each_rank_trains_as_it_would_have_alone(ranks: list[dict[str, Any]], name: str, rank: int):
    alone, tuned = ranks[rank]["alone"], ranks[rank][name]
    for step, (one, other) in enumerate(zip(alone["prints"], tuned["prints"], strict=True), start=1):
        assert differences(one, other) == [], f"after step {step}"
    assert alone["losses"] == tuned["losses"]
    assert tuned["forwards"] > 0


def test_the_runs_hold_what_they_are_to_show(ranks: list[dict[str, Any]]):
    assert {"raise", "roll back", "lower", "keep"} <= set(ranks[0]["script"]["verdicts"])
    assert len(set(ranks[0]["paper"]["lrs"])) > 2
    assert "roll back" in ranks[0]["diverging"]["verdicts"]
    assert "peak found" in ranks[0]["default"]["searched"]
    assert "roll back" in ranks[0]["default"]["verdicts"]
    assert len(set(ranks[0]["default"]["lrs"])) > 50


@pytest.mark.parametrize("rank", range(RANKS))
def test_a_run_continued_on_both_ranks_from_the_checkpoint_of_rank_0_is_the_uninterrupted_run(
    ranks: list[dict[str, Any]], rank: int
):
    whole, resumed = ranks[rank]["script"], ranks[rank]["resumed"]
    assert resumed["history"] == whole["history"]
    assert resumed["lrs"] == whole["lrs"][-len(resumed["lrs"]) :]
    parameters = [
        {k: v for k, v in run["prints"][-1].items() if k.startswith(("parameter/", "state/"))}
        for run in (whole, resumed)
    ]
    assert differences(*parameters) == []


def test_only_one_rank_writes_the_log(ranks: list[dict[str, Any]], folder: Path):
    records = autolr.read_log(folder / "trace.jsonl")
    assert [repr(record.step) for record in records] == [
        text.split("step=")[1].split(",")[0] for text in ranks[0]["paper"]["history"]
    ]


def test_ranks_with_different_numbers_of_minibatches_agree_on_a_superbatch(tmp_path: Path):
    one, other = (rank["uneven"] for rank in on_two_ranks(tmp_path, "uneven"))
    assert one["lrs"] == other["lrs"]
    assert one["history"] == other["history"] != []
