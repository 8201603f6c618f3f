"""What others have made to do without a tuned rate: each one trains, resumes to the bit, and keeps to its budget."""

import copy
import dataclasses
import functools
import math
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from autolr.numerics.cost import FORWARDS_PER_STEP
from autolr_lab.baselines import BASELINES, lr_finder
from autolr_lab.baselines.baseline import TrainingRun
from autolr_lab.baselines.gen import FORWARDS
from autolr_lab.baselines.line_search import SLS_TRIALS
from autolr_lab.baselines.schedules import make_schedule
from autolr_lab.training import training
from autolr_lab.training.runs import Settings, read_run
from autolr_lab.training.stepper import ReplayBatch, Stepper
from autolr_lab.training.training import train
from autolr_lab.workloads import WORKLOADS
from helpers import (
    Killed,
    bits,
    comparable,
    killed_after,
    print_of,
    print_of_generators,
    seed_everything,
)

pytest.importorskip("schedulefree")  # the extra "baselines"

DIGITS = WORKLOADS["digits"]
EPOCHS, STEPS = 3, 45
FEW = 4  # minibatches of a small training set
RANGE_TESTS = ("lr-finder", "lr-finder-one-cycle")
# Where Adam's place is another code than momentum's.
ADAMS = ("schedule-free", "d-adaptation", "momo", "mechanic", "hypergradient", "l4")
PLACES = [*((name, "momentum") for name in BASELINES), *((name, "adam") for name in ADAMS)]


def settings(name, optimizer, epochs=EPOCHS, **changes):
    rate = BASELINES[name].rate(optimizer, DIGITS.rate(optimizer)) if name in BASELINES else DIGITS.rate(optimizer)
    asked = {"equal_budget": True, **changes}
    return Settings("digits", optimizer, name, rate, epochs, 32, 0, **asked)


@functools.cache
def few():
    train_data, test_data = DIGITS.datasets(None)
    return TensorDataset(*train_data[: 32 * FEW]), TensorDataset(*test_data[:64])


@pytest.fixture(scope="module")
def small():
    """Settings of a short run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(WORKLOADS, "small", dataclasses.replace(DIGITS, name="small", datasets=lambda _: few()))

        def of(name, optimizer, epochs=3, **changes):
            more = {"lr": 0.003} if name == "greedy" else {}  # it is to see the loss fall eleven times
            return dataclasses.replace(settings(name, optimizer, epochs, **changes), workload="small", **more)

        yield of


# Each trains, within its budget.


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run at an equal budget, made once: its result, and (steps, forwards beside them) each time it could go on."""
    made = {}

    def of(name, optimizer, **changes):
        if (name, optimizer) not in made:
            trail, goes_on = [], training._Training._goes_on

            def noted(run):
                trail.append((run._at.done, run._stepper.forwards, run._stepper))
                return goes_on(run)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(training._Training, "_goes_on", noted)
                out = tmp_path_factory.mktemp("run") / "run"
                made[name, optimizer] = train(settings(name, optimizer, **changes), out), trail
        return made[name, optimizer]

    return of


@pytest.mark.parametrize(("name", "optimizer"), PLACES)
def test_every_baseline_learns_the_digits_within_the_budget_of_three_epochs(trained, name, optimizer):
    result, _ = trained(name, optimizer)
    assert result["test_accuracy"] > 0.8  # guessing: 0.1
    assert result["test_loss"] < math.log(10) / 3  # guessing: log 10


def pays(done, forwards, stepper, budget=FORWARDS_PER_STEP * EPOCHS * STEPS):
    """Whether a step more is to be had after so many."""
    return FORWARDS_PER_STEP * (done + 1) + forwards + stepper.least + stepper.reserve <= budget


TUNED = {"policy": {"spread": 2, "window": 10, "superbatch": 4}}
BUDGETED = [*((name, {}) for name in BASELINES), ("explore-exploit", TUNED), ("cosine", {})]


