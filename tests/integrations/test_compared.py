"""A lower peak tried in the middle of a framework's run leaves that run as it is, to the bit."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

import autolr
from autolr.policies.guard import LONGER, ShortRuns

pytestmark = [pytest.mark.frameworks, pytest.mark.filterwarnings("ignore")]

EXAMPLES = Path(__file__).parents[2] / "examples"
KNOWN = autolr.PeakSearch(peak=0.01)
COMPARED = autolr.PeakSearch(peak=0.01, short_runs=ShortRuns(2.3, 0.01, 3))  # which the run is behind by then
POLICY = {  # where each example is told of one
    "loop_lightning": ("AutoLRCallback()", "AutoLRCallback(policy=POLICY)"),
    "loop_transformers": ("train_dataset=train)", "train_dataset=train, autolr={'policy': POLICY})"),
    "loop_accelerate": ("loss_fn, epochs=epochs)", "loss_fn, epochs=epochs, policy=POLICY)"),
}


def run(name, policy, folder):
    """Weights, the generator's next number, and the optimizer."""
    text = (EXAMPLES / f"{name}.py").read_text()
    plain, told = POLICY[name]
    assert text.count(plain) == 1
    script = folder / f"{name}.py"
    script.write_text(text.replace(plain, told))
    (folder / "digits.csv.gz").write_bytes((EXAMPLES / "digits.csv.gz").read_bytes())
    there = runpy.run_path(str(script), init_globals={"POLICY": policy})
    optimizer = {
        "loop_lightning": lambda: there["tuned"].optimizer,
        "loop_transformers": lambda: there["trainer"].optimizer.optimizer,
        "loop_accelerate": lambda: there["optimizer"].optimizer,
    }[name]()
    return [p.detach() for group in optimizer.param_groups for p in group["params"]], torch.rand(()), optimizer


@pytest.mark.parametrize("name", POLICY)
def test_a_framework_s_run_is_left_as_it_is(name, tmp_path):
    weights, number, optimizer = run(name, COMPARED, tmp_path)
    steps = [record.step for record in optimizer.history if record.trigger == "stands"]
    assert steps == [LONGER * 3]
    without, same_number, other = run(name, KNOWN, tmp_path)
    assert not any(record.trigger == "stands" for record in other.history)
    assert all(torch.equal(a, b) for a, b in zip(weights, without, strict=True))
    assert torch.equal(number, same_number)
    assert optimizer.steps_taken == other.steps_taken == optimizer.total_steps
