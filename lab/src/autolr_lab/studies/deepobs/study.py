"""The study as others are: at full length, one seed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from autolr_lab.runner.results import Row
from autolr_lab.studies.deepobs.problem import GIVEN, MOMENTUM
from autolr_lab.studies.deepobs.published import FIRST_SEED
from autolr_lab.studies.deepobs.runs import KEY, OPTIMIZERS, PROBLEMS, compared, problem_of
from autolr_lab.studies.deepobs.tables import tables
from autolr_lab.studies.lines import Lines
from autolr_lab.studies.study import Study


def measure(data_dir: Path | None) -> Iterator[Row]:
    """Every pair for its published epochs."""
    lines = Lines(None, KEY)
    for name in PROBLEMS:
        problem = problem_of(name, data_dir)
        for optimizer in OPTIMIZERS:
            yield from compared(lines, problem, optimizer, None, [FIRST_SEED], data_dir)


DEEPOBS = Study(
    "deepobs", "Problems of DeepOBS, beside the published best of 36 constant rates", measure, tables,
    {"problems": PROBLEMS, "given": GIVEN, "momentum": MOMENTUM},
)  # fmt: skip
