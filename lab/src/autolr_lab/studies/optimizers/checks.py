"""What is asked of an optimizer: accepted, disturbed by nothing, continued and rolled back to the bit, tuned?"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import math
import random
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import autolr
from autolr.measure.sharded import plain_parts
from autolr.measure.snapshot import Snapshot
from autolr.runtime.together import as_one
from autolr_lab.runner.results import Row
from autolr_lab.studies.optimizers.candidates import Candidate

STEPS = 20  # of a run whose bits are compared
WHOLE = 300  # of a run whose peak is searched
SLOW = 0.02  # [s] of a step
OCTAVES = 2  # between two rates of the grid
WIDEST = 6  # rates on either side of the first at most
NEAR = 4.0  # a peak within this factor of the grid's best is found


class Digits:
    """8x8 digits, a net of two layers, and the minibatches of a run: the same for every optimizer."""

    def __init__(self) -> None:
        images, labels = load_digits(return_X_y=True)
        x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
        order = torch.from_numpy(np.random.default_rng(0).permutation(len(y)))
        self.batches = [(x[rows], y[rows]) for rows in order[:1536].split(32)]  # type: ignore[no-untyped-call]
        self.held_out = x[order[1536:]], y[order[1536:]]

    @staticmethod
    def network() -> nn.Module:
        """Always with the same weights."""
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))

    @staticmethod
    def loss(model: nn.Module, batch: Any) -> Tensor:
        """Cross entropy."""
        return F.cross_entropy(model(batch[0]), batch[1])

    def step(self, model: nn.Module, optimizer: Any, number: int) -> float:
        """One step; the loss before it."""
        optimizer.zero_grad()
        loss = self.loss(model, self.batches[number % len(self.batches)])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.item()


def check(candidate: Candidate, task: Digits, *, peak: bool = True) -> Row:
    """A row of the table: what each check came to, with the reason where it did not come to what it should.

    Without ``peak``, and for an optimizer whose steps are `SLOW`, no peak is searched.
    """
    row: Row = {"package": candidate.package, "version": candidate.version, "optimizer": candidate.name}
    warnings.simplefilter("ignore")
    try:
        _bare(candidate, task)  # the first one of all imports what takes longer than its steps
        began = time.process_time()
        _bare(candidate, task)
        peak = peak and time.process_time() - began < SLOW * STEPS
    except Exception as error:  # of any kind: it is the optimizer's own
        return row | {"outcome": "cannot be used so", "why": _first_line(error)}
    try:
        _tuned(candidate, task, autolr.Monitor())
        model, optimizer = _made(candidate)
        autolr.find_peak(model, optimizer, task.loss, task.batches, 20)
    except (TypeError, ValueError) as error:
        return row | {"outcome": "refused", "why": _first_line(error)}
    except Exception as error:
        return row | {"outcome": "fails", "why": _first_line(error)}
    row["outcome"] = "accepted"
    for name, asked in CHECKS.items():
        if name == "near" and not peak:
            continue
        try:
            row |= asked(candidate, task)
        except Exception as error:
            row |= {name: f"fails: {_first_line(error)}"}
    return row


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:300]


def _made(candidate: Candidate) -> tuple[nn.Module, Any]:
    """A network and its optimizer, in the mode to train where it has one."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    model = Digits.network()
    optimizer = as_one(candidate.make(model))
    torch.manual_seed(1)
    if callable(train := getattr(optimizer, "train", None)):
        train()
    return model, optimizer


def _tuned(candidate: Candidate, task: Digits, policy: Any, steps: int = STEPS) -> tuple[nn.Module, autolr.AutoLR]:
    model, base = _made(candidate)
    return model, autolr.AutoLR(base, model, task.loss, task.batches, steps, policy=policy)


def _bare(candidate: Candidate, task: Digits) -> tuple[list[float], str]:
    """Losses and bits of a run without AutoLR."""
    model, optimizer = _made(candidate)
    losses = [task.step(model, optimizer, number) for number in range(STEPS)]
    return losses, bits(model, optimizer)


def bits(model: nn.Module, optimizer: Any) -> str:
    """A digest of parameters and of the optimizer's state, however deep."""
    digest = hashlib.sha1()
    for part in _leaves([model.state_dict(), optimizer.state_dict()]):
        digest.update(part)
    return digest.hexdigest()


