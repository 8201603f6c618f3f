"""The arithmetic of `autolr plan`: by hand, by its limits, and against the constants of the policies."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

import autolr
from autolr.cli.app import app
from autolr.measure import memory
from autolr.numerics import scale
from autolr.numerics.scale import Training, advice, gathering_bytes, plan_parts, short_runs
from autolr.policies import guard

SMALL = Training(params=1e7, tokens=1e9, batch=1e6, gpus=2, strategy="ddp")


def part(training: Training, name: str) -> scale.Part:
    return next(one for one in plan_parts(training) if one.name == name)


def test_a_training_by_hand():
    run = dataclasses.replace(SMALL, gpus=4, flops=1e12, utilisation=0.5)
    assert run.steps == 1000
    assert run.forward_flops == 2e13
    assert run.step_seconds == pytest.approx(6e13 / (4 * 1e12 * 0.5))
    assert run.held == 16 * 1e7
    assert run.step_traffic == pytest.approx(2 * 3 / 4 * 4e7)  # an all-reduce of float32 gradients
    assert run.forward_traffic == 0


def test_a_sharded_training_by_hand():
    run = dataclasses.replace(SMALL, gpus=4, strategy="fsdp")
    assert run.held == 4e7
    assert run.forward_traffic == pytest.approx(3 / 4 * 2e7)
    assert run.step_traffic == pytest.approx(2 * 3 / 4 * 2e7 + 3 / 4 * 4e7)


def test_shards_in_a_node_are_copied_over_nodes():
    run = dataclasses.replace(SMALL, gpus=32, strategy="hsdp")
    assert run.shards == 8
    within = 2 * 7 / 8 * 2e7 + 7 / 8 * 4e7
    assert run.step_traffic == pytest.approx(within + 2 * 3 / 4 * 4e7 / 8)
    one_node = dataclasses.replace(run, gpus=8)
    assert one_node.step_traffic == pytest.approx(dataclasses.replace(one_node, strategy="fsdp").step_traffic)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "hsdp"])
@pytest.mark.parametrize("gpus", [1, 2, 100, 100_000])
@pytest.mark.parametrize("params", [1e7, 1e9, 1e12])
def test_costs_are_shares_of_the_run_whatever_its_size(strategy: str, gpus: int, params: float):
    run = Training(params, 2e12, 4e6, gpus, strategy)  # type: ignore[arg-type]
    whole = 6 * params * 2e12
    for one in plan_parts(run):
        assert one.flops == pytest.approx(one.share * whole)
        assert one.gpu_hours == pytest.approx(one.flops / (run.flops * run.utilisation) / 3600)
        assert math.isfinite(one.traffic)
        assert (one.traffic == 0) == (gpus == 1 or (strategy == "ddp" and one.name not in {"search", "a trial"}))
    assert part(run, "search").share < 0.01
    assert part(run, "guard").share < 0.001
    assert part(run, "adaptive probes").share == pytest.approx(0.02)
    assert part(run, "the paper's probes").share == pytest.approx(1 / 6)


def test_memory_is_another_copy_on_the_gpu_for_the_search_and_on_the_host_for_the_guard():
    run = dataclasses.replace(SMALL, gpus=8, strategy="fsdp")
    assert part(run, "search").device_bytes == pytest.approx(1e7 * (4 + 8) / 8)
    assert part(run, "search").host_bytes == 0
    assert part(run, "guard").host_bytes == pytest.approx(1e7 * (4 + 8) / 8)
    assert part(run, "guard").device_bytes == 0
    assert part(run, "adaptive probes").device_bytes == pytest.approx(1e7 * 4 / 8)


def test_constants_are_those_of_the_policy():
    for name in ("JUDGES", "CHECKS_SHARE", "FEWEST_CHECKS", "MOST_CHECKS", "LONGER", "SOON"):
        assert getattr(scale, name) == getattr(guard, name)
    assert scale.COPIES == memory.COPIES


def test_a_trial_of_a_lower_peak_is_planned_where_the_run_is_long_enough_for_one():
    assert part(SMALL, "a trial").share == pytest.approx(0.15, abs=0.015)
    assert part(SMALL, "a trial").device_bytes == 2 * SMALL.held
    assert part(SMALL, "a trial").host_bytes == part(SMALL, "guard").host_bytes  # a second place
    short = dataclasses.replace(SMALL, tokens=4.7e8)
    assert "a trial" not in {one.name for one in plan_parts(short)}


def test_gatherings_are_counts_and_losses_of_every_rank():
    assert gathering_bytes(4, losses=3) == 4 * (8 + 24)
    assert gathering_bytes(1, losses=3) == 0


ADVICE = {
    "spread it over more": Training(7e9, 2e12, 4e6, 1024, "ddp"),
    "search with a smaller width": Training(4e9, 2e12, 4e6, 64, "ddp"),
    "where it does not fit it is left out": Training(2.5e9, 2e12, 4e6, 64, "ddp"),
    "search on fewer ranks": Training(1e9, 2e12, 4e6, 10_000, "fsdp"),
    "carry the peak over": Training(1e11, 2e13, 1.6e7, 16_384, "fsdp"),
    "read the interval": Training(1e7, 3e8, 1e6, 1, "ddp"),
}


@pytest.mark.parametrize("said", ADVICE)
def test_what_stops_being_cheap_is_said_with_what_to_do(said: str):
    run = ADVICE[said]
    assert any(said in text for text in advice(run, plan_parts(run)))


def test_a_small_run_needs_no_advice():
    assert advice(SMALL, plan_parts(SMALL)) == []
    assert short_runs(SMALL)[-1] >= 4


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"params": 0.0}, "params must be a number above 0; got 0"),
        ({"gpus": 0}, "gpus must be"),
        ({"tokens": math.inf}, "tokens must be"),
        ({"utilisation": 1.5}, "utilisation must be from .* to 1; got 1.5"),
        ({"state_bytes": -1}, "state_bytes must be from 0 to"),
        ({"batch": 2e9}, r"at most the run's 1e\+09; got 2e\+09"),
        ({"strategy": "zero"}, "ddp, fsdp or hsdp; got 'zero'"),
    ],
)
def test_what_is_no_training_is_refused(changed: dict[str, object], match: str):
    with pytest.raises(ValueError, match=match):
        dataclasses.replace(SMALL, **changed)  # type: ignore[arg-type]


SIZE = ["--params", "7e9", "--tokens", "2e12", "--batch", "4e6", "--gpus", "1024", "--strategy", "fsdp"]


def test_the_command_prints_a_table_with_a_line_for_each_part():
    shown = CliRunner().invoke(app, ["plan", *SIZE], env={"COLUMNS": "80"})
    assert shown.exit_code == 0
    assert "…" not in shown.output  # nothing is cut off
    parts = ("search", "guard", "a trial", "adaptive probes", "the paper's probes")
    for word in ("7 G parameters", "500,000 steps", *parts):
        assert word in shown.output


def test_the_command_prints_json_with_the_same_numbers():
    shown = CliRunner().invoke(app, ["plan", *SIZE, "--json"])
    told = json.loads(shown.stdout)
    run = Training(7e9, 2e12, 4e6, 1024, "fsdp")
    assert told["training"]["steps"] == run.steps
    assert told["parts"] == json.loads(json.dumps([dataclasses.asdict(one) for one in plan_parts(run)]))
    assert told["advice"] == advice(run, plan_parts(run))


def test_the_command_says_what_is_wrong():
    shown = CliRunner().invoke(app, ["plan", *SIZE[:-1], "magic"])
    assert shown.exit_code == 2
    assert "ddp, fsdp or hsdp; got 'magic'" in shown.output


def test_the_flops_of_a_search_are_those_of_its_forward_equivalents():
    torch.manual_seed(0)
    width, layers = 16, 12
    model = torch.nn.Sequential(*[torch.nn.Linear(width, width, bias=False) for _ in range(layers)])
    rows = [torch.randn(32, width) for _ in range(40)]
    run = Training(params=layers * width**2, tokens=32 * 400, batch=32, gpus=1, strategy="ddp")
    with FlopCounterMode(display=False) as forward:
        model(rows[0])
    assert forward.get_total_flops() == run.forward_flops
    with FlopCounterMode(display=False) as counted:
        peak = autolr.find_peak(
            model,
            torch.optim.AdamW(model.parameters(), lr=1e-3),
            lambda net, x: (net(x) - x).square().mean(),
            rows,
            run.steps,
        )
    # The first layer needs no gradient of its input: a step is a little less than three forward passes.
    assert counted.get_total_flops() == pytest.approx(peak.cost * run.forward_flops, rel=1 / layers / 2)
    assert peak.share <= next(part for part in plan_parts(run) if part.name == "search").share


def test_the_table_of_the_page_is_what_the_arithmetic_says():
    pytest.importorskip("rich")
    path = Path(__file__).parents[1] / "scripts" / "write_scale_page.py"
    if not path.exists():
        pytest.skip("the documents are a checkout's")
    spec = importlib.util.spec_from_file_location("write_scale_page", path)
    assert spec is not None
    assert spec.loader is not None
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    text = page.PAGE.read_text(encoding="utf8")
    assert page.written(text) == text, "python scripts/write_scale_page.py"
