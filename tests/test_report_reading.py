"""What the report reads from files, and what it says of files that it cannot read."""

import dataclasses
import json
import math
import os

import pytest

from autolr.report import ReportError, read_trainings
from autolr.report.reading import read_what_can_be
from autolr.report.summary import headline
from autolr.runtime.log_writer import RunLog
from report_inputs import a_found_peak, a_probe, a_record, a_search, some_points, write_lines


def test_a_log_is_read_as_it_was_written(tmp_path):
    records = [a_found_peak(), a_probe(30), a_record(40, verdict="roll back")]
    (training,) = read_trainings([write_lines(tmp_path / "mine.jsonl", records)])
    assert (training.name, training.records, training.points) == ("mine", records, [])
    assert training.total_steps == 1000, "the search says how long the run is to be"


def test_in_a_folder_the_first_line_of_a_file_tells_decisions_from_points(tmp_path):
    write_lines(tmp_path / "run" / "z.jsonl", [a_probe()])
    write_lines(tmp_path / "run" / "fine.jsonl", [{"step": 30, "loss": 2}, {"step": 60, "loss": math.nan, "note": "x"}])
    write_lines(tmp_path / "run" / "epochs.jsonl", [{"step": 50, "test_loss": 1.5}])
    write_lines(tmp_path / "run" / "chat.jsonl", [{"prompt": "hello"}])
    (tmp_path / "run" / "model.pt").write_bytes(b"\x00\xff")
    (training,) = read_trainings([tmp_path / "run"])
    assert training.name == "run"
    assert training.records == [a_probe()]
    assert training.points == [{"step": 30, "loss": 2}, {"step": 50, "test_loss": 1.5}, {"step": 60, "loss": None}]


def test_a_folder_of_folders_is_all_the_trainings_in_it_by_the_shortest_names_that_differ(tmp_path):
    for place in ("a/run", "b/run", "c"):
        write_lines(tmp_path / place / "log.jsonl", [a_record()])
    write_lines(tmp_path / "c" / "other.jsonl", [a_record()])
    names = [training.name for training in read_trainings([tmp_path, tmp_path / "a"])]
    assert names == ["a/run", "b/run", "c/log", "c/other"]


def test_points_alone_are_a_training_that_nobody_tuned(tmp_path):
    write_lines(tmp_path / "points.jsonl", some_points())
    (training,) = read_trainings([tmp_path])
    assert len(training.points) == 6
    assert "did not tune" in headline(training)


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_last_line_that_a_kill_cut_off_is_left_out(tmp_path, cut):
    file = write_lines(tmp_path / "log.jsonl", [a_record(1), a_record(2)])
    file.write_bytes(file.read_bytes()[: -cut - 1])
    assert read_trainings([file])[0].records == [a_record(1)]


def test_a_last_line_without_its_newline_counts(tmp_path):
    file = write_lines(tmp_path / "log.jsonl", [a_record(1), a_record(2)])
    file.write_text(file.read_text().rstrip())
    assert len(read_trainings([file])[0].records) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"lr_before": "high"}, {"loss": [1]}, {"loss": math.inf}, {"eps": [0.1], "losses": []}, {"reason": None},
        {"search": "none"}, {"search": {"lr": 1}}, {"search": {**a_search(), "runs": [3]}}, {"spent": True},
        {"search": a_search(shortfall="much")}, {"search": a_search(shortfall=-1)}, {"search": a_search(shortfall=1e9)},
        {"search": {**a_search(), "lr": 0}}, {"step": 10**400}, {"colour": "blue"}, {"eps": [None], "losses": [1]},
        pytest.param("[" * 100_000, id="deep"), pytest.param("no JSON", id="text"), pytest.param("7", id="number"),
    ],
    ids=",".join,
)  # fmt: skip
def test_a_damaged_line_is_named_in_one_line(tmp_path, change):
    line = change if isinstance(change, str) else json.dumps(dataclasses.asdict(a_record()) | change)
    file = tmp_path / "log.jsonl"
    file.write_text(f"{a_record().to_json()}\n{line}\n{a_record().to_json()}\n")
    with pytest.raises(ReportError, match=r"log.jsonl, line 2, is damaged") as told:
        read_trainings([file])
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 400


@pytest.mark.parametrize("content", [b"", b"hello\n", b"\x89PNG\r\n", b"{}\n", b'{"step": 1}\n', b"[1]\n", b"\xff\xfe"])
def test_a_file_of_another_kind_is_said_to_be_no_log(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ReportError, match=r"file is no decision log.*trace=FILE"):
        read_trainings([tmp_path / "file"])


def test_a_place_with_nothing_to_read_is_named(tmp_path):
    with pytest.raises(ReportError, match="nowhere does not exist"):
        read_trainings([tmp_path / "nowhere"])
    with pytest.raises(ReportError, match="holds no decision log"):
        read_trainings([tmp_path])


def a_run(file, steps=10, total=10, **about):
    log = RunLog(file, {"optimizer": "SGD", "policy": "PeakSearch()", "seed": 0, "total_steps": total} | about)
    for step in range(1, steps + 1):
        log.rate(step, 0.1 * step, 3.0 - 0.1 * step)
    log.beat()
    log.record(a_record(steps, 0.1 * steps))
    log.point({"step": steps, "val_loss": 0.25})
    return file


