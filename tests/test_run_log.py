"""The log of a run tells the rate of every step, to the bit, and whether the run still lives."""

from __future__ import annotations

import copy
import gc
import itertools
import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from torch import nn

import autolr
from autolr.runtime import log_writer, run_log
from autolr.runtime.curve import MOST, Curve
from autolr.runtime.log_writer import RunLog
from autolr.runtime.run_log import RunReader, read_run
from full_disk import a_disk_of
from training_runs import BATCHES_OF_LINES, cross_entropy, seed_everything

ABOUT = {"optimizer": "SGD", "policy": "Monitor()", "seed": 0, "total_steps": 100}
WINDOWED = autolr.ExploreExploit(window=4, superbatch=3, spread=2)
POLICIES = {
    "search": autolr.PeakSearch(budget=1.0),
    "windowed": WINDOWED,
    "monitor": autolr.Monitor(window=4, superbatch=3),
}


def tuned(policy, trace, *, steps=24):
    seed_everything(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    base = torch.optim.SGD(
        [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 0.01}], lr=0.05, momentum=0.9
    )
    return model, autolr.AutoLR(base, model, cross_entropy, BATCHES_OF_LINES, steps, policy=policy, trace=trace)


def train(model, optimizer, steps, *, closure=False):
    """The rates with which the steps are taken."""
    rates = []
    optimizer.base.register_step_pre_hook(lambda base, *_: rates.append(max(g["lr"] for g in base.param_groups)))
    for _ in range(steps):
        batch = BATCHES_OF_LINES[optimizer.steps_taken % len(BATCHES_OF_LINES)]

        def loss(batch=batch):
            optimizer.zero_grad()
            loss = cross_entropy(model, batch)
            loss.backward()
            return loss

        if closure:
            optimizer.step(loss)
        else:
            loss()
            optimizer.step()
    return rates


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_the_log_tells_the_rate_of_every_step_to_the_bit(policy, tmp_path):
    model, optimizer = tuned(policy, tmp_path / "log.jsonl")
    taken = []
    optimizer.base.register_step_pre_hook(
        lambda base, *_: taken.append((optimizer.steps_taken + 1, max(g["lr"] for g in base.param_groups)))
    )
    train(model, optimizer, 24)
    run = read_run(tmp_path / "log.jsonl")
    steps = dict(taken)  # short runs of the search step the base too, before the first step
    assert run.rates() == sorted(steps.items())
    assert [step for step, _ in run.rates()] == list(range(1, 25))
    assert list(run.records) == optimizer.history
    assert run.status() == "finished"
    assert (run.about["optimizer"], run.about["total_steps"], run.about["pid"]) == ("SGD", 24, os.getpid())


def test_a_rate_that_somebody_else_sets_is_what_the_log_tells(tmp_path):
    model, optimizer = tuned(POLICIES["monitor"], tmp_path / "log.jsonl")
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 24)
    expected = []
    for _ in range(24):
        expected.append(optimizer.param_groups[0]["lr"])
        train(model, optimizer, 1)
        scheduler.step()
    assert [rate for _, rate in read_run(tmp_path / "log.jsonl").rates()] == expected


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("at", [0, 3, 11, 20])
def test_the_log_of_a_resumed_run_is_that_of_the_uninterrupted_one(policy, at, tmp_path):
    model, optimizer = tuned(policy, tmp_path / "whole.jsonl")
    train(model, optimizer, 24)
    model, optimizer = tuned(policy, tmp_path / "cut.jsonl")
    train(model, optimizer, at)
    saved, weights = optimizer.state_dict(), {k: v.clone() for k, v in model.state_dict().items()}
    saved = torch.load(_saved(saved, tmp_path), weights_only=True)
    train(model, optimizer, 3)  # what comes after the checkpoint is done again
    again, resumed = tuned(policy, tmp_path / "cut.jsonl")
    again.load_state_dict(weights)
    resumed.load_state_dict(saved)
    train(again, resumed, 24 - at)
    whole, cut = read_run(tmp_path / "whole.jsonl"), read_run(tmp_path / "cut.jsonl")
    assert cut.rates() == whole.rates()
    assert cut.records == whole.records
    assert cut.steps == 24
    assert resumed._training().points[-1]["step"] == 24


def _saved(state, folder):
    torch.save(state, folder / "saved.pt")
    return folder / "saved.pt"


