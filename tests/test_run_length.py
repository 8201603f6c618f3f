"""A run's length: told wrongly, changed, accumulated; and what the search may be told beside it."""

import copy
import dataclasses
import gc
import io
import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import autolr
from autolr.measure.short_run import ShortRunner
from autolr.measure.snapshot import seed_all
from autolr.measure.whole_state import everything_kept
from autolr.numerics.shape import shape

DATA = [(torch.randn(8, 4, generator=torch.Generator().manual_seed(i)), torch.arange(8) % 3) for i in range(16)]
KNOWN = autolr.PeakSearch(peak=0.1, guard=False)


def loss_fn(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def tuned(total_steps, policy=KNOWN, **settings):
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    base = torch.optim.SGD(model.parameters(), lr=0.05)
    return model, autolr.AutoLR(base, model, loss_fn, DATA, total_steps, policy=policy, **settings)


def train(model, optimizer, steps):
    rates = []
    for i in range(steps):
        optimizer.zero_grad()
        loss_fn(model, DATA[i % len(DATA)]).backward()
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
    return rates


def said(caplog):
    return [record.message for record in caplog.records if record.name == "autolr"]


def test_a_run_that_ends_with_its_rate_up_is_told_of_once_when_the_optimizer_is_gone(caplog):
    gc.collect()  # what other tests left
    caplog.clear()
    model, optimizer = tuned(160)
    train(model, optimizer, 80)
    assert said(caplog) == []
    del optimizer
    gc.collect()
    (text,) = said(caplog)
    assert "after 80 of total_steps=160" in text
    assert "0.1" in text
    assert caplog.records[-1].levelno == logging.WARNING


@pytest.mark.parametrize(
    ("steps", "policy"),
    [
        pytest.param(160, KNOWN, id="it came to its end"),
        pytest.param(158, KNOWN, id="the rate was down"),
        pytest.param(0, KNOWN, id="it never began"),
        pytest.param(20, autolr.Monitor(window=100, superbatch=1), id="somebody else sets the rate"),
    ],
)
def test_nothing_is_said_of_a_run_where(steps, policy):
    model, optimizer = tuned(160, policy)
    train(model, optimizer, steps)
    optimizer.end_run()  # a warning would be an error


def test_a_loop_that_knows_its_end_says_so_and_hears_it_as_a_warning_and_only_once():
    model, optimizer = tuned(160)
    train(model, optimizer, 40)
    with pytest.warns(UserWarning, match="after 40 of total_steps=160"):
        optimizer.end_run()
    optimizer.end_run()
    assert optimizer._end.complaint() is None


def test_a_short_cooldown_that_has_come_to_its_end_is_one_also_after_a_resume_and_one_that_was_left_is_none(recwarn):
    policy = autolr.PeakSearch(peak=0.1, decay=False, guard=False)
    model, optimizer = tuned(160, policy)
    train(model, optimizer, 40)
    optimizer.start_cooldown(5)
    train(model, optimizer, 3)
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    train(model, optimizer, 2)
    assert optimizer.lr == pytest.approx(0.02)
    optimizer.end_run()
    resumed = {steps: tuned(160, policy) for steps in (2, 1)}
    for steps, (model, optimizer) in resumed.items():
        model.load_state_dict(saved[0])
        optimizer.load_state_dict(saved[1])
        train(model, optimizer, steps)
        assert len(recwarn) == 0
        optimizer.end_run()
    assert "after 44 of total_steps=160" in str(recwarn.pop().message)


def test_a_run_that_turns_out_longer_goes_on_at_the_longer_schedule_s_place():
    model, optimizer = tuned(40)
    train(model, optimizer, 30)
    optimizer.change_length(100)
    rates = train(model, optimizer, 70)
    assert optimizer.total_steps == 100
    assert rates[1:] == pytest.approx([0.1 * shape(step, 100) for step in range(32, 101)])
    again = tuned(100)[1]
    again.load_state_dict(optimizer.state_dict())
    assert again.lr == optimizer.lr


@pytest.mark.parametrize("total_steps", [15, 60, 400])
@pytest.mark.parametrize("policy", [autolr.ExploreExploit(), autolr.Monitor()])
def test_a_window_that_was_under_way_is_left_where_the_length_changes(policy, total_steps):
    """A longer window is judged by more minibatches: there is nothing to compare its beginning with."""
    model, optimizer = tuned(40, policy)
    train(model, optimizer, 7)
    optimizer.change_length(total_steps)
    train(model, optimizer, total_steps - 7)
    assert optimizer.history[-1].step <= total_steps
    assert optimizer.steps_taken == total_steps


def test_the_same_length_told_again_changes_nothing():
    """As frameworks do where a run goes on."""
    policy = autolr.ExploreExploit(window=5, superbatch=2, spread=1)
    once, told = tuned(40, policy), tuned(40, policy)
    for _ in range(40):
        train(*once, 1)
        told[1].change_length(40)
        train(*told, 1)
    assert once[1].history == told[1].history
    assert len(once[1].history) > 3


def test_numpy_s_numbers_are_as_good_as_python_s_and_no_others_are_in_a_checkpoint():
    peak = np.float64(0.1)
    model, optimizer = tuned(40, autolr.PeakSearch(peak=peak, clip=np.float32(0.5), guard=False))
    train(model, optimizer, 3)
    optimizer.change_length(np.int64(60))
    kept = io.BytesIO()
    torch.save(optimizer.state_dict(), kept)
    kept.seek(0)
    again = tuned(60, autolr.PeakSearch(peak=0.1, clip=0.5, guard=False))[1]
    again.load_state_dict(torch.load(kept, weights_only=True))
    assert again.lr == optimizer.lr
    windows = autolr.ExploreExploit(eps=[-0.5, 0, 0.5], explore=np.float32(0.25), window=np.int64(5))
    assert windows == autolr.ExploreExploit(eps=(-0.5, 0.0, 0.5), explore=0.25, window=5)
    assert {type(windows.explore), type(windows.window)} == {float, int}


def test_a_length_that_is_past_already_is_refused():
    model, optimizer = tuned(40)
    train(model, optimizer, 30)
    with pytest.raises(ValueError, match=r"above the 30 steps taken; got 30"):
        optimizer.change_length(30)
    with pytest.raises(TypeError, match="total_steps"):
        optimizer.change_length(50.5)
    assert optimizer.total_steps == 40


@pytest.mark.filterwarnings("ignore:AutoLR, step 0")  # the labels are noise: there is no best rate
def test_a_length_changed_before_the_first_step_is_that_of_the_run():
    model, short = tuned(64, autolr.PeakSearch(guard=False))
    short.change_length(256)
    train(model, short, 3)
    model, long = tuned(256, autolr.PeakSearch(guard=False))
    train(model, long, 3)
    assert short.history[0].search == long.history[0].search
    assert short.lr == long.lr


def test_a_policy_that_has_not_begun_begins_with_the_length_that_it_is_told_last():
    class ByLength(autolr.PeakSearch):
        def begin(self, run):
            return dataclasses.replace(super().begin(run), peak=1.0 / run.total_steps)

    model, optimizer = tuned(40, ByLength(guard=False))
    optimizer.change_length(100)
    train(model, optimizer, 10)
    assert optimizer.lr == pytest.approx(1.0 / 100)
    optimizer.change_length(200)
    train(model, optimizer, 1)
    assert optimizer.lr == pytest.approx(1.0 / 100)


def test_a_short_run_with_accumulation_is_a_plain_loop_that_accumulates_to_the_bit():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 3))
    optimizer = torch.optim.Adam(model.parameters())
    with everything_kept(model, optimizer) as state:
        runner = ShortRunner(model, optimizer, loss_fn, DATA, state, longest=3, seed=2, minibatches=4, accumulation=4)
        run = runner.run(3, 0.02)
        reached = [p.detach().clone() for p in model.parameters()]
    batches = runner._minibatches()
    for step in range(3):
        optimizer.zero_grad()
        for place in range(4):
            batch = next(batches)
            seed_all(2, 1, 4 * step + place)
            (loss_fn(model, batch) / 4).backward()
        rates = [0.02 * r for r in short_shape(3)]
        optimizer.param_groups[0]["lr"] = rates[step]
        optimizer.step()
    assert all(map(torch.equal, reached, model.parameters()))
    assert run.cost == (3 * 12 + 4) / 4


