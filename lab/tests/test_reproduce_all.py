"""Every table and figure of the paper, end to end in its small setting, on small data that is made here."""

import math

import numpy as np
import pytest

from autolr_lab.benchmark.methods import METHODS, run_of
from autolr_lab.benchmark.tasks import BUDGETS
from autolr_lab.paper.figures import Superbatch
from autolr_lab.paper.paper import EXPERIMENTS
from autolr_lab.paper.tables import ResultTable
from autolr_lab.runner.experiment import RunSpec
from autolr_lab.runner.jobs import run_job
from autolr_lab.runner.reproduce import plan, reproduce
from autolr_lab.runner.results import Results
from autolr_lab.runner.store import Store
from small_data import write_all
from test_squad_minilm import carry_encoder

EPOCHS = 1 / 200  # rounds up to one epoch of every workload


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The files of every workload, and a tiny encoder."""
    root = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        carry_encoder(root, patch)
        yield write_all(root)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("runs"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:overhead=0.02 of a run")  # a run of five steps pays for no probe
@pytest.mark.filterwarnings("ignore:AutoLR, step 0")  # nor for a short run of a search
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_runs_and_shows_what_it_ran(name, data, store, tmp_path):
    seeds = 3 if name == "hypothesis" else 2 if name.startswith("differences") else 1
    spec, experiment = RunSpec(EPOCHS, seeds=seeds, small=True, data_dir=data), EXPERIMENTS[name]
    while missing := plan([experiment], spec, store).missing:  # what a run tells may ask for another
        for settings in missing:
            run_job(settings, store.folder(settings), threads=None)
    results = Results(tmp_path / "results")
    shown = reproduce([experiment], spec, store, tmp_path, run=False, record=results)[name]
    for words in ("Not run", "not run yet", "No run of it"):
        assert words not in shown.markdown
    assert (tmp_path / name / "table.md").read_text().startswith(f"# {experiment.title}")
    assert len(results.records) == 1
    if isinstance(experiment, ResultTable):
        lines = [line for line in shown.markdown.splitlines() if line.startswith("| ")][2:]
        assert len(lines) == len(experiment.wanted(spec)) >= len(experiment.optimizers)
        means = {line["metric"]: line["mean"] for line in shown.csv}
        columns = [c.title for c in experiment.columns if c.key != "test_bleu_tokenised"]  # multi30k's is detokenised
        assert all(np.isfinite(means[title]) for title in columns)
    if name.startswith("figure"):
        drawn = list((tmp_path / name).glob("*.png"))
        assert drawn  # figure 6 needs one of its three: two are too short for a probe here
        assert all(png.read_bytes()[:4] == b"\x89PNG" for png in drawn)
    if isinstance(experiment, Superbatch):
        assert {line["workload"] for line in shown.csv} == {"cifar10-small", "mnist"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:AutoLR, step 0")  # nor for a short run of a search
@pytest.mark.parametrize("task", BUDGETS["small"], ids=lambda task: task.name)
def test_a_task_can_be_run_by_us_and_by_a_baseline_and_its_metrics_are_there(task, data, store):
    spec = RunSpec(EPOCHS, data_dir=data)
    for method in METHODS:
        if method.label in {"PeakSearch", "Schedule-free"}:
            settings = run_of(method, task, spec, seed=0)
            run_job(settings, store.folder(settings), threads=None)
            row = store.find(settings)
            assert not math.isnan(task.metric.of(row["result"]))
            assert all(not math.isnan(task.progress.of(seen)) for seen in row["epochs"])
