"""Losses that are only looked at: with a derivative inside, and as they were otherwise."""

from __future__ import annotations

import collections

import pytest
import torch
from torch import nn

import autolr
from autolr.measure.evaluated import Evaluated, fresh
from training_runs import seed_everything


def smooth(model, x):
    """A differential equation's residue: u' = cos(x)."""
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    return (slope - x.detach().cos()).square().mean()


def parts():
    seed_everything(0)
    model = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 1))
    return model, torch.optim.Adam(model.parameters(), lr=0.01), [3 * torch.randn(32, 1) for _ in range(40)]


@pytest.mark.parametrize(
    "policy", [autolr.PeakSearch(), autolr.Monitor(window=5, superbatch=3)], ids=["search", "look"]
)
def test_a_loss_with_a_derivative_inside_is_tuned_and_looked_at(policy):
    model, base, batches = parts()
    optimizer = autolr.AutoLR(base, model, smooth, batches, 100, policy=policy)
    for step in range(100):
        optimizer.zero_grad()
        smooth(model, batches[step % 40]).backward()
        optimizer.step()
    assert optimizer.history
    assert float(smooth(model, torch.cat(batches)).detach()) < 0.2


def test_the_first_loss_has_the_mask_of_all_later_ones():
    model, _, batches = parts()
    evaluated = Evaluated(smooth)
    losses = []
    for _ in range(2):
        torch.manual_seed(3)
        losses.append(float(evaluated(model, batches[0])))
    assert losses[0] == losses[1]


def test_without_one_gradients_stay_off():
    seen = []
    evaluated = Evaluated(lambda _, batch: seen.append(torch.is_grad_enabled()) or batch.mean())
    for _ in range(2):
        assert not evaluated(None, torch.ones(2, requires_grad=True)).requires_grad
    assert seen == [False, False]


def test_an_error_that_has_nothing_to_do_with_gradients_is_the_user_s_own():
    def broken(_, batch):
        raise RuntimeError(f"mat1 and mat2, grad {torch.is_grad_enabled()}")

    with pytest.raises(RuntimeError, match="mat1 and mat2, grad False"):
        Evaluated(broken)(None, torch.ones(1))


class Unclonable:
    def __reduce_ex__(self, protocol):
        raise TypeError("cannot be pickled")


Pair = collections.namedtuple("Pair", "x y")


def test_a_gradient_of_the_inputs_does_not_gather_from_call_to_call():
    points = torch.ones(3)

    def perturbed(_, batch):  # torch's tutorial on adversarial examples
        x = batch[0]
        x.requires_grad = True
        with torch.enable_grad():
            x.square().sum().backward()
        return x.grad.mean()

    for batch in ([points], (points,), Pair(points, 0), {0: points}):
        evaluated = Evaluated(perturbed)
        assert [float(evaluated(None, batch)) for _ in range(3)] == [2.0] * 3
    assert not points.requires_grad
    assert points.grad is None


def test_a_minibatch_that_wants_gradients_or_has_a_graph_keeps_them():
    leaf = torch.ones(2, requires_grad=True)
    made = 2 * leaf
    assert fresh([leaf])[0].requires_grad
    assert fresh([leaf])[0].data_ptr() == leaf.data_ptr()
    assert fresh([made])[0] is made


def test_a_minibatch_that_cannot_be_copied_is_passed_on_as_it_is():
    batch = Unclonable()
    assert fresh(batch) is batch
