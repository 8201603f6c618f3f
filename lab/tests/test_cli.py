"""The command line, as a user meets it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from autolr import cli
from autolr_lab.training.runs import read_run

SHORT = ["--epochs", "2", "--batch-size", "64", "--device", "cpu"]


@pytest.fixture
def runner(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AUTOLR_DATA", raising=False)
    return CliRunner()


def call(runner, *arguments):
    """Run `autolr` in this process; (exit code, everything it printed)."""
    result = runner.invoke(cli.app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def autolr(*arguments, cwd):
    """Run `autolr` as a user does."""
    command = [sys.executable, "-m", "autolr_lab.cli.main", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def test_a_run_ends_with_its_table_and_leaves_a_folder_that_tells_everything(runner, tmp_path):
    code, printed = call(runner, "train", "digits", *SHORT, "--window", "8", "--out", "run")
    assert code == 0
    run = read_run(tmp_path / "run")
    assert run.result is not None
    for name in ("train loss", "test loss", "test accuracy", "looks", "changes of the rate", "rollbacks"):
        assert name in printed
    assert str(run.result["cost_forward_equivalents"]) in printed
    assert "autolr report run" in printed
    assert len(run.epochs) == 2
    assert run.result["looks"] == sum(bool(d.eps) for d in run.decisions) > 0
    assert {"command", "version", "commit", "machine", "torch", "started"} <= run.provenance.keys()
    steps = run.result["steps"]
    assert [line["step"] for line in run.steps] == list(range(10, steps + 1, 10))


def test_the_cost_in_the_table_is_that_of_the_decision_log(runner, tmp_path):
    call(runner, "train", "digits", *SHORT, "--window", "8", "--out", "run")
    run = read_run(tmp_path / "run")
    cost = run.result["cost"]
    forwards = cost["trial"] + cost["looks"] + cost["drop_rate"] + cost["validation_eps"]
    unrecorded = forwards - sum(d.forwards for d in run.decisions)
    # What is not in a record yet: the beginning of the last window, or of a look that the run's end cut off.
    assert 0 <= unrecorded <= (len(run.decisions[0].eps) + 2) * run.result["superbatch"]


@pytest.mark.parametrize("schedule", ["fixed", "staircase", "cosine", "knee", "hold"])
def test_every_schedule_trains(runner, tmp_path, schedule):
    code, _ = call(runner, "train", "digits", *SHORT, "--schedule", schedule, "--out", "run")
    assert code == 0
    rates = [line["lr"] for line in read_run(tmp_path / "run").steps]
    assert (len(set(rates)) == 1) == (schedule in {"fixed", "hold"})


def test_the_same_seed_gives_the_same_run_and_another_seed_another_one(runner, tmp_path):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        call(runner, "train", "digits", *SHORT, "--seed", seed, "--window", "8", "--out", name)
    a, b, c = (read_run(tmp_path / name) for name in "abc")
    assert a.epochs == b.epochs
    assert a.decisions == b.decisions
    assert a.epochs != c.epochs


def test_holding_the_rate_is_the_run_without_autolr(runner, tmp_path):
    call(runner, "train", "digits", *SHORT, "--schedule", "hold", "--window", "8", "--out", "hold")
    call(runner, "train", "digits", *SHORT, "--schedule", "fixed", "--out", "fixed")
    assert read_run(tmp_path / "hold").epochs == read_run(tmp_path / "fixed").epochs
    assert len(read_run(tmp_path / "hold").decisions) > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["train", "digit"], ["digit", "Did you mean digits?", "fashion-mnist"], id="workload"),
        pytest.param(["train", "digits", "--optimizer", "adan"], ["Did you mean adam", "momentum"], id="optimizer"),
        pytest.param(["train", "digits", "--schedule", "cosin"], ["Did you mean cosine", "autolr"], id="schedule"),
        pytest.param(["train", "mnist", "--data-dir", "nowhere"], ["nowhere", "train-images-idx3-ubyte"], id="data"),
        pytest.param(["train", "digits", "--explore", "2"], ["explore", "at most 1", "2"], id="explore"),
        pytest.param(["train", "digits", "--schedule", "fixed", "--explore", "0.1"], ["--explore", "fixed"], id="idle"),
        pytest.param(["train", "digits", "--schedule", "cosine", "--window", "3"], ["--window", "cosine"], id="window"),
        pytest.param(["train", "digits", "--superbatch", "1000"], ["superbatch", "at most", "1000"], id="superbatch"),
        pytest.param(["train", "digits", "--lr", "0"], ["lr", "0"], id="lr"),
        pytest.param(["train", "digits", "--device", "tpu"], ["tpu", "cpu", "cuda", "auto"], id="device"),
        pytest.param(["train", "digits", "--out", "file/run"], ["file/run", "cannot be written"], id="out"),
        pytest.param(["report", "nothing"], ["nothing", "run.json"], id="report"),
    ],
)
def test_a_mistake_ends_in_a_sentence_and_not_in_a_traceback(tmp_path, monkeypatch, capsys, arguments, words):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["autolr", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    printed = capsys.readouterr().err
    said = " ".join(re.sub(r"[^\x20-\x7e]", " ", printed).split())
    assert stop.value.code == 2
    assert "Traceback" not in printed
    for word in words:
        assert word in said


def test_a_folder_that_holds_a_run_is_never_written_over(runner, tmp_path):
    call(runner, "train", "digits", *SHORT, "--schedule", "fixed", "--out", "run")
    before = {p: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    with pytest.raises(ValueError, match="holds a run already"):
        call(runner, "train", "digits", *SHORT, "--schedule", "fixed", "--out", "run")
    assert before == {p: p.read_bytes() for p in (tmp_path / "run").iterdir()}


def test_a_refused_setting_leaves_the_folder_free_for_the_corrected_command(runner, tmp_path):
    with pytest.raises(ValueError, match="learning rate"):
        call(runner, "train", "digits", *SHORT, "--schedule", "fixed", "--lr", "-1", "--out", "run")
    assert not (tmp_path / "run").exists()
    code, _ = call(runner, "train", "digits", *SHORT, "--schedule", "fixed", "--out", "run")
    assert code == 0


def test_one_damaged_folder_does_not_hide_the_other_runs(runner, tmp_path):
    call(runner, "train", "digits", *SHORT, "--schedule", "fixed", "--out", "runs/good")
    (tmp_path / "runs" / "bad").mkdir()
    (tmp_path / "runs" / "bad" / "run.json").write_text("{}")
    code, printed = call(runner, "runs")
    assert code == 0
    assert "cannot be read" in printed
    assert "runs/good" in printed


def test_a_run_killed_at_any_moment_leaves_all_it_had(tmp_path):
    command = [sys.executable, "-m", "autolr_lab.cli.main", "train", "digits", "--window", "20", "--epochs", "1000"]
    run = tmp_path / "run"
    with subprocess.Popen([*command, "--out", str(run)], cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 300
        while not (run / "decisions.jsonl").exists() or (run / "decisions.jsonl").stat().st_size == 0:
            assert time.monotonic() < deadline, "no decision after five minutes"
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    read = read_run(run)
    assert read.result is None
    assert len(read.decisions) > 0
    assert read.steps[-1]["step"] >= read.decisions[-1].step - 10
    shown = autolr("runs", ".", cwd=tmp_path)
    assert shown.returncode == 0
    assert "cut" in shown.stdout


def test_runs_lists_what_is_there_and_says_so_where_nothing_is(runner):
    code, printed = call(runner, "runs")
    assert code == 0
    assert "No runs in runs" in printed
    call(runner, "train", "digits", *SHORT, "--schedule", "fixed")
    call(runner, "train", "digits", *SHORT, "--schedule", "fixed")
    code, printed = call(runner, "runs")
    assert code == 0
    assert len([p for p in Path("runs").iterdir() if (p / "run.json").exists()]) == 2
    assert printed.count("momentum") >= 2


def test_report_draws_several_runs_on_one_page(runner, tmp_path):
    call(runner, "train", "digits", *SHORT, "--schedule", "fixed", "--out", "fixed")
    call(runner, "train", "digits", *SHORT, "--window", "8", "--held-out", "--out", "tuned")
    code, printed = call(runner, "report", "fixed", "tuned", "--out", "page")
    assert code == 0
    assert "page/index.html" in printed
    page = (tmp_path / "page" / "index.html").read_text()
    for decision in read_run(tmp_path / "tuned").decisions:
        assert decision.reason.split("(")[0].split(":")[0] in page


def test_run_json_is_written_before_training_and_result_json_after(runner, tmp_path):
    call(runner, "train", "digits", *SHORT, "--schedule", "fixed", "--out", "run")
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    assert settings["workload"] == "digits"
    assert settings["epochs"] == 2
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps"] == 2 * 23


def test_help_names_every_workload_optimizer_and_schedule(runner):
    _, printed = call(runner, "train", "--help")
    said = " ".join(re.sub(r"[^\x20-\x7e]", " ", printed).split())
    for name in (*cli.WORKLOADS, *cli.OPTIMIZERS, *cli.SCHEDULES, *cli.TUNED):
        assert name in said
