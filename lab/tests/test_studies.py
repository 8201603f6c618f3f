"""Studies run end to end on little data, and kept rows still come to the tables of then."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from autolr_lab.runner.results import Results
from autolr_lab.studies import coverage, fit_quality, ground, rollback_rules
from autolr_lab.studies.all_studies import STUDIES
from autolr_lab.studies.records import render_record
from autolr_lab.studies.study import Study, as_measured, carry_out
from autolr_lab.workloads.mnist import FILES
from test_mnist import idx_bytes

KEPT = Results()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Fashion-MNIST in small: images whose brightness tells their class."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    (root / "fashion-mnist").mkdir()
    for name in FILES:
        n = 640 if name.startswith("train") else 100
        labels = np.arange(n) % 10
        images = (25 * labels[:, None, None] + rng.integers(20, size=(n, 28, 28))).astype(np.uint8)
        (root / "fashion-mnist" / name).write_bytes(idx_bytes(images if "images" in name else labels.astype(np.uint8)))
    return root


@pytest.mark.parametrize("name", STUDIES)
def test_kept_rows_come_to_the_table_that_was_written_with_them(name):
    # Of the rollback rules this holds the policy as it is today against what was measured then.
    records = [one for one in KEPT.records.values() if one.experiment == name]
    assert records
    for record in records:
        now = [line for line in render_record(KEPT, record.name).markdown.splitlines() if line.startswith("|")]
        then = [line for line in KEPT.table(record.name).splitlines() if line.startswith("|")]
        heads = {i for i, line in enumerate(then) if set(line) <= set("|- ")}
        heads |= {i - 1 for i in heads}  # words of headings may change
        assert len(now) == len(then)
        assert [now[i] for i in range(len(now)) if i not in heads] == [
            then[i] for i in range(len(then)) if i not in heads
        ]


def test_a_record_whose_code_is_gone_shows_the_table_that_was_written():
    name = "2026-11-23_digits-60-epochs_5bb6dd7987c4"
    assert render_record(KEPT, name).markdown == KEPT.table(name)
    assert "| sgd | autolr | 3 |" in KEPT.table(name)


def test_a_study_is_recorded_with_what_it_measured(tmp_path):
    study = Study(
        "tiny", "A title", lambda _: [{"x": 1.0}, {"x": math.nan}], lambda rows: {"table": f"{len(rows)}\n"}, {"n": 2}
    )
    results, told = Results(tmp_path), []
    assert carry_out(study, None, results, told.append) == {"table": "2\n"}
    (record,) = Results(tmp_path).records.values()
    assert (record.experiment, record.claim, record.spec, record.measurements) == ("tiny", "A title", {"n": 2}, 2)
    assert math.isnan(Results(tmp_path).rows(record.name)[1]["x"])
    assert len(told) == 3


def test_a_null_of_a_former_record_is_no_number():
    assert math.isnan(as_measured([{"x": None, "y": 1}])[0]["x"])


def test_most_intervals_hold_the_truth(monkeypatch):
    monkeypatch.setattr(coverage, "SETTLE", 500)
    (row,) = [coverage.measure_one(0.0, 0.5, 8, 60)]
    assert row["looks"] == 60
    assert row["held"] > 0.75
    assert -0.7 < row["median"] < -0.3
    assert "| 0 | 0.5 | 8 | 60 |" in coverage.tables([row])["table"]


def test_fits_are_judged_by_samples_that_they_have_not_seen(data, monkeypatch):
    monkeypatch.setattr(fit_quality, "OPTIMIZERS", ("sgd",))
    monkeypatch.setattr(fit_quality, "POINTS", (2,))
    monkeypatch.setattr(fit_quality, "STEPS", 3)
    monkeypatch.setattr(fit_quality, "DEEP_STEPS", 1)
    monkeypatch.setattr(fit_quality, "DEEP", 2)
    monkeypatch.setattr(fit_quality, "SHARE", 2)
    rows = list(fit_quality.measure(data))
    assert len(rows) == 3
    parts = fit_quality.tables(rows)
    assert parts["ranges"].count("| sgd |") == 8
    assert "| sgd | 2 | 3 of 3 |" in parts["steps"]


def test_windows_branch_from_a_held_rate_and_the_rules_judge_them(data, monkeypatch):
    monkeypatch.setattr(rollback_rules, "WINDOW", 3)
    monkeypatch.setattr(rollback_rules, "SUPERBATCH", 2)
    monkeypatch.setattr(rollback_rules, "WINDOWS", 3)
    monkeypatch.setattr(rollback_rules, "BRANCHES", (2,))
    rows = list(rollback_rules.measure_one("momentum", data))
    assert len(rows) == 3 + len(rollback_rules.FACTORS)
    held = [row for row in rows if row["branch"] and row["factor"] == 1]
    plain = [row for row in rows if not row["branch"] and row["window"] == 2]
    # Another superbatch, and the same minibatches do not come again: near, not equal.
    assert [row["end"] for row in held] == pytest.approx([row["end"] for row in plain], rel=0.5)
    assert rollback_rules.tables(rows)["table"].count("\n") == 2 + len(rollback_rules.RULES)


def test_a_window_that_diverged_is_worse_by_every_rule():
    before = {"rate": 1.0, "stderr": 0.1, "start": 2.0, "end": 1.0}
    lost = {"rate": math.nan, "stderr": math.nan, "start": 1.0, "end": math.nan, "before": [before]}
    assert all(rollback_rules.fired(lost).values())


def test_a_ground_is_the_same_for_the_same_seed_and_another_for_another(data):
    def weights(seed):
        run = ground.ground("fashion-mnist", "sgd", data, seed=seed)
        run.train(2)
        return torch.cat([p.detach().flatten() for p in run.model.parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))
