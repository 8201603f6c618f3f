"""The zoo's report: what regret is, that tasks are the sample, and that rounding errors decide nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autolr_lab.benchmark.zoo_report import FLOOR, Losses, by_task, interval, table

CELLS = [(f"task{i}", "sgd", 0, 300) for i in range(8)]


def lines(text):
    return {line.split(" | ")[0].strip("| "): line.split(" | ") for line in text.splitlines()[2:]}


@pytest.mark.parametrize(
    ("after", "level"),
    [(0.5, math.log(0.5)), (math.nan, math.log(2.0)), (9.0, math.log(2.0)), (0.0, math.log(FLOOR * 2.0))],
)
def test_a_level_lies_between_the_start_and_what_is_solved(after, level):
    assert Losses(2.0, after).level == pytest.approx(level)


def test_a_task_counts_once_however_many_cells_it_has():
    cells = {("a", "sgd", 0, 300): 1.0, ("a", "sgd", 0, 1200): 3.0, ("b", "sgd", 0, 300): 5.0}
    assert by_task(cells) == {"a": 2.0, "b": 5.0}


def test_differences_below_the_sixth_digit_have_no_p_value_and_larger_ones_have():
    ours = dict.fromkeys(CELLS, 0.1)
    rounding = {cell: 0.1 + 1e-12 * (place + 1) for place, cell in enumerate(CELLS)}
    behind = {cell: 0.1 + 0.01 * (place + 1) for place, cell in enumerate(CELLS)}
    found = lines(table({"find-peak": ours, "same": rounding, "behind": behind}))
    assert found["same"][-1].strip(" |") == ""
    assert float(found["behind"][-1].strip(" |")) == pytest.approx(2 / 2**8, rel=0.1)  # all eight have one sign
    assert found["behind"][-2] == "+0.045"


def test_several_methods_are_allowed_for():
    ours = dict.fromkeys(CELLS, 0.1)
    behind = {cell: 0.1 + 0.01 * (place + 1) for place, cell in enumerate(CELLS)}
    many = lines(table({"find-peak": ours, **{f"m{i}": behind for i in range(3)}}))
    assert float(many["m0"][-1].strip(" |")) == pytest.approx(3 * 2 / 2**8, rel=0.1)


def test_an_interval_holds_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(1).normal(size=(200, 30))
    held = sum(low < 0 < high for low, high in map(interval, draws.tolist()))
    assert 0.88 < held / 200 < 0.99  # of 95 %: a bootstrap of 30 is a little narrow