def test_a_log_alone_tells_the_rate_of_every_step_the_length_the_status_and_the_times(tmp_path):
    (training,) = read_trainings([a_run(tmp_path / "run.jsonl", steps=6)])
    assert training.curve("lr") == [(step, pytest.approx(0.1 * step)) for step in range(1, 7)]
    assert (training.total_steps, training.status, training.last_step) == (10, "running", 6)
    assert training.curve("loss") == [(6, pytest.approx(2.4))]
    assert training.curve("val_loss") == [(6, 0.25)]
    assert training.records == [a_record(6, 0.1 * 6)]
    begins, (step, seconds) = training.times
    assert (begins, step, 0 <= seconds < 60) == ((0, 0.0), 6, True)


def test_of_two_runs_in_one_log_only_the_last_is_told(tmp_path):
    file = a_run(tmp_path / "run.jsonl", steps=9)
    again = RunLog(file, {"optimizer": "SGD", "policy": "PeakSearch()", "seed": 0, "total_steps": 4})
    for step in range(1, 5):
        again.rate(step, 0.5, 1.0)
    again.record(a_record(3, 0.5))
    again.beat()
    (training,) = read_trainings([file])
    assert training.records == [a_record(3, 0.5)]
    assert (training.total_steps, training.last_step) == (4, 4)


def test_a_run_is_finished_at_its_last_step_and_stopped_where_its_process_is_gone(tmp_path):
    a_run(tmp_path / "done.jsonl")
    gone = a_run(tmp_path / "gone.jsonl", steps=6)
    gone.write_text(gone.read_text().replace(f'"pid": {os.getpid()}', '"pid": 4194300'))
    old = write_lines(tmp_path / "old.jsonl", [a_record()])
    assert [t.status for t in read_trainings([tmp_path / "done.jsonl", gone, old])] == ["finished", "stopped", None]


def test_points_beside_a_log_add_what_it_has_not(tmp_path):
    (tmp_path / "run").mkdir()
    a_run(tmp_path / "run" / "log.jsonl")
    write_lines(tmp_path / "run" / "steps.jsonl", [{"step": 5, "lr": 7.0, "loss": 2.0, "test_loss": 1.0}])
    (training,) = read_trainings([tmp_path / "run"])
    assert 7.0 not in [lr for _, lr in training.curve("lr")], "the log has the rate of every step"
    assert training.curve("loss") == [(5, 2.0)], "that of several steps, not the log's of single ones"
    assert training.curve("test_loss") == [(5, 1.0)]


def test_a_run_of_the_lab_has_its_result_and_one_without_it_goes_on_or_stopped(tmp_path):
    for name in ("done", "goes on", "silent"):
        write_lines(tmp_path / name / "steps.jsonl", [{"step": 10, "loss": 2.0}])
        (tmp_path / name / "run.json").write_text("{}")
    (tmp_path / "done" / "result.json").write_text(
        '{"steps": 10, "test_loss": 1.5, "notice": "x", "cost": {"probes": 1}}'
    )
    os.utime(tmp_path / "silent" / "steps.jsonl", (1e9, 1e9))
    done, going, silent = read_trainings([tmp_path])
    assert [t.status for t in (done, going, silent)] == ["finished", "running", "stopped"]
    assert done.result == {"steps": 10, "test_loss": 1.5}
    assert (done.total_steps, going.total_steps) == (10, None)


def test_what_is_damaged_is_told_and_everything_else_is_read(tmp_path):
    write_lines(tmp_path / "good" / "log.jsonl", [a_record()])
    a_run(tmp_path / "run.jsonl")
    (tmp_path / "bad.jsonl").write_text(a_record().to_json() + "\n{\n" + a_record().to_json() + "\n")
    write_lines(tmp_path / "lab" / "steps.jsonl", [{"step": 1}])
    (tmp_path / "lab" / "result.json").write_text("{")
    trainings, troubles = read_what_can_be([tmp_path / "bad.jsonl", tmp_path, tmp_path / "nowhere"])
    assert [training.name for training in trainings] == ["run", "good"]
    assert len(troubles) == 3
    for words in ("bad.jsonl, line 2, is damaged", "result.json is damaged", "nowhere does not exist"):
        assert any(words in trouble for trouble in troubles), words


@pytest.mark.parametrize(
    "line",
    [
        {"run": 3}, {"run": {"total_steps": "x"}}, {"beat": "x", "time": 1, "rates": []},
        {"beat": 1, "time": None, "rates": []},
        {"beat": 1, "time": 1, "rates": [[0.1]]}, {"beat": 1, "time": 1, "rates": [[0.1, -2]]}, {"beat": 1, "time": 1},
        {"beat": 1, "time": 1, "rates": [], "loss": "x"}, {"point": 3}, {"point": {"loss": 1}},
    ],
    ids=str,
)  # fmt: skip
def test_a_damaged_line_about_the_run_is_named_too(tmp_path, line):
    file = a_run(tmp_path / "run.jsonl")
    count = len(file.read_text().splitlines())
    file.write_text(file.read_text() + json.dumps(line) + "\n" + a_record().to_json() + "\n")
    with pytest.raises(ReportError, match=rf"run.jsonl, line {count + 1}, is damaged"):
        read_trainings([file])
