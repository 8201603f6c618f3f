"""The paper's policy as a pure function: what it may do, what it must not, and that it says why."""

import dataclasses
import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolr.policies import Look, Paper, Window
from autolr.quadratic import Quadratic
from autolr.saturation import LossDrop

TOTAL, STEPS = 1000, 10  # of a run and of a window
EXPLORING, EXPLOITING = 100, 500  # steps in the one phase and in the other, at the default share of 0.2


def saw(rate, *, lr=0.1, step=EXPLOITING, stderr=0.0, start=100.0):
    """A window in which the loss fell by ``rate`` a step."""
    drop = LossDrop(rate, stderr)
    return Window(step, TOTAL, lr, start_loss=start, end_loss=start - rate * STEPS, steps=STEPS, drop=drop)


def died(*, lr=0.1, step=EXPLOITING, end=math.nan):
    return Window(step, TOTAL, lr, start_loss=2.3, end_loss=end, steps=STEPS, drop=None)


def look(minimum, *, lr=0.1, step=EXPLOITING, loss=1.0):
    """A look whose parabola has its bottom at ``minimum``."""
    fit = Quadratic(k0=loss, k1=0.0, k2=1.0, noise=1e-7, reach=lr / 2, minimum=minimum, stderr=None)
    return Look(step, TOTAL, lr, loss, fit)


def states_after(policy, *windows):
    state = policy.begin()
    for window in windows:
        state, decision = policy.judge(state, window)
        assert decision.verdict in {"keep", "look"}
    return state


CALM = [saw(0.001, stderr=1e-4)] * 6  # the loss hardly moves, and one superbatch tells so: a rise of 1 is then a rise


# Its settings.

TABLE_7 = {  # explore epochs, total epochs, saturation threshold, epsilon threshold: as printed
    "mnist": (10, 50, 100, 1e-3),
    "fashion-mnist": (10, 50, 100, 1e-3),
    "cifar10": (50, 200, 100, 1e-3),
    "imagenet": (25, 90, 500, 1e-3),
    "iwslt14": (8, 50, 5, 1e-9),
    "squad": (0.45, 2, 2, 1e-12),
}


@pytest.mark.parametrize("name", TABLE_7)
def test_a_preset_is_its_row_of_table_7(name):
    explore_epochs, total_epochs, saturation, epsilon = TABLE_7[name]
    preset = Paper.preset(name)
    assert (preset.saturation, preset.epsilon) == (saturation, epsilon)
    # At 1,000 steps an epoch, the phase ends with the epoch of the table; rounding of the share may cost one step.
    exploring = sum(preset.phase(step, 1000 * total_epochs) == "explore" for step in range(1000 * total_epochs))
    assert exploring == pytest.approx(1000 * explore_epochs, abs=1)


def test_a_preset_is_the_default_policy_in_all_that_table_7_does_not_say():
    own = {"explore", "saturation", "epsilon"}
    for name in TABLE_7:
        preset = Paper.preset(name)
        assert preset == dataclasses.replace(Paper(), **{field: getattr(preset, field) for field in own})


def test_a_preset_that_table_7_does_not_have_is_refused_with_those_it_has():
    with pytest.raises(ValueError, match=r"cifar10.*squad; got 'cifar'"):
        Paper.preset("cifar")


@pytest.mark.parametrize(
    ("setting", "value", "allowed"),
    [
        ("explore", -0.1, "at least 0 and at most 1"),
        ("explore", 1.01, "at least 0 and at most 1"),
        ("explore", math.nan, "at least 0 and at most 1"),
        ("saturation", 1, "above 1"),
        ("saturation", 0.5, "above 1"),
        ("saturation", math.inf, "above 1"),
        ("epsilon", 0.0, "above 0"),
        ("epsilon", -1e-3, "above 0"),
        ("epsilon", math.nan, "above 0"),
        ("factor", 1.0, "above 1"),
        ("factor", 0.5, "above 1"),
        ("factor", math.inf, "above 1"),
        ("eps", (-0.5, 0.5), "at least one pair"),
        ("eps", (0.0, 0.25, 0.5), "at least one pair"),
        ("spread", 0, "at least 1"),
    ],
)
def test_a_setting_out_of_range_is_refused_with_what_was_got(setting, value, allowed):
    with pytest.raises(ValueError, match=f"{setting} must .*{allowed}") as refused:
        Paper(**{setting: value})
    assert f"got {value}" in str(refused.value)


