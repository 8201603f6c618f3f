"""The window and the look under way: what a policy is told of them, also from a checkpoint."""

import json
import math

import pytest
import torch

from autolr.policies import Window
from autolr.numerics.saturation import LossDrop
from autolr.runtime.window_state import LookPlan, OpenLook, OpenWindow, finite, mean

WINDOW = Window(20, 100, 0.1, 2.0, 1.0, 10, LossDrop(0.1, 0.01))


def test_a_window_tells_the_losses_at_both_ends_and_the_drop_per_step():
    seen = OpenWindow(start=10, superbatch=3, losses=[2.0, 4.0], snapshot=None).seen(20, 100, 0.1, [1.0, 3.0])
    assert seen == Window(20, 100, 0.1, start_loss=3.0, end_loss=2.0, steps=10, drop=LossDrop(0.1, 0.0))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", ["start", "end"])
def test_one_loss_that_is_not_finite_leaves_no_drop_to_speak_of(bad, at):
    start, end = ([bad, 1.0], [1.0, 1.0]) if at == "start" else ([1.0, 1.0], [1.0, bad])
    seen = OpenWindow(0, 1, start, None).seen(10, 100, 0.1, end)
    assert seen.drop is None
    assert math.isnan(seen.start_loss if at == "start" else seen.end_loss)
    assert (seen.end_loss if at == "start" else seen.start_loss) == 1.0


def bowl(eps, bottom):
    return (eps - bottom) ** 2 + 1


EPS = (-0.5, 0.0, 0.5)
ALONE, SPREAD = LookPlan(2, (1,)), LookPlan(50, (2,))


def looked(plan, *steps):
    look = OpenLook(WINDOW)
    for losses in steps:
        look.add(torch.tensor(losses, dtype=torch.float64))
    look.settle(plan, len(EPS))
    return look


def test_a_look_along_one_step_has_an_observation_for_each_minibatch():
    seen = (look := looked(ALONE, [[bowl(e, 0.2), bowl(e, 0.4)] for e in EPS])).seen(0.1, EPS, ALONE)
    assert seen.quadratic.minimum == pytest.approx(0.03)  # 0.3 of the learning rate
    assert seen.loss == pytest.approx(1 + (0.2**2 + 0.4**2) / 2)  # at eps = 0
    assert seen.quadratic.stderr == pytest.approx(0.01)  # two minibatches, 0.1 of the rate to either side of the mean
    assert look.steps == 1


def test_a_look_along_several_steps_has_an_observation_for_each_step():
    # Minibatches along one step share its direction: their agreement says nothing of the next step's.
    steps = ([[bowl(e, bottom)] * 50 for e in EPS] + [[2.0, 4.0] * 25] for bottom in (0.2, 0.4))
    seen = (look := looked(SPREAD, *steps)).seen(0.1, EPS, SPREAD)
    assert seen.quadratic.minimum == pytest.approx(0.03)
    assert seen.quadratic.stderr == pytest.approx(0.01)  # of two steps, and not of a hundred minibatches
    assert (seen.step, seen.total_steps) == (
        WINDOW.step,
        WINDOW.total_steps,
    )  # where it was decided on, not where it ended
    assert look.validation_eps == [(3.0,), (3.0,)]
    assert look.steps == 2


def test_one_sample_that_is_not_finite_leaves_no_parabola():
    look = looked(ALONE, [[1.0, 1.0], [1.0, 1.0], [1.0, math.nan]])
    assert look.seen(0.1, EPS, ALONE).quadratic is None


@pytest.mark.parametrize("drop", [None, LossDrop(0.1, 0.01)])
def test_a_look_goes_into_a_checkpoint_and_goes_on_from_there(drop):
    look = OpenLook(Window(20, 100, 0.1, 2.0, 1.0, 10, drop), unmoved_steps=1)
    look.add(torch.tensor([[bowl(e, 0.2)] for e in EPS] + [[3.0]], dtype=torch.float64))
    look.settle(SPREAD, len(EPS))
    resumed = OpenLook.from_state_dict(json.loads(json.dumps(look.state_dict())))
    assert resumed == look
    for one in (look, resumed):
        one.add(torch.tensor([[bowl(e, 0.5)] for e in EPS] + [[3.0]], dtype=torch.float64))
        one.settle(SPREAD, len(EPS))
    assert resumed.seen(0.1, EPS, SPREAD) == look.seen(0.1, EPS, SPREAD)


def test_a_window_goes_into_a_checkpoint_and_back():
    opened = OpenWindow(10, 3, [2.0, 4.0], None)
    assert OpenWindow.from_state_dict(opened.state_dict()) == opened


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_mean_of_losses_is_nan_as_soon_as_one_is_not_finite(bad):
    assert mean([1.0, 2.0, 6.0]) == 3.0
    assert math.isnan(mean([1.0, bad]))
    assert math.isnan(mean([math.inf, -math.inf]))
    assert finite([1.0, -2.0])
    assert not finite([1.0, bad])
