"""What cannot work is refused, or warned of once, in words: what was got, what is allowed, what to do instead."""

from __future__ import annotations

import copy
import math
import pickle
import re
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler
from torch.utils.data import DataLoader, IterableDataset

import autolr
from training_runs import (
    Script,
    classification,
    cross_entropy,
    differences,
    full_print,
    plain_update,
    seed_everything,
    sgd,
    tuned_by,
)

O = torch.optim  # noqa: E741


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 2))


BATCHES = list(DataLoader(classification(), batch_size=8))


def make(
    base: Callable[[nn.Module], Any] = sgd,
    loss_fn: Any = cross_entropy,
    batches: Any = BATCHES,
    total_steps: Any = 30,
    model: nn.Module | None = None,
    **settings: Any,
) -> tuple[nn.Module, Any]:
    seed_everything(0)
    model = network() if model is None else model
    settings = {"policy": autolr.ExploreExploit()} | settings
    return model, tuned_by(base(model), model, loss_fn, batches, total_steps, **settings)


def assert_refused(error: type[Exception], parts: tuple[str, ...], **given: Any) -> None:
    """The error has all ``parts``, and neither model, optimizer nor generators are any different after it."""
    seed_everything(0)
    model = network()
    base = given.pop("base", sgd)(model)
    loss_fn, batches = given.pop("loss_fn", cross_entropy), given.pop("batches", BATCHES)
    seed_everything(7)
    before = full_print(model, base) if isinstance(base, Optimizer) else {}
    with pytest.raises(error) as caught:
        autolr.AutoLR(base, model, loss_fn, batches, given.pop("total_steps", 30), **given)
    for part in parts:
        assert part in str(caught.value), str(caught.value)
    if isinstance(base, Optimizer):
        assert differences(before, full_print(model, base)) == []


def train(model: nn.Module, opt: Any, steps: int, also: Callable[[], Any] = lambda: None) -> None:
    for i in range(steps):
        plain_update(model, opt, cross_entropy, BATCHES[i % 6], i)
        also()


