"""The run folder: what a training run leaves behind, written as it goes.

``run.json`` (settings and provenance) comes first; ``steps.jsonl``, ``epochs.jsonl`` and, with AutoLR,
``decisions.jsonl`` grow line by line; ``result.json`` comes last, so that a run without one was cut off. Such a run
goes on from its ``checkpoint.pt``.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from autolr import DecisionRecord, read_log
from autolr_lab.training.access import LOCK, RunError, written


@dataclass(frozen=True)
class Settings:
    """All that decides how a run goes."""

    workload: str
    optimizer: str
    schedule: str  # a policy of AutoLR's, a schedule or a baseline
    lr: float
    epochs: int
    batch_size: int
    seed: int
    device: str = "cpu"
    data_dir: str | None = None
    policy: dict[str, Any] = field(default_factory=dict)  # settings of AutoLR's policy; empty for other schedules
    schedule_options: dict[str, Any] = field(default_factory=dict)  # of a schedule or a baseline
    precision: str = "float32"  # of the forward pass; or "bfloat16", by autocast
    measure: str = ""  # what `measures` measures of the trained network
    evaluations: int = 1  # an epoch, evenly spread
    equal_budget: bool = False  # whether what a method spends beside training comes out of the run's steps
    ranks: int = 1  # processes that train it together; each takes its part of a minibatch of `batch_size`
    workers: int = 0  # processes that load, of each rank; 0: as many as the workload has, mostly none
    pinned: bool = False  # whether minibatches are loaded into pinned memory

    @property
    def label(self) -> str:
        return f"{self.workload} {self.optimizer} {self.schedule}"

    @classmethod
    def from_dict(cls, read: dict[str, Any]) -> Settings:
        """From JSON, which has lists for tuples."""
        options = {name: _tupled(read.get(name, {})) for name in ("policy", "schedule_options")}
        return cls(**{**read, **options})


def _tupled(options: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}


class RunFolder:
    """Writes one run's files.

    Args:
        path: the folder; made here.
        settings: of the run.
        provenance: where it runs.
        resume: go on with a run of the same settings that is there and was cut off.

    Raises:
        RunError: it cannot be written, or holds a run that this does not continue.
    """

    def __init__(self, path: Path, settings: Settings, provenance: dict[str, Any], *, resume: bool = False) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            if (path / "run.json").exists():
                self._continue(settings, provenance, resume=resume)
            else:
                about = {"settings": dataclasses.asdict(settings), "provenance": provenance, "resumed": []}
                write_json(path / "run.json", about)
        except OSError as error:
            raise RunError(
                f"The run folder {path} cannot be written: {error.strerror}. Name another one with --out."
            ) from error

    def _continue(self, settings: Settings, provenance: dict[str, Any], *, resume: bool) -> None:
        if not resume:
            raise RunError(
                f"{self.path} holds a run already. Name another folder with --out, move that one away, or, if it was "
                "cut off, go on with it: --resume."
            )
        there = read_run(self.path)
        if there.result is not None:
            raise RunError(f"The run in {self.path} is complete. There is nothing to resume.")
        mine, other = dataclasses.asdict(settings), dataclasses.asdict(there.settings)
        changed = [name for name in mine if mine[name] != other[name] and name != "data_dir"]
        if changed:
            told = ", ".join(f"{name} {other[name]!r}, not {mine[name]!r}" for name in changed)
            raise RunError(f"The run in {self.path} has {told}. Resume a run with the settings that it has.")
        about = json.loads((self.path / "run.json").read_text(encoding="utf8"))
        about["resumed"].append(provenance)
        write_json(self.path / "run.json", about)

    @property
    def decisions(self) -> Path:
        return self.path / "decisions.jsonl"

    def append(self, name: str, row: dict[str, Any]) -> None:
        """Add one line to ``steps`` or ``epochs``, at once."""
        with written(self.path), (self.path / f"{name}.jsonl").open("a", encoding="utf8") as file:
            file.write(json.dumps(_strict(row), allow_nan=False) + "\n")

    def save(self, checkpoint: dict[str, Any], name: str = "checkpoint") -> None:
        """Write ``<name>.pt`` completely or not at all: a kill in between leaves the one before."""
        unfinished = self.path / f"{name}.part"
        with written(self.path):
            try:
                torch.save(checkpoint, unfinished)
                unfinished.replace(self.path / f"{name}.pt")
            except BaseException:
                unfinished.unlink(missing_ok=True)  # the room is needed
                raise

    def load(self, name: str = "checkpoint") -> dict[str, Any] | None:
        """What was saved last; None where nothing was."""
        path = self.path / f"{name}.pt"
        if not path.exists():
            return None
        try:
            checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch's, zipfile's and pickle's have no common kind
            raise RunError(f"{path} cannot be read ({error}). Delete it, and the run begins again.") from error
        return checkpoint

    def cut(self, name: str, lines: int) -> None:
        """Keep the first ``lines`` of ``steps`` or ``epochs``: those that a checkpoint knows of."""
        path = self.path / f"{name}.jsonl"
        if path.exists():
            kept = path.read_text(encoding="utf8").split("\n")[:lines]
            path.write_text("".join(line + "\n" for line in kept), encoding="utf8")

    def discard(self) -> None:
        """Remove the folder of a run that never began."""
        for file in (self.path / "run.json", self.decisions, self.path / LOCK):
            file.unlink(missing_ok=True)
        if not any(self.path.iterdir()):
            self.path.rmdir()

    def finish(self, result: dict[str, Any]) -> None:
        """Write the result: the run is complete and needs its checkpoint no more."""
        with written(self.path):
            write_json(self.path / "result.json", result)
        (self.path / "checkpoint.pt").unlink(missing_ok=True)


class OthersFolder(RunFolder):
    """The run folder of a process that is not the run's first: it reads, and writes nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, name: str, row: dict[str, Any]) -> None:
        """Nothing."""

    def save(self, checkpoint: dict[str, Any], name: str = "checkpoint") -> None:
        """Nothing."""

    def cut(self, name: str, lines: int) -> None:
        """Nothing."""

    def discard(self) -> None:
        """Nothing."""

    def finish(self, result: dict[str, Any]) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Run:
    """One run as read back."""

    path: Path
    settings: Settings
    provenance: dict[str, Any]
    steps: list[dict[str, Any]]
    epochs: list[dict[str, Any]]
    decisions: list[DecisionRecord]
    result: dict[str, Any] | None  # None for a run that was cut off
    resumed: list[dict[str, Any]] = field(default_factory=list)  # provenance of each time it was resumed


