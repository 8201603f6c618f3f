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

from autolr_lab.training.access import RunError
from autolr_lab.training.runs import RunFolder, Settings, read_run
from autolr_lab.training.training import _Training, train
from helpers import Killed, comparable, killed_after, seed_everything

KNEE = Settings("digits", "momentum", "knee", 0.05, 2, 32, 3, schedule_options={"warmup": 10})
TUNED = Settings("digits", "adam", "explore-exploit", 1e-3, 2, 32, 3, policy={"spread": 4, "window": 10})
RUNS = {  # of 90 steps
    "knee": KNEE,
    "plateau": dataclasses.replace(KNEE, schedule="plateau", schedule_options={"patience": 0, "factor": 0.5}),
    "explore-exploit": TUNED,
    "find-peak": dataclasses.replace(KNEE, schedule="find-peak", schedule_options={}),
    "adaptive": dataclasses.replace(TUNED, schedule="adaptive", policy={"window": 10, "overhead": 0.5}),
}


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
        seed_everything(12345 + number)  # another process has other generators
    train(RUNS[name], out, resume=True, every=0)
    assert comparable(out) == comparable(whole(name))
    assert not (out / "checkpoint.pt").exists()


@pytest.mark.parametrize("name", ["knee", "explore-exploit"])
def test_a_run_killed_before_its_first_checkpoint_begins_again(whole, tmp_path, name):
    with pytest.raises(Killed):
        train(RUNS[name], tmp_path / "run", killed_after(60))
    assert not (tmp_path / "run" / "checkpoint.pt").exists()
    train(RUNS[name], tmp_path / "run", resume=True)
    assert comparable(tmp_path / "run") == comparable(whole(name))


def test_steps_taken_after_the_last_checkpoint_are_taken_again_and_logged_once(whole, tmp_path, monkeypatch):
    out, save = tmp_path / "run", _Training._save_if_due

    def once(training):
        if training._at.done == 25:
            save(training)

    monkeypatch.setattr(_Training, "_save_if_due", once)
    with pytest.raises(Killed):
        train(TUNED, out, killed_after(70), every=0)
    assert len(read_run(out).steps) == 7
    assert read_run(out).decisions[-1].step > 25
    train(TUNED, out, resume=True)
    assert comparable(out) == comparable(whole("explore-exploit"))


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
    assert comparable(out) == comparable(whole("explore-exploit"))
    assert len(json.loads((out / "run.json").read_text())["resumed"]) == 1


def test_a_run_is_not_continued_with_other_settings_nor_once_it_is_whole(tmp_path):
    with pytest.raises(Killed):
        train(KNEE, tmp_path, killed_after(50), every=0)
    with pytest.raises(RunError, match=r"has lr 0\.05, not 0\.5\. Resume a run with the settings that it has"):
        train(dataclasses.replace(KNEE, lr=0.5), tmp_path, resume=True)
    with pytest.raises(RunError, match="holds a run already"):
        train(KNEE, tmp_path)
    train(KNEE, tmp_path, resume=True)
    with pytest.raises(RunError, match="is complete"):
        train(KNEE, tmp_path, resume=True)


def test_a_checkpoint_of_another_version_is_said_to_be_one(tmp_path):
    with pytest.raises(Killed):
        train(KNEE, tmp_path, killed_after(50), every=0)
    torch.save({"model": {}}, tmp_path / "checkpoint.pt")
    with pytest.raises(RunError, match=r"checkpoint .* is another version's\. Delete it, and the run begins again"):
        train(KNEE, tmp_path, resume=True)


def test_a_checkpoint_is_whole_or_the_one_before(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run", KNEE, {})
    folder.save({"step": 1})

    def cut_off(content, path):
        path.write_bytes(b"half")
        raise Killed

    monkeypatch.setattr(torch, "save", cut_off)
    with pytest.raises(Killed):
        folder.save({"step": 2})
    assert folder.load() == {"step": 1}
