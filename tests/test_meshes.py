"""Four ranks on a 2-D mesh, forward passes that are collectives, and what is split so that a probe cannot follow."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.distributed.nn
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

import autolr
from autolr.integrations.checkpoint import TrainingState
from ranks import on_ranks
from test_sharded import POLICIES, STEPS, adam, assert_same, batches, loss_of, network, train, tuned
from training_runs import seed_everything

pytestmark = pytest.mark.distributed

PLAIN = loss_of("fp32", "plain")


def hybrid() -> nn.Module:
    """Two copies, each in two shards (HSDP)."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("copies", "shards"))
    model = network()
    for part in (model[0], model[3], model):
        fully_shard(part, mesh=mesh)
    assert all(len(p.placements) == 2 for p in model.parameters())  # type: ignore[attr-defined]
    return model


class SharedNorm(nn.Module):
    """Takes the mean over all ranks off, as SyncBatchNorm does: a forward pass is a collective."""

    def forward(self, x: Tensor) -> Tensor:
        return x - torch.distributed.nn.all_reduce(x.mean(0)) / dist.get_world_size()


def synchronous() -> nn.Module:
    seed_everything(0)
    model = nn.Sequential(nn.Linear(6, 9), SharedNorm(), nn.Tanh(), nn.Dropout(0.1), nn.Linear(9, 2))
    return DistributedDataParallel(model)


MAKE = {"hybrid": hybrid, "synchronous": synchronous}


def run_of(make: Any, policy: str | None, rank: int, ranks: int) -> dict[str, Any]:
    model, data = make(), batches(rank, ranks)
    seed_everything(100 + rank)
    optimizer = adam(model) if policy is None else tuned(model, POLICIES[policy], PLAIN, data)
    return train(model, optimizer, PLAIN, data)


def why_not(make: Any) -> str:
    """What both doors say of a model; it is one message."""
    model = make()
    said = []
    for door in (lambda: autolr.AutoLR(adam(model), model, PLAIN, [0], 100),
                 lambda: autolr.find_peak(model, adam(model), PLAIN, [0], 100)):  # fmt: skip
        with pytest.raises(TypeError) as caught:
            door()
        said.append(str(caught.value))
    assert said[0] == said[1]
    return said[0]


