"""Append-only records of measurements: ``benchmarks/records/<date>_<name>_<commit>/``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autolr_lab.training.provenance import portable, provenance
from autolr_lab.training.runs import write_json

STARTED = portable(provenance())  # where the measurement began: the tree may move on under it
RECORDS = Path(__file__).parent / "records"


def new_record(name: str) -> Path:
    """A new record's folder; an existing one is never written to again."""
    stem = f"{str(STARTED['started'])[:10]}_{name}_{STARTED['commit'] or STARTED['version']}"
    path = next(p for n in range(1000) if not (p := RECORDS / (stem + (f"_{n}" if n else ""))).exists())
    path.mkdir(parents=True)
    return path


def write_record(path: Path, settings: dict[str, Any], rows: list[dict[str, Any]], table: str) -> None:
    """``record.json`` with provenance, settings and every row measured; ``table.md`` as people read it."""
    write_json(path / "record.json", {"provenance": STARTED, "settings": settings, "rows": rows})
    (path / "table.md").write_text(table, encoding="utf8")


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
