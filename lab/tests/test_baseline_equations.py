"""Baselines that are ours, against their papers' equations: written out in plain numpy, and by algebra.

The problem is least squares in float64: the mean over a minibatch of (x . w - y)^2, the last weight being a bias.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from autolr_lab.baselines.baseline import TrainingRun
from autolr_lab.baselines.gen import LAZY, Gen
from autolr_lab.baselines.hypergradient import Hypergradient
from autolr_lab.baselines.l4 import L4
from autolr_lab.baselines.line_search import PAL_ALPHA, PAL_LARGEST, Pal, Sls, Sps, parabola_step
from autolr_lab.baselines.vsgd import Vsgd
from autolr_lab.training.optimizers import OPTIMIZERS
from autolr_lab.training.stepper import ReplayBatch

CLOSE = 1e-10  # float64, and sums in another order
EPOCH = 4  # minibatches


def problem(seed=0):
    """Minibatches of 3 examples of 3 features, and a constant one for the bias; where to begin."""
    random = np.random.default_rng(seed)
    truth = random.normal(size=4)
    batches = []
    for _ in range(EPOCH):
        x = np.column_stack([random.normal(size=(3, 3)), np.ones(3)])
        batches.append((x, x @ truth + 0.3 * random.normal(size=3)))
    return batches, random.normal(size=4)


def loss_of(w, batch):
    x, y = batch
    total = 0.0
    for row, target in zip(x, y, strict=True):
        total += (sum(a * b for a, b in zip(row, w, strict=True)) - target) ** 2
    return total / len(y)


def gradient_of(w, batch):
    x, y = batch
    gradient = np.zeros(len(w))
    for row, target in zip(x, y, strict=True):
        residual = sum(a * b for a, b in zip(row, w, strict=True)) - target
        for i, a in enumerate(row):
            gradient[i] += 2 * residual * a / len(y)
    return gradient


def torch_loss(model, batch):
    x, y = (torch.as_tensor(part) for part in batch)
    return (model(x[:, :-1])[:, 0] - y).square().mean()


def steps_of(make, batches, start, steps, times=1.0):
    """The weights after each step, the rates of the steps, and the stepper, of ``times`` the loss."""
    model = nn.Linear(3, 1).double()
    with torch.no_grad():
        model.weight.copy_(torch.as_tensor(start[:3]))
        model.bias.copy_(torch.as_tensor(start[3:]))
    stepper = make(list(model.parameters()))
    weights, rates = [], []
    for step in range(steps):
        batch = batches[step % len(batches)]
        replay = ReplayBatch(model, lambda model, batch: times * torch_loss(model, batch), batch)
        stepper.optimizer.zero_grad()
        loss = times * torch_loss(model, batch)
        loss.backward()
        stepper.step(loss.detach(), replay if stepper.replays else None)
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]).numpy())
        rates.append(stepper.rate)
    return np.array(weights), np.array(rates), stepper


def assert_same(found, expected, close=CLOSE):
    np.testing.assert_allclose(found, np.array(expected), rtol=close, atol=close)


DECAYS = pytest.mark.parametrize("decay", [0.0, 0.02])


# SPS.


@DECAYS
def test_sps_is_its_equation(decay):
    batches, w = problem()
    weights, rates, capped, before = [], [], 0, 1.0
    found, found_rates, _ = steps_of(lambda p: Sps(p, EPOCH, decay), batches, w, 24)
    for step in range(24):
        batch = batches[step % EPOCH]
        gradient = gradient_of(w, batch)
        asked, cap = loss_of(w, batch) / (0.5 * np.sum(gradient**2) + 1e-8), 2 ** (1 / EPOCH) * before
        rate = before = min(asked, cap)
        w = w - rate * (gradient + decay * w)
        capped += cap < asked
        weights.append(w)
        rates.append(rate)
    assert 0 < capped < 24  # both ways were gone
    assert_same(found, weights)
    assert_same(found_rates, rates)


def on_a_parabola(make, bend, distance, bottom=0.0, steps=1):
    """One weight on bend / 2 (w - bottom)^2, which begins at a ``distance``; the weights, and the stepper."""
    model = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        model.weight.fill_(bottom + distance)
    stepper = make(list(model.parameters()))

    def loss_fn(model, _):
        return (bend / 2 * (model.weight - bottom).square()).sum()

    weights = []
    for _ in range(steps):
        replay = ReplayBatch(model, loss_fn, None)
        stepper.optimizer.zero_grad()
        loss = loss_fn(model, None)
        loss.backward()
        stepper.step(loss.detach(), replay if stepper.replays else None)
        weights.append(model.weight.item())
    return weights, stepper


BENDS = st.floats(1.0, 100.0)
DISTANCES = st.floats(0.1, 10.0)
PLACES = st.floats(-10.0, 10.0)


@given(BENDS, DISTANCES, PLACES, st.integers(1, 100))
def test_sps_lands_on_the_bottom_of_a_parabola_in_one_step(bend, distance, bottom, epoch):
    # loss / (c g^2) = (a d^2 / 2) / (a^2 d^2 / 2) = 1 / a: Newton's step; at a >= 1 no cap is in the way.
    (weight,), stepper = on_a_parabola(lambda p: Sps(p, epoch), bend, distance, bottom)
    short = 1e-8 / (0.5 * (bend * distance) ** 2)  # by which the epsilon shortens it
    assert stepper.rate == pytest.approx(1 / bend, rel=2 * short + 1e-9)
    assert weight == pytest.approx(bottom, abs=2 * distance * short + 1e-12)


# SLS.


@DECAYS
def test_sls_is_its_equation(decay):
    batches, w = problem()
    weights, rates, trials, before = [], [], 0, 2 ** (-1 / EPOCH)
    found, found_rates, stepper = steps_of(lambda p: Sls(p, EPOCH, decay), batches, w, 24)
    for step in range(24):
        batch = batches[step % EPOCH]
        loss, gradient = loss_of(w, batch), gradient_of(w, batch)
        rate, trials = 2 ** (1 / EPOCH) * before, trials + 1
        while loss_of(w - rate * gradient, batch) > loss - 0.1 * rate * np.sum(gradient**2):
            rate, trials = 0.9 * rate, trials + 1
        before = rate
        w = w - rate * (gradient + decay * w)
        weights.append(w)
        rates.append(rate)
    assert trials > 2 * 24  # it had to search
    assert_same(found, weights)
    assert_same(found_rates, rates)
    assert stepper.forwards == trials


@given(st.floats(0.1, 100.0), DISTANCES, PLACES)
def test_sls_takes_the_first_rate_of_its_search_that_fulfils_armijo(bend, distance, bottom):
    # On a parabola Armijo's condition with c = 0.1 is rate <= 1.8 / a, whatever the place.
    _, stepper = on_a_parabola(lambda p: Sls(p, 10), bend, distance, bottom)
    most, rounding = 1.8 / bend, 1 + 1e-9
    assert stepper.rate <= most * rounding
    if stepper.forwards == 1:
        assert stepper.rate == pytest.approx(1.0, rel=1e-12)
    else:
        assert stepper.rate / 0.9 > most / rounding  # the one tried before did not
        assert stepper.rate == pytest.approx(0.9 ** (stepper.forwards - 1), rel=1e-12)


def test_sls_gives_up_after_a_hundred_trials_and_takes_a_tiny_step():
    model = nn.Linear(1, 1, bias=False).double()
    before = model.weight.item()
    stepper = Sls(model.parameters(), 10)
    replay = ReplayBatch(model, lambda *_: torch.ones(()), None)  # a loss that falls nowhere
    model.weight.grad = torch.full_like(model.weight, 3.0)
    stepper.step(torch.ones(()), replay)
    assert (stepper.rate, stepper.forwards) == (1e-6, 100)
    assert model.weight.item() == before - 3e-6


# PAL.


@DECAYS
def test_pal_is_its_algorithm(decay):
    batches, w = problem()
    weights, lengths, capped, direction = [], [], 0, np.zeros(4)
    found, found_lengths, stepper = steps_of(lambda p: Pal(p, decay), batches, w, 24)
    for step in range(24):
        batch = batches[step % EPOCH]
        loss, gradient = loss_of(w, batch), gradient_of(w, batch)
        direction = -gradient + 0.4 * direction
        unit = direction / math.sqrt(sum(d * d for d in direction))
        b = sum(g * u for g, u in zip(gradient, unit, strict=True))
        a = loss_of(w + 1.0 * unit, batch) - loss - b * 1.0
        assert a > 0  # least squares
        length = 0.0 if b >= 0 else min(-b / (2 * a) / 0.6, math.sqrt(10))
        capped += length in {0.0, math.sqrt(10)}
        w = w + length * (unit - decay * w)
        weights.append(w)
        lengths.append(length)
    assert_same(found, weights)
    assert_same(found_lengths, lengths)
    assert stepper.forwards == 24  # one a step
    assert capped < 24


COEFFICIENTS = {"level": st.floats(0, 10), "bend": st.floats(0.05, 10), "slope": st.floats(0.01, 10)}


@given(**COEFFICIENTS)
def test_a_parabola_s_step_is_to_its_bottom_times_alpha_and_never_beyond_the_longest(level, bend, slope):
    # level - slope s + bend s^2 has its bottom at slope / (2 bend).
    step = parabola_step(level, -slope, level - slope + bend)
    assert step == pytest.approx(min(slope / (2 * bend) / 0.6, 10**0.5), rel=1e-9, abs=1e-12)


@given(BENDS, st.floats(0.1, 1.8), PLACES, st.booleans())
def test_pal_corrected_by_alpha_lands_on_the_bottom_of_a_parabola(bend, distance, bottom, below):
    distance = -distance if below else distance
    (weight,), stepper = on_a_parabola(Pal, bend, distance, bottom)
    assert stepper.rate < PAL_LARGEST
    assert bottom + distance + (weight - bottom - distance) / PAL_ALPHA == pytest.approx(bottom, abs=1e-9)


# L4.


@DECAYS
@pytest.mark.parametrize("adam", [False, True])
def test_l4_is_its_section_3(adam, decay):
    batches, w = problem()
    mean, square = np.zeros(4), np.zeros(4)
    weights, rates, lowest, lowered = [], [], 0.0, 0
    found, found_rates, _ = steps_of(lambda p: L4(p, adam, decay), batches, w, 24)
    for step in range(24):
        batch = batches[step % EPOCH]
        loss, gradient = loss_of(w, batch), gradient_of(w, batch)
        if step == 0:
            lowest = 0.75 * loss
        elif loss < lowest:
            lowest, lowered = loss, lowered + 1
        for i in range(4):
            mean[i] = 0.9 * mean[i] + 0.1 * gradient[i]
            square[i] = 0.999 * square[i] + 0.001 * gradient[i] ** 2
        g = mean / (1 - 0.9 ** (step + 1))
        v = g / (np.sqrt(square / (1 - 0.999 ** (step + 1))) + 1e-4) if adam else g
        rate = 0.15 * (loss - 0.9 * lowest) / (sum(a * b for a, b in zip(g, v, strict=True)) + 1e-12)
        w = w - rate * (v + decay * w)
        lowest *= 1 + 1 / 1000
        weights.append(w)
        rates.append(rate)
    assert 0 < lowered < 23
    assert_same(found, weights)
    assert_same(found_rates, rates)


@given(st.floats(0.1, 10.0), st.floats(100.0, 1000.0), st.booleans())
def test_l4_s_first_step_goes_alpha_of_the_way_to_its_goal_on_a_straight_line(slope, level, adam):
    # The goal is gamma times gamma_0 of the first loss; a straight line is its own linearisation.
    model = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        model.weight.fill_(1.0)
    stepper = L4(model.parameters(), adam)
    loss = level + slope * model.weight.sum()
    loss.backward()
    stepper.step(loss.detach(), None)
    there = level + slope * model.weight.item()
    assert there == pytest.approx(loss.item() - 0.15 * (loss.item() - 0.9 * 0.75 * loss.item()), rel=1e-9)


# vSGD.


@DECAYS
def test_vsgd_is_its_algorithm_1(decay):
    batches, w = problem()
    batches = [batches[step % EPOCH] for step in range(40)]
    batches[25] = (batches[25][0], batches[25][1] + 100.0)  # an outlier
    g, v, h, h2, tau = (np.zeros(4) for _ in range(5))
    weights, outliers = [], 0
    found, _, stepper = steps_of(lambda p: Vsgd(p, decay), batches, w, 40)
    for step, batch in enumerate(batches):
        gradient = gradient_of(w, batch)
        shift = gradient if step == 0 else g.copy()
        shifted = gradient_of(w + shift, batch)
        rates = np.zeros(4)
        for i in range(4):
            curvature = abs((gradient[i] - shifted[i]) / shift[i])
            if step < 10:  # the slow start: plain means, those of squares ten times too large at its end
                tau[i] = step + 1
            else:
                far = abs(gradient[i] - g[i]) > 2 * math.sqrt(max(v[i] - g[i] ** 2, 0))
                far = far or abs(curvature - h[i]) > 2 * math.sqrt(max(h2[i] - h[i] ** 2, 0))
                tau[i] += far
                outliers += far
            g[i] = (1 - 1 / tau[i]) * g[i] + gradient[i] / tau[i]
            v[i] = (1 - 1 / tau[i]) * v[i] + gradient[i] ** 2 / tau[i]
            h[i] = (1 - 1 / tau[i]) * h[i] + curvature / tau[i]
            h2[i] = (1 - 1 / tau[i]) * h2[i] + curvature**2 / tau[i]
            if step == 9:
                v[i], h2[i] = 10 * v[i], 10 * h2[i]
            elif step > 9:
                rates[i] = h[i] / (h2[i] + 1e-12) * g[i] ** 2 / (v[i] + 1e-12)
                tau[i] = (1 - g[i] ** 2 / (v[i] + 1e-12)) * tau[i] + 1
        w = w - rates * (gradient + decay * w)
        weights.append(w)
    assert 4 <= outliers < 4 * 30  # all four of them at step 25
    assert_same(found, weights, 1e-9)
    assert stepper.forwards == 3 * 40  # a gradient more each step
    assert (found[:10] == found[0]).all()  # nothing moves in the slow start
    assert stepper.rate == pytest.approx(np.sort(rates)[1], rel=1e-9)  # of the two in the middle torch takes the lower


@settings(max_examples=10)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 1e-30, 1e-9, 1e9]))
def test_vsgd_has_no_nan_and_leaves_a_weight_that_nothing_moves(seed, size):
    batches, start = problem(seed)
    for x, _ in batches:
        x[:, 0] *= size
        x[:, 1] = 0.0
    weights, rates, _ = steps_of(Vsgd, batches, start, 30)
    assert np.isfinite(weights).all()
    assert np.isfinite(rates).all()
    assert (weights[:, 1] == start[1]).all()


# Hypergradient descent.


def sgd_updates(gradient, state):
    state["u"] = gradient
    return gradient


def momentum_updates(gradient, state):
    state["u"] = 0.9 * state.get("u", 0.0) + gradient
    return state["u"]


def adam_updates(gradient, state):
    state["t"] = state.get("t", 0) + 1
    state["m"] = 0.9 * state.get("m", 0.0) + 0.1 * gradient
    state["v"] = 0.999 * state.get("v", 0.0) + 0.001 * gradient**2
    return state["m"] / (1 - 0.9 ** state["t"]) / (np.sqrt(state["v"] / (1 - 0.999 ** state["t"])) + 1e-8)


UPDATES = {"sgd": (sgd_updates, 1e-3), "momentum": (momentum_updates, 1e-4), "adam": (adam_updates, 1e-3)}


@DECAYS
@pytest.mark.parametrize("name", UPDATES)
def test_hypergradient_is_its_equations(name, decay):
    updates, beta = UPDATES[name]
    batches, w = problem()

    def make(parameters):
        return Hypergradient(OPTIMIZERS[name](parameters, 0.02, weight_decay=decay), beta)

    found, found_rates, _ = steps_of(make, batches, w, 24)
    weights, rates, rate, state, before = [], [], 0.02, {}, None
    for step in range(24):
        gradient = gradient_of(w, batches[step % EPOCH])
        if before is not None:
            rate += beta * sum(a * b for a, b in zip(gradient, before, strict=True))
        before = updates(gradient + decay * w, state)
        w = w - rate * before
        weights.append(w)
        rates.append(rate)
    assert max(rates) > 1.05 * min(rates)  # it does move
    assert_same(found, weights)
    assert_same(found_rates, rates)


@given(st.lists(st.lists(st.floats(-3, 3), min_size=3, max_size=3), min_size=2, max_size=8), st.floats(1e-4, 1e-2))
def test_hypergradient_moves_the_rate_by_beta_times_the_product_of_two_gradients(gradients, beta):
    weight = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    stepper = Hypergradient(torch.optim.SGD([weight], 2.0), beta)
    rates = []
    for gradient in gradients:
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        stepper.step(torch.zeros(()), None)
        rates.append(stepper.rate)
    assert rates[0] == 2.0  # there is no step before the first
    for i in range(1, len(gradients)):
        product = sum(a * b for a, b in zip(gradients[i], gradients[i - 1], strict=True))
        assert rates[i] - rates[i - 1] == pytest.approx(beta * product, rel=1e-9, abs=1e-12)


def test_a_hypergradient_rate_of_zero_keeps_the_direction_that_it_had():
    weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    stepper = Hypergradient(torch.optim.SGD([weight], 1.0), 1.0)
    rates = []
    for gradient in (1.0, -1.0, 1.0):  # 1, then 1 - 1 = 0, then 0 + 1 * 1: by the direction of the first step
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        stepper.step(torch.zeros(()), None)
        rates.append(stepper.rate)
    assert rates == [1.0, 0.0, 1.0]
    assert weight.item() == -2.0


# GeN, which is its authors' code; what is ours is how it is used.


@pytest.mark.parametrize(("lr", "bounded"), [(0.1, False), (1e-3, True)])
def test_gen_is_its_equation(lr, bounded):
    pytest.importorskip("GeN")  # the extra "baselines"
    batches, w = problem()
    model, total, began = nn.Linear(3, 1).double(), 3 * LAZY, lr
    with torch.no_grad():
        model.weight.copy_(torch.as_tensor(w[:3]))
        model.bias.copy_(torch.as_tensor(w[3:]))
    others = batches[1:]  # its own minibatches, in another order than training's
    gen = Gen(TrainingRun(model, "sgd", lr, {}, torch_loss, lambda: others, EPOCH, total))
    asked, bounds = [], []
    for step in range(1, total + 1):
        batch = batches[step % EPOCH]
        gen.optimizer.zero_grad()
        loss = torch_loss(model, batch)
        loss.backward()
        gen.step(loss.detach(), None)
        along = gradient_of(w, batch)
        if step % LAZY == 0:
            other = others[(step // LAZY - 1) % len(others)]
            down, here, up = (loss_of(w - x * along, other) for x in (-lr, 0.0, lr))
            curvature, slope = (up - 2 * here + down) / lr**2, (down - up) / (2 * lr)
            if curvature > 0 and slope > 0:
                found = slope / curvature
                bounds.append(not lr / 2 < found < 2 * lr)
                lr = 0.1 * (1 - step / total) * min(max(found, lr / 2), 2 * lr) + 0.9 * lr
            asked.append(lr)
        w = w - lr * along
        assert gen.rate == pytest.approx(lr, rel=1e-5)  # its fit is iterative
    assert_same(torch.cat([p.detach().flatten() for p in model.parameters()]).numpy(), w, 1e-5)
    assert len({began, *asked}) > 1
    assert all(bounds) == bounded  # both ways are gone
    assert gen.forwards == 3 * len(asked)
