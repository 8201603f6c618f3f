"""What cannot be tuned is refused by both doors before anything happens, with the reason and what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

import autolr
from training_runs import BATCHES_OF_LINES, cross_entropy, differences, full_print, seed_everything


def network() -> nn.Module:
    seed_everything(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))


def refused(model: nn.Module, optimizer: Any, match: str) -> None:
    with pytest.raises(TypeError, match=match):
        autolr.AutoLR(optimizer, model, cross_entropy, BATCHES_OF_LINES, 100)
    with pytest.raises(TypeError, match=match):
        autolr.find_peak(model, optimizer, cross_entropy, BATCHES_OF_LINES, 100)


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore")  # FSDP1 is deprecated, and says so in several ways
def test_fsdps_first_version_is_refused(one_rank: None):
    from torch.distributed.fsdp import FullyShardedDataParallel

    with contextlib.suppress(AttributeError):
        torch.cpu.set_device(0)
    model = FullyShardedDataParallel(network(), device_id=torch.device("cpu"), use_orig_params=True)
    refused(model, torch.optim.SGD(model.parameters(), lr=0.1), "fully_shard")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_zero_redundancy_optimizer_is_refused(one_rank: None):
    from torch.distributed.optim import ZeroRedundancyOptimizer

    model = network()
    optimizer = ZeroRedundancyOptimizer(model.parameters(), optimizer_class=torch.optim.AdamW, lr=0.1)
    refused(model, optimizer, "its state lies in an optimizer within")


def test_a_model_of_deepspeed_is_refused():
    engine: Any = type("DeepSpeedEngine", (nn.Sequential,), {"__module__": "deepspeed.runtime.engine"})(network())
    refused(engine, torch.optim.SGD(engine.parameters(), lr=0.1), "give DeepSpeed the peak")


@pytest.mark.parametrize(
    ("name", "match"),
    [("Prodigy", "finds its rate by itself"), ("DAdaptAdam", "finds its rate by itself"), ("SAM", "through a closure")],
)
def test_optimizers_of_other_packages_are_known_by_name(name: str, match: str):
    model = network()
    kind = type(name, (torch.optim.SGD,), {})
    refused(model, kind(model.parameters(), lr=1.0), f"{name} cannot be tuned: .*{match}")


def test_an_adafactor_that_follows_its_own_schedule_is_refused_and_one_that_does_not_is_not():
    model = network()
    kind: Any = type("AdaFactor", (torch.optim.SGD,), {})
    optimizer = kind(model.parameters(), lr=0.1)
    optimizer.param_groups[0]["relative_step"] = True
    refused(model, optimizer, "relative_step=False")
    optimizer.param_groups[0]["relative_step"] = False
    autolr.AutoLR(optimizer, model, cross_entropy, BATCHES_OF_LINES, 100, policy=autolr.Monitor())


class Late(torch.optim.SGD):
    """Its first steps move nothing, as SOAP's and ADOPT's."""

    still = 1

    def step(self, _: Any = None) -> None:
        count = self.param_groups[0].get("count", 0)
        self.param_groups[0]["count"] = count + 1
        if count >= self.still:
            super().step()


@pytest.mark.parametrize("still", [0, 1, 3])
def test_steps_at_the_start_that_move_nothing_are_none_of_a_short_run(still: int):
    model = network()
    kind: Any = type("Late", (Late,), {"still": still})
    late = kind(model.parameters(), lr=0.05, momentum=0.9)
    plain = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    peaks = [
        autolr.find_peak(model, optimizer, cross_entropy, BATCHES_OF_LINES[:1] * 30, 400) for optimizer in (late, plain)
    ]  # the same minibatch at every step: both see the same
    shared = list(zip(*(peak.runs for peak in peaks), strict=False))  # the late one's are dearer, and may be fewer
    assert len(shared) >= 4
    assert all(late.losses == plain.losses for late, plain in shared)
    assert all(late.cost == plain.cost + 3 * still for late, plain in shared)


class Averaging(torch.optim.SGD):
    """Trains one set of weights and is judged by another, as schedule-free optimizers do."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, lr=lr, momentum=0.9)
        self.param_groups[0]["train_mode"] = False

    def train(self) -> None:
        self._shift(True)

    def eval(self) -> None:
        self._shift(False)

    def _shift(self, mode: bool) -> None:
        if self.param_groups[0]["train_mode"] != mode:
            self.param_groups[0]["train_mode"] = mode
            with torch.no_grad():
                for p in self.param_groups[0]["params"]:
                    p.add_(0.01 if mode else -0.01)

    def step(self, _: Any = None) -> None:
        assert self.param_groups[0]["train_mode"], "train() was not called"
        super().step()


def test_train_and_eval_are_the_bases_and_only_where_it_has_them():
    model = network()
    plain = autolr.AutoLR(
        torch.optim.SGD(model.parameters(), lr=0.1), model, cross_entropy, BATCHES_OF_LINES, 9, policy=autolr.Monitor()
    )
    assert not hasattr(plain, "train")
    assert not hasattr(plain, "eval")
    base = Averaging(model.parameters(), lr=0.1)
    optimizer = autolr.AutoLR(base, model, cross_entropy, BATCHES_OF_LINES, 9, policy=autolr.Monitor())
    optimizer.train()
    assert base.param_groups[0]["train_mode"]
    optimizer.eval()
    assert not base.param_groups[0]["train_mode"]


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_search_trains_the_training_weights_judges_the_others_and_leaves_all_as_it_was(mode: str):
    model = network()
    optimizer = Averaging(model.parameters(), lr=0.05)
    optimizer.train()
    cross_entropy(model, BATCHES_OF_LINES[0]).backward()
    optimizer.step()
    getattr(optimizer, mode)()
    before = full_print(model, optimizer)
    peak = autolr.find_peak(model, optimizer, cross_entropy, BATCHES_OF_LINES, 400, budget=1.0)
    assert differences(before, full_print(model, optimizer)) == []
    optimizer.eval()
    judged = [cross_entropy(model, batch).item() for batch in BATCHES_OF_LINES]
    assert sorted(peak.start_losses) == pytest.approx(sorted(judged))
    optimizer.train()
    assert sorted(peak.start_losses) != pytest.approx(sorted(cross_entropy(model, b).item() for b in BATCHES_OF_LINES))
    assert min(run.loss for run in peak.runs if not run.diverged) < peak.start_loss


def test_a_search_for_a_rectified_optimizer_is_warned_of_and_nothing_else_is():
    model = network()
    optimizer = torch.optim.RAdam(model.parameters(), lr=0.01)
    with pytest.warns(UserWarning, match=r"RAdam scales its steps up over thousands of them"):
        autolr.AutoLR(optimizer, model, cross_entropy, BATCHES_OF_LINES, 400)
    with pytest.warns(UserWarning, match="Search with AdamW"):
        autolr.find_peak(model, optimizer, cross_entropy, BATCHES_OF_LINES, 400)
    with pytest.warns(UserWarning, match="RAdam"):
        autolr.find_peak(model, [optimizer], cross_entropy, BATCHES_OF_LINES, 400)
    for policy in (autolr.Monitor(), autolr.PeakSearch(peak=0.1)):
        autolr.AutoLR(optimizer, model, cross_entropy, BATCHES_OF_LINES, 400, policy=policy)
