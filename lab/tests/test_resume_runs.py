"""A run that was killed goes on from its last checkpoint and comes to what it would have come to, bit for bit."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from autolr import training
from autolr.policies import ExploreExploit
from autolr_lab.training.runs import RunError, RunFolder, Settings, read_run
from autolr_lab.training.training import train

STEPS = 2 * 45  # two epochs of the digits
FIXED = Settings("digits", "momentum", "knee", 0.05, 2, 32, 3, schedule_options={"warmup": 10})
TUNED = Settings("digits", "adam", "autolr", 1e-3, 2, 32, 3, policy=dataclasses.asdict(ExploreExploit(spread=4)), window=10)
SURE = dataclasses.asdict(ExploreExploit.adaptive())
RUNS = {
    "knee": FIXED,
    "plateau": dataclasses.replace(FIXED, schedule="plateau", schedule_options={"patience": 0, "factor": 0.5}),
    "autolr": TUNED,
    "auto": dataclasses.replace(FIXED, schedule="auto", schedule_options={}),
    "autolr, sure and lent": dataclasses.replace(TUNED, policy=SURE, overhead=0.5, lend=True),
}


class Killed(BaseException):
    """Nobody catches it."""


def killed_after(step):
    def report(point):
        if point.step == step:
            raise Killed

    return report


def comparable(path):
    """Everything that a run leaves but for its clocks."""
    run = read_run(path)
    seconds = {k: v for k, v in run.result.items() if "seconds" not in k and k != "cost"}
    return run.steps, run.epochs, run.decisions, seconds


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Each run, uninterrupted, made once."""
    made = {}

    def of(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("whole") / "run"
            train(RUNS[name], made[name])
        return made[name]

    return of


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("kills", [(45,), (13, 46, 89)], ids=str)
def test_a_killed_run_that_goes_on_is_the_uninterrupted_one(whole, tmp_path, name, kills):
    out = tmp_path / "run"
    for number, step in enumerate(kills):
        with pytest.raises(Killed):
            train(RUNS[name], out, killed_after(step), resume=number > 0, every=0)
    torch.manual_seed(12345)  # another process has other generators
    train(RUNS[name], out, resume=True, every=0)
    assert comparable(out) == comparable(whole(name))
    assert not (out / "checkpoint.pt").exists()


@pytest.mark.parametrize("name", ["knee", "autolr"])
def test_a_run_killed_before_its_first_checkpoint_begins_again(whole, tmp_path, name):
    with pytest.raises(Killed):
        train(RUNS[name], tmp_path / "run", killed_after(60))
    assert not (tmp_path / "run" / "checkpoint.pt").exists()
    train(RUNS[name], tmp_path / "run", resume=True)
    assert comparable(tmp_path / "run") == comparable(whole(name))


def test_steps_taken_after_the_last_checkpoint_are_taken_again_and_logged_once(whole, tmp_path, monkeypatch):
    out, due = tmp_path / "run", []
    monkeypatch.setattr(training._Clock, "due", lambda _: len(due) == 25)  # one checkpoint, after 25 steps

    def report(point):
        due.append(point)
        if point.step == 70:
            raise Killed

    with pytest.raises(Killed):
        train(TUNED, out, report)
    assert len(read_run(out).steps) == 7
    assert read_run(out).decisions[-1].step > 25
    due.clear()
    train(TUNED, out, resume=True)
    assert comparable(out) == comparable(whole("autolr"))


def test_a_process_killed_by_the_system_goes_on_in_another(whole, tmp_path):
    out = tmp_path / "run"
    script = """
import sys, pathlib, torch
from autolr_lab.training.runs import Settings
from autolr_lab.training.training import train
import json
torch.set_num_threads(1)
settings = Settings.from_dict(json.loads(sys.argv[1]))
import time
train(settings, pathlib.Path(sys.argv[2]), lambda point: time.sleep(0.02), resume=True, every=0)
"""
    command = [sys.executable, "-c", script, json.dumps(dataclasses.asdict(TUNED)), str(out)]
    running = subprocess.Popen(command)
    deadline = time.monotonic() + 60
    while not (out / "checkpoint.pt").exists():
        assert time.monotonic() < deadline
        assert running.poll() is None
        time.sleep(0.02)
    os.kill(running.pid, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    assert read_run(out).result is None
    subprocess.run(command, check=True)
    assert comparable(out) == comparable(whole("autolr"))
    assert len(json.loads((out / "run.json").read_text())["resumed"]) == 1


def test_a_run_is_not_continued_with_other_settings_nor_once_it_is_whole(tmp_path):
    with pytest.raises(Killed):
        train(FIXED, tmp_path, killed_after(50), every=0)
    with pytest.raises(RunError, match=r"has lr 0\.05, not 0\.5\. A run is continued with the settings that it has"):
        train(dataclasses.replace(FIXED, lr=0.5), tmp_path, resume=True)
    with pytest.raises(RunError, match="holds a run already"):
        train(FIXED, tmp_path)
    train(FIXED, tmp_path, resume=True)
    with pytest.raises(RunError, match="is whole"):
        train(FIXED, tmp_path, resume=True)


def test_a_checkpoint_of_another_version_is_said_to_be_one(tmp_path):
    with pytest.raises(Killed):
        train(FIXED, tmp_path, killed_after(50), every=0)
    old = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    old["optimizer"] = old.pop("stepper")
    torch.save(old, tmp_path / "checkpoint.pt")
    with pytest.raises(RunError, match=r"its checkpoint has no stepper\. Delete its checkpoint\.pt"):
        train(FIXED, tmp_path, resume=True)
    (tmp_path / "checkpoint.pt").unlink()
    assert train(FIXED, tmp_path, resume=True)["steps"] > 50


def test_a_checkpoint_is_whole_or_the_one_before(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run", FIXED, {})
    folder.save({"step": 1})

    def cut_off(content, path):
        path.write_bytes(b"half")
        raise Killed

    monkeypatch.setattr(torch, "save", cut_off)
    with pytest.raises(Killed):
        folder.save({"step": 2})
    assert folder.load() == {"step": 1}
