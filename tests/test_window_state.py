"""The window and the probe under way: what a policy is told of them, also from a checkpoint."""

import dataclasses
import json
import math

import pytest

from autolr.numerics.saturation import LossDrop
from autolr.policies.base import Trigger
from autolr.policies.window_state import OpenWindow, ProbeState, WindowResult, finite, mean

WINDOW = WindowResult(20, 100, 0.1, 2.0, 1.0, 10, LossDrop(0.1, 0.01))


def test_a_window_tells_the_losses_at_both_ends_and_the_drop_per_step():
    seen = OpenWindow(start=10, superbatch=3, losses=(2.0, 4.0)).ended(20, 100, 0.1, [1.0, 3.0])
    assert seen == WindowResult(20, 100, 0.1, start_loss=3.0, end_loss=2.0, steps=10, drop=LossDrop(0.1, 0.0))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", ["start", "end"])
def test_one_loss_that_is_not_finite_leaves_no_drop_to_speak_of(bad, at):
    start, end = ((bad, 1.0), (1.0, 1.0)) if at == "start" else ((1.0, 1.0), (1.0, bad))
    seen = OpenWindow(0, 1, start).ended(10, 100, 0.1, end)
    assert seen.drop is None
    assert math.isnan(seen.start_loss if at == "start" else seen.end_loss)
    assert (seen.end_loss if at == "start" else seen.start_loss) == 1.0


def bowl(eps, bottom):
    return (eps - bottom) ** 2 + 1


EPS = (-0.5, 0.0, 0.5)


def probed(*steps, pooled):
    return ProbeState(WINDOW, Trigger.MONITORING).add(steps, len(EPS), pooled=pooled)


def fit_of(probe, step=None):
    return probe.fitted(0.1, EPS, step=step, last=True, checks=1)


def test_a_probe_along_one_step_has_an_observation_for_each_minibatch():
    seen = fit_of(probed([[bowl(e, 0.2), bowl(e, 0.4)] for e in EPS], pooled=False))
    assert seen.quadratic.minimum == pytest.approx(0.3)
    assert seen.loss == pytest.approx(1 + (0.2**2 + 0.4**2) / 2)  # at eps = 0
    assert seen.quadratic.stderr == pytest.approx(0.1)  # two minibatches, 0.1 to either side of the mean


def test_a_probe_along_several_steps_has_an_observation_for_each_step():
    # Minibatches along one step share its direction: their agreement says nothing of the next step's.
    steps = ([[bowl(e, bottom)] * 50 for e in EPS] + [[2.0, 4.0] * 25] for bottom in (0.2, 0.4))
    probe = probed(*steps, pooled=True)
    seen = fit_of(probe)
    assert seen.quadratic.minimum == pytest.approx(0.3)
    assert seen.quadratic.stderr == pytest.approx(0.1)  # of two steps, and not of a hundred minibatches
    assert (seen.step, seen.total_steps) == (WINDOW.step, WINDOW.total_steps), "where it began, not where it ended"
    assert fit_of(probe, step=40).step == 40, "unless it says so"
    assert probe.validation == ((3.0,), (3.0,))


def test_one_sample_that_is_not_finite_leaves_no_parabola():
    assert fit_of(probed([[1.0, 1.0], [1.0, 1.0], [1.0, math.nan]], pooled=False)).quadratic is None


@pytest.mark.parametrize("drop", [None, LossDrop(0.1, 0.01)])
def test_a_probe_goes_into_a_checkpoint_and_goes_on_from_there(drop):
    step = [[bowl(e, 0.2)] for e in EPS] + [[3.0]]
    probe = ProbeState(dataclasses.replace(WINDOW, drop=drop), Trigger.SATURATED, {"rate": 0.5})
    probe = probe.add([step], len(EPS), pooled=True)
    resumed = ProbeState.from_dict(json.loads(json.dumps(dataclasses.asdict(probe))))
    assert resumed == probe
    step = [[bowl(e, 0.5)] for e in EPS] + [[3.0]]
    one, other = (each.add([step], len(EPS), pooled=True) for each in (probe, resumed))
    assert fit_of(one) == fit_of(other)
    assert fit_of(other).why is Trigger.SATURATED


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_mean_of_losses_is_nan_as_soon_as_one_is_not_finite(bad):
    assert mean([1.0, 2.0, 6.0]) == 3.0
    assert math.isnan(mean([1.0, bad]))
    assert math.isnan(mean([math.inf, -math.inf]))
    assert finite([1.0, -2.0])
    assert not finite([1.0, bad])
