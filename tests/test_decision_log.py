"""The decision log: what is written can be read, by any reader of JSON, also after a kill."""

import contextlib
import dataclasses
import gc
import json
import math
import pickle
import subprocess
import sys
import time
import tracemalloc
import typing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autolr.policies.base import Verdict
from autolr.runtime.decision_log import DecisionRecord, known, tally
from autolr.runtime.log_writer import RunLog, open_log
from autolr.runtime.run_log import read_log

RECORD = DecisionRecord(
    step=20, phase="explore", verdict="raise", trigger="fit asks", lr_before=0.1,
    reason="LR raised from 0.1 to 0.12: exploring",
    lr_after=0.12, loss=2.25, drop_rate=0.01, drop_rate_stderr=0.001, forwards=75, eps=(-0.5, 0.0, 0.5),
    losses=(2.3, 2.25, 2.24), k0=2.25, k1=-0.06, k2=0.15, eps_min=0.2, eps_min_stderr=0.1,
    validation_eps=(1.0,), validation_losses=(2.4,),
)  # fmt: skip

ABOUT = {"optimizer": "SGD", "policy": "Monitor()", "seed": 0, "total_steps": 100}


def append(path, record):
    """As a run does that goes on from a checkpoint with all that the log has."""
    log, there = RunLog(path, ABOUT), read_log(path)
    log.prepare(there[-1].step if there else 0, there)()
    log.record(record)


def cut_back(path, records):
    """As a run does that goes on from a checkpoint with these."""
    RunLog(path, ABOUT).prepare(records[-1].step if records else 0, records)()


finite = st.floats(allow_nan=False, allow_infinity=False)
maybe = st.none() | finite
rows = st.lists(finite, min_size=3, max_size=3).map(tuple)  # as many eps as losses, or it is no record
above_0 = st.floats(1e-300, 1e99)
searches = st.fixed_dictionaries(
    {
        "lr": above_0, "low": above_0, "high": above_0, "notes": st.lists(st.text()),
        "runs": st.lists(st.fixed_dictionaries({"length": st.integers(1), "lr": above_0})),
    }
)  # fmt: skip
records = st.builds(
    DecisionRecord,
    step=st.integers(1), phase=st.text(), verdict=st.sampled_from(typing.get_args(Verdict)), trigger=st.text(),
    reason=st.text(),
    lr_before=finite, lr_after=finite, loss=finite, drop_rate=maybe, drop_rate_stderr=maybe, forwards=st.integers(0),
    eps=rows, losses=rows, k0=maybe, k1=maybe, k2=maybe, eps_min=maybe, eps_min_stderr=maybe,
    validation_eps=rows, validation_losses=rows, search=st.none() | searches,
)  # fmt: skip


@settings(max_examples=25)
@given(record=records)
def test_a_line_read_back_is_the_record_that_was_written_to_the_last_bit(record):
    line = record.to_json()
    assert len(line.splitlines()) == 1  # whatever line breaks its reason holds
    assert DecisionRecord.from_dict(json.loads(line)) == record


@settings(max_examples=10)
@given(written=st.lists(records, max_size=4))
def test_a_log_read_back_is_the_records_in_their_order(written, tmp_path_factory):
    log = open_log(tmp_path_factory.mktemp("log") / "decisions.jsonl")
    for record in written:
        append(log, record)
    assert read_log(log) == written


def test_a_record_goes_into_a_checkpoint_and_back():
    assert DecisionRecord.from_dict(dataclasses.asdict(RECORD)) == RECORD


def test_each_decision_is_on_disk_as_soon_as_it_is_taken(tmp_path):
    log = open_log(tmp_path / "decisions.jsonl")
    for n in range(3):
        append(log, dataclasses.replace(RECORD, step=n))
        assert [record.step for record in read_log(log)] == list(range(n + 1))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_does_not_have_is_null_and_never_written_as_it_is(bad, tmp_path):
    assert known(bad) is None
    log = open_log(tmp_path / "decisions.jsonl")
    record = dataclasses.replace(RECORD, loss=known(bad), losses=(1.0, known(bad), 2.0))
    append(log, record)
    assert '"loss": null' in log.read_text()
    assert read_log(log) == [record]
    with pytest.raises(ValueError, match="not JSON compliant"):
        append(log, dataclasses.replace(RECORD, loss=bad))
    assert read_log(log) == [record]  # and no half of a line in the log


@given(value=finite)
def test_a_number_that_json_has_stays_as_it_is(value):
    assert known(value) == value
    assert known(None) is None


def log_of(path, steps):
    log = open_log(path)
    for step in steps:
        append(log, dataclasses.replace(RECORD, step=step))
    return log


