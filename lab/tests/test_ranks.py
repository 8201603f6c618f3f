"""Runs that several processes train together, started by torchrun as on a cluster: real ranks, on this machine."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset
from typer.testing import CliRunner

from autolr_lab.cli.main import app
from autolr_lab.paper.paper import EXPERIMENTS
from autolr_lab.runner.experiment import RunSpec
from autolr_lab.runner.reproduce import reproduce
from autolr_lab.runner.store import Store
from autolr_lab.training.loading import part_of
from autolr_lab.training.prepared import Data, PreparedRun
from autolr_lab.training.ranks import Ranks
from autolr_lab.training.runs import Settings, find_runs, read_run
from autolr_lab.training.training import train
from autolr_lab.workloads import WORKLOADS
from autolr_lab.workloads.workload import loader
from helpers import comparable
from small_data import write_all

HERE = Path(__file__).parent
SLOW = pytest.mark.slow
LR = {"adam": 1e-3, "sgd": 0.05}
SMALL = ("digits", "mnist", "cifar10-small", "tiny-imagenet-10", "shakespeare", "squad-small", "multi30k")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("data"))


def torchrun(ranks, *arguments):
    """As on a cluster, of one machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    paths = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [*command, *arguments], env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}, check=False,
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip


def ranked(folder, settings, out, *, kill=0):
    """Settings trained by their number of processes, up to a step."""
    told = folder / "told.json"
    told.write_text(json.dumps({"settings": dataclasses.asdict(settings), "out": str(out), "kill": kill}))
    done = torchrun(settings.ranks, str(HERE / "ranked_run.py"), str(told))
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


# A process's part of a loader.


@given(
    n=st.integers(1, 60), size=st.integers(1, 7), ranks=st.integers(1, 4), taken=st.integers(0, 3), own=st.booleans()
)
def test_the_parts_are_the_whole_in_its_order_without_a_rest_that_cannot_be_shared(n, size, ranks, taken, own):
    data = TensorDataset(torch.arange(n))

    def whole():
        order = torch.Generator().manual_seed(3)
        return loader(data, size, order) if own else DataLoader(data, size, shuffle=True, generator=order)

    def seen(one):
        return [tuple(batch[0].tolist()) for batch in one]

    every = seen(whole())
    groups = len(every) // ranks
    parts = [part_of(whole(), rank=rank, ranks=ranks) for rank in range(ranks)]
    assert [len(part) for part in parts] == [groups] * ranks
    for rank, part in enumerate(parts):
        assert seen(part) == every[rank : groups * ranks : ranks]
        if taken <= groups:
            assert (
                seen(part_of(part_of(whole(), rank=rank, ranks=ranks), taken=taken))
                == every[rank + taken * ranks : groups * ranks : ranks]
            )


@pytest.mark.parametrize("n", [24, 25])
def test_each_part_leaves_the_order_where_the_whole_does(n):
    def after(**which):
        order = torch.Generator().manual_seed(3)
        whole = loader(TensorDataset(torch.arange(n)), 4, order)
        list(part_of(part_of(whole, **which), taken=1) if which else whole)
        return order.get_state()

    for rank in (0, 1):
        assert torch.equal(after(rank=rank, ranks=2), after())


class Counted(torch.utils.data.Dataset):
    """Counts what is read."""

    def __init__(self):
        self.read = []

    def __len__(self):
        return 40

    def __getitem__(self, index):
        self.read.append(index)
        return torch.tensor(index)


def test_what_is_passed_over_is_drawn_and_not_read():
    def epoch(taken):
        data = Counted()
        whole = DataLoader(data, 4, shuffle=True, generator=torch.Generator().manual_seed(7))
        return [tuple(batch.tolist()) for batch in part_of(whole, taken=taken)], data.read

    every, _ = epoch(0)
    rest, read = epoch(6)
    assert rest == every[6:]
    assert sorted(read) == sorted(place for batch in rest for place in batch)


def test_any_number_of_workers_loads_the_same(data, tmp_path):
    one = Settings("tiny-imagenet-10", "momentum", "cosine", 0.01, 1, 32, 0, data_dir=str(data), workers=1)
    two = dataclasses.replace(one, workers=2)  # each image has its own random numbers there
    results = [train(settings, tmp_path / str(settings.workers)) for settings in (one, two)]
    assert results[0]["train_loss"] == results[1]["train_loss"]
    assert read_run(tmp_path / "2").settings.workers == 2


# Several processes.


@pytest.mark.slow
def test_a_table_is_made_of_runs_that_several_processes_train(data, tmp_path):
    spec = RunSpec(1 / 200, seeds=1, data_dir=data, methods=("baseline",), optimizers=("sgd",), ranks=2)
    made = reproduce([EXPERIMENTS["table8"]], spec, Store(tmp_path / "runs"), tmp_path)["table8"]
    assert "| sgd | baseline | 1 |" in made.markdown
    (run,) = find_runs(tmp_path / "runs")
    assert read_run(run).settings.ranks == 2


