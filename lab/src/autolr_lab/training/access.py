"""Who may write a run's folder, and what is said where it cannot be written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = "run.lock"  # in a run's folder: the system lets go of it where its process ends, however that ends


class RunError(ValueError):
    """A run folder cannot be made or read."""


class TakenError(RunError):
    """Another process has a run's folder."""


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = False, name: str = LOCK) -> Iterator[None]:
    """One process at a time has a run's folder, also on another node that shares it; within a process it may be nested.

    Args:
        folder: of the run; made where it is not there.
        wait: for another process to be done, instead of refusing.
        name: of the lock's file.

    Raises:
        TakenError: another process has it.
        RunError: it cannot be made.
    """
    lock = FileLock(folder / name, is_singleton=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise TakenError(
            f"Another process trains in {folder}. Wait until it has ended, or name another folder with --out."
        ) from None
    except OSError as error:
        raise RunError(
            f"The run folder {folder} cannot be written: {error.strerror}. Name another one with --out."
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def written(folder: Path) -> Iterator[None]:
    """Says what to do where a file of a run that is under way cannot be written: mostly the disk is full.

    Raises:
        RunError: it cannot be.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch.save has the second
        why = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise RunError(
            f"The run folder {folder} cannot be written: {why}. What is in it is kept. Make room (or let it be "
            f"written), and go on from the last checkpoint with the same command and: --resume --out {folder}"
        ) from error
