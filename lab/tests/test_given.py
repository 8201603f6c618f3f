"""Does a search pay where the given rate is right: by hand on cells that are made up."""

from __future__ import annotations

import math

import pytest

from autolr_lab.benchmark.given import best_octaves, table
from autolr_lab.benchmark.zoo_methods import MethodRow
from autolr_lab.zoo.store import Row


def grid(task, losses, steps=300):
    """Rows of a grid that starts at a loss of 1; ``losses`` by octave."""
    ones = (1.0,) * 8
    return [
        Row(
            "grid", task, "sgd", 0, steps, octave, 1.0, loss, ones, ones, diverged=False, seconds=0.0, code="", torch=""
        )
        for octave, loss in losses.items()
    ]


def method(name, task, loss, peak, steps=300):
    return MethodRow(name, task, "sgd", 0, steps, 1.0, loss, 1.0, loss, peak, 0.0, 0.0, "")


def cells(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]


def test_the_best_rate_is_the_lowest_of_those_that_are_alike_and_none_that_broke_off():
    rows = grid("a", {-3: 0.5, -2: 0.2, -1: 0.2, 0: math.nan, 1: 0.9})
    assert best_octaves(rows) == {("a", "sgd", 0, 300): -2}


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (2.0**2, "more than an octave too high"), (2.0**1, "within an octave"), (1.0, "within an octave"),
        (0.5, "one to three octaves too low"), (0.25, "one to three octaves too low"),
        (0.125, "more than three too low"),
    ],
)  # fmt: skip
def test_a_cell_stands_where_its_given_rate_lies_from_the_best(given, name):
    rows = [method("knee", "a", 0.5, given), method("find-peak", "a", 0.5, 9.0)]
    ((_, found, *_),) = cells(table(grid("a", {-1: 0.6, 0: 0.5, 1: 0.6}), rows))
    assert found == name


def test_a_line_has_the_mean_over_tasks_of_what_the_search_loses_to_the_given_rate():
    best = math.exp(-2.0)
    rows = [
        method("knee", "a", best * math.exp(0.1), 1.0), method("find-peak", "a", best * math.exp(0.4), 9.0),
        method("knee", "b", best * math.exp(0.5), 1.0), method("find-peak", "b", best * math.exp(0.2), 9.0),
        method("knee", "b", best * math.exp(0.5), 1.0, 100), method("find-peak", "b", best, 9.0, 100),
    ]  # fmt: skip
    short = grid("b", {0: best}, 100)
    hundred, three = cells(table(grid("a", {0: best}) + grid("b", {0: best}) + short, rows))
    assert three == ["300", "within an octave", "2 (2)", "0.300", "0.300", "+0.000", "-0.300 to +0.300", "1 of 2"]
    assert hundred == ["100", "within an octave", "1 (1)", "0.000", "0.500", "-0.500", "-", "0 of 1"]