@pytest.mark.parametrize("setting", ["explore", "saturation", "epsilon", "factor", "spread"])
@pytest.mark.parametrize("value", ["0.5", None, True])
def test_a_setting_that_is_no_number_is_refused_with_what_was_got(setting, value):
    with pytest.raises(TypeError, match=f"{setting} must be .*number.*got {value!r}"):
        Paper(**{setting: value})


@pytest.mark.parametrize(("explore", "exploring"), [(0.0, 0), (0.2, 200), (1.0, 1000)])
def test_the_explore_phase_is_the_first_share_of_the_steps(explore, exploring):
    phases = [Paper(explore=explore).phase(step, TOTAL) for step in range(TOTAL)]
    assert phases == ["explore"] * exploring + ["exploit"] * (TOTAL - exploring)


# After a look: how far the learning rate moves.

rates = st.floats(-8, 2).map(lambda exponent: 10**exponent)
advice = st.floats(-1e6, 1e6) | st.floats(-1e-9, 1e-9)
settings = st.builds(
    Paper,
    explore=st.floats(0, 1), saturation=st.floats(1.5, 500), epsilon=st.floats(-12, 0).map(lambda x: 10**x),
    factor=st.floats(1.01, 1e3), rollback=st.booleans(),
)  # fmt: skip


def check_move(policy, seen, decision, phase):
    """What holds after any look, whatever the fit says."""
    lr, loss = seen.lr, seen.loss
    assert decision.lr > 0
    ulps = 4 * math.ulp(max(lr, decision.lr))  # the sum of rate and step is rounded
    assert lr / policy.factor - ulps <= decision.lr <= lr * policy.factor + ulps
    moved = abs(decision.lr - lr)
    assert max(0.0, moved - ulps) ** 3 <= policy.epsilon * max(loss, 0.0) * (1 + 1e-12)  # eq. 3; a cube root's rounding
    assert decision.verdict == ("raise" if decision.lr > lr else "lower" if decision.lr < lr else "keep")
    if phase == "explore":
        assert decision.verdict != "lower"


@given(policy=settings, lr=rates, minimum=st.none() | advice, loss=st.floats(0, 1e4), step=st.integers(1, TOTAL))
def test_whatever_the_fit_says_the_rate_stays_above_zero_and_within_both_bounds(policy, lr, minimum, loss, step):
    seen = look(minimum, lr=lr, loss=loss, step=step)
    _, decision = policy.decide(policy.begin(), seen)
    check_move(policy, seen, decision, policy.phase(step, TOTAL))


@pytest.mark.parametrize("factor", [1e6, 1e15, 1e20])
def test_a_factor_that_bounds_nothing_still_leaves_a_rate_above_zero(factor):
    # As one would write to run the paper's rules without the bound that is not in the paper.
    _, decision = Paper(factor=factor).decide(Paper().begin(), look(-1.0, lr=0.01))
    assert decision.lr > 0


@pytest.mark.parametrize("step", [EXPLORING, EXPLOITING])
def test_advice_within_both_bounds_is_taken_as_it_is(step):
    _, decision = Paper().decide(Paper().begin(), look(0.03, lr=0.1, step=step))
    assert (decision.verdict, decision.lr) == ("raise", 0.1 + 0.03)
    assert decision.reason.startswith("LR raised from 0.1 to 0.13")


