"""Every table and figure of the paper, end to end in its small setting, on small data that is made here."""

import math

import numpy as np
import pytest

from autolr_lab.benchmark.contest import BUDGETS, ENTRIES
from autolr_lab.runner.engine import run_job
from autolr_lab.runner.experiment import Ask
from autolr_lab.paper.figures import Superbatch
from autolr_lab.paper.paper import EXPERIMENTS
from autolr_lab.paper.reproduce import plan, reproduce
from autolr_lab.runner.store import Store
from autolr_lab.paper.tables import ResultTable
from test_cifar10 import ALL_BATCHES, write_batch
from test_idx import FILES, idx_bytes
from test_imagenet import write_tree
from test_shakespeare import write_text
from test_squad import write_small
from test_translation import MULTI30K, write_numbers

EPOCHS = 1 / 200  # rounds up to one epoch of every workload


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The files of every workload, in their published forms."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for folder in ("mnist", "fashion-mnist"):
        (root / folder).mkdir()
        for name in FILES:
            n = 640 if name.startswith("train") else 100
            shape = (n, 28, 28) if "images" in name else (n,)
            high = 256 if "images" in name else 10
            (root / folder / name).write_bytes(idx_bytes(rng.integers(high, size=shape, dtype=np.uint8)))
    (root / "cifar-10-batches-py").mkdir()
    for name in ALL_BATCHES:
        images = rng.integers(256, size=(256, 3072), dtype=np.uint8)
        write_batch(root / "cifar-10-batches-py" / name, images, [i % 10 for i in range(256)])
    write_tree(root / "tiny-imagenet-10", train=44, kinds=["n01", "n02", "n03", "n04", "n05", "n06"])
    write_text(root / "tinyshakespeare")
    write_small(root)
    write_numbers(root / "multi30k" / "raw", MULTI30K.corpus, n=400)
    return root


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("runs"), None)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:overhead=0.02 of a run")  # a run of five steps pays for no look
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_runs_and_shows_what_it_ran(name, data, kept, tmp_path):
    ask = Ask(EPOCHS, seeds=3 if name == "hypothesis" else 2 if name == "differences" else 1, small=True, data_dir=data)
    experiment = EXPERIMENTS[name]
    for settings in plan([experiment], ask, kept).missing:
        run_job(settings, kept.folder(settings), threads=None)
    shown = reproduce([experiment], ask, kept, tmp_path, run=False, record=tmp_path / "records")[name]
    for words in ("Not run", "not run yet", "No run of it"):
        assert words not in shown.markdown
    assert (tmp_path / name / "table.md").read_text().startswith(f"# {experiment.title}")
    assert len(list((tmp_path / "records").iterdir())) == 1
    if isinstance(experiment, ResultTable):
        lines = [line for line in shown.markdown.splitlines() if line.startswith("| ")][2:]
        assert len(lines) == len(experiment.optimizers) * len(experiment.methods)
        means = {line["metric"]: line["mean"] for line in shown.csv}
        columns = [c.title for c in experiment.columns if c.key != "test_bleu_tokenised"]  # multi30k's is detokenised
        assert all(np.isfinite(means[title]) for title in columns)
    if name.startswith("figure"):
        assert shown.pictures  # figure 6 needs one of its three: two are too short for a look here
        assert all(png[:4] == b"\x89PNG" for png in shown.pictures.values())
    if isinstance(experiment, Superbatch):
        assert {line["workload"] for line in shown.csv} == {"cifar10-small", "mnist"}


@pytest.mark.slow
@pytest.mark.parametrize("contest", BUDGETS["small"], ids=lambda c: c.name)
def test_a_contest_can_be_run_by_us_and_by_a_peer_and_its_metrics_are_there(contest, data, kept):
    ask = Ask(EPOCHS, data_dir=data)
    for entry in ENTRIES:
        if entry.label in {"Auto", "Schedule-free"}:
            settings = entry.settings(contest, ask, seed=0)
            run_job(settings, kept.folder(settings), threads=None)
            row = kept.find(settings)
            assert not math.isnan(contest.metric.of(row["result"]))
            assert all(not math.isnan(contest.progress.of(seen)) for seen in row["epochs"])
