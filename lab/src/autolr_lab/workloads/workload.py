"""What every workload has, and the losses and metrics of those that classify and of those that tell the next token."""

from __future__ import annotations

import abc
import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, TensorDataset

from autolr.policies import ExploreExploit

Batch = tuple[Tensor, ...]
EVALUATION_BATCH = 1000


class MissingDataError(ValueError):
    """A workload's data is not where it was looked for, or not what it should be."""


def broken(path: Path, what: str) -> MissingDataError:
    """The error for a file that is there and is not what it should be."""
    return MissingDataError(f"{path} is not what it should be: {what}. Fetch it again from where it is published.")


def data_root(data_dir: Path | None) -> Path:
    """The folder to look for data in: ``data_dir``, else the one that AUTOLR_DATA names, else ``data``."""
    return data_dir if data_dir is not None else Path(os.environ.get("AUTOLR_DATA", "data"))


@dataclass(frozen=True)
class Workload(abc.ABC):
    """A task to train on, with the settings of the paper."""

    name: str
    batch_size: int  # as `train_batches` counts it: examples, or tokens
    epochs: int  # the paper's, or what a first look at an embedded data set needs
    rates: Mapping[str, float]  # optimizer -> seed learning rate; "default" for those not named
    policy: ExploreExploit
    datasets: Callable[[Path | None], tuple[Any, Any]]  # data folder -> what trains, what is evaluated after each epoch
    model: Callable[[], nn.Module]
    version: int = 1  # raised when its runs go another way than before: see `bench.store.version`
    optimizer: str = "momentum"  # that the command line takes where none is named
    evaluated: str = "test"  # what the second data set is: "test", or "valid" where `final` has the test set
    best: str | None = None  # of `evaluate`: where it is lowest the model for `final` is kept; None: the last one is
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # optimizer -> its settings beside the rate
    clip: float | None = None  # the largest norm of a gradient
    batch_unit: str = "examples"
    images: bool = False  # whether the network is convolutions over images, fastest with channels last
    notice: str = ""  # what has to be said wherever a result of it is shown

    def rate(self, optimizer: str) -> float:
        """The seed learning rate for an optimizer."""
        return self.rates.get(optimizer, self.rates["default"])

    def network(self, data_dir: Path | None) -> nn.Module:  # noqa: ARG002 - for those that start from trained weights
        """The network to train, with fresh weights drawn from torch's generator, or trained ones from ``data_dir``."""
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
        """The mean loss of one minibatch."""

    @abc.abstractmethod
    def evaluate(self, model: nn.Module, batches: Iterable[Any], device: torch.device) -> dict[str, float]:
        """``loss`` and the workload's metrics over a data set, in evaluation mode, with the mode put back."""

    def final(self, model: nn.Module, data_dir: Path | None, device: torch.device) -> dict[str, float]:  # noqa: ARG002
        """Metrics that are dear, once, of the run's best model: under their whole names, ``test_bleu``."""
        return {}


@dataclass(frozen=True)
class Classification(Workload):
    """Cross-entropy and accuracy."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross-entropy of one minibatch ``(inputs, labels)``, moved to the model's device."""
        device = next(model.parameters()).device
        inputs, labels = (t.to(device, non_blocking=True) for t in batch)
        return F.cross_entropy(model(inputs), labels)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, batches: Iterable[Batch], device: torch.device) -> dict[str, float]:
        """Mean cross-entropy and the share of right answers."""
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
        """Mean cross-entropy per token of one minibatch, moved to the model's device."""
        device = next(model.parameters()).device
        tokens, following = (t.to(device, non_blocking=True) for t in batch)
        return F.cross_entropy(model(tokens).flatten(0, 1), following.flatten())

    @torch.no_grad()
    def evaluate(self, model: nn.Module, batches: Iterable[Batch], device: torch.device) -> dict[str, float]:
        """Mean cross-entropy per token, and its exponential: among how many tokens the model still wavers."""
        total, examples = 0.0, 0
        with evaluation_mode(model):
            for tokens, following in batches:
                logits = model(tokens.to(device)).flatten(0, 1)
                total += float(F.cross_entropy(logits, following.to(device).flatten(), reduction="sum").double())
                examples += following.numel()
        loss = total / examples
        # Not math.exp: it raises where the loss of a run that diverged is beyond 709.
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