def short_shape(length):
    """Whatever shape a short run has: read off one of a single parameter."""
    p = nn.Parameter(torch.ones(()))
    model = nn.Module()
    model.p = p
    optimizer = torch.optim.SGD([p], lr=0.01)
    rates = []
    optimizer.register_step_post_hook(lambda *_: rates.append(optimizer.param_groups[0]["lr"]))
    with everything_kept(model, optimizer) as state:
        ShortRunner(model, optimizer, lambda m, _: m.p**2, [0] * 40, state, longest=length, minibatches=1).run(
            length, 0.01
        )
    return [rate / 0.01 for rate in rates]


def test_accumulation_makes_a_search_of_as_many_steps_and_of_the_same_share():
    found = []
    for each in (1, 4):
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        peak = autolr.find_peak(model, optimizer, loss_fn, DATA, 400, accumulation=each)
        found.append(peak)
    one, four = found
    assert four.share <= 1.1 * one.share
    assert max(run.length for run in four.runs) >= max(run.length for run in one.runs)


@pytest.mark.parametrize(
    ("search", "message"),
    [({"clip": 1.0}, "may hold accumulation.*got clip"), ([1], "mapping of find_peak's arguments; got list")],
)
def test_what_a_search_cannot_be_told_is_refused(search, message):
    with pytest.raises(TypeError, match=message):
        tuned(40, search=search)


