"""Small trainings by Transformers' Trainer whose every bit and every logged value can be compared."""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

from training_runs import bits

TIMES = ("runtime", "per_second", "total_flos")


class Numbers(Dataset):
    """Inputs and a label."""

    def __init__(self, examples: int = 96) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(examples, 6, generator=generator)
        self.y = (self.x[:, :3] + 0.3 * torch.randn(examples, 3, generator=generator)).argmax(1)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, place: int) -> dict[str, Any]:
        return {"x": self.x[place], "labels": self.y[place]}


class Words(Dataset):
    """Sequences that count upwards, for a causal language model."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, place: int) -> dict[str, Any]:
        ids = (torch.arange(8) + place) % 16
        return {"input_ids": ids, "labels": torch.where(torch.arange(8) < place % 4, -100, ids)}


class Classifier(nn.Module):
    """Any module whose forward gives a loss will do."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
        self.calls = 0

    def forward(self, x: Any, labels: Any = None) -> dict[str, Any]:
        self.calls += 1
        logits = self.net(x)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def classifier() -> Classifier:
    torch.manual_seed(7)
    return Classifier()


def language_model() -> GPT2LMHeadModel:
    torch.manual_seed(7)
    return GPT2LMHeadModel(GPT2Config(vocab_size=16, n_positions=8, n_embd=16, n_layer=1, n_head=2))


class Rates(TrainerCallback):
    """The rate of every optimizer step, as it is taken."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.hooked: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        inner = optimizer.optimizer
        inner = getattr(inner, "base", inner)
        self.hooked = inner.register_step_pre_hook(lambda o, *_: self.told(o))

    def told(self, optimizer: Any) -> None:
        import autolr

        if not autolr.is_probing():
            self.rates.append(float(optimizer.param_groups[0]["lr"]))


def train(
    kind: type[Trainer], tmp_path: Any, *callbacks: Any, make: Any = classifier, data: Any = None, resume: Any = None,
    add: Any = (), **settings: Any,
) -> Trainer:  # fmt: skip
    ours = {
        name: settings.pop(name) for name in ("autolr", "optimizers", "optimizer_cls_and_kwargs") if name in settings
    }
    settings = {
        "num_train_epochs": 2, "per_device_train_batch_size": 8, "learning_rate": 1e-3, "logging_steps": 1,
        "save_strategy": "no", "report_to": "none", "use_cpu": True, "disable_tqdm": True, "seed": 3,
    } | settings  # fmt: skip
    args = TrainingArguments(output_dir=str(tmp_path), **settings)
    with warnings.catch_warnings():
        for text in (
            "AutoLR, step 0",
            ".*find_peak returns the optimizer's own rate",
            ".*pin_memory",
            ".*lr_scheduler.step",
        ):
            warnings.filterwarnings("ignore", message=text)
        warnings.filterwarnings("ignore", category=FutureWarning)
        data = Numbers() if data is None else data
        trainer = kind(make(), args, train_dataset=data, callbacks=list(callbacks), **ours)
        for extra in add:
            trainer.add_callback(extra(trainer))
        trainer.train(resume_from_checkpoint=resume)
    return trainer


def logged(trainer: Trainer) -> list[dict[str, Any]]:
    """What was logged, without what a clock says."""
    return [{k: v for k, v in row.items() if not any(t in k for t in TIMES)} for row in trainer.state.log_history]


def print_of(trainer: Trainer) -> dict[str, str]:
    """Parameters, buffers and the optimizer's state."""
    found = {name: bits(value) for name, value in trainer.model.state_dict().items()}
    state = trainer.optimizer.state_dict()
    return found | {"optimizer": bits({k: v for k, v in state.items() if k != "autolr"})}
