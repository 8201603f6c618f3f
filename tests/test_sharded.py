"""DDP and FSDP2, float32 and bfloat16, both doors, on two real ranks: innocent, of one mind, and resumed to the bit."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

import autolr
from autolr.integrations.checkpoint import TrainingState
from ranks import on_ranks
from training_runs import classification, differences, full_print, seed_everything

pytestmark = pytest.mark.distributed

STEPS = 24
KINDS = [(kind, precision) for kind in ("ddp", "fsdp2") for precision in ("fp32", "bf16")]
RESUMED = [("fsdp2", "fp32", "explore"), *((kind, precision, "search") for kind, precision in KINDS)]
POLICIES = {
    "monitor": autolr.Monitor(window=4, superbatch=8, spread=2),
    "search": autolr.PeakSearch(budget=1.0),
    "explore": autolr.ExploreExploit(window=4, superbatch=8, spread=2, explore=0.5),
}


class Ordered:
    """Minibatches in one order, always: one process with the batches of all ranks sees what the ranks see."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        for _ in range(40):
            yield from self.batches


def batches(rank: int, ranks: int, whole: int = 8) -> Ordered:
    """This rank's part of each of ``whole`` minibatches of 16 examples."""
    x, y = classification(16 * whole).tensors
    part = 16 // ranks
    return Ordered(
        [(x[i + rank * part :][:part], y[i + rank * part :][:part]) for i in range(0, len(x), 16)]
    )  # fmt: skip


def network() -> nn.Sequential:
    seed_everything(0)
    return nn.Sequential(nn.Linear(6, 9), nn.LayerNorm(9), nn.Tanh(), nn.Linear(9, 9), nn.Tanh(), nn.Linear(9, 2))


def wrapped(kind: str, precision: str, **settings: Any) -> nn.Module:
    model = network()
    if kind == "ddp":
        return DistributedDataParallel(model, **settings)
    if kind == "fsdp2":
        settings = {"mp_policy": MixedPrecisionPolicy(torch.bfloat16)} if precision == "bf16" else {}
        for layer in (model[0], model[3]):
            fully_shard(layer, **settings)
        fully_shard(model, **settings)  # the last layer and the norm are the root's own
    return model


def loss_of(precision: str, kind: str) -> Any:
    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        x, y = batch
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16" and kind != "fsdp2"):
            out = model(x)
        return F.cross_entropy(out.float(), y)

    return loss_fn


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.01)


def train(
    model: nn.Module, optimizer: Any, loss_fn: Any, data: Ordered, first: int = 0, last: int = STEPS,
    accumulate: bool = False,
) -> dict[str, Any]:  # fmt: skip
    told: dict[str, Any] = {"prints": [], "lrs": [], "losses": []}
    for step, batch in enumerate(data):
        if not first <= step < last:
            continue
        optimizer.zero_grad()
        if accumulate:
            with model.no_sync() if isinstance(model, DistributedDataParallel) else contextlib.nullcontext():
                loss_fn(model, batch).backward()
        loss = loss_fn(model, batch)
        loss.backward()
        optimizer.step()
        told["losses"].append(loss.item())
        told["prints"].append(full_print(model, optimizer))
        told["lrs"].append(optimizer.param_groups[0]["lr"])
    if isinstance(optimizer, autolr.AutoLR):
        told["history"] = [repr(record) for record in optimizer.history]
        told["records"] = [vars_of(record) for record in optimizer.history]
        told["forwards"] = optimizer.cost.forwards
    return told


def vars_of(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in ("step", "verdict", "lr_before", "lr_after", "losses", "eps_min")}


def tuned(model: nn.Module, policy: Any, loss_fn: Any, data: Ordered, steps: int = 4 * STEPS) -> autolr.AutoLR:
    return autolr.AutoLR(adam(model), model, loss_fn, data, steps, policy=policy)


def run_of(kind: str, precision: str, policy: str | None, rank: int, ranks: int, **settings: Any) -> dict[str, Any]:
    accumulate = settings.pop("accumulate", False)
    model, loss_fn, data = wrapped(kind, precision, **settings), loss_of(precision, kind), batches(rank, ranks)
    optimizer: Any = tuned(model, POLICIES[policy], loss_fn, data) if policy else adam(model)
    seed_everything(100 + rank)
    return train(model, optimizer, loss_fn, data, accumulate=accumulate)


