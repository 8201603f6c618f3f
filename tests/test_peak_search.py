"""find_peak: changes nothing, answers the same each time, in any unit, and near the best where the best is known."""

import dataclasses
import functools
import json
import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from autolr.peak import Peak
from autolr.peak_search import find_peak
from autolr.schedules import PeakSchedule, shape
from test_short_run import Noisy, adam, assert_same, everything, loss_fn, parts, sgd


def search(make=adam, trained=0, steps=1000, loss=loss_fn, **settings):
    model, optimizer, loader = parts(make, trained)
    return find_peak(model, optimizer, loss, loader, steps, **settings)


@functools.cache
def found():
    """One search, for those that look at what it found."""
    return search()


@pytest.mark.filterwarnings("ignore:No rate is expected")  # what it finds is not the point
@pytest.mark.parametrize("trained", [0, 3])
@pytest.mark.parametrize("make", [adam, sgd])
def test_a_search_leaves_no_trace(make, trained):
    model, optimizer, loader = parts(make, trained)
    before = everything(model, optimizer)
    peak = find_peak(model, optimizer, loss_fn, loader, 1000)
    assert len(peak.runs) >= 4
    assert_same(before, everything(model, optimizer))


class Interrupting:
    """Counts events and raises at one of them, as Ctrl-C would."""

    def __init__(self, at):
        self.left = at

    def tick(self):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["loss", "after backward", "optimizer", "data", "bar"])
@pytest.mark.parametrize("at", [1, 2, 9, 30])
def test_an_interrupted_search_leaves_no_trace(where, at, monkeypatch):
    event = Interrupting(at)
    model, optimizer, loader = parts(adam, 3)
    before = everything(model, optimizer)

    def interrupted(m, batch):
        loss = loss_fn(m, batch)
        if where == "loss":
            event.tick()
        if where == "after backward" and loss.requires_grad:
            loss.register_hook(lambda _: event.tick())
        return loss

    handle = optimizer.register_step_pre_hook(lambda *_: event.tick()) if where == "optimizer" else None
    if where == "data":
        given = Noisy.__getitem__
        monkeypatch.setattr(Noisy, "__getitem__", lambda self, i: (event.tick(), given(self, i))[1])
    if where == "bar":
        event.left = min(at, 4)
        monkeypatch.setattr("autolr.progress.ProgressBar.show", lambda *_: event.tick())
    with pytest.raises(KeyboardInterrupt):
        find_peak(model, optimizer, interrupted, loader, 1000)
    if handle is not None:
        handle.remove()
    assert_same(before, everything(model, optimizer))


def test_training_after_a_search_is_training_without_one():
    def train(searched):
        model, optimizer, loader = parts(adam, 0)
        if searched:
            find_peak(model, optimizer, loss_fn, loader, 1000)
        for batch in loader:
            optimizer.zero_grad()
            loss_fn(model, batch).backward()
            optimizer.step()
        return list(model.parameters())

    assert all(map(torch.equal, train(searched=False), train(searched=True)))


def test_the_same_search_gives_the_same_answer_and_the_seed_matters():
    def told(peak):
        return peak.lr, peak.runs

    torch.rand(7)
    assert told(search()) == told(found())
    assert told(found()) != told(search(seed=1))


def quadratic(curvature=1.0, dimension=20, noise=0.0):
    """SGD on a quadratic: in few steps the best rate of the shape is near the inverse of the curvature."""
    torch.manual_seed(0)
    model = nn.Linear(dimension, 1, bias=False)
    nn.init.ones_(model.weight)
    data = TensorDataset(noise * torch.randn(256, dimension))

    def loss(m, batch):
        return curvature * ((m.weight - batch[0]) ** 2).sum(1).mean() / 2

    return model, loss, DataLoader(data, 4, shuffle=True)


