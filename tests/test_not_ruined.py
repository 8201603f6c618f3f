"""Runs that an automatic rate once ruined, each kind in its smallest form; the full sizes are a study of the lab."""

from __future__ import annotations

import itertools
import math
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.utils.data import DataLoader, TensorDataset

import autolr
from autolr.measure.snapshot import Snapshot
from autolr.measure.step_line import StepLine
from autolr.policies.base import ProbeRequest, ProbeResult, Progress, Run, Search, Trigger
from autolr.policies.divergence import has_diverged
from autolr.policies.guard import ShortRuns
from autolr.policies.window_state import WindowResult
from autolr.policies.wording import explain

pytestmark = pytest.mark.long

SHAPE = autolr.PeakSearch(peak=0.05)  # a known peak: what follows it is tested, and nothing is searched


def squared(model, batch):
    return (model(batch[0]) - batch[1]).square().mean()


def regression(seed=0, minibatches=12, width=6):
    """A small net and minibatches that it can learn."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(width, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))
    x = torch.randn(16 * minibatches, width)
    y = (x[:, :1] * x[:, 1:2]).tanh() + x[:, 2:3]
    return model, list(zip(x.split(16), y.split(16), strict=True))


def momentum(model, lr=0.01):
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def step(model, optimizer, batch, loss_fn=squared):
    optimizer.zero_grad()
    loss_fn(model, batch).backward()
    optimizer.step()


def train(model, optimizer, data, steps, events=None, loss_fn=squared):
    """Steps with ``events[i]()`` before step ``i``."""
    for i, batch in enumerate(itertools.islice(itertools.cycle(data), steps)):
        (events or {}).get(i, lambda: None)()
        step(model, optimizer, batch, loss_fn)


def mean_loss(model, data):
    with torch.no_grad():
        return sum(float(squared(model, batch)) for batch in data) / len(data)


def triggers(optimizer):
    return [record.trigger for record in optimizer.history]


# Modules and buffers that are registered while it trains
CHANGES = {
    "pruning": lambda model: prune.l1_unstructured(model[0], "weight", 0.5),
    "spectral norm": lambda model: parametrizations.spectral_norm(model[2]),
    "a module before others": lambda model: setattr(model[0], "late", nn.BatchNorm1d(1)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("through_file", [False, True])
def test_a_snapshot_goes_back_in_a_model_that_was_changed_since(change, through_file):
    model, data = regression()
    optimizer = momentum(model)
    step(model, optimizer, data[0])
    before = [p.detach().clone() for p in optimizer.param_groups[0]["params"]]
    snapshot = Snapshot.capture(model, optimizer)
    if through_file:
        snapshot = Snapshot.from_state_dict(snapshot.state_dict())
    change(model)
    step(model, optimizer, data[1])
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    assert buffers, "there is something that the snapshot does not know"
    snapshot.restore(model, optimizer)
    assert all(map(torch.equal, before, optimizer.param_groups[0]["params"]))
    assert {name: value.tolist() for name, value in model.named_buffers()} == {
        name: value.tolist() for name, value in buffers.items()
    }
    step(model, optimizer, data[2])


def test_a_buffer_that_was_taken_away_since_does_not_come_back():
    model, _ = regression()
    optimizer = momentum(model)
    model[0].register_buffer("old", torch.ones(1))
    snapshot = Snapshot.capture(model, optimizer)
    del model[0].old
    snapshot.restore(model, optimizer)
    assert not hasattr(model[0], "old")


def ruin(model):
    """What a step at too high a rate does."""
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.mul_(30)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_run_whose_model_was_changed_is_still_brought_back(change):
    model, data = regression()
    optimizer = autolr.AutoLR(momentum(model), model, squared, data, 200, policy=SHAPE)
    events = {130: lambda: change(model), 140: lambda: ruin(model)}
    with pytest.warns(UserWarning, match=r"rolled back \d+ steps"):
        train(model, optimizer, data, 200, events)
    assert {"diverged", "died"} & set(triggers(optimizer))
    assert mean_loss(model, data) < 0.5


# Parameters that are no floats, or frozen
@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int64, torch.bfloat16])
@pytest.mark.parametrize(
    "policy",
    [
        autolr.Monitor(window=5, superbatch=3),
        autolr.ExploreExploit(window=5, superbatch=3, spread=1, explore=0.9),
        SHAPE,
    ],
    ids=["monitor", "paper", "peak"],
)
def test_frozen_weights_of_other_kinds_in_the_optimizer_do_no_harm(kind, policy):
    model, data = regression()
    model.base = nn.Parameter(torch.arange(6).to(kind), requires_grad=False)

    def loss(m, batch):
        return squared(m, (batch[0] + m.base.float() / 10, batch[1]))

    optimizer = autolr.AutoLR(momentum(model), model, loss, data, 60, policy=policy)
    train(model, optimizer, data, 60, loss_fn=loss)
    assert torch.equal(model.base, torch.arange(6).to(kind))
    assert optimizer.history
    assert mean_loss(model, data) < 1


def test_whole_numbers_are_on_no_line():
    moving, index = torch.ones(3), torch.arange(3)
    line = StepLine([moving, index])
    moving.add_(1)
    line.to(-0.5)
    assert moving.tolist() == [1.5] * 3
    assert index.tolist() == [0, 1, 2]
    assert line.moved()


def test_a_frozen_half_precision_weight_does_not_widen_the_samples():
    model, data = regression()
    policy = autolr.Monitor(window=5, superbatch=3)
    alone = autolr.AutoLR(momentum(model), model, squared, data, 20, policy=policy)
    train(model, alone, data, 20)
    model, data = regression()
    model.base = nn.Parameter(torch.ones(3, dtype=torch.bfloat16), requires_grad=False)
    beside = autolr.AutoLR(momentum(model), model, squared, data, 20, policy=policy)
    train(model, beside, data, 20)
    assert [record.eps for record in beside.history] == [record.eps for record in alone.history]


@pytest.mark.parametrize(
    ("now", "best", "floor", "because"),
    [
        (1.47, 1.53, 0.6, "it has gained less than half of the 0.6 that the best short run did"),
        (9.0, 1.53, 0.6, ", far above it"),
        (1.47, 0.5, 0.6, ": more than half of the improvement is lost"),
        (1.9, 1.6, 0.0, ", far above it"),  # the objective changed, and the best is above the start
    ],
)
def test_a_rollback_says_which_of_its_reasons_it_was(now, best, floor, because):
    policy, progress = autolr.PeakSearch(peak=0.1), Progress(Run(400), 200, 0.1)
    state = policy.begin(Run(400))
    guard = replace(
        state.guard, start=(1.53,) * 4, best=(best,) * 4, saved=(best,) * 4, now=(now,) * 4,
        short=ShortRuns(1.53, 1.53 - floor, 20) if floor else None, charge=Trigger.DIVERGED,
    )  # fmt: skip
    state = replace(state, guard=guard)
    request = policy.check(state, progress)
    _, decision = policy.decide(state, ProbeResult(request, progress, (((best,) * 4,),)))
    assert decision.verdict == "roll back"
    told = explain(decision, 0.1, "hold")
    assert because in told
    assert ("best short run" in told) == ("best short run" in because)


# A converged model
def test_a_converged_run_s_rate_stops_at_a_floor_and_that_is_said_once():
    torch.manual_seed(0)
    model, x = nn.Linear(2, 1), torch.randn(32, 2)
    data = [(x[i::4], x[i::4].sum(1, keepdim=True) + 0.1 * torch.randn(8, 1)) for i in range(4)]
    policy = autolr.ExploreExploit.adaptive(window=2, superbatch=4, overhead=math.inf, floor=1e-3)
    optimizer = autolr.AutoLR(torch.optim.SGD(model.parameters(), lr=0.1), model, squared, data, 240, policy=policy)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(model, optimizer, data, 240)
    rates = [record.lr_after for record in optimizer.history]
    assert min(rates) == pytest.approx(1e-3 * max(0.1, *rates))
    assert triggers(optimizer).count("at floor") > 1
    assert [str(warning.message) for warning in caught if "floor" in str(warning.message)] == [
        str(warning.message) for warning in caught
    ]
    assert len(caught) == 1


def test_a_run_that_diverges_at_its_floor_is_not_lowered_below_it():
    policy = autolr.ExploreExploit(floor=0.25)
    own = policy.own_state()
    lr = 1.0
    for window in range(1, 9):
        own, decision = policy.judge(own, WindowResult(window, 100, lr, 1.0, math.nan, 1, None))
        assert decision.verdict == "roll back"
        lr = decision.lr
    assert lr == 0.25


# What is a divergence, and what is none
LEARNED, CHANCE = (0.4, 0.5, 0.6, 0.5), (2.3, 2.4, 2.2, 2.3)


@pytest.mark.parametrize(
    ("told", "start", "best", "now", "floor", "diverged"),
    [
        ("learned, then chance", CHANCE, LEARNED, CHANCE, 0, True),
        ("learned, and still there", CHANCE, LEARNED, LEARNED, 0, False),
        ("a plateau, a little above the start", CHANCE, CHANCE, (2.35, 2.45, 2.25, 2.34), 0, False),
        (
            "trained before, at a high rate again",
            (1.4, 1.5, 1.3, 1.4),
            (1.4, 1.5, 1.3, 1.4),
            (1.7, 1.8, 1.6, 1.8),
            0,
            False,
        ),
        ("trained before, then chance", (1.4, 1.5, 1.3, 1.4), (1.4, 1.5, 1.3, 1.4), CHANCE, 0, True),
        ("far above the start", CHANCE, CHANCE, (4.0, 9.0, 3.0, 5.0), 0, True),
        ("far above the start, with a scatter that hides it", (0.6, 0.7), (0.6, 0.7), (2.0, 60.0), 0, True),
        ("one minibatch far above, a heavy tail", CHANCE, CHANCE, (2.2, 2.4, 90.0, 2.3), 0, False),
        ("chance, where a short run has learned", CHANCE, CHANCE, CHANCE, 1.0, True),
        ("chance, where a short run has gained a little", CHANCE, CHANCE, CHANCE, 0.1, False),
        ("all are NaN", CHANCE, LEARNED, (math.nan,) * 4, 0, True),
        ("half are infinite", CHANCE, LEARNED, (0.4, 0.5, math.inf, math.inf), 0, True),
        ("one becomes infinite, as a logarithm of 0", CHANCE, LEARNED, (0.4, 0.5, math.inf, 0.5), 0, False),
        ("one was bad from the start", (*CHANCE[:3], math.nan), LEARNED, (*LEARNED[:3], math.nan), 0, False),
        ("all were bad from the start", (math.nan,) * 4, (math.nan,) * 4, (math.nan,) * 4, 1.0, False),
        ("the only minibatch, learned, then chance", (2.3,), (0.5,), (2.3,), 0, True),
        ("a loss below 0", (-1.0, -1.2, -0.9, -1.1), (-5.0, -5.2, -5.1, -5.0), (-1.0, -1.2, -0.9, -1.1), 0, True),
    ],
)
def test_what_diverged_and_what_did_not(told, start, best, now, floor, diverged):
    assert has_diverged(start, best, now, floor) is diverged, told


@pytest.mark.parametrize("unit", [1e-4, 1e4])
def test_divergence_is_the_same_in_any_unit_of_the_loss(unit):
    def scaled(losses):
        return tuple(unit * loss for loss in losses)

    assert has_diverged(scaled(CHANCE), scaled(LEARNED), scaled(CHANCE), unit)
    assert not has_diverged(scaled(CHANCE), scaled(CHANCE), scaled((2.35, 2.45, 2.25, 2.34)), 0.0)


def test_no_place_is_kept_where_nothing_is_gained_since_its_units_may_be_dead():
    policy, run = autolr.PeakSearch(peak=0.1), Run(400)
    state, kept = policy.begin(run), []
    for taken, losses in ((0, CHANCE), (100, CHANCE), (200, LEARNED), (300, CHANCE[::-1])):
        now = Progress(run, taken, 0.1)
        request = policy.check(state, now)
        state, _ = policy.decide(state, ProbeResult(request, now, ((losses,),)))
        request = policy.check(state, now)
        if request is not None and request.snapshot:
            kept.append(taken)
            state, _ = policy.decide(state, ProbeResult(request, now))
    assert kept == [0, 200]


def kill(model):
    """All units of the first layer: its parameters, and the weights that they feed, have no gradient any more."""
    with torch.no_grad():
        model[0].bias.fill_(-1e3)


def test_units_that_die_where_nothing_is_gained_yet_are_brought_back_with_a_word():
    model, data = regression()
    optimizer = autolr.AutoLR(momentum(model), model, squared, data, 400, policy=SHAPE)
    with pytest.warns(UserWarning, match="units died: 3 of the parameters have no gradient any more"):
        train(model, optimizer, data, 400, {3: lambda: kill(model)})
    assert triggers(optimizer).count("died") == 1
    back = next(record for record in optimizer.history if record.trigger == "died")
    assert back.lr_after == pytest.approx(0.05 / 3)
    assert mean_loss(model, data) < 0.2


def test_parameters_that_are_replaced_by_longer_ones_are_followed_and_brought_back():
    """As splatting does, which adds points in the middle of a run."""
    torch.manual_seed(0)
    model = nn.Module()
    model.points = nn.Parameter(torch.randn(10, 2))
    data = [torch.rand(64, 2) for _ in range(10)]

    def loss_fn(model, batch):
        return torch.cdist(batch, model.points).min(1).values.square().mean()

    base = torch.optim.Adam([model.points], lr=1e-3)
    optimizer = autolr.AutoLR(base, model, loss_fn, data, 60, policy=autolr.PeakSearch(peak=0.01))
    with pytest.warns(UserWarning, match="it diverged"):
        for step in range(60):
            if step == 30:
                (group,), old = base.param_groups, model.points
                model.points = nn.Parameter(torch.cat([old.detach(), old.detach() + 0.1]))
                state = base.state.pop(old)
                state |= {name: torch.cat([state[name], torch.zeros(10, 2)]) for name in ("exp_avg", "exp_avg_sq")}
                group["params"], base.state[model.points] = [model.points], state
            optimizer.zero_grad()
            loss_fn(model, data[step % 10]).backward()
            if step == 31:
                model.points.grad.fill_(math.nan)
            optimizer.step()
    assert model.points.shape == (20, 2)
    assert model.points.isfinite().all()
    assert optimizer.cost.discarded_steps < 20


@pytest.mark.parametrize(("stuck", "said"), [(0.2, False), (1.2, True)])
def test_a_run_that_stands_where_its_best_short_run_ended_says_so_from_its_half_on(stuck, said):
    """As a Transformer does that has learnt the words' frequencies in a few steps, at a peak too high for more."""
    policy, run = autolr.PeakSearch(), Run(400)
    found = Search(0.1, 0.05, 0.2, 2.3, 1.1, 100, found=True, details={"runs": [{"length": 13}]})
    state, _ = policy.decide(
        policy.begin(run), ProbeResult(ProbeRequest("search"), Progress(run, 0, 0.1), search=found)
    )
    words = []
    for taken in (0, 100, 200, 300):
        now, losses = Progress(run, taken, 0.1), CHANCE if not taken else (stuck,) * 4
        while (request := policy.check(state, now)) is not None:
            state, decision = policy.decide(
                state, ProbeResult(request, now, ((losses,),) if request.minibatches else ())
            )
            if decision is not None:
                words.append("best short run" in explain(decision, 0.1, "hold"))
    assert words == [False, said, said]


