"""One run: the schedule, the common random numbers, the training loop, and what is kept of it.

All runs of a task and seed begin with the same weights, see the same minibatches in the same order and draw the same
noise, whatever their optimizer, length and rate. The first minibatches of the order are not trained on: they are the
judges, on which the training loss is taken before and after. (Where data is small, they come again in later epochs.)
"""

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import torch
from torch import nn

from autolr_lab.zoo.optimizers import OPTIMIZERS
from autolr_lab.zoo.registry import Pair
from autolr_lab.zoo.task import Batch, Task

JUDGES = 8
WARM_UP = 0.05  # share of the steps, in full runs


def shape(step: int, total_steps: int, warm_up: float) -> float:
    """The rate of step 1, ..., ``total_steps`` as a share of the peak: a warm-up, a hold, and a line to zero."""
    warm, held = max(1, round(warm_up * total_steps)), total_steps // 2
    return min(1.0, step / warm, (total_steps - step + 1) / (total_steps - held + 1))


@dataclass(frozen=True)
class Start:
    """Where all runs of a task and seed begin: the model, the judges, and the losses there."""

    task: Task
    seed: int
    model: nn.Module
    judges: tuple[Batch, ...]
    eval_loss: float
    judge_losses: tuple[float, ...]

    def minibatches(self) -> Iterator[Batch]:
        """What is trained on: the order of this seed, after the judges."""
        return islice(self.task.minibatches(self.seed).endless(), len(self.judges), None)


@dataclass(frozen=True)
class Outcome:
    """What is kept of a run. A run that broke off has losses that are not finite.

    Attributes:
        eval_loss: on the held-out examples, in evaluation mode.
        judge_losses: on each judge, in training mode, as a search for the rate would see them.
        seconds: that the training took.
    """

    eval_loss: float
    judge_losses: tuple[float, ...]
    seconds: float


@lru_cache(maxsize=1)
def start(task: Task, seed: int) -> Start:
    """Build the model and the judges of a seed, and take the losses before the first step."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = task.build()
    judges = tuple(islice(task.minibatches(seed).endless(), JUDGES))
    return Start(task, seed, model, judges, held_out_loss(task, model), judged(task, model, judges))


def held_out_loss(task: Task, model: nn.Module) -> float:
    """The loss of all held-out examples at once, in evaluation mode, with noise that is always the same."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        return task.loss(model.eval(), task.data().held_out).item()


def judged(task: Task, model: nn.Module, judges: tuple[Batch, ...]) -> tuple[float, ...]:
    """The loss of each judge in training mode, with noise that is always the same; leaves the model unchanged."""
    trial = copy.deepcopy(model).train()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        return tuple(task.loss(trial, judge).item() for judge in judges)


def train(pair: Pair, seed: int, peak: float, steps: int, warm_up: float = WARM_UP) -> Outcome:
    """Train for ``steps`` steps under the schedule of that length with this peak; break off when the loss overflows."""
    begun, task = start(pair.task, seed), pair.task
    began = time.perf_counter()
    model = copy.deepcopy(begun.model).train()
    optimizer = OPTIMIZERS[pair.optimizer](model.parameters())
    broke = False
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step, batch in enumerate(islice(begun.minibatches(), steps), start=1):
            optimizer.param_groups[0]["lr"] = peak * shape(step, steps, warm_up)
            loss = task.loss(model, batch)
            broke = not math.isfinite(loss.item())
            if broke:
                break
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    seconds = time.perf_counter() - began
    if broke:
        return Outcome(math.nan, (math.nan,) * JUDGES, seconds)
    return Outcome(held_out_loss(task, model), judged(task, model, begun.judges), seconds)
