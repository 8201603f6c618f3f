"""Runs what is missing, several at a time: on this machine, or over a Ray cluster. The scheduling is theirs.

A run that was cut off goes on from its checkpoint, wherever it is taken up again: its folder has to be on a disk that
all workers share.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from autolr.runs import RunError, Settings, read_run

Engine = Literal["local", "ray"]
ENGINES: tuple[Engine, ...] = ("local", "ray")
Job = tuple[Settings, Path]


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
        RunError: one of them failed; the others were carried out, and it says which to look at.
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

    from autolr.training import train

    if threads is not None:
        torch.set_num_threads(threads)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f"{folder.name}.lock"):
        if not _whole(folder):
            train(settings, folder, resume=True, every=every)
    return folder


def _whole(folder: Path) -> bool:
    try:
        return read_run(folder).result is not None
    except RunError:
        return False


Outcome = tuple[Job, BaseException | None]


def _locally(jobs: list[Job], workers: int, every: float) -> Iterator[Outcome]:
    # A fresh interpreter for each worker: a forked one inherits torch's threads and locks, and can hang.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
        work = {pool.submit(run_job, *job, every=every): job for job in jobs}
        for done in concurrent.futures.as_completed(work):
            yield work[done], done.exception()


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
        remote: Callable[..., Any] = ray.remote(num_cpus=1, max_retries=-1)(_plain_job).remote
        work = {remote(dataclasses.asdict(job[0]), str(job[1]), every): job for job in jobs}
        waiting = list(work)
        while waiting:
            (done, *_), waiting = ray.wait(waiting, num_returns=1)
            try:
                ray.get(done)
                yield work[done], None
            except ray.exceptions.RayError as error:
                yield work[done], error
    finally:
        if began:
            ray.shutdown()


def _alone() -> bool:
    """Whether there is no cluster to join."""
    return "RAY_ADDRESS" not in os.environ


def _plain_job(settings: dict[str, Any], folder: str, every: float) -> str:
    return str(run_job(Settings(**settings), Path(folder), every=every))
