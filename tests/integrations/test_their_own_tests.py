"""The frameworks' own tests of optimizers, where their packages carry them, with AutoLR in the optimizer's place."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import autolr

# Two need files that the package leaves out; one asks for an accuracy that it reaches on most days.
NOT = ["test_pickle_load", "test_load_cuda_params_to_cpu", "test_fit_lbfgs_optimizer"]


def test_skorch_s():
    skorch = pytest.importorskip("skorch")
    pytest.importorskip("sklearn")
    tests = Path(skorch.__file__).parent / "tests" / "test_net.py"
    if not tests.exists():
        pytest.skip("this skorch carries no tests")
    chosen = f"(optim or pickle or param_groups) and not ({' or '.join(NOT)})"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "ignore", "-p", "skorch_plugin", "-p", "no:cacheprovider",
         "-p", "no:xdist", "-k", chosen, str(tests)],
        capture_output=True, text=True, check=False, cwd=tests.parent,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) >= 40
    assert int(re.findall(r"wrapped (\d+) optimizers", done.stdout)[0]) >= 30


@pytest.mark.parametrize("dispatch", [False, True])
@pytest.mark.parametrize("split", [False, True])
def test_accelerate_s_of_accumulation_with_a_scheduler(split, dispatch, monkeypatch):
    pytest.importorskip("accelerate")
    from accelerate.state import AcceleratorState, GradientState
    from accelerate.test_utils.scripts import test_sync

    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    made = []

    def adamw(params, lr):
        held = list(params)
        model = torch.nn.Module()
        for place, p in enumerate(held):
            model.register_parameter(f"p{place}", p)

        def loss(model, batch):
            return sum(p.square().mean() for p in model.parameters())

        policy = autolr.Monitor(window=2, superbatch=1)
        made.append(autolr.AutoLR(torch.optim.AdamW(held, lr=lr), model, loss, [0], 1000, policy=policy))
        return made[-1]

    monkeypatch.setattr(test_sync, "AdamW", adamw)
    try:
        test_sync.test_gradient_accumulation_with_opt_and_scheduler(split, dispatch)
    finally:
        AcceleratorState._reset_state(True)
        GradientState._reset_state()
    bare, prepared = made
    assert bare.steps_taken == 5  # as it is written, the bare one steps at every minibatch
    assert prepared.steps_taken == 3
