"""The command ``autolr``, as a user meets it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import autolr
from autolr.cli.app import app
from autolr.runtime.decision_log import DecisionRecord
from full_disk import a_disk_of

RECORD = DecisionRecord(
    step=10, phase="explore", verdict="raise", trigger="fit asks", reason="the fit asks for more", lr_before=0.1,
    lr_after=0.2, loss=1.0, drop_rate=None, drop_rate_stderr=None, forwards=3, spent=6,
)  # fmt: skip


pytestmark = pytest.mark.usefixtures("_no_vega")


@pytest.fixture
def log(tmp_path):
    file = tmp_path / "run.jsonl"
    file.write_text(RECORD.to_json() + "\n")
    return file


def call(*arguments):
    """Run it in this process: exit code, standard output and standard error."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def python(script):
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)


def without(package, *arguments):
    """Run it where a package is not installed."""
    command = f"sys.argv = {['autolr', *map(str, arguments)]!r}; from autolr.cli import main; main()"
    return python(f"import sys; sys.modules[{package!r}] = None; {command}")


def test_help_is_quick_since_it_imports_neither_torch_nor_matplotlib():
    script = """
import contextlib, io, sys
sys.argv = ["autolr", "--help"]
from autolr.cli import main
with contextlib.redirect_stdout(io.StringIO()) as told, contextlib.suppress(SystemExit):
    main()
assert "report" in told.getvalue()
print(sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "numpy", "matplotlib", "jinja2", "autolr"}))
"""
    assert python(script).stdout.strip() == "['autolr']"


def test_a_report_is_drawn_without_torch(log):
    done = python(f"""
import sys
from autolr.report import page
page._vega = lambda: ""
sys.argv = ["autolr", "report", {str(log)!r}]
from autolr.cli import main
try:
    main()
finally:
    assert "torch" not in sys.modules
""")
    assert done.returncode == 0, done.stderr


def test_the_version_is_the_package_s():
    assert call("--version") == (0, f"autolr {autolr.__version__}\n", "")


def test_completion_can_be_installed():
    assert "--install-completion" in call("--help")[1]


def test_a_log_is_drawn_beside_it_and_told_in_a_sentence(log):
    code, told, _ = call("report", log)
    page = log.parent / "report" / "index.html"
    assert code == 0
    assert told.splitlines()[0] == (
        "run: The learning rate went from 0.1 to 0.2: 0 probes, 1 rise; AutoLR cost 20 % of the run's own cost."
    )
    assert told.splitlines()[1] == f"Report: {page}", "unbroken, however long the path is"
    assert "the fit asks for more" in page.read_text()


def test_what_cannot_be_read_is_said_and_the_others_are_shown(log, tmp_path):
    (tmp_path / "bad.jsonl").write_text(RECORD.to_json() + "\n{\n\n")
    code, told, error = call("report", tmp_path / "bad.jsonl", log, "--out", tmp_path / "one.html")
    assert code == 0
    assert (error.count("\n"), "bad.jsonl, line 2, is damaged" in error) == (1, True)
    assert [line.partition(":")[0] for line in told.splitlines()] == ["run", "Report"]
    assert told.splitlines()[-1] == f"Report: {tmp_path / 'one.html'}"
    assert (tmp_path / "one.html").is_file()


def test_folders_and_logs_are_drawn_together_where_the_user_says(log, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "steps.jsonl").write_text(json.dumps({"step": 5, "lr": 0.1, "loss": 2.0}) + "\n")
    code, told, _ = call("report", log, tmp_path / "other", "--out", tmp_path / "page")
    assert code == 0
    assert [line.partition(":")[0] for line in told.splitlines()] == ["run", "other", "Report"]
    assert (tmp_path / "page" / "index.html").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(None, "does not exist", id="missing"),
        pytest.param(b"", "is no decision log", id="empty"),
        pytest.param(b"\x00\xff\xfe", "is no decision log", id="binary"),
        pytest.param(b'{"step": 1, "verdict": "keep"}\n', "line 1, is damaged", id="other version"),
        pytest.param(RECORD.to_json().encode() + b"\n\x1b[31mred\n\n", "line 2, is damaged", id="damaged"),
        pytest.param(RECORD.to_json().encode() + b"\n\xff\n", "line 2, is damaged", id="not utf8"),
    ],
)
def test_a_mistake_ends_in_one_clean_line(tmp_path, content, words):
    file = tmp_path / "[/]\x1b[31m.jsonl"
    file.parent.mkdir()
    if content is not None:
        file.write_bytes(content)
    code, told, error = call("report", file)
    assert (code, told) == (2, "")
    assert error.count("\n") == 1
    assert error.startswith("Error: ")
    assert r"[/]\x1b[31m.jsonl" in error
    assert "\x1b" not in error
    assert words in error


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(log):
    log.chmod(0)
    code, _, error = call("report", log)
    assert (code, error.count("\n")) == (2, 1)
    assert "Permission denied" in error


