"""The rebuilt problems of DeepOBS are the published ones, and ours is held against the right published runs."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
import torch

from autolr_lab.runner.results import Results
from autolr_lab.studies.deepobs import published, runs
from autolr_lab.studies.deepobs.images import BIAS, Vae, parameters, two_convolutions, vae_losses
from autolr_lab.studies.deepobs.problem import OneOrder, whole_batches
from autolr_lab.studies.deepobs.quadratic import hessian, quadratic_deep, rotation
from autolr_lab.studies.deepobs.tables import groups, tables
from autolr_lab.studies.lines import Lines

# Published after 100 epochs at the constant rate that has ten seeds: mean and standard deviation of the losses.
QUADRATIC = {
    "GradientDescent": (0.0158489, (85.103, 0.36), (87.398, 0.17)),
    "Momentum": (0.00251189, (84.956, 0.32), (87.045, 0.025)),
    "Adam": (0.0398107, (84.826, 0.32), (87.112, 0.024)),
}
TIMES = 4  # standard deviations of the published seeds; a new order every epoch is 60 off with momentum


# The quadratic.


def test_the_quadratic_begins_at_the_published_loss():
    # With seed 42; of the test set there is no other draw. The eigenvectors are in it, not only the eigenvalues.
    problem = quadratic_deep()
    assert problem.evaluate(problem.start(42), 42)["test_loss"] == pytest.approx(353.45, abs=0.005)


def test_the_quadratic_has_the_spectrum_that_its_paper_names():
    found = hessian()
    eigenvalues = np.linalg.eigvalsh(found)
    np.testing.assert_allclose(found, found.T, atol=1e-12)
    assert np.sum((eigenvalues > 0) & (eigenvalues < 1)) == 90
    assert np.sum((eigenvalues > 30) & (eigenvalues < 60)) == 10


@pytest.mark.parametrize("size", [2, 3, 10])
def test_a_rotation_keeps_lengths(size):
    turn = rotation(size, np.random.RandomState(0))
    np.testing.assert_allclose(turn @ turn.T, np.eye(size), atol=1e-12)
    assert abs(np.linalg.det(turn)) == pytest.approx(1)


@pytest.mark.parametrize("optimizer", QUADRATIC)
def test_a_constant_rate_comes_to_the_published_losses(optimizer):
    problem, (rate, *expected) = quadratic_deep(), QUADRATIC[optimizer]
    found = []
    for seed in (42, 43, 44):
        model = problem.start(seed)
        runs.train(problem, model, problem.optimizer(optimizer, model, rate), seed, 700)
        found.append(problem.evaluate(model, seed))
    for name, (mean, deviation) in zip(published.LOSSES, expected, strict=True):
        assert statistics.fmean(one[name] for one in found) == pytest.approx(mean, abs=TIMES * deviation)


# The networks on images.


def test_padding_across_is_one_before_and_two_behind():
    vae, seen = Vae(), {}
    vae.across.register_forward_hook(lambda _, given, made: seen.update(given=given[0], made=made))
    vae.eval()
    vae.encode(torch.rand(2, 1, 28, 28))
    padded, made = seen["given"], seen["made"]
    assert (padded.shape[2:], made.shape[2:]) == ((10, 10), (7, 7))
    for edge in (padded[:, :, :1], padded[:, :, -2:], padded[..., :1], padded[..., -2:]):
        assert (edge == 0).all()
    assert (padded[:, :, 1:-2, 1:-2] != 0).any(dim=1).all()


def test_the_way_up_is_the_mirror_image_of_the_way_down():
    # A transposed convolution with padding "same" is the adjoint of the convolution with padding "same".
    torch.manual_seed(0)
    vae = Vae().double()
    x, y = (torch.randn(2, 64, 14, 14, dtype=torch.float64) for _ in range(2))
    weight = vae.along[0].weight.detach()
    down = torch.nn.functional.conv2d(torch.nn.functional.pad(x, (1, 2, 1, 2)), weight)
    up = torch.nn.functional.conv_transpose2d(y, weight)[:, :, 1:-2, 1:-2]
    assert float((down * y).sum()) == pytest.approx(float((x * up).sum()))
    seen = {}
    vae.along[0].register_forward_hook(lambda _, given, made: seen.update(given=given[0], made=made))
    vae.along[1].register_forward_hook(lambda _, given, __: seen.update(then=given[0]))
    vae.eval()
    vae.decode(torch.randn(1, 8, dtype=torch.float64))
    torch.testing.assert_close(seen["then"], torch.relu(seen["made"][:, :, 1:-2, 1:-2]))


def test_the_networks_have_the_parameters_of_their_papers():
    assert parameters(two_convolutions()) == 832 + 51_264 + 3_212_288 + 10_250
    convolutions = 1_088 + 2 * 65_600 + 1_088 + 2 * 65_600
    assert parameters(Vae()) == convolutions + 2 * 25_096 + 216 + 1_225 + 9_835_280


def test_the_autoencoder_s_loss_is_the_squared_error_and_the_divergence():
    image = torch.rand(2, 1, 28, 28, dtype=torch.float64)
    mean, spread = torch.full((2, 8), 0.5).double(), torch.full((2, 8), math.log(2.0)).double()
    losses = vae_losses(lambda _: (image.flatten(1) - 0.1, mean, spread), (image,))
    # Divergence of a normal with mean m and deviation s from the standard one: (s^2 + m^2 - 1) / 2 - log s.
    expected = 784 * 0.01 + 8 * ((4 + 0.25 - 1) / 2 - math.log(2.0))
    assert losses.tolist() == pytest.approx([expected, expected])


def test_weights_of_2c2d_are_drawn_within_two_deviations_and_biases_are_constant():
    torch.manual_seed(0)
    for module in two_convolutions():
        if hasattr(module, "weight"):
            assert module.bias.unique().tolist() == [pytest.approx(BIAS)]
            assert module.weight.abs().max() <= 0.1
            assert float(module.weight.detach().std()) == pytest.approx(0.88 * 0.05, rel=0.1)  # of a normal cut there


def test_what_was_trained_here_with_published_rates_lies_within_the_published_seeds():
    kept = Results()
    name = [record.name for record in kept.records.values() if record.experiment == "deepobs"][-1]  # the newest
    constant = [row for row in kept.rows(name) if row["method"] == "constant"]
    assert {row["problem"] for row in constant} == set(runs.PROBLEMS)
    for group in groups(constant, "constant"):
        assert all(row["published_seeds"] == 10 for row in group)
        for loss in published.LOSSES:
            mean, deviation = group[0][f"published_{loss}"]
            assert statistics.fmean(row[loss] for row in group) == pytest.approx(mean, abs=2 * deviation)


# The order, and the evaluation.


def test_minibatches_are_the_same_in_every_epoch_and_what_does_not_fill_one_is_left_out():
    rows = (torch.arange(10.0), torch.arange(10))
    order = OneOrder(rows, 4, seed=1)
    flow = order.endless()
    epochs = [[next(flow)[1].tolist() for _ in range(2)] for _ in range(2)]
    assert epochs[0] == epochs[1] == [order[0][1].tolist(), order[1][1].tolist()]
    assert len({*epochs[0][0], *epochs[0][1]}) == 8
    assert order.first(4)[1].tolist() == epochs[0][0]
    assert OneOrder(rows, 4, seed=2)[0][1].tolist() != epochs[0][0]
    assert [len(batch[0]) for batch in whole_batches(rows, 4)] == [4, 4]


# The published runs.

CSV = """problem,optimizer,momentum,batch_size,epochs,lr,seed,epoch,train_loss,test_loss,train_accuracy,test_accuracy
p,Adam,,64,50,0.001,42,1,3.0,4.0,,
p,Adam,,64,50,0.00158489,42,1,1.0,2.0,,
p,Adam,,64,50,0.00158489,43,1,2.0,3.0,,
p,Adam,,64,50,0.0001,43,1,0.1,0.1,,
p,Adam,,64,50,0.0025,42,1,0.5,9.0,,
p,Adam,,64,50,100,42,1,nan,,,
"""


@pytest.fixture
def data(tmp_path):
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / published.FILE).write_text(CSV)
    return tmp_path


def test_the_published_best_is_the_lowest_test_loss_of_the_first_seed(data):
    found = runs.reference("p", "Adam", 1, data)
    assert found["best_rate"] == 0.00158489
    assert (found["best_seeds"], found["best_train_loss"], found["best_test_loss"]) == (2, 1.5, 2.5)
    assert (found["given_train_loss"], found["given_test_loss"]) == (3.0, 4.0)


def test_a_published_run_that_diverged_is_never_the_best(data):
    assert max(run.test_loss for run in published.at_epoch(data, "p", "Adam", 1)) == math.inf


def test_an_epoch_that_was_not_published_is_refused_with_those_that_were(data):
    with pytest.raises(ValueError, match=r"after epochs \[1\]; got 2"):
        published.at_epoch(data, "p", "Adam", 2)


# Ours.


def test_ours_trains_within_the_budget_and_a_row_comes_to_a_table(monkeypatch):
    beside = {"best_rate": 0.04, "best_seeds": 10, "best_train_loss": 84.826, "best_test_loss": 87.112}
    given = {"given_train_loss": 110.0, "given_test_loss": 113.0}
    monkeypatch.setattr(runs, "reference", lambda *_: {**beside, "best_test_accuracy": math.nan, **given})
    problem, lines = quadratic_deep(), Lines(None, runs.KEY)
    (row,) = runs.compared(lines, problem, "Adam", 100, [42], None)
    assert 0.95 * 3 * 700 < row["forward_equivalents"] <= 3 * 700
    assert row["trained"] < row["steps"] == 700
    assert row["test_loss"] < 90  # the start: 353
    assert "| quadratic_deep | Adam | 100 |" in tables(lines.rows)["against"]
