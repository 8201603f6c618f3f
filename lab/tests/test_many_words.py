"""Text of many words: what the tasks are, that the study goes on where it was broken off, and what its rows pay for."""

from __future__ import annotations

import math

import pytest
import torch

from autolr.numerics.cost import FORWARDS_PER_STEP
from autolr_lab.benchmark import own_grid, zoo_methods
from autolr_lab.benchmark.zoo_report import method_rows
from autolr_lab.runner.results import RESULTS
from autolr_lab.studies.many_words import __main__ as study
from autolr_lab.studies.many_words import text
from autolr_lab.studies.many_words.tasks import APART, SEEN
from autolr_lab.zoo.registry import BY_NAME, Pair
from autolr_lab.zoo.store import Store

TASKS = {task.name: task for task in (*SEEN, *APART)}
FOLDER = RESULTS / "zoo"


def of(name):
    """A task, where its text is at hand."""
    try:
        TASKS[name].data()
    except FileNotFoundError as error:
        pytest.skip(f"a public text is not here: {error.filename}")
    return TASKS[name]


def test_no_task_stands_on_both_sides_or_in_the_zoo():
    assert len(TASKS) == len(SEEN) + len(APART) == 16
    assert not TASKS.keys() & BY_NAME.keys()


@pytest.mark.parametrize("name", TASKS)
def test_a_network_begins_at_chance_and_its_words_have_zipf_s_frequencies(name):
    task = of(name)
    torch.manual_seed(0)
    model = task.build()
    batch = next(iter(task.minibatches(0)))
    words = max(p.shape[0] for p in model.parameters() if p.dim() == 2)
    assert task.loss(model, batch).item() == pytest.approx(math.log(words), rel=0.15)
    tokens = task.data().train[-1]
    counts = tokens[tokens > 3].bincount().sort(descending=True).values.double()
    assert counts[:10].sum() / counts.sum() > 0.08  # of thousands
    assert (counts[: counts.nonzero().numel()] > 0).sum() > 500


def test_gaps_hide_words_that_the_loss_asks_for():
    data = text.names_with_gaps()
    tokens, missing = data.train
    whole = torch.where(missing >= 0, missing, tokens)
    assert torch.equal(whole, text.names().train[0])
    hidden = missing >= 0
    assert (tokens[hidden] == 0).all()
    assert hidden.any(1).all()
    assert hidden.double().mean() == pytest.approx(1 / 6, rel=0.1)


def test_turned_sentences_are_a_dictionary_backwards():
    source, target = text.turned().train
    assert (target[:, 0] == 1).all()
    word = dict(zip(source.flip(1).flatten().tolist(), target[:, 1:].flatten().tolist(), strict=True))
    assert [word[w] for w in source[7].flip(0).tolist()] == target[7, 1:].tolist()
    assert len(set(word.values())) == len(word)


def test_a_pair_is_run_once_and_what_is_there_is_not_run_again(tmp_path, monkeypatch):
    monkeypatch.setattr("autolr_lab.zoo.lattice.REACH", 1)
    tiny, methods = study.of_steps("tiny", [TASKS["names-post"]], 12), tmp_path / "methods.jsonl"
    tiny.run(tiny.pairs[0], tmp_path)
    rows = method_rows(methods)
    assert [row.method for row in rows] == list(study.COMPARED)
    assert {row.steps for row in rows} == {row.steps for row in Store(tmp_path / "rows.jsonl").rows.values()} == {12}
    monkeypatch.setattr(own_grid, "run_method", lambda *_: pytest.fail("it was there"))
    tiny.run(tiny.pairs[0], tmp_path)
    assert method_rows(methods) == rows


@pytest.mark.slow
def test_what_a_comparison_costs_is_paid_out_of_the_steps_and_the_unaware_policy_makes_none(monkeypatch):
    pair, steps = Pair(TASKS["names-post"], "adamw"), 700
    taken = []
    trained = zoo_methods._trained

    def noted(job, stepper, steps):
        losses = trained(job, stepper, steps)
        taken.append(stepper.optimizer)
        return losses

    monkeypatch.setattr(zoo_methods, "_trained", noted)
    rows = [zoo_methods.run_method(name, pair, 0, steps, method) for name, method in list(study.COMPARED.items())[:2]]
    aware, unaware = taken
    triggers = [[record.trigger for record in optimizer.history] for optimizer in taken]
    assert "too high" in triggers[0]
    assert not {"too high", "stands"} & {*triggers[1]}
    assert aware.cost.search > unaware.cost.search + FORWARDS_PER_STEP * 8 * 10
    for row, optimizer in zip(rows, taken, strict=True):
        spent = FORWARDS_PER_STEP * optimizer.steps_taken + row.spent
        assert 0.97 * FORWARDS_PER_STEP * steps < spent <= FORWARDS_PER_STEP * steps
    assert rows[0].eval_loss < 0.6 * rows[1].eval_loss  # and without it the run is ruined


@pytest.mark.parametrize("of", study.BY_LENGTH.values(), ids=lambda of: of.name)
def test_the_kept_rows_are_the_studys(of):
    grid, methods = of.read(FOLDER)
    wanted = {(p.task.name, p.optimizer, s, name) for p in of.pairs for s in p.task.horizons for name in study.COMPARED}
    assert {(row.task, row.optimizer, row.steps, row.method) for row in methods} == wanted
    assert {(row.task, row.optimizer, row.steps) for row in grid} == {cell[:3] for cell in wanted}


def test_each_side_has_tables_of_its_own():
    told = study.of_folder(FOLDER)
    usual = [f"many-words-{side}{by}" for side in ("seen", "apart") for by in ("", "-training")]
    assert list(told) == usual
    assert len(set(told.values())) == len(told)
