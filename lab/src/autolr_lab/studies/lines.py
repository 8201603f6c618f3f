"""Rows of a long study in a file: each appended as soon as it is measured, and none measured twice."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from autolr_lab.runner.results import Row
from autolr_lab.training.provenance import COMMIT


class Lines:
    """One JSON object a line; the last of a key counts.

    Args:
        path: of the file; None keeps rows in memory only.
        key: the fields that tell a row from all others.
    """

    def __init__(self, path: Path | None, key: tuple[str, ...]) -> None:
        self._path, self._key = path, key
        self._rows: dict[tuple[Any, ...], Row] = {}
        text = path.read_text(encoding="utf8") if path is not None and path.exists() else ""
        for line in text.splitlines():
            self._take(line)
        if path is not None and text and not text.endswith("\n"):  # a process was killed in the middle of a line
            with path.open("a", encoding="utf8") as file:
                file.write("\n")

    def _take(self, line: str) -> None:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # it was cut off: measured anew
            return
        self._rows[self._key_of(row)] = row

    def _key_of(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(row[name] for name in self._key)

    @property
    def rows(self) -> list[Row]:
        """All of them, in the order of their first measurement."""
        return list(self._rows.values())

    def row(self, about: Row, measure: Callable[[], Row]) -> Row:
        """The row of this key, measured and appended where there is none yet.

        Args:
            about: what tells it from all others: every field of the key.
            measure: gives its other fields; commit, torch and seconds are added.
        """
        key = self._key_of(about)
        if key not in self._rows:
            began = time.perf_counter()
            measured = measure()
            seconds = round(time.perf_counter() - began, 2)
            self._add(key, {**about, **measured, "seconds": seconds, "commit": COMMIT, "torch": torch.__version__})
        return self._rows[key]

    def _add(self, key: tuple[Any, ...], row: Row) -> None:
        self._rows[key] = row
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf8") as file:
                file.write(json.dumps(row) + "\n")