@pytest.mark.parametrize(("name", "changes"), BUDGETED, ids=[name for name, _ in BUDGETED])
def test_an_equal_budget_pays_for_every_step_that_was_begun_and_for_no_more(trained, name, changes):
    result, trail = trained(name, "momentum", **changes)
    stepper = trail[-1][-1]
    begun = {done: forwards for done, forwards, _ in trail[:-1] if done < result["steps"]}
    assert all(pays(done, forwards, stepper) for done, forwards in begun.items() if done)
    assert not pays(result["steps"], stepper.forwards, stepper)
    # What is reported is that, and only the last step may have cost more than it had to.
    forwards = FORWARDS_PER_STEP * result["steps"] + stepper.forwards + stepper.reserve
    assert result["forward_equivalents"] == forwards
    over = stepper.forwards - begun[result["steps"] - 1] - stepper.least
    probe = 5 * 4 + 1  # five losses of a superbatch of four, and a snapshot
    assert 0 <= over <= {"sls": SLS_TRIALS - 1, "explore-exploit": probe, "gen": FORWARDS}.get(name, 0)
    assert forwards <= FORWARDS_PER_STEP * EPOCHS * STEPS + over
    if stepper.forwards == stepper.reserve == 0:
        assert result["steps"] == EPOCHS * STEPS


def test_a_method_that_spends_gets_the_fewer_steps(trained):
    steps = {name: trained(name, "momentum")[0]["steps"] for name in BASELINES}
    assert {name for name in steps if steps[name] < EPOCHS * STEPS} == {
        "schedule-free", "lr-finder", "lr-finder-one-cycle", "vsgd", "sls", "pal", "gen",
    }  # fmt: skip
    assert steps["vsgd"] == EPOCHS * STEPS // 2  # a step costs two
    assert steps["gen"] == EPOCHS * STEPS * 8 // 9  # ... a parabola each eighth, as dear as a step
    assert steps["pal"] == EPOCHS * STEPS * 3 // 4  # ... a forward pass more
    assert steps["schedule-free"] == EPOCHS * STEPS - STEPS // 3  # 45 minibatches for the running statistics


def test_a_range_test_that_leaves_nothing_of_the_budget_leaves_one_step_all_the_same(small, tmp_path):
    result = train(small("lr-finder", "momentum", epochs=1, equal_budget=True), tmp_path / "run")
    assert result["steps"] == 1
    assert [row["step"] for row in read_run(tmp_path / "run").epochs] == [1]


# A run that was killed.

LONG = {"greedy": 13, "vsgd": 10, "sls": 10}  # epochs: until GreedyLR moves, and for those that get fewer steps
KILLS = (7, 2 * FEW + 1)  # within an epoch, just after one; and just before the end


def resumed(small, name, optimizer):
    """A range test costs more than the whole run: that one has no budget."""
    return small(name, optimizer, LONG.get(name, 5), evaluations=2, equal_budget=name not in RANGE_TESTS)


@pytest.mark.parametrize(("name", "optimizer"), PLACES)
def test_a_killed_run_of_a_baseline_goes_on_as_the_uninterrupted_one(small, tmp_path, name, optimizer):
    asked, out = resumed(small, name, optimizer), tmp_path / "run"
    whole = train(asked, tmp_path / "whole")
    for number, step in enumerate((*KILLS, whole["steps"] - 1)):
        with pytest.raises(Killed):
            train(asked, out, killed_after(step), resume=number > 0, every=0)
        seed_everything(12345 + number)  # another process has other generators
    train(asked, out, resume=True, every=0)
    assert comparable(out) == comparable(tmp_path / "whole")


def test_greedy_moves_its_rate_after_the_kills_and_only_for_what_it_saw_before_them(small, tmp_path):
    # Else its resuming would be no argument.
    train(resumed(small, "greedy", "momentum"), tmp_path / "run")
    rates = [row["lr"] for row in read_run(tmp_path / "run").epochs if row["epoch"] == int(row["epoch"])]
    assert rates[:11] == [0.003] * 11
    assert rates[-1] == pytest.approx(0.003 / 0.95)


