"""Where runs are kept and found again: a folder for each, named by what was asked, and the rows of past records.

Two runs are one experiment when all that decides the mathematics is equal: where the data lies, the device, compilation
and the memory layout only change the rounding and the speed, and are written down with the result.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from pathlib import Path
from typing import Any

from autolr_lab.training.runs import Run, RunError, Settings, read_run
from autolr.runtime.decision_log import Record
from autolr_lab.training.training import TUNED
from autolr_lab.workloads import WORKLOADS

INDIFFERENT = ("data_dir", "device", "compiled", "channels_last")


def version(settings: Settings) -> dict[str, int]:
    """The trajectory that the present code takes; empty where it is the first that there was.

    To be raised with each entry under Trajectory in the CHANGELOG by which a run that is kept would be another: it is
    then no longer taken for one of now.
    """
    sure = settings.policy.get("confidence") is not None
    policy = AUTO if settings.schedule == "auto" else ADAPTIVE if sure else 1
    versions = {"policy": policy, "workload": WORKLOADS[settings.workload].version}
    return {part: number for part, number in versions.items() if number > 1}


AUTO = 7  # a peak must bear out in a longer trial what shorter ones say. Since then another run is taken for dead, and
# another network for stuck: none of either kind is in a record of the benchmark
ADAPTIVE = 3  # 2: exploring looks are given up early. 3: a used-up LR is halved after four observations


def experiment(settings: Settings, of: dict[str, int] | None = None) -> dict[str, Any]:
    """What makes the run: the settings that differ from their defaults, those of speed and place left out.

    So a setting that is new and at its default does not make another experiment of an old run.

    Args:
        settings: of the run.
        of: the `version` that it was made by; None for the present one.
    """
    said = _changed(settings)
    if settings.schedule in TUNED:
        policy = _changed(TUNED[settings.schedule](**settings.policy))
        said["policy"] = {k: float(v) if type(v) is int else v for k, v in policy.items()}
    versions = version(settings) if of is None else of
    return {k: v for k, v in said.items() if k not in INDIFFERENT} | ({"version": versions} if versions else {})


def _changed(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not at their defaults."""
    values = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    default = {
        f.name: f.default_factory() if callable(f.default_factory) else f.default for f in dataclasses.fields(settings)
    }
    return {k: v for k, v in values.items() if v != default[k]}


def key(settings: Settings, of: dict[str, int] | None = None) -> str:
    """Short, and the same for the same experiment on every machine."""
    text = json.dumps(experiment(settings, of), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def name(settings: Settings) -> str:
    """The run folder's."""
    s = settings
    return f"{s.workload}-{s.optimizer}-{s.schedule}-{s.lr:g}-{s.epochs}ep-seed{s.seed}-{key(settings)}"


def row(run: Run) -> dict[str, Any]:
    """A whole run's line in a record: enough for every table and figure, and to run it again."""
    assert run.result is not None, "a run that was cut off is no result"
    return {
        "key": key(run.settings),
        "version": version(run.settings),
        "settings": {k: v for k, v in dataclasses.asdict(run.settings).items() if k != "data_dir"},
        "provenance": run.provenance,
        "resumed": run.resumed,
        "result": run.result,
        "epochs": run.epochs,
        "steps": _thinned(run.steps),
        "decisions": [_decision(record) for record in run.decisions],
    }


def as_run(row: dict[str, Any]) -> Run:
    """A row as what draws wants to have it; the reasons in words are in the run folder only."""
    decisions = [Record.from_dict({"reason": "", **_BARE, **decision}) for decision in row.get("decisions", [])]
    settings = Settings.from_dict(row["settings"])
    path = Path(name(settings))
    resumed = row.get("resumed", [])
    return Run(
        path, settings, row["provenance"], row.get("steps", []), row["epochs"], decisions, row["result"], resumed
    )


_BARE: dict[str, Any] = {"loss": None, "drop_rate": None, "drop_rate_stderr": None, "forwards": 0}
POINTS = 150  # of a run's step log in a record: as many as a picture shows


def _thinned(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every so many lines of the step log, each the mean loss since the one before; the rate as it was then."""
    width = -(-len(steps) // POINTS) or 1
    chunks = [steps[i : i + width] for i in range(0, len(steps), width)]
    return [{**chunk[-1], "loss": _mean([row["loss"] for row in chunk])} for chunk in chunks]


def _mean(losses: list[float | None]) -> float | None:
    known = [loss for loss in losses if loss is not None]
    return sum(known) / len(known) if len(known) == len(losses) else None


def _decision(record: Record) -> dict[str, Any]:
    """A decision without its words: they can be had from the run itself."""
    kept = {k: v for k, v in dataclasses.asdict(record).items() if k not in {"reason", "seconds"}}
    return {k: v for k, v in kept.items() if v is not None and v != ()}


class Store:
    """Finds and makes runs.

    Args:
        runs: folder of run folders.
        records: folder of records, whose rows count as runs; None to run everything anew.
    """

    def __init__(self, runs: Path, records: Path | None) -> None:
        self.runs, self.records = runs, records
        self._read: dict[str, dict[str, Any]] = {}  # by key: a whole run does not change

    def folder(self, settings: Settings) -> Path:
        """Where its run is or will be."""
        return self.runs / name(settings)

    def find(self, settings: Settings) -> dict[str, Any] | None:
        """The row of a whole run of this experiment; None where there is none yet."""
        wanted = key(settings)
        if wanted not in self._read:
            try:
                run = read_run(self.folder(settings))
            except RunError:
                return self._recorded.get(wanted)
            if run.result is None or key(run.settings) != wanted:
                return self._recorded.get(wanted)
            self._read[wanted] = row(run)
        return self._read[wanted]

    @functools.cached_property
    def _recorded(self) -> dict[str, dict[str, Any]]:
        """Of every record that holds runs, by key; a later record goes before an earlier one."""
        found: dict[str, dict[str, Any]] = {}
        records = []
        for path in self.records.glob("*/record.json") if self.records is not None else []:
            record = json.loads(path.read_text(encoding="utf8"))
            records.append((record["provenance"].get("started") or "", path.parent.name, record.get("rows", [])))
        for _, folder, lines in sorted(records, key=lambda record: record[:2]):
            for line in lines:
                if isinstance(line, dict) and {"settings", "result", "epochs"} <= line.keys() and line["result"]:
                    known = key(Settings.from_dict(line["settings"]), line.get("version", {}))
                    found[known] = {"decisions": [], **line, "key": known, "record": folder}
        return found
