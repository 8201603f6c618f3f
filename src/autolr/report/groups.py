"""Which runs belong together: those of the same settings, seeds apart."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autolr_lab.training.runs import Run, Settings

# Held-out samples are looked at and never decided on; the rest says where a run took place.
NO_DIFFERENCE = ("seed", "device", "data_dir", "validation_eps")
SEEDS_TO_LIST = 5


@dataclass(frozen=True)
class Group:
    """Runs of the same settings, seeds apart."""

    name: str  # the label, and what sets it apart from others of that label
    runs: tuple[Run, ...]

    @property
    def finished(self) -> tuple[Run, ...]:
        """The runs that were not cut off."""
        return tuple(run for run in self.runs if run.result is not None)

    @property
    def averaged(self) -> tuple[Run, ...]:
        """The runs that a mean is taken over: the finished ones, or all where none is."""
        return self.finished or self.runs

    @property
    def seeds(self) -> str:
        """As a legend wants them: ``seed 0``, ``seeds 0, 1, 2`` or ``10 seeds``."""
        seeds = [str(run.settings.seed) for run in self.runs]
        if len(seeds) > SEEDS_TO_LIST:
            return f"{len(seeds)} seeds"
        return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}"


def group_runs(runs: Iterable[Run]) -> list[Group]:
    """Put together what differs by its seed alone, in the order of first appearance."""
    members: dict[str, list[Run]] = {}
    for run in runs:
        members.setdefault(json.dumps(_identity(run.settings), sort_keys=True, default=str), []).append(run)
    identities = [_identity(group[0].settings) for group in members.values()]
    labels = [group[0].settings.label for group in members.values()]
    return [
        Group(
            _name(label, me, [o for o, other in zip(identities, labels, strict=True) if other == label]),
            tuple(group),
        )
        for label, me, group in zip(labels, identities, members.values(), strict=True)
    ]


def run_names(runs: Sequence[Run]) -> list[str]:
    """A name for each run: its folder's, with as many parent folders as tell it from the others."""
    parts = [run.path.absolute().parts for run in runs]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = [Path(*p[-length:]).as_posix() for p in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{p[-1]} ({i})" for i, p in enumerate(parts, 1)]  # one folder was given twice


def _identity(settings: Settings) -> dict[str, Any]:
    fields: dict[str, Any] = dataclasses.asdict(settings)
    policy: dict[str, Any] = fields.pop("policy")
    return {k: v for k, v in (fields | policy).items() if k not in NO_DIFFERENCE}


def _name(label: str, me: dict[str, Any], others: list[dict[str, Any]]) -> str:
    keys = dict.fromkeys(key for other in others for key in other)
    differing = [key for key in keys if any(other.get(key) != me.get(key) for other in others)]
    return ", ".join([label, *(f"{key} {'default' if me[key] is None else me[key]}" for key in differing if key in me)])
