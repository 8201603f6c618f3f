"""Runs of other lengths: what is kept, that a study goes on where it was broken off, and what its tables say."""

from __future__ import annotations

import dataclasses
import math

import pytest

from autolr_lab.benchmark import own_grid
from autolr_lab.benchmark.zoo_report import method_rows
from autolr_lab.runner.results import RESULTS
from autolr_lab.studies.other_lengths import BY_LENGTH, METHODS, SHORT, of_lengths, tables
from autolr_lab.zoo.registry import BY_NAME, LEARN
from autolr_lab.zoo.store import Store

FOLDER = RESULTS / "zoo"


def test_a_pair_is_run_once_and_what_is_there_is_not_run_again(tmp_path, monkeypatch):
    tiny, methods = of_lengths("tiny", (12,), ["cancer-logistic"]), tmp_path / "methods.jsonl"
    (pair,) = [p for p in tiny.pairs if p.optimizer == "sgd"]
    tiny.run(pair, tmp_path)
    rows, grid = method_rows(methods), Store(tmp_path / "rows.jsonl").rows
    assert [row.method for row in rows] == list(METHODS)
    assert {row.steps for row in rows} == {row.steps for row in grid.values()} == {12}
    assert BY_NAME["cancer-logistic"].horizons != (12,)
    monkeypatch.setattr(own_grid, "run_method", lambda *_: pytest.fail("it was there"))
    tiny.run(pair, tmp_path)
    assert method_rows(methods) == rows
    tiny.pack(tmp_path, tmp_path)
    packed = tiny.read(tmp_path)
    assert packed[1] == rows
    assert {row.key for row in packed[0]} == grid.keys()


def test_the_command_runs_packs_and_prints(tmp_path, monkeypatch, capsys):
    tiny = of_lengths("tiny", (12,), ["cancer-logistic", "word-vectors"])
    asked = ["study", "--folder", str(tmp_path / "rows"), "--to", str(tmp_path), "--tasks", "cancer-logistic"]
    monkeypatch.setattr("sys.argv", asked)
    own_grid.command_line("study", None, {"tiny": tiny}, tables)
    assert {row.task for row in tiny.read(tmp_path)[1]} == {"cancer-logistic"}
    assert "tiny-training:\n| method |" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", [*asked[:-1], "no-such"])
    with pytest.raises(SystemExit):
        own_grid.command_line("study", None, {"tiny": tiny}, tables)
    assert "--tasks are of cancer-logistic, word-vectors; got no-such" in capsys.readouterr().err


def test_no_task_is_one_that_constants_were_taken_from_and_short_runs_have_all_others():
    tasks = {lengths: {pair.task.name for pair in of.pairs} for lengths, of in BY_LENGTH.items()}
    assert not (tasks["long"] | tasks["short"]) & LEARN
    assert tasks["short"] == BY_NAME.keys() - LEARN


@pytest.mark.parametrize("lengths", BY_LENGTH.values(), ids=lambda lengths: lengths.name)
def test_the_kept_rows_are_the_studys(lengths):
    grid, methods = lengths.read(FOLDER)
    wanted = {(p.task.name, p.optimizer, s, name) for p in lengths.pairs for s in p.task.horizons for name in METHODS}
    assert {(row.task, row.optimizer, row.steps, row.method) for row in methods} == wanted
    assert {(row.task, row.optimizer, row.steps) for row in grid} == {cell[:3] for cell in wanted}


@pytest.mark.parametrize("lengths", BY_LENGTH.values(), ids=lambda lengths: lengths.name)
def test_regret_is_to_the_best_rate_of_the_same_length(lengths):
    grid, methods = lengths.read(FOLDER)
    for steps in lengths.pairs[0].task.horizons:
        ours = next(row for row in methods if row.method == "find-peak" and row.steps == steps)
        same = [row for row in grid if (row.task, row.optimizer, row.steps) == (ours.task, ours.optimizer, steps)]
        best = min(row.eval_loss for row in same if math.isfinite(row.eval_loss))
        trained = min(row.train_loss for row in same if math.isfinite(row.train_loss))
        asked = of_lengths(lengths.name, (steps,), [ours.task])
        told = tables(asked, grid, [dataclasses.replace(ours, eval_loss=1.3 * best, train_loss=1.2 * trained)])
        for name, factor in ((lengths.name, 1.3), (f"{lengths.name}-training", 1.2)):
            line = next(text for text in told[name].splitlines() if text.startswith("| find-peak |"))
            assert float(line.split(" | ")[2]) == pytest.approx(math.log(factor), abs=5e-4)


def test_each_of_several_lengths_has_tables_of_its_own():
    told = tables(SHORT, *SHORT.read(FOLDER))
    assert list(told) == ["short-runs-100", "short-runs-100-training", "short-runs-200", "short-runs-200-training"]
    assert len(set(told.values())) == 4
