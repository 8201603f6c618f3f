"""What a run's steps, evaluations and budgets rest on: a minibatch once more, true counts, and no trace of a look."""

import collections
import dataclasses
import functools
import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import TensorDataset

from autolr.numerics.cost import FORWARDS_PER_STEP
from autolr_lab.baselines import PEERS
from autolr.policies import ExploreExploit
from autolr_lab.training.runs import Settings, read_run
from autolr_lab.baselines.schedules import make_schedule
from autolr_lab.training.stepper import Again, Stepper
from autolr_lab.training.training import _between, train
from autolr_lab.workloads import WORKLOADS
from autolr_lab.workloads.workload import Workload
from training_runs import bits, print_of_generators, seed_everything

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
        lr = PEERS[schedule].rate(optimizer, 0.1) if schedule in PEERS else 0.1
        asked = {"lr": lr, "epochs": 3, "batch_size": 32, "seed": 0, **asked}
        return train(Settings("small", optimizer, schedule, **asked), out), models[-1]

    return run


# A minibatch once more.


@pytest.fixture
def once():
    """A model in training, a minibatch once more as its training pass saw it, that pass's loss, and its gradients."""
    seed_everything(0)
    model, batch = DIGITS.model(), next(iter(DIGITS.train_batches(few()[0], 32, torch.Generator().manual_seed(0))))
    again = Again(model, DIGITS.loss, batch)
    loss = DIGITS.loss(model, batch)
    loss.backward()
    return model, again, loss.item(), [p.grad.clone() for p in model.parameters()]


def everything_of(model):
    state = {name: bits(value) for name, value in model.state_dict().items()}
    return state, [bits(p.grad) for p in model.parameters()], print_of_generators()


def test_the_loss_once_more_is_that_of_the_training_pass_to_the_bit_and_leaves_no_trace(once):
    model, again, loss, _ = once
    torch.rand(7)  # training has gone on meanwhile: other dropout masks would come next
    before = everything_of(model)
    assert again.loss() == loss
    assert again.loss() == loss
    assert everything_of(model) == before
    assert again.forwards == 2


def test_the_loss_once_more_is_of_the_parameters_as_they_are_now(once):
    model, again, loss, gradients = once
    with torch.no_grad():
        for p, g in zip(model.parameters(), gradients, strict=True):
            p.sub_(0.01 * g)
    assert again.loss() < loss


def test_the_gradients_once_more_are_those_of_the_training_pass_to_the_bit(once):
    model, again, loss, gradients = once
    torch.rand(7)
    state, _, generators = everything_of(model)
    for p in model.parameters():
        p.grad.fill_(math.pi)  # they are replaced, not added to
    assert again.gradients() == loss
    assert [bits(p.grad) for p in model.parameters()] == [bits(g) for g in gradients]
    assert (everything_of(model)[0], everything_of(model)[2]) == (state, generators)
    assert again.forwards == FORWARDS_PER_STEP


def test_a_loss_that_fails_leaves_no_trace_either(once):
    model, again, _, _ = once

    def broken(model, batch):
        DIGITS.loss(model, batch)
        raise ValueError("no loss")

    before = everything_of(model)
    again._loss = broken
    with pytest.raises(ValueError, match="no loss"):
        again.loss()
    assert everything_of(model) == before


# An optimizer and its schedule.


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
    assert (stepper.forwards, stepper.phase) == (0, "")


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
    assert result["forward_equivalents"] == FORWARDS_PER_STEP * passes[True] + passes[False]
    spends = schedule in {"vsgd", "sls", "pal", "lr-finder", "schedule-free"}
    assert (FORWARDS_PER_STEP * passes[True] + passes[False] > FORWARDS_PER_STEP * result["steps"]) == spends


def test_of_schedule_free_s_passes_for_running_statistics_the_last_is_charged(small, tmp_path):
    network, passes = counting()
    result, _ = small(tmp_path / "run", "schedule-free", network=network, epochs=2, evaluations=2)
    assert passes == {True: 2 * FEW, False: 4 * FEW}
    assert result["forward_equivalents"] == FORWARDS_PER_STEP * 2 * FEW + FEW


def test_a_network_without_batch_norm_has_no_statistics_to_pay_for(small, tmp_path):
    network, passes = counting(plain)
    result, _ = small(tmp_path / "run", "schedule-free", network=network, epochs=2, equal_budget=True)
    assert passes == {True: 2 * FEW}
    assert result["forward_equivalents"] == FORWARDS_PER_STEP * 2 * FEW


# Clipping.


@pytest.mark.parametrize("schedule", ["sps", "sls", "pal", "l4", "vsgd", "momo"])
def test_gradients_that_are_held_against_losses_are_not_clipped(small, tmp_path, schedule):
    free, _ = small(tmp_path / "free", schedule, epochs=4)
    clipped, _ = small(tmp_path / "clipped", schedule, {"clip": 1e-3}, epochs=4)
    assert clipped["test_loss"] == free["test_loss"]


