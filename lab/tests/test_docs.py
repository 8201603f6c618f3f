"""Everything shown is executed: the README's code, the documents' tables, links, and the command line's examples."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from typer.testing import CliRunner

import autolr
from autolr_lab.cli.main import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def names_that_the_reader_has():
    """What a training script has before it meets AutoLR."""
    torch.manual_seed(0)
    images, labels = torch.randn(256, 8), torch.randint(0, 3, (256,))
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))

    def loss_fn(model, batch):
        inputs, labels = batch
        return F.cross_entropy(model(inputs), labels)

    train_loader = DataLoader(TensorDataset(images, labels), batch_size=16, shuffle=True)
    return {
        "torch": torch, "autolr": autolr, "AutoLR": autolr.AutoLR, "model": model, "loss_fn": loss_fn,
        "train_loader": train_loader, "epochs": 60,  # enough steps to pay for a look
    }  # fmt: skip


@pytest.mark.parametrize("side", ["-", "+"])
def test_the_diff_of_the_first_screen_runs_with_and_without_the_line_it_adds(side):
    (diff,) = blocks(README, "diff")
    lines = [line[2:] for line in diff.splitlines() if line[:1] in {" ", side}]
    names = names_that_the_reader_has()
    exec("\n".join(lines), names)
    assert isinstance(names["optimizer"], autolr.AutoLR) == (side == "+")
    if side == "+":
        assert len(names["optimizer"].history) > 0


def test_the_readme_s_python_blocks_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = names_that_the_reader_has()
    code = blocks(README, "python")
    assert code
    for block in code:
        exec(block, names)
    assert (tmp_path / "decisions.jsonl").read_text().count("\n") == len(names["optimizer"].history) > 0


def test_the_readme_s_commands_are_understood(tmp_path, monkeypatch):
    """Each `autolr` command shown, on the shortest run there is: the workload and options must exist."""
    monkeypatch.chdir(tmp_path)
    commands = [
        shlex.split(line, comments=True)
        for text in [page.read_text(encoding="utf8") for page in PAGES]
        for block in blocks(text, "sh")
        for line in block.splitlines()
        if line.startswith("autolr ")
    ]
    assert {command[1] for command in commands} >= {"train", "report", "runs"}
    for command in commands:
        result = CliRunner().invoke(app, [command[1], "--help"])
        known = set(re.findall(r"--[a-z-]+", re.sub(r"\x1b\[[0-9;]*m", "", result.output)))
        assert {word for word in command if word.startswith("--")} <= known, command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page):
    text = page.read_text(encoding="utf8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf8"), flags=re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in slugs, target


def test_every_table_in_the_documents_is_its_record_s():
    marked = 0
    for page in PAGES:
        text = page.read_text(encoding="utf8")
        for record, table in re.findall(r"<!-- table: (\S+) -->\n\n(.*?\n)\n", text, flags=re.DOTALL):
            marked += 1
            assert table.strip() in (ROOT / record).read_text(encoding="utf8"), record
    assert marked >= 4


@pytest.fixture
def write_results(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import write_results

    yield write_results
    sys.modules.pop("write_results")


def test_the_documents_are_what_the_command_that_writes_them_writes(write_results):
    for page in write_results.PAGES:
        text = page.read_text(encoding="utf8")
        assert write_results.written(text) == text, page


def test_a_documents_table_is_written_from_its_record_and_the_rest_is_left_alone(write_results, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "table.md").write_text("# Title\n\n| a |\n| --- |\n| 1 |\n\n- told\n")
    text = "Before.\n\n<!-- record: one -->\nold\n<!-- /record -->\n\nAfter.\n"
    expected = "Before.\n\n<!-- record: one -->\n\n| a |\n| --- |\n| 1 |\n\n- told\n\n<!-- /record -->\n\nAfter.\n"
    assert write_results.written(text, tmp_path) == expected
    assert write_results.written(expected, tmp_path) == expected
    with pytest.raises(ValueError, match="There is no record two"):
        write_results.written(text.replace("one", "two"), tmp_path)
    with pytest.raises(ValueError, match="needs its"):
        write_results.written(text.replace("<!-- /record -->", ""), tmp_path)


def test_the_readme_shows_a_picture_that_is_there():
    (picture,) = re.findall(r"!\[[^\]]*\]\(([^)]+\.png)\)", README)
    assert (ROOT / picture).stat().st_size > 10_000