def run_of(model, optimizer="momentum", lr=1.0, loss=DIGITS.loss, **changes):
    def batches():
        return DIGITS.train_batches(few()[0], 32, torch.Generator().manual_seed(1))

    options = changes.pop("options", {})
    return TrainingRun(model, optimizer, lr, options, loss, batches, FEW, 10 * FEW, **changes)


def stepped(name, model, optimizer="momentum", steps=FEW, **changes):
    """A baseline that has taken a few steps."""
    lr = BASELINES[name].rate(optimizer, DIGITS.rate(optimizer))
    asked = run_of(model, optimizer, lr, **changes)
    stepper = BASELINES[name].make(asked)
    batches = list(asked.batches())
    for step in range(steps):
        model.zero_grad()
        batch = batches[step % FEW]
        replay = ReplayBatch(model, asked.loss, batch) if stepper.replays else None
        loss = asked.loss(model, batch)
        loss.backward()
        stepper.step(loss.detach(), replay)
    return stepper


def tensors_in(value):
    if isinstance(value, torch.Tensor):
        return [value]
    held = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for part in held for tensor in tensors_in(part)]


@pytest.mark.parametrize(("name", "optimizer"), [place for place in PLACES if place[0] not in RANGE_TESTS])
@pytest.mark.filterwarnings("ignore:for .* copying from a non-meta parameter:UserWarning")  # torch's, of DoG's average
def test_a_checkpoint_is_taken_to_where_the_parameters_are(name, optimizer):
    # A checkpoint is read to the host. Without a GPU, torch's "meta" device is another place, too.
    torch.manual_seed(0)
    state = copy.deepcopy(stepped(name, DIGITS.model(), optimizer, 2).state_dict())
    away = BASELINES[name].make(run_of(DIGITS.model().to("meta"), optimizer))
    away.load_state_dict(state)
    after = away.state_dict()
    assert len(tensors_in(after)) == len(tensors_in(state))
    own = after["optimizer"]["state"].values()
    counts = [id(held["step"]) for held in own if isinstance(held, dict) and "step" in held]  # torch keeps Adam's there
    assert {tensor.device.type for tensor in tensors_in(after) if id(tensor) not in counts} <= {"meta"}


# Schedule-free and DoG: what is evaluated is not what trains.


def norm_free():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.25), nn.Linear(16, 10))


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
@pytest.mark.parametrize("network", [DIGITS.model, norm_free])
def test_schedule_free_is_evaluated_at_its_average_and_trains_on_from_where_it_was(network, optimizer):
    torch.manual_seed(0)
    model = network()
    stepper = stepped("schedule-free", model, optimizer)
    before, generators = print_of(model), print_of_generators()
    z = [stepper.optimizer.state[p]["z"].clone() for p in model.parameters()]
    y = [p.detach().clone() for p in model.parameters()]
    with stepper.evaluation(model) as evaluated:
        assert evaluated is model
        x = [p.detach().clone() for p in model.parameters()]
        inside = print_of(model)
    # y = 0.1 z + 0.9 x: the interpolation that training is at, with the package's beta of 0.9.
    for at_x, at_y, at_z in zip(x, y, z, strict=True):
        torch.testing.assert_close(0.1 * at_z + 0.9 * at_x, at_y)
    assert all(inside[name] != before[name] for name, _ in model.named_parameters())
    assert (print_of(model), print_of_generators()) == (before, generators)


def test_schedule_free_gathers_running_statistics_where_there_are_any_and_once_after_a_step():
    passes = []

    def loss(model, batch):
        passes.append(torch.is_grad_enabled())
        return DIGITS.loss(model, batch)

    for network, reserve in ((DIGITS.model, FEW), (norm_free, 0)):
        torch.manual_seed(0)
        model = network()
        stepper = stepped("schedule-free", model, loss=loss)
        assert stepper.reserve == reserve
        passes.clear()
        statistics = []
        for _ in range(2):
            with stepper.evaluation(model):
                statistics.append({name: bits(value) for name, value in model.named_buffers()})
        assert passes == [False] * reserve
        assert statistics[0] == statistics[1]
        outside = {name: bits(value) for name, value in model.named_buffers()}
        assert (statistics[0] == outside) == (reserve == 0)


