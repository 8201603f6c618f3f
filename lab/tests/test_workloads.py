"""What the command line trains: shapes, the paper's settings, and that each can be learnt."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

from autolr_lab.training.optimizers import OPTIMIZERS
from autolr.policies import ExploreExploit
from autolr_lab.workloads import WORKLOADS
from autolr_lab.workloads.workload import loader

CPU = torch.device("cpu")
DIGITS = WORKLOADS["digits"]
IMAGES = {
    "digits": (1, 8, 8),
    "mnist": (1, 28, 28),
    "fashion-mnist": (1, 28, 28),
    "cifar10": (3, 32, 32),
    "cifar10-small": (3, 32, 32),
    "tiny-imagenet-10": (3, 64, 64),
}
NEEDS = {"squad": "transformers", "squad-small": "transformers"}  # a library that may be missing


@pytest.fixture(scope="module")
def digits():
    return DIGITS.datasets(None)


def test_every_workload_is_found_by_its_own_name_and_has_a_test_here():
    # In files of their own.
    elsewhere = ["imagenet", "shakespeare", "shakespeare-10m", "squad", "squad-small", "iwslt14", "multi30k"]
    tested = [*IMAGES, *elsewhere]
    assert {name: workload.name for name, workload in WORKLOADS.items()} == {name: name for name in tested}


# The paper's settings.


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_papers_network_has_431080_parameters(name):
    # 20 (5 x 5 + 1) + 50 (20 x 5 x 5 + 1) + 500 (800 + 1) + 10 (500 + 1), by hand from pytorch/examples.
    assert sum(p.numel() for p in WORKLOADS[name].model().parameters()) == 520 + 25_050 + 400_500 + 5_010 == 431_080


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_epochs_seed_rates_and_policy_are_the_papers(name):
    # Appendices E.1 and E.2; Table 7.
    workload = WORKLOADS[name]
    assert workload.epochs == 50
    assert {kind: workload.rate(kind) for kind in ("sgd", "momentum", "adam")} == {
        "sgd": 0.1,
        "momentum": 0.1,
        "adam": 1e-3,
    }
    assert workload.policy == ExploreExploit.from_paper(name)


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_optimizer_has_a_seed_rate(name):
    assert all(WORKLOADS[name].rate(kind) > 0 for kind in OPTIMIZERS)


# Data, model, loss.


def test_the_digits_are_1437_training_and_360_test_images_of_8_by_8_from_0_to_1(digits):
    train, test = digits
    for data, n in ((train, 1437), (test, 360)):
        images, labels = data.tensors
        assert images.shape == (n, 1, 8, 8)
        assert (float(images.min()), float(images.max())) == (0, 1)
        assert labels.shape == (n,)
        assert labels.unique().tolist() == list(range(10))


@pytest.mark.parametrize("name", IMAGES)
def test_a_model_gives_ten_scores_an_image_and_begins_at_chance(name):
    torch.manual_seed(0)
    workload = WORKLOADS[name]
    model = workload.model()
    batch = torch.rand(20, *IMAGES[name]), torch.arange(20) % 10
    assert model(batch[0]).shape == (20, 10)
    loss = workload.loss(model, batch)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(math.log(10), abs=0.5)  # ten classes, and scores near nought


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "squad" else []) for name in WORKLOADS]
)
def test_every_call_makes_a_new_model_and_the_seed_decides_which(name):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason="needs torch-autolr[text]")
    make = WORKLOADS[name].model
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(nn.utils.parameters_to_vector(make().parameters()))
    assert torch.equal(models[0], models[1])
    assert not torch.equal(models[0], models[2])


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "cifar10" else []) for name in IMAGES]
)
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_a_few_steps_at_the_seed_rate_lower_the_loss(name, kind):
    # Ten images, one of each class, seen thirty times: what cannot be learnt by heart cannot be learnt. Bar: a third.
    torch.manual_seed(0)
    workload = WORKLOADS[name]
    model = workload.model()
    optimizer = OPTIMIZERS[kind](model.parameters(), workload.rate(kind))
    batch = torch.randn(10, *IMAGES[name]), torch.arange(10)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = workload.loss(model, batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 3


def test_an_epoch_of_digits_teaches_most_of_them(digits):
    # A linear classifier reaches 90 %; one epoch of 45 steps is to reach 80 % (chance is 10 %).
    torch.manual_seed(0)
    model = DIGITS.model()
    optimizer = OPTIMIZERS["momentum"](model.parameters(), DIGITS.rate("momentum"))
    for batch in loader(digits[0], DIGITS.batch_size, torch.Generator().manual_seed(0)):
        optimizer.zero_grad()
        DIGITS.loss(model, batch).backward()
        optimizer.step()
    assert DIGITS.evaluate(model, loader(digits[1], 100), CPU)["accuracy"] > 0.8


# Evaluation.


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))


EXAMPLES = TensorDataset(torch.randn(10, 4, generator=torch.Generator().manual_seed(0)), torch.arange(10) % 3)


@pytest.mark.parametrize("batch_size", [1, 4, 10])
def test_evaluation_is_the_mean_over_examples_in_evaluation_mode_however_they_are_batched(batch_size):
    model = network()
    inputs, labels = EXAMPLES.tensors
    model.eval()
    scores = model(inputs).double()
    by_hand = [math.log(sum(math.exp(s) for s in row)) - row[y] for row, y in zip(scores.tolist(), labels, strict=True)]
    right = sum(
        max(range(3), key=row.__getitem__) == y for row, y in zip(scores.tolist(), labels.tolist(), strict=True)
    )
    model.train()
    seen = DIGITS.evaluate(model, loader(EXAMPLES, batch_size), CPU)
    assert seen["loss"] == pytest.approx(sum(by_hand) / 10, rel=1e-6)  # float32
    assert seen["accuracy"] == right / 10


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_leaves_the_mode_the_weights_the_buffers_and_the_generators_as_they_were(training):
    model = network().train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    DIGITS.evaluate(model, [EXAMPLES.tensors], CPU)
    assert all(module.training is training for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(p.grad is None for p in model.parameters())


def test_evaluation_leaves_a_part_that_was_frozen_in_its_own_mode():
    model = network().train()
    model[1].eval()  # a frozen BatchNorm in a network that trains
    DIGITS.evaluate(model, [EXAMPLES.tensors], CPU)
    assert [module.training for module in model] == [True, False, True, True]


def test_a_loss_does_not_change_the_mode():
    model = network().eval()
    assert DIGITS.loss(model, EXAMPLES.tensors) == F.cross_entropy(model(EXAMPLES.tensors[0]), EXAMPLES.tensors[1])
    assert not model.training


# Minibatches.


def test_minibatches_hold_every_example_once_and_the_last_may_be_short():
    for generator in (None, torch.Generator().manual_seed(0)):
        batches = list(loader(EXAMPLES, 4, generator))
        assert [len(labels) for _, labels in batches] == [4, 4, 2]
        inputs = torch.cat([inputs for inputs, _ in batches])
        order = [int((EXAMPLES.tensors[0] == row).all(1).nonzero()) for row in inputs]
        assert sorted(order) == list(range(10))
        assert (order == list(range(10))) is (generator is None)
        assert torch.equal(torch.cat([labels for _, labels in batches]), EXAMPLES.tensors[1][order])


def test_the_generators_seed_decides_the_order_and_each_epoch_has_its_own():
    def epochs(seed):
        batches = loader(EXAMPLES, 4, torch.Generator().manual_seed(seed))
        return [torch.cat([x for x, _ in batches]) for _ in range(2)]

    (first, second), (again, _), (other, _) = epochs(0), epochs(0), epochs(1)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)
