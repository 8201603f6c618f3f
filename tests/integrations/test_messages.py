"""What the frameworks' integrations say happens, and is on the page Troubleshooting."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("lightning.pytorch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import DistributedType
from lightning_runs import Manual, Net, fit, loader
from trainer_runs import classifier, train

import autolr
import autolr.integrations.accelerate as accelerated
from autolr.integrations import lightning_step
from autolr.integrations.lightning import AutoLRCallback
from autolr.integrations.transformers import AutoLRTrainer, FindPeakCallback
from messages import patterns, told

SECTION = "Frameworks"
KNOWN = autolr.PeakSearch(peak=0.01, guard=False)


def half(parameters: Any) -> list[torch.optim.Optimizer]:
    parts = list(parameters)
    return [torch.optim.SGD(parts[:2], lr=0.1), torch.optim.SGD(parts[2:], lr=0.1)]


class TwoOptimizers(Manual):
    def configure_optimizers(self) -> Any:
        return half(self.parameters())


class TwiceTuned(Net):
    def configure_optimizers(self) -> Any:
        base = torch.optim.AdamW(self.parameters(), lr=1e-3)
        return autolr.AutoLR(base, self, lambda m, b: m.loss(b), loader(), total_steps=80, policy=KNOWN)


class Loading(Net):
    def training_step(self, dataloader_iter: Any) -> Any:
        return self.loss(next(dataloader_iter)[0])


class Twice(Manual):
    def training_step(self, batch: Any, batch_idx: int) -> None:
        for _ in range(2):
            self.manual_backward(self.loss(batch))
            self.optimizers().step()


class Silent(Manual):
    def training_step(self, batch: Any, batch_idx: int) -> None:
        torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])


class Stream(torch.utils.data.IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([(torch.randn(6), torch.tensor(1)) for _ in range(40)])


def streaming() -> Any:
    return torch.utils.data.DataLoader(Stream(), batch_size=8)


def step_down(optimizer: Any) -> Any:
    return torch.optim.lr_scheduler.StepLR(optimizer, 5)


def fitted(module: Any, **settings: Any) -> Callable[[], Any]:
    return lambda: fit(module(), AutoLRCallback(KNOWN), **settings)


def parts() -> tuple[Any, ...]:
    model = classifier().net
    return model, torch.optim.AdamW(model.parameters(), lr=1e-3)


def loss_fn(model: Any, batch: Any) -> Any:
    return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])


def prepare(*already: Any, loader_: Any = None, **settings: Any) -> Any:
    accelerator = Accelerator(cpu=True)
    model, base = already or parts()
    batches = loader() if loader_ is None else loader_
    return accelerated.prepare(accelerator, model, base, batches, loss_fn, policy=KNOWN, **settings)


def prepared_before() -> Any:
    model, base = Accelerator(cpu=True).prepare(*parts())
    return autolr.AutoLR(base, model, loss_fn, loader(), total_steps=10)


def prepared_twice() -> Any:
    model, base, _ = prepare(epochs=1)
    return prepare(model, base, epochs=1)


def under_deepspeed(monkeypatch: pytest.MonkeyPatch) -> Any:
    accelerator = Accelerator(cpu=True)
    prepared = accelerator.prepare(*parts(), loader())
    monkeypatch.setattr(accelerator.state, "distributed_type", DistributedType.DEEPSPEED)
    return accelerated.find_peak(accelerator, *prepared, loss_fn, epochs=1)


def without_lightning(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    return lightning_step.lightning()


def with_a_scaler() -> Any:
    plugin = SimpleNamespace(scaler=object())
    trainer = SimpleNamespace(precision_plugin=plugin, lightning_module=SimpleNamespace(automatic_optimization=False))
    return lightning_step.train_step_of(trainer, None, SimpleNamespace(own=None), 1)  # type: ignore[arg-type]


def with_a_scheduler(tmp_path: Path) -> Any:
    model = classifier()
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    pair = base, step_down(base)
    return train(AutoLRTrainer, tmp_path, make=lambda: model, optimizers=pair, autolr={"policy": KNOWN})


CASES: dict[str, Callable[..., Any]] = {
    "two optimizers": fitted(TwoOptimizers),
    "tuned twice": fitted(TwiceTuned),
    "no end": fitted(Net, train=streaming()),
    "two loaders": fitted(Net, train={"a": loader(), "b": loader()}),
    "a scheduler of the module's": fitted(lambda: Net(scheduler=step_down)),
    "loads itself": fitted(Loading),
    "two steps": fitted(Twice),
    "no loss": fitted(Silent),
    "a scaler": with_a_scaler,
    "no lightning": without_lightning,
    "a scheduler of the trainer's": with_a_scheduler,
    "other settings": lambda tmp_path: train(AutoLRTrainer, tmp_path, autolr={"peak": 1.0}),
    "both of ours": lambda tmp_path: train(AutoLRTrainer, tmp_path, autolr={"policy": KNOWN}, add=[FindPeakCallback]),
    "prepared before": prepared_before,
    "prepared twice": prepared_twice,
    "no length": prepare,
    "a length that is not known": lambda: prepare(loader_=streaming(), epochs=1),
    "deepspeed": under_deepspeed,
}


def say(name: str, folder: Path) -> list[str]:
    """All that the case ``name`` raises and warns of."""
    run, heard = CASES[name], []
    folder.mkdir()
    with pytest.MonkeyPatch.context() as monkeypatch, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        wanted = {"tmp_path": folder, "monkeypatch": monkeypatch}
        try:
            run(**{each: wanted[each] for each in inspect.signature(run).parameters if each in wanted})
        except Exception as error:
            heard.append(str(error))
    AcceleratorState._reset_state(True)
    GradientState._reset_state()
    return [*heard, *(str(warning.message) for warning in warned)]


def test_each_message_of_the_section_happens_and_whatever_happens_is_in_it(tmp_path: Path):
    said = {name: say(name, tmp_path / str(number)) for number, name in enumerate(CASES)}
    page = patterns()[SECTION]
    assert {
        name: heard for name, heard in said.items()
        if not any(told(pattern, text) for pattern in page for text in heard)
    } == {}  # fmt: skip
    everything = [text for heard in said.values() for text in heard]
    assert [pattern for pattern in page if not any(told(pattern, text) for text in everything)] == []