def test_the_statistics_that_schedule_free_gathers_are_those_of_the_weights_that_are_evaluated():
    torch.manual_seed(0)
    model = DIGITS.model()
    stepper = stepped("schedule-free", model)
    twin = copy.deepcopy(model)
    with stepper.evaluation(model):
        gathered = {name: bits(value) for name, value in model.named_buffers()}
        for mine, at_x in zip(twin.parameters(), model.parameters(), strict=True):
            mine.data.copy_(at_x)
    with torch.no_grad():
        for batch in run_of(twin).batches():
            DIGITS.loss(twin, batch)
    assert {name: bits(value) for name, value in twin.named_buffers()} == gathered


@pytest.mark.parametrize("name", ["dog", "ldog"])
def test_dog_evaluates_the_average_and_trains_the_other(name):
    torch.manual_seed(0)
    model = DIGITS.model()
    stepper = stepped(name, model, steps=0)
    batches = list(run_of(model).batches())
    average = [p.detach().double().clone() for p in model.parameters()]
    for step in range(1, 2 * FEW + 1):
        model.zero_grad()
        loss = DIGITS.loss(model, batches[step % FEW])
        loss.backward()
        stepper.step(loss.detach(), None)
        share = (1 + 8) / (step + 8)  # the polynomial decay of Shamir and Zhang, with the package's gamma of 8
        average = [(1 - share) * a + share * p.detach() for a, p in zip(average, model.parameters(), strict=True)]
    before = print_of(model)
    with stepper.evaluation(model) as evaluated:
        assert evaluated is not model
        for found, expected in zip(evaluated.parameters(), average, strict=True):
            torch.testing.assert_close(found.detach().double(), expected, rtol=1e-4, atol=1e-7)
        assert print_of(evaluated) != before
    assert print_of(model) == before


@pytest.mark.parametrize("name", ["dog", "ldog"])
@pytest.mark.parametrize(("network", "relative"), [(DIGITS.model, 1e-4), (norm_free, 1e-6)])
def test_dog_s_first_distance_depends_on_whether_there_is_batch_norm(name, network, relative):
    (group,) = BASELINES[name].make(run_of(network())).optimizer.param_groups
    assert group["reps_rel"] == relative


# Settings as documented.


@pytest.mark.parametrize("name", [name for name in BASELINES if name not in RANGE_TESTS])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "adamw"])
def test_weight_decay_is_the_workload_s_else_that_of_the_optimizer(name, optimizer):
    default = 0.01 if optimizer == "adamw" else 0.0  # torch's
    for options, expected in (({}, default), ({"weight_decay": 0.25}, 0.25)):
        made = BASELINES[name].make(run_of(norm_free(), optimizer, options=options))
        (group,) = made.optimizer.param_groups
        own = {"l4": group, "vsgd": {"weight_decay": getattr(made, "_weight_decay", None)}}
        assert own.get(name, group)["weight_decay"] == expected


@pytest.mark.parametrize("name", ["schedule-free", "prodigy", "d-adaptation", "momo", "mechanic"])
def test_the_betas_are_those_of_the_workload(name):
    made = BASELINES[name].make(run_of(norm_free(), "adam", options={"betas": (0.8, 0.95)}))
    assert made.optimizer.param_groups[0]["betas"] == (0.8, 0.95)


# Refusals.


REFUSED = [
    (
        "prodigy",
        "rmsprop",
        {},
        "prodigy stands in for sgd, momentum, momentum-0.5, adam, adamw; got the optimizer 'rmsprop'",
    ),
    ("sps", "momentum", {"c": 0.2}, "sps has no option 'c'. It has: none."),
    ("hypergradient", "adam", {"gamma": 1}, "hypergradient has no option 'gamma'. It has: beta=None."),
]


