"""What the report reads from files, and what it says of files that it cannot read."""

import dataclasses
import json
import math

import pytest

from autolr.report import ReportError, read_trainings
from autolr.report.summary import headline
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