def search_of(kind: str, precision: str, rank: int, ranks: int) -> dict[str, Any]:
    """`find_peak` in the middle of a training, which goes on."""
    model, loss_fn, data = wrapped(kind, precision), loss_of(precision, kind), batches(rank, ranks)
    optimizer = adam(model)
    seed_everything(100 + rank)
    first = train(model, optimizer, loss_fn, data, last=5)
    before = full_print(model, optimizer)
    peak = autolr.find_peak(model, optimizer, loss_fn, data, 400, clip=1.0, budget=0.3)
    left = differences(before, full_print(model, optimizer))
    rest = train(model, optimizer, loss_fn, data, first=5)
    return {
        "peak": peak.lr, "runs": [(run.length, run.lr, run.loss) for run in peak.runs], "left": left,
        "bounds": (peak.low, peak.high), "losses": first["losses"] + rest["losses"],
        "prints": first["prints"] + rest["prints"],
    }  # fmt: skip


def after_an_evaluation(rank: int, ranks: int) -> dict[str, Any]:
    """FSDP2's root keeps its gathered copies after a forward pass without gradients, a user's own."""
    model, loss_fn, data = wrapped("fsdp2", "fp32"), loss_of("fp32", "fsdp2"), batches(rank, ranks)
    base = adam(model)
    with torch.no_grad():
        loss_fn(model, next(iter(data)))
    optimizer = autolr.AutoLR(base, model, loss_fn, data, 4 * STEPS, policy=POLICIES["monitor"])
    return train(model, optimizer, loss_fn, data)


def resumed(rank: int, ranks: int, folder: str) -> dict[str, Any]:
    """Saved in the middle on these ranks, loaded on them."""
    told: dict[str, Any] = {}
    for kind, precision, policy in RESUMED:
        loss_fn, data, place = loss_of(precision, kind), batches(rank, ranks), f"{folder}/{kind} {precision} {policy}"
        model = wrapped(kind, precision)
        optimizer = tuned(model, POLICIES[policy], loss_fn, data)
        train(model, optimizer, loss_fn, data, last=14)
        with torch.no_grad():
            loss_fn(model, next(iter(data)))  # leaves gathered copies
        dcp.save({"training": TrainingState(model, optimizer)}, checkpoint_id=place)
        whole = train(model, optimizer, loss_fn, data, first=14)
        again = wrapped(kind, precision)
        other = tuned(again, POLICIES[policy], loss_fn, data)
        dcp.load({"training": TrainingState(again, other)}, checkpoint_id=place)
        told[f"{kind} {precision} {policy}"] = whole, train(again, other, loss_fn, data, first=14)
    return told


def work(rank: int, folder: str) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for kind, precision in KINDS:
        for policy in (None, *POLICIES):
            told[f"{kind} {precision} {policy}"] = run_of(kind, precision, policy, rank, 2)
        told[f"{kind} {precision} find_peak"] = search_of(kind, precision, rank, 2)
    for name, settings in SPECIAL.items():
        told[f"{name} None"] = run_of("ddp", "fp32", None, rank, 2, **settings)
        told[f"{name} monitor"] = run_of("ddp", "fp32", "monitor", rank, 2, **settings)
    told["evaluated"] = after_an_evaluation(rank, 2)
    told["resumed"] = resumed(rank, 2, folder)
    return told


SPECIAL: dict[str, dict[str, Any]] = {
    "bucket views": {"gradient_as_bucket_view": True},
    "static graph": {"static_graph": True},
    "unused": {"find_unused_parameters": True},
    "no_sync": {"accumulate": True},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, Any]]:
    return on_ranks(work, 2, folder, str(folder))


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """One process with twofold minibatches."""
    told: dict[str, Any] = {policy: run_of("plain", "fp32", policy, 0, 1) for policy in POLICIES}
    return told | {"find_peak": search_of("plain", "fp32", 0, 1)}


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["losses"] == other["losses"]
    for step, (mine, yours) in enumerate(zip(one["prints"], other["prints"], strict=True), start=1):
        assert differences(mine, yours) == [], f"after step {step}"


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("setup", [*(f"{kind} {precision}" for kind, precision in KINDS), *SPECIAL])
def test_with_the_rate_held_each_rank_trains_as_it_would_have_alone(ranks: Any, setup: str, rank: int):
    watched = ranks[rank][f"{setup} monitor"]
    assert_same(ranks[rank][f"{setup} None"], watched)
    assert watched["forwards"] > 100
    assert all(len(set(record["losses"])) > 1 for record in watched["records"])


