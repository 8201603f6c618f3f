"""What comes of a training's faults with AutoLR and without: the table of docs/faults.md, each row a test."""

from __future__ import annotations

import functools
import math
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import data, loss_fn, network

import autolr

STEPS = 60
TUNED: dict[str, Callable[[], Any] | None] = {
    "without AutoLR": None,
    "PeakSearch()": lambda: autolr.PeakSearch(peak=0.1),
    "ExploreExploit()": lambda: autolr.ExploreExploit(window=5, superbatch=4, spread=2),
}
AT = (0, 1, 7, 30, 58)  # steps
Hook = Callable[[Any, torch.nn.Module, int], None]


def trained(tuned: str, fault: Hook, *, before: Hook | None = None, trace: Any = None) -> dict[str, Any]:
    """Train, with a fault between the backward pass and the step; what came of it."""
    torch.manual_seed(0)
    model, batches = network(), data()
    base = torch.optim.AdamW(model.parameters(), lr=0.02)
    policy = TUNED[tuned]
    optimizer: Any = base
    told: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if policy is not None:
            optimizer = autolr.AutoLR(base, model, loss_fn, batches, STEPS, policy=policy(), trace=trace)
        started = evaluated(model, batches)
        for step in range(STEPS):
            optimizer.zero_grad()
            batch = batches[step % len(batches)]
            if before is not None:
                before(batch, model, step)
            loss_fn(model, batch).backward()
            fault(optimizer, model, step)
            optimizer.step()
        told = [str(warning.message) for warning in caught]
    end = evaluated(model, batches)
    finite = all(bool(torch.isfinite(p).all()) for p in model.parameters())
    history = [] if policy is None else optimizer.history
    return {
        "start": started, "end": end, "finite": finite, "learned": finite and end < started,
        "rolled back": any(record.verdict == "roll back" for record in history), "told": told,
    }  # fmt: skip


def evaluated(model: torch.nn.Module, batches: Any) -> float:
    was = model.training
    model.eval()
    with torch.no_grad():
        loss = float(sum(loss_fn(model, batch) for batch in batches)) / len(batches)
    model.train(was)
    return loss


def gradient_of(value: float, at: int) -> Hook:
    """All gradients become ``value`` at one step."""

    def fault(_: Any, model: torch.nn.Module, step: int) -> None:
        if step == at:
            for p in model.parameters():
                p.grad = torch.full_like(p, value)

    return fault


def rate_of(value: float, at: int) -> Hook:
    """The user sets the rate."""

    def fault(optimizer: Any, _: torch.nn.Module, step: int) -> None:
        if step == at:
            for group in optimizer.param_groups:
                group["lr"] = value

    return fault


def nothing(*_: Any) -> None:
    """No fault here."""


def corrupted(at: int, value: float) -> Hook:
    """One minibatch of training is damaged in memory for one step: a copy, as a loader makes one."""

    def before(_: Any, model: torch.nn.Module, step: int) -> None:
        first = next(iter(model.children()))
        if step == at:
            handle = first.register_forward_pre_hook(lambda _, args: (torch.full_like(args[0], value),))
            model.register_forward_hook(lambda *_: handle.remove())

    return before


FAULTS: dict[str, Callable[[int], tuple[Hook, Hook | None]]] = {
    "a gradient of NaN": lambda at: (gradient_of(math.nan, at), None),
    "a gradient of infinity": lambda at: (gradient_of(math.inf, at), None),
    "a gradient of 1e30": lambda at: (gradient_of(1e30, at), None),
    "a rate of 1e6, set by the user": lambda at: (rate_of(1e6, at), None),
    "a minibatch of NaN": lambda at: (nothing, corrupted(at, math.nan)),
    "a minibatch of 1e20": lambda at: (nothing, corrupted(at, 1e20)),
}


@functools.cache
def outcomes(fault: str, tuned: str) -> dict[str, int]:
    """Of the runs with the fault at each of several steps: how many ended in numbers, and learned something."""
    runs = []
    for at in AT:
        hook, before = FAULTS[fault](at)
        runs.append(trained(tuned, hook, before=before))
    return {
        "runs": len(runs), "finite": sum(run["finite"] for run in runs), "learned": sum(run["learned"] for run in runs),
        "rolled back": sum(run["rolled back"] for run in runs),
    }  # fmt: skip


@pytest.mark.torture
@pytest.mark.parametrize("tuned", TUNED)
@pytest.mark.parametrize("fault", FAULTS)
def test_what_comes_of_a_fault(fault: str, tuned: str, record_property: Any) -> None:
    came = outcomes(fault, tuned)
    for name, value in {"fault": fault, "tuned": tuned, **came}.items():
        record_property(name, value)
    without = outcomes(fault, "without AutoLR")
    assert came["finite"] >= without["finite"], "AutoLR made it worse"
    assert came["runs"] == len(AT)