def test_in_the_exploit_phase_the_rate_is_lowered_as_the_fit_asks():
    _, decision = Paper().decide(Paper().begin(), look(-0.03, lr=0.1))
    assert (decision.verdict, decision.lr) == ("lower", 0.1 - 0.03)
    assert decision.reason.startswith("LR lowered from 0.1 to 0.07")


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(("loss", "epsilon"), [(1.0, 1e-3), (2.0, 1e-6), (0.25, 1e-12)])
def test_bolder_advice_is_held_to_the_epsilon_threshold(sign, loss, epsilon):
    _, decision = Paper(epsilon=epsilon).decide(Paper().begin(), look(sign * 0.9, lr=1.0, loss=loss))
    # |eps|^3 = r L; a cube root beside a rate of 1 is rounded to 1e-16, which is 1e-12 of the smallest here.
    assert decision.lr - 1.0 == pytest.approx(sign * (epsilon * loss) ** (1 / 3), rel=1e-11)
    assert "the epsilon threshold" in decision.reason


@pytest.mark.parametrize(("minimum", "lr"), [(1.0, 0.003), (-1.0, 1 / 3000)])
def test_where_the_epsilon_threshold_allows_more_the_factor_holds(minimum, lr):
    # Adam at 1e-3: eq. 3 alone would allow 0.1, a hundred times the rate.
    _, decision = Paper(factor=3.0).decide(Paper().begin(), look(minimum, lr=1e-3))
    assert decision.lr == pytest.approx(lr, rel=1e-12)
    assert "factor 3" in decision.reason


@pytest.mark.parametrize("minimum", [-1e-6, -0.03, -1e6])
def test_in_the_explore_phase_a_decrease_is_refused(minimum):
    _, decision = Paper().decide(Paper().begin(), look(minimum, step=EXPLORING))
    assert (decision.verdict, decision.lr) == ("keep", 0.1)
    assert "LR kept at 0.1: exploring, and the fit asks for a decrease" in decision.reason


@pytest.mark.parametrize("step", [EXPLORING, EXPLOITING])
@pytest.mark.parametrize(
    ("quadratic", "why"),
    [
        pytest.param(None, "a sampled loss is not finite", id="not finite"),
        pytest.param(look(None).quadratic, "the fit has no minimum", id="no minimum"),
    ],
)
def test_a_look_that_tells_nothing_changes_nothing(step, quadratic, why):
    before = states_after(Paper(), saw(1.0, step=step))
    state, decision = Paper().decide(before, Look(step, TOTAL, 0.1, 1.0, quadratic))
    assert (decision.verdict, decision.lr) == ("keep", 0.1)
    assert state == before
    assert decision.reason.startswith("LR kept at 0.1: ")
    assert why in decision.reason


def test_advice_too_small_for_the_precision_of_the_rate_is_no_change():
    before = states_after(Paper(), saw(1.0))
    state, decision = Paper().decide(before, look(1e-20))
    assert (decision.verdict, decision.lr, state) == ("keep", 0.1, before)


def test_without_a_loss_above_zero_the_rate_is_kept_and_the_epsilon_threshold_is_named():
    # A log-likelihood can be negative: eq. 3 then allows no change at all, and the reader must learn why.
    _, decision = Paper().decide(Paper().begin(), look(0.03, loss=-1.5))
    assert (decision.verdict, decision.lr) == ("keep", 0.1)
    assert "epsilon threshold" in decision.reason


@pytest.mark.parametrize("minimum", [1e-5, -1e-5])
def test_a_small_change_can_be_read_from_its_reason(minimum):
    _, decision = Paper().decide(Paper().begin(), look(minimum, lr=0.1))
    words = decision.reason.replace(":", "").split()
    assert words[words.index("from") + 1] != words[words.index("to") + 1]


# At a window's end: whether to look.


def test_exploring_it_looks_at_every_windows_end_however_fast_the_loss_falls():
    state = Paper().begin()
    for rate in (1.0, 2.0, 0.5, 1.0, 0.9):
        state, decision = Paper().judge(state, saw(rate, step=EXPLORING))
        assert (decision.verdict, decision.lr) == ("look", 0.1)


