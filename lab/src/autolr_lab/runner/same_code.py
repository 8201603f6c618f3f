"""Which code is known to make the same runs as other code: shown by running one again, and never by hand.

A change that leaves every number as it was, such as a new name, changes the hash of the code all the same. One run that
is carried out again and comes to the same, to the last bit, shows that the runs of the former code still hold.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autolr_lab.runner.code_identity import code_of
from autolr_lab.runner.results import TIMES, Row
from autolr_lab.training.runs import Settings, read_run
from autolr_lab.training.training import train


class SameCode:
    """Pairs of code that were shown to make the same runs, in ``same_code.json`` of a folder of results.

    Args:
        folder: of the results.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "same_code.json"
        self.pairs: list[dict[str, str]] = json.loads(self._path.read_text()) if self._path.exists() else []

    def accepted(self, code: str) -> frozenset[str]:
        """This code and every other that makes the same runs, by one pair or by several."""
        found, before = {code}, 0
        while len(found) > before:
            before = len(found)
            for pair in self.pairs:
                both = {pair["code"], pair["same_as"]}
                found |= both if both & found else set()
        return frozenset(found)

    def confirm(self, row: Row, data_dir: Path | None = None) -> bool:
        """Run a kept run again by the present code; where it comes to the same, its code is one that makes the same.

        Args:
            row: of the results; a short run is enough.
            data_dir: where the workload's data lies.
        """
        settings = Settings.from_dict({**row["settings"], "data_dir": None if data_dir is None else str(data_dir)})
        code = code_of(settings)
        if row["code"] in self.accepted(code):
            return True
        with tempfile.TemporaryDirectory() as folder:
            train(settings, Path(folder) / "run")
            run = read_run(Path(folder) / "run")
        assert run.result is not None, "train() ends with a result"
        same = outcome(run.result) == outcome(row["result"]) and run.epochs == row["epochs"]
        if same:
            shown = f"{settings.label}, seed {settings.seed}, {run.result['steps']} steps"
            self.pairs.append({"code": code, "same_as": row["code"], "shown_by": shown})
            self._path.write_text(json.dumps(self.pairs, indent=1) + "\n", encoding="utf8")
        return same


def outcome(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result without what differs from machine to machine: times, and versions of packages."""
    return {name: value for name, value in result.items() if name not in (*TIMES, "package", "notice", "cost")}
