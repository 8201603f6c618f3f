"""The rates of a logged run make it again, to the bit, in a loop without AutoLR, and fit a run of another length."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

import autolr
from autolr.runtime.replayed_rates import stretched
from training_runs import BATCHES_OF_LINES, cross_entropy, seed_everything

WINDOWED = autolr.ExploreExploit(window=4, superbatch=3, spread=2)
SEARCH = autolr.PeakSearch()


def parts(adam=False):
    seed_everything(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 2))
    groups = [{"params": model[0].parameters()}, {"params": model[3].parameters(), "lr": 0.003}]
    return model, (torch.optim.AdamW(groups, lr=0.01) if adam else torch.optim.SGD(groups, lr=0.01, momentum=0.9))


def train(model, optimizer, steps, scheduler=None):
    for step in range(steps):
        optimizer.zero_grad()
        cross_entropy(model, BATCHES_OF_LINES[step % len(BATCHES_OF_LINES)]).backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    return [p.detach().clone() for p in model.parameters()]


def logged(tmp_path, policy, steps=40, *, adam=False):
    model, base = parts(adam)
    log = tmp_path / "run.jsonl"
    optimizer = autolr.AutoLR(base, model, cross_entropy, BATCHES_OF_LINES, steps, policy=policy, trace=log)
    return log, train(model, optimizer, steps), optimizer


@pytest.mark.parametrize("adam", [False, True], ids=["momentum", "adamw"])
@pytest.mark.parametrize("policy", [SEARCH, WINDOWED], ids=["search", "windowed"])
def test_a_replayed_run_is_the_logged_one_to_the_bit(policy, adam, tmp_path):
    log, weights, optimizer = logged(tmp_path, policy, adam=adam)
    assert not any(record.verdict == "roll back" for record in optimizer.history)
    assert len(set(autolr.read_run(log).rates())) > 1
    model, base = parts(adam)
    again = train(model, base, 40, autolr.Replay(base, log))
    assert all(torch.equal(a, b) for a, b in zip(again, weights, strict=True))


def test_a_resumed_replay_is_the_uninterrupted_one(tmp_path):
    log, _, _ = logged(tmp_path, SEARCH)
    _, base = parts()
    whole = autolr.Replay(base, log)
    rates = []
    for step in range(60):
        if step == 17:
            saved = whole.state_dict()
            _, other = parts()
            whole = autolr.Replay(other, log)
            whole.load_state_dict(saved)
            base = other
        rates.append([group["lr"] for group in base.param_groups] if step != 17 else None)
        base.step()
        whole.step()
    _, straight = parts()
    scheduler = autolr.Replay(straight, log)
    for step in range(60):
        assert rates[step] in (None, [group["lr"] for group in straight.param_groups])
        straight.step()
        scheduler.step()
    assert rates[-1] == rates[45]  # the last rate stays


@pytest.mark.parametrize("length", [20, 39, 41, 80, 400])
def test_a_stretched_replay_has_the_same_rate_at_the_same_share_of_the_run(length, tmp_path):
    log, _, _ = logged(tmp_path, SEARCH)
    rates = [rate for _, rate in autolr.read_run(log).rates()]
    _, base = parts()
    scheduler = autolr.Replay(base, log, total_steps=length)
    seen = []
    for _ in range(length):
        seen.append(base.param_groups[0]["lr"])
        base.step()
        scheduler.step()
    assert min(rates) <= min(seen) <= max(seen) <= max(rates)
    assert max(seen) == pytest.approx(max(rates), rel=1e-12)
    mean = sum(seen) / length
    assert mean == pytest.approx(sum(rates) / 40, rel=0.06)  # the schedule's ends are cut by half a step
    top = seen.index(max(seen))
    assert seen == sorted(seen[:top]) + sorted(seen[top:], reverse=True)


def test_a_stretched_line_stays_a_line():
    rates = [0.1 * step for step in range(1, 11)]
    seen = [stretched(rates, step, 30) for step in range(1, 31)]
    inner = [b - a for a, b in itertools.pairwise(seen[1:-1])]
    assert all(gap == pytest.approx(0.1 / 3, rel=1e-9) for gap in inner)


def test_a_log_without_every_step_is_refused(tmp_path):
    log, _, _ = logged(tmp_path, WINDOWED)
    _, base = parts()
    lines = log.read_text().splitlines(keepends=True)
    beats = [n for n, line in enumerate(lines) if line.startswith('{"beat"')]
    (tmp_path / "lacking.jsonl").write_text("".join(lines[: beats[1]] + lines[beats[1] + 1 :]))
    with pytest.raises(ValueError, match=r"does not tell the rate of step \d+\. A log tells all"):
        autolr.Replay(base, tmp_path / "lacking.jsonl")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(ValueError, match="rate of any step"):
        autolr.Replay(base, tmp_path / "empty.jsonl")
    for steps in (0, -3):
        with pytest.raises(ValueError, match="total_steps must be at least 1"):
            autolr.Replay(base, log, total_steps=steps)
    with pytest.raises(TypeError, match=r"total_steps must be a whole number, at least 1; got 2\.5"):
        autolr.Replay(base, log, total_steps=2.5)
    frozen = torch.optim.SGD(base.param_groups[0]["params"], lr=0.0)
    with pytest.raises(ValueError, match="rate above 0"):
        autolr.Replay(frozen, log)