@pytest.mark.parametrize("curvature", [1e-6, 1.0, 1e4])
def test_on_a_quadratic_the_short_runs_find_the_rate_that_solves_it(curvature):
    model, loss, loader = quadratic(curvature, noise=0.3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01 / curvature)
    peak = find_peak(model, optimizer, loss, loader, 3000)
    best = min((run for run in peak.runs if run.length == max(r.length for r in peak.runs)), key=lambda run: run.loss)
    assert 0.1 < best.lr * curvature < 2.0  # at 2 the quadratic diverges
    assert 0.02 < peak.lr * curvature < 1.0
    assert peak.low < peak.lr < peak.high


@pytest.mark.parametrize("unit", [1e-4, 1e3])
def test_the_peak_of_sgd_goes_with_the_inverse_of_the_losses_unit(unit):
    model, loss, loader = quadratic(noise=0.3)
    here = find_peak(model, torch.optim.SGD(model.parameters(), lr=0.125), loss, loader, 3000)
    there = find_peak(
        model, torch.optim.SGD(model.parameters(), lr=0.125 / unit), lambda m, b: unit * loss(m, b), loader, 3000
    )
    assert there.lr * unit == pytest.approx(here.lr, rel=1e-3)


@pytest.mark.parametrize("factor", [2.0**-10, 2.0**10])
def test_a_given_rate_a_thousand_times_off_finds_the_same_peak_within_the_lattice(factor):
    model, loss, loader = quadratic(noise=0.3)
    near = find_peak(model, torch.optim.SGD(model.parameters(), lr=0.125), loss, loader, 3000)
    far = find_peak(model, torch.optim.SGD(model.parameters(), lr=0.125 * factor), loss, loader, 3000)
    assert abs(math.log2(far.lr / near.lr)) < 1


def test_a_loss_in_small_units_needs_a_rate_beyond_a_thousand():
    model, loss, loader = quadratic(noise=0.3)
    peak = find_peak(model, torch.optim.SGD(model.parameters(), lr=0.1), lambda m, b: 1e-5 * loss(m, b), loader, 3000)
    assert peak.lr > 1e3


def test_a_loss_that_nothing_moves_falls_back_to_the_given_rate_and_says_so():
    model, _, loader = quadratic()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    with pytest.warns(UserWarning, match="returns the optimizer's own rate, 0.25") as warned:
        peak = find_peak(model, optimizer, lambda m, _: 0 * m.weight.sum() + 1.0, loader, 1000)
    assert peak.lr == peak.given == 0.25
    assert peak.fallback is not None
    assert "nothing could be told" in str(peak)
    assert len(warned) == 1
    assert warned[0].filename == __file__


def test_a_search_that_finds_something_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert search().fallback is None


def test_an_optimizer_whose_first_step_moves_nothing_is_judged_by_whole_runs():
    class Late(torch.optim.SGD):
        def step(self, closure=None):
            for group in self.param_groups:
                group["calls"] = group.get("calls", 0) + 1
                if group["calls"] == 1:
                    return
            super().step(closure)

    model, loss, loader = quadratic(noise=0.3)
    peak = find_peak(model, Late(model.parameters(), lr=0.1), loss, loader, 3000)
    assert 0.02 < peak.lr < 1.0


def test_a_search_costs_what_it_says_and_no_more_than_it_may():
    for peak, steps, most in ((search(steps=300), 300, 1 / 3), (found(), 1000, 0.1), (search(steps=5000), 5000, 0.065)):
        assert peak.cost == pytest.approx(len(peak.start_losses) + sum(run.cost for run in peak.runs))
        assert peak.share == pytest.approx(peak.cost / (3 * steps))
        assert peak.share <= most
    assert search(steps=1000, budget=0.05).share <= 0.05


def test_the_users_evaluation_batches_judge():
    model, optimizer, loader = parts(sgd, 0)
    judges = [*loader][:5]
    assert len(find_peak(model, optimizer, loss_fn, loader, 1000, evaluation=judges).start_losses) == 5


def test_a_peak_goes_through_json_and_back_unchanged():
    peak = found()
    assert Peak.from_json(peak.to_json()) == peak
    with pytest.raises(ValueError, match="no Peak"):
        Peak.from_json("{}")


