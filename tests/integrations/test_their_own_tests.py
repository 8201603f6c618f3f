"""The frameworks' own tests of optimizers, where their packages carry them, with AutoLR in the optimizer's place.

skorch and accelerate do. Lightning, Transformers and fastai carry none; accelerate's others want data or DeepSpeed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import autolr

# Two need files that the package leaves out; one asks for an accuracy that it reaches on most days.
NOT = ["test_pickle_load", "test_load_cuda_params_to_cpu", "test_fit_lbfgs_optimizer"]


@pytest.mark.parametrize(
    ("files", "chosen", "passed", "wrapped"),
    [
        (["test_net.py"], f"(optim or pickle or param_groups) and not ({' or '.join(NOT)})", 40, 30),
        (["callbacks/test_lr_scheduler.py", "callbacks/test_regularization.py"], "", 30, 20),
    ],
    ids=["optimizers", "schedulers and clipping"],
)
def test_skorch_s(files, chosen, passed, wrapped):
    skorch = pytest.importorskip("skorch")
    pytest.importorskip("sklearn")
    tests = Path(skorch.__file__).parent / "tests"
    if not tests.exists():
        pytest.skip("this skorch carries no tests")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "ignore", "-p", "skorch_plugin", "-p", "no:cacheprovider",
         "-p", "no:xdist", "-k", chosen, *files],
        capture_output=True, text=True, check=False, cwd=tests,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) >= passed
    assert int(re.findall(r"wrapped (\d+) optimizers", done.stdout)[0]) >= wrapped


def watched(kind: type[torch.optim.Optimizer], made: list[autolr.AutoLR]) -> Any:
    """An optimizer's class whose instances are watched by AutoLR, for tests that know no model where they make it."""

    def make(params: Any, lr: float) -> autolr.AutoLR:
        held = list(params)
        model = torch.nn.Module()
        for place, p in enumerate(held):
            model.register_parameter(f"p{place}", p)

        def loss(model: torch.nn.Module, batch: Any) -> torch.Tensor:
            return sum((p.square().mean() for p in model.parameters()), torch.zeros(()))

        policy = autolr.Monitor(window=2, superbatch=1)
        made.append(autolr.AutoLR(kind(held, lr=lr), model, loss, [0], 1000, policy=policy))
        return made[-1]

    return make


@pytest.fixture
def accelerate_on_cpu(monkeypatch):
    pytest.importorskip("accelerate")
    from accelerate.state import AcceleratorState, GradientState

    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    yield
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


@pytest.mark.parametrize("dispatch", [False, True])
@pytest.mark.parametrize("split", [False, True])
def test_accelerate_s_of_accumulation_with_a_scheduler(split, dispatch, monkeypatch, accelerate_on_cpu):
    from accelerate.test_utils.scripts import test_sync

    made: list[autolr.AutoLR] = []
    monkeypatch.setattr(test_sync, "AdamW", watched(torch.optim.AdamW, made))
    test_sync.test_gradient_accumulation_with_opt_and_scheduler(split, dispatch)
    bare, prepared = made
    assert bare.steps_taken == 5  # as it is written, the bare one steps at every minibatch
    assert prepared.steps_taken == 3


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seedable", [False, True])
def test_accelerate_s_of_a_training_that_is_that_of_one_process(seedable, monkeypatch, accelerate_on_cpu):
    from accelerate import Accelerator
    from accelerate.test_utils.scripts import test_script

    Accelerator()  # the test reads its state
    made: list[autolr.AutoLR] = []
    monkeypatch.setattr(torch.optim, "SGD", watched(torch.optim.SGD, made))
    test_script.training_check(seedable)
    assert len(made) >= 3
    assert all(optimizer.steps_taken == 12 and optimizer.history for optimizer in made)
