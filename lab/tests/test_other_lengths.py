"""Runs of other lengths: what is kept, that a study goes on where it was broken off, and what its tables say."""

from __future__ import annotations

import dataclasses
import math

import pytest

from autolr_lab.benchmark.zoo_report import method_rows
from autolr_lab.runner.results import RESULTS
from autolr_lab.studies import other_lengths
from autolr_lab.studies.other_lengths import BY_LENGTH, LONG, METHODS, SHORT, Lengths, read, run, tables
from autolr_lab.zoo.registry import BY_NAME, LEARN
from autolr_lab.zoo.store import Store

FOLDER = RESULTS / "zoo"


def test_a_pair_is_run_once_and_what_is_there_is_not_run_again(tmp_path, monkeypatch):
    store, methods = Store(tmp_path / "rows.jsonl"), tmp_path / "methods.jsonl"
    (pair,) = [p for p in Lengths("tiny", (12,), ("cancer-logistic",)).pairs() if p.optimizer == "sgd"]
    run(pair, store, methods)
    rows = method_rows(methods)
    assert [row.method for row in rows] == list(METHODS)
    assert {row.steps for row in rows} == {row.steps for row in store.rows.values()} == {12}
    assert BY_NAME["cancer-logistic"].horizons != (12,)
    monkeypatch.setattr(other_lengths, "run_method", lambda *_: pytest.fail("it was there"))
    run(pair, Store(tmp_path / "rows.jsonl"), methods)
    assert method_rows(methods) == rows


def test_no_task_is_one_that_constants_were_taken_from_and_short_runs_have_all_others():
    assert not {*LONG.tasks, *SHORT.tasks} & LEARN
    assert {*SHORT.tasks} == BY_NAME.keys() - LEARN


@pytest.mark.parametrize("lengths", BY_LENGTH.values(), ids=lambda lengths: lengths.name)
def test_the_kept_rows_are_the_studys(lengths):
    grid, methods = read(FOLDER, lengths)
    assert {row.steps for row in grid} == {row.steps for row in methods} == set(lengths.steps)
    wanted = {(p.task.name, p.optimizer, s, name) for p in lengths.pairs() for s in lengths.steps for name in METHODS}
    assert {(row.task, row.optimizer, row.steps, row.method) for row in methods} == wanted
    assert {(row.task, row.optimizer, row.steps) for row in grid} == {cell[:3] for cell in wanted}


@pytest.mark.parametrize("lengths", BY_LENGTH.values(), ids=lambda lengths: lengths.name)
def test_regret_is_to_the_best_rate_of_the_same_length(lengths):
    grid, methods = read(FOLDER, lengths)
    for steps in lengths.steps:
        ours = next(row for row in methods if row.method == "find-peak" and row.steps == steps)
        same = [row for row in grid if (row.task, row.optimizer, row.steps) == (ours.task, ours.optimizer, steps)]
        best = min(row.eval_loss for row in same if math.isfinite(row.eval_loss))
        trained = min(row.train_loss for row in same if math.isfinite(row.train_loss))
        asked = dataclasses.replace(lengths, steps=(steps,))
        told = tables(asked, grid, [dataclasses.replace(ours, eval_loss=1.3 * best, train_loss=1.2 * trained)])
        for name, factor in ((lengths.name, 1.3), (f"{lengths.name}-training", 1.2)):
            line = next(text for text in told[name].splitlines() if text.startswith("| find-peak |"))
            assert float(line.split(" | ")[2]) == pytest.approx(math.log(factor), abs=5e-4)


def test_each_of_several_lengths_has_tables_of_its_own():
    told = tables(SHORT, *read(FOLDER, SHORT))
    assert list(told) == ["short-runs-100", "short-runs-100-training", "short-runs-200", "short-runs-200-training"]
    assert len(set(told.values())) == 4
