"""A full disk, a second writer, a damaged run beside others, a path that is markup: each is a sentence."""

import json
import math
import subprocess
import sys

import pytest
import torch
from typer.testing import CliRunner

from autolr_lab.cli.main import app
from autolr_lab.cli.train import diverged
from autolr_lab.training.access import LOCK, RunError, locked
from autolr_lab.training.runs import RunFolder, Settings, read_run

SETTINGS = Settings("digits", "sgd", "fixed", lr=0.1, epochs=2, batch_size=32, seed=7)
HOLDS = "import sys, time\nfrom pathlib import Path\nfrom autolr_lab.training.access import locked\n" + (
    "with locked(Path(sys.argv[1])):\n    print('has it', flush=True)\n    time.sleep(60)\n"
)


@pytest.fixture
def holder(tmp_path):
    """Another process that has the run's folder."""
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "has it\n"
        yield other
        other.kill()


def test_a_folder_has_one_writer_and_the_lock_lies_in_it_and_that_of_a_dead_process_holds_nobody(tmp_path, holder):
    assert (tmp_path / LOCK).exists()
    with pytest.raises(RunError, match=r"Another process trains in .*--out"), locked(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with locked(tmp_path), locked(tmp_path, wait=True):
        pass


@pytest.mark.parametrize("what", ["a line", "a checkpoint", "a result"])
def test_a_full_disk_is_a_sentence_that_tells_how_to_go_on(tmp_path, monkeypatch, what):
    folder = RunFolder(tmp_path, SETTINGS, {})
    folder.save({"weights": torch.ones(3)})
    name = {"a line": "steps.jsonl", "a checkpoint": "checkpoint.part", "a result": "result.part"}[what]
    (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(RunError, match=r"cannot be written: .*Make room.*--resume --out"):
        {
            "a line": lambda: folder.append("steps", {"loss": 1.0}),
            "a checkpoint": lambda: folder.save({"weights": torch.zeros(100_000)}),
            "a result": lambda: folder.finish({"loss": 1.0}),
        }[what]()
    (tmp_path / name).unlink(missing_ok=True)  # or it is read, without an end
    assert torch.equal(folder.load()["weights"], torch.ones(3))
    assert read_run(tmp_path).result is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", "[]"), ("run.json", "[" * 100_000), ("run.json", "{}"), ("run.json", b"\xff"),
        ("epochs.jsonl", '{"train_loss": "much"}\n'), ("epochs.jsonl", "[1]\n"), ("result.json", "[1]"),
        ("steps.jsonl", "x\ny\n"),
    ],
)  # fmt: skip
def test_a_damaged_run_is_named_and_hides_no_other(tmp_path, monkeypatch, name, content):
    monkeypatch.setenv("COLUMNS", "200")
    for run in ("good", "bad"):
        RunFolder(tmp_path / run, SETTINGS, {}).append("epochs", {"epoch": 1, "train_loss": 0.5})
    (tmp_path / "bad" / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    told = CliRunner().invoke(app, ["runs", str(tmp_path)])
    assert told.exception is None
    assert "0.5" in told.output
    assert str(tmp_path / "bad") in told.output.replace("\n", "")


def test_a_path_is_shown_as_it_is_neither_markup_nor_escape_codes(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    RunFolder(tmp_path / "[red]a[" / "[b]\x1b[31m", SETTINGS, {})
    told = CliRunner().invoke(app, ["runs", str(tmp_path)])
    assert told.exception is None
    assert r"[red]a[/[b]\x1b[31m" in told.output
    assert "\x1b" not in told.output


def test_a_run_that_diverged_ends_with_a_word_and_an_exit_code_of_its_own(tmp_path):
    done = CliRunner().invoke(
        app, ["train", "digits", "--schedule", "fixed", "--lr", "1e6", "--epochs", "1", "--out", str(tmp_path / "run")]
    )
    assert done.exit_code == 3
    assert "This run diverged: its training loss of the last epoch is" in done.stderr
    assert "before its first step. Take a lower --lr" in done.stderr
    listed = CliRunner().invoke(app, ["runs", str(tmp_path), "--json"])
    (row,) = json.loads(listed.stdout)
    assert (row["run"], row["lr"], row["finished"]) == (str(tmp_path / "run"), 1e6, True)


@pytest.mark.parametrize(
    ("first", "last", "is_said"),
    [(2.3, 0.1, False), (2.3, 2.4, True), (2.3, math.nan, True), (2.3, None, True), (None, 5.0, False)],
)
def test_diverged_is_a_loss_that_ends_above_its_beginning_or_is_no_number(first, last, is_said):
    assert (diverged({"first_loss": first, "train_loss": last}) is not None) == is_said
