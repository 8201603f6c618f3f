"""Which code is known to make the same runs as other code: shown by running one again, and never by hand.

A change that leaves every number as it was, such as a new name, changes the hash of the code all the same. One run that
is carried out again and comes to the same shows that the runs of the former code still hold: to the last bit on the
kind of machine that it was made on, and to rounding at every evaluation on another one::

    python -m autolr_lab.runner.same_code digits --data-dir DIR

carries out the shortest kept run of each schedule on a workload, and says which came to the same.
"""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from autolr_lab.baselines import BASELINES
from autolr_lab.baselines.schedules import SCHEDULES
from autolr_lab.runner.code_identity import code_of
from autolr_lab.runner.results import TIMES, Results, Row
from autolr_lab.training.policies import POLICIES
from autolr_lab.training.runs import Run, Settings, read_run
from autolr_lab.training.training import train

ROUNDING = 5e-3  # relative, and of a share such as an accuracy absolute: a few examples fall on the other side
KNOWN = {*SCHEDULES, *BASELINES, *POLICIES}  # a schedule that is retired cannot be run again


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
        there = run.provenance["machine"] == row["provenance"]["machine"]
        same = is_same(run, row) if there else is_near(run.epochs, row["epochs"])
        if same:
            how = "to the bit" if there else "to rounding, on another machine"
            shown = f"{settings.label}, seed {settings.seed}, {run.result['steps']} steps: {how}"
            self.pairs.append({"code": code, "same_as": row["code"], "shown_by": shown})
            self._path.write_text(json.dumps(self.pairs, indent=1) + "\n", encoding="utf8")
        return same


def is_same(run: Run, row: Row) -> bool:
    """Whether all figures are equal but for times, and versions of packages; figures may have been added since."""
    assert run.result is not None, "train() ends with a result"
    names = (run.result.keys() & row["result"].keys()) - {*TIMES, "package", "notice", "cost"}
    return run.epochs == row["epochs"] and all(run.result[name] == row["result"][name] for name in names)


def is_near(evaluations: list[dict[str, Any]], others: list[dict[str, Any]]) -> bool:
    """Whether every figure of every evaluation is the same but for rounding, which grows from step to step."""

    def near(a: float | None, b: float | None) -> bool:
        return a == b or (a is not None and b is not None and math.isclose(a, b, rel_tol=ROUNDING, abs_tol=ROUNDING))

    return len(evaluations) == len(others) and all(
        mine.keys() == theirs.keys() and all(near(mine[name], theirs[name]) for name in mine)
        for mine, theirs in zip(evaluations, others, strict=True)
    )


def main(workload: str, data_dir: Annotated[Path | None, typer.Option(envvar="AUTOLR_DATA")] = None) -> None:
    """Carry out the shortest kept run of each schedule and code again."""
    torch.set_num_threads(1)
    results = Results()
    shortest: dict[tuple[str, str], Row] = {}
    for row in sorted(results.runs.values(), key=lambda row: -row["result"]["steps"]):
        if row["settings"]["workload"] == workload and row["settings"]["schedule"] in KNOWN:
            shortest[row["settings"]["schedule"], row["code"]] = row
    for (schedule, code), row in sorted(shortest.items()):
        same = SameCode(results.folder).confirm(row, data_dir)
        print(f"{workload} {schedule}, {row['result']['steps']} steps, {code}: {'the same' if same else 'ANOTHER RUN'}")


if __name__ == "__main__":
    typer.run(main)