# The loss
def per_example(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def counted(model: nn.Module, batch: Any) -> Tensor:
    return (model(batch[0]).argmax(1) != batch[1]).sum()


def as_float(model: nn.Module, batch: Any) -> float:
    return cross_entropy(model, batch).item()


def nan(model: nn.Module, batch: Any) -> Tensor:
    return cross_entropy(model, batch) * math.nan


def infinite(model: nn.Module, batch: Any) -> Tensor:
    return cross_entropy(model, batch) * math.inf


def nothing(model: nn.Module, batch: Any) -> None:
    cross_entropy(model, batch)


def pair(model: nn.Module, batch: Any) -> tuple[Tensor, int]:
    return cross_entropy(model, batch), 3


@pytest.mark.parametrize(
    ("loss_fn", "error", "parts"),
    [
        (per_example, ValueError, ("one number", "shape (8,)", "Take its mean")),
        (counted, TypeError, ("floating-point tensor", "torch.int64", "Return for instance")),
        (as_float, TypeError, ("floating-point tensor", "got float", "Return for instance")),
        (nothing, TypeError, ("floating-point tensor", "got NoneType", "Return for instance")),
        (pair, TypeError, ("floating-point tensor", "got tuple", "Return for instance")),
        (nan, ValueError, ("finite loss", "got nan", "Check")),
        (infinite, ValueError, ("finite loss", "got inf", "Check")),
        (0.5, TypeError, ("callable", "loss_fn(model, batch)", "got float")),
    ],
)
def test_a_loss_that_cannot_be_used_is_an_error_before_training(
    loss_fn: Any, error: type[Exception], parts: tuple[str, ...]
):
    assert_refused(error, parts, loss_fn=loss_fn)


def test_a_loss_of_one_number_may_have_any_shape_with_one_element():
    _, opt = make(loss_fn=lambda model, batch: cross_entropy(model, batch).reshape(1, 1))
    assert math.isfinite(opt.lr)


@pytest.mark.parametrize(
    "policy", [autolr.ExploreExploit(explore=1.0), autolr.Monitor()], ids=lambda p: type(p).__name__
)
def test_a_loss_that_does_not_depend_on_the_model_is_warned_of_once_and_the_rate_is_kept(policy: Any):
    other = nn.Linear(6, 2)

    def elsewhere(model: nn.Module, batch: Any) -> Tensor:
        return cross_entropy(other, batch)

    model, opt = make(loss_fn=elsewhere, policy=policy, window=2, superbatch=2)
    with pytest.warns(UserWarning, match="loss") as caught:
        train(model, opt, 20)
    assert len(caught) == 1
    for part in ("at every eps", "must depend on the parameters", "left alone"):
        assert part in str(caught[0].message)
    assert opt.lr == 0.05
    assert len(opt.history) >= 4


# The minibatches
class Empty(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(())


class Once(IterableDataset[Any]):
    """A data set that is its own iterator: a probe would eat training's examples."""

    def __iter__(self) -> Once:
        return self

    def __next__(self) -> Any:
        return classification()[0]


@pytest.mark.parametrize(
    ("batches", "error", "parts"),
    [
        (iter(DataLoader(classification())), TypeError, ("iterated again", "Pass the DataLoader itself")),
        (iter([]), ValueError, ("no minibatch", "DataLoader or a list")),
        ([], ValueError, ("batches is empty", "pass the DataLoader")),
        (DataLoader([], batch_size=4), ValueError, ("batches is empty", "pass the DataLoader")),
        (DataLoader(classification(5), batch_size=8, drop_last=True), ValueError, ("batches is empty",)),
        (DataLoader(Empty(), batch_size=4), ValueError, ("no minibatch", "DataLoader or a list")),
        (DataLoader(Once(), batch_size=4), TypeError, ("its own iterator", "Once", "Pass batches=")),
        (7, TypeError, ("DataLoader, or an iterable", "got int")),
        (None, TypeError, ("DataLoader, or an iterable", "got NoneType")),
    ],
    ids=lambda v: type(v).__name__ if not isinstance(v, tuple) else "",
)
def test_minibatches_that_cannot_be_drawn_again_are_refused(
    batches: Any, error: type[Exception], parts: tuple[str, ...]
):
    assert_refused(error, parts, batches=batches)


# The wrapped optimizer
def wrapped_already(model: nn.Module) -> Any:
    return autolr.AutoLR(sgd(model), model, cross_entropy, BATCHES, 30, policy=autolr.ExploreExploit())


def with_strangers(model: nn.Module) -> Optimizer:
    return O.SGD([*model.parameters(), *nn.Linear(2, 2).parameters()], lr=0.1)


def of_two_groups(*lrs: Any) -> Callable[[nn.Module], Optimizer]:
    def base(model: nn.Module) -> Optimizer:
        made = O.SGD([{"params": [p]} for p in list(model.parameters())[: len(lrs)]], lr=0.1)
        for group, lr in zip(made.param_groups, lrs, strict=True):
            group["lr"] = lr
        return made

    return base


class OwnLBFGS(O.LBFGS):
    pass


@pytest.mark.parametrize(
    ("base", "error", "parts"),
    [
        (lambda m: m, TypeError, ("torch.optim.Optimizer", "got Sequential", "For instance AutoLR(")),
        (lambda m: list(m.parameters()), TypeError, ("torch.optim.Optimizer", "got list", "For instance")),
        (lambda _: O.SGD, TypeError, ("torch.optim.Optimizer", "got type", "For instance")),
        (
            lambda m: lr_scheduler.StepLR(sgd(m), 1),
            TypeError,
            ("torch.optim.Optimizer", "got StepLR", "For instance"),
        ),
        (wrapped_already, TypeError, ("not wrapped yet", "got an AutoLR")),
        (with_strangers, ValueError, ("2 parameters", "not the model's", "Pass the module")),
        (lambda m: O.LBFGS(m.parameters()), TypeError, ("LBFGS", "closure", "SGD, Adam")),
        (lambda m: OwnLBFGS(m.parameters()), TypeError, ("LBFGS", "closure", "SGD, Adam")),
        (lambda m: O.SparseAdam(list(m.parameters())), TypeError, ("SparseAdam", "rows", "SGD, Adam")),
        (lambda m: O.Rprop(m.parameters()), TypeError, ("Rprop", "learning rate", "SGD, Adam")),
        (lambda m: O.Adafactor(m.parameters()), TypeError, ("Adafactor", "sqrt", "SGD, Adam")),
        (of_two_groups(0.0, 0.0), ValueError, ("[0.0, 0.0]", "one of them above 0", "give the optimizer")),
        (of_two_groups(math.nan), ValueError, ("nan", "finite", "give the optimizer")),
        (of_two_groups(math.nan, 0.1), ValueError, ("nan", "finite", "give the optimizer")),
        (of_two_groups(0.1, math.nan), ValueError, ("nan", "finite", "give the optimizer")),
        (of_two_groups(0.1, math.inf), ValueError, ("inf", "finite", "give the optimizer")),
        (of_two_groups(0.1, -0.1), ValueError, ("-0.1", "0 or more", "give the optimizer")),
        (of_two_groups(0.1, None), ValueError, ("lr=None", "learning rate to tune", "Give SGD")),
    ],
)
def test_an_optimizer_that_cannot_be_tuned_is_refused(
    base: Callable[[nn.Module], Any], error: type[Exception], parts: tuple[str, ...]
):
    assert_refused(error, parts, base=base)


@pytest.mark.parametrize("model", [None, lambda x: x, network], ids=["none", "function", "factory"])
def test_a_model_that_is_no_module_is_refused(model: Any):
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module; got"):
        autolr.AutoLR(sgd(network()), model, cross_entropy, BATCHES, 30, policy=autolr.ExploreExploit())


def test_a_group_with_parameters_that_are_not_the_models_is_refused_and_not_added():
    model, opt = make(base=lambda m: O.SGD(m[0].parameters(), lr=0.05))
    with pytest.raises(ValueError, match="not the model's"):
        opt.add_param_group({"params": nn.Linear(2, 2).parameters()})
    assert len(opt.param_groups) == 1
    train(model, opt, 4)


@pytest.mark.parametrize("lr", [math.nan, -1.0])
def test_a_group_with_a_rate_that_cannot_be_tuned_is_refused_and_not_added(lr: float):
    model, opt = make(base=lambda m: O.SGD(m[0].parameters(), lr=0.05))
    with pytest.raises(ValueError, match="finite, 0 or more"):
        opt.add_param_group({"params": model[-1].parameters(), "lr": lr})
    assert len(opt.param_groups) == 1


# Numbers
@pytest.mark.parametrize("value", [0, -1, 1.5, 10.0, True, "10", math.nan], ids=repr)
def test_a_count_that_is_not_a_whole_number_from_1_is_refused_by_name(value: Any):
    error = ValueError if type(value) is int else TypeError
    assert_refused(error, ("total_steps", "at least 1", f"got {value!r}"), total_steps=value)
    for name in ("window", "superbatch"):
        with pytest.raises(error, match=rf"{name} .*at least 1.*got {re.escape(repr(value))}"):
            autolr.ExploreExploit(**{name: value})


@pytest.mark.parametrize("value", [-1, 0.5, None, "0", True], ids=repr)
def test_a_seed_that_is_not_a_whole_number_from_0_is_refused(value: Any):
    error = ValueError if type(value) is int else TypeError
    assert_refused(error, ("seed", "at least 0", f"got {value!r}"), seed=value)


@pytest.mark.parametrize("name", ["total_steps", "window", "superbatch", "seed"])
def test_a_whole_number_may_be_numpys(name: str):
    make(**{name: np.int64(4)})


def test_a_superbatch_larger_than_the_data_is_refused_with_the_largest_that_fits():
    policy = autolr.ExploreExploit(superbatch=7)
    assert_refused(ValueError, ("superbatch", "at most the 6", "got 7", "Leave it out"), policy=policy)


@pytest.mark.parametrize("window", [30, 1000])
def test_a_window_in_which_there_is_never_a_probe_is_refused(window: int):
    policy = autolr.ExploreExploit(window=window)
    assert_refused(ValueError, ("window", "below total_steps (30)", f"got {window}"), policy=policy)


def test_a_run_longer_than_it_was_said_to_be_is_warned_of_once_and_goes_on_at_its_rate():
    model, opt = make(total_steps=10, policy=autolr.Monitor(), window=3, superbatch=2)  # epochs, not steps, say
    with pytest.warns(UserWarning, match=r"step 11 of a run of total_steps=10.*epochs \* len") as warned:
        train(model, opt, 30)
    assert len(warned) == 1
    assert opt.history[-1].step <= 10


@pytest.mark.parametrize("policy", ["paper", 3, object()], ids=["a name", "a number", "an object"])
def test_what_is_not_a_policy_is_refused_with_what_it_lacks(policy: Any):
    assert_refused(TypeError, ("policy must have", "decide", "PeakSearch()"), policy=policy)


@pytest.mark.parametrize(
    ("validation_eps", "error"),
    [
        (0.75, TypeError),
        ("abc", TypeError),
        ((math.nan,), ValueError),
        ((-1.5,), ValueError),
        ((math.inf,), ValueError),
    ],
    ids=repr,
)
def test_validation_samples_that_no_probe_can_take_are_refused(validation_eps: Any, error: type[Exception]):
    with pytest.raises(error, match=f"validation_eps .*{re.escape(repr(validation_eps))}"):
        autolr.Monitor(validation_eps=validation_eps)


@pytest.mark.parametrize(
    ("settings", "error", "parts"),
    [
        ({"explore": -0.1}, ValueError, ("explore", "at least 0 and at most 1", "got -0.1")),
        ({"explore": 1.1}, ValueError, ("explore", "at least 0 and at most 1", "got 1.1")),
        ({"explore": math.nan}, ValueError, ("explore", "at least 0 and at most 1", "got nan")),
        ({"explore": "a"}, TypeError, ("explore", "a number at least 0", "got 'a'")),
        ({"explore": True}, TypeError, ("explore", "a number at least 0", "got True")),
        ({"explore": None}, TypeError, ("explore", "a number at least 0", "got None")),
        ({"saturation": 1}, ValueError, ("saturation", "above 1", "got 1")),
        ({"saturation": math.inf}, ValueError, ("saturation", "above 1", "got inf")),
        ({"epsilon": 0}, ValueError, ("epsilon", "above 0", "got 0")),
        ({"epsilon": -1e-3}, ValueError, ("epsilon", "above 0", "got -0.001")),
        ({"factor": 1}, ValueError, ("factor", "above 1", "got 1")),
        ({"factor": 0.5}, ValueError, ("factor", "above 1", "got 0.5")),
        ({"spread": 0}, ValueError, ("spread", "at least 1", "got 0")),
        ({"spread": 1.5}, TypeError, ("spread", "at least 1", "got 1.5")),
        ({"eps": ()}, ValueError, ("eps", "got ()", "Take for instance")),
        ({"eps": (0.0,)}, ValueError, ("eps", "got (0.0,)", "Take for instance")),
        ({"eps": (-0.5, 0.5)}, ValueError, ("eps", "hold 0", "got (-0.5, 0.5)", "Take for instance")),
        ({"eps": (0.0, 0.5, 1.0)}, ValueError, ("eps", "pair", "got (0.0, 0.5, 1.0)")),
        ({"eps": (-2.0, 0.0, 2.0)}, ValueError, ("eps", "e <= 1", "got (-2.0, 0.0, 2.0)")),
        ({"eps": (-0.5, math.nan, 0.0, 0.5)}, ValueError, ("eps", "nan", "Take for instance")),
        ({"eps": (math.nan, 0.0, math.nan)}, ValueError, ("eps", "nan", "Take for instance")),
        ({"eps": ("a", 0.0, "b")}, TypeError, ("eps", "'a'")),
        ({"eps": 0.5}, TypeError, ("eps", "0.5")),
    ],
    ids=str,
)
def test_a_setting_of_the_policy_that_is_out_of_range_is_refused_by_name(
    settings: dict[str, Any], error: type[Exception], parts: tuple[str, ...]
):
    with pytest.raises(error) as caught:
        autolr.ExploreExploit(**settings)
    for part in parts:
        assert part in str(caught.value), str(caught.value)


def test_a_preset_that_table_7_does_not_have_is_refused_with_those_it_has():
    with pytest.raises(ValueError, match=r"mnist.*squad; got 'cifar'"):
        autolr.ExploreExploit.from_paper("cifar")  # type: ignore[arg-type]


def test_a_policy_given_as_a_class_is_refused():
    assert_refused(TypeError, ("policy", "ExploreExploit"), policy=autolr.ExploreExploit)


# Where decisions are written
def test_a_trace_in_a_folder_that_is_missing_is_refused_by_name(tmp_path: Path):
    file = tmp_path / "missing" / "trace.jsonl"
    assert_refused(ValueError, ("trace", str(file), "No such file", "Make its folder"), trace=file)
    assert not file.parent.exists()


def test_a_trace_that_is_a_folder_is_refused(tmp_path: Path):
    assert_refused(ValueError, ("trace", str(tmp_path), "directory"), trace=tmp_path)


# While training
@pytest.mark.parametrize("window", [1, 2, 3])
def test_a_scheduler_on_the_same_optimizer_is_warned_of_once_and_training_goes_on(window: int):
    model, opt = make(policy=autolr.ExploreExploit(explore=1.0), window=window, superbatch=2)
    scheduler = lr_scheduler.StepLR(opt, 3, gamma=0.5)
    told = []
    for i in range(20):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            plain_update(model, opt, cross_entropy, BATCHES[i % 6], i)
        told += [(i, str(w.message)) for w in caught]
        scheduler.step()
    assert len(told) == 1
    at, text = told[0]
    assert 3 <= at < 3 + 2 * window, "at the next look"
    assert re.search(r"rate was 0\.\d+ when AutoLR last set it and is 0\.\d+ now", text), text
    for part in ("scheduler", "goes on from the rate it found", "drop the scheduler", "Monitor()"):
        assert part in text
    assert len(opt.history) >= 4
    assert math.isfinite(cross_entropy(model, BATCHES[0]).item())


def test_the_scheduler_warning_points_at_the_users_own_line():
    model, opt = make(policy=Script(), window=2, superbatch=2)
    opt.param_groups[0]["lr"] = 0.01
    with pytest.warns(UserWarning, match="scheduler") as caught:
        train(model, opt, 4)
    assert Path(caught[0].filename).name in {"training_runs.py", "test_bad_input.py"}


ZEROS = {
    "to 0 and back": lambda epoch: 0.0 if 4 <= epoch < 9 else 1.0,
    "to 0 for good": lambda epoch: max(0.0, 1 - epoch / 10),
    "from 0": lambda epoch: min(1.0, epoch / 5),
}


@pytest.mark.parametrize("name", ZEROS)
@pytest.mark.parametrize(
    "policy",
    [
        autolr.Monitor(),
        autolr.Monitor(spread=2),
        autolr.ExploreExploit(explore=1.0),
        autolr.ExploreExploit(explore=0.0),
    ],
    ids=["monitor", "hold, spread", "explore", "exploit"],
)
def test_a_scheduler_that_brings_the_rate_to_exactly_zero_does_not_crash_the_run(name: str, policy: Any):
    model, opt = make(policy=policy, window=2, superbatch=2)
    scheduler = lr_scheduler.LambdaLR(opt, ZEROS[name])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The learning rate was")
        train(model, opt, 24, scheduler.step)
    assert math.isfinite(cross_entropy(model, BATCHES[0]).item())
    if name == "to 0 for good":
        assert opt.param_groups[0]["lr"] == 0.0, "a rate that somebody set to 0 stays at 0"
        assert all(record.lr_after > 0 for record in opt.history)


def test_two_groups_of_which_a_scheduler_stops_one_keep_going():
    model, opt = make(base=of_two_groups(0.1, 0.05), policy=autolr.ExploreExploit(explore=1.0), window=1, superbatch=2)
    scheduler = lr_scheduler.LambdaLR(opt, [lambda e: 0.0 if e > 3 else 1.0, lambda _: 1.0])
    with pytest.warns(UserWarning, match="scheduler"):
        train(model, opt, 20, scheduler.step)
    assert opt.param_groups[0]["lr"] == 0.0


# A run that diverges
def finite(model: nn.Module) -> bool:
    tensors = [*model.parameters(), *model.buffers()]
    return all(bool(torch.isfinite(t).all()) for t in tensors)


def train_poisoned(opt: Any, model: nn.Module, at: int, steps: int) -> None:
    """Train; at one step the gradient is infinite, once: the parameters are NaN from there on unless undone."""
    for i in range(steps):
        opt.zero_grad()
        cross_entropy(model, BATCHES[i % 6]).backward()
        if i == at:
            for p in model.parameters():
                p.grad.fill_(math.inf)
        opt.step()


@pytest.mark.parametrize("spread", [1, 3], ids="spread {}".format)
@pytest.mark.parametrize("at", range(9), ids="diverges at {}".format)
def test_a_run_that_diverges_at_any_step_is_rolled_back_and_goes_on_finite(at: int, spread: int):
    policy = autolr.ExploreExploit(explore=1.0, spread=spread)
    model, opt = make(base=lambda m: O.Adam(m.parameters(), lr=0.01), policy=policy, window=4, superbatch=3)
    train_poisoned(opt, model, at, 30)
    rolled = [record for record in opt.history if record.verdict == "roll back"]
    assert len(rolled) == 1
    assert rolled[0].lr_after < rolled[0].lr_before
    assert "nan" in rolled[0].reason
    assert finite(model)
    state = [v for s in opt.state.values() for v in s.values() if isinstance(v, Tensor)]
    assert state, "Adam keeps a state"
    assert all(bool(torch.isfinite(v).all()) for v in state)
    assert [record.verdict for record in opt.history][-1] != "roll back", "it goes on"


@pytest.mark.parametrize("at", [25, 28, 29])
def test_a_run_that_diverges_in_its_last_steps_ends_finite_all_the_same(at: int):
    model, opt = make(policy=autolr.ExploreExploit(explore=1.0, spread=1), window=4, superbatch=3)
    train_poisoned(opt, model, at, 30)
    assert finite(model)


def test_a_minibatch_whose_loss_is_never_finite_does_not_walk_the_rate_to_zero():
    # One bad example in the data: no learning rate is to blame, and going back helps nobody.
    bad = [(x.clone(), y) for x, y in BATCHES]
    bad[3][0][0, 0] = math.nan
    model, opt = make(
        batches=bad,
        model=nn.Linear(6, 2),
        base=lambda m: O.SGD(m.parameters(), lr=0.05),
        policy=autolr.ExploreExploit(spread=1),
        window=1,
        superbatch=6,
        total_steps=150,
        seed=1,  # whose first minibatch is a good one
    )
    good = [b for i, b in enumerate(bad) if i != 3]
    for i in range(150):
        plain_update(model, opt, cross_entropy, good[i % 5], i)
    assert opt.lr > 1e-4
    assert opt.cost.discarded_steps < 75


# A loss that fails
class Failing:
    """Fails at its ``at``-th call by a probe, counted over the run."""

    def __init__(self, at: int) -> None:
        self.at, self.calls = at, 0

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        loss = cross_entropy(model, batch)
        torch.rand(1)
        self.calls += 1
        if self.calls == self.at:
            raise KeyError("labels")
        return loss


@pytest.mark.parametrize("spread", [1, 2])
@pytest.mark.parametrize("at", range(2, 18, 5))
def test_an_exception_in_the_loss_reaches_the_user_with_everything_back_in_place(at: int, spread: int):
    def with_exception(tuned: bool) -> Any:
        seed_everything(0)
        model = network()
        base = O.Adam(model.parameters(), lr=0.01)
        taken: list[int] = []
        base.register_step_post_hook(lambda *_: taken.append(1))
        opt: Any = base
        if tuned:
            policy = autolr.Monitor(spread=spread)
            opt = tuned_by(base, model, Failing(at), BATCHES, 30, policy=policy, window=2, superbatch=2)
        raised, prints = 0, []
        for i in range(12):
            opt.zero_grad()
            cross_entropy(model, BATCHES[i % 6]).backward()
            try:
                opt.step()
            except KeyError as error:
                raised += error.args == ("labels",)
                if len(taken) == i:  # what failed came before the step
                    opt.step()
            assert len(taken) == i + 1
            prints.append(full_print(model, opt))
        return raised, prints, opt

    (_, alone, _), (raised, tuned, opt) = with_exception(False), with_exception(True)
    assert raised == 1
    for step, (one, other) in enumerate(zip(alone, tuned, strict=True), start=1):
        assert differences(one, other) == [], f"after step {step}"
    assert opt.state_dict()["autolr"]["steps"] == 12


@pytest.mark.parametrize("at", range(2, 18, 5))
def test_a_run_that_survives_an_exception_in_a_probe_goes_on_probing(at: int):
    model, opt = make(loss_fn=Failing(at), policy=autolr.Monitor(), window=2, superbatch=2)
    failed = 0
    for i in range(24):
        opt.zero_grad()
        cross_entropy(model, BATCHES[i % 6]).backward()
        try:
            opt.step()
        except KeyError:
            failed = i
    assert failed or at <= 3
    assert opt.history
    assert opt.history[-1].step > failed + 6


def test_an_exception_leaves_gradient_mode_and_autocast_as_they_were():
    model, opt = make(loss_fn=Failing(9), policy=autolr.Monitor(), window=2, superbatch=2)
    with pytest.raises(KeyError), torch.autocast("cpu", dtype=torch.bfloat16):
        train(model, opt, 10)
    assert torch.is_grad_enabled()
    assert torch.is_autocast_cache_enabled()


@pytest.mark.parametrize(
    ("policy", "setting", "value", "error"),
    [
        (autolr.PeakSearch, "decay", 0, TypeError),
        (autolr.PeakSearch, "guard", b"yes", TypeError),
        (autolr.PeakSearch, "peak", 10**400, ValueError),
        (autolr.PeakSearch, "budget", np.array([0.1]), TypeError),
        (autolr.ExploreExploit, "rollback", np.array([1]), TypeError),
        (autolr.ExploreExploit, "confidence", 10**400, ValueError),
        (autolr.ExploreExploit, "factor", -(10**400), ValueError),
        (autolr.ExploreExploit, "window", 10**400, ValueError),
        (autolr.ExploreExploit, "eps", b"abc", TypeError),
        (autolr.ExploreExploit, "eps", (-(10**400), 0, 10**400), TypeError),
        (autolr.ExploreExploit, "eps", np.array([-1.0, 0.0, 1.0]), TypeError),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_policys_setting_of_another_kind_or_size_is_refused_by_its_name(policy, setting, value, error):
    with pytest.raises(error, match=f"{setting} must"):
        policy(**{setting: value})


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("trace", "a\0b", ValueError),
        ("trace", 5, TypeError),
        ("on_decision", "print", TypeError),
        ("seed", 10**400, ValueError),
    ],
    ids=lambda value: str(value)[:12],
)
def test_an_argument_of_another_kind_is_refused_by_its_name(argument, value, error):
    with pytest.raises(error, match=f"{argument} must"):
        make(**{argument: value})


@pytest.mark.parametrize("bad", ["x", None, b"1", [1.0], 1j, True], ids=repr)
def test_a_rate_that_is_no_number_is_an_error_in_words_when_it_is_set_mid_run(bad):
    model, optimizer = make()
    optimizer.param_groups[0]["lr"] = bad
    cross_entropy(model, BATCHES[0]).backward()
    with pytest.raises(ValueError, match=re.escape(f"needs a learning rate to tune; got lr={bad!r}")):
        optimizer.step()


def test_groups_that_are_changed_on_the_wrapped_optimizer_are_followed():
    model, optimizer = make(policy=autolr.ExploreExploit(window=3, superbatch=2, spread=1))
    for step in range(29):
        if step == 10:
            model.register_parameter("extra", nn.Parameter(torch.zeros(3)))
            optimizer.base.add_param_group({"params": [model.extra], "lr": 3 * optimizer.lr})
        optimizer.zero_grad()
        cross_entropy(model, BATCHES[step % len(BATCHES)]).backward()
        optimizer.step()
        if step >= 10:
            first, second = (group["lr"] for group in optimizer.param_groups)
            assert second == pytest.approx(3 * first)
    assert any(record.step > 10 for record in optimizer.history)
    optimizer.base.param_groups.clear()
    with pytest.raises(ValueError, match=r"one of them above 0; got \[\]"):
        optimizer.step()


def test_two_threads_train_two_models_and_a_probe_of_one_is_none_of_the_other():
    seen: dict[str, list[bool]] = {"one": [], "two": []}

    def training(name: str) -> None:
        model, optimizer = network(), None
        model.register_forward_hook(lambda *_: seen[name].append(autolr.is_probing()))
        optimizer = tuned_by(
            sgd(model), model, cross_entropy, BATCHES, 40, policy=autolr.Monitor(), window=2, superbatch=2
        )
        for step in range(40):
            optimizer.zero_grad()
            assert not autolr.is_probing()
            count = len(seen[name])
            loss = cross_entropy(model, BATCHES[step % len(BATCHES)])
            assert seen[name][count:] == [False]
            loss.backward()
            optimizer.step()
            assert not autolr.is_probing()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(training, name) for name in seen]:
            done.result()
    assert all(True in calls for calls in seen.values())
    assert not autolr.is_probing()


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))], ids=["copy", "pickle"]
)
@pytest.mark.parametrize(
    "policy",
    [autolr.PeakSearch(peak=0.05), autolr.ExploreExploit(window=3, superbatch=2, spread=1), autolr.Monitor()],
    ids=["search", "windowed", "monitor"],
)
def test_a_copy_of_model_and_optimizer_goes_on_as_they_do(policy, copied):
    def train(model, optimizer, steps):
        for step in steps:
            torch.manual_seed(step)
            optimizer.zero_grad()
            cross_entropy(model, BATCHES[step % len(BATCHES)]).backward()
            optimizer.step()
        return [p.detach().clone() for p in model.parameters()]

    model, optimizer = make(policy=policy)
    train(model, optimizer, range(14))
    other, its = copied((model, optimizer))
    whole = train(model, optimizer, range(14, 30))
    assert all(torch.equal(a, b) for a, b in zip(whole, train(other, its, range(14, 30)), strict=True))
    assert its.history == optimizer.history
