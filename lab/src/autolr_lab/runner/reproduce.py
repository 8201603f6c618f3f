"""Runs what experiments lack, and writes what they come to: Markdown, CSV, pictures, and a record."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autolr_lab.runner.experiment import Experiment, Rendered, RunSpec
from autolr_lab.runner.jobs import carry_out
from autolr_lab.runner.results import Record, Results, Row
from autolr_lab.runner.store import Store, settings_key
from autolr_lab.training.access import RunError
from autolr_lab.training.provenance import portable, provenance
from autolr_lab.training.runs import Settings


@dataclass(frozen=True)
class Plan:
    """What is there and what has to be run."""

    wanted: list[Settings]
    missing: list[Settings]


def plan(experiments: Sequence[Experiment], spec: RunSpec, store: Store) -> Plan:
    """Every run that the experiments need, each once, and those that are not there; what they tell may ask for more."""
    wanted = {settings_key(s): s for one in experiments for s in one.runs_so_far(spec, store.find)}
    return Plan(list(wanted.values()), [s for s in wanted.values() if store.find(s) is None])


def reproduce(
    experiments: Sequence[Experiment],
    spec: RunSpec,
    store: Store,
    out: Path,
    *,
    jobs: int = 1,
    run: bool = True,
    record: Results | None = None,
    report: Callable[[str], None] = print,
) -> dict[str, Rendered]:
    """Carry out experiments.

    Args:
        experiments: of `paper.EXPERIMENTS`, or the benchmark.
        spec: how they are to be carried out.
        store: where runs are found.
        out: a folder for each experiment is made in it, with ``table.md``, ``table.csv`` and pictures.
        jobs: runs at a time.
        run: whether to run what is missing; else only what is there is shown.
        record: results to add a record to for each experiment, with the runs that it shows.
        report: told of each run that is done.

    Returns:
        What each came to, by name.

    Raises:
        RunError: a run failed; those that were carried out are kept and shown in ``out``, and nothing is recorded.
    """
    failed = _run_what_is_missing(experiments, spec, store, jobs, report) if run else None
    made = {}
    for experiment in experiments:
        rendered = made[experiment.name] = experiment.render(spec, store.find)
        write(out / experiment.name, experiment.heading(spec), rendered)
        if record is not None and failed is None:
            report(f"Record: {add_record(record, experiment, spec, store).name}")
    if failed is not None:
        raise RunError(f"{failed}\nWhat there is, is written to {out}.")
    return made


def _run_what_is_missing(
    experiments: Sequence[Experiment], spec: RunSpec, store: Store, jobs: int, report: Callable[[str], None]
) -> RunError | None:
    while todo := plan(experiments, spec, store).missing:
        work = [(settings, store.folder(settings)) for settings in todo]
        try:
            for number, folder in enumerate(carry_out(work, workers=jobs), start=1):
                report(f"{number} of {len(todo)}: {folder}")
        except RunError as error:  # what is complete is shown all the same
            return error
    return None


def write(folder: Path, heading: str, rendered: Rendered) -> None:
    """``table.md``, ``table.csv`` and the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(f"# {heading}\n\n{rendered.markdown}", encoding="utf8")
    if rendered.csv:
        with (folder / "table.csv").open("w", encoding="utf8", newline="") as file:
            writer = csv.DictWriter(file, list(rendered.csv[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rendered.csv)
    for name, draw in rendered.pictures.items():
        (folder / name).write_bytes(draw())


def add_record(results: Results, experiment: Experiment, spec: RunSpec, store: Store) -> Record:
    """A new record of the runs that an experiment shows.

    Raises:
        RunError: it needs runs, and there is none of them.
    """
    shown = {settings_key(s): s for s in experiment.shown_runs(spec, store.find)}
    rows = [_portable(row) for s in shown.values() if (row := store.find(s)) is not None]
    if not rows and experiment.runs_so_far(spec, store.find):
        raise RunError(f"There is no run of {experiment.name} as it was asked for: nothing was recorded.")
    if not experiment.keeps_curves:
        rows = [{k: v for k, v in row.items() if k not in {"steps", "decisions"}} for row in rows]
    return results.add(new_record(results, experiment.name, experiment.heading(spec), spec.to_json()), rows)


def new_record(results: Results, experiment: str, claim: str, spec: dict[str, Any]) -> Record:
    """A record of now under a name that is free: ``<date>_<experiment>_<commit>``."""
    about = {k: v for k, v in portable(provenance()).items() if v is not None}
    stem = f"{str(about['started'])[:10]}_{experiment}_{about.get('commit', about['version'])}"
    names = (stem + (f"_{number}" if number else "") for number in itertools.count())
    return Record(next(name for name in names if name not in results.records), experiment, claim, about, spec)


def _portable(row: Row) -> Row:
    return {**row, "provenance": portable(row["provenance"]), "resumed": [portable(p) for p in row["resumed"]]}