def test_the_loss_that_a_closure_returns_is_in_the_log(tmp_path):
    model, optimizer = tuned(POLICIES["monitor"], tmp_path / "log.jsonl")
    train(model, optimizer, 24, closure=True)
    seen = read_run(tmp_path / "log.jsonl").beats[-1].loss
    assert isinstance(seen, float)
    assert 0 < seen < 2


def test_what_the_training_logs_is_kept_with_its_step_and_a_number_that_is_none_is_null(tmp_path):
    model, optimizer = tuned(POLICIES["monitor"], tmp_path / "log.jsonl")
    train(model, optimizer, 8)
    optimizer.log(val_loss=torch.tensor(0.5), val_accuracy=0.75)
    train(model, optimizer, 8)
    optimizer.log(val_loss=float("nan"))
    points = read_run(tmp_path / "log.jsonl").points
    assert points == ({"step": 8, "val_loss": 0.5, "val_accuracy": 0.75}, {"step": 16, "val_loss": None})
    assert optimizer._training().curve("val_loss") == [(8, 0.5)]
    with pytest.raises((TypeError, ValueError)):
        optimizer.log(val_loss="low")


def test_a_run_that_ends_early_has_all_its_steps_in_the_log_when_it_is_gone(tmp_path):
    model, optimizer = tuned(POLICIES["monitor"], tmp_path / "log.jsonl")
    train(model, optimizer, 7)
    assert read_run(tmp_path / "log.jsonl").steps < 7  # nothing to tell yet
    del optimizer
    gc.collect()
    assert [step for step, _ in read_run(tmp_path / "log.jsonl").rates()] == list(range(1, 8))


