"""A short run is a plain training loop, to the bit; and nothing of it is left behind."""

import copy
import dataclasses
import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

from autolr.measure.judges import EVALUATION
from autolr.measure.short_run import TRAINING, ShortRunner
from autolr.measure.snapshot import seed_all
from autolr.measure.whole_state import everything_kept
from autolr.numerics.shape import SHORT_WARM_UP, shape


class Noisy(Dataset):
    """A transform that draws from every global generator, as users' augmentations do."""

    def __init__(self, examples=128):
        generator = torch.Generator().manual_seed(5)
        self.x = torch.randn(examples, 6, generator=generator)
        self.y = (self.x @ torch.randn(6, 3, generator=generator)).argmax(1)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        jitter = 0.01 * (np.random.rand() + random.random() + float(torch.rand(())))  # noqa: NPY002
        return self.x[i] + jitter, self.y[i]


class Awkward(nn.Module):
    """Dropout, running statistics, a frozen bfloat16 weight, an integer index, a count in a plain attribute."""

    def __init__(self):
        super().__init__()
        self.index = nn.Parameter(torch.arange(5, -1, -1), requires_grad=False)
        self.frozen = nn.Parameter(torch.eye(6).bfloat16(), requires_grad=False)
        self.phase = nn.Parameter(torch.ones(6, dtype=torch.cfloat))
        self.net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 3))
        self.calls, self.seen = 0, []

    def forward(self, x):
        self.calls += 1
        self.seen.append(float(x.detach().mean()))
        return self.net((x[:, self.index] @ self.frozen.float()) * self.phase.abs())


def loss_fn(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def adam(model):
    return torch.optim.Adam(model.parameters(), lr=torch.tensor(1e-3))


def sgd(model):
    return torch.optim.SGD(
        [{"params": [p], "lr": 1e-2 * (1 + i)} for i, p in enumerate(model.parameters())], momentum=0.9
    )


def parts(make, trained):
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    model = Awkward()
    optimizer = make(model)
    loader = DataLoader(Noisy(), batch_size=8, shuffle=True)
    for batch in [*loader][:trained]:
        optimizer.zero_grad()
        loss_fn(model, batch).backward()
        optimizer.step()
    return model, optimizer, loader


def everything(model, optimizer):
    """Values, objects and addresses of all that find_peak may not change."""
    tensors = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters() if p.grad is not None)]
    state = [dict(optimizer.state[p]) for p in model.parameters() if p in optimizer.state]
    tensors += [v for entry in state for v in entry.values() if isinstance(v, torch.Tensor)]
    groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    tensors += [v for group in groups for v in group.values() if isinstance(v, torch.Tensor)]
    return {
        "values": copy.deepcopy([t.detach() for t in tensors]),
        "objects": [(id(t), t.data_ptr()) for t in tensors],
        "no gradient": [p.grad is None for p in model.parameters()],
        "wanted": [p.requires_grad for p in model.parameters()],
        "state": [len(optimizer.state), *(sorted(entry) for entry in state)],
        "groups": copy.deepcopy(groups),
        "modes": [module.training for module in model.modules()],
        "attributes": (model.calls, list(model.seen)),
        "hooks": len(optimizer._optimizer_step_post_hooks),
        "generators": (torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()),  # noqa: NPY002
    }


def assert_same(before, after):
    for name, was in before.items():
        if name == "values":
            for one, other in zip(was, after[name], strict=True):
                assert one.dtype == other.dtype
                assert torch.equal(one, other)
        else:
            assert was == after[name], name


def run_one(model, optimizer, loader, length, lr, **settings):
    with everything_kept(model, optimizer) as state:
        runner = ShortRunner(model, optimizer, loss_fn, loader, state, longest=20, seed=3, **settings)
        run = runner.run(length, lr)
        reached = copy.deepcopy([p.detach() for p in model.parameters()])
    return runner, run, reached


@pytest.mark.parametrize("trained", [0, 3])
@pytest.mark.parametrize("make", [adam, sgd])
def test_a_short_run_is_a_plain_loop_to_the_bit(make, trained):
    model, optimizer, loader = parts(make, trained)
    runner, run, reached = run_one(model, optimizer, loader, 10, 0.02)

    rates = [float(group["lr"]) for group in optimizer.param_groups]
    seed_all(3, TRAINING)
    for place, batch in zip(range(10), runner._minibatches(), strict=False):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            lr = 0.02 * shape(place + 1, 10, SHORT_WARM_UP) * (rate / max(rates))
            group["lr"] = torch.tensor(lr) if isinstance(group["lr"], torch.Tensor) else lr
        seed_all(3, TRAINING, place)
        optimizer.zero_grad()
        loss_fn(model, batch).backward()
        optimizer.step()
    assert all(map(torch.equal, reached, model.parameters()))
    with torch.no_grad():
        judges = runner.judges
        for place, batch, loss in zip(judges.places, judges.batches, run.losses, strict=True):
            seed_all(3, EVALUATION, place)
            assert float(loss_fn(model, batch)) == loss


