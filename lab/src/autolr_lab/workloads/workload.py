"""What every workload has, and the losses and metrics of those that classify and of those that tell the next token."""

from __future__ import annotations

import abc
import contextlib
import gzip
import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, TensorDataset

from autolr import ExploreExploit

Batch = tuple[Tensor, ...]
EVALUATION_BATCH = 1000


# Data files.


class MissingDataError(ValueError):
    """A workload's data is not where it was looked for, or not what it should be."""


def broken(path: Path, what: str) -> MissingDataError:
    """The error for a file that is there and is not what it should be."""
    return MissingDataError(f"{path} is not what it should be: {what}. Fetch it again from where it is published.")


def data_root(data_dir: Path | None) -> Path:
    """The folder with the data: ``data_dir``, else the one that AUTOLR_DATA names, else ``data``."""
    return data_dir if data_dir is not None else Path(os.environ.get("AUTOLR_DATA", "data"))


def find_folder(data_dir: Path | None, title: str, folders: Sequence[str], files: Sequence[str], source: str) -> Path:
    """The first of the ``folders`` in the data folder that has all ``files``, each with or without .gz.

    Raises:
        MissingDataError: none has; it says where to get them.
    """
    root = data_root(data_dir)
    for folder in folders:
        if all(there(root / folder, file) for file in files):
            return root / folder
    raise MissingDataError(
        f"{title} was not found. Looked in {', '.join(str(root / folder) for folder in folders)} for "
        f"{', '.join(files)} (each with or without .gz). Get the files from {source}; put them in {root / folders[0]}, "
        "or name the folder around it: --data-dir DIR or AUTOLR_DATA."
    )


def library(name: str) -> Any:
    """A library of the extra ``text``.

    Raises:
        MissingDataError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDataError(f"This needs the library {name} ({error}): pip install -e 'lab[text]'.") from error


def there(folder: Path, file: str) -> Path | None:
    """A file of a folder, or its .gz; None where neither is there."""
    return next((path for path in (folder / file, folder / f"{file}.gz") if path.is_file()), None)


def read_file(folder: Path, file: str) -> bytes:
    """The content of a file, or of its .gz."""
    path = there(folder, file)
    assert path is not None, "find_folder has seen it"
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


# Workloads.


@dataclass(frozen=True)
class Workload(abc.ABC):
    """A task to train on, with the paper's settings."""

    name: str
    batch_size: int  # as `train_batches` counts it: examples, or tokens
    epochs: int  # the paper's, or what a first look at an embedded data set needs
    rates: Mapping[str, float]  # optimizer -> seed learning rate; "default" for those not named
    policy: ExploreExploit
    datasets: Callable[[Path | None], tuple[Any, Any]]  # data folder -> training data, evaluation data
    model: Callable[[], nn.Module]
    optimizer: str = "momentum"  # where none is named
    evaluated: str = "test"  # what the evaluation data is: "test", or "valid" where `final` has the test set
    best: str | None = None  # of `evaluate`: `final` gets the model with the lowest; None: the last one
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # optimizer -> its settings beside the rate
    clip: float | None = None  # the largest norm of a gradient
    images: bool = False  # whether the network is convolutions over images, fastest with channels last
    notice: str = ""  # what has to be said wherever a result of it is shown

    def rate(self, optimizer: str) -> float:
        return self.rates.get(optimizer, self.rates["default"])

    def network(self, data_dir: Path | None) -> nn.Module:  # noqa: ARG002 - for those that start from trained weights
        """The network to train, with fresh weights from torch's generator, or trained ones from ``data_dir``."""
        return self.model()

    def train_batches(self, data: Any, batch_size: int, order: torch.Generator) -> DataLoader[Any]:
        """Minibatches to train on: as many in each pass, in an order that ``order`` decides."""
        return loader(data, batch_size, order)

    def test_batches(self, data: Any) -> Iterable[Any]:
        """What `evaluate` goes through."""
        return loader(data, EVALUATION_BATCH)

    def weight(self, batch: Any) -> int:
        """What the loss of a minibatch is the mean over: its number of examples, or of tokens."""
        return len(batch[0])

    @abc.abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The mean loss of one minibatch, which is moved to the model's device."""

    @abc.abstractmethod
    def evaluate(self, model: nn.Module, batches: Iterable[Any], device: torch.device) -> dict[str, float]:
        """``loss`` and the workload's metrics over a data set, in evaluation mode, with the mode put back."""

    def final(self, model: nn.Module, data_dir: Path | None, device: torch.device) -> dict[str, float]:  # noqa: ARG002
        """Expensive metrics, once, of the run's best model, under their full names: ``test_bleu``."""
        return {}


@dataclass(frozen=True)
class Classification(Workload):
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        device = next(model.parameters()).device
        inputs, labels = (t.to(device, non_blocking=True) for t in batch)
        return F.cross_entropy(model(inputs), labels)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, batches: Iterable[Batch], device: torch.device) -> dict[str, float]:
        total, right, examples = 0.0, 0, 0
        with evaluation_mode(model):
            for inputs, labels in batches:
                logits = model(inputs.to(device))
                total += float(F.cross_entropy(logits, labels.to(device), reduction="sum").double())
                right += int((logits.argmax(1) == labels.to(device)).sum())
                examples += len(labels)
        return {"loss": total / examples, "accuracy": right / examples}


@dataclass(frozen=True)
class LanguageModel(Workload):
    """Cross-entropy and perplexity of the next token; a minibatch is ``(tokens, the tokens that follow)``."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        device = next(model.parameters()).device
        tokens, following = (t.to(device, non_blocking=True) for t in batch)
        return F.cross_entropy(model(tokens).flatten(0, 1), following.flatten())

    @torch.no_grad()
    def evaluate(self, model: nn.Module, batches: Iterable[Batch], device: torch.device) -> dict[str, float]:
        total, examples = 0.0, 0
        with evaluation_mode(model):
            for tokens, following in batches:
                logits = model(tokens.to(device)).flatten(0, 1)
                total += float(F.cross_entropy(logits, following.to(device).flatten(), reduction="sum").double())
                examples += following.numel()
        return with_perplexity(total / examples)


def with_perplexity(loss: float) -> dict[str, float]:
    """A loss in nats and its exponential, which is infinite for a run that diverged: `math.exp` would raise."""
    return {"loss": loss, "perplexity": float(torch.tensor(loss, dtype=torch.float64).exp())}


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards each module is in its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def loader(data: TensorDataset, batch_size: int, generator: torch.Generator | None = None) -> DataLoader[Batch]:
    """Minibatches of a data set in memory, shuffled where a generator is given; the last one may be short.

    A whole minibatch is one indexing of the tensors, without collation of single examples.
    """
    order = SequentialSampler(data) if generator is None else RandomSampler(data, generator=generator)
    return DataLoader(data, sampler=BatchSampler(order, batch_size, drop_last=False), batch_size=None)
