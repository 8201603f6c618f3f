"""Rows of results: a working file that grows by one line a run, and compact tables that are kept in git."""

import csv
import gzip
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

import torch

from autolr_lab.zoo.fingerprint import fingerprint
from autolr_lab.zoo.registry import Pair
from autolr_lab.zoo.training import Outcome, Start

Key: TypeAlias = tuple[str, str, str, int, int, int]


@dataclass(frozen=True)
class Row:
    """One run and what came of it.

    Attributes:
        run: ``short`` or ``grid``.
        octave: the peak rate is ``2**octave``.
        eval_before: loss of the held-out examples before the first step, in evaluation mode.
        eval_loss: the same after the run; not finite when the run broke off.
        before: training loss on each of the eight judges before the first step, in training mode.
        after: the same after the run.
        diverged: the training loss is not finite or above its start.
        code: hash of the code that decides the run.
    """

    run: str
    task: str
    optimizer: str
    seed: int
    steps: int
    octave: int
    eval_before: float
    eval_loss: float
    before: tuple[float, ...]
    after: tuple[float, ...]
    diverged: bool
    seconds: float
    code: str
    torch: str

    @property
    def peak(self) -> float:
        """The peak rate."""
        return 2.0**self.octave

    @property
    def train_loss(self) -> float:
        """Mean training loss on the judges, after the run."""
        return sum(self.after) / len(self.after)

    @property
    def key(self) -> Key:
        """What tells this run from all others."""
        return (self.run, self.task, self.optimizer, self.seed, self.steps, self.octave)


def row(run: str, pair: Pair, begun: Start, steps: int, octave: int, outcome: Outcome) -> Row:
    """The row of a run."""
    return Row(
        run=run,
        task=pair.task.name,
        optimizer=pair.optimizer,
        seed=begun.seed,
        steps=steps,
        octave=octave,
        eval_before=begun.eval_loss,
        eval_loss=outcome.eval_loss,
        before=begun.judge_losses,
        after=outcome.judge_losses,
        diverged=not sum(outcome.judge_losses) <= sum(begun.judge_losses),
        seconds=round(outcome.seconds, 4),
        code=fingerprint(pair.task.name),
        torch=torch.__version__,
    )


def from_json(line: str) -> Row:
    """A row from its line; Python's own spelling of numbers that are not finite is allowed."""
    found = json.loads(line)
    return Row(**{**found, "before": tuple(found["before"]), "after": tuple(found["after"])})


class Store:
    """The working file. Lines that were cut off are skipped, and so are rows of code that has changed since."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[Key, Row] = {}
        self.stale = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text() if path.exists() else ""
        for line in text.splitlines():
            self._take(line)
        if text and not text.endswith("\n"):  # a run was killed in the middle of a line
            with path.open("a") as file:
                file.write("\n")

    def _take(self, line: str) -> None:
        try:
            found = from_json(line)
        except (json.JSONDecodeError, TypeError, KeyError):
            return
        if found.code == fingerprint(found.task):
            self.rows[found.key] = found
        else:
            self.stale += 1

    def add(self, new: Row) -> None:
        """Keep a row, at once."""
        self.rows[new.key] = new
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(new)) + "\n")


def pack(rows: Iterable[Row], path: Path) -> None:
    """Write rows as one compressed table, sorted, with seven digits; the same rows give the same bytes."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(field.name for field in fields(Row))
    for one in sorted(rows, key=lambda row: row.key):
        table.writerow(_cell(value) for value in asdict(one).values())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))


def unpack(path: Path) -> list[Row]:
    """The rows of a compressed table."""
    with gzip.open(path, "rt") as file:
        return [_from_cells(cells) for cells in csv.DictReader(file)]


def _cell(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(f"{part:.7g}" for part in value)
    return f"{value:.7g}" if isinstance(value, float) else str(value)


def _from_cells(cells: Mapping[str, str]) -> Row:
    found: dict[str, Any] = dict(cells)
    found.update({name: int(cells[name]) for name in ("seed", "steps", "octave")})
    found.update({name: float(cells[name]) for name in ("eval_before", "eval_loss", "seconds")})
    found.update({name: tuple(float(part) for part in cells[name].split()) for name in ("before", "after")})
    return Row(**{**found, "diverged": cells["diverged"] == "True"})
