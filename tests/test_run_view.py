"""A run shows itself: a line, a summary, a picture, a page, a notebook's form; each says what the run has done."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
import torch
from torch import nn

import autolr
from training_runs import BATCHES_OF_LINES, cross_entropy, seed_everything

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def run():
    """In the middle, with its peak found and a loss that its user logged."""
    seed_everything(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    base = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    optimizer = autolr.AutoLR(base, model, cross_entropy, BATCHES_OF_LINES, 200)
    for step in range(120):
        optimizer.zero_grad()
        cross_entropy(model, BATCHES_OF_LINES[step % len(BATCHES_OF_LINES)]).backward()
        optimizer.step()
        if step % 20 == 19:
            optimizer.log(val_loss=1 / (step + 1))
    return optimizer


def test_a_line_has_step_phase_rate_and_what_was_spent(run):
    share = 100 * run.cost.share(200)
    assert repr(run) == f"AutoLR(SGD, PeakSearch, step 120 of 200, decay, lr {run.lr:.3g}, {share:.2g} % spent)"


def test_a_decision_is_one_sentence(run):
    for record in run.history:
        assert str(record) == f"step {record.step:,} ({record.phase}): {record.reason}"


def test_a_summary_is_words_with_the_peak_and_the_last_decisions(run):
    lines = run.summary().splitlines()
    assert lines[0] == repr(run)
    assert f"Peak {run.history[0].search['lr']:.3g} " in lines[1]
    assert lines[2:] == [str(record) for record in run.history[-3:]]


def test_a_picture_has_the_rate_of_every_step_and_what_was_logged(run):
    figure = run.plot()
    rate, metric = figure.axes
    drawn = dict(zip(*map(list, rate.lines[0].get_data()), strict=True))
    assert drawn[1.0] == pytest.approx(run.history[0].search["lr"] / 10)  # the first of ten steps of warm-up
    assert max(drawn) == 120
    assert metric.get_title(loc="left") == "val loss"
    assert list(metric.lines[0].get_xdata()) == [20, 40, 60, 80, 100, 120]


def test_a_page_is_one_file_that_says_the_run_is_running(run, tmp_path):
    page = run.report(tmp_path / "sub" / "run.html")
    assert [file.name for file in page.parent.iterdir()] == ["run.html"]
    text = page.read_text()
    assert f"Peak {run.history[0].search['lr']:.3g} " in text
    assert '"running"' in text
    assert run.report(str(tmp_path / "again.html")).read_text() == text  # no two alike would be no record


def test_a_notebook_shows_words_and_the_curve(run):
    shown = run._repr_html_()
    assert "<svg" in shown
    assert "Peak " in shown
    assert "<script" not in shown


@pytest.mark.parametrize("what", ["plot()", "report('x.html')"])
def test_without_what_draws_it_says_what_to_install_and_a_summary_needs_nothing(what):
    script = f"""
import sys
for name in ("matplotlib", "jinja2", "vl_convert"):
    sys.modules[name] = None
import torch, autolr
model = torch.nn.Linear(2, 1)
data = [torch.randn(8, 2) for _ in range(10)]
base = torch.optim.SGD(model.parameters(), lr=0.001)
policy = autolr.Monitor(window=3, superbatch=2)
o = autolr.AutoLR(base, model, lambda m, x: m(x).square().mean(), data, 20, policy=policy)
print(o.summary())
print(o._repr_html_())
try:
    o.{what}
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert "AutoLR(SGD, Monitor, step 0 of 20" in done.stdout
    assert "<svg" not in done.stdout
    assert "is not installed. pip install 'torch-autolr[" in done.stdout


def test_each_decision_is_told_to_the_standard_logger(caplog):
    seed_everything(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    base = torch.optim.SGD(model.parameters(), lr=0.05)
    policy = autolr.Monitor(window=4, superbatch=3)
    optimizer = autolr.AutoLR(base, model, cross_entropy, BATCHES_OF_LINES, 20, policy=policy)
    with caplog.at_level(logging.INFO, logger="autolr"):
        for step in range(20):
            optimizer.zero_grad()
            cross_entropy(model, BATCHES_OF_LINES[step % len(BATCHES_OF_LINES)]).backward()
            optimizer.step()
    assert [record.getMessage() for record in caplog.records] == [str(record) for record in optimizer.history]
    assert optimizer.history