@pytest.mark.parametrize(("rate", "verdict"), [(0.5, "keep"), (0.011, "keep"), (0.009, "look")])
def test_exploiting_it_looks_only_once_the_drop_rate_is_a_hundredth_of_what_it_began_with(rate, verdict):
    state = states_after(Paper(saturation=100), saw(1.0))
    _, decision = Paper(saturation=100).judge(state, saw(rate))
    assert (decision.verdict, decision.lr) == (verdict, 0.1)
    assert ("not saturated" in decision.reason) is (verdict == "keep")


@pytest.mark.parametrize(("saturation", "verdict"), [(50, "keep"), (5, "look")])
def test_the_saturation_threshold_is_the_setting(saturation, verdict):
    policy = Paper(saturation=saturation)
    assert policy.judge(states_after(policy, saw(1.0)), saw(0.1))[1].verdict == verdict


def test_the_ratio_is_to_the_first_window_of_this_rate_and_not_to_the_last_one():
    policy = Paper(saturation=100)
    state = states_after(policy, saw(1.0), saw(0.1), saw(0.02))  # ratios to the last window of 10 and 5 only
    assert policy.judge(state, saw(0.005))[1].verdict == "look"


def test_with_another_learning_rate_the_ratio_begins_anew():
    policy = Paper(saturation=100)
    state = states_after(policy, saw(1.0, step=EXPLORING))
    state, changed = policy.decide(state, look(0.03, step=EXPLORING))
    state, first = policy.judge(state, saw(0.05, lr=changed.lr))
    assert first.verdict == "keep"
    assert policy.judge(state, saw(0.005, lr=changed.lr))[1].verdict == "keep"  # 10 for this rate, 200 for the last one
    assert policy.judge(state, saw(0.0004, lr=changed.lr))[1].verdict == "look"


def test_the_first_crossing_turns_the_relative_threshold_into_an_absolute_one():
    policy = Paper(saturation=100)
    state, crossing = policy.judge(states_after(policy, saw(1.0)), saw(0.002))
    assert crossing.verdict == "look"
    state, changed = policy.decide(state, look(-0.03))
    # It lay at 0.01. A new rate begins at 0.02: its ratio would let it go on until 0.0002, the absolute threshold not.
    state, first = policy.judge(state, saw(0.02, lr=changed.lr))
    assert first.verdict == "keep"
    state, above = policy.judge(state, saw(0.011, lr=changed.lr))
    assert above.verdict == "keep"
    assert "threshold 0.01" in above.reason
    state, below = policy.judge(state, saw(0.009, lr=changed.lr))
    assert below.verdict == "look"
    assert "saturated" in below.reason
    # It stays where it was set: a later crossing moves it neither down nor, from a faster beginning, up.
    state, changed = policy.decide(state, look(-0.01, lr=changed.lr))
    state, _ = policy.judge(state, saw(5.0, lr=changed.lr))
    assert policy.judge(state, saw(0.011, lr=changed.lr))[1].verdict == "keep"
    assert policy.judge(state, saw(0.009, lr=changed.lr))[1].verdict == "look"


def test_a_look_that_keeps_the_rate_does_not_begin_it_anew():
    policy = Paper(saturation=100)
    state = states_after(policy, saw(1.0, step=EXPLORING))
    state, kept = policy.decide(state, look(-0.03, step=EXPLORING))
    assert kept.verdict == "keep"
    assert policy.judge(state, saw(0.005))[1].verdict == "look"  # a two-hundredth of the first window's rate


# At a window's end: whether to roll back.


@pytest.mark.parametrize("step", [EXPLORING, EXPLOITING])
@pytest.mark.parametrize("end", [math.nan, math.inf])
def test_a_run_that_died_goes_back_at_a_lower_rate_if_nothing_was_changed(step, end):
    _, decision = Paper(factor=4.0).judge(Paper().begin(), died(step=step, end=end))
    assert (decision.verdict, decision.lr) == ("roll back", 0.1 / 4)
    assert "rolled back 10 steps, LR 0.1 to 0.025" in decision.reason
    assert f"to {end}" in decision.reason