def test_units_behind_a_frozen_layer_die_too():
    model, data = regression()
    model = nn.Sequential(nn.Linear(data[0][0].shape[1], data[0][0].shape[1]), *model).requires_grad_()
    model[0].requires_grad_(requires_grad=False)
    base = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    optimizer = autolr.AutoLR(base, model, squared, data, 400, policy=SHAPE)

    def kill_second():
        with torch.no_grad():
            model[1].bias.fill_(-1e3)

    with pytest.warns(UserWarning, match="units died"):
        train(model, optimizer, data, 400, {3: kill_second})
    assert triggers(optimizer).count("died") == 1


def test_a_loss_that_raises_at_ruined_weights_is_brought_back_in_a_loop_that_catches_it():
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    data = [(torch.randn(8, 4), torch.arange(8) % 3) for _ in range(10)]

    def loss_fn(model, batch):  # refuses logits of NaN
        return -torch.distributions.Categorical(logits=model(batch[0])).log_prob(batch[1]).mean()

    base = torch.optim.SGD(model.parameters(), lr=0.05)
    optimizer = autolr.AutoLR(base, model, loss_fn, data, 200, policy=autolr.PeakSearch(peak=0.05))
    with pytest.warns(UserWarning, match="it diverged"):
        for step in range(300):
            optimizer.zero_grad()
            try:
                loss_fn(model, data[step % 10]).backward()
            except ValueError:
                continue
            if step == 60:
                model.weight.grad.fill_(math.nan)
            optimizer.step()
            if optimizer.steps_taken == 200:
                break
    assert model.weight.isfinite().all()


