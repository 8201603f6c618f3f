"""What a policy is told and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from autolr.numerics.quadratic import Quadratic
from autolr.numerics.saturation import LossDrop

Verdict = Literal["keep", "look", "raise", "lower", "undo", "go back", "start over", "go on", "roll back"]


@dataclass(frozen=True, slots=True)
class Window:
    """What was seen over one window of steps at one learning rate."""

    step: int  # optimizer steps taken when the window ended, counted from 1
    total_steps: int
    lr: float
    start_loss: float  # mean over the superbatch where the window began; NaN or infinity where it diverged
    end_loss: float  # the same superbatch where the window ended
    steps: int  # from one end to the other
    drop: LossDrop | None  # None where a loss is not finite


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen along one step of the optimizer."""

    step: int
    total_steps: int
    lr: float
    loss: float  # at eps = 0, after the step, mean over the superbatch
    quadratic: Quadratic | None  # None where a loss is not finite
    why: str = ""  # the reason that the policy gave for is_probing
    last: bool = True  # whether there is no more to see: the answer is then not "look"
    checks: int = 1  # how often the policy is asked at most before this look ends

    @property
    def scale(self) -> float | None:
        """s*: where the loss along the step is least, as a multiple of the step taken; None without a minimum."""
        return (
            None if self.quadratic is None or self.quadratic.minimum is None else 1 + self.quadratic.minimum / self.lr
        )

    @property
    def scale_stderr(self) -> float | None:
        """The standard error of ``scale``."""
        return None if self.quadratic is None or self.quadratic.stderr is None else self.quadratic.stderr / self.lr


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict, the learning rate from here on, and why, in words."""

    verdict: Verdict
    lr: float
    reason: str
    died: bool = False  # a rollback without which the run is lost: made whatever the budget says
    best: bool = False  # whether where the run is now is the best place so far, to "go on" from


@dataclass(frozen=True, slots=True)
class Sounding:
    """Where a policy that moves the rate at every step wants the loss to be sampled along one."""

    scales: tuple[float, ...]  # in multiples of the step: 0 before it, 1 as it is taken
    minibatches: int = 1  # on each rank. One is another each time; several are the same in the whole run
    undone: bool = False  # whether the step is taken to be looked along only


@dataclass(frozen=True, slots=True)
class Sighting:
    """What was seen there."""

    step: int
    total_steps: int
    lr: float
    scales: tuple[float, ...]
    losses: tuple[float, ...]  # at each of them, mean over the minibatches of all ranks
    deviations: tuple[float, ...]  # over those minibatches; infinite for one
    minibatches: int = 1  # on each rank: as many as were asked for, or all that there are


class Policy(Protocol):
    """Decides at the end of each window. ``state`` is whatever `begin` returns: a frozen dataclass of plain values."""

    @property
    def eps(self) -> tuple[float, ...]:
        """Perturbations to sample at a look, in multiples of the learning rate; 0 is the step as taken."""

    @property
    def spread(self) -> int:
        """Optimizer steps that a look is spread over; each step sees its share of the superbatch."""

    @property
    def confidence(self) -> float | None:
        """None for looks of a fixed size, as the paper has them.

        Otherwise a look is one minibatch at each of its steps, goes on until `decide` answers other than "look" or the
        superbatch is used up, and ``spread`` has no meaning.
        """

    @property
    def rollback(self) -> bool:
        """Whether a window can be rolled back, and so needs a snapshot where it begins."""

    def begin(self) -> Any:
        """The state at the start of a run."""

    def phase(self, step: int, total_steps: int) -> str:
        """The name of the phase that ``step`` belongs to."""

    def judge(self, state: Any, window: Window) -> tuple[Any, Decision]:
        """At the end of a window: "keep", "look" or "roll back" to where the window began."""

    def decide(self, state: Any, look: Look) -> tuple[Any, Decision]:
        """In a look or, where it has a fixed size, after it: "keep", "raise", "lower", or "look" on."""


class SteeringPolicy(Protocol):
    """Sets the rate of every step, and says along which steps to look. There are no windows."""

    def begin(self) -> Any:
        """The state at the start of a run: a frozen dataclass of plain values, as a `Policy`'s."""

    def stage(self, state: Any, step: int, total_steps: int) -> str:
        """The name of the phase that the run is in."""

    def rate(self, state: Any, step: int, total_steps: int) -> float:
        """[lr] of the coming step, counted from 1."""

    def looks(self, state: Any, step: int, total_steps: int) -> Sounding | None:
        """Where to sample along the coming step; None: nowhere."""

    def see(self, state: Any, sighting: Sighting) -> tuple[Any, Decision]:
        """After such a step: "look" on, "keep" the place to come back to, or "go back" to the one kept last.

        "undo" is the answer to a step that is undone, and keeps the place. "go on" is to go to the best place that was
        gone back from, and to keep it; "start over" is to go back, and to forget that place. "roll back" is to go back
        as an accident's consequence: it is not what the steps since were for.
        """

    def stuck(self, state: Any, step: int, total_steps: int) -> tuple[Any, Decision] | None:
        """Where training takes no step any more, as under a GradScaler whose gradients stay infinite; None: wait."""

    def finish(self, state: Any, step: int, steps: int, total_steps: int) -> Any:
        """The state of a run that is to end in so many ``steps``."""