@pytest.mark.parametrize("trained", [0, 3])
@pytest.mark.parametrize("make", [adam, sgd])
def test_a_short_run_leaves_no_trace(make, trained):
    model, optimizer, loader = parts(make, trained)
    model.net[1].eval()
    before = everything(model, optimizer)
    _, run, _ = run_one(model, optimizer, loader, 6, 0.5, clip=1.0)
    assert len(run.losses) == 8
    assert_same(before, everything(model, optimizer))


def test_runs_of_one_rate_are_one_run_whatever_came_between():
    model, optimizer, loader = parts(adam, 0)
    with everything_kept(model, optimizer) as state:
        runner = ShortRunner(model, optimizer, loss_fn, loader, state, longest=20, seed=3)
        first, other, again = runner.run(6, 0.01), runner.run(6, 1e3), runner.run(6, 0.01)
    assert first == again
    assert first != other


def test_a_longer_run_sees_the_shorter_ones_minibatches_first():
    model, optimizer, loader = parts(adam, 0)
    seen = {}
    with everything_kept(model, optimizer) as state:
        runner = ShortRunner(model, optimizer, loss_fn, loader, state, longest=20, seed=3)
        for length in (5, 20):
            runner._step._has_gradient = True
            runner._step.gradient = lambda batch, length=length, **_: (
                seen.setdefault(length, []).append(batch[0]) or [1.0]
            )
            runner.run(length, 0.01)
    assert all(map(torch.equal, seen[5], seen[20][:5]))
    assert len(seen[20]) == 20  # more than a pass of the 16 minibatches


def test_minibatches_in_a_fixed_order_train_after_those_that_judge():
    class Stream:
        def __iter__(self):
            return iter([(torch.full((2, 6), float(i)), torch.zeros(2, dtype=torch.long)) for i in range(30)])

    model, optimizer, _ = parts(sgd, 0)
    with everything_kept(model, optimizer) as state:
        runner = ShortRunner(model, optimizer, loss_fn, Stream(), state, longest=12)
        trained = [float(batch[0][0, 0]) for batch, _ in zip(runner._minibatches(), range(12), strict=False)]
    assert [float(batch[0][0, 0]) for batch in runner.judges.batches] == list(range(8))
    assert trained == list(range(8, 20))


def test_a_run_that_explodes_is_broken_off_early():
    model, optimizer, loader = parts(sgd, 0)
    _, run, _ = run_one(model, optimizer, loader, 20, 1e9)
    assert run.diverged
    assert run.loss == math.inf
    assert run.cost < 20


def test_a_step_with_a_loss_that_is_not_finite_is_skipped():
    model, optimizer, loader = parts(sgd, 0)
    loader.dataset.x[3] = math.nan
    judges = run_one(model, optimizer, loader, 1, 1e-3)[0].judges
    with_nan = [batch for batch in judges.batches if batch[0].isnan().any()]
    model.net[1].eval()  # or the running statistics carry the NaN on
    runner, run, reached = run_one(model, optimizer, loader, 20, 1e-2)
    assert not run.diverged
    assert len(run.losses) == len(runner.judges) - len(with_nan)
    assert all(bool(torch.isfinite(p).all()) for p in reached)


def test_no_finite_loss_at_all_is_an_error_that_says_so():
    model, optimizer, loader = parts(sgd, 0)
    loader.dataset.x[:] = math.nan
    before = everything(model, optimizer)
    with pytest.raises(ValueError, match="no finite loss on any"):
        run_one(model, optimizer, loader, 5, 0.1)
    loader.dataset.x[:] = 0.0
    assert_same(before, everything(model, optimizer))


def test_the_users_own_step_is_counted_by_the_optimizers_steps():
    model, optimizer, loader = parts(sgd, 0)
    calls = []

    def train_step(batch):  # accumulates three minibatches
        calls.append([group["lr"] for group in optimizer.param_groups])
        loss_fn(model, batch).backward()
        if len(calls) % 3 == 0:
            optimizer.step()
            optimizer.zero_grad()

    before = everything(model, optimizer)
    _, run, _ = run_one(model, optimizer, loader, 4, 0.3, train_step=train_step)
    assert len(calls) == 12
    assert [max(rates) for rates in calls[::3]] == pytest.approx(
        [0.3 * shape(step, 4, SHORT_WARM_UP) for step in (1, 2, 3, 4)]
    )
    assert run.cost == 3 * 12 + 8
    assert_same(before, everything(model, optimizer))