def split(shards: bool) -> nn.Module:
    """By tensor parallelism over pairs of ranks; with ``shards``, also by `fully_shard` over the other dimension."""
    mesh = init_device_mesh("cpu", (dist.get_world_size() // 2, 2), mesh_dim_names=("data", "tensor"))
    model = network()
    parallelize_module(model, mesh["tensor"], {"0": ColwiseParallel(), "3": RowwiseParallel()})
    if shards:
        fully_shard(model, mesh=mesh["data"])
    return model


def stage() -> nn.Module:
    return network()[: 3 if dist.get_rank() == 0 else 5]  # type: ignore[return-value]


def resumed(rank: int, folder: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Saved in the middle on four ranks, and gone on from there."""
    model, data = hybrid(), batches(rank, 4)
    optimizer = tuned(model, POLICIES["search"], PLAIN, data)
    train(model, optimizer, PLAIN, data, last=14)
    dcp.save({"training": TrainingState(model, optimizer)}, checkpoint_id=folder)
    whole = train(model, optimizer, PLAIN, data, first=14)
    again = hybrid()
    other = tuned(again, POLICIES["search"], PLAIN, data)
    dcp.load({"training": TrainingState(again, other)}, checkpoint_id=folder)
    return whole, train(again, other, PLAIN, data, first=14)


def work(rank: int, folder: str) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    told: dict[str, Any] = {
        f"{name} {policy}": run_of(make, policy, rank, 4) for name, make in MAKE.items() for policy in (None, *POLICIES)
    }
    told["refused"] = [why_not(lambda: split(False)), why_not(lambda: split(True)), why_not(stage)]
    with pytest.raises(ValueError, match="SyncBatchNorm") as caught:
        nn.SyncBatchNorm(3)(torch.zeros(2, 3))
    told["sync norm"] = str(caught.value)
    told["resumed"] = resumed(rank, folder)
    return told


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def four(folder: Path) -> list[dict[str, Any]]:
    return on_ranks(work, 4, folder, str(folder / "saved"))


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("rank", range(4))
def test_with_the_rate_held_each_rank_trains_as_it_would_have_alone(four: Any, name: str, rank: int):
    watched = four[rank][f"{name} monitor"]
    assert_same(four[rank][f"{name} None"], watched)
    assert watched["forwards"] > 100
    assert all(len(set(record["losses"])) > 1 for record in watched["records"])


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("policy", POLICIES)
def test_four_ranks_are_of_one_mind(four: Any, name: str, policy: str):
    runs = [rank[f"{name} {policy}"] for rank in four]
    assert all((run["lrs"], run["history"]) == (runs[0]["lrs"], runs[0]["history"]) for run in runs)
    assert len({repr(run["losses"]) for run in runs}) == 4, "ranks that see the same data prove nothing"
    assert len(runs[0]["history"]) >= 2


@pytest.mark.parametrize("policy", POLICIES)
def test_a_2_d_mesh_decides_as_one_process_with_fourfold_batches(four: Any, policy: str):
    one = run_of(network, policy, 0, 1)
    two = four[0][f"hybrid {policy}"]
    assert two["lrs"] == pytest.approx(one["lrs"], rel=0.25 if policy == "search" else 1e-3)
    assert [record["verdict"] for record in two["records"]] == [record["verdict"] for record in one["records"]]


@pytest.mark.parametrize("rank", range(4))
def test_a_run_on_a_2_d_mesh_that_is_loaded_anew_is_the_uninterrupted_one(four: Any, rank: int):
    whole, again = four[rank]["resumed"]
    assert whole["history"] == again["history"]
    assert_same(whole, again)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_what_four_ranks_saved_goes_on_in_one_process(four: Any, folder: Path):
    model, data = network(), batches(0, 1)
    optimizer = tuned(model, POLICIES["search"], PLAIN, data)
    dcp.load({"training": TrainingState(model, optimizer)}, checkpoint_id=folder / "saved")
    one = train(model, optimizer, PLAIN, data, first=14)
    theirs = [rank["resumed"][0] for rank in four]
    assert one["losses"][0] == pytest.approx(sum(run["losses"][0] for run in theirs) / 4)
    assert one["lrs"] == pytest.approx(theirs[0]["lrs"])
    assert len(one["lrs"]) == STEPS - 14


def test_tensor_parallelism_and_pipelines_are_refused_on_every_rank_with_what_to_do(four: Any):
    for rank in four:
        tensor, both, pipeline = rank["refused"]
        assert "0.weight is split by tensor parallelism" in tensor
        assert "split by tensor parallelism" in both
        assert "ranks have different parameters, as the stages of a pipeline do" in pipeline
        assert all("fully_shard (FSDP2" in said and "peak.scheduler(optimizer)" in said for said in rank["refused"])


def test_sync_batch_norm_needs_an_accelerator_by_itself(four: Any):
    assert all("SyncBatchNorm expected input tensor to be on" in rank["sync norm"] for rank in four)


def on_gpus(rank: int) -> tuple[bool, bool]:
    """Whether watching changed a bit, and whether the ranks agree, with the real one."""
    torch.cuda.set_device(rank)
    group = dist.new_group(backend="nccl")
    found = []
    for policy in (None, POLICIES["monitor"]):
        seed_everything(0)
        net = nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.Tanh(), nn.Linear(9, 2)).cuda()
        net = nn.SyncBatchNorm.convert_sync_batchnorm(net, group)
        model = DistributedDataParallel(net, device_ids=[rank], process_group=group)

        def loss_fn(model: nn.Module, batch: Any) -> Tensor:
            return F.cross_entropy(model(batch[0].cuda()), batch[1].cuda())

        data = batches(rank, 2)
        optimizer = adam(model) if policy is None else tuned(model, policy, loss_fn, data)
        found.append(train(model, optimizer, loss_fn, data))
    return found[0]["prints"] == found[1]["prints"], len(found[1]["history"]) >= 3


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="SyncBatchNorm synchronises two CUDA devices")
def test_with_sync_batch_norm_watching_changes_no_bit(tmp_path: Path):
    assert on_ranks(on_gpus, 2, tmp_path) == [(True, True), (True, True)]
