"""The run folder: written as the run goes, readable at any moment, and never overwritten."""

import dataclasses
import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autolr import DecisionRecord, ExploreExploit, PeakSearch
from autolr.runtime.log_writer import RunLog
from autolr_lab.training.access import RunError
from autolr_lab.training.runs import RunFolder, Settings, find_runs, read_run, write_json

SETTINGS = Settings(
    workload="digits", optimizer="momentum", schedule="explore-exploit", lr=0.1, epochs=3, batch_size=32, seed=7,
    data_dir="/data", policy={"explore": 0.2, "window": 20, "validation_eps": (-0.9, 0.9)},
)  # fmt: skip
RECORD = DecisionRecord(20, "explore", "keep", "no change", "LR kept at 0.1", 0.1, 0.1, 2.3, 0.01, None, 60)
ROWS = [{"step": 10, "lr": 0.1, "loss": 2.3}, {"step": 20, "lr": 0.1, "loss": 2.2}, {"step": 30, "lr": 0.2, "loss": 2}]


def a_run(path, *, finished=True):
    """A run's folder, as `autolr_lab.training.training.train` leaves it."""
    folder = RunFolder(path, SETTINGS, {"version": "1", "cuda": None})
    for row in ROWS:
        folder.append("steps", row)
    RunLog(folder.decisions, {}).record(RECORD)
    folder.append("epochs", {"epoch": 1, "test_loss": 1.5})
    if finished:
        folder.finish({"steps": 30, "cost": {"looks": 50}})
    return folder


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


def test_what_is_read_is_what_was_written(tmp_path):
    a_run(tmp_path / "a" / "b")
    run = read_run(tmp_path / "a" / "b")
    assert run.path == tmp_path / "a" / "b"
    assert run.settings == SETTINGS
    assert run.provenance == {"version": "1", "cuda": None}
    assert run.steps == ROWS
    assert run.epochs == [{"epoch": 1, "test_loss": 1.5}]
    assert run.decisions == [RECORD]
    assert run.result == {"steps": 30, "cost": {"looks": 50}}


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"schedule": "staircase", "policy": {}, "schedule_options": {"stairs": (0.2, 0.5), "warmup": 3}},
        {"policy": dataclasses.asdict(ExploreExploit.adaptive())},
        {"schedule": "find-peak", "policy": dataclasses.asdict(PeakSearch())},
    ],
    ids=["a policy's", "a schedule's", "a whole policy", "a search"],
)
def test_settings_come_back_equal(tmp_path, changed):
    written = dataclasses.replace(SETTINGS, **changed)
    RunFolder(tmp_path / "run", written, {})
    assert read_run(tmp_path / "run").settings == written


@pytest.mark.parametrize("stage", range(5))
def test_a_run_can_be_read_wherever_it_was_cut_off(tmp_path, stage):
    folder = RunFolder(tmp_path, SETTINGS, {})
    written = [
        lambda: folder.append("steps", ROWS[0]),
        lambda: RunLog(folder.decisions, {}).record(RECORD),
        lambda: folder.append("epochs", {"epoch": 1}),
        lambda: folder.append("steps", ROWS[1]),
    ]
    for write in written[:stage]:
        write()
    run = read_run(tmp_path)
    assert run.settings == SETTINGS
    assert run.result is None  # this is how a run that was cut off is known
    assert (len(run.steps) + len(run.decisions) + len(run.epochs)) == stage


@pytest.mark.parametrize("name", ["steps", "epochs", "decisions"])
def test_a_last_line_cut_off_by_a_kill_is_left_out(tmp_path, name):
    a_run(tmp_path, finished=False)
    path = tmp_path / f"{name}.jsonl"
    before = len(getattr(read_run(tmp_path), name))
    for cut in (1, 8):
        path.write_bytes(path.read_bytes()[:-cut])
        assert len(getattr(read_run(tmp_path), name)) == before - 1


