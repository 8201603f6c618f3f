"""The study as others are: both tasks, one seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from autolr_lab.runner.results import Row
from autolr_lab.studies.fine_tuning.measure import KEY, grid, searched
from autolr_lab.studies.fine_tuning.questions import questions
from autolr_lab.studies.fine_tuning.tables import tables
from autolr_lab.studies.fine_tuning.texts import texts
from autolr_lab.studies.fine_tuning.transfer import GIVEN, Transfer
from autolr_lab.studies.lines import Lines
from autolr_lab.studies.study import Study

TASKS: dict[str, tuple[Callable[[Path | None], Transfer], int]] = {"texts": (texts, 300), "questions": (questions, 240)}


def measure(data_dir: Path | None) -> Iterator[Row]:
    """The grid and the searches of each task."""
    lines = Lines(None, KEY)
    for make, steps in TASKS.values():
        transfer = make(data_dir)
        yield from grid(lines, transfer, steps, 0)
        yield from searched(lines, transfer, steps, 0)


FINE_TUNING = Study(
    "fine-tuning", "The peak of a trained network: by rate, by judge, and a range test", measure, tables,
    {"steps": {name: steps for name, (_, steps) in TASKS.items()}, "given": GIVEN},
)  # fmt: skip