def rare_clicks():
    """Targets of which next to nothing can be told, so that hardly a tenth of the loss is ever gained."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(640, 8, generator=generator)
    clicked = (torch.rand(640, generator=generator) < torch.sigmoid(inputs[:, 0] / 2)).float()
    return [(inputs[i : i + 16], clicked[i : i + 16], i // 16 % 4) for i in range(0, 640, 16)]


class SkippedLayers(nn.Module):
    """Stochastic depth of whole minibatches."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)) for _ in range(6))
        self.out = nn.Linear(8, 1)

    def forward(self, x, _):
        for layer in self.layers:
            x = x + layer(x) * (float(torch.rand(()) < 0.8) / 0.8 if self.training else 1)
        return self.out(x)[:, 0]


class Heads(nn.Module):
    """One for each domain, of which a minibatch has a single one."""

    def __init__(self):
        super().__init__()
        self.trunk, self.heads = nn.Linear(8, 16), nn.ModuleList(nn.Linear(16, 1) for _ in range(4))

    def forward(self, x, domain):
        return self.heads[domain](self.trunk(x).relu())[:, 0]


class Experts(nn.Module):
    """A mixture with top-1 routing: one that no example is routed to has a gradient of zero."""

    def __init__(self):
        super().__init__()
        self.router = nn.Linear(8, 8)
        self.first = nn.ParameterList(nn.Parameter(torch.randn(8, 16) / 3) for _ in range(8))
        self.second = nn.ParameterList(nn.Parameter(torch.randn(16) / 4) for _ in range(8))

    def forward(self, x, _):
        weight, expert = self.router(x).softmax(1).max(1)
        told = ((x @ a).relu() @ b for a, b in zip(self.first, self.second, strict=True))
        return sum((expert == number) * weight * out for number, out in enumerate(told))