def test_a_peak_s_json_is_strict_whatever_is_not_finite_in_it():
    def stop(word):
        raise AssertionError(f"{word} is no JSON")

    nothing = dataclasses.replace(found(), high=math.inf, low=0.0, fallback="nothing gained")
    text = nothing.to_json()
    json.loads(text, parse_constant=stop)
    assert Peak.from_json(text) == nothing
    ran = dataclasses.replace(nothing.runs[0], losses=(1.0, math.nan))
    again = Peak.from_json(dataclasses.replace(nothing, runs=(ran,)).to_json()).runs[0].losses
    assert again[0] == 1.0
    assert math.isnan(again[1])
    assert Peak.from_json(text.replace('"high": null', '"high": Infinity')) == nothing  # as it was written before


@pytest.mark.parametrize("changed", [{"total_steps": 0}, {"low": 5.0, "high": 1.0}, {"start_losses": []}])
def test_a_peak_that_cannot_be_is_refused(changed):
    with pytest.raises(ValueError, match="no Peak"):
        Peak.from_json(json.dumps(json.loads(found().to_json()) | changed))


def test_a_peak_says_what_it_found_in_words_and_in_a_notebook():
    peak = found()
    assert str(peak).startswith(f"peak {peak.lr:.2g} (")
    assert f"{len(peak.runs)} short runs" in str(peak)
    assert peak._repr_html_().count("<tr>") == len(peak.runs) + 1


def test_a_peaks_scheduler_follows_the_shape_at_the_peak():
    peak = search(sgd)
    _, optimizer, _ = parts(sgd, 0)
    scheduler = peak.scheduler(optimizer)
    assert isinstance(scheduler, PeakSchedule)
    assert max(group["lr"] for group in optimizer.param_groups) == peak.lr * shape(1, 1000)


def test_a_picture_has_the_runs_of_each_length_and_the_peak():
    pytest.importorskip("matplotlib").use("agg")
    peak = found()
    texts = [text.get_text() for text in peak.plot().get_legend().get_texts()]
    assert {f"runs of {run.length:,} steps" for run in peak.runs} <= set(texts)
    assert any("peak" in text for text in texts)


def test_a_bar_is_shown_on_request_and_taken_away(capsys):
    search(progress=True)
    shown = capsys.readouterr().err
    assert "find_peak [" in shown
    assert shown.endswith(" \r")
    search(progress=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"total_steps": 0}, ValueError),
        ({"total_steps": 1.5}, TypeError),
        ({"budget": 0.0}, ValueError),
        ({"clip": -1.0}, ValueError),
        ({"seed": -1}, ValueError),
    ],
)
def test_settings_out_of_range_are_refused_before_anything_is_tried(settings, error):
    model, optimizer, loader = parts(sgd, 0)
    calls = []
    with pytest.raises(error):
        find_peak(model, optimizer, lambda *_: calls.append(1), loader, **{"total_steps": 100} | settings)
    assert not calls


def test_batches_that_can_be_iterated_once_are_refused():
    model, optimizer, loader = parts(sgd, 0)
    with pytest.raises(TypeError, match="iterated again"):
        find_peak(model, optimizer, loss_fn, iter(loader), 1000)


def test_clipping_is_what_torch_clips():
    model, optimizer, loader = parts(sgd, 0)

    def train_step(batch):
        optimizer.zero_grad()
        loss_fn(model, batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()

    ours = find_peak(model, optimizer, loss_fn, loader, 400, clip=0.1)
    theirs = find_peak(model, optimizer, loss_fn, loader, 400, train_step=train_step)
    assert ours.lr == theirs.lr
    assert ours.lr != find_peak(model, optimizer, loss_fn, loader, 400).lr


@pytest.mark.parametrize("scale", [1e-7, 1.0])
def test_a_relu_net_whose_first_steps_gain_only_rounding_is_not_given_a_rate_of_nothing(scale):
    # Started so small that the first steps at usual rates change nothing in float32.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    loader = DataLoader(TensorDataset(Noisy().x, Noisy().y), 16, shuffle=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=scale * 0.1)

    def loss(m, b):
        return F.cross_entropy(m(b[0]), b[1])

    peak = find_peak(model, optimizer, loss, loader, 10_000)
    assert 0.01 < peak.lr < 3
