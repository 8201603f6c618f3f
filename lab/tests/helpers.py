"""What tests of training share: prints of bits, and runs that are killed."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from autolr_lab.training.runs import read_run

DATA = Path(os.environ.get("AUTOLR_DATA", Path(__file__).parents[3] / "shared" / "data"))


def seed_everything(seed):
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def bits(tensor):
    """A digest of a tensor's very bits; None of what is none."""
    if tensor is None:
        return None
    own = tensor.detach().cpu().contiguous().clone()
    raw = own.reshape(-1).view(torch.uint8).numpy().tobytes()
    return f"{tensor.dtype}{tuple(tensor.shape)}{hashlib.sha1(raw).hexdigest()}"


def print_of_generators():
    numpys = [x.tolist() if hasattr(x, "tolist") else x for x in np.random.get_state()]  # noqa: NPY002
    return bits(torch.get_rng_state()), numpys, random.getstate()


def print_of(model):
    return {name: bits(value) for name, value in model.state_dict().items()}


class Killed(BaseException):
    """Nobody catches it."""


def killed_after(step):
    """A report that ends the process, as far as training can tell."""

    def report(point):
        if point.step == step:
            raise Killed

    return report


def decisions_of(run):
    """The decisions of a run without the seconds that a search took."""
    timeless = ({k: v for k, v in (one.search or {}).items() if k != "seconds"} for one in run.decisions)
    return [dataclasses.replace(one, search=search) for one, search in zip(run.decisions, timeless, strict=True)]


def comparable(path):
    """Everything that a run leaves but for its clocks."""
    run = read_run(path)
    numbers = {k: v for k, v in run.result.items() if "seconds" not in k and k != "cost"}
    return run.steps, run.epochs, decisions_of(run), numbers


def real(*parts):
    """A file or folder of the real data; skips the test where it is not there."""
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no {'/'.join(parts)} in {DATA}: name the folder in AUTOLR_DATA")
    return path
