"""Each decision is told when it is taken, once, and what the one who is told raises is no secret."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import autolr
from autolr.integrations.trackers import SHOWN, numbers_of, to_wandb
from training_runs import BATCHES_OF_LINES, cross_entropy, seed_everything


def tuned(on_decision: Any) -> tuple[nn.Module, autolr.AutoLR]:
    seed_everything(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    return model, autolr.AutoLR(
        torch.optim.SGD(model.parameters(), lr=0.05), model, cross_entropy, BATCHES_OF_LINES, 24,
        policy=autolr.ExploreExploit(window=4, superbatch=3, spread=2), on_decision=on_decision,
    )  # fmt: skip


def train(model: nn.Module, optimizer: autolr.AutoLR, steps: int) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        cross_entropy(model, BATCHES_OF_LINES[step % len(BATCHES_OF_LINES)]).backward()
        optimizer.step()


def test_each_decision_is_told_as_it_is_taken():
    told: list[Any] = []
    model, optimizer = tuned(lambda record: told.append((record, len(optimizer.history))))
    train(model, optimizer, 24)
    assert [record for record, _ in told] == optimizer.history
    assert [count for _, count in told] == list(range(1, len(told) + 1))
    assert len(told) >= 3


def test_a_run_continued_from_a_checkpoint_tells_no_decision_again():
    model, optimizer = tuned(None)
    train(model, optimizer, 12)
    told: list[Any] = []
    again, resumed = tuned(told.append)
    again.load_state_dict(model.state_dict())
    resumed.load_state_dict(optimizer.state_dict())
    train(again, resumed, 12)
    assert told == resumed.history[len(optimizer.history) :] != []


def test_an_error_of_the_one_who_is_told_is_raised_where_training_steps():
    def broken(_: Any) -> None:
        raise ConnectionError("no tracker")

    model, optimizer = tuned(broken)
    with pytest.raises(ConnectionError, match="no tracker"):
        train(model, optimizer, 24)


def test_numbers_of_a_decision_are_those_that_are_known():
    model, optimizer = tuned(None)
    train(model, optimizer, 24)
    for record in optimizer.history:
        numbers = numbers_of(record, "x")
        assert {name.removeprefix("x/") for name in numbers} == {
            name for name, field in SHOWN.items() if getattr(record, field) is not None
        }
        assert numbers["x/lr"] == record.lr_after


def test_w_and_b_is_told_the_step_that_the_metrics_are_over():
    class Run:
        def __init__(self) -> None:
            self.defined: list[Any] = []
            self.logged: list[Any] = []

        def define_metric(self, name: str, step_metric: str | None = None) -> None:
            self.defined.append((name, step_metric))

        def log(self, row: dict[str, Any]) -> None:
            self.logged.append(row)

    run = Run()
    model, optimizer = tuned(to_wandb(run))
    train(model, optimizer, 24)
    assert ("autolr/*", "autolr/step") in run.defined
    assert [row["autolr/step"] for row in run.logged] == [record.step for record in optimizer.history]
