"""Runs what an experiment lacks, and writes what it shows: Markdown, CSV, pictures, and a record."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autolr_lab.runner.engine import Engine, carry_out
from autolr_lab.runner.experiment import Ask, Experiment, Row, Shown
from autolr_lab.runner.store import Store, key
from autolr_lab.training.provenance import portable, provenance
from autolr_lab.training.runs import RunError, Settings, write_json


@dataclass(frozen=True)
class Plan:
    """What is there and what has to be run."""

    wanted: list[Settings]
    missing: list[Settings]


def plan(experiments: Sequence[Experiment], ask: Ask, store: Store) -> Plan:
    """Every run that the experiments need, each once, and those that are not there; what they tell may ask for more."""
    wanted = {key(s): s for experiment in experiments for s in experiment.known(ask, store.find)}
    return Plan(list(wanted.values()), [s for s in wanted.values() if store.find(s) is None])


def reproduce(
    experiments: Sequence[Experiment],
    ask: Ask,
    store: Store,
    out: Path,
    *,
    engine: Engine = "local",
    jobs: int = 1,
    run: bool = True,
    record: Path | None = None,
    report: Callable[[str], None] = print,
) -> dict[str, Shown]:
    """Carry out experiments.

    Args:
        experiments: of `paper.EXPERIMENTS`.
        ask: at which scale, and where.
        store: where runs are kept.
        out: a folder for each experiment is made in it, with ``table.md``, ``table.csv`` and pictures.
        engine: where runs are carried out.
        jobs: at a time.
        run: whether to run what is missing; else only what is there is shown.
        record: folder of records to add one to for each experiment, with the rows that it shows.
        report: told of each run that is done.

    Returns:
        What each shows, by name.

    Raises:
        RunError: a run failed; those that were carried out are kept and shown in ``out``, and nothing is recorded.
    """
    failed: RunError | None = None
    while run and failed is None and (todo := plan(experiments, ask, store).missing):
        jobs_to_do = [(settings, store.folder(settings)) for settings in todo]
        try:
            for number, folder in enumerate(carry_out(jobs_to_do, engine=engine, workers=jobs), start=1):
                report(f"{number} of {len(todo)}: {folder}")
        except RunError as error:  # what is whole is shown all the same
            failed = error
    shown = {}
    for experiment in experiments:
        result = experiment.show(ask, store.find)
        shown[experiment.name] = result
        write(out / experiment.name, experiment.heading(ask), result)
        if record is not None and failed is None:
            rows = _rows(experiment, ask, store)
            report(f"Record: {write_record(record, experiment, ask, rows, result)}")
    if failed is not None:
        raise RunError(f"{failed}\nWhat there is, is written to {out}.")
    return shown


def _rows(experiment: Experiment, ask: Ask, store: Store) -> list[Row]:
    """Of every run that it has, each once."""
    wanted = {key(s): s for s in experiment.known(ask, store.find)}
    return [row for s in wanted.values() if (row := store.find(s)) is not None]


def write(folder: Path, heading: str, shown: Shown) -> None:
    """``table.md``, ``table.csv`` and the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(f"# {heading}\n\n{shown.markdown}", encoding="utf8")
    if shown.csv:
        (folder / "table.csv").write_text(_csv(shown), encoding="utf8")
    for name, png in shown.pictures.items():
        (folder / name).write_bytes(png)


def _csv(shown: Shown) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(shown.csv[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(shown.csv)
    return text.getvalue()


def write_record(records: Path, experiment: Experiment, ask: Ask, rows: list[Row], shown: Shown) -> Path:
    """A new folder ``<date>_<name>_<commit>`` with everything; one that is there is never written to again."""
    about = portable(provenance())
    rows = [
        {**row, "provenance": portable(row["provenance"]), "resumed": [portable(p) for p in row.get("resumed", [])]}
        for row in rows
    ]
    stem = f"{str(about['started'])[:10]}_{experiment.name}_{about['commit'] or about['version']}"
    if not experiment.keeps_curves:
        rows = [{k: v for k, v in row.items() if k not in {"steps", "decisions"}} for row in rows]
    path = _made(records, stem)
    settings: dict[str, Any] = {
        "experiment": experiment.name, "scale": ask.scale, "seeds": ask.seeds, "small": ask.small,
        "methods": list(ask.methods), "optimizers": list(ask.optimizers),
        "precision": ask.precision, "compiled": ask.compiled, "workloads": list(ask.workloads), "budget": ask.budget,
    }  # fmt: skip
    write_json(path / "record.json", {"provenance": about, "settings": settings, "rows": rows})
    write(path, experiment.heading(ask), dataclasses.replace(shown, pictures={}))
    return path


def _made(records: Path, stem: str) -> Path:
    """A folder that was not there, also where another command makes one at this moment."""
    for number in itertools.count():
        path = records / (stem + (f"_{number}" if number else ""))
        with contextlib.suppress(FileExistsError):
            path.mkdir(parents=True)
            return path
    raise AssertionError("counting ends nowhere")
