"""What can be trained: the paper's settings, where files are looked for, models, evaluation, minibatches."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

from autolr import ExploreExploit
from autolr_lab.training.optimizers import OPTIMIZERS
from autolr_lab.training.prepared import Data
from autolr_lab.training.runs import Settings
from autolr_lab.workloads import WORKLOADS, MissingDataError
from autolr_lab.workloads.workload import data_root, find_folder, loader, read_file

CPU = torch.device("cpu")
DIGITS = WORKLOADS["digits"]
IMAGES = {
    "digits": (1, 8, 8), "mnist": (1, 28, 28), "cifar10-small": (3, 32, 32), "tiny-imagenet-10": (3, 64, 64),
}  # fmt: skip
PAPERS = {  # optimizer, minibatch, epochs, seed rate: appendices E.1 and E.2; parts 3.1 to 3.4
    "mnist": ("momentum", 64, 50, 0.1),
    "fashion-mnist": ("momentum", 64, 50, 0.1),
    "imagenet": ("momentum", 256, 90, 0.1),
    "cifar10": ("momentum", 128, 200, 0.1),
    "squad": ("adam", 16, 3, 2e-5),
    "iwslt14": ("adamw", 4096, 50, 5e-5),
}


@pytest.fixture(scope="module")
def digits():
    return DIGITS.datasets(None)


@pytest.mark.parametrize("name", PAPERS)
def test_settings_are_the_papers(name):
    workload = WORKLOADS[name]
    optimizer = workload.optimizer
    assert (optimizer, workload.batch_size, workload.epochs, workload.rate(optimizer)) == PAPERS[name]
    assert workload.policy == ExploreExploit.from_paper(name)


# Where files are looked for.


def test_the_first_folder_with_all_files_is_read_packed_or_not(tmp_path):
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
    (tmp_path / "one" / "a").write_bytes(b"half a set")
    (tmp_path / "two" / "a").write_bytes(b"whole")
    (tmp_path / "two" / "b").write_bytes(b"whole")
    place = find_folder(tmp_path, "It", ("one", "two"), ("a", "b"), "somewhere")
    assert read_file(place, "a") == b"whole"


def test_what_is_missing_is_named_with_every_place_and_where_to_get_it(tmp_path):
    (tmp_path / "one" / "a.gz").mkdir(parents=True)  # a folder is no file
    (tmp_path / "one" / "b").write_bytes(b"half a set")
    with pytest.raises(MissingDataError, match="It was not found") as refused:
        find_folder(tmp_path, "It", ("one", "two"), ("a", "b"), "https://example.org")
    for hint in (tmp_path / "one", tmp_path / "two", "for a, b", "https://example.org", "--data-dir", "AUTOLR_DATA"):
        assert str(hint) in str(refused.value)


def test_without_a_folder_the_environment_names_it_and_else_it_is_data(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOLR_DATA", str(tmp_path))
    assert data_root(None) == tmp_path
    monkeypatch.delenv("AUTOLR_DATA")
    assert str(data_root(None)) == "data"


def test_a_file_that_no_reader_understands_is_told_of_with_its_workload(tmp_path):
    (tmp_path / "tinyshakespeare").mkdir()
    (tmp_path / "tinyshakespeare" / "input.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(MissingDataError, match=r"shakespeare cannot be read \(UnicodeDecodeError.*Fetch it again"):
        Data.load(Settings("shakespeare", "adamw", "fixed", 0.1, 1, 1, 0, data_dir=str(tmp_path)))


# Data, model, loss.


def test_the_digits_are_1437_training_and_360_test_images_of_8_by_8_from_0_to_1(digits):
    for data, n in zip(digits, (1437, 360), strict=True):
        images, labels = data.tensors
        assert images.shape == (n, 1, 8, 8)
        assert (float(images.min()), float(images.max())) == (0, 1)
        assert labels.unique().tolist() == list(range(10))


def test_the_papers_network_has_431080_parameters():
    # 20 (5 x 5 + 1) + 50 (20 x 5 x 5 + 1) + 500 (800 + 1) + 10 (500 + 1), by hand from pytorch/examples.
    assert sum(p.numel() for p in WORKLOADS["mnist"].model().parameters()) == 520 + 25_050 + 400_500 + 5_010


@pytest.mark.parametrize("name", IMAGES)
def test_a_model_begins_at_chance_and_the_seed_decides_its_weights(name):
    losses, weights = [], []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        model = WORKLOADS[name].model()
        weights.append(nn.utils.parameters_to_vector(model.parameters()))
        losses.append(WORKLOADS[name].loss(model, (torch.rand(20, *IMAGES[name]), torch.arange(20) % 10)).item())
    assert losses == pytest.approx([math.log(10)] * 3, abs=0.5)  # ten classes, and scores near nought
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("name", IMAGES)
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
    model.train()
    seen = DIGITS.evaluate(model, loader(EXAMPLES, batch_size), CPU)
    assert seen["loss"] == pytest.approx(F.cross_entropy(scores, labels).item(), rel=1e-6)  # float32
    assert seen["accuracy"] == sum(scores.argmax(1) == labels).item() / 10


def test_evaluation_leaves_modes_weights_buffers_and_generators_as_they_were():
    model = network().train()
    model[1].eval()  # a frozen BatchNorm in a network that trains
    before, generator = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    DIGITS.evaluate(model, [EXAMPLES.tensors], CPU)
    assert [module.training for module in model] == [True, False, True, True]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    with pytest.raises(RuntimeError):  # also where it fails
        DIGITS.evaluate(model, [(torch.zeros(2, 9), torch.zeros(2).long())], CPU)
    assert [module.training for module in model] == [True, False, True, True]


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