@pytest.mark.parametrize("schedule", ["fixed", "schedule-free", "hypergradient", "dog"])
def test_others_have_the_workload_s_clipping(small, tmp_path, schedule):
    free, _ = small(tmp_path / "free", schedule)
    clipped, _ = small(tmp_path / "clipped", schedule, {"clip": 1e-3})
    assert clipped["test_loss"] != free["test_loss"]


# Evaluations within an epoch.


@given(st.integers(1, 60), st.integers(1, 20))
def test_evaluations_are_evenly_spread_and_the_last_is_at_the_epoch_s_end(steps, evaluations):
    at = [0, *sorted(_between(steps, evaluations)), steps]
    assert len(at) - 1 == min(steps, evaluations)
    gaps = {after - before for before, after in itertools.pairwise(at)}
    assert min(gaps) >= max(1, steps // evaluations)
    assert max(gaps) <= -(-steps // evaluations)


def test_a_row_says_after_which_part_of_an_epoch_it_was(small, tmp_path):
    small(tmp_path / "run", "fixed", epochs=2, evaluations=2)
    rows = [(row["step"], row["epoch"]) for row in read_run(tmp_path / "run").epochs]
    assert rows == [(2, 0.4), (5, 1), (7, 1.4), (10, 2)]
    # Once more than there are steps is after each.
    small(tmp_path / "more", "fixed", epochs=1, evaluations=FEW + 1)
    assert [row["step"] for row in read_run(tmp_path / "more").epochs] == [1, 2, 3, 4, 5]


def test_the_training_loss_of_a_row_is_the_mean_since_the_row_before(small, tmp_path):
    small(tmp_path / "one", "fixed", epochs=1)
    small(tmp_path / "two", "fixed", epochs=1, evaluations=2)
    (whole,) = read_run(tmp_path / "one").epochs
    first, second = read_run(tmp_path / "two").epochs
    assert (2 * first["train_loss"] + 3 * second["train_loss"]) / 5 == pytest.approx(whole["train_loss"], rel=1e-12)


PAPER = {"policy": dataclasses.asdict(ExploreExploit(spread=2)), "window": 4, "superbatch": 2}
CASES = {
    "no dropout": ("fixed", {"network": plain, "optimizer": "sgd"}),
    "dropout": ("fixed", {}),
    "schedule-free": ("schedule-free", {}),
    "schedule-free for adam": ("schedule-free", {"optimizer": "adam"}),
    "dog": ("dog", {}),
    "vsgd": ("vsgd", {}),
    "greedy": ("greedy", {"epochs": 13, "lr": 0.003}),
    "plateau": ("plateau", {"schedule_options": {"patience": 0}}),
    "autolr": ("autolr", {"epochs": 4, **PAPER}),
    "autolr at an equal budget": ("autolr", {"epochs": 4, "equal_budget": True, **PAPER}),
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
        seen.append((everything_of(model)[0], run.steps, ends, run.decisions, final))
        assert len(run.epochs) >= evaluations * (result["steps"] // FEW)
    assert seen[0] == seen[1]


@pytest.mark.parametrize("schedule", ["pal", "vsgd", "sls", "schedule-free", "fixed"])
@pytest.mark.parametrize("evaluations", [1, 2, FEW])
def test_where_a_budget_ends_is_evaluated_once_wherever_it_is(small, tmp_path, schedule, evaluations):
    result, _ = small(tmp_path / "run", schedule, evaluations=evaluations, equal_budget=True)
    rows = read_run(tmp_path / "run").epochs
    steps = [row["step"] for row in rows]
    assert steps == sorted(set(steps))
    assert steps[-1] == result["steps"]
    assert rows[-1]["epoch"] == result["steps"] / FEW
    assert rows[-1]["test_loss"] == result["test_loss"]


@dataclasses.dataclass(frozen=True)
class Valley(Workload):
    """One weight on (w - 3)^2, evaluated by its distance to 4: best on the way."""

    def loss(self, model, batch):
        return (model.weight - 3).square().sum() + 0 * batch[0].sum()

    def evaluate(self, model, batches, device):  # noqa: ARG002
        return {"loss": abs(model.weight.item() - 4)}

    def final(self, model, data_dir, device):  # noqa: ARG002
        return {"test_weight": model.weight.item()}


def weight_of(value):
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, value)
    return layer


def test_the_best_model_may_be_one_within_an_epoch(monkeypatch, tmp_path):
    data = TensorDataset(torch.zeros(8)), TensorDataset(torch.zeros(5))
    best = Valley("valley", 4, 1, {"default": 1.0}, ExploreExploit(), lambda _: data, lambda: weight_of(0.0), best="loss")
    monkeypatch.setitem(WORKLOADS, "valley", best)
    # At a rate of 0.6 a step takes 3 + d to 3 - 0.2 d: 0, 3.6, 2.88, ... The first is nearest to 4, half an epoch in.
    for evaluations, epoch, weight in ((2, 0.5, 3.6), (1, 2, 3 - 0.2**4 * 3)):
        asked = Settings("valley", "sgd", "fixed", 0.6, 2, 4, 0, evaluations=evaluations)
        result = train(asked, tmp_path / str(evaluations))
        assert result["best_epoch"] == epoch
        assert result["test_weight"] == pytest.approx(weight, rel=1e-6)
