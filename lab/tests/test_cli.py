"""The command line, as a user meets it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from autolr_lab.baselines import BASELINES
from autolr_lab.baselines.schedules import SCHEDULES
from autolr_lab.cli import main, names
from autolr_lab.paper.paper import EXPERIMENTS
from autolr_lab.training.optimizers import OPTIMIZERS
from autolr_lab.training.policies import POLICIES
from autolr_lab.training.runs import read_run
from autolr_lab.workloads import WORKLOADS

SHORT = ["--epochs", "2", "--batch-size", "64", "--device", "cpu"]
LAB = [sys.executable, "-m", "autolr_lab.cli.main"]


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Runs `autolr-lab` in this process, in a folder of its own: (exit code, everything it printed)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AUTOLR_DATA", raising=False)
    runner = CliRunner()

    def run(*arguments):
        result = runner.invoke(main.app, list(arguments))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output

    return run


def plain(text):
    """Without the frames of panels, on one line."""
    return " ".join(re.sub(r"[^\x20-\x7e]", " ", text).split())


# Help.


def test_the_names_that_help_lists_are_those_of_the_registries():
    for listed, registry in (
        (names.WORKLOADS, WORKLOADS), (names.OPTIMIZERS, OPTIMIZERS), (names.POLICIES, POLICIES),
        (names.SCHEDULES, SCHEDULES), (names.BASELINES, BASELINES), (names.EXPERIMENTS, EXPERIMENTS),
    ):  # fmt: skip
        assert sorted(listed) == sorted(registry)


@pytest.mark.parametrize("command", [[], ["train"], ["runs"], ["reproduce"], ["bench"], ["zoo"]], ids=str)
def test_help_imports_nothing_heavy(command):
    script = "import sys; from autolr_lab.cli.main import app; app()"
    heavy = ["torch", "numpy", "scipy", "sklearn", "matplotlib", "PIL", "transformers", "pyarrow"]
    check = f"import atexit, sys; atexit.register(lambda: print([m for m in {heavy} if m in sys.modules]))"
    asked = [sys.executable, "-c", f"{check}; {script}", *command, "--help"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True)
    assert "Usage:" in done.stdout
    assert done.stdout.endswith("[]\n")


def test_options_stand_in_panels_with_names_for_their_values(call):
    _, printed = call("train", "--help")
    panels = ("Learning rate", "Machine", "Output")
    assert all(panel in printed for panel in panels)
    for option in ("--lr RATE", "--out FOLDER", "--device <auto|cpu|cuda>", "--option NAME=VALUE"):
        assert option.split()[0] in printed
        assert option.split()[1] in plain(printed)


def test_the_version_is_that_of_both_packages(call):
    assert re.fullmatch(r"autolr-lab \d+\.\d+\.\d+ \(torch-autolr \d+\.\d+\.\d+\)\n", call("--version")[1])


def test_the_shell_completes_names():
    environment = {"_AUTOLR_LAB_COMPLETE": "complete_bash", "COMP_WORDS": "autolr-lab train fash", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", "from autolr_lab.cli.main import app; app(prog_name='autolr-lab')"],
        env={**environment, "PATH": ""}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["fashion-mnist"]


# Training.


def test_a_run_ends_with_its_table_and_leaves_a_folder_that_tells_everything(call, tmp_path):
    asked = ["--schedule", "explore-exploit", "--option", "window=8"]
    code, printed = call("train", "digits", *SHORT, *asked, "--out", "run")
    assert code == 0
    run = read_run(tmp_path / "run")
    for name in ("train loss", "test loss", "test accuracy", "probes", "changes of the rate", "rollbacks"):
        assert name in printed
    assert str(run.result["cost_forward_equivalents"]) in printed
    assert "autolr report run" in printed
    assert len(run.epochs) == 2
    assert run.result["probes"] == sum(bool(d.eps) for d in run.decisions) > 0
    assert run.settings.policy["window"] == 8
    assert run.settings.policy["explore"] == WORKLOADS["digits"].policy.explore  # Table 7's, where it has the workload
    assert {"command", "version", "commit", "machine", "torch", "started"} <= run.provenance.keys()
    steps = run.result["steps"]
    assert [line["step"] for line in run.steps] == list(range(10, steps + 1, 10))


@pytest.mark.parametrize(
    ("arguments", "policy", "options"),
    [
        (["--schedule", "adaptive", "--overhead", "0.3"], {"overhead": 0.3}, {}),
        (["--schedule", "monitor", "--validation-eps"], {"validation_eps": (-0.75, -0.375, 0.375, 0.75)}, {}),
        (["--schedule", "cosine", "--option", "warmup=0.1"], {}, {"warmup": 0.1}),
        (["--schedule", "staircase", "--option", "stairs=0.2,0.5"], {}, {"stairs": (0.2, 0.5)}),
        (["--schedule", "hypergradient", "--option", "beta=1e-4"], {}, {"beta": 1e-4}),
    ],
)
def test_options_reach_the_settings_of_whatever_sets_the_rate(call, tmp_path, arguments, policy, options):
    assert call("train", "digits", *SHORT, *arguments, "--out", "run")[0] == 0
    settings = read_run(tmp_path / "run").settings
    assert (settings.policy, settings.schedule_options) == (policy, options)


def test_a_baseline_trains_at_the_rate_that_its_authors_document(call, tmp_path):
    call("train", "digits", *SHORT, "--schedule", "prodigy", "--out", "run")
    assert read_run(tmp_path / "run").settings.lr == 1.0


def test_the_same_seed_gives_the_same_run_and_another_seed_another_one(call, tmp_path):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        call("train", "digits", *SHORT, "--seed", seed, "--schedule", "explore-exploit", "--out", name)
    a, b, c = (read_run(tmp_path / name) for name in "abc")
    assert a.epochs == b.epochs
    assert a.decisions == b.decisions
    assert a.epochs != c.epochs


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["train", "digit"], ["digit", "Did you mean digits?", "fashion-mnist"], id="workload"),
        pytest.param(["train", "digits", "--optimizer", "adan"], ["Did you mean adam", "momentum"], id="optimizer"),
        pytest.param(["train", "digits", "--schedule", "cosin"], ["Did you mean cosine", "find-peak"], id="schedule"),
        pytest.param(["train", "mnist", "--data-dir", "nowhere"], ["nowhere", "train-images-idx3-ubyte"], id="data"),
        pytest.param(
            ["train", "digits", "--schedule", "adaptive", "--option", "explore=2"], ["explore", "1", "2"], id="range"
        ),
        pytest.param(
            ["train", "digits", "--schedule", "cosine", "--option", "explore=1"],
            ["The schedule cosine has no option 'explore'. It has: warmup"], id="option",
        ),
        pytest.param(["train", "digits", "--schedule", "fixed", "--overhead", "1"], ["no option"], id="idle"),
        pytest.param(["train", "digits", "--option", "explore"], ["NAME=VALUE", "explore"], id="no value"),
        pytest.param(["train", "digits", "--option", "clip=__import__"], ["must be a number"], id="no number"),
        pytest.param(["train", "digits", "--schedule", "fixed", "--lr", "-1"], ["learning rate", "-1"], id="lr"),
        pytest.param(["train", "digits", "--device", "tpu"], ["tpu", "cpu", "cuda", "auto"], id="device"),
        pytest.param(["train", "digits", "--out", "file/run"], ["file/run", "cannot be written"], id="out"),
        pytest.param(["reproduce", "table99"], ["no table or figure 'table99'", "table9"], id="reproduce"),
        pytest.param(["reproduce", "table1", "--scale", "0"], ["--scale", "above 0 and at most 1"], id="scale"),
        pytest.param(["bench", "--workloads", "imagenet"], ["imagenet", "in the small budget", "digits"], id="bench"),
    ],
)  # fmt: skip
def test_a_mistake_ends_in_a_sentence_and_not_in_a_traceback(tmp_path, monkeypatch, capsys, arguments, words):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["autolr-lab", *arguments])
    with pytest.raises(SystemExit) as stop:
        main.main()
    printed = capsys.readouterr().err
    assert stop.value.code == 2
    assert "Traceback" not in printed
    for word in words:
        assert word in plain(printed)


def test_a_folder_that_holds_a_run_is_never_written_over(call, tmp_path):
    call("train", "digits", *SHORT, "--schedule", "fixed", "--out", "run")
    before = {p: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    with pytest.raises(ValueError, match="holds a run already"):
        call("train", "digits", *SHORT, "--schedule", "fixed", "--out", "run")
    assert before == {p: p.read_bytes() for p in (tmp_path / "run").iterdir()}


def test_a_run_killed_at_any_moment_leaves_all_it_had_and_is_listed_as_cut_off(tmp_path):
    run = tmp_path / "run"
    options = ["--schedule", "explore-exploit", "--option", "window=5", "--epochs", "1000", "--threads", "1"]
    command = [*LAB, "train", "digits", *options, "--out", str(run)]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 300
        while not (run / "decisions.jsonl").exists() or (run / "decisions.jsonl").stat().st_size == 0:
            assert time.monotonic() < deadline, "no decision after five minutes"
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    read = read_run(run)
    assert read.result is None
    assert len(read.decisions) > 0
    assert len(read.steps) >= read.decisions[-1].step // 10 - 1
    shown = subprocess.run([*LAB, "runs", "."], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    assert "cut" in shown.stdout


def test_runs_lists_what_is_there_past_a_damaged_folder_and_says_so_where_nothing_is(call, tmp_path):
    assert "No runs in runs" in call("runs")[1]
    for _ in range(2):
        call("train", "digits", *SHORT, "--schedule", "fixed")
    (tmp_path / "runs" / "bad").mkdir()
    (tmp_path / "runs" / "bad" / "run.json").write_text("{}")
    code, printed = call("runs")
    assert code == 0
    assert "cannot be read" in printed
    assert printed.count("momentum") == 2


def test_run_json_is_written_before_training_and_result_json_after(call, tmp_path):
    call("train", "digits", *SHORT, "--schedule", "fixed", "--out", "run")
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    assert (settings["workload"], settings["epochs"]) == ("digits", 2)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps"] == 2 * 23


# Many runs.


def test_a_plan_says_what_would_be_run_and_runs_nothing(call, tmp_path):
    code, printed = call(
        "bench", "--plan", "--results", str(tmp_path), "--workloads", "digits", "--methods", "cosine,Knee"
    )
    assert code == 0
    assert "digits momentum cosine" in printed
    assert re.search(r"(\d+) runs in all, \1 of them to be run\.", printed)
    assert not (tmp_path / "runs").exists()


def test_zoo_hands_its_arguments_on(call, monkeypatch):
    seen = []
    monkeypatch.setattr("autolr_lab.zoo.__main__.main", seen.append)
    call("zoo", "run", "--seeds", "0", "1", "--tasks", "two")
    assert seen == [["run", "--seeds", "0", "1", "--tasks", "two"]]
