"""Carries out what is missing, several runs at a time; one that was cut off goes on from its checkpoint.

Any number of processes may carry out the same list in the same folder, on one machine or on nodes that share it: a run
that another one has is left for the end. So eight GPUs take eight such commands, and a cluster's scheduler needs no
other interface than to start them.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import multiprocessing
import time
from collections.abc import Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from autolr_lab.runner.ranked import train_by_ranks
from autolr_lab.runner.store import INDIFFERENT
from autolr_lab.training.access import RunError, TakenError, locked
from autolr_lab.training.runs import Settings, read_run

Job = tuple[Settings, Path]
Outcome = tuple[Job, BaseException | None]
WAITS = 1.0  # [s] between two looks at what other processes have
STARTS = "start.lock"  # in the folder of a run that several processes train


def carry_out(jobs: Iterable[Job], *, workers: int = 1, every: float = 60.0) -> Iterator[Path]:
    """Train each job's settings into its folder; yields the folders as they are done.

    Args:
        jobs: settings and folder of each run, all different.
        workers: runs at a time.
        every: seconds from one checkpoint of a run to the next.

    Raises:
        RunError: one of them failed; the others were carried out, and it says which to look at. A worker that dies (out
            of memory) takes what ran beside it along: those go on one by one, so that the culprit dies alone.
    """
    failed: list[tuple[Job, BaseException]] = []
    pending, one_by_one = list(jobs), False
    while pending:
        taken, lost = [], []
        for some in [[job] for job in pending] if one_by_one else [pending]:
            for job, error in _in_a_pool(some, 1 if one_by_one else workers, every):
                if error is None:
                    yield job[1]
                elif isinstance(error, TakenError):
                    taken.append(job)
                elif isinstance(error, BrokenProcessPool) and not one_by_one:
                    lost.append(job)
                else:
                    failed.append((job, error))
        if len(taken) == len(pending):
            _wait_for_one_of(taken)
        pending, one_by_one = [*lost, *taken], bool(lost)
    if failed:
        told = (f"  {s.label}, seed {s.seed}, in {folder}: {error}" for (s, folder), error in failed)
        raise RunError("These runs failed; the same command resumes them and keeps the others:\n" + "\n".join(told))


def run_job(
    settings: Settings, folder: Path, threads: int | None = 1, every: float = 60.0, *, wait: bool = True
) -> Path:
    """Train, go on with, or leave alone what is complete already. One process at a time has a folder.

    Args:
        settings: of the run.
        folder: of the run.
        threads: of torch; None leaves them as they are.
        every: seconds from one checkpoint to the next.
        wait: for another process that has the folder.

    Raises:
        TakenError: another process has it, and it is not to be waited for.
    """
    import torch

    from autolr_lab.training.training import train

    if threads is not None:
        torch.set_num_threads(threads)
    if settings.ranks > 1:
        # The first of its processes has the folder; this lock keeps another start of them away.
        with locked(folder, wait=wait, name=STARTS):
            if not _is_complete(folder):
                try:
                    train_by_ranks(_as_begun(settings, folder), folder, every)
                except RunError:
                    with locked(folder):  # TakenError: processes whose start died have it still
                        raise
        return folder
    with locked(folder, wait=wait):
        if not _is_complete(folder):
            train(_as_begun(settings, folder), folder, resume=True, every=every)
    return folder


def _wait_for_one_of(jobs: list[Job]) -> None:
    """Until one of those that other processes have is done, or its process died: then it goes on here."""
    while True:
        for _, folder in jobs:
            with contextlib.suppress(TakenError), locked(folder), locked(folder, name=STARTS):
                return
        time.sleep(WAITS)


def _is_complete(folder: Path) -> bool:
    return (folder / "run.json").exists() and read_run(folder).result is not None


def _as_begun(settings: Settings, folder: Path) -> Settings:
    """A run stays on the device that it began on."""
    if not (folder / "run.json").exists():
        return settings
    begun = read_run(folder).settings
    return dataclasses.replace(settings, **{k: getattr(begun, k) for k in INDIFFERENT if k != "data_dir"})


def _in_a_pool(jobs: list[Job], workers: int, every: float) -> Iterator[Outcome]:
    # A fresh interpreter for each worker: a forked one inherits torch's threads and locks, and can hang.
    pool = concurrent.futures.ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        work = {pool.submit(run_job, *job, every=every, wait=False): job for job in jobs}
        for done in concurrent.futures.as_completed(work):
            error = done.exception()
            if isinstance(error, KeyboardInterrupt):  # a worker's: it was meant for all of us
                raise error
            yield work[done], error
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()
