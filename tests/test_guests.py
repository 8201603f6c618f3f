"""What users bring: networks beside the trained one, losses that raise, lists that grow. None of it ruins a run."""

from __future__ import annotations

import copy
import itertools
import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

import autolr
from autolr.measure.snapshot import Snapshot
from training_runs import seed_everything

KNOWN = autolr.PeakSearch(peak=0.02)


def batches(count=40):
    seed_everything(0)
    x = torch.randn(16 * count, 6)
    return list(zip(x.split(16), (x @ torch.randn(6, 4)).split(16), strict=True))


def net():
    seed_everything(1)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))


def squared(model, batch):
    return F.mse_loss(model(batch[0]), batch[1])


def train(optimizer, model, loss_fn, steps, after=lambda _: None, data=None):
    for step, batch in enumerate(itertools.islice(itertools.cycle(data or batches()), steps)):
        optimizer.zero_grad()
        loss = loss_fn(model, batch)
        if loss.requires_grad:
            loss.backward()
            optimizer.step()
        after(step)


class Taught(nn.Module):
    """A student, and a teacher that is an average of it."""

    def __init__(self):
        super().__init__()
        self.student = net()
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)

    def follow(self, _=None):
        with torch.no_grad():
            for mine, other in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                mine.lerp_(other, 0.1)

    def forward(self, x):
        return self.student(x)


def taught(model, batch):
    return squared(model, batch) + F.mse_loss(model(batch[0]), model.teacher(batch[0]))


def test_a_teacher_in_the_model_is_brought_back_with_it():
    model = Taught()
    optimizer = autolr.AutoLR(
        torch.optim.SGD(model.student.parameters(), lr=0.01, momentum=0.9), model, taught, batches(), 200,
        policy=autolr.PeakSearch(peak=20.0),
    )  # fmt: skip
    with pytest.warns(UserWarning, match="diverged"):
        train(optimizer, model, taught, 200, model.follow)
    assert math.isfinite(float(taught(model, batches()[0]).detach()))
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


def test_a_frozen_backbone_that_is_larger_is_not_copied():
    model = nn.ModuleDict({"frozen": nn.Linear(64, 64), "head": nn.Linear(4, 4), "other": nn.Linear(2, 2)})
    small = torch.optim.SGD(model["head"].parameters(), lr=0.1)
    assert Snapshot.capture(model, small).others == {}
    large = torch.optim.SGD([*model["frozen"].parameters(), *model["head"].parameters()], lr=0.1)
    snapshot = Snapshot.capture(model, large)
    assert set(snapshot.others) == {"other.weight", "other.bias"}
    before = model["other"].weight.detach().clone()
    model["other"].weight.data = torch.full((2, 2), math.nan)  # as some averages are written
    Snapshot.from_state_dict(snapshot.state_dict()).restore(model, large)
    assert torch.equal(model["other"].weight, before)


class Remembering(nn.Module):
    """Keeps what it saw last in a plain attribute, larger than is kept at every look."""

    def __init__(self):
        super().__init__()
        self.net, self.seen = net(), torch.zeros(6)

    def forward(self, x):
        if not autolr.is_probing():
            self.seen = 0.9 * self.seen + 0.1 * x.detach().mean(0)
        return self.net(x + self.seen)


def test_what_going_back_does_not_bring_back_is_told_and_nothing_else_is_said():
    model = Remembering()
    optimizer = autolr.AutoLR(torch.optim.Adam(model.parameters(), 0.01), model, squared, batches(), 80, policy=KNOWN)

    def poison(step):
        if step == 30:
            model.seen[0] = math.nan

    with pytest.warns(UserWarning, match="nor is it at the last good place") as warned:
        train(optimizer, model, squared, 80, poison)
    assert sum("nor is it" in str(one.message) for one in warned) == 1
    told = [record.trigger for record in optimizer.history if record.step > 30]
    assert set(told) == {"lost"}


def test_a_list_of_minibatches_that_grows_or_shrinks_stops_nothing():
    for first, then in ((2, 20), (20, 2)):
        data = batches()
        held = data[:first]
        model = net()
        optimizer = autolr.AutoLR(torch.optim.Adam(model.parameters(), 0.01), model, squared, held, 80, policy=KNOWN)

        def change(step, held=held, data=data, then=then):
            if step == 30:
                held[:] = data[:then]

        train(optimizer, model, squared, 80, change)
        saved = optimizer.state_dict()  # without the few minibatches that are kept in memory
        again = net()
        resumed = autolr.AutoLR(torch.optim.Adam(again.parameters(), 0.01), again, squared, held, 80, policy=KNOWN)
        resumed.load_state_dict(saved)


