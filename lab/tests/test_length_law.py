"""The law of the best rate in the length of a run: bottoms and exponents that are known, and what is left out."""

from __future__ import annotations

import csv
import gzip

import numpy as np
import pytest

from autolr_lab.studies import length_law
from autolr_lab.studies.length_law import DENSE, bottom, exponent, measure, tables
from autolr_lab.workloads.workload import MissingDataError


def bowl(place, octaves=range(-4, 5)):
    """Losses of rates 2**k whose logarithms have their bottom at ``place``."""
    return {2.0**k: 1 + (k - place) ** 2 for k in octaves}


@pytest.mark.parametrize("place", [-2.0, 0.3, 1.45])
def test_a_parabola_has_its_own_bottom(place):
    assert bottom(bowl(place)) == pytest.approx(place)


def test_a_bottom_at_the_edge_or_of_few_rates_is_none():
    assert bottom(bowl(4.2)) is None
    assert bottom(bowl(-7.0)) is None
    assert bottom(bowl(0.0, range(-1, 2))) is None
    assert bottom(bowl(0.0) | {2.0**k: np.inf for k in range(1, 5)}) is None  # what is above the best one diverged


def test_the_exponent_of_a_power_law_is_its_own():
    assert exponent({steps: -3 - 0.4 * np.log2(steps) for steps in (100, 300, 5_000)}) == pytest.approx(-0.4)


def write(folder, name, lines):
    with gzip.open(folder / f"{name}.gz", "wt", newline="") as file:
        table = csv.DictWriter(file, list(lines[0]))
        table.writeheader()
        table.writerows(lines)


@pytest.fixture
def sweeps(tmp_path, monkeypatch):
    """Step Law's rates fall with the root of the length at one batch, and are at the grid's edge at the other."""
    monkeypatch.setattr(length_law, "_zoo", lambda: iter(()))
    folder = tmp_path / "sweeps"
    folder.mkdir()
    deepobs = [
        {"problem": "p", "optimizer": "Adam", "seed": seed, "epoch": epoch, "lr": lr, "train_loss": loss}
        for epoch, place in ((0, 0), (1, 2), (4, 1)) for seed in (42, 43)
        for lr, loss in bowl(place if seed == 42 else -1).items()
    ]  # fmt: skip
    write(folder, "deepobs-baselines.csv", deepobs)
    llama = [
        {
            "dataset": text, "model": "m", "parameters": 1, "schedule": schedule, "decay_fraction": share,
            "decay_type": "linear", "batch_size": 50, "seed": 0, "steps": steps, "lr": lr,
            "final_val_loss": loss + more,
        }
        for text, place, schedule, share in (
            ("a", 1.0, "wsd", 0.2), ("b", -1.0, "wsd", 0.2), ("a", 3, "cos", 0.2), ("c", 3, "wsd", 0)
        )
        for steps in (100, 400) for more in (-0.5, 0.5)  # run twice
        for lr, loss in bowl(place - (steps == 400)).items()
    ]  # fmt: skip
    write(folder, "llama-cooldown-lr.csv", llama)
    law = [
        {"N": 2e8, "bs": batch, "D": 2048 * batch * steps, "lr": lr, "smooth loss": loss}
        for batch in (64, 1024) for steps in (1_000, 4_000, 64_000)
        for lr, loss in bowl(5 - np.log2(steps) / 2 if batch == 64 else 9.0, range(-9, 6)).items()
    ]  # fmt: skip
    for name in ("step-law-dense.csv", "step-law-moe.csv"):
        write(folder, name, law)
    return tmp_path


def test_each_problem_has_its_exponent_and_edges_are_left_out(sweeps):
    rows = list(measure(sweeps))
    texts = [row for row in rows if not row["neighbours"] and "Llama" in row["source"]]
    assert [row["exponent"] for row in texts] == pytest.approx([-0.5, -0.5])  # two texts; what ends above zero is not
    others = [row for row in rows if not row["neighbours"] and "Llama" not in row["source"]]
    whole = {row["source"]: row for row in others}
    assert len(whole) == len(others) == 3  # no batch of 1024
    law = whole[DENSE]
    assert law["exponent"] == pytest.approx(-0.5)
    assert (law["shortest"], law["longest"]) == (1_000, 64_000)
    assert law["move"] == pytest.approx(-3)
    constant = whole["DeepOBS, Adam, constant rates [epochs]"]  # of the first seed, from the first epoch on
    assert constant["exponent"] == pytest.approx(-0.5)
    assert constant["move"] == pytest.approx(-1)
    near = [(row["shortest"], row["longest"]) for row in rows if row["neighbours"] and row["source"] == DENSE]
    assert near == [(1_000, 4_000), (4_000, 64_000)]


def test_the_tables_count_problems_and_tell_short_runs_from_long_ones(sweeps):
    told = tables(list(measure(sweeps)))
    assert f"| {DENSE} | 1 | 1,000 to 64,000 | 64 | -0.50 | -0.50 to -0.50 | -3.00 | 0.00 |" in told["length"]
    assert [line.split(" | ")[0] for line in told["steps"].splitlines()[2:]] == [
        "| 0 to 8,000 steps",
        "| 8,000 to 25,000 steps",
    ]


def test_sweeps_that_are_not_there_are_asked_for(tmp_path):
    with pytest.raises(MissingDataError, match="step-law-dense"):
        list(measure(tmp_path))
