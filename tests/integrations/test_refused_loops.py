"""What owns the optimizer's step or its parameters is refused at each framework's door, with what to do."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn

import autolr


# Transformers
@pytest.fixture(params=["mixin", "find_peak"])
def door(request: pytest.FixtureRequest) -> Any:
    """Makes a trainer that is tuned by one of the two."""
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from trainer_runs import Numbers, classifier
    from transformers import Trainer, TrainingArguments

    from autolr.integrations.transformers import AutoLRMixin, FindPeakCallback

    def made(kind: type[Trainer], path: Any, **settings: Any) -> None:
        class Tuned(AutoLRMixin, kind):
            pass

        args = TrainingArguments(str(path), report_to="none", use_cpu=True, **settings)
        trainer = (Tuned if request.param == "mixin" else kind)(classifier(), args, train_dataset=Numbers())
        if request.param == "find_peak":
            trainer.add_callback(FindPeakCallback(trainer))

    return made


@pytest.mark.parametrize(
    ("flag", "named"), [("is_deepspeed_enabled", "DeepSpeed"), ("is_fsdp_enabled", "the trainer's FSDP")]
)
def test_transformers_under_deepspeed_or_its_fsdp(door: Any, flag: str, named: str, tmp_path: Any):
    from transformers import Trainer

    class Theirs(Trainer):
        def create_accelerator_and_postprocess(self) -> None:
            super().create_accelerator_and_postprocess()
            setattr(self, flag, True)  # as this method sets it where DeepSpeed is installed, or FSDP finds a GPU

    with pytest.raises(
        TypeError, match=rf"does not train under {named}\. Use one process.*DDP by torchrun.*learning_rate"
    ):
        door(Theirs, tmp_path)


def test_transformers_under_data_parallel(door: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any):
    from transformers import Trainer, TrainingArguments

    monkeypatch.setattr(TrainingArguments, "n_gpu", 2)
    with pytest.raises(
        TypeError, match=r"under DataParallel \(one process with 2 devices\)\. Use one process with one"
    ):
        door(Trainer, tmp_path)


# Accelerate
@pytest.mark.parametrize(
    ("kind", "named"),
    [("DEEPSPEED", "DeepSpeed"), ("MEGATRON_LM", "Megatron-LM"), ("FSDP", "FSDP's first version")],
)
def test_accelerate_under_deepspeed_megatron_or_fsdp1(kind: str, named: str):
    pytest.importorskip("accelerate")
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
    from test_accelerate import loader, loss_fn, make

    import autolr.integrations.accelerate as ours

    accelerator = Accelerator(cpu=True)
    try:
        accelerator.state.distributed_type = DistributedType[kind]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # this version is deprecated
            accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(fsdp_version=1)
        match = f"does not train under {named}, which .*DDP, or FSDP2: FullyShardedDataParallelPlugin"
        with pytest.raises(TypeError, match=match):
            ours.prepare(accelerator, *make(), loader(), loss_fn, epochs=1)
        with pytest.raises(TypeError, match=match):
            ours.find_peak(accelerator, *make(), loader(), loss_fn, epochs=1)
    finally:
        AcceleratorState._reset_state(True)
        GradientState._reset_state()


# Lightning
class Pipeline(nn.Sequential):
    """Stands for a module of DeepSpeed, whose package is not there: they are known by it."""


Pipeline.__module__ = "deepspeed.runtime.pipe.module"


@pytest.mark.parametrize("callback", ["AutoLRCallback", "FindPeakCallback"])
def test_lightning_with_a_module_of_deepspeed(callback: str):
    pytest.importorskip("lightning")
    from lightning_runs import Net, fit

    import autolr.integrations.lightning as ours

    class Theirs(Net):
        def __init__(self) -> None:
            super().__init__()
            self.net = Pipeline(*self.net)

    with pytest.raises(TypeError, match=r"model of DeepSpeed \(Pipeline\) cannot be tuned.*by fully_shard"):
        fit(Theirs(), getattr(ours, callback)())


@pytest.mark.filterwarnings("ignore")
def test_lightning_s_own_fsdp1_strategy_wants_a_gpu_by_itself():
    pytest.importorskip("lightning")
    import lightning.pytorch as pl

    with pytest.raises(Exception, match="strategy `fsdp` requires a GPU"):
        pl.Trainer(accelerator="cpu", devices=2, strategy="fsdp", logger=False, enable_checkpointing=False)


# Plain
def test_a_stage_of_a_pipeline_in_plain_pytorch():
    from torch.distributed.pipelining import PipelineStage

    stage = object.__new__(PipelineStage)  # making one takes a process group; what counts is what it is
    optimizer = torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1)
    with pytest.raises(TypeError, match=r"PipelineStage cannot be tuned: each rank has some of the layers.*scheduler"):
        autolr.AutoLR(optimizer, stage, lambda *_: None, [0], 10)
    with pytest.raises(TypeError, match=r"PipelineStage cannot be tuned"):
        autolr.find_peak(stage, optimizer, lambda *_: None, [0], 10)