@pytest.mark.distributed
@pytest.mark.filterwarnings("ignore:AutoLR, step 0")  # noise has no best rate
@pytest.mark.parametrize(
    ("schedule", "optimizer"),
    [("cosine", "sgd"), pytest.param("literal", "sgd", marks=SLOW), pytest.param("find-peak", "adam", marks=SLOW)],
)
def test_two_processes_train_the_run_that_one_does(data, tmp_path, schedule, optimizer):
    # Without dropout and BatchNorm only the order of sums differs; a probe's minibatches are each process's own.
    policy = {"window": 2, "superbatch": 10} if schedule == "literal" else {}
    epochs = 10 if schedule == "find-peak" else 1
    one = Settings("mnist", optimizer, schedule, LR[optimizer], epochs, 64, 0, data_dir=str(data), policy=policy)
    alone = train(one, tmp_path / "one")
    ranked(tmp_path, dataclasses.replace(one, ranks=2), tmp_path / "two")
    run, before = read_run(tmp_path / "two"), read_run(tmp_path / "one")
    assert run.result["steps"] == alone["steps"] == 10 * epochs
    assert run.result["first_loss"] == pytest.approx(alone["first_loss"], rel=1e-5)
    if schedule == "cosine":
        assert run.result["train_loss"] == pytest.approx(alone["train_loss"], rel=1e-4)
        assert run.epochs[0]["test_loss"] == pytest.approx(before.epochs[0]["test_loss"], rel=1e-3)
    else:
        assert len(run.decisions) == len(before.decisions) > 0


@pytest.mark.distributed
@pytest.mark.parametrize("schedule", ["explore-exploit", pytest.param("plateau", marks=SLOW)])
def test_two_processes_that_were_killed_go_on_to_the_bit(tmp_path, schedule):
    policy = {"spread": 2, "window": 5} if schedule == "explore-exploit" else {}
    settings = Settings("digits", "adam", schedule, 1e-3, 2, 32, 3, policy=policy, ranks=2)
    assert "killed" not in ranked(tmp_path, settings, tmp_path / "whole")
    assert "killed" in ranked(tmp_path, settings, tmp_path / "parts", kill=62)  # in the second of two epochs
    ranked(tmp_path, settings, tmp_path / "parts")
    assert comparable(tmp_path / "parts") == comparable(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("workload", SMALL)
def test_every_workload_trains_under_torchrun_by_the_command_line(data, tmp_path, workload):
    batch = [] if WORKLOADS[workload].batch_size % 2 == 0 else ["--batch-size", "32"]
    done = torchrun(
        2, "-m", "autolr_lab.cli.main", "train", workload, "--epochs", "1", "--schedule", "adaptive", "--device", "cpu",
        "--data-dir", str(data), "--out", str(tmp_path / "run"), "--threads", "1", *batch,
    )  # fmt: skip
    assert (tmp_path / "run" / "result.json").exists(), done.stderr[-3000:]
    assert done.stdout.count("Run folder:") == 1, "one process tells"
    run = read_run(tmp_path / "run")
    assert run.settings.ranks == 2
    assert run.result["steps"] > 0


@pytest.mark.distributed
def test_a_run_that_processes_cannot_train_is_refused_and_none_of_them_waits(tmp_path):
    def told(*arguments):
        command = ("-m", "autolr_lab.cli.main", "train", "digits", "--epochs", "1", "--device", "cpu")
        done = torchrun(2, *command, *arguments)
        assert done.returncode != 0
        return done.stdout + done.stderr

    out = ("--out", str(tmp_path / "run"))
    assert "A minibatch of 33 cannot be shared evenly by 2 processes" in told("--batch-size", "33", *out)
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "run" / "run.json").write_text("{}")
    assert "holds a run already" in told(*out)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, "is trained by 1 processes; 2 are here"),
        ({"ranks": 2, "schedule": "l4"}, "l4 trains in one process; got 2"),
        ({"ranks": 2, "measure": "width"}, "is measured in one process; got 2"),
        ({"ranks": 2, "batch_size": 33}, "cannot be shared evenly by 2 processes"),
    ],
)
def test_what_several_processes_cannot_train_is_told(tmp_path, change, why):
    settings = dataclasses.replace(Settings("digits", "sgd", "cosine", 0.1, 1, 32, 0), **change)
    with pytest.raises(ValueError, match=why):
        PreparedRun(settings, Data.load(settings), tmp_path / "log.jsonl", Ranks(0, 2))


def test_processes_that_share_a_run_name_its_folder(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    told = CliRunner().invoke(app, ["train", "digits"])
    assert told.exit_code == 2
    assert "name it, by --out FOLDER" in " ".join(told.output.replace("│", " ").split())
