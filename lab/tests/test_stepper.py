"""What a run's steps, evaluations and budgets rest on: a minibatch replayed, true counts, and no trace of a look."""

import collections
import dataclasses
import functools
import math

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from autolr.numerics.cost import FORWARDS_PER_STEP
from autolr_lab.baselines import BASELINES
from autolr_lab.baselines.schedules import make_schedule
from autolr_lab.training.runs import Settings, read_run
from autolr_lab.training.stepper import ReplayBatch, Stepper
from autolr_lab.training.training import train
from autolr_lab.workloads import WORKLOADS
from helpers import bits, decisions_of, print_of, print_of_generators, seed_everything

DIGITS = WORKLOADS["digits"]
FEW = 5  # minibatches of a small training set


@functools.cache
def few():
    train_data, test_data = DIGITS.datasets(None)
    return TensorDataset(*train_data[: 32 * FEW]), TensorDataset(*test_data[:64])


def plain():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


@pytest.fixture
def small(monkeypatch):
    """Trains on a few digits, with changes to the workload; the result, and the model that was trained."""

    def run(out, schedule, changes=None, network=DIGITS.model, optimizer="momentum", **asked):
        models = []

        def model():
            models.append(network())
            return models[-1]

        made = dataclasses.replace(DIGITS, name="small", datasets=lambda _: few(), model=model, **(changes or {}))
        monkeypatch.setitem(WORKLOADS, "small", made)
        lr = BASELINES[schedule].rate(optimizer, 0.1) if schedule in BASELINES else 0.1
        asked = {"lr": lr, "epochs": 3, "batch_size": 32, "seed": 0, **asked}
        return train(Settings("small", optimizer, schedule, **asked), out), models[-1]

    return run


# A minibatch replayed.


@pytest.fixture
def replayed():
    """A model in training, a minibatch as its training pass saw it, that pass's loss, and its gradients."""
    seed_everything(0)
    model, batch = DIGITS.model(), next(iter(DIGITS.train_batches(few()[0], 32, torch.Generator().manual_seed(0))))
    replay = ReplayBatch(model, DIGITS.loss, batch)
    loss = DIGITS.loss(model, batch)
    loss.backward()
    torch.rand(7)  # training has gone on meanwhile: other dropout masks would come next
    return model, replay, loss.item(), [p.grad.clone() for p in model.parameters()]


def everything_of(model):
    return print_of(model), [bits(p.grad) for p in model.parameters()], print_of_generators()


def test_a_replayed_loss_is_that_of_the_training_pass_to_the_bit_and_leaves_no_trace(replayed):
    model, replay, loss, _ = replayed
    before = everything_of(model)
    assert replay.loss() == replay.loss() == loss
    assert everything_of(model) == before


def test_a_replayed_loss_is_of_the_parameters_as_they_are_now(replayed):
    model, replay, loss, gradients = replayed
    with torch.no_grad():
        for p, g in zip(model.parameters(), gradients, strict=True):
            p.sub_(0.01 * g)
    assert replay.loss() < loss


def test_replayed_gradients_are_those_of_the_training_pass_to_the_bit(replayed):
    model, replay, loss, gradients = replayed
    state, _, generators = everything_of(model)
    for p in model.parameters():
        p.grad.fill_(math.pi)  # they are replaced, not added to
    assert replay.gradients() == loss
    assert everything_of(model) == (state, [bits(g) for g in gradients], generators)


def test_a_replay_that_fails_leaves_no_trace_either(replayed):
    model, replay, _, _ = replayed

    def broken(model, batch):
        DIGITS.loss(model, batch)
        raise ValueError("no loss")

    before = everything_of(model)
    replay._loss = broken
    with pytest.raises(ValueError, match="no loss"):
        replay.loss()
    assert everything_of(model) == before


def test_a_stepper_moves_the_rate_after_each_step_and_goes_on_from_its_state():
    def made():
        weight = nn.Parameter(torch.ones(2))
        optimizer = torch.optim.SGD([{"params": [weight], "lr": 0.1}, {"params": [nn.Parameter(torch.ones(1))]}], 0.2)
        return weight, Stepper(optimizer, make_schedule("linear", optimizer, 4))

    def rates(weight, stepper, steps):
        seen = []
        for _ in range(steps):
            seen.append(stepper.rate)
            weight.grad = torch.ones(2)
            stepper.step(torch.zeros(()), None)
        return seen

    weight, stepper = made()
    assert rates(weight, stepper, 2) == pytest.approx([0.2, 0.15])  # the larger of the two groups'
    assert weight.tolist() == pytest.approx([1 - 0.1 - 0.075] * 2)
    other, again = made()
    again.load_state_dict(stepper.state_dict())
    assert rates(other, again, 2) == rates(weight, stepper, 2) == pytest.approx([0.1, 0.05])


# Counts.


def counting(network=DIGITS.model):
    """A network whose forward passes in training mode are counted: with gradients, and without."""
    passes = collections.Counter()

    def model():
        made = network()

        def count(module, *_):
            if module.training:
                passes[torch.is_grad_enabled()] += 1

        made.register_forward_hook(count)
        return made

    return model, passes


@pytest.mark.parametrize("budget", [False, True])
@pytest.mark.parametrize("schedule", ["fixed", "vsgd", "sls", "pal", "sps", "lr-finder", "schedule-free", "l4", "dog"])
def test_forward_equivalents_are_the_forward_passes_there_were(small, tmp_path, schedule, budget):
    network, passes = counting()
    epochs = 25 if schedule == "lr-finder" else 1  # its test is up to a hundred steps
    result, _ = small(tmp_path / "run", schedule, network=network, epochs=epochs, equal_budget=budget)
    spent = FORWARDS_PER_STEP * passes[True] + passes[False]
    assert result["forward_equivalents"] == spent
    spends = schedule in {"vsgd", "sls", "pal", "lr-finder", "schedule-free"}
    assert (spent > FORWARDS_PER_STEP * result["steps"]) == spends