# Out of memory in a probe
def out_of_memory(policy: Any, *, fails: Callable[[int], bool]) -> tuple[int, list[str]]:
    """Steps taken where ``loss_fn`` has no memory in those probes that ``fails`` tells by their number."""
    torch.manual_seed(0)
    model, batches, calls = network(), data(), [0]

    def limited(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        if autolr.is_probing():
            calls[0] += 1
            if fails(calls[0]):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return loss_fn(model, batch)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimizer = autolr.AutoLR(
            torch.optim.SGD(model.parameters(), lr=0.05), model, limited, batches, STEPS, policy=policy
        )
        for step in range(STEPS):
            optimizer.zero_grad()
            loss_fn(model, batches[step % len(batches)]).backward()
            optimizer.step()
    return optimizer.steps_taken, [str(warning.message) for warning in caught]


# The disk, and signals, in a process of its own: limits and handlers are a process's.
PROGRAM = """
import os, resource, signal, sys, warnings
from pathlib import Path
import torch
from small_runs import Run, loaded, saved
folder, what = Path(sys.argv[1]), sys.argv[2]
warnings.simplefilter("ignore")
torch.set_num_threads(1)
trace = folder / "log.jsonl"
if what == "full":
    trace.symlink_to("/dev/full")
    trace = folder / "link.jsonl"
    trace.touch()
run = Run("ExploreExploit()", trace=trace, steps=400 if what in {"SIGTERM", "SIGINT"} else 24)
if what == "full":
    trace.unlink(); trace.symlink_to("/dev/full")
if what == "quota":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
if what == "read-only":
    run.step(); trace.unlink(); trace.mkdir()
if what == "clock":
    import time
    now = [2e9]
    time.time = lambda: now.__setitem__(0, now[0] - 3600) or now[0]
checkpoint = folder / "checkpoint.pt"
if checkpoint.exists():
    run.load(loaded(checkpoint.read_bytes()))
def save():
    part = folder / "checkpoint.part"
    part.write_bytes(saved(run.state()))
    part.replace(checkpoint)
def stop(*_):
    raise SystemExit(3)
if what == "SIGTERM":
    signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and what they start
try:
    while run.tuned.steps_taken < run.steps:
        run.step()
        print(run.tuned.steps_taken, flush=True)
        if what in {"SIGTERM", "SIGINT", "continue"} and run.tuned.steps_taken % 3 == 0:
            save()
except (SystemExit, KeyboardInterrupt) as stopped:
    save()  # a signal comes at any line: also then the object is whole
    print("stopped", flush=True)
    raise SystemExit(3)
print("end", flush=True)
"""


def started(folder: Path, what: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), what], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=Path(__file__).parent, **options,
    )  # fmt: skip


@pytest.mark.torture
@pytest.mark.parametrize("what", ["full", "quota", "read-only", "clock"])
def test_a_log_that_cannot_be_written_and_a_clock_that_goes_back_stop_no_training(what: str, tmp_path: Path) -> None:
    with started(tmp_path, what) as run:
        told, error = run.communicate(timeout=120)
    assert run.returncode == 0, error[-1000:]
    assert told.splitlines()[-1] == "end"
    if what == "clock":
        logged = autolr.read_run(tmp_path / "log.jsonl")
        assert [step for step, _ in logged.rates()] == list(range(1, 25))
        assert logged.status() == "finished"


@pytest.mark.torture
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_in_the_middle_leaves_a_checkpoint_to_go_on_from(name: str, tmp_path: Path) -> None:
    with started(tmp_path, name) as run:
        assert run.stdout is not None
        while int(run.stdout.readline()) < 20:
            pass
        run.send_signal(getattr(signal, name))
        told, error = run.communicate(timeout=120)
    assert run.returncode == 3, error[-1000:]
    assert told.splitlines()[-1] == "stopped"
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["optimizer"]["autolr"]["steps"] >= 20
    logged = autolr.read_run(tmp_path / "log.jsonl")
    assert logged.steps >= 20


@pytest.mark.torture
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_of_two_writers_of_one_log_one_trains_at_least_and_the_log_is_read(tmp_path: Path) -> None:
    log, ended = tmp_path / "log.jsonl", []
    with started(tmp_path, "") as one, started(tmp_path, "") as other:
        for run in (one, other):
            _, error = run.communicate(timeout=120)
            ended.append(run.returncode)
            assert run.returncode == 0 or "writes the decision log" in error, error[-1000:]
    assert 0 in ended
    logged = autolr.read_run(log)
    assert [step for step, _ in logged.rates()] == list(range(1, 25))


WORKER = """
import os, signal, sys, warnings
import torch
from small_runs import data, loss_fn, network
import autolr
warnings.simplefilter("ignore")
torch.set_num_threads(1)
torch.manual_seed(0)

class Dying(torch.utils.data.Dataset):
    kept = data()
    def __len__(self):
        return len(self.kept)
    def __getitem__(self, item):
        if item == 4 and torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.kept[item]

policy = {"search": autolr.PeakSearch(peak=0.1), "explore": autolr.ExploreExploit(window=2, superbatch=4, spread=1)}
model = network()
base = torch.optim.SGD(model.parameters(), lr=0.05)
optimizer = autolr.AutoLR(base, model, loss_fn, data(), 40, policy=policy[sys.argv[1]])
failed = 0
while optimizer.steps_taken < 40:
    try:  # torch raises from a signal handler, wherever the run is: in a probe too
        for batch in torch.utils.data.DataLoader(Dying(), batch_size=None, num_workers=1):
            optimizer.zero_grad()
            loss_fn(model, batch).backward()
            optimizer.step()
    except (RuntimeError, OSError, EOFError) as error:  # the latter from the connection to the worker
        assert isinstance(error, (OSError, EOFError)) or "DataLoader worker" in str(error), error
        failed += 1
    assert not autolr.is_probing()
assert failed > 3
assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
os._exit(0)  # torch's handler may raise at the program's exit too
"""


@pytest.mark.torture
@pytest.mark.parametrize("policy", ["search", "explore"])
def test_a_run_goes_on_through_loaders_whose_workers_die(policy: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORKER, policy], check=False, capture_output=True, text=True, timeout=200,
        cwd=Path(__file__).parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-1500:]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_gradient_of_nan_costs_the_run_without_autolr_and_not_with_it() -> None:
    hook = gradient_of(math.nan, 7)
    assert not trained("without AutoLR", hook)["finite"]
    assert trained("PeakSearch()", hook)["learned"]
