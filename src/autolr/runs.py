"""The run folder: what a training run leaves behind, written as it goes.

``run.json`` (settings and provenance) comes first, then ``steps.jsonl``, ``epochs.jsonl`` and, with AutoLR,
``decisions.jsonl`` grow line by line; ``result.json`` comes last, so that a run which has none was cut off.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autolr.trace import Record, read_log


class RunError(ValueError):
    """A run folder that cannot be made or read."""


@dataclass(frozen=True)
class Settings:
    """All that decides how a run goes."""

    workload: str
    optimizer: str
    schedule: str
    lr: float
    epochs: int
    batch_size: int
    seed: int
    device: str = "cpu"
    data_dir: str | None = None
    policy: dict[str, Any] = dataclasses.field(default_factory=dict)  # of AutoLR; empty for other schedules
    window: int | None = None
    superbatch: int | None = None
    held_out: tuple[float, ...] = ()
    overhead: float | None = None
    lend: bool = False  # whether looks take what training sees next

    @property
    def label(self) -> str:
        """As a figure's legend names it."""
        return f"{self.workload} {self.optimizer} {self.schedule}"


class RunFolder:
    """Writes one run's files."""

    def __init__(self, path: Path, settings: Settings, provenance: dict[str, Any]) -> None:
        try:
            path.mkdir(parents=True, exist_ok=True)
            if (path / "run.json").exists():
                raise RunError(f"{path} holds a run already. Name another folder with --out, or move that one away.")
            write_json(path / "run.json", {"settings": dataclasses.asdict(settings), "provenance": provenance})
        except OSError as error:
            raise RunError(
                f"The run folder {path} cannot be written: {error.strerror}. Name another one with --out."
            ) from error
        self.path = path

    @property
    def decisions(self) -> Path:
        """The decision log's file."""
        return self.path / "decisions.jsonl"

    def append(self, name: str, row: dict[str, Any]) -> None:
        """Add one line to ``steps`` or ``epochs``, at once."""
        with (self.path / f"{name}.jsonl").open("a", encoding="utf8") as file:
            file.write(json.dumps(_strict(row), allow_nan=False) + "\n")

    def discard(self) -> None:
        """Undo the folder, of a run that never began."""
        for file in (self.path / "run.json", self.decisions):
            file.unlink(missing_ok=True)
        if not any(self.path.iterdir()):
            self.path.rmdir()

    def finish(self, result: dict[str, Any]) -> None:
        """Write the result: the run is whole."""
        write_json(self.path / "result.json", result)


@dataclass(frozen=True)
class Run:
    """One run as read back."""

    path: Path
    settings: Settings
    provenance: dict[str, Any]
    steps: list[dict[str, Any]]
    epochs: list[dict[str, Any]]
    decisions: list[Record]
    result: dict[str, Any] | None  # None for a run that was cut off


def read_run(path: Path) -> Run:
    """Read a run folder, whole or cut off.

    Raises:
        RunError: there is no readable ``run.json``.
    """
    try:
        about = json.loads((path / "run.json").read_text(encoding="utf8"))
        settings = about["settings"]
        settings["held_out"] = tuple(settings["held_out"])
        settings["policy"] = {k: tuple(v) if isinstance(v, list) else v for k, v in settings["policy"].items()}
        decisions = path / "decisions.jsonl"
        result = path / "result.json"
        return Run(
            path=path,
            settings=Settings(**settings),
            provenance=about["provenance"],
            steps=_read_lines(path / "steps.jsonl"),
            epochs=_read_lines(path / "epochs.jsonl"),
            decisions=read_log(decisions) if decisions.exists() else [],
            result=json.loads(result.read_text(encoding="utf8")) if result.exists() else None,
        )
    except FileNotFoundError:
        raise RunError(
            f"{path} is not a run folder: it has no run.json. `autolr runs` lists the runs there are."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} cannot be read as a run: {error}. Its files were changed or damaged.") from error


def find_runs(root: Path) -> list[Path]:
    """The run folders below ``root``, oldest first; none where there is no such folder."""
    found = root.rglob("run.json")
    return [path.parent for path in sorted(found, key=lambda path: (path.stat().st_mtime, path))]


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write strict JSON (NaN and infinity become null), whole or not at all."""
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(_strict(content), indent=2, allow_nan=False) + "\n", encoding="utf8")
    unfinished.replace(path)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf8").split("\n")[:-1]]


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _strict(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