def clicks(model, batch):
    return nn.functional.binary_cross_entropy_with_logits(model(batch[0], batch[2]), batch[1])


def trained_on_clicks(kind, steps, events=None, *, left_out=()):
    """At one minibatch in ``left_out`` a loop that keeps its gradients' memory makes 60 calls without a step."""
    torch.manual_seed(0)
    model, data = kind(), rare_clicks()
    optimizer = autolr.AutoLR(torch.optim.AdamW(model.parameters()), model, clicks, data, steps, policy=SHAPE)
    for step, batch in zip(range(steps), itertools.cycle(data), strict=False):
        if step in (events or {}):
            events[step](model)
        for _ in range(60 if step in left_out else 1):
            optimizer.zero_grad(set_to_none=False)
        clicks(model, batch).backward()
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("kind", [SkippedLayers, Heads, Experts])
def test_what_a_minibatch_does_not_reach_is_not_dead(kind):
    optimizer = trained_on_clicks(kind, 200, left_out={10})
    assert set(triggers(optimizer)) == {"healthy"}
    assert optimizer.cost.discarded_steps == 0


def test_a_layer_that_is_held_by_a_hook_is_taken_for_dead_once_at_most():
    def hold(model):
        for parameter in model.trunk.parameters():
            parameter.register_hook(torch.zeros_like)

    with pytest.warns(UserWarning, match="units died"):
        optimizer = trained_on_clicks(Heads, 400, {30: hold})
    assert triggers(optimizer).count("died") == 1
    assert optimizer.cost.discarded_steps < 120


