"""The results that are kept: each run once, what studies measured, the tables as they were written, and a manifest.

``lab/results`` holds::

    manifest.json           each record: when, by which command and commit, on which machine, of which runs, why
    runs/*.parquet          one line a run, under a key of its own
    measurements/*.parquet  one line for each thing that a study measured
    tables/*.parquet        each record's table as it was written then, for those whose code is gone

A new record adds a file to each folder that it has something for, and changes none; a run that is there already is only
named again. Columns that are not numbers or names hold JSON, so that every figure comes back to the last bit.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]  # a run: settings, code, provenance, resumed, result, epochs, steps, decisions
RESULTS = Path(__file__).parents[3] / "results"  # of a checkout: the lab is not published
PARTS = ("settings", "provenance", "resumed", "result", "epochs", "steps", "decisions", "asked")  # of a row, as JSON
NAMED = ("workload", "optimizer", "schedule", "lr", "seed")  # settings that have a column, to look runs up by
TIMES = ("seconds", "training_seconds", "own_seconds", "cost_seconds")  # of a result: no two runs have them alike


@dataclass(frozen=True)
class Record:
    """One occasion on which something was measured."""

    name: str  # <date>_<experiment>_<commit>
    experiment: str
    claim: str  # what rests on it
    provenance: Mapping[str, Any]  # command, commit, time, machine, versions
    spec: Mapping[str, Any]  # how it was asked for
    runs: tuple[str, ...] = ()  # keys
    measurements: int = 0
    note: str = ""
    seeds: tuple[int, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """As the manifest has it."""
        kept = {"experiment": self.experiment, "claim": self.claim, **self.provenance, "spec": dict(self.spec)}
        kept |= {"note": self.note} if self.note else {}
        kept |= {"measurements": self.measurements} if self.measurements else {}
        if self.runs:
            kept |= {"seeds": list(self.seeds), "n": len(self.runs), "runs": " ".join(self.runs)}
        return kept

    @classmethod
    def from_json(cls, name: str, kept: Mapping[str, Any]) -> Record:
        """From the manifest."""
        own = {"experiment", "claim", "spec", "note", "measurements", "seeds", "n", "runs"}
        provenance = {key: value for key, value in kept.items() if key not in own}
        return cls(
            name, kept["experiment"], kept["claim"], provenance, kept["spec"], tuple(kept.get("runs", "").split()),
            kept.get("measurements", 0), kept.get("note", ""), tuple(kept.get("seeds", ())),
        )  # fmt: skip


def run_key(row: Row) -> str:
    """Of what was asked for, the code that ran, and what came of it: twelve hexadecimal digits."""
    outcome = {key: value for key, value in row["result"].items() if key not in TIMES}
    said = [{k: v for k, v in row["settings"].items() if k != "data_dir"}, row["code"], outcome, row["epochs"]]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]


class Results:
    """Reads and adds to a folder of results; one that is not there is empty.

    Args:
        folder: ``lab/results``, or another one.
    """

    def __init__(self, folder: Path = RESULTS) -> None:
        self.folder = folder

    @functools.cached_property
    def records(self) -> dict[str, Record]:
        """By name, the oldest first."""
        path = self.folder / "manifest.json"
        kept = json.loads(path.read_text(encoding="utf8")) if path.exists() else {}
        found = [Record.from_json(name, entry) for name, entry in kept.items()]
        return {record.name: record for record in sorted(found, key=lambda r: r.provenance.get("started") or "")}

    @functools.cached_property
    def runs(self) -> dict[str, Row]:
        """Every run by its key, in the order of the records that brought them."""
        lines = {line["key"]: line for line in self._lines("runs")}
        first = dict.fromkeys(key for record in self.records.values() for key in record.runs)
        return {key: _row(lines[key]) for key in first}

    def rows(self, name: str) -> list[Row]:
        """A record's runs, or what its study measured, in the order in which they were recorded.

        Raises:
            KeyError: there is no such record.
        """
        record = self.record(name)
        if record.runs:
            return [self.runs[key] for key in record.runs]
        return [json.loads(line["measured"]) for line in self._lines("measurements") if line["record"] == name]

    def record(self, name: str) -> Record:
        """The record of that name.

        Raises:
            KeyError: there is none; with those of the same experiment.
        """
        if name not in self.records:
            alike = [other for other in self.records if other.split("_")[1:2] == name.split("_")[1:2]]
            raise KeyError(f"There is no record {name!r} in {self.folder}. There are: {', '.join(alike) or 'none'}.")
        return self.records[name]

    def table(self, name: str) -> str:
        """A record's table as it was written then; empty where none was kept."""
        return next((str(line["table"]) for line in self._lines("tables") if line["record"] == name), "")

    def add(self, record: Record, rows: Iterable[Row] = (), measured: Sequence[Row] = (), table: str = "") -> Record:
        """Keep a record, and of its runs those that are not there yet.

        Raises:
            ValueError: a record of that name is there: none is ever changed.
        """
        if record.name in self.records:
            raise ValueError(f"The record {record.name} is there already; records are added and never changed.")
        keyed = {run_key(row): row for row in rows}
        seeds = sorted({row["settings"]["seed"] for row in keyed.values()})
        whole = Record(
            record.name, record.experiment, record.claim, record.provenance, record.spec, tuple(keyed), len(measured),
            record.note, tuple(seeds),
        )  # fmt: skip
        self._write("runs", record.name, [_line(key, row) for key, row in keyed.items() if key not in self.runs])
        numbered = enumerate(measured)
        self._write(
            "measurements", record.name,
            [{"record": record.name, "place": place, "measured": json.dumps(one)} for place, one in numbered],
        )  # fmt: skip
        self._write("tables", record.name, [{"record": record.name, "table": table}] if table else [])
        self._write_manifest({**self.records, record.name: whole})
        for cached in ("records", "runs"):
            self.__dict__.pop(cached, None)
        return whole

    def _lines(self, part: str) -> list[dict[str, Any]]:
        """All lines of a part, in the order of its files' names."""
        files = sorted((self.folder / part).glob("*.parquet"))
        return [line for file in files for line in pq.read_table(file).to_pylist()]

    def _write(self, part: str, name: str, lines: list[dict[str, Any]]) -> None:
        if lines:
            write_lines(self.folder / part / f"{name}.parquet", lines)

    def _write_manifest(self, records: Mapping[str, Record]) -> None:
        kept = {name: record.to_json() for name, record in records.items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / "manifest.part"
        unfinished.write_text(_one_field_a_line(kept), encoding="utf8")
        unfinished.replace(self.folder / "manifest.json")


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    """One compressed table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(lines), path, compression="zstd", compression_level=22)


def _one_field_a_line(kept: Mapping[str, Mapping[str, Any]]) -> str:
    """JSON whose changes can be read line by line."""
    entries = []
    for name, entry in kept.items():
        fields = (f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in entry.items())
        entries.append(f" {json.dumps(name)}: {{\n" + ",\n".join(fields) + "\n }")
    return "{\n" + ",\n".join(entries) + "\n}\n"


def _line(key: str, row: Row) -> dict[str, Any]:
    line: dict[str, Any] = {"key": key, "code": row["code"]}
    line |= {name: row["settings"][name] for name in NAMED}
    line["lr"] = float(line["lr"])
    return line | {part: json.dumps(row[part]) if part in row else None for part in PARTS}


def _row(line: Mapping[str, Any]) -> Row:
    parts = {part: json.loads(line[part]) for part in PARTS if line[part] is not None}
    return {"key": line["key"], "code": line["code"], **parts}
