"""AutoLR is the base optimizer seen from outside."""

import copy
import pickle
import warnings

import torch
import torch.nn.functional as F
from torch import nn

import autolr
from training_runs import tuned_by

DATA = [(torch.randn(8, 4, generator=torch.Generator().manual_seed(i)), torch.arange(8) % 3) for i in range(6)]


def loss_fn(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def tuned(**settings):
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    settings = {"window": 4, "superbatch": 3, "policy": autolr.ExploreExploit(spread=2)} | settings
    return model, tuned_by(base, model, loss_fn, DATA, 40, **settings)


def train(model, optimizer, steps):
    for i in range(steps):
        optimizer.zero_grad()
        loss_fn(model, DATA[i % len(DATA)]).backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


def test_a_copy_of_model_and_optimizer_goes_on_by_itself_as_the_original_does():
    model, optimizer = tuned()
    train(model, optimizer, 9)  # in the middle of a probe
    before = [p.detach().clone() for p in model.parameters()]
    twin_model, twin = copy.deepcopy((model, optimizer))
    ahead = train(twin_model, twin, 15)
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    assert all(torch.equal(p, a) for p, a in zip(train(model, optimizer, 15), ahead, strict=True))
    assert twin.history == optimizer.history
    assert twin.base is not optimizer.base


def test_model_and_optimizer_come_back_from_a_pickle_and_go_on_as_the_original_does():
    model, optimizer = tuned()
    train(model, optimizer, 9)
    twin_model, twin = pickle.loads(pickle.dumps((model, optimizer)))
    ahead = train(twin_model, twin, 15)
    assert all(torch.equal(p, a) for p, a in zip(train(model, optimizer, 15), ahead, strict=True))
    assert twin.history == optimizer.history


def test_groups_and_state_that_a_trainer_assigns_are_the_bases():
    _, optimizer = tuned()
    groups, state = list(optimizer.base.param_groups), dict(optimizer.base.state)
    optimizer.param_groups, optimizer.state = groups, state
    assert optimizer.base.param_groups is groups is optimizer.param_groups
    assert optimizer.base.state is state is optimizer.state


def test_a_scaler_is_not_told_that_the_step_can_unscale():
    model = nn.Linear(4, 3)
    base = torch.optim.Adam(model.parameters(), lr=0.1, fused=True)
    assert base._step_supports_amp_scaling
    optimizer = autolr.AutoLR(base, model, loss_fn, DATA, 40, policy=autolr.Monitor())
    assert not getattr(optimizer, "_step_supports_amp_scaling", False)


def test_a_warning_points_at_the_line_of_the_user():
    model, optimizer = tuned()
    train(model, optimizer, 40)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(model, optimizer, 1)
    assert [warning.filename for warning in caught] == [__file__]


def test_a_probe_begun_while_exploring_never_lowers_the_rate_although_it_ends_in_exploit():
    # 12 steps explore; the window ends at 11, and the probe's last step is the 16th. A rate three times too large for
    # the bowl: every fit asks for less.
    model = nn.Linear(4, 1)
    nn.init.ones_(model.weight)
    base = torch.optim.SGD(model.parameters(), lr=1.5)

    def bowl(model, batch):
        return model.weight.square().sum() / 2 + 0 * batch.sum() + 1

    policy = autolr.ExploreExploit(explore=0.3, spread=6, saturation=2)
    batches = [torch.ones(1)] * 6
    optimizer = tuned_by(base, model, bowl, batches, 40, policy=policy, window=11, superbatch=6)
    for _ in range(17):
        optimizer.zero_grad()
        bowl(model, batches[0]).backward()
        optimizer.step()
    (record,) = optimizer.history
    assert record.eps
    assert record.eps_min < 0
    assert (record.step, record.phase, record.verdict) == (16, "explore", "keep")