def read_run(path: Path) -> Run:
    """Read a run folder, complete or cut off.

    Raises:
        RunError: there is no readable ``run.json``.
    """
    try:
        about = json.loads((path / "run.json").read_text(encoding="utf8"))
        decisions, done = path / "decisions.jsonl", path / "result.json"
        # The result first: it is written last, and another process may be at it.
        result = json.loads(done.read_text(encoding="utf8")) if done.exists() else None
        return Run(
            path=path,
            settings=Settings.from_dict(about["settings"]),
            provenance=about["provenance"],
            steps=_read_lines(path / "steps.jsonl"),
            epochs=_read_lines(path / "epochs.jsonl"),
            decisions=read_log(decisions) if decisions.exists() else [],
            result=result,
            resumed=about["resumed"],
        )
    except FileNotFoundError:
        raise RunError(
            f"{path} is not a run folder: it has no run.json. `autolr-lab runs` lists the runs there are."
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{path} cannot be read as a run: {error}. Its files were changed or damaged.") from error


def find_runs(root: Path) -> list[Path]:
    """The run folders below ``root``, oldest first; none where there is no such folder."""
    found = root.rglob("run.json")
    return [path.parent for path in sorted(found, key=lambda path: (path.lstat().st_mtime, path))]


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write strict JSON (NaN and infinity become null), completely or not at all."""
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(_strict(content), indent=2, allow_nan=False) + "\n", encoding="utf8")
    unfinished.replace(path)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf8").split("\n")[:-1]]  # a cut-off line has no end


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _strict(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