def test_units_that_die_again_on_the_way_up_are_brought_back_again():
    model, data = regression()
    optimizer = autolr.AutoLR(momentum(model), model, squared, data, 600, policy=SHAPE)
    with pytest.warns(UserWarning, match="units died"):
        train(model, optimizer, data, 600, {3: lambda: kill(model), 200: lambda: kill(model)})
    assert [r.lr_after for r in optimizer.history if r.trigger == "died"] == pytest.approx([0.05 / 3, 0.05 / 9])


def test_parameters_that_never_had_a_gradient_are_not_dead_and_a_plateau_is_none():
    model, data = regression()
    with torch.no_grad():
        model[0].weight[8:] = 0.0
        model[0].bias[8:] = -1.0
    spare = nn.Parameter(torch.ones(3))
    model.register_parameter("spare", spare)
    base = torch.optim.SGD(model.parameters(), lr=0.01)

    def loss(model, batch):  # the spare parameter is used, and has a gradient of zero; nothing is ever gained
        return 1.0 + 1e-6 * squared(model, batch) + 0.0 * model.spare.sum()

    optimizer = autolr.AutoLR(base, model, loss, data, 100, policy=SHAPE)
    train(model, optimizer, data, 100, loss_fn=loss)
    assert "died" not in triggers(optimizer)
    assert (spare.grad == 0).all()


