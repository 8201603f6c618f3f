"""Looks that go on until they are sure: what they decide, how often they are wrong, and what they cost."""

import dataclasses
import importlib
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import autolr
from autolr.numerics.significance import checkpoints, critical
from autolr.policies import Monitor, Look, ExploreExploit
from autolr.numerics.quadratic import fit_quadratic
from training_runs import BATCHES_OF_LINES, cross_entropy, network, plain_update, run, seed_everything, sgd

EPS = (-0.5, 0.0, 0.5)
LR = 0.1
POLICY = ExploreExploit.adaptive(explore=0.5, epsilon=1e9)
EXPLORING, EXPLOITING = 10, 90


def observations(bottom, noise, n, seed=0, bend=1.0):
    """``n`` parabolas whose slopes scatter; the expected bottom is ``bottom`` LRs from the step."""
    slopes = -2 * bend * bottom + noise * np.random.default_rng(seed).standard_normal(n)
    return [1 + slope * e + bend * e**2 for e in EPS for slope in [slopes]]


def look(bottom, noise=0.1, n=16, step=EXPLOITING, seed=0, bend=1.0, **more):
    fit = fit_quadratic([e * LR for e in EPS], observations(bottom, noise, n, seed, bend))
    return Look(step, 100, LR, 1.0, fit, **{"last": False, "checks": 6} | more)


@pytest.mark.parametrize(
    ("seen", "verdict", "says"),
    [
        (look(0.4), "raise", "surely asks for more"),
        (look(0.4, step=EXPLORING), "raise", "surely asks for more"),
        (look(-0.4), "lower", "surely asks for less"),
        (look(-0.4, step=EXPLORING), "keep", "surely asks for a decrease"),
        (look(0.0, noise=1e-3, n=64), "keep", "no change worth making"),
        (look(-0.3, noise=4.0, n=8, step=EXPLORING), "keep", "sees no rise"),
        (look(-0.3, noise=4.0, n=4, step=EXPLORING), "look", "undecided"),
        (look(-0.3, noise=4.0, n=8, step=EXPLOITING), "look", "undecided"),
        (look(0.4, noise=10.0), "look", "undecided"),
        (look(0.4, noise=10.0, last=True), "keep", "undecided"),
    ],
)
def test_a_verdict_waits_until_it_is_sure(seen, verdict, says):
    _, decision = POLICY.decide(POLICY.begin(), seen)
    assert decision.verdict == verdict
    assert says in decision.reason
    assert (decision.lr == LR) == (verdict in {"keep", "look"})


HOPED, USED_UP = "exploring: every window ends with a look", "saturated (loss-drop rate 0 a step)"


@pytest.mark.parametrize(
    ("seen", "verdict", "says"),
    [
        # An LR that is used up has its minimum at half its step: four observations need only not speak against it.
        (look(-0.3, noise=4.0, n=4, why=USED_UP), "lower", "used up, and the fit does not surely ask for more"),
        (look(0.3, noise=4.0, n=4, why=USED_UP), "lower", "used up"),
        (look(0.4, noise=0.1, n=4, why=USED_UP), "raise", "surely asks for more"),
        (look(-0.3, noise=4.0, n=4, why=""), "look", "undecided"),
        # A look for a rise is given up as early where explore has ended meanwhile.
        (look(-0.3, noise=4.0, n=8, why=HOPED), "keep", "sees no rise"),
        (look(-0.3, noise=4.0, n=4, why=HOPED), "look", "undecided"),
        (look(-0.4, why=HOPED), "lower", "surely asks for less"),
        (look(0.4, why=HOPED), "raise", "surely asks for more"),
    ],
)
def test_what_a_look_was_begun_for_decides_how_much_it_has_to_see(seen, verdict, says):
    _, decision = POLICY.decide(POLICY.begin(), seen)
    assert decision.verdict == verdict
    assert says in decision.reason


