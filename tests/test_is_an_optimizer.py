"""AutoLR is a `torch.optim.Optimizer`: schedulers, hooks, groups and copies find in it what they look for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler
from torch.utils.data import DataLoader

import autolr
from training_runs import (
    Script,
    assert_innocent,
    assert_same_run,
    bits,
    classification,
    cross_entropy,
    differences,
    full_print,
    network,
    plain_update,
    run,
    seed_everything,
    sgd,
    shuffling,
    tuned_by,
)

O = torch.optim  # noqa: E741


# Schedulers and the rest of what a torch.optim.Optimizer is
SCHEDULERS = {
    "LambdaLR": lambda opt: lr_scheduler.LambdaLR(opt, lambda epoch: 1 / (1 + epoch)),
    "StepLR": lambda opt: lr_scheduler.StepLR(opt, 4, gamma=0.5),
    "CosineAnnealingLR": lambda opt: lr_scheduler.CosineAnnealingLR(opt, 20),
    "OneCycleLR": lambda opt: lr_scheduler.OneCycleLR(opt, 0.1, total_steps=20),
    "ReduceLROnPlateau": lambda opt: lr_scheduler.ReduceLROnPlateau(opt, patience=1),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_accepts_it_and_sets_the_same_rates_as_on_the_bare_optimizer(name: str):
    def also(opt: Optimizer) -> Callable[[], None]:
        scheduler = SCHEDULERS[name](opt)
        if name == "ReduceLROnPlateau":
            return lambda: scheduler.step(1.0)
        return scheduler.step

    alone = run(tuned=False, also=also)
    with pytest.warns(UserWarning, match="scheduler"):
        tuned = run(tuned=True, also=also, policy=Script(rollback=False))
    assert_same_run(alone, tuned)
    assert len({p["group/0.lr"] for p in tuned.prints}) > 1


def test_holding_beside_a_scheduler_is_what_the_warning_recommends_and_so_is_silent():
    def also(opt: Optimizer) -> Callable[[], None]:
        return lr_scheduler.StepLR(opt, 4, gamma=0.5).step

    assert_innocent(also=also)  # warnings are errors here


def made(**settings: Any) -> tuple[nn.Module, Any]:
    seed_everything(0)
    model = network()
    settings = {"policy": autolr.Monitor(), "window": 2, "superbatch": 2} | settings
    return model, tuned_by(sgd(model), model, cross_entropy, shuffling(), 50, **settings)


def test_it_is_an_optimizer_and_shows_the_wrapped_ones_own_parts():
    _, opt = made()
    assert isinstance(opt, Optimizer)
    assert opt.param_groups is opt.base.param_groups
    assert opt.state is opt.base.state
    assert opt.defaults is opt.base.defaults
    assert not hasattr(opt, "_step_supports_amp_scaling")


def test_its_repr_fits_a_line_and_names_the_wrapped_optimizer_and_the_policy():
    _, opt = made()
    assert repr(opt) == "AutoLR(SGD, Monitor, step 0 of 50, monitor, lr 0.05, 0.67 % spent)"


@pytest.mark.parametrize("through", ["AutoLR", "base before", "base after", "all optimizers"])
def test_step_hooks_fire_once_a_step(through: str):
    calls: list[str] = []

    def pre(*_: Any) -> None:
        calls.append("pre")

    def post(*_: Any) -> None:
        calls.append("post")

    seed_everything(0)
    model = network()
    base = sgd(model)
    if through == "base before":
        handles = [base.register_step_pre_hook(pre), base.register_step_post_hook(post)]
    opt = tuned_by(base, model, cross_entropy, shuffling(), 50, policy=autolr.Monitor(), window=1, superbatch=1)
    if through == "AutoLR":
        handles = [opt.register_step_pre_hook(pre), opt.register_step_post_hook(post)]
    elif through == "base after":
        handles = [base.register_step_pre_hook(pre), base.register_step_post_hook(post)]
    elif through == "all optimizers":
        from torch.optim import optimizer as module

        handles = [
            module.register_optimizer_step_pre_hook(pre),
            module.register_optimizer_step_post_hook(post),
        ]
    batches = list(DataLoader(classification(), batch_size=8))
    try:
        for batch in batches[:3]:
            plain_update(model, opt, cross_entropy, batch, 0)
    finally:
        for handle in handles:
            handle.remove()
    assert calls == ["pre", "post"] * 3
    plain_update(model, opt, cross_entropy, batches[3], 0)
    assert len(calls) == 6, "a removed hook still fires"


def test_state_dict_hooks_registered_on_it_fire():
    _, opt = made()
    seen: list[str] = []
    opt.register_state_dict_pre_hook(lambda *_: seen.append("save"))
    opt.register_load_state_dict_post_hook(lambda *_: seen.append("loaded"))
    opt.load_state_dict(opt.state_dict())
    assert seen == ["save", "loaded"]


def test_its_state_dict_can_be_copied_and_training_does_not_change_the_copy():
    model, opt = made(policy=autolr.ExploreExploit(explore=0.5))
    batches = list(DataLoader(classification(), batch_size=8))
    for batch in batches:
        plain_update(model, opt, cross_entropy, batch, 0)
    held = opt.state_dict()
    kept = copy.deepcopy(held)
    before = bits(kept)
    assert bits(held) == before
    for batch in batches * 2:
        plain_update(model, opt, cross_entropy, batch, 0)
    assert bits(kept) == before
    assert bits(held["autolr"]) == bits(kept["autolr"]), "AutoLR's own part is shared with the running optimizer"
    assert bits(opt.state_dict()["autolr"]) != bits(kept["autolr"])


def test_a_group_added_in_the_middle_of_a_window_is_trained_and_probed_along():
    def later(tuned: bool) -> Any:
        seed_everything(0)
        model = network()
        base = O.SGD(model[0].parameters(), lr=0.05, momentum=0.9)
        opt: Any = base
        data = shuffling()
        if tuned:
            opt = tuned_by(base, model, cross_entropy, data, 13, policy=autolr.Monitor(), window=3, superbatch=2)
        prints = []
        for _ in range(2):
            for batch in data:
                if len(prints) == 4:
                    opt.add_param_group({"params": model[-1].parameters(), "lr": 0.01})
                plain_update(model, opt, cross_entropy, batch, 0)
                prints.append(full_print(model, opt))
        return opt, prints

    (_, alone), (opt, tuned) = later(False), later(True)
    for one, other in zip(alone, tuned, strict=True):
        assert differences(one, other) == []
    assert [group["lr"] for group in opt.param_groups] == [0.05, 0.01]
    assert [record.step for record in opt.history] == [3, 7, 10], "a new window begins with the new group"
