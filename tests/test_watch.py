"""Runs are watched while they go: what is shown is what their logs tell, and the view ends when they do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest
from typer.testing import CliRunner

from autolr.cli.app import app
from autolr.cli.watch import Watched, duration, shown, time_left
from autolr.runtime.decision_log import DecisionRecord
from autolr.runtime.log_writer import RunLog
from autolr.runtime.run_log import Beat, LoggedRun

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("_no_vega")]

RECORD = DecisionRecord(
    step=10, phase="hold", verdict="keep", trigger="healthy", reason="LR kept at 0.1: [red]\x1b[31mno[/] divergence",
    lr_before=0.1, lr_after=0.1, loss=1.5, drop_rate=None, drop_rate_stderr=None, forwards=4, spent=30,
)  # fmt: skip


def written(path, steps=10, total=10):
    log = RunLog(path, {"optimizer": "SGD", "policy": "PeakSearch()", "seed": 0, "total_steps": total})
    for step in range(1, steps + 1):
        log.rate(step, 0.1)
    log.record(RECORD)
    return log


def dead(path):
    """The log of a process that is gone."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    path.write_text(path.read_text().replace(f'"pid": {os.getpid()}', f'"pid": {gone.pid}'))


def call(*arguments):
    done = CliRunner().invoke(app, ["watch", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def test_a_run_that_is_over_is_shown_once_with_its_curves_and_last_decision(tmp_path):
    written(tmp_path / "over.jsonl")
    code, shown, _ = call(tmp_path / "over.jsonl")
    assert code == 0
    assert "finished" in shown
    assert "10 of 10" in shown
    assert "learning rate" in shown
    assert r"LR kept at 0.1: [red]\x1b[31mno[/] divergence" in " ".join(shown.split())  # neither markup nor escape code
    assert "\x1b[31m" not in shown


@pytest.mark.parametrize("as_json", [False, True])
def test_a_log_that_cannot_be_read_is_named_and_the_exit_code_is_1(tmp_path, as_json):
    log = tmp_path / "log.jsonl"
    log.write_text('{"run": {"nonsense": 1}}\n{"step": "x"}\n', encoding="utf8")
    done = CliRunner().invoke(app, ["watch", str(log), *(["--json"] if as_json else [])])
    assert done.exit_code == 1
    assert "log.jsonl" in done.output.replace("\n", "")


def test_a_run_that_died_is_told_and_the_exit_code_is_1(tmp_path):
    written(tmp_path / "dead.jsonl", steps=4)
    dead(tmp_path / "dead.jsonl")
    code, shown, _ = call(tmp_path / "dead.jsonl")
    assert (code, "stopped" in shown, "4 of 10" in shown) == (1, True, True)


def test_the_runs_of_a_folder_are_a_table_and_other_files_are_left_alone(tmp_path):
    (tmp_path / "sub").mkdir()
    written(tmp_path / "one.jsonl")
    written(tmp_path / "sub" / "two.jsonl", steps=3)
    (tmp_path / "points.jsonl").write_text('{"loss": 1}\n')
    states = json.loads(call(tmp_path, "--json")[1])
    assert [(s["name"], s["status"], s["step"], s["lr"]) for s in states] == [
        ("one", "finished", 10, 0.1), ("two", "running", 3, 0.1),
    ]  # fmt: skip


def test_a_damaged_log_is_told_of_and_the_others_are_shown(tmp_path):
    written(tmp_path / "one.jsonl")
    written(tmp_path / "two.jsonl")
    with (tmp_path / "two.jsonl").open("a") as log:
        log.write('{"step": "x"}\n')
    code, shown, _ = call(tmp_path)
    assert code == 1
    assert "one" in shown
    assert "Line 4" in " ".join(shown.split())


def test_a_run_is_followed_to_its_end(tmp_path):
    log = written(tmp_path / "run.jsonl", steps=3)

    def go_on():
        for step in range(4, 11):
            time.sleep(0.1)
            log.rate(step, 0.2)
            log.beat()

    rest = threading.Thread(target=go_on)
    rest.start()
    code, shown, _ = call(tmp_path / "run.jsonl", "--every", "0.1")
    rest.join()
    assert code == 0
    assert "10 of 10" in shown


def test_what_is_not_there_is_refused(tmp_path):
    code, _, error = call(tmp_path / "nowhere")
    assert (code, "does not exist" in error) == (2, True)


def test_a_folder_is_watched_before_its_first_run_begins(tmp_path):
    later = threading.Timer(0.5, lambda: written(tmp_path / "run.jsonl"))
    later.start()
    code, shown, _ = call(tmp_path, "--every", "0.1")
    later.join()
    assert code == 0
    assert "10 of 10" in shown
    assert json.loads(call(tmp_path, "--json")[1])[0]["step"] == 10


def test_of_a_log_without_a_line_nothing_is_told_and_its_run_is_waited_for(tmp_path):
    log = tmp_path / "run.jsonl"
    log.write_text('{"run": {"optim')  # a first line that is not whole
    assert json.loads(call(log, "--json")[1]) == []
    watched = Watched([log])
    watched.read()
    assert str(shown(watched, 80)).startswith("Nothing is there yet.")
    assert not watched.settled()
    log.write_text("")
    later = threading.Timer(0.5, lambda: written(log))
    later.start()
    code, told, _ = call(log, "--every", "0.1")
    later.join()
    assert (code, "10 of 10" in told) == (0, True)


def test_time_left_is_told_by_the_recent_speed():
    now = time.time()
    beats = tuple(Beat(10 * n, now - 10 + n, ((0.1, 10),)) for n in range(11))
    about = {"total_steps": 500, "pid": os.getpid(), "host": __import__("socket").gethostname()}
    assert time_left(LoggedRun(about, (), beats)) == pytest.approx(40, abs=0.5)
    assert time_left(LoggedRun(about, (), beats[:1])) is None
    assert time_left(LoggedRun({**about, "total_steps": 100}, (), beats)) is None  # over
    assert [duration(s) for s in (0, 59.2, 61, 86_399)] == ["0 s", "1 min", "1 min 1 s", "23 h 59 min"]


def ask(address, path, host=None):
    request = urllib.request.Request(address + path, headers={} if host is None else {"Host": host})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read().decode()


def test_the_served_page_is_new_when_a_log_has_grown_and_shown_to_this_machine_alone(tmp_path):
    pytest.importorskip("autolr.cli.serve")
    from autolr.cli.serve import server

    with server(Watched([tmp_path]), 0) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        host, port = listening.server_address
        address = f"http://{host}:{port}/"
        assert host == "127.0.0.1"
        assert "Waiting for the log" in ask(address, "")
        log = written(tmp_path / "run.jsonl", steps=3)
        page, first = ask(address, ""), ask(address, "version")
        assert "running" in page
        assert f'newest === "{first}"' in page
        assert ask(address, "version") == first
        for step in range(4, 11):
            log.rate(step, 0.2)
        assert ask(address, "version") != first
        assert "finished" in ask(address, "")
        for path, name, code in (("elsewhere", None, 404), ("", "evil.example", 403)):
            with pytest.raises(urllib.error.HTTPError) as refused:
                ask(address, path, name)
            assert refused.value.code == code
            refused.value.close()
        listening.shutdown()


def test_serving_says_where_and_ends_with_ctrl_c(tmp_path):
    written(tmp_path / "run.jsonl", steps=3)
    command = [sys.executable, "-m", "autolr.cli", "watch", str(tmp_path), "--serve"]
    # In the background of a script Ctrl-C is ignored, and would be by this process too.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        serving = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        address = serving.stdout.readline().split()[0]
        assert "running" in ask(address, "/")
        serving.send_signal(signal.SIGINT)
        out, error = serving.communicate(timeout=60)
    finally:
        serving.kill()
        serving.wait()
    assert (serving.returncode, out, error) == (0, "", "")