def test_units_that_die_late_are_left_to_a_run_that_has_learnt_and_goes_on():
    model, data = regression()
    optimizer = autolr.AutoLR(momentum(model), model, squared, data, 200, policy=SHAPE)

    def freeze_first_layer():  # its gradient is zero from here on, and the loss stays where it is
        model[0].register_forward_hook(lambda _m, _i, out: out.detach())

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(model, optimizer, data, 200, {120: freeze_first_layer})
    assert "died" not in triggers(optimizer)


def test_one_nan_gradient_in_the_second_half_is_brought_back_with_a_word():
    model, data = regression()
    optimizer = autolr.AutoLR(momentum(model), model, squared, data, 200, policy=SHAPE)

    def poison():
        handle = model[0].weight.register_hook(lambda gradient: (handle.remove(), gradient * math.nan)[1])

    with pytest.warns(UserWarning, match="rolled back"):
        train(model, optimizer, data, 200, {130: poison})
    assert triggers(optimizer).count("diverged") == 1
    assert mean_loss(model, data) < 0.5


@pytest.mark.parametrize("seed", [0, 1])
def test_a_trained_net_that_goes_on_at_a_high_rate_is_left_to_come_down_by_itself(seed):
    torch.manual_seed(seed)
    model, x = nn.Linear(6, 1), torch.randn(320, 6)
    y = x.sum(1, keepdim=True) + torch.randn(320, 1)
    with torch.no_grad():
        solution = torch.linalg.lstsq(torch.cat([x, torch.ones(320, 1)], 1), y).solution[:, 0]
        model.weight.copy_(solution[:6])
        model.bias.copy_(solution[6:])
    data = list(zip(x.split(8), y.split(8), strict=True))
    optimizer = autolr.AutoLR(momentum(model), model, squared, data, 400, policy=autolr.PeakSearch(peak=0.015))
    train(model, optimizer, data, 400)
    assert set(triggers(optimizer)) == {"healthy"}
    losses = [record.loss for record in optimizer.history]
    assert max(losses) > 1.03 * losses[-1], "it stood above, and came down"


