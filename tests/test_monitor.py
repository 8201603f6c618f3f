"""`Monitor`: it probes, it tells what it saw, and it never touches the learning rate."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolr.numerics.quadratic import Quadratic
from autolr.numerics.saturation import LossDrop
from autolr.policies import ExploreExploit, Monitor
from autolr.policies.window_state import ProbeFit, WindowResult
from autolr.policies.wording import explain

rates = st.floats(1e-8, 1e2)
any_loss = st.floats(allow_nan=True, allow_infinity=True)
drops = st.none() | st.builds(LossDrop, rate=st.floats(-10, 10), stderr=st.floats(0, 1))
fits = st.none() | st.builds(
    Quadratic,
    k0=st.floats(-10, 10), k1=st.floats(-10, 10), k2=st.floats(-10, 10), noise=st.floats(0, 1), reach=rates,
    minimum=st.none() | st.floats(-1e6, 1e6), stderr=st.none() | st.floats(0, 1),
)  # fmt: skip


def at_a_windows_end(policy, window):
    return policy.judge(policy.own_state(), window)[1]


def after_a_probe(policy, fit):
    return policy.advise(policy.own_state(), fit)[1]


@given(step=st.integers(1, 99), lr=rates, start=any_loss, end=any_loss, drop=drops)
def test_every_window_ends_with_a_probe_whatever_the_loss_did(step, lr, start, end, drop):
    decision = at_a_windows_end(Monitor(), WindowResult(step, 100, lr, start, end, 10, drop))
    assert (decision.verdict, decision.lr) == ("look", lr)


@given(step=st.integers(1, 99), lr=rates, loss=any_loss, quadratic=fits, adaptive=st.booleans())
def test_no_probe_changes_the_learning_rate(step, lr, loss, quadratic, adaptive):
    policy = Monitor.adaptive() if adaptive else Monitor()
    decision = after_a_probe(policy, ProbeFit(step, 100, lr, loss, quadratic))
    assert (decision.verdict, decision.lr) == ("keep", lr)


@pytest.mark.parametrize(
    ("quadratic", "told"),
    [
        (None, "LR kept at 0.1: monitoring, and a sampled loss is not finite"),
        (Quadratic(1, 0, -1, 0, 1, None, None), "LR kept at 0.1: monitoring, and the fit has no minimum"),
        (Quadratic(1, -1, 1, 0, 1, 0.5, 0.1), "LR kept at 0.1: monitoring, and the fit asks for +0.5 of the LR"),
        (Quadratic(1, 1, 1, 0, 1, -0.5, 0.1), "LR kept at 0.1: monitoring, and the fit asks for -0.5 of the LR"),
    ],
)
def test_the_reason_tells_what_the_fit_asked_for(quadratic, told):
    assert explain(after_a_probe(Monitor(), ProbeFit(1, 10, 0.1, 2.0, quadratic)), 0.1, "monitor") == told


def test_it_samples_where_the_papers_policy_does_so_that_the_two_can_be_compared():
    assert Monitor().eps == ExploreExploit().eps


def test_it_asks_for_no_snapshots_and_has_one_phase():
    assert Monitor().rollback is False
    assert len({Monitor().phase_at(step, 10) for step in range(10)}) == 1


@pytest.mark.parametrize(
    "eps",
    [
        pytest.param((), id="none"),
        pytest.param((0.0,), id="one"),
        pytest.param((-1.0, 1.0), id="no zero"),
        pytest.param((-1.0, -0.5, 0.5, 1.0), id="no zero among four"),
        pytest.param((-0.5, 0.0, 0.25), id="not symmetric"),
        pytest.param((0.0, 0.25, 0.5), id="one-sided"),
        pytest.param((-2.0, 0.0, 2.0), id="before the step"),
        pytest.param((-math.inf, 0.0, math.inf), id="infinite"),
        pytest.param((-0.5, 0.0, math.nan), id="NaN"),
        pytest.param((0.0, 0.0, 0.0), id="all the same"),
    ],
)
def test_samples_that_no_probe_can_use_are_refused_with_what_was_got(eps):
    with pytest.raises(ValueError, match="eps must hold 0 and at least one pair") as refused:
        Monitor(eps=eps)
    assert f"got {eps}" in str(refused.value)


@pytest.mark.parametrize("eps", [(-1.0, 0.0, 1.0), (0.1, 0.0, -0.1), (-1, -0.5, 0, 0.5, 1)])
def test_samples_up_to_the_whole_step_either_way_are_welcome_in_any_order(eps):
    assert Monitor(eps=eps).eps == eps


@pytest.mark.parametrize("eps", [0.5, None, "0.5", ("-0.5", "0", "0.5"), (-0.5, None, 0.5), {-0.5, 0.0, 0.5}])
def test_samples_that_are_no_sequence_of_numbers_are_refused_with_what_was_got(eps):
    with pytest.raises(TypeError, match="eps must be a sequence of numbers") as refused:
        Monitor(eps=eps)
    assert f"got {eps!r}" in str(refused.value)