def test_a_report_that_cannot_be_written_is_one_line(log, tmp_path):
    (tmp_path / "file").touch()
    code, _, error = call("report", log, "--out", tmp_path / "file")
    assert (code, error.count("\n")) == (2, 1)
    assert "Name another file with --out" in error


@pytest.mark.parametrize("there", [True, False], ids=["an earlier one", "none yet"])
def test_a_full_disk_leaves_no_half_of_a_page_or_table(searched, tmp_path, there):
    for command, name in (("report", "page.html"), ("replay", "rates.csv")):
        out = tmp_path / name
        if there:
            (tmp_path / f"linked {name}").write_text("an earlier one")
            out.symlink_to(tmp_path / f"linked {name}")
        before = sorted(tmp_path.iterdir())
        with a_disk_of(300):
            code, _, error = call(command, searched[0], "--out", out)
        assert (code, error.count("\n"), "File too large" in error) == (2, 1, True)
        assert sorted(tmp_path.iterdir()) == before
        assert not there or out.read_text() == "an earlier one"
        assert call(command, searched[0], "--out", out)[0] == 0
        assert out.stat().st_size > 300
        assert out.is_symlink() is there


def test_rates_can_be_written_to_what_is_no_file(searched):
    assert call("replay", searched[0], "--out", os.devnull)[0] == 0
    assert not Path(os.devnull).is_file()


def test_the_name_of_a_training_is_harmless_in_the_terminal(tmp_path):
    folder = tmp_path / "[bold]\x1b[31m\n_$x"
    folder.mkdir()
    (folder / "run.jsonl").write_text(RECORD.to_json() + "\n")
    code, told, _ = call("report", folder)
    assert code == 0
    assert told.startswith(r"[bold]\x1b[31m\n_$x: The learning rate")
    assert told.count("\n") == 2
    assert "\x1b" not in told


@pytest.mark.parametrize("mistake", [["repot"], ["report"], ["report", "--[/]\x1b[31m", "x"], ["--\x1b[31m"]])
def test_a_command_that_there_is_not_is_a_usage_error(mistake):
    code, _, error = call(*mistake)
    assert code == 2
    assert "Usage" in re.sub(r"\x1b\[[0-9;]*m", "", error)


def test_without_the_extra_it_says_what_to_install():
    done = without("typer", "--help")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "pip install 'torch-autolr[cli]'" in done.stderr


