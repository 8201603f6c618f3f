"""Carries out what is missing, several runs at a time; one that was cut off goes on from its checkpoint.

Any number of processes may carry out the same list in the same folder, on one machine or on nodes that share it: a run
that another one has is left for the end. So eight GPUs take eight such commands, and a cluster's scheduler needs no
other interface than to start them.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from autolr_lab.runner.ranked import train_by_ranks
from autolr_lab.runner.store import INDIFFERENT
from autolr_lab.training.runs import RunError, Settings, TakenError, locked, read_run

Job = tuple[Settings, Path]
Outcome = tuple[Job, BaseException | None]
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
    lost, taken = [], []
    for job, error in _in_a_pool(list(jobs), workers, every):
        if isinstance(error, BrokenProcessPool):
            lost.append(job)
        elif isinstance(error, TakenError):
            taken.append(job)
        elif error is None:
            yield job[1]
        else:
            failed.append((job, error))
    waited = [_in_a_pool([job], 1, every, wait=True) for job in lost]
    if taken:  # done by now, or their process died and they go on here
        waited.append(_in_a_pool(taken, workers, every, wait=True))
    for job, error in itertools.chain.from_iterable(waited):
        if error is None:
            yield job[1]
        else:
            failed.append((job, error))
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
                train_by_ranks(_as_begun(settings, folder), folder, every)
        return folder
    with locked(folder, wait=wait):
        if not _is_complete(folder):
            train(_as_begun(settings, folder), folder, resume=True, every=every)
    return folder


def _is_complete(folder: Path) -> bool:
    return (folder / "run.json").exists() and read_run(folder).result is not None


def _as_begun(settings: Settings, folder: Path) -> Settings:
    """A run stays on the device that it began on."""
    if not (folder / "run.json").exists():
        return settings
    begun = read_run(folder).settings
    return dataclasses.replace(settings, **{k: getattr(begun, k) for k in INDIFFERENT if k != "data_dir"})


def _in_a_pool(jobs: list[Job], workers: int, every: float, *, wait: bool = False) -> Iterator[Outcome]:
    # A fresh interpreter for each worker: a forked one inherits torch's threads and locks, and can hang.
    pool = concurrent.futures.ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        work = {pool.submit(run_job, *job, every=every, wait=wait): job for job in jobs}
        for done in concurrent.futures.as_completed(work):
            error = done.exception()
            if isinstance(error, KeyboardInterrupt):  # a worker's: it was meant for all of us
                raise error
            yield work[done], error
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()