def test_a_scheduler_that_warms_up_from_0_on_the_same_optimizer_does_not_stop_the_search():
    model, data = regression()
    optimizer = autolr.AutoLR(momentum(model), model, squared, data, 400)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: t / 50)
    with pytest.warns(UserWarning, match="steps the same optimizer"):
        step(model, optimizer, data[0])
    assert optimizer.history[0].search["given"] == 0.01
    assert optimizer.lr > 0


# Loops that step no more once the parameters are NaN
def skipping(model, optimizer, data, steps, poison_at, limit=400):
    """As loops do that leave out minibatches without a finite loss. How many they left out."""
    taken = skipped = 0
    for batch in itertools.cycle(data):
        if taken == steps or skipped == limit:
            return skipped
        optimizer.zero_grad()
        loss = squared(model, batch)
        if not torch.isfinite(loss):
            skipped += 1
            continue
        loss.backward()
        if taken == poison_at:
            model[0].weight.grad.fill_(math.nan)
        optimizer.step()
        taken += 1
    return skipped


def test_a_loop_that_skips_whatever_is_not_finite_does_not_hang_with_dead_weights():
    model, data = regression()
    optimizer = autolr.AutoLR(momentum(model), model, squared, data, 200, policy=SHAPE)
    with pytest.warns(UserWarning, match="rolled back"):
        assert skipping(model, optimizer, data, 200, poison_at=130) == 50 - 1  # the check comes before the fiftieth
    assert mean_loss(model, data) < 0.5


def test_many_calls_of_zero_grad_in_a_healthy_run_change_nothing():
    runs = []
    for calls in (1, 130):
        model, data = regression()
        optimizer = autolr.AutoLR(momentum(model), model, squared, data, 40, policy=SHAPE)
        for batch in itertools.islice(itertools.cycle(data), 40):
            for _ in range(calls - 1):
                optimizer.zero_grad()
            step(model, optimizer, batch)
        runs.append([p.tolist() for p in model.parameters()])
        assert set(triggers(optimizer)) == {"healthy"}
    assert runs[0] == runs[1]


# At full size
@pytest.mark.slow
@pytest.mark.parametrize("unit", [1.0, 1e-4, 1e4])
def test_a_plain_relu_net_on_digits_ends_where_a_hand_set_cosine_does_for_every_seed(unit):
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)

    def loss(m, batch):
        return unit * nn.functional.cross_entropy(m(batch[0]), batch[1])

    for seed in range(5):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        loader = DataLoader(TensorDataset(x[:1300], y[:1300]), 32, shuffle=True)
        base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        optimizer = autolr.AutoLR(base, model, loss, loader, 300, seed=seed)
        for batch in itertools.islice(itertools.chain.from_iterable(itertools.repeat(loader)), 300):
            step(model, optimizer, batch, loss)
        right = (model(x[1300:]).argmax(1) == y[1300:]).float().mean()
        assert right > 0.88, f"seed {seed}; a cosine from 0.1 ends at .92 to .93"
