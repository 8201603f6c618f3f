"""Kills trainings at random moments and continues them: ``python killed_runs.py POLICY KILLS SEED`` prints JSON.

A program of its own, so that it forks before any thread was started: torch is imported once, and a run costs
milliseconds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from small_runs import Run, loaded, saved, unequal

import autolr

EVERY = 3  # steps between two checkpoints
STEPS = 36


def save(run: Run, path: Path) -> None:
    """Whole or not at all."""
    unfinished = path.with_suffix(".part")
    unfinished.write_bytes(saved(run.state()))
    unfinished.replace(path)


def train(policy: str, folder: Path) -> None:
    """As a user's script does it: go on where there is a checkpoint, and write one every few steps."""
    checkpoint = folder / "checkpoint.pt"
    log = folder / "log.jsonl"
    if not checkpoint.exists():
        log.unlink(missing_ok=True)  # of a run that left no checkpoint, which begins again
    run = Run(policy, trace=log, steps=STEPS)
    if checkpoint.exists():
        run.load(loaded(checkpoint.read_bytes()))
    while run.tuned.steps_taken < run.steps:
        run.step()
        if run.tuned.steps_taken % EVERY == 0:
            save(run, checkpoint)
    logged = autolr.read_run(log)
    told = {"log's rates": logged.rates(), "log's records": list(map(repr, logged.records))}
    unfinished = folder / "end.part"
    torch.save({**run.end(), **told}, unfinished)
    unfinished.replace(folder / "end.pt")


def forked(job: Callable[[], None]) -> int:
    """A process that does the job and nothing else."""
    if child := os.fork():
        return child
    code = 1
    try:
        job()
        code = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def killed(child: int, after: float) -> tuple[bool, int]:
    """Whether the kill came before the end, and the exit code."""
    signal.sigtimedwait([signal.SIGCHLD], after)  # wakes where it ends by itself
    os.kill(child, signal.SIGKILL)  # not reaped yet: it is there
    status = os.waitpid(child, 0)[1]
    signal.sigtimedwait([signal.SIGCHLD], 0)  # the one of this end, which would wake the next wait
    return os.WIFSIGNALED(status), os.waitstatus_to_exitcode(status)


def whole(policy: str, folder: Path) -> tuple[dict[str, Any], float]:
    """The end of an uninterrupted run, and the seconds that it takes."""
    folder.mkdir()
    began = time.perf_counter()
    status = os.waitpid(forked(lambda: train(policy, folder)), 0)[1]
    assert status == 0, "an uninterrupted run failed"
    return torch.load(folder / "end.pt", weights_only=True), time.perf_counter() - began


def main(policy: str, kills: int, seed: int) -> dict[str, Any]:
    """Kill until there were so many kills; each run that was killed is continued to its end, and compared."""
    torch.set_num_threads(1)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    Run(policy).to_end()  # so that all that is imported late is there before the first fork
    moments = random.Random(seed)
    told: dict[str, Any] = {"policy": policy, "kills": 0, "runs": 0, "unequal": [], "without": 0}
    with tempfile.TemporaryDirectory() as root:
        expected, seconds = whole(policy, Path(root) / "whole")
        while told["kills"] < kills:
            folder = Path(root) / str(told["runs"])
            folder.mkdir()
            told["runs"] += 1
            code = -signal.SIGKILL
            while code == -signal.SIGKILL:
                # Mostly before the end, and often enough behind the next checkpoint.
                wait = moments.uniform(0, 0.6 * seconds)
                was, code = killed(forked(lambda folder=folder: train(policy, folder)), wait)  # type: ignore[misc]
                told["kills"] += was
                told["without"] += was and not (folder / "checkpoint.pt").exists()
            assert code == 0, "a run that goes on failed"
            end = torch.load(folder / "end.pt", weights_only=True)
            told["unequal"] += [f"run {told['runs']}: {name}" for name in unequal(expected, end)]
    return told


if __name__ == "__main__":
    warnings.simplefilter("ignore", UserWarning)  # of a search in so short a run
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
