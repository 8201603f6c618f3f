"""Where a number comes from: filled in, plain, and never somebody else's commit."""

import datetime
import json
import shutil
import subprocess

import pytest
import torch

import autolr
from autolr_lab.training import provenance as module
from autolr_lab.training.provenance import portable, provenance

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(*arguments, cwd):
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=cwd, check=True, capture_output=True, text=True
    ).stdout.strip()


def source_tree(root, package):
    """A repository with a copy of the module in it, tracked."""
    git("init", "--quiet", cwd=root)
    (root / package).mkdir(parents=True)
    (root / package / "provenance.py").write_text("")
    (root / "src" / "autolr").mkdir(parents=True, exist_ok=True)
    (root / "src" / "autolr" / "optimizer.py").write_text("")
    (root / "tests.py").write_text("")
    git("add", ".", cwd=root)
    git("commit", "--quiet", "--message", "first", cwd=root)
    return root / package / "provenance.py"


def test_it_says_what_is_needed_to_run_again(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/autolr", "train", "digits", "--out", "a folder"])
    said = provenance()
    assert said["command"] == "autolr train digits --out 'a folder'"
    assert said["version"] == autolr.__version__
    assert said["torch"] == torch.__version__
    assert said["threads"] == torch.get_num_threads()
    assert said["machine"]
    started = datetime.datetime.fromisoformat(said["started"])
    assert abs(datetime.datetime.now(datetime.timezone.utc) - started) < datetime.timedelta(minutes=1)
    assert json.loads(json.dumps(said)) == said


def test_the_commit_is_that_of_the_packages_and_a_plus_says_that_they_were_changed(tmp_path, monkeypatch):
    file = source_tree(tmp_path, "lab/src/autolr_lab/training")
    monkeypatch.setattr(module, "__file__", str(file))
    head = git("rev-parse", "--short=12", "HEAD", cwd=tmp_path)
    assert module._commit() == head
    (file.parent / "untracked.txt").write_text("notes are not the source")
    (tmp_path / "tests.py").write_text("neither is what lies beside the package")
    assert module._commit() == head
    for changed in (file, tmp_path / "src" / "autolr" / "optimizer.py"):
        changed.write_text("changed")
        assert module._commit() == head + "+"
        git("checkout", "--quiet", ".", cwd=tmp_path)


def test_the_commit_is_the_one_that_was_imported_and_not_what_the_tree_moved_on_to(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "__file__", str(source_tree(tmp_path, "lab/src/autolr_lab/training")))
    assert provenance()["commit"] == module.COMMIT != module._commit()


def test_outside_a_repository_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "__file__", str(tmp_path / "provenance.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert module._commit() is None


def test_a_portable_command_names_no_folders():
    command = "autolr-lab bench --out a --seeds 3 --runs='b c' --data-dir d --jobs 2"
    assert portable({"command": command, "commit": "1"}) == {
        "command": "autolr-lab bench --seeds 3 --jobs 2", "commit": "1",
    }  # fmt: skip


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert module._commit() is None


def test_installed_in_another_projects_environment_it_does_not_take_that_projects_commit(tmp_path, monkeypatch):
    source_tree(tmp_path, "src/theirs")
    installed = tmp_path / ".venv" / "lib" / "site-packages" / "autolr"
    installed.mkdir(parents=True)
    monkeypatch.setattr(module, "__file__", str(installed / "provenance.py"))
    assert module._commit() is None