@pytest.mark.parametrize(("name", "optimizer", "asked", "told"), REFUSED)
def test_what_a_baseline_cannot_do_is_refused_and_leaves_nothing(small, tmp_path, name, optimizer, asked, told):
    wrong = dataclasses.replace(small(name, "momentum"), optimizer=optimizer, schedule_options=asked)
    with pytest.raises(ValueError, match=told.replace(".", r"\.")):
        train(wrong, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    train(small("sps", "momentum", epochs=1), tmp_path / "run")  # the corrected command has this folder


@pytest.mark.parametrize("name", [name for name, baseline in BASELINES.items() if baseline.package])
def test_a_package_that_is_not_there_is_named_with_what_to_install(small, tmp_path, monkeypatch, name):
    baseline = BASELINES[name]
    monkeypatch.setitem(sys.modules, baseline.module, None)  # to import it raises ImportError
    told = rf"{name} needs the package {baseline.package} \(.*\): pip install -e 'lab\[baselines\]'"
    with pytest.raises(ValueError, match=told):
        train(small(name, "momentum"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_baseline_s_own_option_reaches_it(small, tmp_path):
    for beta in (None, 1e-3, 0.0):
        train(small("hypergradient", "sgd", schedule_options={"beta": beta}), tmp_path / str(beta))
    assert comparable(tmp_path / "None") == comparable(tmp_path / "0.001")  # the default
    rates = {row["lr"] for row in read_run(tmp_path / "0.0").epochs}
    assert rates == {DIGITS.rate("sgd")}  # none of it moves
    assert {row["lr"] for row in read_run(tmp_path / "None").epochs} != rates


# The range test.


def test_a_range_test_leaves_model_and_generators_as_they_were_and_says_the_same_again():
    seed_everything(3)
    model = DIGITS.model()
    before, generators = print_of(model), print_of_generators()
    modes = [module.training for module in model.modules()]
    found = lr_finder.suggested(run_of(model))
    assert (print_of(model), print_of_generators()) == (before, generators)
    assert [module.training for module in model.modules()] == modes
    assert lr_finder.suggested(run_of(model)) == found
    rate, steps = found
    assert 1e-7 < rate < 100
    assert 17 <= steps <= 100


def test_the_suggested_rate_is_where_the_loss_falls_most_steeply_over_the_range(monkeypatch):
    # An oracle: a loss that is a smooth step down in the logarithm of the rate, steepest at 1e-2.
    import torch_lr_finder

    def range_test(finder, batches, end_lr, num_iter):
        rates = [1e-7 * (end_lr / 1e-7) ** (i / (num_iter - 1)) for i in range(num_iter)]
        finder.history = {"lr": rates, "loss": [1 / (1 + (r / 1e-2) ** 0.5) for r in rates]}

    monkeypatch.setattr(torch_lr_finder.LRFinder, "range_test", range_test)
    rate, steps = lr_finder.suggested(run_of(norm_free()))
    assert steps == 100
    assert rate == pytest.approx(1e-2, rel=0.15)  # a step of the test is a factor of 1.23


@pytest.mark.parametrize(("name", "schedule"), [("lr-finder", "fixed"), ("lr-finder-one-cycle", "one-cycle")])
@pytest.mark.parametrize(("budgeted", "left"), [(False, 10 * FEW), (True, 10 * FEW - 25)])
def test_after_a_range_test_comes_its_schedule_to_the_suggested_rate_over_what_is_left(
    monkeypatch, name, schedule, budgeted, left
):
    monkeypatch.setattr(lr_finder, "suggested", lambda _: (0.05, 25))
    stepper = BASELINES[name].make(run_of(norm_free(), budgeted=budgeted))
    assert stepper.forwards == 25 * FORWARDS_PER_STEP
    alone = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.05)
    expected = Stepper(alone, make_schedule(schedule, alone, left))
    for _ in range(left):
        assert stepper.rate == expected.rate
        for each in (stepper, expected):
            each.step(torch.zeros(()), None)


def test_a_range_test_without_a_suggestion_is_refused(monkeypatch):
    # As an older torch-lr-finder answers: with the axes alone.
    import torch_lr_finder

    monkeypatch.setattr(torch_lr_finder.LRFinder, "plot", lambda *_, **__: SimpleNamespace())
    model = norm_free()
    before = print_of(model)
    with pytest.raises(ValueError, match="suggests no rate"):
        lr_finder.suggested(run_of(model))
    assert print_of(model) == before
