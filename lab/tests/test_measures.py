"""What is measured of a trained network, where the answer is known."""

import math
import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from autolr.measure.rng import random_state
from autolr_lab.training.measures import RADIUS, superbatch_noise, train_loss, width
from autolr_lab.workloads.workload import Workload


@dataclass(frozen=True)
class Bowl(Workload):
    """Half the curvature times the squared distance of the weight from its start, plus the minibatch's number."""

    curvature: float = 1.0

    def loss(self, model, batch):
        return 0.5 * self.curvature * (model.weight - model.start).square().sum() + batch.mean()

    def evaluate(self, model, batches, device):
        raise NotImplementedError


class Weight(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(6, 50))
        self.bias = nn.Parameter(torch.randn(6))
        self.register_buffer("start", self.weight.detach().clone())

    def forward(self, x):
        return x


def bowl(curvature):
    return Bowl("bowl", 1, 1, {"default": 0.1}, policy=None, datasets=None, model=Weight, curvature=curvature)


BATCHES = [torch.tensor([float(n)]) for n in range(40)]


def test_the_rise_at_a_twentieth_of_each_filters_norm_is_the_quadratics():
    # Each of the 6 filters is moved by exactly RADIUS times its norm: curvature / 2 * RADIUS^2 * sum of their squares.
    model = Weight()
    expected = 0.5 * 3.0 * RADIUS**2 * float(model.weight.detach().square().sum())
    seen = width(bowl(3.0).loss, model, BATCHES, seed=0)
    assert seen["loss_rise"] == pytest.approx(expected, rel=1e-5)
    assert seen["loss_rise_sd"] == pytest.approx(0, abs=1e-5 * expected + 1e-6)


def test_a_narrower_minimum_rises_more_and_scaling_two_layers_against_each_other_changes_nothing():
    rises = [width(bowl(c).loss, Weight(), BATCHES, seed=0)["loss_rise"] for c in (1.0, 2.0, 8.0)]
    assert rises[1] == pytest.approx(2 * rises[0], rel=1e-4)
    assert rises[2] == pytest.approx(8 * rises[0], rel=1e-4)

    def network(scale):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(8, 16, bias=False), nn.ReLU(), nn.Linear(16, 4, bias=False))
        with torch.no_grad():
            model[0].weight.mul_(scale)
            model[2].weight.div_(scale)
        return model

    @dataclass(frozen=True)
    class Squares(Bowl):
        def loss(self, model, batch):
            return nn.functional.mse_loss(model(batch), batch[:, :4])

    torch.manual_seed(2)
    batches = [torch.randn(32, 8) for _ in range(4)]
    task = Squares("squares", 1, 1, {"default": 0.1}, policy=None, datasets=None, model=None)
    one, other = (width(task.loss, network(scale), batches, seed=0)["loss_rise"] for scale in (1.0, 8.0))
    assert other == pytest.approx(one, rel=1e-4)


def test_the_training_loss_is_the_mean_over_minibatches_without_dropout():
    model = nn.Sequential(nn.Dropout(0.9), nn.Linear(4, 1))
    batches = [torch.randn(8, 4) for _ in range(30)]
    expected = np.mean([model[1](batch).square().mean().item() for batch in batches])
    found = train_loss(lambda m, x: m(x).square().mean(), model, batches, seed=0)
    assert found["final_train_loss"] == pytest.approx(expected, rel=1e-6)
    assert model.training


def test_measuring_leaves_the_network_and_the_generators_to_the_bit():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 1))

    @dataclass(frozen=True)
    class Squares(Bowl):
        def loss(self, model, batch):
            return model(batch).square().mean()

    task = Squares("squares", 1, 1, {"default": 0.1}, policy=None, datasets=None, model=None)
    batches = [torch.randn(16, 8) for _ in range(5)]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    generators, modes = random_state(), [m.training for m in model.modules()]
    width(task.loss, model, batches, seed=0)
    superbatch_noise(task.loss, model, batches, seed=0)
    train_loss(task.loss, model, batches, seed=0)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generators["torch"])
    assert random.getstate() == generators["python"]
    assert modes == [m.training for m in model.modules()]


def test_the_noise_of_a_superbatch_falls_with_the_root_of_its_size():
    torch.manual_seed(0)
    batches = [torch.randn(1) for _ in range(4000)]
    seen = superbatch_noise(bowl(0.0).loss, Weight(), batches, seed=0)["superbatch_sd"]
    assert list(seen) == ["1", "2", "5", "10", "20", "50", "100", "200"]
    for size, sd in seen.items():
        # Of 10 superbatches: a standard deviation is known to within a factor of 2 (chi-squared, 99.9 %).
        assert 0.4 < sd * math.sqrt(int(size)) < 2.1
