"""The study of longer runs: what is kept of it, that it goes on where it was broken off, and what its table says."""

from __future__ import annotations

import dataclasses
import math

import pytest

from autolr_lab.benchmark.zoo_report import method_rows
from autolr_lab.runner.results import RESULTS
from autolr_lab.studies import long_runs
from autolr_lab.studies.long_runs import (
    GRID,
    METHOD_ROWS,
    METHODS,
    OPTIMIZERS,
    STEPS,
    TASKS,
    pairs,
    run,
    tables,
)
from autolr_lab.zoo.registry import BY_NAME, LEARN
from autolr_lab.zoo.store import Store, unpack

FOLDER = RESULTS / "zoo"


def test_a_pair_is_run_once_and_what_is_there_is_not_run_again(tmp_path, monkeypatch):
    store, methods = Store(tmp_path / "rows.jsonl"), tmp_path / "methods.jsonl"
    (pair,) = [p for p in pairs(("cancer-logistic",), steps=12) if p.optimizer == "sgd"]
    run(pair, store, methods)
    rows = method_rows(methods)
    assert [row.method for row in rows] == list(METHODS)
    assert {row.steps for row in rows} == {row.steps for row in store.rows.values()} == {12}
    assert BY_NAME["cancer-logistic"].horizons != (12,)
    monkeypatch.setattr(long_runs, "run_method", lambda *_: pytest.fail("it was there"))
    run(pair, Store(tmp_path / "rows.jsonl"), methods)
    assert method_rows(methods) == rows


def test_the_kept_rows_are_the_studys():
    grid, methods = unpack(FOLDER / GRID), method_rows(FOLDER / METHOD_ROWS)
    assert not set(TASKS) & LEARN
    assert {row.steps for row in grid} == {row.steps for row in methods} == {STEPS}
    wanted = {(p.task.name, p.optimizer, name) for p in pairs() for name in METHODS}
    assert {(row.task, row.optimizer, row.method) for row in methods} == wanted
    assert all(row.optimizer in OPTIMIZERS for row in grid)


def test_regret_is_to_the_best_rate_of_the_same_length():
    grid, methods = unpack(FOLDER / GRID), method_rows(FOLDER / METHOD_ROWS)
    ours = next(row for row in methods if row.method == "find-peak")
    same = [row for row in grid if (row.task, row.optimizer) == (ours.task, ours.optimizer)]
    best = min(row.eval_loss for row in same if math.isfinite(row.eval_loss))
    trained = min(row.train_loss for row in same if math.isfinite(row.train_loss))
    told = tables(same, [dataclasses.replace(ours, eval_loss=3 * best, train_loss=2 * trained)])
    for name, factor in (("long", 3), ("long-training", 2)):
        line = next(text for text in told[name].splitlines() if text.startswith("| find-peak |"))
        assert float(line.split(" | ")[2]) == pytest.approx(math.log(factor), abs=5e-4)
