"""`torch.distributed.checkpoint` in one process: the tree, the run that goes on, and torch's own calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

import autolr
from autolr.integrations.checkpoint import TrainingState
from autolr.runtime.saved_run import digest
from training_runs import BATCHES_OF_LINES, Script, cross_entropy, differences, full_print, seed_everything

STEPS = 24
SCRIPT = Script(verdicts=("raise", "roll back", "look", "lower"), spread=3, window=3, superbatch=3)
SEARCH = autolr.PeakSearch(peak=0.02)  # with its guard, and a place to go back to

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")]


def training(policy: Any, optimizer: Any = torch.optim.AdamW, **settings: Any) -> tuple[nn.Module, autolr.AutoLR]:
    seed_everything(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2))
    model[0].bias.requires_grad_(False)  # has no state, ever
    base = optimizer(model.parameters(), lr=0.02, **settings)
    return model, autolr.AutoLR(base, model, cross_entropy, BATCHES_OF_LINES, STEPS, policy=policy)


def train(model: nn.Module, optimizer: autolr.AutoLR, first: int, last: int) -> None:
    for step in range(first, last):
        optimizer.zero_grad()
        cross_entropy(model, BATCHES_OF_LINES[step % len(BATCHES_OF_LINES)]).backward()
        optimizer.step()


def shapes(tree: Any, name: str = "") -> dict[str, Any]:
    """Every leaf by its path, with a tensor's shape and dtype."""
    if isinstance(tree, (dict, list)):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {path: leaf for key, value in items for path, leaf in shapes(value, f"{name}/{key}").items()}
    return {name: (tree.shape, tree.dtype) if isinstance(tree, Tensor) else type(tree)}


@pytest.mark.parametrize("policy", [SCRIPT, SEARCH, autolr.Monitor()], ids=["script", "search", "monitor"])
@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_the_tree_is_the_same_at_every_step_and_making_it_changes_nothing(policy: Any, optimizer: Any):
    model, tuned = training(policy, optimizer)
    seen = []
    for step in range(12):
        before = full_print(model, tuned)
        seen.append(shapes(TrainingState(model, tuned).state_dict()))
        assert differences(before, full_print(model, tuned)) == [], f"after step {step}"
        train(model, tuned, step, step + 1)
    assert all(tree == seen[0] for tree in seen)
    assert seen[0]["/autolr"] is str


@pytest.mark.parametrize("policy", [SCRIPT, SEARCH], ids=["script", "search"])
@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [(torch.optim.AdamW, {}), (torch.optim.SGD, {"momentum": 0.9})],
    ids=["AdamW", "momentum"],
)
@pytest.mark.parametrize("saved_at", [0, 5, 13])
def test_a_run_loaded_anew_is_the_uninterrupted_one_to_the_bit(
    tmp_path: Path, policy: Any, optimizer: Any, settings: Any, saved_at: int
):
    model, tuned = training(policy, optimizer, **settings)
    train(model, tuned, 0, saved_at)
    dcp.save({"training": TrainingState(model, tuned)}, checkpoint_id=tmp_path)
    train(model, tuned, saved_at, STEPS)

    again, resumed = training(policy, optimizer, **settings)
    with torch.no_grad():
        for p in again.parameters():
            p.add_(1.0)
    dcp.load({"training": TrainingState(again, resumed)}, checkpoint_id=tmp_path)
    train(again, resumed, saved_at, STEPS)
    assert resumed.history == tuned.history != []
    assert differences(full_print(model, tuned), full_print(again, resumed)) == []


def test_the_place_to_roll_back_to_comes_along(tmp_path: Path):
    model, tuned = training(SCRIPT)
    train(model, tuned, 0, 7)
    saved = tuned.state_dict()["autolr"]["controller"]["saved"]
    dcp.save({"training": TrainingState(model, tuned)}, checkpoint_id=tmp_path)
    again, resumed = training(SCRIPT)
    dcp.load({"training": TrainingState(again, resumed)}, checkpoint_id=tmp_path)
    loaded = resumed.state_dict()["autolr"]["controller"]["saved"]
    assert loaded["steps"] == saved["steps"] > 0
    pairs = list(zip(loaded["snapshot"]["parameters"], saved["snapshot"]["parameters"], strict=True))
    assert all(torch.equal(one, other) for one, other in pairs)
    assert not all(torch.equal(one, p) for (one, _), p in zip(pairs, again.parameters(), strict=True))


@pytest.mark.parametrize("policy", [SCRIPT, SEARCH], ids=["script", "search"])
def test_with_another_number_of_ranks_losses_of_other_minibatches_are_forgotten(tmp_path: Path, policy: Any):
    model, tuned = training(policy)
    train(model, tuned, 0, 10)
    tree = TrainingState(model, tuned).state_dict()
    own = json.loads(tree["autolr"])
    own["ranks"] = 7  # as seven ranks would have left it, with as many times more losses
    kept = own["controller"]["policy_state"]
    for name in ("start", "best", "saved", "now"):
        if name in kept:
            kept[name] = kept[name] * 7
    place = None if own.get("place") is None else {"steps": own["place"]}
    own["digest"] = digest({**own, "controller": {**own["controller"], "saved": place}})
    tree["autolr"] = json.dumps(own)
    again, resumed = training(policy)
    TrainingState(again, resumed).load_state_dict(tree)
    train(again, resumed, 10, STEPS)
    assert resumed.history[: len(tuned.history)] == tuned.history
    assert len(resumed.history) > len(tuned.history)
    if policy is SEARCH:
        assert resumed.history[-1].trigger == "healthy"
        assert resumed.lr < 0.2 * tuned.lr  # the schedule went on to its end


def test_another_plan_is_refused(tmp_path: Path):
    model, tuned = training(SEARCH)
    tree = TrainingState(model, tuned).state_dict()
    again, other = training(autolr.PeakSearch(peak=0.01))
    with pytest.raises(ValueError, match="policy"):
        TrainingState(again, other).load_state_dict(tree)


def test_only_autolr_has_such_a_state():
    model = nn.Linear(2, 1)
    with pytest.raises(TypeError, match="must be an AutoLR; got SGD"):
        TrainingState(model, torch.optim.SGD(model.parameters(), lr=0.1))  # type: ignore[arg-type]


def test_torchs_own_calls_take_no_step_of_ours_and_say_what_to_use():
    model, tuned = training(SEARCH)
    before = [p.detach().clone() for p in model.parameters()]
    model_state, optimizer_state = get_state_dict(model, tuned)
    assert tuned.cost.divergence == 0, "the guard looks before the first step of training"
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    with pytest.raises(ValueError, match="TrainingState"):
        set_state_dict(model, tuned, model_state_dict=model_state, optim_state_dict=optimizer_state)
    train(model, tuned, 0, 1)
    assert tuned.cost.divergence > 0
