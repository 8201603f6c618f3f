"""The run book: operations by hand, runs by the paper's numbers, hours by division."""

import math
import re
import shlex

import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from autolr_lab.cli.main import app
from autolr_lab.paper.paper import EXPERIMENTS
from autolr_lab.paper.tables import ResultTable
from autolr_lab.studies import run_book
from autolr_lab.studies.docs_tables import ROOT
from autolr_lab.studies.run_book import FULL, _step, images_a_second, tables, work
from autolr_lab.workloads import WORKLOADS

# Two convolutions of 5 x 5 on 28 x 28, each with a pooling by two behind it, and two layers: multiplications an image.
MNIST = 20 * 24**2 * 25 + 50 * 8**2 * 20 * 25 + 800 * 500 + 500 * 10


def test_the_operations_of_a_step_are_those_of_its_layers_thrice():
    flops, seconds = _step("mnist", FULL["mnist"], 8, torch.device("cpu"), "float32")
    assert flops == 3 * 8 * 2 * MNIST
    assert seconds > 0


@pytest.mark.parametrize(("name", "low", "high"), [("cifar10", 1.1e9, 1.15e9), ("imagenet", 8.1e9, 8.3e9)])
def test_a_residual_networks_operations_are_the_published_ones(name, low, high):
    # ResNet-18 for CIFAR-10: 0.56e9 multiplications an image; ResNet-50: 4.1e9 (He et al. 2016 count 3.8e9, without
    # the projections).
    flops, _ = _step(name, FULL[name], 1, torch.device("cpu"), "float32")
    assert low < flops / 3 < high


def test_every_full_workload_of_the_papers_tables_is_there_and_its_minibatch_is_its_own():
    of_results = [one for one in EXPERIMENTS.values() if re.fullmatch(r"table\d", one.name) and one.name > "table2"]
    tables = {one.workload: one.name for one in of_results if isinstance(one, ResultTable)}
    assert {name: full.table.name for name, full in FULL.items()} == tables
    for name, full in FULL.items():
        if name != "iwslt14":  # counted in tokens
            assert full.examples == WORKLOADS[name].batch_size


def test_an_epoch_has_the_steps_of_the_published_training_set():
    sizes = {"mnist": 60_000, "fashion-mnist": 60_000, "cifar10": 50_000, "imagenet": 1_281_167, "squad": 88_600}
    assert {name: math.ceil(n / FULL[name].examples) for name, n in sizes.items()} == {
        name: FULL[name].steps for name in sizes
    }
    assert FULL["iwslt14"].steps * FULL["iwslt14"].examples == pytest.approx(160_000, rel=0.01)


def test_a_berts_operations_are_those_of_its_matrices_and_its_attention():
    # Two a multiplication: 12 layers of 4 projections and 2 of four times the width, tokens to tokens twice, the head.
    t, d = run_book.LONGEST_OF_16, 768
    by_hand = 2 * (12 * (12 * t * d * d + 2 * t * t * d) + t * d * 2)
    flops, _ = _step("squad", FULL["squad"], 1, torch.device("cpu"), "float32")
    assert flops / 3 == pytest.approx(by_hand, rel=1e-3)


def test_the_page_runs_what_its_hours_are_of(tmp_path):
    page = (ROOT / "docs" / "run-book.md").read_text(encoding="utf8").replace("\\\n", " ")
    (line,) = (one for one in page.splitlines() if one.startswith("autolr-lab reproduce table3 table4 table6"))
    asked = shlex.split(line.split(" --data-dir")[0])[1:]
    done = CliRunner().invoke(app, [*asked, "--plan", "--runs", str(tmp_path), "--results", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert f"{sum(work(full).runs for full in FULL.values())} runs in all" in done.output


def test_the_work_is_the_papers_seeds_times_methods_times_optimizers():
    cifar = work(FULL["cifar10"])
    assert (cifar.runs, cifar.steps) == (7 * 3 * 4, 200 * 391)
    assert cifar.weighted == pytest.approx(7 * 3 * (1 + 1.30 + 1.20 + 1.10))
    squad = work(FULL["squad"])  # AutoLR trains for two of the baseline's three epochs
    assert squad.weighted == pytest.approx(3 * (1 + (1.30 + 1.20) * 2 / 3 + 1.10))


def test_hours_follow_from_operations_and_no_step_is_shorter_than_a_gpu_can():
    rows = [
        {"workload": "mnist", "flops": 1e9, "seconds": 0.05, "examples": 64, "device": "x", "precision": "float32"},
        {"workload": "imagenet", "flops": 6e12, "seconds": 60.0, "examples": 4, "device": "x", "precision": "float32"},
        {"workload": "imagenet", "images_a_second": 100.0},
    ]
    told = tables(rows)
    mnist, imagenet = [line.split(" | ") for line in told["table"].splitlines()[2:]]
    weighted = 7 * 3 * (1 + 1.30 + 1.20 + 1.10)
    assert float(mnist[7]) == pytest.approx(weighted * 46_900 * 0.003 / 3600 / 8, rel=0.01)
    assert mnist[7] == mnist[8]
    assert float(imagenet[7]) == pytest.approx(3 * float(imagenet[8]), rel=0.01)
    assert "2,560" in told["notes"]  # 256 images in a tenth of a second
    assert "26 cores" in told["notes"]


def test_images_are_read_and_made_into_views(tmp_path):
    assert images_a_second(tmp_path) is None
    Image.new("RGB", (300, 280)).save(tmp_path / "n01_a.JPEG")
    assert images_a_second(tmp_path) > 1


def test_the_command_tells_this_machines_hours(tmp_path, monkeypatch):
    monkeypatch.setattr(run_book, "FULL", {"mnist": FULL["mnist"]})
    command = typer.Typer()
    command.command()(run_book.main)
    done = CliRunner().invoke(command, ["--device", "cpu", "--precision", "bfloat16", "--data-dir", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "one CPU core, bfloat16" in done.output
    assert CliRunner().invoke(command, ["--precision", "bf16"]).exit_code == 2
    assert "table8" in done.output
