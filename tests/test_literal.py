"""The paper word for word: every sentence of parts 2 and 2.1 that ours departs from, by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import autolr
from autolr.numerics.quadratic import fit_quadratic
from autolr.numerics.saturation import LossDrop
from autolr.policies.base import Run, Trigger
from autolr.policies.window_plan import plan_of
from autolr.policies.window_state import ProbeFit, WindowResult
from training_runs import BATCHES_OF_LINES, cross_entropy, seed_everything

LITERAL = autolr.LiteralExploreExploit(explore=0.2, saturation=10.0, epsilon=1e-3)


def window(rate, *, step=500, lr=0.1, end=1.0):
    drop = None if rate is None else LossDrop(rate, 0.0)
    return WindowResult(step, 1000, lr, end + 10 * (rate or 0.0), end, 10, drop)


def fit(eps_min, *, step=500, lr=0.1, loss=1.0):
    eps = (-0.5, -0.25, 0.0, 0.25, 0.5)
    losses = [[loss + (e - eps_min) ** 2 - eps_min**2] for e in eps]
    return ProbeFit(step, 1000, lr, loss, fit_quadratic(eps, losses))


def test_it_probes_twice_an_epoch_on_100_minibatches_along_one_step():
    plan = plan_of(LITERAL, Run(total_steps=100_000, batches=500))
    assert (plan.window, plan.superbatch, plan.checkpoints, len(plan.eps)) == (250, 100, (1,), 5)
    assert plan.budget.share == math.inf
    assert plan_of(LITERAL, Run(total_steps=100_000, batches=None)).window == 1000
    assert plan_of(LITERAL, Run(total_steps=100_000, batches=60)).superbatch == 60


def test_the_threshold_becomes_the_drop_rate_that_was_measured_at_the_crossing():
    own = LITERAL.own_state()
    own, said = LITERAL.judge(own, window(0.5))
    assert (said.verdict, own.absolute) == ("keep", None)
    own, said = LITERAL.judge(own, window(0.06))  # 0.5 / 0.06 < 10
    assert (said.verdict, own.absolute) == ("keep", None)
    own, said = LITERAL.judge(own, window(0.02))  # ours: 0.05, where the crossing lies
    assert (said.verdict, said.trigger, own.absolute) == ("look", Trigger.SATURATED, 0.02)
    own, said = LITERAL.judge(own, window(0.03))
    assert said.trigger is Trigger.NOT_SATURATED
    assert LITERAL.judge(own, window(0.019))[1].trigger is Trigger.SATURATED


def test_any_lower_drop_rate_after_a_change_rolls_it_back_however_small():
    own = replace(LITERAL.own_state(), changed_from=0.05, rate_before=0.0200001)
    state, said = LITERAL.judge(own, window(0.02))
    assert (said.verdict, said.lr, said.trigger) == ("roll back", 0.05, Trigger.RATE_FELL)
    assert state.changed_from is None
    assert LITERAL.judge(replace(own, rate_before=0.02), window(0.02))[1].verdict != "roll back"
    # The loss rising is no reason by itself, nor is a fall without a change.
    assert LITERAL.judge(LITERAL.own_state(), window(-5.0))[1].verdict == "look"


def test_a_loss_that_is_not_finite_goes_back_with_the_change_or_is_left_alone():
    own = replace(LITERAL.own_state(), changed_from=0.05, rate_before=0.01)
    _, said = LITERAL.judge(own, window(None, end=math.inf))
    assert (said.verdict, said.lr, said.diverged) == ("roll back", 0.05, True)
    assert LITERAL.judge(LITERAL.own_state(), window(None, end=math.inf))[1].verdict == "keep"


def test_a_loss_that_is_not_above_zero_leaves_eq_3_no_room():
    _, said = LITERAL.advise(LITERAL.own_state(), fit(0.4, loss=-2.0))
    assert (said.verdict, said.lr, said.trigger) == ("keep", 0.1, Trigger.NO_ROOM)


@pytest.mark.parametrize(
    ("eps_min", "step", "lr", "expected"),
    [
        (0.4, 500, 0.1, 0.14),  # as the parabola asks
        (9.0, 500, 0.1, 0.2),  # eq. 3: |eps| < (1e-3 * 1.0) ** (1/3) = 0.1, and no factor holds it
        (9.0, 500, 0.001, 0.010),  # 0.001 + 9 * 0.001: ten times the rate, which ours holds to twice
        (-0.4, 500, 0.1, 0.06),
        (-0.4, 100, 0.1, None),  # explore refuses a decrease
        (-1.0, 500, 0.1, None),  # no rate above 0 is left
        (-9.0, 500, 0.1, None),
    ],
)
def test_a_change_is_the_parabolas_bounded_by_eq_3_alone(eps_min, step, lr, expected):
    own, said = LITERAL.advise(LITERAL.own_state(), fit(eps_min, step=step, lr=lr))
    if expected is None:
        assert (said.verdict, said.lr, own.changed_from) == ("keep", lr, None)
    else:
        assert said.lr == pytest.approx(expected, rel=1e-6)
        assert own.changed_from == lr


def test_the_presets_are_table_7s():
    preset = autolr.LiteralExploreExploit.from_paper("iwslt14", window=7)
    assert isinstance(preset, autolr.LiteralExploreExploit)
    assert (preset.explore, preset.saturation, preset.epsilon, preset.window) == (8 / 50, 5, 1e-9, 7)
    with pytest.raises(ValueError, match="Table 7 has"):
        autolr.LiteralExploreExploit.from_paper("svhn")


def test_a_run_rolls_back_at_most_falls_as_its_sentence_has_it():
    seed_everything(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    base = torch.optim.SGD(model.parameters(), lr=0.05)
    policy = autolr.LiteralExploreExploit(window=5)
    optimizer = autolr.AutoLR(base, model, cross_entropy, BATCHES_OF_LINES, 400, policy=policy)
    for step in range(400):
        optimizer.zero_grad()
        cross_entropy(model, BATCHES_OF_LINES[step % len(BATCHES_OF_LINES)]).backward()
        optimizer.step()
    told = [record for record in optimizer.history if record.trigger == "rate fell"]
    assert told
    assert all(record.verdict == "roll back" for record in told)
    assert "the loss-drop rate fell from" in told[0].reason