def test_a_kill_before_a_file_is_whole_leaves_the_one_that_was_there(tmp_path, monkeypatch):
    write_json(tmp_path / "result.json", {"steps": 1})

    def killed(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)  # the last thing that happens
    with pytest.raises(KeyboardInterrupt):
        write_json(tmp_path / "result.json", {"steps": 2})
    assert json.loads((tmp_path / "result.json").read_text()) == {"steps": 1}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_does_not_have_become_null(tmp_path, bad):
    folder = RunFolder(tmp_path, SETTINGS, {"deep": [{"er": (1.0, bad)}]})
    folder.append("steps", {"loss": bad})
    folder.append("epochs", {"test_loss": bad})
    folder.finish({"train_loss": bad})
    for path in tmp_path.iterdir():
        json.loads(path.read_text(), parse_constant=refuse)
    run = read_run(tmp_path)
    assert run.provenance == {"deep": [{"er": [1.0, None]}]}
    assert (run.steps, run.epochs, run.result) == ([{"loss": None}], [{"test_loss": None}], {"train_loss": None})


text = st.text(max_size=6)
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text
nested = plain | st.lists(plain, max_size=3) | st.dictionaries(text, plain, max_size=3)
trees = st.dictionaries(text, nested, max_size=3)


@settings(max_examples=30)  # each of them writes three files
@given(content=trees)
def test_plain_content_comes_back_to_the_last_bit(content, tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("run"), SETTINGS, content)
    folder.append("steps", content)
    folder.append("steps", content)
    folder.finish(content)
    run = read_run(folder.path)
    assert (run.provenance, run.steps, run.result) == (content, [content] * 2, content)


# What it refuses.


def test_a_folder_that_holds_a_run_is_not_written_to(tmp_path):
    a_run(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RunError, match=r"holds a run already\. Name another folder with --out") as refused:
        RunFolder(tmp_path, dataclasses.replace(SETTINGS, seed=8), {})
    assert str(tmp_path) in str(refused.value)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_holds_something_else_can_be_used(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    a_run(tmp_path)
    assert read_run(tmp_path).result is not None
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_place_that_cannot_be_a_folder_is_refused_with_its_path_and_a_remedy(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RunError, match=r"cannot be written: .*\. Name another one with --out") as refused:
            RunFolder(path, SETTINGS, {})
        assert str(path) in str(refused.value)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root writes where nobody may write")
def test_a_folder_that_may_not_be_written_is_refused_with_the_reason(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="Permission denied"):
        RunFolder(tmp_path / "run", SETTINGS, {})


@pytest.mark.parametrize("name", ["", "no such folder"])
def test_a_folder_without_a_run_says_how_to_find_one(tmp_path, name):
    with pytest.raises(RunError, match=r"has no run\.json\. `autolr-lab runs` lists") as refused:
        read_run(tmp_path / name)
    assert str(tmp_path / name) in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("run.json", "{", id="settings cut off"),
        pytest.param("run.json", "[]", id="no settings"),
        pytest.param("run.json", '{"provenance": {}}', id="settings missing"),
        pytest.param("run.json", '{"settings": {"lr": 1}, "provenance": {}, "resumed": []}', id="settings incomplete"),
        pytest.param("steps.jsonl", '{"step": 1\n{"step": 2}\n', id="a broken line in the middle"),
        pytest.param("decisions.jsonl", '{"step": 1}\n', id="half a decision"),
        pytest.param("result.json", "", id="an empty result"),
        pytest.param("epochs.jsonl", b"\xff\xfe\n", id="not text"),
    ],
)
def test_a_damaged_run_is_refused_with_its_path(tmp_path, name, content):
    a_run(tmp_path)
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RunError, match="cannot be read as a run") as refused:
        read_run(tmp_path)
    assert str(tmp_path) in str(refused.value)


# Finding runs.


def test_runs_are_found_at_any_depth_and_nothing_else_is(tmp_path):
    assert find_runs(tmp_path / "nowhere") == []
    for place in ("a", "b/c", "b/c/d"):
        a_run(tmp_path / place)
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "result.json").write_text("{}")
    assert set(find_runs(tmp_path)) == {tmp_path / place for place in ("a", "b/c", "b/c/d")}


def test_the_oldest_run_comes_first_whatever_its_name(tmp_path):
    for day, name in enumerate(("fixed", "autolr", "cosine"), start=1):
        RunFolder(tmp_path / name, SETTINGS, {"started": f"2024-01-0{day}T00:00:00+00:00"})
        os.utime(tmp_path / name / "run.json", (day * 86_400, day * 86_400))
    assert [path.name for path in find_runs(tmp_path)] == ["fixed", "autolr", "cosine"]
