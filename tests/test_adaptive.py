"""Probes that go on until they are sure: what they decide, how often they are wrong, and what they cost."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autolr.numerics.quadratic import fit_quadratic
from autolr.numerics.significance import checkpoints, critical
from autolr.policies import ExploreExploit, Monitor, Trigger
from autolr.policies.window_state import ProbeFit
from training_runs import BATCHES_OF_LINES, cross_entropy, plain_update, run, seed_everything, sgd, tuned_by

pytestmark = pytest.mark.long

EPS = (-0.5, 0.0, 0.5)
LR = 0.1
POLICY = ExploreExploit.adaptive(explore=0.5, epsilon=1e9)
EXPLORING, EXPLOITING = 10, 90


def observations(bottom, noise, n, seed=0, bend=1.0):
    """``n`` parabolas whose slopes scatter; the expected bottom is ``bottom`` LRs from the step."""
    slopes = -2 * bend * bottom + noise * np.random.default_rng(seed).standard_normal(n)
    return [1 + slope * e + bend * e**2 for e in EPS for slope in [slopes]]


def probe(bottom, noise=0.1, n=16, step=EXPLOITING, seed=0, bend=1.0, **more):
    fit = fit_quadratic(EPS, observations(bottom, noise, n, seed, bend))
    return ProbeFit(step, 100, LR, 1.0, fit, **{"last": False, "checks": 6} | more)


def advice(policy, seen):
    return policy.advise(policy.own_state(), seen)[1]


T = Trigger


@pytest.mark.parametrize(
    ("seen", "verdict", "trigger"),
    [
        (probe(0.4), "raise", T.SURELY_MORE),
        (probe(0.4, step=EXPLORING), "raise", T.SURELY_MORE),
        (probe(-0.4), "lower", T.SURELY_LESS),
        (probe(-0.4, step=EXPLORING), "keep", T.DECREASE_REFUSED),
        (probe(0.0, noise=1e-3, n=64), "keep", T.NO_CHANGE),
        (probe(-0.3, noise=4.0, n=8, step=EXPLORING), "keep", T.NO_RISE),
        (probe(-0.3, noise=4.0, n=4, step=EXPLORING), "look", T.UNDECIDED),
        (probe(-0.3, noise=4.0, n=8, step=EXPLOITING), "look", T.UNDECIDED),
        (probe(0.4, noise=10.0), "look", T.UNDECIDED),
        (probe(0.4, noise=10.0, last=True), "keep", T.UNDECIDED),
    ],
)
def test_a_verdict_waits_until_it_is_sure(seen, verdict, trigger):
    decision = advice(POLICY, seen)
    assert (decision.verdict, decision.trigger) == (verdict, trigger)
    assert (decision.lr == LR) == (verdict in {"keep", "look"})


@pytest.mark.parametrize(
    ("seen", "verdict", "trigger"),
    [
        # A saturated LR has its minimum at half its step: four observations need only not speak against it.
        (probe(-0.3, noise=4.0, n=4, why=T.SATURATED), "lower", T.NOT_SURELY_MORE),
        (probe(0.3, noise=4.0, n=4, why=T.SATURATED), "lower", T.NOT_SURELY_MORE),
        (probe(0.4, noise=0.1, n=4, why=T.SATURATED), "raise", T.SURELY_MORE),
        (probe(-0.3, noise=4.0, n=4, why=T.MONITORING), "look", T.UNDECIDED),
        # A probe for a rise is given up as early where explore has ended meanwhile.
        (probe(-0.3, noise=4.0, n=8, why=T.EXPLORING), "keep", T.NO_RISE),
        (probe(-0.3, noise=4.0, n=4, why=T.EXPLORING), "look", T.UNDECIDED),
        (probe(-0.4, why=T.EXPLORING), "lower", T.SURELY_LESS),
        (probe(0.4, why=T.EXPLORING), "raise", T.SURELY_MORE),
    ],
)
def test_what_a_probe_was_begun_for_decides_how_much_it_has_to_see(seen, verdict, trigger):
    decision = advice(POLICY, seen)
    assert (decision.verdict, decision.trigger, decision.because) == (verdict, trigger, seen.why)


def test_a_saturated_rate_is_halved_exactly_and_the_epsilon_threshold_holds_here_too():
    seen = probe(-0.3, noise=4.0, n=4, why=T.SATURATED)
    assert advice(POLICY, seen).lr == LR / 2
    decision = advice(dataclasses.replace(POLICY, epsilon=1e-6), seen)
    assert decision.lr == pytest.approx(LR - 1e-2)  # |eps|^3 < 1e-6 * a loss of 1
    assert decision.numbers["epsilon"] == 1e-6
    assert decision.numbers["held"] == pytest.approx(-0.1)  # of the LR


def test_within_8_percent_a_rate_that_is_too_high_comes_down():
    """Noisy least squares at a rate ten times too high: the noise floor is in proportion to the rate."""

    def trained_at_the_end(policy, overhead):
        torch.manual_seed(0)
        truth = torch.randn(10)
        inputs = torch.randn(200, 16, 10)
        batches = list(zip(inputs, inputs @ truth + torch.randn(200, 16), strict=True))
        model = torch.nn.Linear(10, 1, bias=False)

        def loss_fn(model, batch):
            return (model(batch[0]).squeeze(1) - batch[1]).square().mean()

        optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
        if policy is not None:
            optimizer = tuned_by(optimizer, model, loss_fn, batches, 1000, policy=policy, overhead=overhead)
        for step in range(1000):
            optimizer.zero_grad()
            loss_fn(model, batches[step % 200]).backward()
            optimizer.step()
        return (model.weight.detach().squeeze() - truth).square().sum().item(), optimizer

    fixed, _ = trained_at_the_end(None, None)
    cheap, optimizer = trained_at_the_end(ExploreExploit.adaptive(), 0.08)
    assert optimizer.cost.share(1000) <= 0.08
    assert optimizer.lr <= 0.2 / 8
    assert cheap < fixed / 4


@pytest.mark.parametrize(("slope", "verdict", "lr"), [(-1.0, "raise", 2 * LR), (1.0, "lower", LR / 2)])
def test_a_straight_line_has_a_direction_and_no_minimum_so_the_bounds_hold_the_change(slope, verdict, lr):
    rows = [[1 + (slope + x) * e for x in (-0.01, 0.0, 0.01, 0.02)] for e in EPS]
    seen = ProbeFit(EXPLOITING, 100, LR, 1.0, fit_quadratic(EPS, rows), last=False, checks=6)
    assert seen.quadratic.minimum is None
    decision = advice(POLICY, seen)
    assert (decision.verdict, decision.lr) == (verdict, pytest.approx(lr))


@given(st.sampled_from([0.4, -0.4, 0.0, 2.0]), st.floats(0.01, 5), st.integers(0, 50))
def test_what_the_units_of_eps_are_makes_no_difference(bottom, noise, seed):
    rows = observations(bottom, noise, 12, seed)
    margins = [fit_quadratic([e * unit for e in EPS], rows).margin(0.1 * unit) for unit in (1e-7, 1.0, 30.0)]
    assert margins == pytest.approx([margins[0]] * 3, rel=1e-6)


def test_the_wrong_sign_is_as_rare_as_the_confidence_says():
    # No bottom beside the step itself: every raise or decrease is wrong. Asked at every checkpoint, as a probe does.
    probes, most, wrong = 300, 64, 0
    policy = dataclasses.replace(POLICY, least=0.0)
    for seed in range(probes):
        rows = np.asarray(observations(0.0, 1.0, most, seed))
        for n in checkpoints(most):
            fit = fit_quadratic(EPS, rows[:, :n])
            seen = ProbeFit(EXPLOITING, 100, LR, 1.0, fit, last=n == most, checks=len(checkpoints(most)))
            decision = advice(policy, seen)
            if decision.verdict != "look":
                break
        wrong += decision.verdict in {"raise", "lower"}
    # Either sign is an error here, each with 1 - confidence at most: 0.2 in all, and 0.25 with the error of 300 probes.
    assert 0.02 < wrong / probes < 0.25


def test_taken_at_its_word_the_same_fit_is_wrong_every_time():
    # The control: the paper's reading of these very probes always moves the rate.
    paper = ExploreExploit(explore=0.0, epsilon=1e9)
    verdicts = {advice(paper, probe(0.0, noise=1.0, seed=seed)).verdict for seed in range(30)}
    assert verdicts == {"raise", "lower"}


def test_the_interval_is_where_the_margin_is_at_its_quantile():
    fit = probe(0.3, noise=0.5).quadratic
    low, high = fit.interval(0.9)
    sure = critical(0.95, 1, fit.observations)
    assert low < fit.minimum < high
    assert fit.margin(low) == pytest.approx(sure, rel=1e-6)
    assert fit.margin(high) == pytest.approx(-sure, rel=1e-6)


def test_with_a_bend_within_its_noise_the_minimum_may_be_anywhere():
    rows = [[1 + 0.1 * x * e + 0.1 * x * e**2 for x in (-3, -1, 1, 3, 5)] for e in EPS]
    assert fit_quadratic(EPS, rows).interval(0.9) == (-math.inf, math.inf)
    assert fit_quadratic(EPS, [[1.0], [0.5], [1.0]]).interval(0.9) == (-math.inf, math.inf)
    assert math.isnan(fit_quadratic(EPS, [[1.0], [0.5], [1.0]]).margin(0))


def test_a_flat_loss_has_no_direction_whatever_the_rounding():
    fit = fit_quadratic(EPS, [[1.0] * 8, [1.0 + 1e-9] * 8, [1.0 + 2e-9] * 8])
    assert abs(fit.margin(0)) < 1


def trained(policy, steps=200, **settings):
    seed_everything(0)
    model = torch.nn.Linear(6, 2)
    optimizer = tuned_by(
        sgd(model), model, cross_entropy, BATCHES_OF_LINES, steps, policy=policy, overhead=math.inf, **settings
    )
    for step in range(steps):
        plain_update(model, optimizer, cross_entropy, BATCHES_OF_LINES[step % 6], step)
    return optimizer


SURE = {T.SURELY_MORE, T.SURELY_LESS, T.NO_CHANGE}


def test_a_probe_ends_at_the_checkpoint_where_it_is_sure_and_costs_no_more():
    optimizer = trained(Monitor.adaptive(), window=10, superbatch=6)
    probes = [record for record in optimizer.history if record.eps]
    assert len(probes) > 10
    assert {record.observations for record in probes[:-1]} <= set(checkpoints(6))
    for record in probes[:-1]:
        assert record.observations == 6 or record.trigger in SURE
    assert optimizer.cost.probes == pytest.approx(3 * sum(record.observations for record in probes), abs=3 * 6)


def test_under_a_budget_a_probe_waits_for_its_forwards_and_ends_all_the_same():
    seed_everything(0)
    model = torch.nn.Linear(6, 2)
    settings = {"policy": Monitor.adaptive(), "window": 10, "superbatch": 6, "overhead": 0.04}
    optimizer = tuned_by(sgd(model), model, cross_entropy, BATCHES_OF_LINES, 1500, **settings)
    for step in range(1500):
        plain_update(model, optimizer, cross_entropy, BATCHES_OF_LINES[step % 6], step)
    probes = [record for record in optimizer.history if record.observations in checkpoints(6)]
    assert len(probes) >= 3
    assert optimizer.cost.share(1500) <= 0.04


@pytest.mark.parametrize("policy", [Monitor.adaptive(), Monitor.adaptive(0.5)], ids=["0.9", "0.5"])
def test_probes_that_go_on_until_they_are_sure_leave_training_alone(policy):
    alone = run(tuned=False, steps=40)
    tuned = run(tuned=True, steps=40, policy=policy, window=3, superbatch=6, overhead=0.9)
    assert alone.prints == tuned.prints
    assert alone.losses == tuned.losses
    assert any(record.eps for record in tuned.optimizer.history)


def test_a_run_that_ends_in_the_middle_of_a_probe_says_so():
    optimizer = trained(Monitor.adaptive(0.99), steps=14, window=10, superbatch=6)
    last = optimizer.history[-1]
    assert (last.trigger, last.observations, last.step) == (T.RUN_ENDED, 5, 14)


def test_the_90_percent_interval_holds_the_truth_85_to_95_percent_of_the_time():
    held, bounded, rng = 0, 0, np.random.default_rng(0)
    for _ in range(600):
        slopes, bends = 0.6 + rng.normal(0, 0.4, 8), 1 + rng.normal(0, 0.2, 8)
        fit = fit_quadratic(EPS, [1 + slopes * e + bends * e**2 for e in EPS])
        low, high = fit.interval(0.9)
        held += low < -0.3 < high
        bounded += math.isfinite(high - low)
    assert bounded > 500, "an interval that is all there is holds everything"
    assert 0.85 <= held / 600 <= 0.95