def test_another_number_of_judging_minibatches_begins_the_comparison_anew():
    data = batches()
    held = data[:2]
    model = net()
    optimizer = autolr.AutoLR(torch.optim.Adam(model.parameters(), 0.01), model, squared, held, 80, policy=KNOWN)

    def change(step):
        if step == 30:
            held[:] = data
            optimizer._controller._probe._few = None  # as after a checkpoint

    train(optimizer, model, squared, 80, change)
    triggers = [record.trigger for record in optimizer.history]
    assert triggers.count("other data") == 1
    assert triggers[-1] == "healthy"


def strict(model, batch):
    """As torch's distributions are: it raises where what it is given is out of bounds."""
    out = model(batch[0])
    if not bool((out.abs() < 20).all()):
        raise ValueError("expected values within bounds")
    return F.mse_loss(out, batch[1])


def lenient(model, batch):
    try:
        return strict(model, batch)
    except ValueError:
        return torch.tensor(math.nan)


@pytest.mark.parametrize("by_step", [False, True])
def test_a_loss_that_raises_at_ruined_weights_is_a_run_that_diverged(by_step):
    def both(loss_fn):
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def train_step(batch):
            optimizer.zero_grad()
            loss = loss_fn(model, batch)
            loss.backward()
            optimizer.step()
            return loss

        step = train_step if by_step else None
        return autolr.find_peak(model, optimizer, loss_fn, batches(), 300, train_step=step), model

    raising, model = both(strict)
    returning, _ = both(lenient)
    assert any(run.diverged for run in raising.runs)
    assert [run.lr for run in raising.runs] == [run.lr for run in returning.runs]
    assert raising.lr == returning.lr
    assert all(map(torch.equal, model.parameters(), net().parameters()))


def test_a_loss_that_raises_for_another_reason_is_raised_and_all_is_put_back():
    model, calls = net(), [0]

    def broken(m, batch):
        calls[0] += 1
        if calls[0] > 40:
            raise KeyError("labels")
        return squared(m, batch)

    with pytest.raises(KeyError, match="labels") as raised:
        autolr.find_peak(model, torch.optim.SGD(model.parameters(), lr=1e-6), broken, batches(100), 300)
    assert all(map(torch.equal, model.parameters(), net().parameters()))
    assert "at a rate of 1e-06" in "".join(getattr(raised.value, "__notes__", ["at a rate of 1e-06"]))


def test_memory_that_runs_out_in_a_short_run_is_no_divergence():
    model, calls = net(), [0]

    def large(m, batch):
        calls[0] += 1
        if calls[0] == 37:
            raise torch.OutOfMemoryError("out of memory")
        return squared(m, batch) * (math.inf if calls[0] == 36 else 1.0)

    with pytest.raises(torch.OutOfMemoryError):
        autolr.find_peak(model, torch.optim.SGD(model.parameters(), lr=0.1), large, batches(100), 300)


@pytest.mark.filterwarnings("ignore:No rate is expected")  # what it finds is not the point
def test_a_minibatch_whose_loss_has_no_gradient_is_left_out_as_the_loop_does():
    def mined(model, batch):
        hard = batch[0][:, 0] > 1.5
        if not bool(hard.any()):
            return torch.tensor(0.0)
        return F.mse_loss(model(batch[0][hard]), batch[1][hard])

    model = net()
    peak = autolr.find_peak(model, torch.optim.Adam(model.parameters(), 0.01), mined, batches(), 300)
    assert len(peak.runs) >= 3


def test_a_graph_that_outlives_a_step_goes_backwards_through_batch_normalisation():
    def ends(wrap):
        seed_everything(1)
        trunk = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh())
        model = nn.ModuleDict({"trunk": trunk, "first": nn.Linear(8, 4), "second": nn.Linear(8, 4)})

        def loss_fn(model, batch):
            return F.mse_loss(model["first"](model["trunk"](batch[0])), batch[1])

        first = wrap(torch.optim.SGD(model["first"].parameters(), lr=0.01), model, loss_fn)
        second = torch.optim.SGD([*trunk.parameters(), *model["second"].parameters()], lr=0.01)
        for x, y in batches()[:12]:
            hidden = trunk(x)
            first.zero_grad()
            second.zero_grad()
            F.mse_loss(model["first"](hidden), y).backward(retain_graph=True)
            first.step()
            F.mse_loss(model["second"](hidden), -y).backward()
            second.step()
        return [value.detach().clone() for value in model.state_dict().values()]

    look = autolr.Monitor(window=2, superbatch=2)
    looked = ends(lambda base, model, loss_fn: autolr.AutoLR(base, model, loss_fn, batches(), 12, policy=look))
    assert all(map(torch.equal, ends(lambda base, *_: base), looked))


