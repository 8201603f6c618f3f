"""The picture of a range test beside `find_peak` is drawn from real runs."""

from __future__ import annotations

import dataclasses

import pytest

from autolr_lab.studies.range_test import GRID, compared, draw, told
from autolr_lab.zoo.registry import BY_NAME, Pair
from autolr_lab.zoo.store import unpack

PAIR = Pair(BY_NAME["wine-mlp"], "sgd")


@pytest.fixture(scope="module")
def found():
    row = unpack(GRID)[0]
    losses = {-8: 0.9, -6: 0.5, -4: 0.2, -2: 0.4, 6: float("nan")}
    rows = [
        dataclasses.replace(row, task="wine-mlp", optimizer="sgd", seed=0, steps=200, octave=octave, eval_loss=loss)
        for octave, loss in losses.items()
    ]
    return compared(PAIR, 200, 0, [*rows, dataclasses.replace(rows[0], steps=99, eval_loss=0.01)])


def test_both_see_the_same_run_and_the_sweep_is_of_its_length(found):
    assert found.best.peak == 2.0**-4
    assert found.peak.total_steps == 200
    assert found.peak.given == PAIR.customary
    assert found.tested.rates[0] == pytest.approx(1e-7)
    assert found.tested.rate in found.tested.rates


def test_the_sweep_s_loss_is_of_the_nearest_rate(found):
    assert found.at(0.05) == 0.2
    assert found.at(0.02) == 0.5
    assert found.at(100.0) == float("inf")
    assert "sweep's best: 0.0625, held-out loss there 0.2" in told(found)


def test_the_picture_is_written(found, tmp_path):
    draw(found, tmp_path / "img" / "picture.png")
    assert (tmp_path / "img" / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_the_grid_lacks_is_refused():
    with pytest.raises(ValueError, match="no runs of wine-mlp/sgd with 77 steps"):
        compared(PAIR, 77, 0, unpack(GRID))