@pytest.mark.parametrize("start", [math.nan, math.inf])
def test_a_window_that_began_without_a_finite_loss_is_nothing_to_go_back_to(start):
    window = Window(EXPLOITING, TOTAL, 0.1, start_loss=start, end_loss=math.nan, steps=STEPS, drop=None)
    state, decision = Paper().judge(Paper().begin(), window)
    assert (decision.verdict, decision.lr, state) == ("keep", 0.1, Paper().begin())


@pytest.mark.parametrize("minimum", [0.05, -0.05])
@pytest.mark.parametrize(
    "window",
    [
        pytest.param(lambda lr: died(lr=lr), id="died"),
        pytest.param(lambda lr: saw(-0.1, lr=lr, stderr=1e-4), id="the loss rose"),
    ],
)
def test_a_change_that_did_harm_goes_back_to_the_rate_before_it(minimum, window):
    state, changed = Paper().decide(states_after(Paper(), *CALM), look(minimum))
    assert changed.verdict in {"raise", "lower"}
    _, decision = Paper().judge(state, window(changed.lr))
    assert (decision.verdict, decision.lr) == ("roll back", 0.1)
    assert f"LR {changed.lr:.3g} to 0.1" in decision.reason


@pytest.mark.parametrize("step", [EXPLORING, EXPLOITING])
def test_a_rise_far_beyond_the_noise_goes_back_also_when_nothing_was_changed(step):
    _, decision = Paper(factor=2.0).judge(states_after(Paper(), *CALM), saw(-0.1, step=step, stderr=1e-4))
    assert (decision.verdict, decision.lr) == ("roll back", 0.05)
    assert "the loss rose by 1 " in decision.reason


@pytest.mark.parametrize("step", [EXPLORING, EXPLOITING])
def test_a_rise_that_the_superbatch_cannot_tell_from_none_stays(step):
    # Over 10 steps the loss rose by 0.5, with a standard error over minibatches of 0.5.
    _, decision = Paper().judge(states_after(Paper(), *CALM), saw(-0.05, step=step, stderr=0.05))
    assert decision.verdict == "look"  # a loss that no longer falls is a saturated rate


def test_a_rise_no_larger_than_the_loss_usually_moves_stays():
    usual = [saw(0.1, stderr=1e-4), saw(0.12, stderr=1e-4), saw(0.09, stderr=1e-4)]
    assert Paper().judge(states_after(Paper(), *usual), saw(-0.1, stderr=1e-4))[1].verdict == "look"


@pytest.mark.parametrize("step", [EXPLORING, EXPLOITING])
def test_a_loss_that_falls_ever_more_slowly_is_no_reason_to_go_back(step):
    # Read literally, "a reduction in loss drop rate" after a change would fire here nearly every time.
    policy, lr = Paper(), 0.1
    state = policy.begin()
    for halvings in range(40):
        state, decision = policy.judge(state, saw(0.5**halvings, lr=lr, step=step, stderr=1e-6))
        assert decision.verdict != "roll back"
        if decision.verdict == "look":
            state, decision = policy.decide(state, look(lr / 10, lr=lr, step=step))
            assert decision.verdict == "raise"
            lr = decision.lr


def test_a_change_is_on_trial_for_one_window_only():
    state, changed = Paper().decide(states_after(Paper(), *CALM), look(0.05))
    state, _ = Paper().judge(state, saw(0.001, lr=changed.lr, stderr=1e-4))
    _, decision = Paper().judge(state, died(lr=changed.lr))
    assert (decision.verdict, decision.lr) == ("roll back", pytest.approx(0.15 / 2))  # not back to 0.1


def test_a_run_that_dies_again_after_going_back_gets_a_lower_rate():
    state, changed = Paper().decide(states_after(Paper(), *CALM), look(0.05))
    lrs = []
    lr = changed.lr
    for _ in range(3):
        state, decision = Paper().judge(state, died(lr=lr))
        assert decision.verdict == "roll back"
        lr = decision.lr
        lrs.append(lr)
    assert lrs == [0.1, 0.05, 0.025]


