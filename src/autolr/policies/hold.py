"""Look at every window's end and never touch the learning rate."""

from __future__ import annotations

from dataclasses import dataclass

from autolr.policies.protocol import Decision, Look, Window
from autolr.policies.sampling import check_eps, check_spread
from autolr.policies.wording import number


@dataclass(frozen=True, slots=True)
class HoldState:
    """Nothing to remember."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Looks, records what it saw, and keeps the learning rate.

    Args:
        eps: perturbations sampled at a look, in multiples of the learning rate; the same default as `Paper`.
        spread: optimizer steps that a look's superbatch is spread over.
    """

    eps: tuple[float, ...] = (-0.5, -0.25, 0.0, 0.25, 0.5)
    spread: int = 1
    rollback = False

    def __post_init__(self) -> None:
        check_eps(self.eps)
        check_spread(self.spread)

    def begin(self) -> HoldState:
        """The state at the start of a run."""
        return HoldState()

    def phase(self, step: int, total_steps: int) -> str:  # noqa: ARG002
        """Always ``"hold"``."""
        return "hold"

    def judge(self, state: HoldState, window: Window) -> tuple[HoldState, Decision]:
        """Always look."""
        return state, Decision("look", window.lr, "holding: every window ends with a look")

    def decide(self, state: HoldState, look: Look) -> tuple[HoldState, Decision]:
        """Always keep, and say what the fit asked for."""
        if look.quadratic is None:
            asked = "a sampled loss is not finite"
        elif look.quadratic.minimum is None:
            asked = "the fit has no minimum"
        else:
            asked = f"the fit asks for {number(look.quadratic.minimum, signed=True)}"
        return state, Decision("keep", look.lr, f"LR kept at {number(look.lr)}: holding, and {asked}")
