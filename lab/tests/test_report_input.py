"""Run folders as the report draws them, converted here or read by the library."""

import dataclasses
import json
from pathlib import Path

import pytest

from autolr.report import read_trainings
from autolr.report.summary import table
from autolr.runtime.decision_log import DecisionRecord
from autolr_lab.training.report_input import training_of
from autolr_lab.training.runs import Run, Settings

RECORD = DecisionRecord(
    step=15, phase="explore", verdict="raise", trigger="fit asks", reason="the fit asks for more", lr_before=0.1,
    lr_after=0.2, loss=1.0, drop_rate=None, drop_rate_stderr=None, forwards=3, spent=6,
)  # fmt: skip
STEPS = [{"step": s, "epoch": 1 + s // 20, "lr": 0.1, "loss": 9.0 / s} for s in (10, 20, 30, 40)]
EPOCHS = [{"epoch": e, "step": 20 * e, "lr": 0.1, "train_loss": 1.0, "test_accuracy": 0.5 + 0.1 * e} for e in (1, 2)]


@pytest.fixture
def run():
    result = {"steps": 40, "test_accuracy": 0.7, "train_loss": None, "notice": "small data", "cost": {"probes": 5}}
    return Run(Path("runs/a"), Settings("digits", "sgd", "autolr", 0.1, 2, 32, 7), {}, STEPS, EPOCHS, [RECORD], result)


def test_a_run_is_a_training_with_its_curves(run):
    training = training_of(run)
    assert training.name == "digits sgd autolr, seed 7"
    assert training.records == [RECORD]
    assert training.curve("loss") == [(s, 9.0 / s) for s in (10, 20, 30, 40)]
    assert training.curve("test_accuracy") == [(20, 0.6), (40, 0.7)]
    assert training.metrics == ["test_accuracy"]
    assert training.total_steps == 40
    assert training.result == {"steps": 40, "test_accuracy": 0.7, "train_loss": None}


def test_runs_can_be_named_alike_to_share_a_colour(run):
    assert training_of(run, "AutoLR").name == "AutoLR"


def test_a_run_that_was_cut_off_is_so_many_of_the_planned_steps(run):
    cut_off = training_of(dataclasses.replace(run, result=None, steps=STEPS[:3], epochs=EPOCHS[:1]))
    headings, (row,) = table([cut_off])
    assert dict(zip(headings, row, strict=True))["steps"] == "30 of 40"
    started = training_of(dataclasses.replace(run, result=None, steps=STEPS[:1], epochs=[]))
    assert started.total_steps is None


def test_the_library_reads_a_run_folder_by_itself(run, tmp_path):
    rows = {"steps": STEPS, "epochs": EPOCHS, "decisions": [dataclasses.asdict(RECORD)]}
    for name, lines in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "run.json").write_text("{}")
    (training,) = read_trainings([tmp_path])
    assert training.records == training_of(run).records
    assert training.rates() == training_of(run).rates()
    for key in ("loss", "train_loss", "test_accuracy"):
        assert training.curve(key) == training_of(run).curve(key)