def test_a_log_is_cut_back_to_the_checkpoint_that_its_run_continues_from(tmp_path):
    log = log_of(tmp_path / "decisions.jsonl", (20, 40, 60))
    kept = read_log(log)[:2]
    cut_back(log, kept)
    assert read_log(log) == kept
    append(log, RECORD)
    assert read_log(log) == [*kept, RECORD]
    assert [path.name for path in tmp_path.iterdir()] == ["decisions.jsonl"]  # nothing lies about


@pytest.mark.parametrize("steps", [(30,), (20, 30), (20, 40, 60, 80)])
def test_nothing_of_another_runs_log_is_lost(tmp_path, steps):
    # Also where a fresh optimizer's state is loaded, as Accelerate does when it prepares one.
    log = log_of(tmp_path / "decisions.jsonl", (20, 40, 60))
    before = log.read_bytes()
    cut_back(log, [dataclasses.replace(RECORD, step=step) for step in steps])
    assert log.read_bytes() == before


def test_a_kill_while_a_log_is_cut_back_leaves_it_as_it_was(tmp_path, monkeypatch):
    log = log_of(tmp_path / "decisions.jsonl", (20, 40))
    before = read_log(log)

    def killed(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)  # the last thing that happens
    with pytest.raises(KeyboardInterrupt):
        cut_back(log, before[:1])
    assert read_log(log) == before


def test_probes_changes_and_rollbacks_are_counted():
    verdicts = ("keep", "raise", "lower", "roll back", "keep")
    records = [dataclasses.replace(RECORD, verdict=verdict) for verdict in verdicts]
    records[3:] = [dataclasses.replace(record, eps=(), losses=()) for record in records[3:]]
    assert tally(records) == {"probes": 3, "changes": 2, "rollbacks": 1}


def test_a_last_line_cut_off_by_a_kill_is_left_out(tmp_path):
    log = open_log(tmp_path / "decisions.jsonl")
    append(log, RECORD)
    append(log, RECORD)
    whole = log.read_bytes()
    for cut in (1, 10, len(RECORD.to_json())):  # its newline alone, a few characters, all of it but one
        log.write_bytes(whole[:-cut])
        assert read_log(log) == [RECORD]


def test_a_log_that_was_cut_off_can_be_continued_and_read(tmp_path):
    log = open_log(tmp_path / "decisions.jsonl")
    append(log, RECORD)
    append(log, RECORD)
    log.write_bytes(log.read_bytes()[:-10])  # killed while it wrote
    later = dataclasses.replace(RECORD, step=40)
    append(open_log(log), later)  # and resumed
    assert read_log(log) == [RECORD, later]


def test_an_existing_log_is_continued(tmp_path):
    append(open_log(tmp_path / "decisions.jsonl"), RECORD)
    log = open_log(str(tmp_path / "decisions.jsonl"))
    assert read_log(log) == [RECORD]
    append(log, RECORD)
    assert read_log(log) == [RECORD, RECORD]


def test_a_run_that_begins_anew_is_what_the_log_tells(tmp_path):
    log = log_of(tmp_path / "decisions.jsonl", (20, 40))
    anew = dataclasses.replace(RECORD, step=10)
    RunLog(log, ABOUT).record(anew)  # the script was started again: it had no checkpoint yet
    assert read_log(log) == [anew]
    append(log, RECORD)
    assert read_log(log) == [anew, RECORD]
    cut_back(log, [anew])
    assert read_log(log) == [anew]


def test_a_log_with_a_line_that_cannot_be_read_is_told_of_before_anything_is_changed(tmp_path):
    log = log_of(tmp_path / "decisions.jsonl", (20, 40))
    log.write_text(log.read_text() + "what is this\n")
    before = log.read_bytes()
    with pytest.raises(ValueError, match=r"Line 5 of .*decisions\.jsonl' is none of this version's decision log"):
        RunLog(log, ABOUT).prepare(20, [RECORD])
    assert log.read_bytes() == before


def test_a_log_has_one_writer_in_a_process_the_last_one(tmp_path):
    first = RunLog(tmp_path / "log.jsonl", ABOUT)
    first.rate(1, 0.1)
    first.record(RECORD)
    second = RunLog(tmp_path / "log.jsonl", ABOUT)
    second.record(dataclasses.replace(RECORD, step=3))
    first.rate(2, 0.1)
    first.record(dataclasses.replace(RECORD, step=5))
    assert [record.step for record in read_log(tmp_path / "log.jsonl")] == [3]
    assert "Another AutoLR of this process" in first.shared
    assert not first._unwritten, "what is never written is kept for ever"
    assert second.shared is None
    copy = pickle.loads(pickle.dumps(second))
    copy.record(RECORD)
    assert copy.shared is not None, "a copy beside its original"
    del second, copy
    gc.collect()
    third = RunLog(tmp_path / "log.jsonl", ABOUT)
    third.record(RECORD)
    assert third.shared is None


