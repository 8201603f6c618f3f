"""The budget: arithmetic, and that nothing AutoLR does exceeds it at any moment after the first window."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import autolr
from autolr.numerics.budget import Budget
from training_runs import BATCHES_OF_LINES, Script, cross_entropy, network, plain_update, seed_everything, sgd, tuned_by

pytestmark = pytest.mark.long


@given(st.floats(1e-4, 1.0), st.integers(0, 10**6), st.integers(0, 10**4), st.integers(0, 10**4))
def test_what_is_allowed_stays_below_the_share(share, steps, spent, amount):
    budget = Budget(share)
    if budget.allows(amount, spent, steps):
        assert spent + amount <= share * 3 * steps * (1 + 1e-12)
    if budget.allows_undoing(amount, spent, steps):
        assert spent + 3 * amount <= share * 3 * steps * (1 + 1e-12)


def test_probes_that_take_all_they_may_leave_something_for_undoing_steps():
    budget = Budget(0.1)
    spent = max(n for n in range(1000) if budget.allows(n, spent=0, steps=1000))
    assert 100 < spent < 300
    assert budget.allows_undoing(10, spent, steps=1000)


def test_without_a_bound_everything_is_allowed_from_the_first_step():
    assert Budget(math.inf).allows(10**9, spent=10**9, steps=0)
    assert Budget(math.inf).allows_undoing(10**9, spent=10**9, steps=0)


def spending(overhead, steps, **settings):
    """Shares spent after each step, and the optimizer."""
    seed_everything(0)
    model = nn.Linear(6, 2)
    settings = {"policy": autolr.ExploreExploit.adaptive(explore=0.5), "window": 20} | settings
    optimizer = tuned_by(sgd(model), model, cross_entropy, BATCHES_OF_LINES, steps, overhead=overhead, **settings)
    shares = []
    for step in range(steps):
        batch = BATCHES_OF_LINES[step % len(BATCHES_OF_LINES)]
        plain_update(model, optimizer, cross_entropy, batch, step)
        shares.append((len(optimizer.history), optimizer.cost.share(step + 1)))
    return shares, optimizer


ADAPTIVE = autolr.ExploreExploit.adaptive(explore=0.5, saturation=1.01)


@pytest.mark.parametrize(
    ("policy", "overhead"),
    [
        (ADAPTIVE, 0.05),
        (ADAPTIVE, 0.4),
        (autolr.ExploreExploit.adaptive(rollback=False), 0.05),
        (autolr.Monitor.adaptive(), 0.05),
        (
            autolr.ExploreExploit(explore=1.0, spread=3),
            0.05,
        ),  # a probe of one size, which cannot wait once it has begun
        (autolr.ExploreExploit(explore=1.0, spread=3), 0.4),
    ],
    ids=["adaptive", "adaptive, 0.4", "without rollback", "monitor", "fixed superbatch", "fixed superbatch, 0.4"],
)
def test_it_is_never_exceeded_after_the_first_window_and_it_is_used(policy, overhead):
    shares, optimizer = spending(overhead, max(300, int(40 / overhead)), policy=policy, superbatch=6)
    after_first = [share for windows, share in shares if windows]
    assert after_first, "no window ever ended"
    assert max(after_first) <= overhead
    assert after_first[-1] >= 0.25 * overhead  # or it only seems to obey
    assert any(record.eps for record in optimizer.history)


def test_what_was_spent_is_in_the_log():
    _, optimizer = spending(0.2, 400)
    spent = [record.spent for record in optimizer.history]
    assert spent == sorted(spent)
    assert 0 < spent[-1] <= optimizer.cost.forward_equivalents
    assert all(record.seconds > 0 for record in optimizer.history)


@pytest.mark.parametrize(("overhead", "undone"), [(0.2, False), (2.0, True)])
def test_steps_are_not_undone_on_credit_but_the_rate_goes_back(overhead, undone):
    policy = Script(verdicts=("keep", "roll back", "keep", "keep", "keep"), factor=2.0)
    shares, optimizer = spending(overhead, 150, policy=policy, superbatch=2)
    record = optimizer.history[1]
    assert record.lr_after == pytest.approx(record.lr_before / 2)
    assert optimizer.lr == record.lr_after
    assert record.verdict == ("roll back" if undone else "lower")
    assert optimizer.cost.discarded_steps == (20 if undone else 0)
    assert ("overhead=0.2 does not pay for undoing" in record.reason) != undone
    assert max(share for windows, share in shares if windows) <= overhead


def test_a_run_that_diverged_is_brought_back_whatever_it_costs():
    seed_everything(0)
    model = network()
    settings = {"policy": autolr.ExploreExploit.adaptive(), "window": 20, "superbatch": 6, "overhead": 0.2}
    optimizer = tuned_by(sgd(model), model, cross_entropy, BATCHES_OF_LINES, 160, **settings)
    for step in range(160):
        if step == 100:
            with torch.no_grad():
                next(model.parameters()).fill_(math.nan)
        plain_update(model, optimizer, cross_entropy, BATCHES_OF_LINES[step % 6], step)
    assert [record.verdict for record in optimizer.history].count("roll back") == 1
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_a_run_too_short_to_pay_for_a_probe_is_told_so_once():
    model = network()
    with pytest.warns(UserWarning, match=r"overhead=0\.02 .* too few for a single probe.* Raise overhead"):
        tuned_by(sgd(model), model, cross_entropy, BATCHES_OF_LINES, 50, policy=autolr.ExploreExploit.adaptive())


@pytest.mark.parametrize("bad", [0, -0.1, math.nan])
def test_a_budget_that_is_none_is_refused(bad):
    with pytest.raises(ValueError, match="overhead must be above 0; got"):
        autolr.ExploreExploit.adaptive(overhead=bad)


@pytest.mark.parametrize("bad", ["2 %", True, [0.02]])
def test_a_budget_that_is_no_number_is_refused(bad):
    with pytest.raises(TypeError, match="overhead must be a number above 0"):
        autolr.ExploreExploit.adaptive(overhead=bad)
