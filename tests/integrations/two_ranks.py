"""Run by each of two ranks: trains by one framework, with DDP or FSDP2, in two precisions, and leaves what it saw.

torchrun two_ranks.py FRAMEWORK SHARDING FOLDER
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard

sys.path += [str(Path(__file__).parents[1])]
warnings.simplefilter("ignore")

import autolr  # noqa: E402
from training_runs import bits, full_print  # noqa: E402

POLICIES = {
    "monitor": autolr.Monitor(window=4, superbatch=3),
    "search": autolr.PeakSearch(budget=1.0),
    "explore": autolr.ExploreExploit(window=4, superbatch=2, spread=2, explore=0.5),
}
EPOCHS, HALF = 8, 4


def network(sharding: str) -> nn.Sequential:
    """With buffers where no parameter is sharded."""
    norm = nn.BatchNorm1d(16) if sharding == "ddp" else nn.LayerNorm(16)
    return nn.Sequential(nn.Linear(6, 16), norm, nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))


def told(
    model: nn.Module, optimizer: Any, losses: list[Any], rates: list[float], place: Any, peak: autolr.Peak | None
) -> dict[str, Any]:  # fmt: skip
    tuned = isinstance(optimizer, autolr.AutoLR)
    found = {
        "print": full_print(model, optimizer.base if tuned else optimizer), "losses": losses, "rates": rates,
        "place": place, "sharded": all(hasattr(p, "to_local") for p in model.parameters()),
    }  # fmt: skip
    if peak is not None:
        found |= {"peak": peak.lr, "total": peak.total_steps, "runs": [(r.length, r.lr, r.loss) for r in peak.runs]}
    if tuned:
        found |= {
            "history": [repr(record) for record in optimizer.history], "steps": optimizer.steps_taken,
            "total": optimizer.total_steps, "peak": optimizer.history[0].lr_after, "forwards": optimizer.cost.forwards,
        }  # fmt: skip
    return found


def place_of(optimizer: Any) -> dict[str, Any] | None:
    """Where it would roll back to: after how many steps, and this rank's bits."""
    if not isinstance(optimizer, autolr.AutoLR):
        return None
    saved = optimizer.state_dict()["autolr"]["controller"]["saved"]
    return None if saved is None else {"steps": saved["steps"]} | {k: bits(v) for k, v in saved["snapshot"].items()}


def by_lightning(sharding: str, precision: str, policy: str | None, folder: Path, resume: bool) -> dict[str, Any]:
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.strategies import ModelParallelStrategy
    from lightning_runs import Net, Rates, fit, loader

    from autolr.integrations.lightning import AutoLRCallback, FindPeakCallback

    class Shared(Net):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(7)
            self.net = network(sharding)

        def configure_model(self) -> None:
            if sharding == "fsdp2":
                for part in (self.net[0], self.net):
                    fully_shard(part, mesh=self.device_mesh["data_parallel"])

    class Place(pl.Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == HALF:
                self.found = place_of(trainer.optimizers[0])

    strategy = "ddp" if sharding == "ddp" else ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    module, rates, place = Shared(), Rates(), Place()
    saves = ModelCheckpoint(
        folder, filename="{epoch}", every_n_epochs=HALF, save_top_k=-1, save_on_train_epoch_end=True
    )  # fmt: skip
    door = {None: None, "find_peak": FindPeakCallback()}.get(policy, AutoLRCallback(POLICIES.get(policy)))
    callbacks = [rates, *([] if door is None else [door]), place]
    trainer, logged = fit(
        module, *callbacks, *([] if resume else [saves]), epochs=EPOCHS, train=loader(shuffle=True), validate=False,
        devices=2, strategy=strategy, precision={"fp32": "32-true", "bf16": "bf16-mixed"}[precision],
        ckpt_path=folder / f"epoch={HALF - 1}.ckpt" if resume else None,
    )  # fmt: skip
    return told(module, trainer.optimizers[0], logged.of("loss"), rates.rates, place.found, getattr(door, "peak", None))


def by_accelerate(sharding: str, precision: str, policy: str | None, folder: Path, resume: bool) -> dict[str, Any]:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState
    from accelerate.utils import DataLoaderConfiguration
    from test_accelerate import loader, loss_fn, train

    import autolr.integrations.accelerate as ours

    AcceleratorState._reset_state()
    GradientState._reset_state()
    accelerator = Accelerator(
        cpu=True, mixed_precision={"fp32": "no"}.get(precision, precision),
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True),  # the others' order is in no checkpoint
    )  # fmt: skip
    if sharding == "fsdp2":
        shard_on_cpu(accelerator, precision)
    torch.manual_seed(7)
    model = network(sharding)
    parts: Any = model, torch.optim.AdamW(model.parameters(), lr=1e-3), loader(batch=16)
    peak = None
    if policy in {None, "find_peak"}:
        parts = accelerator.prepare(*parts)
    if policy == "find_peak":
        peak = ours.find_peak(accelerator, *parts, loss_fn, epochs=EPOCHS)
        ours.schedule(parts[1], peak)
    elif policy is not None:
        parts = ours.prepare(accelerator, *parts, loss_fn, epochs=EPOCHS, policy=POLICIES[policy])
    rates, losses = ([], []) if resume else train(accelerator, *parts, epochs=HALF)
    if resume:
        accelerator.load_state(str(folder))
        parts[2].set_epoch(HALF)  # accelerate's to tell: its checkpoints hold no count of epochs
    else:
        accelerator.save_state(str(folder))
    place = place_of(parts[1].optimizer)
    more = train(accelerator, *parts, epochs=EPOCHS - HALF, first=HALF)
    return told(parts[0], parts[1].optimizer, losses + more[1], rates + more[0], place, peak)