def test_a_log_stays_where_it_was_begun_when_the_process_goes_to_another_folder(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    model, optimizer = tuned(POLICIES["monitor"], "log.jsonl")
    train(model, optimizer, 7)
    monkeypatch.chdir(tmp_path / "elsewhere")
    del optimizer
    gc.collect()
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert [step for step, _ in read_run(tmp_path / "log.jsonl").rates()] == list(range(1, 8))


def test_a_change_of_length_is_in_the_log(tmp_path):
    model, optimizer = tuned(autolr.PeakSearch(peak=0.1), tmp_path / "log.jsonl")
    train(model, optimizer, 10)
    optimizer.change_length(12)
    train(model, optimizer, 2)
    run = read_run(tmp_path / "log.jsonl")
    assert (run.total_steps, run.status()) == (12, "finished")


def log_of(path, *, total=100, steps=40):
    log = RunLog(path, {**ABOUT, "total_steps": total})
    for step in range(1, steps + 1):
        log.rate(step, 0.1 if step < 30 else 0.2)
    log.beat()
    return log


def test_equal_rates_take_no_room(tmp_path):
    log_of(tmp_path / "log.jsonl")
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2
    assert read_run(tmp_path / "log.jsonl").beats[0].rates == ((0.1, 29), (0.2, 11))


def test_a_run_lives_while_its_process_does(tmp_path):
    path = tmp_path / "log.jsonl"
    log_of(path)
    assert read_run(path).status() == "running"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    path.write_text(path.read_text().replace(f'"pid": {os.getpid()}', f'"pid": {gone.pid}'))
    assert read_run(path).status() == "stopped"
    path.write_text(path.read_text().replace('"total_steps": 100', '"total_steps": 40'))
    assert read_run(path).status() == "finished"


def test_a_run_of_another_machine_lives_while_it_gives_signs_of_life(tmp_path, monkeypatch):
    path = tmp_path / "log.jsonl"
    log_of(path)
    last = read_run(path).beats[-1].time
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    assert read_run(path).status(last + 50) == "running"
    assert read_run(path).status(last + 70) == "stopped"


def test_a_search_gives_no_sign_of_life_and_is_not_taken_for_dead(tmp_path, monkeypatch):
    log = RunLog(tmp_path / "log.jsonl", ABOUT)
    log.beat()
    started = read_run(tmp_path / "log.jsonl").began
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    assert read_run(tmp_path / "log.jsonl").status(started + 600) == "running"
    assert read_run(tmp_path / "log.jsonl").status(started + 4000) == "stopped"


def test_a_full_disk_stops_no_training_is_told_once_and_loses_nothing(tmp_path, monkeypatch):
    model, optimizer = tuned(POLICIES["windowed"], path := tmp_path / "log.jsonl")
    train(model, optimizer, 6)
    write = log_writer.Path.open

    def full(self, *arguments, **options):
        if self == path:
            raise OSError(28, "No space left on device")
        return write(self, *arguments, **options)

    monkeypatch.setattr(log_writer.Path, "open", full)
    with pytest.warns(UserWarning, match="cannot be written: No space left on device") as told:
        train(model, optimizer, 10)
    assert len(told) == 1
    monkeypatch.undo()
    train(model, optimizer, 8)
    run = read_run(path)
    assert list(run.records) == optimizer.history
    assert [step for step, _ in run.rates()] == list(range(1, 25))


@pytest.mark.parametrize("room", [0, 1, 60], ids="{} bytes".format)
def test_half_a_line_is_taken_back_where_the_disk_fills_in_its_middle(room, tmp_path):
    file = tmp_path / "log.jsonl"
    log = log_of(file)
    whole = file.read_bytes()
    with a_disk_of(len(whole) + room):
        for step in (41, 42):  # a second time it is as full
            log.rate(step, 0.3 / step)
            log.beat()
            assert "cannot be written: File too large" in log.trouble
            assert file.read_bytes() == whole
    log.beat()
    assert (log.trouble, log.shared) == (None, None)
    assert file.read_bytes().startswith(whole)
    assert [step for step, _ in read_run(file).rates()] == list(range(1, 43))


def test_a_run_whose_disk_was_full_is_resumed_with_its_log(tmp_path):
    model, optimizer = tuned(POLICIES["windowed"], path := tmp_path / "log.jsonl")
    train(model, optimizer, 6)
    with a_disk_of(path.stat().st_size + 100), pytest.warns(UserWarning, match="cannot be written") as told:
        train(model, optimizer, 10)
        saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    assert len(told) == 1
    resume(POLICIES["windowed"], path, saved, 8)
    assert [step for step, _ in read_run(path).rates()][-8:] == list(range(17, 25))


def resume(policy, trace, saved, steps):
    """Go on in another AutoLR; what a checkpoint after it holds."""
    model, optimizer = tuned(policy, trace)
    model.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    train(model, optimizer, steps)
    return copy.deepcopy((model.state_dict(), optimizer.state_dict()))


@pytest.mark.parametrize("how", ["removed", "renamed", "cut"])
def test_a_log_that_is_taken_away_on_the_way_is_told_of_and_its_successor_says_where_it_goes_on_from(how, tmp_path):
    file = tmp_path / "log.jsonl"
    log = log_of(file, steps=40)
    log.rate(41, 0.3)
    log.point({"step": 41, "loss": 1.0})  # the rate of step 41 is not written yet
    if how == "cut":
        file.write_bytes(b"")
    else:
        file.unlink() if how == "removed" else file.rename(tmp_path / "log.1")
    for step in range(42, 61):
        log.rate(step, 0.3)
    log.beat()
    assert "was removed, renamed or cut" in log.shared
    assert "steps after 40 only" in log.shared
    run = read_run(file)
    assert (run.before, run.about["from"], run.total_steps, run.status()) == ((40, 0), 40, 100, "running")
    assert [step for step, _ in run.rates()] == list(range(41, 61))
    assert len([line for line in file.read_text().splitlines() if line.startswith('{"run"')]) == 1


def test_a_log_that_begins_late_is_continued_from_a_checkpoint_as_one_of_a_whole_run(tmp_path):
    model, optimizer = tuned(WINDOWED, tmp_path / "whole.jsonl")
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    train(model, optimizer, 24)
    whole, late = read_run(tmp_path / "whole.jsonl"), tmp_path / "late.jsonl"
    saved = resume(WINDOWED, None, saved, 9)
    decided = len(saved[1]["autolr"]["history"])
    saved = resume(WINDOWED, late, saved, 7)
    resume(WINDOWED, late, saved, 5)  # done once more
    resume(WINDOWED, late, saved, 8)
    run = read_run(late)
    assert decided
    assert run.before == (9, decided)
    assert run.records == whole.records[decided:]
    assert run.rates() == whole.rates()[9:]


@pytest.mark.parametrize(
    "line", ['{"beat": "x", "time": 0, "rates": []}', '{"beat": 1}', '{"run": 3}', '{"point": {}}', '{"point": 1}']
)
def test_a_damaged_line_is_named(tmp_path, line):
    log_of(tmp_path / "log.jsonl")
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write(line + "\n")
    with pytest.raises(ValueError, match="Line 3 of"):
        read_run(tmp_path / "log.jsonl")


@pytest.mark.parametrize("count", [1, 2, MOST, MOST + 1, 5 * MOST + 7])
def test_a_curve_keeps_its_ends_and_evenly_what_is_between(count):
    curve = Curve()
    for step in range(1, count + 1):
        curve.add(step, step / 7)
        again = Curve.from_dict(json.loads(json.dumps(curve.to_dict()))) if step % 500 == 0 else None
        assert again is None or again == curve
    drawn = curve.drawn()
    assert drawn[0] == (1, 1 / 7)
    assert drawn[-1] == (count, count / 7)
    assert len(drawn) <= MOST + 1
    assert len(drawn) > min(count, MOST) / 2
    gaps = {b[0] - a[0] for a, b in itertools.pairwise(drawn[:-1])}
    assert len(gaps) <= 1
    assert all(value == step / 7 for step, value in drawn)


def grown(path):
    """A log that is written line by line, of a run that went back once: the bytes after each piece of it."""
    log = RunLog(path, ABOUT)
    for step in range(1, 13):
        log.rate(step, 0.1 / step)
        if step % 4 == 0:
            log.beat()
    log.point({"step": 12, "val_loss": 0.5})
    text = path.read_text() + json.dumps({"run": {**ABOUT, "from": 6, "decisions": 0}}) + "\n"
    later = {"beat": 9, "time": 5.0, "rates": [[0.5, 2], [0.25, 1]], "loss": 1.5}
    return (text + json.dumps(later) + "\n").encode()


def test_a_log_that_grows_is_told_as_one_that_is_read_whole(tmp_path):
    content = grown(tmp_path / "whole.jsonl")
    file, reader = tmp_path / "growing.jsonl", RunReader(tmp_path / "growing.jsonl")
    for end in range(0, len(content) + 1, 37):  # in the middle of lines, too
        file.write_bytes(content[:end])
        assert reader.read() == read_run(file)
    file.write_bytes(content)
    assert reader.read() == read_run(file)
    assert [rate for _, rate in reader.read().rates()][6:] == [0.5, 0.5, 0.25]
    assert reader.read().points == ()


def test_what_was_read_of_a_log_is_not_read_again(tmp_path, monkeypatch):
    file = tmp_path / "log.jsonl"
    content, taken = grown(file), []
    monkeypatch.setattr(run_log, "line_from", lambda *told, own=run_log.line_from: taken.append(told[1]) or own(*told))
    lines, reader = content.splitlines(keepends=True), RunReader(file)
    for count in range(1, len(lines) + 1):
        file.write_bytes(b"".join(lines[:count]))
        reader.read()
    assert taken == list(range(1, len(lines) + 1))


@pytest.mark.parametrize("longer", [False, True])
def test_another_run_in_the_place_of_a_log_is_read_from_its_start(tmp_path, longer):
    file = tmp_path / "log.jsonl"
    file.write_bytes(grown(tmp_path / "first.jsonl"))
    reader = RunReader(file)
    reader.read()
    other = RunLog(tmp_path / "other.jsonl", {**ABOUT, "seed": 5})
    for step in range(1, 200 if longer else 3):
        other.rate(step, 0.1 / step)
    other.beat()
    file.write_bytes((tmp_path / "other.jsonl").read_bytes())
    assert reader.read() == read_run(file)
    assert reader.read().about["seed"] == 5


def test_a_log_whose_damaged_line_is_mended_is_read_again(tmp_path):
    file = tmp_path / "log.jsonl"
    content, reader = grown(file), RunReader(file)
    file.write_bytes(content + b'{"beat": "x"}\n')
    with pytest.raises(ValueError, match="is none of this version"):
        reader.read()
    file.write_bytes(content)
    assert reader.read() == read_run(file)


def test_a_file_that_is_no_text_is_refused_though_it_has_no_line(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"\x80\x02\xff")
    with pytest.raises(ValueError, match="is no decision log"):
        read_run(tmp_path / "model.pt")
