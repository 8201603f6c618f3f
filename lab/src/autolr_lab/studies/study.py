"""A study: something measured beside whole training runs, and the tables that it comes to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autolr_lab.runner.reproduce import new_record
from autolr_lab.runner.results import Record, Results, Row


@dataclass(frozen=True)
class Study:
    """What is measured, and how it is shown."""

    name: str
    title: str
    measure: Callable[[Path | None], Iterable[Row]]  # the data folder -> rows, as they come
    tables: Callable[[list[Row]], dict[str, str]]  # Markdown, by the names of its parts
    settings: Mapping[str, Any] = field(default_factory=dict)  # that a record has to name


def carry_out(
    study: Study, data_dir: Path | None, results: Results | None = None, report: Callable[[str], None] = print
) -> dict[str, str]:
    """Measure, and keep a record where ``results`` are given; the tables."""
    rows = []
    for row in study.measure(data_dir):
        rows.append(row)
        report(str(row))
    if results is not None:
        report(f"Record: {keep(study, rows, results).name}")
    return study.tables(rows)


def keep(study: Study, rows: list[Row], results: Results) -> Record:
    """A new record of what was measured, with its tables as they are now."""
    about = new_record(results, study.name, study.title, dict(study.settings))
    return results.add(about, measured=rows, table="\n".join(study.tables(rows).values()))


def as_measured(rows: list[Row]) -> list[Row]:
    """Rows of the results as a study's tables want them: JSON of former records has null for NaN."""
    return [{key: math.nan if value is None else value for key, value in row.items()} for row in rows]