def shard_on_cpu(accelerator: Any, precision: str) -> None:
    """Accelerate has FSDP2 on accelerators only, and makes DDP of it on CPU: what it would set there."""
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="size_based_wrap", min_num_params=60, cpu_ram_efficient_loading=False,
        reshard_after_forward=True,
    )  # fmt: skip
    if precision != "fp32":
        plugin.set_mixed_precision(precision)
    accelerator.state.distributed_type, accelerator.state.fsdp_plugin = DistributedType.FSDP, plugin
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    assert accelerator.is_fsdp2


def by_transformers(sharding: str, precision: str, policy: str | None, folder: Path, resume: bool) -> dict[str, Any]:
    from accelerate.state import AcceleratorState, GradientState
    from trainer_runs import Rates, logged, train
    from transformers import Trainer, TrainerCallback

    from autolr.integrations.transformers import AutoLRTrainer, FindPeakCallback

    doors: list[FindPeakCallback] = []

    def add(trainer: Trainer) -> FindPeakCallback:
        doors.append(FindPeakCallback(trainer))
        return doors[0]

    class Place(TrainerCallback):
        def on_epoch_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
            if state.global_step == 6 * HALF:
                self.found = place_of(optimizer.optimizer)

    AcceleratorState._reset_state()
    GradientState._reset_state()
    rates, place = Rates(), Place()
    trainer = train(
        AutoLRTrainer if policy in POLICIES else Trainer, folder, rates, place,
        num_train_epochs=EPOCHS, bf16=precision == "bf16",
        save_strategy="steps", save_steps=24, resume=str(folder / "checkpoint-24") if resume else None,
        add=[add] if policy == "find_peak" else [],
        **({"autolr": {"policy": POLICIES[policy]}} if policy in POLICIES else {}),
    )  # fmt: skip
    rows = [[row.get(name) for name in ("step", "loss", "grad_norm", "learning_rate")] for row in logged(trainer)]
    return told(
        trainer.model, trainer.optimizer.optimizer, rows, rates.rates, place.found, doors[0].peak if doors else None
    )


BY = {"lightning": by_lightning, "accelerate": by_accelerate, "transformers": by_transformers}


def main(framework: str, sharding: str, folder: str) -> None:
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for precision in ("fp32", "bf16"):
        for policy in (None, *POLICIES, "find_peak"):
            for resume in (False, True) if policy in {"search", "explore"} else (False,):
                place = Path(folder) / f"{precision} {policy}"
                name = f"{precision} {policy}{' resumed' if resume else ''}"
                found[name] = BY[framework](sharding, precision, policy, place, resume)
    rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))
    Path(folder, f"{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
