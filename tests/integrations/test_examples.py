"""The examples run as they are, and every loop finds the same peak on the same data."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
LOOPS = sorted(path.name for path in EXAMPLES.glob("loop_*.py"))
NEEDED = {
    "loop_accelerate.py": "accelerate", "loop_fastai.py": "fastai", "loop_lightning.py": "lightning",
    "loop_skorch.py": "skorch", "loop_transformers.py": "transformers",
}  # fmt: skip
said: dict[str, str] = {}


def run(name: str) -> str:
    if name in NEEDED and importlib.util.find_spec(NEEDED[name]) is None:
        pytest.skip(f"{NEEDED[name]} is not installed")
    if name not in said:
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / name)], capture_output=True, text=True, check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "Training ended after" not in done.stderr
        said[name] = done.stdout
    return said[name]


@pytest.mark.parametrize("name", LOOPS)
def test_an_example_trains_and_learns(name: str):
    found = run(name)
    assert "peak" in found
    assert float(re.findall(r"test accuracy ([\d.]+)", found)[0]) > 0.8


def test_the_same_loop_in_other_words_has_the_same_peak():
    reasons = {
        next(line for line in run(name).splitlines() if "peak" in line) for name in ("loop_plain.py", "loop_skorch.py")
    }
    reasons |= {next(line for line in run("loop_lightning.py").splitlines() if "peak" in line)}
    assert len(reasons) == 1


def test_there_are_examples_of_every_loop():
    assert set(NEEDED) < set(LOOPS)
    assert {"loop_plain.py", "loop_several_losses.py"} < set(LOOPS)
    assert all(len((EXAMPLES / name).read_text().splitlines()) <= 60 for name in LOOPS)
