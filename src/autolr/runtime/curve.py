"""A curve that fits in memory however long the run is: evenly thinned, its last point always there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MOST = 1024  # points: more than a screen has columns


@dataclass
class Curve:
    """Points of a curve over the steps: all of them at first, then every second, every fourth, and so on."""

    stride: int = 1
    seen: int = 0
    points: list[tuple[int, float]] = field(default_factory=list)
    last: tuple[int, float] | None = None

    def add(self, step: int, value: float) -> None:
        """Take in the next point."""
        if self.seen % self.stride == 0:
            self.points.append((step, value))
        self.seen, self.last = self.seen + 1, (step, value)
        if len(self.points) > MOST:
            self.stride, self.points = 2 * self.stride, self.points[::2]

    def drawn(self) -> list[tuple[int, float]]:
        """What there is to draw: (step, value)."""
        if self.last is None or self.points[-1] == self.last:
            return list(self.points)
        return [*self.points, self.last]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {
            "stride": self.stride, "seen": self.seen, "points": [list(point) for point in self.points],
            "last": None if self.last is None else list(self.last),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Curve:
        """From `to_dict`."""
        last = state["last"]
        points = [(int(step), float(value)) for step, value in state["points"]]
        return cls(state["stride"], state["seen"], points, None if last is None else (last[0], last[1]))