def test_a_used_up_rate_is_halved_exactly_and_the_epsilon_threshold_holds_here_too():
    seen = look(-0.3, noise=4.0, n=4, why=USED_UP)
    assert POLICY.decide(POLICY.begin(), seen)[1].lr == LR / 2
    strict = dataclasses.replace(POLICY, epsilon=1e-6)
    _, decision = strict.decide(strict.begin(), seen)
    assert decision.lr == pytest.approx(LR - 1e-2)  # |eps|^3 < 1e-6 * a loss of 1
    assert "held to" in decision.reason


@pytest.mark.parametrize("seed", range(3))
def test_within_2_percent_a_rate_that_is_too_high_comes_down_as_with_the_paper_s_looks(seed):
    """Noisy least squares at a rate ten times too high: the noise floor is in proportion to the rate."""

    def trained_at_the_end(policy, overhead):
        torch.manual_seed(seed)
        truth = torch.randn(10)
        inputs = torch.randn(200, 16, 10)
        batches = list(zip(inputs, inputs @ truth + torch.randn(200, 16), strict=True))
        model = torch.nn.Linear(10, 1, bias=False)

        def loss_fn(model, batch):
            return (model(batch[0]).squeeze(1) - batch[1]).square().mean()

        optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
        if policy is not None:
            optimizer = autolr.AutoLR(optimizer, model, loss_fn, batches, 4000, policy=policy, overhead=overhead)
        for step in range(4000):
            optimizer.zero_grad()
            loss_fn(model, batches[step % 200]).backward()
            optimizer.step()
        return (model.weight.detach().squeeze() - truth).square().sum().item(), optimizer

    fixed, _ = trained_at_the_end(None, None)
    cheap, optimizer = trained_at_the_end(ExploreExploit.adaptive(), 0.02)
    assert optimizer.cost.share(4000) <= 0.02
    assert optimizer.lr <= 0.2 / 8
    assert cheap < fixed / 4


@pytest.mark.parametrize(("slope", "verdict", "lr"), [(-1.0, "raise", 2 * LR), (1.0, "lower", LR / 2)])
def test_a_straight_line_has_a_direction_and_no_minimum_so_the_bounds_hold_the_change(slope, verdict, lr):
    rows = [[1 + (slope + x) * e for x in (-0.01, 0.0, 0.01, 0.02)] for e in EPS]
    seen = Look(EXPLOITING, 100, LR, 1.0, fit_quadratic([e * LR for e in EPS], rows), last=False, checks=6)
    assert seen.quadratic.minimum is None
    _, decision = POLICY.decide(POLICY.begin(), seen)
    assert (decision.verdict, decision.lr) == (verdict, pytest.approx(lr))


@given(st.sampled_from([0.4, -0.4, 0.0, 2.0]), st.floats(0.01, 5), st.integers(0, 50))
def test_what_the_units_of_the_rate_are_makes_no_difference(bottom, noise, seed):
    rows = observations(bottom, noise, 12, seed)
    margins = [fit_quadratic([e * lr for e in EPS], rows).margin(0.1 * lr) for lr in (1e-7, 1.0, 30.0)]
    assert margins == pytest.approx([margins[0]] * 3, rel=1e-6)


def test_the_wrong_sign_is_as_rare_as_the_confidence_says():
    # No bottom beside the step itself: every raise or decrease is wrong. Asked at every checkpoint, as a look does.
    looks, most, wrong = 600, 64, 0
    policy = dataclasses.replace(POLICY, least=0.0)
    for seed in range(looks):
        rows = np.asarray(observations(0.0, 1.0, most, seed))
        for n in checkpoints(most):
            fit = fit_quadratic([e * LR for e in EPS], rows[:, :n])
            seen = Look(EXPLOITING, 100, LR, 1.0, fit, last=n == most, checks=len(checkpoints(most)))
            _, decision = policy.decide(policy.begin(), seen)
            if decision.verdict != "look":
                break
        wrong += decision.verdict in {"raise", "lower"}
    # Either sign is an error here, each with 1 - confidence at most: 0.2 in all, and 0.24 with the error of 600 looks.
    assert 0.02 < wrong / looks < 0.24