@pytest.mark.filterwarnings("ignore:AutoLR, step 0")
def test_what_a_search_is_told_reaches_it():
    calls = []
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    base = torch.optim.SGD(model.parameters(), lr=0.05)

    def train_step(batch):
        calls.append(1)
        base.zero_grad()
        loss = loss_fn(model, batch)
        loss.backward()
        base.step()
        return loss

    optimizer = autolr.AutoLR(base, model, loss_fn, DATA, 100, search={"train_step": train_step})
    optimizer.step()
    assert calls


class Modes(torch.optim.SGD):
    mode = "train"

    def train(self):
        self.mode = "train"

    def eval(self):
        self.mode = "eval"


def test_train_and_eval_are_passed_on_only_where_the_base_has_them():
    model, optimizer = tuned(40)
    assert not hasattr(optimizer, "train")
    assert not hasattr(optimizer, "eval")
    base = Modes(model.parameters(), lr=0.1)
    optimizer = autolr.AutoLR(base, model, loss_fn, DATA, 40, policy=KNOWN)
    optimizer.eval()
    assert base.mode == "eval"
    optimizer.train()
    assert base.mode == "train"
    assert optimizer.optimizer is base


def test_a_proxy_that_borrows_zero_grad_does_not_make_a_healthy_run_look_idle():
    model, optimizer = tuned(400, autolr.PeakSearch(peak=0.1))

    class Proxy:  # as Lightning's: it inherits from the optimizer's class and looks everything else up in it
        def __getattr__(self, name):
            return getattr(optimizer, name)

    kind = type("Proxied", (Proxy, autolr.AutoLR), {})
    proxy = kind.__new__(kind)
    for i in range(120):
        proxy.zero_grad()
        loss_fn(model, DATA[i % len(DATA)]).backward()
        optimizer.step()
    checks = [record.step for record in optimizer.history]
    assert 50 not in checks
    assert 49 not in checks
