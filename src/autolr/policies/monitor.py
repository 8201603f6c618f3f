"""Probe at every window's end and never touch the learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from autolr.policies.base import Decision, ForeignRate, Trigger, Verdict
from autolr.policies.sequential import CONFIDENCE, LEAST, at_its_word, if_sure
from autolr.policies.window_plan import THREE
from autolr.policies.window_state import ProbeFit, WindowResult
from autolr.policies.windowed import WindowedPolicy


@dataclass(frozen=True, slots=True)
class MonitorState:
    """Nothing to remember."""


@dataclass(frozen=True, kw_only=True)
class Monitor(WindowedPolicy):
    """Probes, records what it saw, and keeps the learning rate: training is bit for bit the training without AutoLR.

    With a ``confidence`` it probes on until it is this sure what `ExploreExploit` would do in exploit. For the settings
    see `WindowSettings`.
    """

    foreign_rate: ClassVar[ForeignRate] = "ignored"

    @classmethod
    def adaptive(cls, confidence: float = CONFIDENCE) -> Monitor:
        """Probes that go on until they are sure, of 3 samples each."""
        return cls(eps=THREE, confidence=confidence)

    def own_state(self) -> MonitorState:
        """Nothing."""
        return MonitorState()

    def phase_at(self, step: int, total_steps: int) -> str:  # noqa: ARG002
        """Always ``"monitor"``."""
        return "monitor"

    def judge(self, own: MonitorState, window: WindowResult) -> tuple[MonitorState, Decision]:
        """Always look: probe along the steps that follow."""
        return own, Decision("look", window.lr, Trigger.MONITORING)

    def advise(self, own: MonitorState, fit: ProbeFit) -> tuple[MonitorState, Decision]:
        """Always keep in the end, and say what the fit asked for."""
        if fit.quadratic is None:
            return own, Decision("keep", fit.lr, Trigger.SAMPLE_NOT_FINITE, because=Trigger.MONITORING)
        if self.confidence is None:
            advice = at_its_word(fit.quadratic, exploring=False)
        else:
            advice = if_sure(fit, fit.quadratic, confidence=self.confidence, least=LEAST, exploring=False)
        verdict: Verdict = "keep" if advice.final or fit.last else "look"
        return own, Decision(verdict, fit.lr, advice.trigger, Trigger.MONITORING, advice.numbers)
