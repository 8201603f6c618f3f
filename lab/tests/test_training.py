"""What a training run makes of a workload's settings: optimizer, clipping, precision, and the best model at the end."""

import dataclasses
import shutil

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from autolr.policies import ExploreExploit
from autolr_lab.training.runs import RunError, Settings, read_run
from autolr_lab.training.training import train
from autolr_lab.workloads import WORKLOADS
from autolr_lab.workloads.workload import Workload

SETTINGS = Settings("valley", "sgd", "fixed", 1.0, 6, 4, 0)


@dataclasses.dataclass(frozen=True)
class Valley(Workload):
    """One weight on (w - 3)^2: at a rate of 1 it jumps between 3 - d and 3 + d, at 0.25 it comes closer."""

    seen: list = dataclasses.field(default_factory=list, compare=False)

    def loss(self, model, batch):
        return (model.weight - 3).square().sum() + 0 * batch[0].sum()

    def evaluate(self, model, batches, device):
        assert device.type == "cpu"
        (losses,) = (batch[0] for batch in batches)
        return {"loss": abs(model.weight.item() - 4), "examples": float(len(losses))}

    def final(self, model, data_dir, device):  # noqa: ARG002
        return {"test_weight": model.weight.item()}


def data(_):
    return TensorDataset(torch.zeros(8)), TensorDataset(torch.zeros(5))


class Weight(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


@pytest.fixture
def valley(monkeypatch):
    def put(**changes):
        made = Valley("valley", 4, 1, {"default": 1.0}, ExploreExploit(), data, Weight, **changes)
        monkeypatch.setitem(WORKLOADS, "valley", made)
        return made

    return put


def weights(tmp_path, settings=SETTINGS):
    result = train(settings, tmp_path / "run")
    return result, [row["step"] for row in read_run(tmp_path / "run").epochs]


def test_what_is_evaluated_has_the_name_that_the_workload_gives_it(valley, tmp_path):
    valley(evaluated="valid")
    result = train(SETTINGS, tmp_path / "run")
    assert result["valid_examples"] == 5.0
    assert not any(name.startswith("test_") for name in result if name != "test_weight")


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


def test_the_optimizer_has_the_workload_s_options_and_gradients_its_clipping(valley, tmp_path):
    valley()
    free = train(dataclasses.replace(SETTINGS, lr=0.125, epochs=1), tmp_path / "free")["test_weight"]
    assert free == pytest.approx(3 * (1 - 0.75**2))
    valley(options={"sgd": {"weight_decay": 2.0}})  # the gradient is then 2 (w - 3) + 2 w
    decayed = train(dataclasses.replace(SETTINGS, lr=0.125, epochs=1), tmp_path / "decayed")["test_weight"]
    assert decayed == pytest.approx(0.75 * 0.5 + 0.75)
    valley(clip=0.5)
    clipped = train(dataclasses.replace(SETTINGS, lr=0.125, epochs=1), tmp_path / "clipped")["test_weight"]
    assert clipped == pytest.approx(2 * 0.125 * 0.5, rel=1e-5)


DIGITS = Settings("digits", "momentum", "cosine", 0.05, 1, 32, 0)


def test_channels_last_is_the_same_run_but_for_rounding(tmp_path):
    plain = train(DIGITS, tmp_path / "plain")
    other = train(dataclasses.replace(DIGITS, channels_last=True), tmp_path / "other")
    assert other["train_loss"] == pytest.approx(plain["train_loss"], rel=1e-3)


def test_bfloat16_rounds_the_forward_pass_and_nothing_else(tmp_path):
    plain = train(DIGITS, tmp_path / "plain")
    policy = dataclasses.asdict(ExploreExploit(spread=1))
    for schedule, asked in (("cosine", {}), ("autolr", policy)):
        settings = dataclasses.replace(DIGITS, schedule=schedule, policy=asked, precision="bfloat16")
        result = train(settings, tmp_path / schedule)
        assert result["train_loss"] != plain["train_loss"]
        assert result["train_loss"] == pytest.approx(plain["train_loss"], rel=0.5)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_compiled_network_is_the_same_run_but_for_rounding(tmp_path):
    plain = train(DIGITS, tmp_path / "plain")
    compiled = train(dataclasses.replace(DIGITS, compiled=True), tmp_path / "compiled")
    assert compiled["train_loss"] == pytest.approx(plain["train_loss"], rel=1e-2)


def test_a_measure_that_is_not_there_is_refused_and_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match="measure must be one of train_loss, width, superbatch; got 'depth'"):
        train(dataclasses.replace(DIGITS, measure="depth"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_refused_setting_leaves_no_folder_and_never_takes_away_one_that_was_there(tmp_path):
    bad = dataclasses.replace(DIGITS, schedule_options={"explore": 0.5})
    with pytest.raises(ValueError, match="no option 'explore'"):
        train(bad, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    train(DIGITS, tmp_path / "run")
    before = sorted(path.name for path in (tmp_path / "run").iterdir())
    with pytest.raises(RunError):
        train(bad, tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before