def test_a_train_step_that_never_steps_is_an_error_that_says_so():
    model, optimizer, loader = parts(sgd, 0)
    with pytest.raises(ValueError, match=r"no step of the optimizer"):
        run_one(model, optimizer, loader, 4, 0.3, train_step=lambda _: None)


@pytest.mark.parametrize(
    ("loss", "error"),
    [
        (lambda *_: 1.0, TypeError),
        (lambda m, b: m(b[0]).bfloat16().sum(), TypeError),
        (lambda m, b: m(b[0]), ValueError),
    ],
)
def test_a_loss_that_cannot_be_compared_is_refused(loss, error):
    model, optimizer, loader = parts(sgd, 0)
    with everything_kept(model, optimizer) as state, pytest.raises(error, match="loss_fn"):
        ShortRunner(model, optimizer, loss, loader, state, longest=5)


def test_what_train_step_changes_besides_is_kept_where_it_is_named():
    class Scaler:
        def __init__(self):
            self.scale, self.growth, self.tensor = 2.0, None, torch.ones(3)

    model, optimizer, _ = parts(sgd, 0)
    scaler, average = Scaler(), torch.optim.swa_utils.AveragedModel(model)
    with everything_kept(model, optimizer, also=[scaler, average]):
        scaler.scale, scaler.growth = 1.0, torch.zeros(1)
        scaler.tensor.add_(1)
        average.n_averaged.add_(1)
        with torch.no_grad():
            next(average.parameters()).add_(1)
    assert (scaler.scale, scaler.growth, scaler.tensor.tolist()) == (2.0, None, [1.0] * 3)
    assert int(average.n_averaged) == 0
    assert all(map(torch.equal, average.module.parameters(), model.parameters()))


@dataclasses.dataclass(slots=True, weakref_slot=True)
class Slotted:
    count: int
    tensor: torch.Tensor
    later: int = dataclasses.field(init=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    names: list


class OneSlot:
    __slots__ = "count"  # noqa: PLC0205 - a text is one name


def test_containers_and_objects_with_slots_that_are_named_are_put_back_too():
    model, optimizer, _ = parts(sgd, 0)
    average, slotted, frozen, one = (
        {"mean": torch.ones(2), "n": 1},
        Slotted(3, torch.zeros(2)),
        Frozen(["a"]),
        OneSlot(),
    )
    one.count, kept = 7, slotted.tensor
    with everything_kept(model, optimizer, also=[average, slotted, frozen, one]):
        average["mean"].mul_(5)
        average.update(n=2, more=3)
        slotted.count, slotted.tensor, slotted.later, one.count = 4, torch.ones(2), 1, 8
        kept.add_(1)
        frozen.names.append("b")
    assert (average["n"], average["mean"].tolist(), len(average)) == (1, [1.0, 1.0], 2)
    assert slotted.tensor is kept
    assert (slotted.count, kept.tolist(), hasattr(slotted, "later")) == (3, [0.0, 0.0], False)
    assert (frozen.names, one.count) == (["a"], 7)


def test_what_is_named_and_holds_nothing_is_refused():
    model, optimizer, _ = parts(sgd, 0)
    with pytest.raises(TypeError), everything_kept(model, optimizer, also=[3]):
        pass


def test_an_optimizer_that_replaces_its_state_gets_its_own_tensors_back():
    class Replacing(torch.optim.SGD):
        def step(self, closure=None):
            super().step(closure)
            for entry in self.state.values():
                entry["momentum_buffer"] = (
                    entry["momentum_buffer"].clone() if entry.get("momentum_buffer") is not None else None
                )

    model, optimizer, loader = parts(lambda m: Replacing(m.parameters(), lr=0.01, momentum=0.9), 2)
    before = everything(model, optimizer)
    run_one(model, optimizer, loader, 5, 0.1)
    assert_same(before, everything(model, optimizer))


def test_modes_and_wanted_gradients_that_a_loss_changes_are_put_back():
    model, optimizer, loader = parts(sgd, 0)
    before = everything(model, optimizer)

    def switching(m, batch):
        m.net[2].eval()
        m.net[0].weight.requires_grad_(False)
        return loss_fn(m, batch)

    with everything_kept(model, optimizer) as state:
        ShortRunner(model, optimizer, switching, loader, state, longest=5).run(3, 0.01)
    assert_same(before, everything(model, optimizer))


def test_an_infinite_loss_moves_nothing_even_where_its_gradient_is_finite():
    model, optimizer, loader = parts(sgd, 0)

    def infinite_in_training(m, batch):
        return loss_fn(m, batch) + (math.inf if torch.is_grad_enabled() else 0.0)

    before = [p.detach().clone() for p in model.parameters()]
    with everything_kept(model, optimizer) as state:
        ShortRunner(model, optimizer, infinite_in_training, loader, state, longest=5).run(3, 0.01)
        assert all(map(torch.equal, before, model.parameters()))