def _leaves(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key != "autolr":
                yield repr(key).encode()
                yield from _leaves(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _leaves(inner)
    elif isinstance(value, Tensor):
        for part in plain_parts(value):
            yield repr((part.dtype, part.shape)).encode()
            yield part.detach().cpu().contiguous().clone().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, (bool, int, float, str, type(None))):
        yield repr(value).encode()


def _innocent(candidate: Candidate, task: Digits) -> Row:
    """Under `Monitor`, the run without it."""
    model, optimizer = _tuned(candidate, task, autolr.Monitor(window=3, superbatch=2, spread=2))
    losses = [task.step(model, optimizer, number) for number in range(STEPS)]
    probed = sum(bool(record.eps) for record in optimizer.history)
    same = (losses, bits(model, optimizer.base)) == _bare(candidate, task)
    return {"innocent": "yes" if same and probed >= 3 else "no"}


def _resumed(candidate: Candidate, task: Digits) -> Row:
    """Continued from a file, the run that was not interrupted; the optimizer's own part apart."""

    def continued(make: Callable[[], tuple[nn.Module, Any]]) -> bool:
        whole = make()
        for number in range(11):
            task.step(*whole, number)
        file = io.BytesIO()
        torch.save([part.state_dict() for part in whole], file)
        again = make()
        file.seek(0)
        for part, state in zip(again, torch.load(file, weights_only=False), strict=True):
            part.load_state_dict(state)
        generator = torch.get_rng_state()
        for number in range(11, STEPS):
            task.step(*whole, number)
        torch.set_rng_state(generator)
        for number in range(11, STEPS):
            task.step(*again, number)
        return bits(*whole) == bits(*again)

    policy = autolr.ExploreExploit(window=3, superbatch=2, spread=2)
    if continued(lambda: _tuned(candidate, task, policy)):
        return {"resume": "yes"}
    return {"resume": "no" if continued(lambda: _made(candidate)) else "no, nor by itself"}


def _rolled_back(candidate: Candidate, task: Digits) -> Row:
    """From a snapshot the same steps once more."""
    model, optimizer = _made(candidate)
    for number in range(8):
        task.step(model, optimizer, number)
    kept = Snapshot.capture(model, optimizer)
    generators = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    once = [task.step(model, optimizer, number) for number in range(8, 14)], bits(model, optimizer)
    kept.restore(model, optimizer)
    torch.set_rng_state(generators[0])
    np.random.set_state(generators[1])  # noqa: NPY002
    random.setstate(generators[2])
    twice = [task.step(model, optimizer, number) for number in range(8, 14)], bits(model, optimizer)
    return {"rollback": "yes" if once == twice else "no"}


def _no_trace(candidate: Candidate, task: Digits) -> Row:
    """A search in the middle of a run, which goes on as without it."""
    model, optimizer = _made(candidate)
    losses = [task.step(model, optimizer, number) for number in range(7)]
    before = bits(model, optimizer)
    autolr.find_peak(model, optimizer, task.loss, task.batches, 200)
    same = before == bits(model, optimizer)
    losses += [task.step(model, optimizer, number) for number in range(7, STEPS)]
    same = same and (losses, bits(model, optimizer)) == _bare(candidate, task)
    return {"no trace": "yes" if same else "no"}


def _found(candidate: Candidate, task: Digits) -> Row:
    """The peak, beside the best of a grid of whole runs from the optimizer's own rate."""
    model, optimizer = _made(candidate)
    given = max(float(group["lr"]) for group in optimizer.param_groups)
    peak = autolr.find_peak(model, optimizer, task.loss, task.batches, WHOLE)
    grid = {0: _whole_run(candidate, task, peak, given)}
    for side in (1, -1):  # on both sides until two in a row are worse than the best
        for place in range(side, side * (WIDEST + 1), side):
            grid[place] = _whole_run(candidate, task, peak, given * 2.0 ** (OCTAVES * place))
            best = min(grid, key=grid.__getitem__)
            if abs(place - best) >= 2 and (place > best) == (side > 0):
                break
    best = min(grid, key=grid.__getitem__)
    at_best = given * 2.0 ** (OCTAVES * best)
    ratio = peak.lr / at_best
    return {
        "peak": peak.lr, "given": given, "grid": at_best, "told": peak.fallback is None, "ratio": ratio,
        "regret": math.log(max(_whole_run(candidate, task, peak, peak.lr), 1e-12) / max(grid[best], 1e-12)),
        "near": "yes" if 1 / NEAR <= ratio <= NEAR else "no",
    }  # fmt: skip


def _whole_run(candidate: Candidate, task: Digits, peak: autolr.Peak, lr: float) -> float:
    """The held-out loss after a run with that peak; infinite where it is none."""
    model, optimizer = _made(candidate)
    try:
        scheduler = dataclasses.replace(peak, lr=lr).scheduler(optimizer)
        for number in range(WHOLE):
            task.step(model, optimizer, number)
            scheduler.step()
        if callable(judge := getattr(optimizer, "eval", None)):
            judge()
        with torch.no_grad():
            loss = task.loss(model, task.held_out).item()
    except (RuntimeError, ValueError, ArithmeticError):  # some refuse what has diverged
        return math.inf
    return loss if math.isfinite(loss) else math.inf


CHECKS: dict[str, Callable[[Candidate, Digits], Row]] = {
    "innocent": _innocent, "resume": _resumed, "rollback": _rolled_back, "no trace": _no_trace, "near": _found,
}  # fmt: skip