def test_lines_of_somebody_else_are_told_of(tmp_path):
    log = RunLog(tmp_path / "log.jsonl", ABOUT)
    log.record(RECORD)
    with (tmp_path / "log.jsonl").open("a") as file:  # on another machine: no process of this one is seen
        file.write(RECORD.to_json() + "\n")
    log.record(RECORD)
    assert "Somebody else has written" in log.shared


OTHER = """
import sys, time
from autolr.runtime.log_writer import RunLog
log = RunLog(sys.argv[1], {"optimizer": "SGD", "policy": "Monitor()", "seed": 0, "total_steps": int(sys.argv[2])})
for step in range(1, 11):
    log.rate(step, 0.1)
log.beat()
print("written", flush=True)
time.sleep(600)
"""


@pytest.mark.long
@pytest.mark.parametrize("total", [100, 10], ids=["under way", "over"])
def test_a_log_that_another_process_writes_is_refused_until_its_run_is_over_or_it_ends(tmp_path, total):
    command = [sys.executable, "-c", OTHER, str(tmp_path / "log.jsonl"), str(total)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "written\n"
            before = (tmp_path / "log.jsonl").read_bytes()
            if total == 100:
                with pytest.raises(ValueError, match=rf"Process {other.pid} of this machine writes.*another file"):
                    open_log(tmp_path / "log.jsonl")
            else:
                open_log(tmp_path / "log.jsonl")
            assert (tmp_path / "log.jsonl").read_bytes() == before
        finally:
            other.kill()
        deadline = time.monotonic() + 10  # it is dead before anybody has fetched it
        while time.monotonic() < deadline:
            with contextlib.suppress(ValueError):
                open_log(tmp_path / "log.jsonl")
                break
        else:
            pytest.fail("a process that was killed still has the log")


def test_a_process_that_began_later_is_not_the_one_that_wrote(tmp_path):
    log = log_of(tmp_path / "log.jsonl", (20,))
    text = log.read_text()
    told = json.loads(text.splitlines()[0])["run"]
    log.write_text(text.replace(f'"pid": {told["pid"]}', '"pid": 1').replace(f'"time": {told["time"]}', '"time": 1.5'))
    assert open_log(log) == log  # a machine that was started since has another process 1


def test_an_empty_log_has_no_records(tmp_path):
    assert read_log(open_log(tmp_path / "decisions.jsonl")) == []


def test_a_log_that_cannot_be_written_is_refused_before_training_with_its_path_and_a_remedy(tmp_path):
    for path in (tmp_path / "no such folder" / "log.jsonl", tmp_path):
        with pytest.raises(ValueError, match=r"trace must be a file that can be written.*Make its folder") as refused:
            open_log(path)
        assert repr(str(path)) in str(refused.value)


@pytest.mark.parametrize("held", ["my notes\nwithout an end", '{"loss": 1.0}\n', "\n"], ids=repr)
def test_a_file_that_is_no_decision_log_is_refused_and_kept(tmp_path, held):
    file = tmp_path / "notes.txt"
    file.write_text(held)
    with pytest.raises(ValueError, match=r"notes\.txt.*holds something else.*another file"):
        open_log(file)
    assert file.read_text() == held


def test_what_something_else_begins_with_is_looked_at_before_all_of_it(tmp_path):
    file = tmp_path / "model.bin"
    with file.open("wb") as large:
        large.truncate(2**26)  # a device may have no end at all
    tracemalloc.start()
    with pytest.raises(ValueError, match="holds something else"):
        open_log(file)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("written", range(1, 15))
def test_a_first_line_cut_off_anywhere_is_still_a_decision_log(tmp_path, written):
    file = tmp_path / "decisions.jsonl"
    file.write_text(RECORD.to_json()[:written])
    assert read_log(open_log(file)) == []


@pytest.mark.parametrize("line", ["my notes", "[1, 2]", '{"step": 1}', '{"step": 1, "colour": "red"}'])
def test_a_line_that_is_no_record_is_refused_with_its_number(tmp_path, line):
    file = tmp_path / "decisions.jsonl"
    file.write_text(f"{RECORD.to_json()}\n{line}\n")
    with pytest.raises(ValueError, match=r"Line 2 of .*decisions\.jsonl' is none of this version's decision log"):
        read_log(file)