def test_after_going_back_the_ratio_begins_anew_and_the_absolute_threshold_stays():
    policy = Paper(saturation=100)
    relative, _ = policy.judge(states_after(policy, saw(1.0)), died())
    assert policy.judge(states_after(policy, saw(1.0)), saw(0.005))[1].verdict == "look"
    assert policy.judge(relative, saw(0.005))[1].verdict == "keep"  # the first window of this rate

    crossed, _ = policy.judge(states_after(policy, saw(1.0)), saw(0.008))
    absolute, _ = policy.judge(crossed, died())
    assert policy.judge(absolute, saw(0.011))[1].verdict == "keep"
    assert policy.judge(absolute, saw(0.009))[1].verdict == "look"


@pytest.mark.parametrize("step", [EXPLORING, EXPLOITING])
def test_with_rollback_off_a_dead_run_is_kept_and_nothing_is_learnt_from_it(step):
    policy = Paper(rollback=False)
    before = states_after(policy, saw(1.0, step=step))
    state, decision = policy.judge(before, died(step=step))
    assert (decision.verdict, decision.lr, state) == ("keep", 0.1, before)
    assert decision.reason == "LR kept at 0.1: the loss is nan"
    assert policy.judge(before, saw(-50.0, step=step))[1].verdict == "look"


# Over whole runs.

events = st.lists(
    st.tuples(
        st.floats(-2, 2) | st.floats(-1e-4, 1e-4) | st.none(),  # loss-drop rate; None: the run died
        st.sampled_from([0.0, 1e-3, 0.1, math.nan]),  # its standard error
        st.none() | advice | st.floats(-0.1, 0.1),  # where the fit's minimum lies
        st.floats(0, 10),  # the look's loss
    ),
    max_size=30,
)


def play(policy, events, lr=0.1, lr_unit=1.0, loss_unit=1.0):
    """The tuner's loop without a network: (window, judged, look, decided) for each window."""
    state = policy.begin()
    for n, (rate, stderr, minimum, loss) in enumerate(events):
        step = (n + 1) * TOTAL // (len(events) + 1)
        at = lr * lr_unit
        scaled = None if rate is None else rate * loss_unit
        window = died(lr=at, step=step) if rate is None else saw(scaled, lr=at, step=step, stderr=stderr * loss_unit)
        start, seen, decided = state, None, None
        state, judged = policy.judge(state, window)
        judged_state = state
        if judged.verdict == "look":
            seen = look(None if minimum is None else minimum * lr_unit, lr=at, step=step, loss=loss)
            state, decided = policy.decide(state, seen)
        lr = (decided or judged).lr / lr_unit
        yield start, window, judged, judged_state, seen, decided


@given(policy=settings, events=events)
def test_over_any_run_the_rules_hold_at_every_window(policy, events):
    changed_from = None
    for _, window, judged, _, seen, decided in play(policy, events):
        phase = policy.phase(window.step, TOTAL)
        if judged.verdict == "roll back":
            assert policy.rollback
            assert window.drop is None or window.drop.rate < 0
            assert judged.lr == (window.lr / policy.factor if changed_from is None else changed_from)
        else:
            assert judged.verdict == "look" or (judged.verdict == "keep" and judged.lr == window.lr)
            assert judged.verdict == "look" or phase == "exploit" or window.drop is None
        if seen is not None:
            check_move(policy, seen, decided, phase)
        last = decided or judged
        if window.drop is not None or judged.verdict == "roll back":  # else the trial goes on: nothing was seen
            changed_from = window.lr if last.verdict in {"raise", "lower"} else None


def names(reason, lr):
    """Whether a number in the text is ``lr`` to the half percent of three digits."""
    return any(math.isclose(float(n), lr, rel_tol=5.1e-3) for n in re.findall(r"\d[\d.]*(?:e[+-]?\d+)?", reason))


@given(policy=settings, events=events)
def test_every_decision_says_why_and_names_the_learning_rate(policy, events):
    for _, window, judged, _, _, decided in play(policy, events):
        assert len(judged.reason.split()) > 3
        if judged.verdict != "look":  # a look's own decision follows, and that is the one which is recorded
            assert names(judged.reason, judged.lr)
            assert names(judged.reason, window.lr)
        if decided is not None:
            assert len(decided.reason.split()) > 3
            assert names(decided.reason, window.lr)
            assert names(decided.reason, decided.lr)