@pytest.mark.parametrize(("kind", "precision"), KINDS)
@pytest.mark.parametrize("rank", [0, 1])
def test_find_peak_leaves_no_trace_in_a_training_that_goes_on(ranks: Any, kind: str, precision: str, rank: int):
    searched = ranks[rank][f"{kind} {precision} find_peak"]
    assert searched["left"] == []
    assert_same(ranks[rank][f"{kind} {precision} None"], searched)
    assert len({loss for _, _, loss in searched["runs"]}) >= 3


@pytest.mark.parametrize(("kind", "precision"), KINDS)
@pytest.mark.parametrize("door", [*POLICIES, "find_peak"])
def test_both_ranks_are_of_one_mind(ranks: Any, kind: str, precision: str, door: str):
    one, other = (rank[f"{kind} {precision} {door}"] for rank in ranks)
    assert one["losses"] != other["losses"], "ranks that see the same data prove nothing"
    for what in ("lrs", "history") if door in POLICIES else ("peak", "runs"):
        assert one[what] == other[what]
    if door == "search":
        assert "peak found" in one["history"][0]
    if door == "explore":
        assert len(set(one["lrs"])) > 2


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
@pytest.mark.parametrize("policy", POLICIES)
def test_two_ranks_decide_as_one_process_with_twofold_batches(ranks: Any, alone: Any, kind: str, policy: str):
    one, two = alone[policy], ranks[0][f"{kind} fp32 {policy}"]
    # A search tells noise from twice as many minibatches of half the size: its peak is near, and not the same.
    assert two["lrs"] == pytest.approx(one["lrs"], rel=0.25 if policy == "search" else 1e-3)
    for mine, yours in zip(one["records"], two["records"], strict=True):
        assert (mine["step"], mine["verdict"]) == (yours["step"], yours["verdict"])
        assert yours["losses"] == pytest.approx(mine["losses"], rel=1e-4)
        if policy == "search":
            break  # the guard's checks follow the peak, which is another


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_two_ranks_find_the_peak_of_one_process_with_twofold_batches(ranks: Any, alone: Any, kind: str):
    one, two = alone["find_peak"], ranks[0][f"{kind} fp32 find_peak"]
    tried = {(length, lr): loss for length, lr, loss in one["runs"]}
    shared = [(loss, tried[length, lr]) for length, lr, loss in two["runs"] if (length, lr) in tried]
    assert len(shared) >= 3
    calm = [pair for pair in shared if max(pair) < 0.65]  # below the start: where a run goes wrong, rounding grows
    assert len(calm) >= 2
    for mine, yours in calm:
        assert mine == pytest.approx(yours, rel=1e-2)
    assert abs(math.log2(one["peak"] / two["peak"])) < 1


def test_gathered_copies_of_a_users_own_evaluation_are_no_parameters_of_a_stranger(ranks: Any):
    assert ranks[0]["evaluated"]["history"] == ranks[0]["fsdp2 fp32 monitor"]["history"]


@pytest.mark.parametrize(("kind", "precision", "policy"), RESUMED)
@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_on_two_ranks_that_is_loaded_anew_is_the_uninterrupted_one_to_the_bit(
    ranks: Any, kind: str, precision: str, policy: str, rank: int
):
    whole, again = ranks[rank]["resumed"][f"{kind} {precision} {policy}"]
    assert whole["history"] == again["history"]
    assert_same(whole, again)


@pytest.mark.parametrize("policy", ["search", "explore"])
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_what_two_ranks_saved_goes_on_in_one_process(ranks: Any, folder: Path, policy: str):
    model, loss_fn, data = network(), loss_of("fp32", "plain"), batches(0, 1)
    optimizer = tuned(model, POLICIES[policy], loss_fn, data)
    dcp.load({"training": TrainingState(model, optimizer)}, checkpoint_id=folder / f"fsdp2 fp32 {policy}")
    one = train(model, optimizer, loss_fn, data, first=14)
    two, other = (rank["resumed"][f"fsdp2 fp32 {policy}"][0] for rank in ranks)
    assert one["losses"][0] == pytest.approx((two["losses"][0] + other["losses"][0]) / 2)
    assert one["lrs"][0] == two["lrs"][0]
    assert [r["step"] for r in one["records"]][:1] == [r["step"] for r in two["records"]][:1]
    if policy == "search":
        assert one["lrs"] == pytest.approx(two["lrs"])
