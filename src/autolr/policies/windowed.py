"""Policies that decide at the ends of windows: measure a window's loss drop, probe along the steps that follow, act.

What such a policy decides on what was seen is its own (`judge`, `advise`); when it probes, and how that is paid for, is
the same for all and stands here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from autolr.policies.base import (
    Decision,
    Evidence,
    ForeignRate,
    ProbeRequest,
    ProbeResult,
    Progress,
    Run,
    Trigger,
    Verdict,
)
from autolr.policies.window_plan import Plan, WindowSettings, plan_of
from autolr.policies.window_state import OpenWindow, ProbeFit, ProbeState, WindowResult, mean


@dataclass(frozen=True, slots=True)
class WindowedState:
    """What such a policy carries from step to step."""

    own: Any  # of the policy proper
    drawn: int = 0  # superbatches
    window: OpenWindow | None = None
    probe: ProbeState | None = None
    known: OpenWindow | None = None  # the next window, where a probe along one step has measured its beginning already


@dataclass(frozen=True, kw_only=True)
class WindowedPolicy(WindowSettings):
    """The mechanism; a policy proper has `own_state`, `phase_at`, `judge` and `advise`.

    Long because it answers the whole protocol for all policies with windows.
    """

    foreign_rate: ClassVar[ForeignRate] = "adopted"

    def own_state(self) -> Any:
        """The state of the policy proper at the start of a run: a frozen dataclass of plain values."""
        raise NotImplementedError

    def phase_at(self, step: int, total_steps: int) -> str:
        """The name of the phase that ``step`` belongs to."""
        raise NotImplementedError

    def judge(self, own: Any, window: WindowResult) -> tuple[Any, Decision]:
        """At the end of a window: "keep", "look" or "roll back" to where the window began."""
        raise NotImplementedError

    def advise(self, own: Any, fit: ProbeFit) -> tuple[Any, Decision]:
        """In a probe or, where it has a fixed size, after it: "keep", "raise", "lower", or "look" on."""
        raise NotImplementedError

    def begin(self, run: Run) -> WindowedState:
        """The state at the start of a run."""
        plan_of(self, run)
        return WindowedState(self.own_state())

    def restore(self, state: dict[str, Any]) -> WindowedState:
        """The state again, from ``dataclasses.asdict`` of it."""
        own = type(self.own_state())(**{k: _tuples(v) for k, v in state["own"].items()})
        windows = {
            name: None if (kept := state[name]) is None else OpenWindow(**{**kept, "losses": tuple(kept["losses"])})
            for name in ("window", "known")
        }
        probe = None if state["probe"] is None else ProbeState.from_dict(state["probe"])
        return WindowedState(own, state["drawn"], windows["window"], probe, windows["known"])

    def concern(self, run: Run) -> str | None:
        """That the budget of so short a run pays for no probe."""
        plan = plan_of(self, run)
        earned = plan.budget.earned(run.total_steps)
        if 3 * plan.check_costs + plan.probe_costs <= earned:
            return None
        return (
            f"overhead={plan.budget.share:g} of a run of total_steps={run.total_steps} pays for {earned:.0f} forward "
            "passes, too few for a single probe: the rate will stay as it is. Raise overhead (the paper spends 0.17), "
            "or leave AutoLR out of runs so short."
        )

    def phase(self, state: WindowedState, now: Progress) -> str:  # noqa: ARG002
        """The policy's, after so many steps."""
        return self.phase_at(now.step, now.total_steps)

    def rate(self, state: WindowedState, now: Progress) -> None:
        """Left to the decisions."""

    def check(self, state: WindowedState, now: Progress) -> ProbeRequest | None:
        """A window's loss where it begins, with a snapshot; and where it ends, on the same superbatch."""
        plan = plan_of(self, now.run)
        if state.window is None:
            return self._beginning(state, now, plan)
        if state.probe is None and self._ends(state.window, now.step, now, plan):
            return ProbeRequest("here", state.window.superbatch, plan.checked)
        return None

    def may_probe(self, state: WindowedState, now: Progress) -> bool:
        """One is under way, or may begin with the window's end; and it can be paid."""
        plan = plan_of(self, now.run)
        if state.probe is not None:
            return self._affords(plan.probe_costs + plan.check_costs, now.step + 1, now, plan)
        return state.window is not None and self._ends(state.window, now.step + 1, now, plan)

    def along(self, state: WindowedState, now: Progress) -> ProbeRequest | None:
        """The losses at each eps, on a fresh superbatch."""
        if state.probe is None:
            return None
        plan = plan_of(self, now.run)
        report = state.probe.steps + 1 in plan.checkpoints or now.step == now.total_steps
        return ProbeRequest("along", state.drawn + 1, plan.size, plan.eps, self.validation_eps, report=report)

    def decide(self, state: WindowedState, result: ProbeResult) -> tuple[WindowedState, Decision | None]:
        """After a window's beginning, its end, or a step of a probe."""
        request, now = result.request, result.now
        plan = plan_of(self, now.run)
        if request.kind == "along":
            return self._probed(state, result, plan)
        if state.window is None:
            losses = state.known.losses if state.known and not request.minibatches else tuple(result.here)
            window = OpenWindow(now.step, request.superbatch, losses)
            return replace(state, window=window, known=None, drawn=max(state.drawn, request.superbatch)), None
        return self._ended(state, result, plan)

    def reset(self, state: WindowedState) -> WindowedState:
        """The next window begins with the next step, whichever it is."""
        return replace(state, window=None, probe=None, known=None)

    def cooldown(self, state: WindowedState, now: Progress, steps: int) -> WindowedState:  # noqa: ARG002
        """Not such a policy's: it knows no end but ``total_steps``."""
        raise TypeError(
            f"start_cooldown needs a policy that sets the rate of every step, such as PeakSearch(); got {self!r}."
        )

    def _beginning(self, state: WindowedState, now: Progress, plan: Plan) -> ProbeRequest | None:
        """The first window is on credit: its end waits until both are paid."""
        if now.step >= now.total_steps:
            return None
        if state.drawn and not self._affords(plan.check_costs, now.step, now, plan):
            return None
        if state.known is not None and state.known.start == now.step:
            return ProbeRequest("here", state.known.superbatch, 0, snapshot=self.rollback)
        return ProbeRequest("here", state.drawn + 1, plan.checked, snapshot=self.rollback)

    def _ended(self, state: WindowedState, result: ProbeResult, plan: Plan) -> tuple[WindowedState, Decision | None]:
        now = result.now
        assert state.window is not None
        if not now.lr:
            return self.reset(state), None
        window = state.window.ended(now.step, now.total_steps, now.lr, result.here)
        own, decision = self.judge(state.own, window)
        state = replace(state, own=own)
        if decision.verdict != "look":
            return self._close(state, window, decision, now, plan)
        if now.step + plan.checkpoints[0] > now.total_steps:
            return self.reset(state), None  # it could not finish before the run does, or its verdict would be too late
        return replace(state, probe=ProbeState(window, Trigger(decision.trigger), decision.numbers)), None

    def _probed(self, state: WindowedState, result: ProbeResult, plan: Plan) -> tuple[WindowedState, Decision | None]:
        assert state.probe is not None
        request, now = result.request, result.now
        probe = state.probe.add(result.losses, len(plan.eps), pooled=plan.pooled)
        if request.minibatches:
            probe = replace(probe, steps=probe.steps + 1)
            state = replace(state, drawn=request.superbatch)
        state = replace(state, probe=probe)
        if request.minibatches and probe.steps in plan.checkpoints:
            if not now.lr:
                return self.reset(state), None
            state, decision = self._advised(state, probe, request, now, plan)
            if decision is not None:
                return state, decision
        if now.step < now.total_steps:
            return state, None
        fit = None
        if probe.steps and now.lr:
            fit = probe.fitted(now.lr, plan.eps, step=None, last=True, checks=len(plan.checkpoints))
        seen = self._evidence(probe, fit, plan, now)
        return self.reset(state), Decision("keep", seen.lr, Trigger.RUN_ENDED, probe.why, probe.numbers, evidence=seen)

    def _advised(
        self, state: WindowedState, probe: ProbeState, request: ProbeRequest, now: Progress, plan: Plan
    ) -> tuple[WindowedState, Decision | None]:
        """At a checkpoint of a probe: the policy's advice, unless the run diverged while it was probed."""
        step = None if self.confidence is None else now.step
        last = probe.steps == plan.checkpoints[-1]
        fit = probe.fitted(now.lr, plan.eps, step=step, last=last, checks=len(plan.checkpoints))
        if not math.isfinite(fit.loss) and self.rollback:
            assert state.window is not None
            window = state.window.ended(now.step, now.total_steps, now.lr, [fit.loss])
            own, decision = self.judge(state.own, window)
            return self._close(replace(state, own=own), window, decision, now, plan)
        own, decision = self.advise(state.own, fit)
        if decision.verdict == "look":
            assert not last, "a policy has to answer after the last of a probe's steps"
            return state, None
        known = None
        if not plan.pooled:  # it has measured where the next window begins: its own losses at eps = 0
            known = OpenWindow(now.step, request.superbatch, tuple(probe.losses[plan.eps.index(0.0)]))
        state = replace(self.reset(replace(state, own=own)), known=known)
        seen = self._evidence(probe, fit, plan, now)
        return state, replace(decision, numbers={**probe.numbers, **decision.numbers}, evidence=seen)

    def _close(
        self, state: WindowedState, window: WindowResult, decision: Decision, now: Progress, plan: Plan
    ) -> tuple[WindowedState, Decision]:
        """Where undoing a window cannot be paid and the run lives, only its LR is undone."""
        assert state.window is not None
        undone = now.step - state.window.start
        paid = decision.diverged or plan.budget.allows_undoing(undone, now.spent, now.step)
        numbers = {**decision.numbers, "steps": float(undone)}
        if decision.verdict == "roll back" and not paid:
            numbers["unpaid"] = plan.budget.share
            verdict: Verdict = "lower" if decision.lr < now.lr else "raise" if decision.lr > now.lr else "keep"
            decision = replace(decision, verdict=verdict)
        elif decision.verdict != "roll back":
            numbers.pop("steps")
        seen = self._window_evidence(window, window.lr, window.step)
        return self.reset(state), replace(decision, numbers=numbers, evidence=seen)

    def _window_evidence(self, window: WindowResult, lr: float, step: int) -> Evidence:
        drop = window.drop
        return Evidence(
            phase=self.phase_at(step, window.total_steps), lr=lr, loss=window.end_loss,
            drop_rate=drop.rate if drop else None, drop_rate_stderr=drop.stderr if drop else None,
        )  # fmt: skip

    def _evidence(self, probe: ProbeState, fit: ProbeFit | None, plan: Plan, now: Progress) -> Evidence:
        if fit is None:
            return self._window_evidence(probe.window, now.lr or probe.window.lr, probe.window.step)
        return replace(
            self._window_evidence(probe.window, now.lr, fit.step),
            eps=plan.eps,
            losses=tuple(map(mean, probe.losses)),
            validation_eps=self.validation_eps,
            validation_losses=tuple(mean(row) for row in zip(*probe.validation, strict=True)),
            observations=len(probe.observations),
            fit=fit.quadratic,
        )

    def _ends(self, window: OpenWindow, step: int, now: Progress, plan: Plan) -> bool:
        if step == now.total_steps:  # nothing to decide any more; but a window in which the run diverged is undone
            return self.rollback and self._affords(plan.check_costs, step, now, plan)
        # What its end may set off has to be paid too: the next window's beginning, and a probe that cannot wait.
        probe = 0 if self.confidence is not None else plan.probe_costs * plan.checkpoints[-1]
        return step >= window.start + plan.window and self._affords(2 * plan.check_costs + probe, step, now, plan)

    def _affords(self, amount: int, step: int, now: Progress, plan: Plan) -> bool:
        return plan.budget.allows(amount, now.spent, step)


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
