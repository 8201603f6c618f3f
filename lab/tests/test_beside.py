"""Beside the customary rate: what counts as noise, that tasks are asked together, and what is left out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from autolr_lab.benchmark.beside import Beside, by_task, table, verdicts
from autolr_lab.benchmark.zoo_methods import MethodRow


def row(method, loss, seed=0, optimizer="sgd", steps=300, task="a"):
    return MethodRow(method, task, optimizer, seed, steps, 2.0, loss, 2.0, loss, 0.1, 0.0, 1.0, "")


def both(ours, theirs, **where):
    return [row("find-peak", ours, **where), row("knee", theirs, **where)]


def test_of_a_single_cell_it_is_student_s_paired_test():
    values = (0.3, 0.1, -0.05, 0.2)
    one, expected = Beside("a", (values,)), stats.ttest_1samp(values, 0.0)
    assert (one.p, one.freedom) == pytest.approx((expected.pvalue, 3))
    assert (one.mean - one.half, one.mean + one.half) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_of_two_cells_it_is_welch_s():
    first, second = (0.3, 0.1, -0.05, 0.2), (2.0, -1.0, 3.0)
    one = Beside("a", (first, tuple(-value for value in second)))  # the mean is half of the difference
    assert one.p == pytest.approx(stats.ttest_ind(first, second, equal_var=False).pvalue)


def test_cells_that_lie_apart_are_no_noise():
    apart = Beside("a", ((1.0, 1.01), (-1.0, -0.99)))
    together = Beside("a", ((0.0, 0.01), (0.0, 0.01)))
    assert apart.stderr == pytest.approx(together.stderr)


@pytest.mark.parametrize("noisier", [1.0, 3.0])
def test_under_no_difference_one_family_in_twenty_at_most_has_a_verdict(noisier):
    draws = np.random.default_rng(0).normal(size=(200, 28, 5, 3))
    draws[:, :, 0] *= noisier  # one cell of five
    families = [[Beside("a", tuple(map(tuple, cells))) for cells in family.tolist()] for family in draws]
    wrong = sum(any(verdicts(family)) for family in families) / len(families)
    assert wrong < 0.08


def test_a_task_that_is_worse_by_twice_its_scatter_is_found():
    draws = np.random.default_rng(1).normal(size=(28, 5, 3))
    draws[7] += 2.0
    told = verdicts([Beside("a", tuple(map(tuple, cells))) for cells in draws.tolist()])
    assert [place for place, verdict in enumerate(told) if verdict == "worse"] == [7]


def test_pairs_are_of_one_seed_and_cells_of_one_seed_are_left_out():
    rows = [*both(0.5, 1.0), *both(0.25, 1.0, seed=1), *both(1.0, 0.1, optimizer="adam"), row("knee", 1.0, seed=2)]
    [found] = by_task(rows)
    assert found.cells == (pytest.approx((np.log(0.5), np.log(0.25))),)


def test_a_run_that_broke_off_counts_as_its_start():
    rows = [*both(float("nan"), 1.0), *both(float("nan"), 1.0, seed=1)]
    [found] = by_task(rows)
    assert found.cells[0] == pytest.approx((np.log(2.0),) * 2)
    assert found.p == 0.0


def test_the_table_says_how_many_are_surely_worse():
    rows = [line for seed in range(3) for line in both(1.0 + 0.01 * seed, 0.5, seed=seed)]
    rows += [dataclasses.replace(one, task="b", eval_loss=0.5 + 0.01 * one.seed) for one in rows]
    lines = table(rows).splitlines()
    assert [line.split(" | ")[5] for line in lines[2:4]] == ["worse", "cannot tell"]
    assert lines[-1].startswith("By held-out loss 1 of 2 tasks are surely worse and 0 surely better; of 2 cells 1 are")
    assert "By training loss 2 of 2 tasks are surely worse" in lines[-1]  # the rows have theirs from the first task
