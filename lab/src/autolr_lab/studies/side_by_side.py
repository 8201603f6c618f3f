"""Four ways to a rate on one and the same run: two range tests that people use, a tuner of whole runs, `find_peak`.

Digits of 8x8 pixels, a small convolutional network, AdamW. Each way is asked for a rate and leaves the training as it
may; then the run is trained from the start with that rate as the peak of one schedule, in the steps that are left after
what the way has cost. Optuna's cost is whole runs, which no run can pay, and it chooses by the test loss: both are only
said.

``python -m autolr_lab.studies side-by-side`` needs ``torch-lr-finder``, ``lightning`` and ``optuna`` beside the lab.
"""

from __future__ import annotations

import copy
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import autolr
from autolr.numerics.cost import FORWARDS_PER_STEP
from autolr.schedules import PeakSchedule
from autolr_lab.runner.markdown import markdown_table
from autolr_lab.runner.results import Row
from autolr_lab.studies.study import Study

SEEDS, EPOCHS, BATCH, TEST = range(5), 20, 32, 360
ITERATIONS = 100  # of a range test: what both packages' documents use
TRIALS = 10  # whole runs that Optuna may take
CUSTOMARY = 1e-3


@dataclass
class Start:
    """A run that has not begun."""

    model: nn.Module
    loader: DataLoader[Any]
    test: tuple[Tensor, ...]

    @property
    def total_steps(self) -> int:
        """Of the whole run."""
        return EPOCHS * len(self.loader)


def start(seed: int) -> Start:
    """The same for every way."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = torch.as_tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    targets = torch.as_tensor(labels)
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))  # the same split for every seed
    train, test = order[TEST:], order[:TEST]
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(32 * 9, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    loader = DataLoader(TensorDataset(pixels[train], targets[train]), batch_size=BATCH, shuffle=True, drop_last=True)
    return Start(model, loader, (pixels[test], targets[test]))


def loss_fn(model: nn.Module, batch: Any) -> Tensor:
    """Of a minibatch."""
    return F.cross_entropy(model(batch[0]), batch[1])


def trained(run: Start, rate: float, steps: int, seed: int) -> tuple[float, float]:
    """Test loss and accuracy after so many steps with this peak."""
    torch.manual_seed(seed)
    model = copy.deepcopy(run.model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    scheduler, done = PeakSchedule(optimizer, rate, steps), 0
    while done < steps:
        for batch in run.loader:
            if done == steps:
                break
            optimizer.zero_grad()
            loss_fn(model, batch).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            scheduler.step()
            done += 1
    with torch.no_grad():
        scores = model(run.test[0])
        return float(F.cross_entropy(scores, run.test[1])), float((scores.argmax(1) == run.test[1]).double().mean())


@dataclass(frozen=True)
class Answer:
    """A rate, and what it cost [forward equivalents]."""

    rate: float
    cost: float


def by_torch_lr_finder(run: Start, model: nn.Module, optimizer: torch.optim.Optimizer) -> Answer:
    """As its README has it: from 1e-7 to 100, the steepest place of the smoothed curve, then ``reset()``."""
    import matplotlib.pyplot as plt
    from torch_lr_finder import LRFinder

    finder = LRFinder(model, optimizer, nn.CrossEntropyLoss())
    finder.range_test(run.loader, start_lr=1e-7, end_lr=100, num_iter=ITERATIONS)
    figure, axes = plt.subplots()
    _, rate = finder.plot(ax=axes, suggest_lr=True)
    plt.close(figure)
    finder.reset()
    return Answer(float(rate), FORWARDS_PER_STEP * len(finder.history["lr"]))


def by_lightning(run: Start, model: nn.Module, optimizer: torch.optim.Optimizer) -> Answer:  # noqa: ARG001
    """``Tuner.lr_find`` with its defaults. Lightning makes the optimizer itself."""
    import lightning.pytorch as pl
    from lightning.pytorch.tuner import Tuner

    class Module(pl.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model, self.lr = model, CUSTOMARY

        def training_step(self, batch: Any, _: int) -> Tensor:
            return loss_fn(self.model, batch)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=self.lr)

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=EPOCHS, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    module = Module()
    finder: Any = Tuner(trainer).lr_find(module, train_dataloaders=run.loader, num_training=ITERATIONS)
    return Answer(float(finder.suggestion()), FORWARDS_PER_STEP * len(finder.results["lr"]))


def by_optuna(run: Start, model: nn.Module, optimizer: torch.optim.Optimizer) -> Answer:  # noqa: ARG001
    """The best of ten whole runs between 1e-5 and 1, chosen by its usual sampler, judged by the test loss."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def objective(trial: Any) -> float:
        rate = trial.suggest_float("lr", 1e-5, 1.0, log=True)
        loss, _ = trained(run, rate, run.total_steps, seed=0)
        return loss if loss == loss else 1e9  # noqa: PLR0124 - NaN

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(objective, n_trials=TRIALS)
    return Answer(float(study.best_params["lr"]), FORWARDS_PER_STEP * TRIALS * run.total_steps)