def test_taken_at_its_word_the_same_fit_is_wrong_every_time():
    # The control: the paper's reading of these very looks always moves the rate.
    paper = ExploreExploit(explore=0.0, epsilon=1e9)
    verdicts = {paper.decide(paper.begin(), look(0.0, noise=1.0, seed=seed))[1].verdict for seed in range(30)}
    assert verdicts == {"raise", "lower"}


def test_the_interval_is_where_the_margin_is_at_its_quantile():
    fit = look(0.3, noise=0.5).quadratic
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


def trained(policy, steps=400, **settings):
    seed_everything(0)
    model = network()
    optimizer = autolr.AutoLR(
        sgd(model), model, cross_entropy, BATCHES_OF_LINES, steps, policy=policy, overhead=math.inf, **settings
    )
    for step in range(steps):
        plain_update(model, optimizer, cross_entropy, BATCHES_OF_LINES[step % 6], step)
    return optimizer


def test_a_look_ends_at_the_checkpoint_where_it_is_sure_and_costs_no_more():
    optimizer = trained(Monitor.adaptive(), window=10, superbatch=6)
    looks = [record for record in optimizer.history if record.eps]
    assert len(looks) > 10
    assert {record.observations for record in looks[:-1]} <= set(checkpoints(6))
    for record in looks[:-1]:
        if record.observations < 6:
            assert "surely" in record.reason
    assert optimizer.cost.looks == pytest.approx(3 * sum(record.observations for record in looks), abs=3 * 6)


def test_under_a_budget_a_look_waits_for_its_forwards_and_ends_all_the_same():
    seed_everything(0)
    model = network()
    optimizer = autolr.AutoLR(
        sgd(model), model, cross_entropy, BATCHES_OF_LINES, 3000,
        policy=Monitor.adaptive(), window=10, superbatch=6, overhead=0.02,
    )  # fmt: skip
    for step in range(3000):
        plain_update(model, optimizer, cross_entropy, BATCHES_OF_LINES[step % 6], step)
    looks = [record for record in optimizer.history if record.observations in checkpoints(6)]
    assert len(looks) >= 3
    assert optimizer.cost.share(3000) <= 0.02


@pytest.mark.parametrize("policy", [Monitor.adaptive(), Monitor.adaptive(0.5)], ids=["0.9", "0.5"])
def test_looks_that_go_on_until_they_are_sure_leave_training_alone(policy):
    alone = run(tuned=False, steps=40)
    tuned = run(tuned=True, steps=40, policy=policy, window=3, superbatch=6, overhead=0.9)
    assert alone.prints == tuned.prints
    assert alone.losses == tuned.losses
    assert any(record.eps for record in tuned.optimizer.history)


def test_a_run_that_ends_in_the_middle_of_a_look_says_so():
    optimizer = trained(Monitor.adaptive(0.99), steps=14, window=10, superbatch=6)
    assert optimizer.history[-1].reason.endswith("the run ended before a verdict")
    assert optimizer.history[-1].observations == 5
    assert optimizer.history[-1].step == 14


@pytest.fixture
def coverage(monkeypatch):
    benchmarks = Path(__file__).parent.parent / "benchmarks"
    monkeypatch.syspath_prepend(str(benchmarks))
    yield importlib.import_module("coverage")
    for path in benchmarks.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.mark.parametrize(
    ("beta", "lr"), [(0.9, 0.1), *(pytest.param(b, r, marks=pytest.mark.slow) for b, r in [(0.9, 0.03), (0.9, 0.3)])]
)
def test_the_90_percent_interval_holds_the_truth_85_to_95_percent_of_the_time(coverage, beta, lr):
    torch.set_num_threads(1)
    row = coverage.measure(beta, lr, n=8, looks=500)
    assert row["looks"] == 500
    assert 0.85 <= row["held"] <= 0.95
    assert row["unbounded"] < 0.2  # an interval that is all there is holds everything