class Counted(Dataset):
    def __init__(self):
        self.x, self.loads = torch.randn(512, 6), 0

    def __len__(self):
        return len(self.x)

    def __getitem__(self, place):
        self.loads += 1
        return self.x[place], self.x[place, :4]


def test_the_guard_loads_its_minibatches_once():
    data, model = Counted(), net()
    loader = DataLoader(data, batch_size=16, shuffle=True)
    optimizer = autolr.AutoLR(torch.optim.Adam(model.parameters(), 0.01), model, squared, loader, 400, policy=KNOWN)
    before = data.loads
    train(optimizer, model, squared, 400, data=[(x, x[:, :4]) for x in data.x.split(16)])
    assert len(optimizer.history) > 3
    assert data.loads - before == 4 * 16
    copy.deepcopy(optimizer)


def heavy(count=640, share=25):
    """One minibatch in ``share`` has targets ten times as large: what it gains, the others cannot."""
    seed_everything(3)
    x = torch.randn(count, 16, 6)
    y = x @ torch.randn(6, 4)
    y[::share] *= 10
    return list(zip(x, y, strict=True))


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam])
def test_what_a_heavy_judge_gains_is_not_asked_of_the_guards_minibatches(make):
    undone = 0
    for seed in range(3):
        seed_everything(seed)
        model = nn.Linear(6, 4)
        data = heavy()
        optimizer = autolr.AutoLR(make(model.parameters(), lr=0.01), model, squared, data, 300, seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            train(optimizer, model, squared, 300, data=data)
        undone += sum(record.verdict == "roll back" for record in optimizer.history)
    assert undone == 0


def test_a_load_that_fails_once_costs_one_check():
    class Failing(Counted):
        fails = False

        def __getitem__(self, place):
            if self.fails:
                raise OSError("the disk is away")
            return super().__getitem__(place)

    data, model = Failing(), net()
    loader = DataLoader(data, batch_size=16)
    optimizer = autolr.AutoLR(torch.optim.Adam(model.parameters(), 0.01), model, squared, loader, 80, policy=KNOWN)
    raised = 0
    for step, batch in enumerate(itertools.islice(itertools.cycle([(x, x[:, :4]) for x in data.x.split(16)]), 80)):
        data.fails = step < 5
        optimizer.zero_grad()
        squared(model, batch).backward()
        try:
            optimizer.step()
        except OSError:
            raised += 1
    assert 1 <= raised <= 5
    assert optimizer.history[-1].trigger == "healthy"


class Own:
    """A minibatch of a class of its own, which is loaded anew for each short run."""

    def __init__(self, rows):
        self.parts = torch.stack([x for x, _ in rows]), torch.stack([y for _, y in rows])

    def __getitem__(self, place):
        return self.parts[place]


def test_an_error_of_the_data_is_none_of_the_rate():
    class Failing(Counted):
        def __getitem__(self, place):
            if self.loads > 32 * 8 + 16 * 20:  # after the judges and the first short run
                raise RuntimeError("a broken file")
            return super().__getitem__(place)

    data, model = Failing(), net()
    loader = DataLoader(data, batch_size=16, shuffle=True, collate_fn=Own)
    with pytest.raises(RuntimeError, match="a broken file"):
        autolr.find_peak(model, torch.optim.Adam(model.parameters(), 1e-3), squared, loader, 300)


def test_gradients_and_modes_of_modules_beside_the_model_are_put_back():
    model, center = net(), nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))

    def loss_fn(m, batch):
        center.train()
        return F.mse_loss(center(m(batch[0])), batch[1])

    loss_fn(model, batches()[0]).backward()
    center[1].eval()
    before = center[0].weight.grad.clone()
    autolr.find_peak(model, torch.optim.Adam(model.parameters(), 1e-3), loss_fn, batches(), 300)
    assert torch.equal(center[0].weight.grad, before)
    assert (center.training, center[1].training) == (True, False)


def test_a_copy_looks_after_what_its_loss_names():
    center = nn.BatchNorm1d(4)

    def loss_fn(m, batch):
        return F.mse_loss(center(m(batch[0])), batch[1])

    model = net()
    look = autolr.Monitor(window=2, superbatch=2)
    optimizer = autolr.AutoLR(torch.optim.Adam(model.parameters(), 1e-3), model, loss_fn, batches(), 60, policy=look)
    twin, tuned = copy.deepcopy((model, optimizer))
    train(tuned, twin, loss_fn, 10)
    assert int(center.num_batches_tracked) == 10


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_module_beside_the_model_is_left_alone():
    teacher = torch.jit.script(nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)).eval())

    def loss_fn(m, batch):
        return F.mse_loss(m(batch[0]), teacher(batch[0]))

    model = net()
    assert autolr.find_peak(model, torch.optim.Adam(model.parameters(), 1e-3), loss_fn, batches(), 300).runs
