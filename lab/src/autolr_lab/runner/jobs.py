"""Carries out what is missing, several runs at a time; one that was cut off goes on from its checkpoint."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from autolr_lab.runner.ranked import train_by_ranks
from autolr_lab.runner.store import INDIFFERENT
from autolr_lab.training.runs import RunError, Settings, locked, read_run

Job = tuple[Settings, Path]
Outcome = tuple[Job, BaseException | None]


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
    failed, lost = [], []
    for job, error in _in_a_pool(list(jobs), workers, every):
        if isinstance(error, BrokenProcessPool):
            lost.append(job)
        elif error is None:
            yield job[1]
        else:
            failed.append((job, error))
    for job in lost:
        for _, error in _in_a_pool([job], 1, every):
            if error is None:
                yield job[1]
            else:
                failed.append((job, error))
    if failed:
        told = (f"  {s.label}, seed {s.seed}, in {folder}: {error}" for (s, folder), error in failed)
        raise RunError("These runs failed; the same command resumes them and keeps the others:\n" + "\n".join(told))


def run_job(settings: Settings, folder: Path, threads: int | None = 1, every: float = 60.0) -> Path:
    """Train, go on with, or leave alone what is complete already. One process at a time has a folder.

    Args:
        settings: of the run.
        folder: of the run; another process that has it is waited for.
        threads: of torch; None leaves them as they are.
        every: seconds from one checkpoint to the next.
    """
    import torch

    from autolr_lab.training.training import train

    if threads is not None:
        torch.set_num_threads(threads)
    with locked(folder, wait=True):
        begun = read_run(folder) if (folder / "run.json").exists() else None
        if begun is not None and begun.result is not None:
            return folder
        # A run stays on the device that it began on.
        there = {name: getattr(begun.settings, name) for name in INDIFFERENT if name != "data_dir"} if begun else {}
        asked = dataclasses.replace(settings, **there)
        if asked.ranks == 1:
            train(asked, folder, resume=True, every=every)
            return folder
    train_by_ranks(asked, folder, every)  # its first process has the folder
    return folder


def _in_a_pool(jobs: list[Job], workers: int, every: float) -> Iterator[Outcome]:
    # A fresh interpreter for each worker: a forked one inherits torch's threads and locks, and can hang.
    pool = concurrent.futures.ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        work = {pool.submit(run_job, *job, every=every): job for job in jobs}
        for done in concurrent.futures.as_completed(work):
            error = done.exception()
            if isinstance(error, KeyboardInterrupt):  # a worker's: it was meant for all of us
                raise error
            yield work[done], error
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()
