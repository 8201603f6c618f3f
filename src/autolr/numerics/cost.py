"""What AutoLR costs beside the training itself, in forward equivalents and in seconds (paper, appendix C).

A *forward equivalent* is one minibatch through the model; a training step is 3 (a backward pass costs twice a forward).
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

FORWARDS_PER_STEP = 3

PROBES_SHARE = 1 / 6  # of the training's own cost: 500 / 3000, the paper's "16.6 %"


def affordable_superbatch(window: int, samples: int) -> int:
    """Minibatches for which ``samples`` losses every ``window`` steps cost a sixth of training: 100 for 5 and 1,000.

    Examples:
        >>> affordable_superbatch(window=1000, samples=5)
        100
    """
    return max(1, int(FORWARDS_PER_STEP * window * PROBES_SHARE / samples))


Part = Literal["probes", "drop_rate", "validation", "divergence", "search", "snapshots"]


@dataclass
class Cost:
    """Forward passes and seconds spent so far, by what they were spent on."""

    first: int = 0  # [forwards] the one that tries loss_fn before training
    probes: int = 0  # [forwards] samples for the parabola
    drop_rate: int = 0  # [forwards] loss-drop rate checks
    validation: int = 0  # [forwards] samples kept from the fit: for pictures, never for decisions
    divergence: int = 0  # [forwards] divergence checks
    search: int = 0  # [forward equivalents] of a peak search and of a trial of a lower peak: runs and their evaluation
    snapshots: int = 0  # each counted as one forward pass, which copying the parameters to the host is at most about
    discarded_steps: int = 0  # [steps] undone by rollbacks
    probes_seconds: float = 0.0
    drop_rate_seconds: float = 0.0
    validation_seconds: float = 0.0
    divergence_seconds: float = 0.0
    search_seconds: float = 0.0
    snapshots_seconds: float = 0.0

    @property
    def forwards(self) -> int:
        """Minibatch forward passes."""
        return self.first + self.probes + self.drop_rate + self.validation + self.divergence

    @property
    def forward_equivalents(self) -> int:
        """All of it: forward passes, the search, snapshots at 1 each, and discarded steps at 3 each."""
        return self.beside_steps + FORWARDS_PER_STEP * self.discarded_steps

    @property
    def beside_steps(self) -> int:
        """All but discarded steps, which are among those that the loop took."""
        return self.forwards + self.search + self.snapshots

    @property
    def seconds(self) -> float:
        """Wall-clock seconds, discarded steps not counted."""
        return math.fsum(value for name, value in vars(self).items() if name.endswith("_seconds"))

    def share(self, steps: int) -> float:
        """Forward equivalents spent, over those of ``steps`` training steps."""
        return self.forward_equivalents / (FORWARDS_PER_STEP * steps) if steps else 0.0

    @contextlib.contextmanager
    def timing(self, part: Part) -> Iterator[None]:
        """Add the seconds spent inside to ``part``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            name = f"{part}_seconds"
            setattr(self, name, getattr(self, name) + time.perf_counter() - start)

    def to_dict(self) -> dict[str, int | float]:
        """Plain numbers, for a checkpoint or a log."""
        return dataclasses.asdict(self)
