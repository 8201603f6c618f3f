"""Short runs of an optimizer whose steps grow: how much too short they are, and what the peak does about it."""

import json
import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch import optim as O

from autolr import Peak, find_peak
from autolr.measure.first_steps import GRADIENT, first_steps
from autolr.numerics.bracket import ShortRun
from autolr.numerics.build_up import AT_MOST, MOST, settled, shortfall
from autolr.numerics.plan import Plan
from autolr.runtime.together import Together

RATES = st.floats(0.01, 100.0)


def weights(count=3):
    return [nn.Parameter(torch.zeros(count))]


@pytest.mark.parametrize("octaves", [1, 2, 4])
def test_steps_that_are_half_as_long_in_the_whole_short_run_lower_the_peak_by_an_octave(octaves):
    steps = [0.5**octaves] * 30 + [1.0] * 30
    assert shortfall(steps, 30, 1_000_000) == pytest.approx(octaves, abs=0.02)
    assert shortfall(steps, 5, 1_000_000) == shortfall(steps, 30, 1_000_000)


@given(length=st.integers(1, 300), total=st.integers(1, 10**7), unit=RATES)
def test_alike_and_shrinking_steps_of_any_length_lower_nothing(length, total, unit):
    assert shortfall([unit] * 16, length, total) == 0
    assert shortfall([unit / math.sqrt(n) for n in range(1, 101)], length, max(4 * length, total)) == 0
    assert shortfall([unit, *[1.03 * unit] * 15], length, total) == 0  # nor does what is less than matters


def test_no_growth_lowers_a_peak_out_of_reach():
    assert shortfall([2.0**n for n in range(100)], 20, 100_000) == AT_MOST


@given(momentum=st.floats(0, 0.995), length=st.integers(2, 200), unit=RATES)
def test_it_falls_with_length_grows_with_momentum_and_knows_no_unit(momentum, length, unit):
    def of(momentum, length, unit=1.0):
        return shortfall([unit * (1 - momentum**n) for n in range(1, MOST)], length, 100_000) if momentum else 0.0

    assert of(momentum, 2 * length) <= of(momentum, length) + 1e-9
    assert of(momentum, length) <= of(momentum + 0.004, length) + 1e-9
    assert of(momentum, length, unit) == pytest.approx(of(momentum, length), abs=1e-6)


def test_steps_are_followed_until_they_grow_no_more():
    assert settled([1.0] * 16)
    assert not settled([1.0] * 15)
    assert settled([1 / n for n in range(1, 17)])
    assert not settled([float(n) for n in range(1, MOST)])
    assert settled([float(n) for n in range(1, MOST + 1)])


@pytest.mark.parametrize(
    ("optimizer", "length_of"),
    [
        pytest.param(lambda p: O.SGD(p, 0.1), lambda _: 1, id="SGD"),
        pytest.param(lambda p: O.SGD(p, 0.1, momentum=0.8), lambda n: (1 - 0.8**n) / 0.2, id="momentum"),
        pytest.param(
            lambda p: O.SGD(p, 0.1, momentum=0.8, nesterov=True), lambda n: (1 - 0.8 ** (n + 1)) / 0.2, id="Nesterov"
        ),
        pytest.param(lambda p: O.SGD(p, 0.1, momentum=0.8, dampening=0.8), lambda _: 1, id="dampened"),
        pytest.param(
            lambda p: O.SGD(p, 0.1, momentum=0.8, weight_decay=9), lambda n: (1 - 0.8**n) / 0.2, id="decay"
        ),
        pytest.param(
            lambda p: O.SGD(p, torch.tensor(0.1), momentum=0.8, fused=True), lambda n: (1 - 0.8**n) / 0.2, id="fused"
        ),
    ],
)  # fmt: skip
def test_the_first_steps_are_those_of_the_formula(optimizer, length_of):
    steps = first_steps(optimizer(weights()))
    assert len(steps) >= 16
    assert steps == pytest.approx([length_of(n) for n in range(1, len(steps) + 1)], rel=1e-6)