def test_of_schedule_free_s_passes_for_running_statistics_the_last_is_charged(small, tmp_path):
    network, passes = counting()
    result, _ = small(tmp_path / "run", "schedule-free", network=network, epochs=2, evaluations=2)
    assert passes == {True: 2 * FEW, False: 4 * FEW}
    assert result["forward_equivalents"] == FORWARDS_PER_STEP * 2 * FEW + FEW
    network, passes = counting(plain)  # without BatchNorm there is nothing to pay for
    small(tmp_path / "plain", "schedule-free", network=network, epochs=2, equal_budget=True)
    assert passes == {True: 2 * FEW}


@pytest.mark.parametrize("schedule", ["find-peak", "explore-exploit", "monitor"])
def test_autolr_s_forward_equivalents_are_its_steps_and_what_it_says_it_spent(small, tmp_path, schedule):
    policy = {"window": 10, "superbatch": 2} if schedule != "find-peak" else {}
    result, _ = small(tmp_path / "run", schedule, epochs=12, policy=policy)
    assert result["steps"] == 12 * FEW
    own = FORWARDS_PER_STEP * (result["steps"] - result["cost"]["discarded_steps"])
    assert result["forward_equivalents"] == own + result["cost_forward_equivalents"]
    assert result["cost_share"] == pytest.approx(result["cost_forward_equivalents"] / (3 * result["steps"]))


# Clipping.


@pytest.mark.parametrize(
    ("schedule", "clips"),
    [("sps", False), ("sls", False), ("pal", False), ("l4", False), ("vsgd", False), ("momo", False),
     ("fixed", True), ("schedule-free", True), ("hypergradient", True), ("dog", True)],
)  # fmt: skip
def test_gradients_are_clipped_as_the_workload_says_unless_they_are_held_against_losses(
    small, tmp_path, schedule, clips
):
    free, _ = small(tmp_path / "free", schedule, epochs=4)
    clipped, _ = small(tmp_path / "clipped", schedule, {"clip": 1e-3}, epochs=4)
    assert (clipped["test_loss"] != free["test_loss"]) is clips


# Evaluations within an epoch.


def test_a_row_says_after_which_part_of_an_epoch_it_was_and_its_loss_is_the_mean_since_the_row_before(small, tmp_path):
    small(tmp_path / "one", "fixed", epochs=2)
    small(tmp_path / "two", "fixed", epochs=2, evaluations=2)
    small(tmp_path / "more", "fixed", epochs=1, evaluations=FEW + 1)  # once more than there are steps is after each
    whole, halves, each = (read_run(tmp_path / name).epochs for name in ("one", "two", "more"))
    assert [(row["step"], row["epoch"]) for row in halves] == [(2, 0.4), (5, 1), (7, 1.4), (10, 2)]
    assert [row["step"] for row in each] == [1, 2, 3, 4, 5]
    mean = (2 * halves[0]["train_loss"] + 3 * halves[1]["train_loss"]) / 5
    assert mean == pytest.approx(whole[0]["train_loss"], rel=1e-12)


CASES = {
    "no dropout": ("fixed", {"network": plain, "optimizer": "sgd"}),
    "dropout": ("fixed", {}),
    "schedule-free": ("schedule-free", {}),
    "dog": ("dog", {}),
    "vsgd": ("vsgd", {}),
    "greedy": ("greedy", {"epochs": 13, "lr": 0.003}),
    "plateau": ("plateau", {"schedule_options": {"patience": 0}}),
    "find-peak": ("find-peak", {"epochs": 24}),
    "explore-exploit, budget": (
        "explore-exploit",
        {"epochs": 4, "equal_budget": True, "policy": {"spread": 2, "window": 4, "superbatch": 2}},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_training_does_not_notice_how_often_it_is_evaluated(small, tmp_path, case):
    schedule, asked = CASES[case]
    seen = []
    for evaluations in (1, 3):
        out = tmp_path / str(evaluations)
        result, model = small(out, schedule, evaluations=evaluations, **asked)
        run = read_run(out)
        ends = [{k: v for k, v in row.items() if k != "train_loss"} for row in run.epochs if row["step"] % FEW == 0]
        final = {k: v for k, v in result.items() if "seconds" not in k and k not in {"cost", "train_loss"}}
        seen.append((everything_of(model)[0], run.steps, ends, decisions_of(run), final))
        assert len(run.epochs) >= evaluations * (result["steps"] // FEW)
    assert seen[0] == seen[1]


@pytest.mark.parametrize("schedule", ["pal", "vsgd", "schedule-free", "fixed"])
@pytest.mark.parametrize("evaluations", [1, 2, FEW])
def test_where_a_budget_ends_is_evaluated_once_wherever_it_is(small, tmp_path, schedule, evaluations):
    result, _ = small(tmp_path / "run", schedule, evaluations=evaluations, equal_budget=True)
    rows = read_run(tmp_path / "run").epochs
    steps = [row["step"] for row in rows]
    assert steps == sorted(set(steps))
    assert steps[-1] == result["steps"]
    assert rows[-1]["epoch"] == result["steps"] / FEW
    assert rows[-1]["test_loss"] == result["test_loss"]
