"""Runs found again: by what was asked for and by the code that decides them, in run folders and in the kept results.

Two runs are the same experiment when everything that decides the mathematics is equal. Where the data lies, how it is
loaded, and the device only change rounding and speed. A run that other code made counts where that code was shown to
make the same runs (`same_code`).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autolr import DecisionRecord
from autolr.report.training_record import Training
from autolr_lab.runner.code_identity import code_of
from autolr_lab.runner.results import Results, Row
from autolr_lab.runner.same_code import SameCode
from autolr_lab.training.access import RunError
from autolr_lab.training.policies import POLICIES
from autolr_lab.training.report_input import training_of
from autolr_lab.training.runs import Run, Settings, read_run

Find = Callable[[Settings], Row | None]
INDIFFERENT = ("data_dir", "device", "pinned")
POINTS = 150  # of a run's step log in the results: as many as a picture shows
_BARE: dict[str, Any] = {"loss": None, "drop_rate": None, "drop_rate_stderr": None, "forwards": 0}


def experiment(settings: Settings) -> dict[str, Any]:
    """The settings that differ from their defaults, but for those that are indifferent.

    A setting that is new, and at its default, does not make another experiment of an old run.
    """
    fields = dataclasses.fields(settings)
    said = {f.name: value for f in fields if (value := getattr(settings, f.name)) != _default(f)}
    if settings.schedule in POLICIES:
        make = POLICIES[settings.schedule]
        policy, usual = make(**settings.policy), make()
        changed = {f.name: getattr(policy, f.name) for f in dataclasses.fields(policy)}  # type: ignore[arg-type]
        said["policy"] = {k: _plain(v) for k, v in changed.items() if v != getattr(usual, k)}
    if "workers" in said:  # that some load may decide what an image looks like, and how many never does
        said["workers"] = True
    return {name: value for name, value in said.items() if name not in INDIFFERENT and value not in ({}, ())}


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default_factory() if callable(field.default_factory) else field.default


def _plain(value: Any) -> Any:
    return float(value) if type(value) is int else value


def settings_key(settings: Settings) -> str:
    """Of what was asked for: the same on every machine, whatever code runs it."""
    text = json.dumps(experiment(settings), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def folder_name(settings: Settings) -> str:
    """Of a run's folder: what it trains, what was asked for, and the code."""
    s = settings
    told = f"{s.workload}-{s.optimizer}-{s.schedule}-{s.lr:g}-{s.epochs}ep-seed{s.seed}"
    return f"{told}-{settings_key(settings)}-{code_of(settings)[:6]}"


def row_of(run: Run, code: str) -> Row:
    """A complete run as the results have it: enough for every table and figure, and to run it again."""
    assert run.result is not None, "a run that was cut off is no result"
    return {
        "code": code,
        "settings": {k: v for k, v in dataclasses.asdict(run.settings).items() if k != "data_dir"},
        "provenance": run.provenance,
        "resumed": run.resumed,
        "result": run.result,
        "epochs": run.epochs,
        "steps": _thinned(run.steps),
        "decisions": [_decision(record) for record in run.decisions],
    }


def decisions_of(row: Row) -> list[DecisionRecord]:
    """What AutoLR decided in a run. Why, in words, is in run folders only."""
    has = {field.name for field in dataclasses.fields(DecisionRecord)}
    return [
        DecisionRecord.from_dict({"reason": "", "trigger": "", **_BARE, **{k: v for k, v in one.items() if k in has}})
        for one in row.get("decisions", [])
    ]


def as_training(row: Row, name: str) -> Training:
    """A run as the report draws it, under this name."""
    settings = Settings.from_dict(row["settings"])
    run = Run(
        Path(), settings, row["provenance"], row.get("steps", []), row["epochs"], decisions_of(row), row["result"]
    )
    return training_of(run, name)


def _thinned(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every so many lines of the step log, each with the mean loss since the one before."""
    width = -(-len(steps) // POINTS) or 1
    chunks = [steps[i : i + width] for i in range(0, len(steps), width)]
    return [{**chunk[-1], "loss": _mean([line["loss"] for line in chunk])} for chunk in chunks]


def _mean(losses: list[float | None]) -> float | None:
    finite = [loss for loss in losses if loss is not None]
    return sum(finite) / len(finite) if len(finite) == len(losses) else None


def _decision(record: DecisionRecord) -> dict[str, Any]:
    """A decision without its words and without what it has not."""
    said = {k: v for k, v in dataclasses.asdict(record).items() if k not in {"reason", "seconds"}}
    return {k: v for k, v in said.items() if v is not None and v != ()}


class Store:
    """Finds runs, and says where new ones go.

    Args:
        runs: folder of run folders.
        results: those that are kept; None to run everything anew.
    """

    def __init__(self, runs: Path, results: Results | None = None) -> None:
        self.runs, self.results = runs, results
        self._read: dict[Path, Row] = {}  # a complete run does not change

    def folder(self, settings: Settings) -> Path:
        """Where its run is or will be."""
        return self.runs / folder_name(settings)

    def find(self, settings: Settings) -> Row | None:
        """A complete run of this experiment by this code, or by code that makes the same; None where there is none."""
        folder = self.folder(settings)
        if folder not in self._read:
            try:
                run = read_run(folder)
            except RunError:
                return self._kept(settings)
            if run.result is None:
                return self._kept(settings)
            self._read[folder] = row_of(run, code_of(settings))
        return self._read[folder]

    def _kept(self, settings: Settings) -> Row | None:
        if self.results is None:
            return None
        accepted = self._same_code.accepted(code_of(settings))
        rows = self._by_settings.get(settings_key(settings), [])
        return next((row for row in reversed(rows) if row["code"] in accepted), None)

    @functools.cached_property
    def _same_code(self) -> SameCode:
        assert self.results is not None
        return SameCode(self.results.folder)

    @functools.cached_property
    def _by_settings(self) -> dict[str, list[Row]]:
        assert self.results is not None
        found: dict[str, list[Row]] = defaultdict(list)
        for row in self.results.runs.values():
            found[settings_key(Settings.from_dict(row["settings"]))].append(row)
        return found


def find_in_record(results: Results, name: str) -> Find:
    """Finds among the runs of one record, whatever code made them: what the record shows, it shows for ever."""
    there = {settings_key(Settings.from_dict(row["settings"])): row for row in results.rows(name)}
    return lambda settings: there.get(settings_key(settings))
