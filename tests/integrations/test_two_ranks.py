"""Two real ranks over gloo in each framework, by DDP and by FSDP2, in float32 and bfloat16.

Innocent to the bit, one decision, the rate that was decided, and resumed to the bit; what is refused is in
`test_refused_loops`.
"""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from autolr.numerics.shape import shape
from training_runs import differences

pytestmark = pytest.mark.distributed

SCRIPT = Path(__file__).with_name("two_ranks.py")
LOOPS = [
    ("lightning", "ddp"), ("lightning", "fsdp2"), ("transformers", "ddp"), ("accelerate", "ddp"),
    ("accelerate", "fsdp2"),
]  # fmt: skip
PRECISIONS = ["fp32", "bf16"]
STEPS = {"lightning": 40, "accelerate": 40, "transformers": 48}  # half as many as on one rank


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


@functools.cache
def ranks(framework: str, sharding: str) -> list[dict[str, Any]]:
    """What both ranks saw, each run by its name."""
    pytest.importorskip(framework)
    pytest.importorskip("accelerate")  # Transformers' trainer needs it too
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*launch, str(SCRIPT), framework, sharding, folder], capture_output=True, text=True, check=False,
            timeout=600, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in (0, 1)]


def state_of(run: dict[str, Any]) -> dict[str, str]:
    """Parameters, gradients, buffers and the optimizer's state: not the mode, which a load leaves as it is."""
    return {name: value for name, value in run["print"].items() if not name.startswith("mode/")}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("framework", "sharding"), LOOPS)
def test_monitoring_changes_no_bit_and_no_loss_on_either_rank(framework: str, sharding: str, precision: str):
    for rank in ranks(framework, sharding):
        bare, watched = rank[f"{precision} None"], rank[f"{precision} monitor"]
        assert differences(bare["print"], watched["print"]) == []
        assert (bare["losses"], bare["rates"]) == (watched["losses"], watched["rates"])
        assert len(bare["losses"]) >= STEPS[framework]
        assert watched["forwards"] > 100
        assert bare["sharded"] == watched["sharded"] == (sharding == "fsdp2")


@pytest.mark.parametrize("policy", ["monitor", "search", "explore"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("framework", "sharding"), LOOPS)
def test_two_ranks_are_one_run(framework: str, sharding: str, precision: str, policy: str):
    one, other = (rank[f"{precision} {policy}"] for rank in ranks(framework, sharding))
    assert one["history"] == other["history"] != []
    assert one["rates"] == other["rates"]
    assert one["steps"] == one["total"] == len(one["rates"]) == STEPS[framework]
    if framework != "transformers":  # whose trainer logs the mean over the ranks
        assert one["losses"] != other["losses"], "ranks that see the same data prove nothing"
    if sharding == "ddp":
        parameters = [{k: v for k, v in run["print"].items() if k.startswith("parameter/")} for run in (one, other)]
        assert differences(*parameters) == []


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("framework", "sharding"), LOOPS)
def test_the_rate_is_the_one_that_was_decided(framework: str, sharding: str, precision: str):
    run, steps = ranks(framework, sharding)[0][f"{precision} search"], STEPS[framework]
    assert "peak" in run["history"][0]
    expected = [run["peak"] * shape(step, steps) for step in range(1, steps + 1)]
    assert run["rates"][1:] == pytest.approx(expected[1:])  # some are read before the search, which is in the first


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("framework", "sharding"), LOOPS)
def test_find_peak_is_of_one_mind_and_its_schedule_holds(framework: str, sharding: str, precision: str):
    one, other = (rank[f"{precision} find_peak"] for rank in ranks(framework, sharding))
    assert (one["peak"], one["runs"], one["rates"]) == (other["peak"], other["runs"], other["rates"])
    assert len(one["runs"]) >= 2
    assert one["total"] == STEPS[framework]
    expected = [one["peak"] * shape(step, one["total"]) for step in range(1, one["total"] + 1)]
    assert one["rates"] == pytest.approx(expected)


@pytest.mark.parametrize("policy", ["search", "explore"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("framework", "sharding"), LOOPS)
def test_a_resumed_run_is_the_uninterrupted_one(framework: str, sharding: str, precision: str, policy: str):
    for number, rank in enumerate(ranks(framework, sharding)):
        whole, again = rank[f"{precision} {policy}"], rank[f"{precision} {policy} resumed"]
        assert differences(state_of(whole), state_of(again)) == []
        assert again["history"] == whole["history"]
        assert again["rates"] == whole["rates"][STEPS[framework] // 2 :]
        assert again["losses"] == whole["losses"][-len(again["losses"]) :]
        # With DDP the checkpoint is rank 0's: others have its buffers in it, as DDP gives them before each forward.
        other = {"buffers"} if number and sharding == "ddp" else set()
        assert set(differences(whole["place"], again["place"])) <= other
        assert len(whole["place"]) > 3, "the resumed half has to know where to roll back to"
