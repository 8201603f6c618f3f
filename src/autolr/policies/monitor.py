"""Look at every window's end and never touch the learning rate."""

from __future__ import annotations

from dataclasses import dataclass

from autolr.policies.sequential import if_sure
from autolr.policies.base import Decision, Look, Window
from autolr.policies.sampling import CONFIDENCE, FIVE, LEAST, THREE, check_confidence, check_eps, check_spread
from autolr.policies.wording import number


@dataclass(frozen=True, slots=True)
class MonitorState:
    """Nothing to remember."""


@dataclass(frozen=True, slots=True)
class Monitor:
    """Looks, records what it saw, and keeps the learning rate.

    Args:
        eps: perturbations sampled at a look, in multiples of the learning rate; the same default as `ExploreExploit`.
        spread: optimizer steps that a look's superbatch is spread over.
        confidence: look on until it is this sure what `ExploreExploit` would do in exploit; None for looks of a fixed size.
    """

    eps: tuple[float, ...] = FIVE
    spread: int = 1
    confidence: float | None = None
    rollback = False

    def __post_init__(self) -> None:
        check_eps(self.eps)
        check_spread(self.spread)
        check_confidence(self.confidence)

    @classmethod
    def adaptive(cls, confidence: float = CONFIDENCE) -> Monitor:
        """Looks that go on until they are sure, of 3 samples each."""
        return cls(eps=THREE, confidence=confidence)

    def begin(self) -> MonitorState:
        """The state at the start of a run."""
        return MonitorState()

    def phase(self, step: int, total_steps: int) -> str:  # noqa: ARG002
        """Always ``"hold"``."""
        return "hold"

    def judge(self, state: MonitorState, window: Window) -> tuple[MonitorState, Decision]:
        """Always look."""
        return state, Decision("look", window.lr, "holding: every window ends with a look")

    def decide(self, state: MonitorState, look: Look) -> tuple[MonitorState, Decision]:
        """Always keep in the end, and say what the fit asked for."""
        if look.quadratic is None:
            asked = "a sampled loss is not finite"
        elif self.confidence is not None:
            advice = if_sure(look, look.quadratic, confidence=self.confidence, least=LEAST, exploring=False)
            if not (advice.final or look.last):
                return state, Decision("look", look.lr, advice.told)
            asked = advice.told
        elif look.quadratic.minimum is None:
            asked = "the fit has no minimum"
        else:
            asked = f"the fit asks for {number(look.quadratic.minimum, signed=True)}"
        return state, Decision("keep", look.lr, f"LR kept at {number(look.lr)}: holding, and {asked}")