def by_find_peak(run: Start, model: nn.Module, optimizer: torch.optim.Optimizer) -> Answer:
    """With its defaults, from AdamW's own rate."""
    peak = autolr.find_peak(model, optimizer, loss_fn, run.loader, run.total_steps, progress=False)
    return Answer(peak.lr, peak.cost)


def by_hand(run: Start, model: nn.Module, optimizer: torch.optim.Optimizer) -> Answer:  # noqa: ARG001
    """AdamW's own rate."""
    return Answer(CUSTOMARY, 0.0)


WAYS: dict[str, Callable[[Start, nn.Module, torch.optim.Optimizer], Answer]] = {
    "AdamW's own rate": by_hand,
    "torch-lr-finder": by_torch_lr_finder,
    "Lightning's lr_find": by_lightning,
    "Optuna, ten runs": by_optuna,
    "find_peak": by_find_peak,
}


def left_behind(run: Start, way: Callable[..., Answer], seed: int) -> tuple[Answer, list[str], float]:
    """The answer; what of model, optimizer and generator is not as it was, to the bit; seconds."""
    model = copy.deepcopy(run.model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=CUSTOMARY)
    torch.manual_seed(seed)
    weights, generator = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answer = way(run, model, optimizer)
    seconds = time.perf_counter() - began
    left = [] if all(torch.equal(weights[k], v) for k, v in model.state_dict().items()) else ["weights"]
    left += ["optimizer's state"] if optimizer.state else []
    left += [] if optimizer.param_groups[0]["lr"] == CUSTOMARY else ["the rate"]
    left += [] if torch.equal(generator, torch.get_rng_state()) else ["the random generator"]
    return answer, left, seconds


def measure(data_dir: Path | None) -> Iterator[Row]:  # noqa: ARG001
    """Each way with each seed."""
    torch.set_num_threads(1)
    for seed in SEEDS:
        run = start(seed)
        for name, way in WAYS.items():
            answer, left, seconds = left_behind(run, way, seed)
            paid = 0 if name.startswith("Optuna") else round(answer.cost / FORWARDS_PER_STEP)
            loss, accuracy = trained(run, answer.rate, run.total_steps - paid, seed)
            yield {
                "way": name, "seed": seed, "rate": answer.rate, "seconds": round(seconds, 2), "left": ", ".join(left),
                "cost_share": answer.cost / (FORWARDS_PER_STEP * run.total_steps), "test_loss": loss,
                "test_accuracy": accuracy,
            }  # fmt: skip


def tables(rows: list[Row]) -> dict[str, str]:
    """A line for each way: what it says, costs (with the first seed), leaves behind, and what the run then comes to."""
    lines = []
    for name in dict.fromkeys(row["way"] for row in rows):
        of = [row for row in rows if row["way"] == name]
        rates = sorted(row["rate"] for row in of)
        accuracies = [100 * row["test_accuracy"] for row in of]
        losses = sorted(row["test_loss"] for row in of)
        lines.append([
            name, f"{rates[0]:.2g} to {rates[-1]:.2g}", f"{100 * of[0]['cost_share']:.3g} %",
            f"{sorted(row['seconds'] for row in of)[len(of) // 2]:.1f}",
            of[0]["left"] or "nothing", f"{losses[len(losses) // 2]:.3g}",
            f"{sum(accuracies) / len(accuracies):.1f} ({min(accuracies):.1f} to {max(accuracies):.1f})",
        ])  # fmt: skip
    headings = (
        "way", f"rate, {len(SEEDS)} seeds", "of the run's cost", "seconds, median", "left behind",
        "test loss, median", "test accuracy, %, mean (range)",
    )  # fmt: skip
    return {"table": markdown_table(headings, lines)}


SIDE_BY_SIDE = Study(
    "side-by-side", "Four ways to a rate on one run", measure, tables,
    {"epochs": EPOCHS, "seeds": len(SEEDS), "iterations": ITERATIONS, "trials": TRIALS},
)  # fmt: skip
