"""Runs what is missing, several at a time: on this machine, or over a Ray cluster. The scheduling is theirs.

A run that was cut off goes on from its checkpoint, wherever it is taken up again: its folder has to be on a disk that
all workers share.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import multiprocessing
import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from autolr_lab.runner.store import INDIFFERENT
from autolr_lab.training.runs import RunError, Settings, read_run

Engine = Literal["local", "ray"]
ENGINES: tuple[Engine, ...] = ("local", "ray")
Job = tuple[Settings, Path]
DEATHS = 2  # of a worker, after which what is left runs one by one
RETRIES = 3  # of a run whose Ray worker died: one that dies each time must not do so for ever


def carry_out(
    jobs: Iterable[Job], *, engine: Engine = "local", workers: int = 1, every: float = 60.0
) -> Iterator[Path]:
    """Train each job's settings into its folder; yields the folders as they are done.

    Args:
        jobs: settings and folder of each run, all different.
        engine: "local", or "ray" for the cluster that Ray finds (``RAY_ADDRESS``), else one on this machine.
        workers: runs at a time on this machine; a Ray cluster knows how many it can take.
        every: seconds from one checkpoint of a run to the next.

    Raises:
        RunError: one of them failed; the others were carried out, and it says which to look at. A worker that dies
            (out of memory) takes what ran beside it along: those go on in new workers, one by one from the third time.
    """
    todo = list(jobs)
    failed: list[str] = []
    carry = _locally if engine == "local" else _over_ray
    for (settings, folder), error in carry(todo, workers, every):
        if error is None:
            yield folder
        else:
            failed.append(f"  {settings.label}, seed {settings.seed}, in {folder}: {error}")
    if failed:
        raise RunError(
            "These runs failed; the same command goes on with them and keeps what is whole:\n" + "\n".join(failed)
        )


def run_job(settings: Settings, folder: Path, threads: int | None = 1, every: float = 60.0) -> Path:
    """Train, go on with, or leave alone what is whole already. One process at a time has a folder.

    Args:
        settings: of the run.
        folder: of the run; a ``.lock`` file stands beside it meanwhile.
        threads: of torch; None leaves them as they are.
        every: seconds from one checkpoint to the next.
    """
    import torch

    from autolr_lab.training.training import train

    if threads is not None:
        torch.set_num_threads(threads)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f"{folder.name}.lock"):
        if not _whole(folder):
            train(_as_begun(settings, folder), folder, resume=True, every=every)
    return folder


def _as_begun(settings: Settings, folder: Path) -> Settings:
    """The settings, with the device and the like of the run that is gone on with: a run stays where it began."""
    if not (folder / "run.json").exists():
        return settings
    begun = read_run(folder).settings
    return dataclasses.replace(settings, **{name: getattr(begun, name) for name in INDIFFERENT if name != "data_dir"})


def _whole(folder: Path) -> bool:
    try:
        return read_run(folder).result is not None
    except RunError:
        return False


Outcome = tuple[Job, BaseException | None]


def _locally(jobs: list[Job], workers: int, every: float) -> Iterator[Outcome]:
    waiting = jobs
    for _ in range(DEATHS):
        lost: list[Job] = []
        for job, error in _in_a_pool(waiting, workers, every):
            if isinstance(error, BrokenProcessPool):
                lost.append(job)
            else:
                yield job, error
        waiting = lost
        if not lost:
            return
    for job in waiting:  # whoever dies alone is the culprit
        yield from _in_a_pool([job], 1, every)


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


def _over_ray(jobs: list[Job], workers: int, every: float) -> Iterator[Outcome]:
    try:
        import ray
    except ImportError:
        raise RunError("--engine ray needs Ray: pip install 'torch-autolr[ray]'.") from None
    began = not ray.is_initialized()
    if began:
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False) if _alone() else ray.init()
    try:
        # A worker that dies takes nothing with it but the steps since its run's last checkpoint: it is tried again.
        task: Any = ray.remote(num_cpus=1, max_retries=RETRIES)(_plain_job)
        work = {}
        for settings, folder in jobs:
            # A worker has a folder of its own that it works in: paths are sent whole.
            data_dir = None if settings.data_dir is None else str(Path(settings.data_dir).resolve())
            sent = {**dataclasses.asdict(settings), "data_dir": data_dir}
            remote = (task.options(num_gpus=1) if settings.device == "cuda" else task).remote
            work[remote(sent, str(folder.resolve()), every, sys.argv)] = (settings, folder)
        waiting = list(work)
        while waiting:
            (done, *_), waiting = ray.wait(waiting, num_returns=1)
            try:
                ray.get(done)
                folder = work[done][1]
                yield work[done], None if _whole(folder) else RunError(f"{folder} is not on a disk that workers share")
            except ray.exceptions.RayError as error:
                yield work[done], error
    finally:
        if began:
            ray.shutdown()


def _alone() -> bool:
    """Whether there is no cluster to join."""
    return "RAY_ADDRESS" not in os.environ


def _plain_job(settings: dict[str, Any], folder: str, every: float, command: list[str]) -> str:
    sys.argv = command  # what a run's provenance names; a worker's own has the cluster's addresses in it
    return str(run_job(Settings(**settings), Path(folder), every=every))
