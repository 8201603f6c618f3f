"""The parabola against algebra: what it recovers, what it is indifferent to, and where it must not answer."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from autolr.numerics.quadratic import epsilon_threshold, fit_quadratic

SHARES = (-0.5, -0.25, 0.0, 0.25, 0.5)  # of the learning rate: where a probe samples by default

# A parabola in units of its own reach: level a, slope b, bend c. The bend is at least 1e-2, some 300 times what float32
# resolves beside losses of 25, so that there is a bottom to find; learning rates are anywhere in 1e-8..1e2.
levels, slopes, bends = st.floats(0.1, 10), st.floats(-5, 5), st.floats(1e-2, 10)
rates = st.floats(-8, 2).map(lambda exponent: 10**exponent)
# Float64 least squares on a well-conditioned design keeps 13 digits of losses up to 25; dividing by a bend of 1e-2
# costs about 4 of them. In units of the reach:
EXACT = 1e-8


def parabola(x, a, b, c):
    return a + b * x + c * x**2


def samples(a, b, c, unit=1.0, shares=SHARES):
    return [s * unit for s in shares], [[parabola(s, a, b, c)] for s in shares]


several = st.lists(st.tuples(levels, slopes, bends), min_size=2, max_size=6)  # one parabola a minibatch


def samples_of(minibatches, unit=1.0):
    return [s * unit for s in SHARES], [[parabola(s, *one) for one in minibatches] for s in SHARES]


# What it recovers.


@given(a=levels, b=slopes, c=bends, unit=rates)
def test_a_parabola_is_recovered_exactly(a, b, c, unit):
    fit = fit_quadratic(*samples(a, b, c, unit))
    assert fit.k0 == pytest.approx(a, abs=EXACT)
    assert fit.k1 * unit == pytest.approx(b, abs=EXACT)
    assert fit.k2 * unit**2 == pytest.approx(c, abs=EXACT)
    assert fit.minimum / unit == pytest.approx(-b / (2 * c), abs=EXACT, rel=EXACT)
    assert fit.reach == unit / 2
    assert fit.stderr is None  # one minibatch has no scatter


@given(b=slopes, c=bends, shares=st.lists(st.integers(-20, 20), min_size=3, max_size=7, unique=True))
def test_any_three_or_more_samples_will_do(b, c, shares):
    # Integers are at least 1 apart on a reach of 20 at most: condition number below 1e5, so two digits more are lost.
    eps, losses = samples(1.0, b, c, shares=[s / 20 for s in shares])
    assume(c * max(abs(e) for e in eps) ** 2 > 1e-5)  # a bend that float32 resolves on the range that is sampled
    assert fit_quadratic(eps, losses).minimum == pytest.approx(-b / (2 * c), abs=1e-6, rel=1e-6)


@given(minibatches=several, unit=rates)
def test_of_several_minibatches_it_is_the_parabola_of_the_mean(minibatches, unit):
    eps, losses = samples_of(minibatches, unit)
    together = fit_quadratic(eps, [[math.fsum(row) / len(row)] for row in losses])
    fit = fit_quadratic(eps, losses)
    assert fit.minimum / unit == pytest.approx(together.minimum / unit, abs=EXACT, rel=EXACT)
    assert fit.noise == pytest.approx(together.noise, rel=1e-6, abs=1e-12)


@given(minibatches=several)
def test_no_sample_lies_below_the_predicted_minimum(minibatches):
    fit = fit_quadratic(*samples_of(minibatches))
    assert all(fit(fit.minimum) <= fit(e) + EXACT for e in SHARES)


def test_its_prediction_is_the_polynomial_of_eq_2():
    fit = fit_quadratic([-1.0, 0.0, 1.0], [[6.0], [1.0], [2.0]])  # 1 - 2 eps + 3 eps^2, by hand
    assert (fit.k0, fit.k1, fit.k2) == pytest.approx((1, -2, 3))
    assert fit(2.0) == pytest.approx(9)
    assert fit.minimum == pytest.approx(1 / 3)


# What it is indifferent to.


@given(minibatches=several, unit=rates)
def test_the_answer_scales_with_the_units_of_lr(minibatches, unit):
    one, scaled = fit_quadratic(*samples_of(minibatches)), fit_quadratic(*samples_of(minibatches, unit))
    assert scaled.minimum == pytest.approx(unit * one.minimum, rel=EXACT, abs=EXACT * unit)
    assert scaled.stderr == pytest.approx(unit * one.stderr, rel=EXACT, abs=EXACT * unit)


@given(minibatches=several, scale=st.integers(-30, 30).map(lambda n: 2.0**n))
def test_the_units_of_the_loss_do_not_matter(minibatches, scale):
    # A power of two scales floats without rounding: only lstsq's own inner scaling is left.
    eps, losses = samples_of(minibatches)
    one, scaled = fit_quadratic(eps, losses), fit_quadratic(eps, [[scale * x for x in row] for row in losses])
    assert scaled.minimum == pytest.approx(one.minimum, rel=EXACT, abs=EXACT)
    assert scaled.stderr == pytest.approx(one.stderr, rel=EXACT, abs=EXACT)
    assert scaled.k2 == pytest.approx(scale * one.k2, rel=EXACT)
    # The floor under the noise is the losses' resolution, and that scales with them.
    assert scaled.noise == pytest.approx(scale * one.noise, rel=1e-6)


@given(minibatches=several, shift=st.floats(-100, 100))
def test_a_constant_added_to_the_loss_does_not_matter(minibatches, shift):
    # Beside losses of 125, float32 resolves 1.5e-5: well below the mean bend here, at least 1e-2 / 4 on this reach.
    eps, losses = samples_of(minibatches)
    one, shifted = fit_quadratic(eps, losses), fit_quadratic(eps, [[x + shift for x in row] for row in losses])
    assert shifted.minimum == pytest.approx(one.minimum, rel=1e-7, abs=1e-7)  # adding 100 rounds away two digits
    assert shifted.stderr == pytest.approx(one.stderr, rel=1e-6, abs=1e-6)


@given(b=slopes, c=bends, shift=st.floats(-2, 2))
def test_the_origin_of_eps_does_not_matter(b, c, shift):
    moved = [s + shift for s in SHARES]
    fit = fit_quadratic(moved, [[parabola(s, 1.0, b, c)] for s in SHARES])
    assert fit.minimum - shift == pytest.approx(-b / (2 * c), abs=1e-6, rel=1e-6)  # a far origin costs two digits


@given(minibatches=several)
def test_left_and_right_are_alike(minibatches):
    eps, losses = samples_of(minibatches)
    fit, mirrored = fit_quadratic(eps, losses), fit_quadratic(eps, losses[::-1])
    assert mirrored.minimum == pytest.approx(-fit.minimum, abs=EXACT, rel=EXACT)
    assert mirrored.stderr == pytest.approx(fit.stderr, abs=EXACT, rel=EXACT)


@given(minibatches=several, order=st.permutations(range(5)), data=st.data())
def test_the_order_of_samples_and_of_minibatches_does_not_matter(minibatches, order, data):
    columns = data.draw(st.permutations(range(len(minibatches))))
    eps, losses = samples_of(minibatches)
    fit = fit_quadratic(eps, losses)
    shuffled = fit_quadratic([eps[i] for i in order], [[losses[i][j] for j in columns] for i in order])
    assert shuffled.minimum == pytest.approx(fit.minimum, abs=EXACT, rel=EXACT)
    assert shuffled.stderr == pytest.approx(fit.stderr, abs=EXACT, rel=EXACT)


# Where it must not answer.


@given(level=st.floats(-100, 100), unit=rates)
def test_a_flat_loss_has_no_bottom(level, unit):
    fit = fit_quadratic(*samples(level, 0.0, 0.0, unit))
    assert fit.minimum is None
    assert fit.stderr is None


@given(level=st.floats(-100, 100), slope=st.floats(-100, 100), unit=rates)
def test_a_straight_loss_has_no_bottom(level, slope, unit):
    assert fit_quadratic(*samples(level, slope, 0.0, unit)).minimum is None


@given(level=st.floats(0.01, 100), slope=st.floats(-0.1, 0.1), unit=rates)
def test_a_straight_loss_rounded_to_float32_has_no_bottom(level, slope, unit):
    eps, losses = samples(level, slope * level, 0.0, unit)
    assert fit_quadratic(eps, [[float(np.float32(x)) for x in row] for row in losses]).minimum is None


@given(a=levels, b=slopes, c=bends, unit=rates)
def test_a_parabola_that_opens_downwards_has_no_bottom(a, b, c, unit):
    fit = fit_quadratic(*samples(a, b, -c, unit))
    assert fit.minimum is None
    assert fit.k2 < 0


@pytest.mark.parametrize(("times", "found"), [(0.5, False), (2.0, True)])
@pytest.mark.parametrize("level", [0.01, -2.3, 1000.0])
def test_a_bend_within_float32_rounding_of_the_loss_is_no_bend(level, times, found):
    bend = times * 2.0**-23 * abs(level)
    # The level of the mean loss counts, whatever its sign; the bend itself changes it by a millionth at most.
    fit = fit_quadratic([-1.0, 0.0, 1.0], [[level + bend], [level], [level + bend]])
    assert (fit.minimum is not None) is found


@pytest.mark.parametrize(("share", "found"), [(0.99, False), (1.01, True)])
def test_a_bend_within_the_misfit_is_no_bend(share, found):
    # (1, -4, 6, -4, 1) is orthogonal to every parabola over five even steps, so it is the misfit, of RMS sqrt(70 / 5).
    wiggle, x = 0.01 * np.array([1, -4, 6, -4, 1]), np.linspace(-1, 1, 5)
    misfit = 0.01 * math.sqrt(14)
    fit = fit_quadratic(x.tolist(), [[loss] for loss in 1 + share * misfit * x**2 + wiggle])
    assert fit.noise == pytest.approx(misfit)
    assert (fit.minimum is not None) is found


@given(a=levels, b=slopes, c=st.floats(-10, 10))
def test_the_noise_is_never_below_what_float32_resolves(a, b, c):
    eps, losses = samples(a, b, c)
    assert fit_quadratic(eps, losses).noise >= 2.0**-23 * max(abs(x) for (x,) in losses)


@given(
    unit=rates,
    losses=st.integers(1, 3).flatmap(
        lambda m: st.lists(st.lists(st.floats(-3e38, 3e38), min_size=m, max_size=m), min_size=5, max_size=5)
    ),
)
def test_finite_losses_never_give_nan(unit, losses):
    # All that float32 can hold. Warnings are errors here: nothing may overflow on the way either.
    fit = fit_quadratic([s * unit for s in SHARES], losses)
    answers = [fit.k0, fit.k1, fit.k2, fit.noise, fit.reach]
    answers += [x for x in (fit.minimum, fit.stderr) if x is not None]
    assert all(map(math.isfinite, answers))


# How sure it is.


@pytest.mark.parametrize("bottom", [-0.4, 0.1])
@pytest.mark.parametrize("correlation", [-0.8, 0.8])
def test_the_standard_error_is_the_spread_over_repeated_superbatches(bottom, correlation):
    # 1,000 superbatches of 50 minibatches whose slopes and bends scatter together. A standard deviation from 1,000
    # draws is known to 1 / sqrt(2000) = 2.2 %; the delta method leaves out terms of order 1 / 50. Bar: 8 %, nearly
    # four times either. A wrong sign in the formula is off by a third or more: scatters add where they should cancel.
    rng = np.random.default_rng(0)
    scatter = 0.5 * np.array([[1, correlation], [correlation, 1]])
    x = np.array(SHARES)
    minima, stderrs = [], []
    for _ in range(1000):
        b, c = rng.multivariate_normal([-2 * bottom, 1.0], scatter, size=50).T
        level = rng.normal(2, 1, size=50)  # easy and hard minibatches: common to all eps, so that it cancels
        fit = fit_quadratic(SHARES, level + np.outer(x, b) + np.outer(x**2, c))
        minima.append(fit.minimum)
        stderrs.append(fit.stderr)
    assert np.mean(stderrs) == pytest.approx(np.std(minima), rel=0.08)


@given(a=levels, b=slopes, c=bends, levels=st.lists(st.floats(0, 10), min_size=2, max_size=5))
def test_minibatches_that_differ_by_a_constant_leave_no_doubt(a, b, c, levels):
    fit = fit_quadratic(*samples_of([(a + level, b, c) for level in levels]))
    assert fit.stderr == pytest.approx(0, abs=EXACT * (1 + abs(fit.minimum)))


# What it refuses.


@pytest.mark.parametrize(
    ("eps", "losses", "message"),
    [
        pytest.param([-1, 0, 1], [[1.0], [2.0]], r"got 3 eps, losses of shape \(2, 1\)", id="a row too few"),
        pytest.param([-1, 0, 1], [1.0, 2.0, 3.0], r"losses of shape \(3,\)", id="not by minibatch"),
        pytest.param([0, 1, 0, 1], [[1.0]] * 4, r"3 distinct eps; got 2: \[0, 1\]", id="two distinct eps"),
        pytest.param([-1, 0, 1], [[1.0], [math.nan], [1.0]], "finite eps and losses", id="a NaN"),
        pytest.param([-1, 0, 1], [[1.0, 1.0], [1.0, -math.inf], [1.0, 1.0]], "finite eps and losses", id="an infinity"),
    ],
)
def test_samples_that_no_parabola_fits_are_refused_with_what_was_got(eps, losses, message):
    with pytest.raises(ValueError, match=message):
        fit_quadratic(eps, losses)


def test_losses_of_no_minibatch_are_refused():
    with pytest.raises(ValueError, match=r"minibatch|shape"):
        fit_quadratic([-1, 0, 1], [[], [], []])


@pytest.mark.parametrize("eps", [math.nan, math.inf])
def test_an_eps_that_is_not_finite_is_refused(eps):
    with pytest.raises(ValueError, match=r"finite"):
        fit_quadratic([eps, 0, 1], [[1.0], [0.5], [1.0]])


# Eq. 3.


@given(loss=st.floats(1e-12, 1e6), r=st.floats(1e-15, 1))
def test_the_epsilon_threshold_is_where_its_cube_reaches_r_times_the_loss(loss, r):
    assert epsilon_threshold(loss, r) ** 3 == pytest.approx(r * loss, rel=1e-12)  # a cube root and a cube: a few ulp


@pytest.mark.parametrize("loss", [0.0, -1.0])
def test_without_a_loss_above_zero_no_eps_is_small_enough(loss):
    assert epsilon_threshold(loss, 1e-3) == 0


def test_the_epsilon_threshold_of_table_7_in_numbers():
    assert epsilon_threshold(2.3, 1e-3) == pytest.approx(0.132, abs=5e-4)  # 132 times Adam's 1e-3 at MNIST's first loss
    assert epsilon_threshold(1.0, 1e-12) == pytest.approx(1e-4)  # SQuAD