@pytest.mark.parametrize(
    "optimizer",
    [
        O.Adam, O.AdamW, O.RMSprop, O.Adagrad, O.Adamax, O.ASGD, partial(O.AdamW, betas=(0.9, 0.95)),
        partial(O.Adam, betas=(0.5, 0.99)), partial(O.Adam, betas=(0.0, 0.999)), partial(O.AdamW, betas=(0.95, 0.95)),
        partial(O.AdamW, betas=(0.9, 0.98), amsgrad=True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("length", [4, 20, 200])
def test_what_adam_and_its_kin_find_stays_as_it_is(optimizer, length):
    assert shortfall(first_steps(optimizer(weights())), length, 10_000) == 0


def test_dividing_by_the_variance_of_gradients_gives_no_endless_growth():
    # Without noise a denominator of gradients' variance is none, and the steps grow as far as they are followed.
    assert shortfall(first_steps(Belief(weights(), 0.1)), 20, 10_000) < 0.5


class Belief(torch.optim.Optimizer):
    """AdaBelief (Zhuang 2020): Adam with the gradients' variance in the place of their square."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, _=None):
        for p in self.param_groups[0]["params"]:
            state = self.state[p]
            state["step"] = n = state.get("step", 0) + 1
            mean = state.setdefault("mean", torch.zeros_like(p)).lerp_(p.grad, 0.1)
            variance = state.setdefault("variance", torch.zeros_like(p)).lerp_((p.grad - mean) ** 2, 0.001)
            step = mean / (1 - 0.9**n) / ((variance / (1 - 0.999**n)).sqrt() + 1e-16)
            p.sub_(step, alpha=self.param_groups[0]["lr"])


def groups(heavy, light, **settings):
    return [
        {"params": weights(heavy), "momentum": 0.9, **settings},
        {"params": weights(light), "momentum": 0.0},
    ]


def last(optimizer):
    return round(first_steps(optimizer)[-1])


def test_the_largest_group_that_trains_tells():
    assert last(O.SGD(groups(9, 3), 0.1)) == 10
    assert last(O.SGD(groups(3, 9), 0.1)) == 1
    assert last(O.SGD(groups(9, 3, lr=0.0), 0.1)) == 1
    frozen = groups(9, 3)
    frozen[0]["params"][0].requires_grad_(False)
    assert last(O.SGD(frozen, 0.1)) == 1


def test_of_several_optimizers_the_one_that_has_it_tells_and_its_state_counts():
    heavy, other = O.SGD(weights(9), 0.1, momentum=0.9), O.AdamW(p := weights(5), 0.1)
    p[0].grad = torch.ones(5)
    other.step()
    assert last(Together([other, heavy])) == 10
    assert find_of([other, heavy]) > 0.5
    with pytest.warns(UserWarning, match="AdamW \\+ Particular"):
        assert find_of([other, Particular(weights(9), 0.1)]) == 0  # not what AdamW's steps tell


def test_a_wrapper_that_cannot_be_made_on_a_matrix_is_told_by_what_it_wraps():
    assert last(Around(O.SGD(weights(), 0.1, momentum=0.9))) == 10


def test_settings_that_a_constructor_does_not_name_are_those_of_the_group():
    assert last(Loose(weights(), lr=0.1, momentum=0.9)) == 10
    changed = O.SGD(weights(), 0.1)
    changed.param_groups[0]["momentum"] = 0.9
    assert last(changed) == 10


def test_one_that_has_to_be_told_to_train_is():
    assert last(Switched(weights(), 0.1, momentum=0.9)) == 10


def test_one_that_knows_no_float64_is_followed_in_float32():
    steps = first_steps(Single(weights(), 0.1, momentum=0.99))
    assert steps == pytest.approx([(1 - 0.99**n) / 0.01 for n in range(1, len(steps) + 1)], rel=1e-3)
    assert len(steps) > 500


class Single(torch.optim.SGD):
    """Has a number of its own in float32."""

    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            torch.zeros(()).lerp_(p.grad.mean(), 0.5)
        super().step(closure)


class Loose(torch.optim.SGD):
    def __init__(self, params, **settings):
        super().__init__(params, **settings)


class Switched(torch.optim.SGD):
    """As schedule-free ones are."""

    ready = False

    def train(self):
        self.ready = True

    def step(self, closure=None):
        if not self.ready:
            raise RuntimeError("not in train mode")
        super().step(closure)


def find_of(optimizer):
    """The shortfall of a search with an optimizer of a model with one weight for each of its own."""
    several = optimizer if isinstance(optimizer, list) else [optimizer]
    model = nn.ParameterList([p for one in several for group in one.param_groups for p in group["params"]])

    def loss(_, batch):
        return sum((p - batch).square().sum() for p in model)

    return find_peak(model, optimizer, loss, [torch.tensor(1.0 + 0.1 * i) for i in range(8)], 300).shortfall


def test_an_optimizer_that_has_stepped_is_not_lowered():
    stepped = O.SGD(p := weights(), 0.1, momentum=0.9)
    assert find_of(stepped) > 0.5
    p[0].grad = torch.ones_like(p[0])
    stepped.step()
    assert first_steps(stepped) == (1.0,)
    assert find_of(stepped) == 0


def test_it_touches_neither_the_optimizer_nor_its_parameters():
    optimizer = O.RAdam(p := weights(), 0.1)
    before = str(optimizer.state_dict()), p[0].clone()
    steps = first_steps(optimizer)
    assert (str(optimizer.state_dict()), p[0].grad) == (before[0], None)
    assert torch.equal(p[0], before[1])
    # Its first steps are those of momentum, in proportion to the gradient; then it is scaled up, for long.
    assert steps[:5] == pytest.approx([1] * 5)
    assert 10 < steps[9] < steps[99] < steps[999] < 1 / GRADIENT


class Around(torch.optim.Optimizer):
    """A wrapper that cannot be made on parameters."""

    def __init__(self, optimizer):
        self.within = optimizer
        super().__init__(optimizer.param_groups, {})


class Particular(torch.optim.SGD):
    """With a constructor that no settings in its groups tell how to call."""

    def __init__(self, params, needed):
        super().__init__(params, lr=needed, momentum=0.9)


def test_where_no_other_can_be_made_the_peak_says_so():
    model = nn.Linear(1, 1)
    batches = [torch.randn(8, 1, generator=torch.Generator().manual_seed(i)) for i in range(20)]
    assert first_steps(Particular(weights(), 0.1)) == ()
    with pytest.warns(UserWarning, match="How the steps of Particular grow is not known") as warned:
        peak = find_peak(
            model, Particular(model.parameters(), 0.1), lambda m, x: (m(x) - x).square().mean(), batches, 300
        )
    assert warned[0].filename == __file__
    assert peak.shortfall == 0
    assert peak.notes == (str(warned[0].message),)


def test_a_length_lowers_its_own_choice():
    plan = Plan(1.0, 10_000, (20, 160), 1e9, 1, (3.0, 0.5))
    runs = run_of(plan)
    free = Plan(1.0, 10_000, (20, 160), 1e9, 1)
    choice, unlowered = plan.choice([1.0], runs), free.choice([1.0], runs)
    assert (choice.place, choice.low, choice.high) == (unlowered.place - 0.5, unlowered.low - 0.5, unlowered.high - 0.5)
    assert choice.shortfall == 0.5
    first = [run for run in runs if run.length == 20]
    assert plan.choice([1.0], first).place == free.choice([1.0], first).place - 3


def run_of(plan):
    """The plan carried out on a loss that is least at a rate of 2, at all lengths."""
    runs = []
    while (wanted := plan.next([1.0], runs)) is not None:
        length, lr = wanted
        runs.append(ShortRun(length, lr, (1 - 0.7 * math.exp(-(math.log2(lr / 2) ** 2) / 20),), 3 * length + 1))
    return runs


def test_peaks_of_all_momenta_come_to_the_same_rate_of_descent():
    # What moves the weights in a long run is lr / (1 - momentum). Short runs alone put it 15 times too high at 0.99.
    found = {momentum: effective(momentum) for momentum in (0.0, 0.9, 0.97, 0.99)}
    assert max(found.values()) < 2.5 * min(found.values()), found


def effective(momentum):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 20, generator=generator)
    y = (x[:, :3].sum(1) + 0.5 * torch.randn(2000, generator=generator) > 0).float()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 1))
    batches = [(x[i::60], y[i::60]) for i in range(60)]

    def loss(model, batch):
        return nn.functional.binary_cross_entropy_with_logits(model(batch[0])[:, 0], batch[1])

    optimizer = O.SGD(model.parameters(), 0.01, momentum=momentum)
    return find_peak(model, optimizer, loss, batches, 1000).lr / (1 - momentum)


@pytest.mark.parametrize(("shortfalls", "first"), [((), 1), ((2.7, 0.7), -1), ((0.4, 0.0), 1)])
def test_a_longer_length_begins_where_its_longer_steps_have_the_bottom(shortfalls, first):
    plan = Plan(1.0, 100_000, (33, 269), 1e9, 1, shortfalls)
    runs = run_of(Plan(1.0, 100_000, (33,), 1e9, 1))
    assert plan.next([1.0], runs) == (269, 2.0**first)


def test_a_guess_is_not_lowered():
    plan = Plan(1.0, 10_000, (20,), 1e9, 1, (3.0,))
    runs = [ShortRun(20, lr, (1.0 - 1e-4 * lr,), 61) for lr in (1.0, 4.0, 16.0)]
    assert plan.choice([1.0], runs) is None
    assert plan.guess([1.0], runs) == Plan(1.0, 10_000, (20,), 1e9, 1).guess([1.0], runs) > 0.5


@pytest.mark.parametrize("shortfall", [math.nan, math.inf, -1.0, 1e9, "much", None])
def test_a_file_with_another_shortfall_is_refused_and_one_of_before_is_read(shortfall):
    peak = Peak(0.1, 0.01, 1.0, 100, (), (1.0,), (), 10.0, 0.1, 1.0, 0.1, None, (), 1.5)
    assert Peak.from_json(peak.to_json()) == peak
    fields = json.loads(peak.to_json())
    del fields["shortfall"]
    assert Peak.from_json(json.dumps(fields)).shortfall == 0
    with pytest.raises(ValueError, match="shortfall"):
        Peak.from_json(json.dumps({**fields, "shortfall": shortfall}))