@pytest.mark.parametrize("package", ["vl_convert", "jinja2"])
def test_without_what_draws_the_report_says_what_to_install(package, log, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("autolr.report", package))]:
        monkeypatch.delitem(sys.modules, name)  # to be imported anew
    monkeypatch.setitem(sys.modules, package, None)
    code, told, error = call("report", log)
    assert (code, told, error.count("\n")) == (1, "", 1)
    assert f"{package}: pip install 'torch-autolr[report]'" in error


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The log of a run whose peak was searched, and the run."""
    log = tmp_path_factory.mktemp("searched") / "run.jsonl"
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    batches = [torch.randn(8, 4) for _ in range(12)]

    def loss_fn(model, batch):
        return (model(batch) - batch.sum(1, keepdim=True)).square().mean()

    optimizer = autolr.AutoLR(torch.optim.SGD(model.parameters(), lr=0.001), model, loss_fn, batches, 60, trace=log)
    for step in range(60):
        optimizer.zero_grad()
        loss_fn(model, batches[step % 12]).backward()
        optimizer.step()
    return log, optimizer


def test_a_log_is_told_in_words_with_each_decision(searched):
    log, optimizer = searched
    code, told, _ = call("explain", log, "--json")
    sentences = json.loads(told)
    assert code == 0
    assert sentences[0] == f"SGD under {optimizer.policy!r}: 60 of 60 steps taken, finished."
    assert f"Peak {optimizer.history[0].search['lr']:.3g} (" in sentences[1]
    for record in optimizer.history:
        assert any(record.reason in sentence for sentence in sentences[2:]) or record.trigger == "healthy"
    wide = call("explain", log)[1]
    assert " ".join(wide.split()) == " ".join(" ".join(sentences).split())  # wrapped, and nothing lost


def test_a_step_is_told_by_the_decision_it_goes_back_to_and_what_that_rests_on(searched):
    log, optimizer = searched
    rate = dict(autolr.read_run(log).rates())[50]
    sentences = json.loads(call("explain", log, "--step", 50, "--json")[1])
    assert sentences[0] == f"Step 50 was taken at a learning rate of {rate:.3g}."
    assert sentences[1] == f"It goes back to {optimizer.history[0]}."
    short_runs = " ".join(s for s in sentences if s.startswith("Losses at the end of short runs"))
    assert all(f"{run['lr']:.3g}: " in short_runs for run in optimizer.history[0].search["runs"])
    assert f"{100 * rate / optimizer.history[0].lr_after:.3g} % of the peak: the schedule falls there" in " ".join(
        sentences
    )
    for wrong in (0, 61):
        code, _, error = call("explain", log, "--step", wrong)
        assert (code, "one of the 60 that the run has taken" in error) == (2, True)


def test_a_log_that_begins_late_says_so_and_tells_nothing_of_steps_that_it_does_not_have(searched, tmp_path):
    about, *others = map(json.loads, searched[0].read_text().splitlines())
    about["run"] |= {"from": 50, "decisions": 1}
    late = tmp_path / "late.jsonl"

    def with_rates(*rates):
        beat = {"beat": 60, "time": 1.0, "rates": rates, "loss": None}
        decided = [line for line in others if "verdict" in line and line["step"] > 50]
        late.write_text("".join(json.dumps(line) + "\n" for line in (about, *decided, beat)))

    with_rates([0.5, 4], [0.25, 6])
    says = "the log begins after step 50, with 1 decision before it."
    assert json.loads(call("explain", late, "--json")[1])[0].endswith(f"60 of 60 steps taken, finished; {says}")
    told = json.loads(call("explain", late, "--step", 52, "--json")[1])
    assert told[1] == f"It may go back to a decision that is not here; {says}"
    for step in (50, 20):
        code, _, error = call("explain", late, "--step", step)
        assert (code, f"does not tell of step {step}: it begins after step 50" in error) == (2, True)
    with_rates([0.25, 6])
    code, _, error = call("explain", late, "--step", 53)
    assert (code, "does not tell of step 53: lines of it are missing" in error) == (2, True)


def test_the_rates_of_a_run_are_given_to_another_program_to_the_bit(searched, tmp_path):
    log, _ = searched
    rates = [rate for _, rate in autolr.read_run(log).rates()]
    code, told, _ = call("replay", log, "--json", "--out", tmp_path / "rates.csv")
    assert code == 0
    assert json.loads(told) == rates
    table = [line.split(",") for line in (tmp_path / "rates.csv").read_text().splitlines()]
    assert table == [["step", "lr"], *[[str(n), repr(rate)] for n, rate in enumerate(rates, start=1)]]
    assert len(json.loads(call("replay", log, "--total-steps", 90, "--json")[1])) == 90
    shown = call("replay", log)[1]
    assert f"autolr.Replay(optimizer, {str(log)!r})" in shown
    code, _, error = call("replay", log, "--out", tmp_path / "nowhere" / "rates.csv")
    assert (code, "cannot be written" in error) == (2, True)


@pytest.mark.parametrize("command", ["explain", "replay"])
def test_a_log_that_cannot_be_read_is_one_sentence_and_exit_code_2(command, tmp_path):
    (tmp_path / "notes.jsonl").write_text("my notes\n")
    for name, said in (("missing.jsonl", "cannot be read"), ("notes.jsonl", "none of this version's decision log")):
        code, told, error = call(command, tmp_path / name)
        assert (code, told) == (2, "")
        assert said in error
        assert "Traceback" not in error