@given(policy=settings, events=events)
def test_the_same_inputs_give_the_same_outputs_also_from_a_checkpoint(policy, events):
    for start, window, judged, judged_state, seen, decided in play(policy, events):
        assert type(start)(**dataclasses.asdict(start)) == start
        # Plain values: strict JSON holds them. A list for a tuple is all that it changes, and no decision.
        loaded = type(start)(**json.loads(json.dumps(dataclasses.asdict(start), allow_nan=False)))
        for again in (start, loaded):
            state, decision = policy.judge(again, window)
            assert (state.__class__, decision) == (start.__class__, judged)
            if seen is not None:
                assert policy.decide(state, seen)[1] == decided
        assert policy.judge(start, window)[0] == judged_state


@given(policy=settings, events=events, unit=st.integers(-20, 20).map(lambda n: 2.0**n))
def test_the_units_of_the_loss_do_not_matter_to_whether_it_looks_or_goes_back(policy, events, unit):
    # Powers of two scale without rounding. The looks' losses stay: eq. 3 ties the loss to the rate, and has a unit.
    plain = [judged.verdict for _, _, judged, _, _, _ in play(policy, events)]
    assert [judged.verdict for _, _, judged, _, _, _ in play(policy, events, loss_unit=unit)] == plain


@given(policy=settings, events=events, unit=st.integers(-20, 0).map(lambda n: 2.0**n))
def test_where_eq_3_does_not_bind_the_units_of_the_learning_rate_do_not_matter(policy, events, unit):
    # With r = 1e30 it allows more than any factor asks.
    policy = dataclasses.replace(policy, epsilon=1e30)
    events = [(rate, stderr, minimum, loss + 1) for rate, stderr, minimum, loss in events]
    plain = [(decided or judged).lr for _, _, judged, _, _, decided in play(policy, events)]
    scaled = [(decided or judged).lr for _, _, judged, _, _, decided in play(policy, events, lr_unit=unit)]
    assert scaled == [lr * unit for lr in plain]


# A collapse in the first windows, whose ordinary movement is the steep first fall.


def seen_loss(start, end, step, stderr=1e-5):
    return Window(step, TOTAL, 0.1, start, end, 100, LossDrop((start - end) / 100, stderr))


def test_a_network_that_dies_in_its_second_window_is_rolled_back_although_the_first_fall_was_as_steep():
    state, _ = Paper().judge(Paper().begin(), seen_loss(2.303, 0.5, 100))
    state, raised = Paper().decide(state, look(0.05, lr=0.1, step=100))
    assert raised.verdict == "raise"
    _, decision = Paper().judge(state, seen_loss(0.5, 2.303, 200))
    assert (decision.verdict, decision.lr) == ("roll back", 0.1)
    assert "nearly to where the run began" in decision.reason


def test_giving_back_half_of_the_first_fall_is_not_yet_a_collapse():
    state, _ = Paper().judge(Paper().begin(), seen_loss(2.303, 0.5, 100))
    assert Paper().judge(state, seen_loss(0.5, 1.4, 200))[1].verdict != "roll back"


def test_giving_back_what_is_within_the_standard_error_is_not_a_collapse():
    state, _ = Paper().judge(Paper().begin(), seen_loss(2.303, 2.302, 100))
    assert Paper().judge(state, seen_loss(2.302, 2.303, 200, stderr=1e-4))[1].verdict != "roll back"


def test_a_loss_that_moves_by_the_same_amount_anywhere_is_judged_the_same():
    # A likelihood's zero is arbitrary: what counts is what the run had gained, and not the loss itself.
    verdicts = set()
    for shift in (0.0, -5.0, 100.0):
        state, _ = Paper().judge(Paper().begin(), seen_loss(2.3 + shift, 0.5 + shift, 100))
        verdicts.add(Paper().judge(state, seen_loss(0.5 + shift, 2.25 + shift, 200))[1].verdict)
    assert verdicts == {"roll back"}
