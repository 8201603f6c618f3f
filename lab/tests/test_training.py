"""What a training run makes of a workload's settings: optimizer, clipping, precision, and the best model at the end."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from autolr import ExploreExploit
from autolr_lab.training.policies import POLICIES, make_policy
from autolr_lab.training.prepared import Data, PreparedRun
from autolr_lab.training.runs import Settings, read_run
from autolr_lab.training.training import train
from autolr_lab.workloads import WORKLOADS
from autolr_lab.workloads.workload import Workload

SETTINGS = Settings("valley", "sgd", "fixed", 1.0, 6, 4, 0)
DIGITS = Settings("digits", "momentum", "cosine", 0.05, 1, 32, 0)


@dataclasses.dataclass(frozen=True)
class Valley(Workload):
    """One weight on (w - 3)^2: at a rate of 1 it jumps between 3 - d and 3 + d, at 0.25 it comes closer."""

    def loss(self, model, batch):
        return (model.weight - 3).square().sum() + 0 * batch[0].sum()

    def evaluate(self, model, batches, device):
        assert device.type == "cpu"
        (losses,) = (batch[0] for batch in batches)
        return {"loss": abs(model.weight.item() - 4), "examples": float(len(losses))}

    def final(self, model, data_dir, device):  # noqa: ARG002
        return {"test_weight": model.weight.item()}


class Weight(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


@pytest.fixture
def valley(monkeypatch):
    def put(**changes):
        data = TensorDataset(torch.zeros(8)), TensorDataset(torch.zeros(5))
        made = Valley("valley", 4, 1, {"default": 1.0}, ExploreExploit(), lambda _: data, Weight, **changes)
        monkeypatch.setitem(WORKLOADS, "valley", made)

    return put


def test_what_is_evaluated_has_the_name_that_the_workload_gives_it(valley, tmp_path):
    valley(evaluated="valid")
    result = train(SETTINGS, tmp_path / "run")
    assert result["valid_examples"] == 5.0
    assert {name for name in result if name.startswith("test_")} == {"test_weight"}


def test_the_last_metrics_are_of_the_best_model_where_a_workload_keeps_it_and_of_the_last_one_else(valley, tmp_path):
    # SGD at 0.25 halves the distance to 3 with each of two steps an epoch: the weight is 0, 2.25, 2.81, ... and the
    # evaluated distance to 4 falls to the end; at a rate of 1 it jumps between 0 and 6.
    valley(evaluated="valid", best="loss")
    falling = train(dataclasses.replace(SETTINGS, lr=0.25), tmp_path / "falling")
    assert falling["best_epoch"] == 6
    assert falling["test_weight"] == pytest.approx(3 * (1 - 0.5**12))
    # Decaying through the best point: 3 -> after epoch 1 the weight is nearest to 4 with a rate just above 0.5.
    result = train(dataclasses.replace(SETTINGS, lr=0.6, epochs=3), tmp_path / "past")
    distances = [row["valid_loss"] for row in read_run(tmp_path / "past").epochs]
    assert result["best_epoch"] == 1 + distances.index(min(distances))
    assert result["best_valid_loss"] == min(distances)
    assert abs(result["test_weight"] - 4) == pytest.approx(min(distances))
    valley(evaluated="valid")
    plain = train(dataclasses.replace(SETTINGS, lr=0.6, epochs=3), tmp_path / "plain")
    assert abs(plain["test_weight"] - 4) == pytest.approx(distances[-1])
    assert "best_epoch" not in plain


def test_the_best_model_may_be_one_within_an_epoch(valley, tmp_path):
    valley(best="loss")
    # At a rate of 0.6 a step takes 3 + d to 3 - 0.2 d: 0, 3.6, 2.88, ... The first is nearest to 4, half an epoch in.
    for evaluations, epoch, weight in ((2, 0.5, 3.6), (1, 2, 3 - 0.2**4 * 3)):
        settings = dataclasses.replace(SETTINGS, lr=0.6, epochs=2, evaluations=evaluations)
        result = train(settings, tmp_path / str(evaluations))
        assert result["best_epoch"] == epoch
        assert result["test_weight"] == pytest.approx(weight, rel=1e-6)


def test_the_optimizer_has_the_workload_s_options_and_gradients_its_clipping(valley, tmp_path):
    settings = dataclasses.replace(SETTINGS, lr=0.125, epochs=1)
    valley()
    assert train(settings, tmp_path / "free")["test_weight"] == pytest.approx(3 * (1 - 0.75**2))
    valley(options={"sgd": {"weight_decay": 2.0}})  # the gradient is then 2 (w - 3) + 2 w
    assert train(settings, tmp_path / "decayed")["test_weight"] == pytest.approx(0.75 * 0.5 + 0.75)
    valley(clip=0.5)
    assert train(settings, tmp_path / "clipped")["test_weight"] == pytest.approx(2 * 0.125 * 0.5, rel=1e-5)


@pytest.mark.parametrize("schedule", ["find-peak", "find-peak-paid"])
def test_short_runs_clip_as_the_training_does_unless_a_run_says_otherwise(valley, tmp_path, schedule):
    valley(clip=0.5)
    settings = dataclasses.replace(SETTINGS, schedule=schedule)
    for policy, clip in (({}, 0.5), ({"clip": 2.0}, 2.0)):
        prepared = PreparedRun(
            dataclasses.replace(settings, policy=policy), Data.load(settings), tmp_path / f"{clip}.jsonl"
        )
        assert prepared.stepper.optimizer.policy.clip == clip


def test_bfloat16_rounds_the_forward_pass_and_nothing_else(tmp_path):
    plain = train(DIGITS, tmp_path / "plain")
    for schedule, policy in (("cosine", {}), ("explore-exploit", {"spread": 1})):
        settings = dataclasses.replace(DIGITS, schedule=schedule, policy=policy, precision="bfloat16")
        result = train(settings, tmp_path / schedule)
        assert result["train_loss"] != plain["train_loss"]
        assert result["train_loss"] == pytest.approx(plain["train_loss"], rel=0.5)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"precision": "float8"}, r"precision must be one of float32, bfloat16; got 'float8'"),
        ({"measure": "depth"}, r"measure must be one of train_loss, width, superbatch; got 'depth'"),
        ({"schedule": "autolr"}, r"schedule must be one of find-peak, .*, pal, .*; got 'autolr'"),
        ({"device": "tpu"}, r"cpu, cuda or auto; got 'tpu'"),
    ],
)
def test_a_setting_that_is_not_there_is_refused_with_what_is_and_leaves_the_folder_free(tmp_path, change, told):
    with pytest.raises(ValueError, match=told):
        train(dataclasses.replace(DIGITS, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# AutoLR's policies.


@pytest.mark.parametrize("schedule", POLICIES)
def test_a_policy_refuses_an_option_that_it_has_not_with_those_it_has(schedule):
    make_policy(schedule, {})
    with pytest.raises(ValueError, match=rf"The schedule {schedule} has no option 'explor'\. It has: .*(peak|window)"):
        make_policy(schedule, {"explor": 0.1})


def test_monitor_is_the_run_without_autolr(tmp_path):
    train(dataclasses.replace(DIGITS, schedule="monitor", policy={"window": 8}), tmp_path / "monitor")
    train(dataclasses.replace(DIGITS, schedule="fixed"), tmp_path / "fixed")
    monitor, fixed = (read_run(tmp_path / name) for name in ("monitor", "fixed"))
    assert monitor.epochs == fixed.epochs
    assert monitor.decisions


def test_find_peak_takes_the_workload_s_clipping_into_its_short_runs(valley, tmp_path):
    valley(clip=0.5)
    settings = dataclasses.replace(SETTINGS, schedule="find-peak", lr=0.1, epochs=40)
    peaks = []
    for policy in ({}, {"clip": 1e9}):
        train(dataclasses.replace(settings, policy=policy), tmp_path / str(policy))
        peaks.append(read_run(tmp_path / str(policy)).decisions[0].lr_after)
    assert peaks[0] != peaks[1]


def test_the_window_and_the_superbatch_that_a_policy_chose_are_in_the_result(tmp_path):
    result = train(dataclasses.replace(DIGITS, schedule="explore-exploit", epochs=2), tmp_path / "run")
    assert result["window"] == 2 * 45 // 20  # a twentieth of the run
    assert result["superbatch"] == 1  # five losses of it cost more than a sixth of training already
