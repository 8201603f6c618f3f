"""A policy that decides at the ends of windows, at work: it judges each, looks along the steps that follow, and acts.

The other kind of policy sets the rate of every step (`steering`).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from autolr.numerics.budget import Budget
from autolr.runtime.distributed import gather_minibatches, several
from autolr.runtime.recorder import Recorder
from autolr.measure.step_line import StepLine
from autolr.policies import Decision, Look, Policy, Window
from autolr.policies.base import Verdict
from autolr.policies.wording import number
from autolr.measure.probe import Probe
from autolr.runtime.param_group_lrs import ParamGroupLRs
from autolr.measure.snapshot import Snapshot, held_parameters
from autolr.runtime.decision_log import known
from autolr.runtime.window_state import LookPlan, OpenLook, OpenWindow, finite, mean

CHECKED = 4  # minibatches of a drop-rate check under a budget: few, and a standard error of their differences
WHOLE_STEPS = (-1.0, 0.0, 1.0)  # in bfloat16 and float16 the ends of the step are exact, and points between are rounded


class Windows:
    """The policy's state, the window and the look that are under way, and the budget that they are paid from.

    Args:
        policy: what to do with what is seen.
        total_steps: of the run.
        window: steps between looks.
        overhead: the share of the training's forward equivalents that may be spent.
        validation_eps: further eps to sample, kept from the fit.
        model: the network, to be brought back.
        base: its optimizer, likewise.
        probe: samples losses.
        rates: of the optimizer.
        ledger: where all of it is written down.
    """

    def __init__(
        self,
        policy: Policy,
        total_steps: int,
        window: int,
        overhead: float,
        validation_eps: tuple[float, ...],
        model: nn.Module,
        base: Optimizer,
        probe: Probe,
        rates: ParamGroupLRs,
        ledger: Recorder,
    ) -> None:
        self.policy, self.total_steps, self.window, self.validation_eps = policy, total_steps, window, validation_eps
        self._budget = Budget(overhead)
        self._model, self._base, self._probe, self._rates, self._ledger = model, base, probe, rates, ledger
        low_precision = any(p.dtype in {torch.bfloat16, torch.float16} for p in held_parameters(base))
        self.eps = WHOLE_STEPS if low_precision else policy.eps
        size = probe.superbatches.size
        self._plan = LookPlan.of(policy, size)
        self._check_size = size if policy.confidence is None else min(CHECKED, size)
        self._state = policy.begin()
        self._drawn = 0  # superbatches
        self._window: OpenWindow | None = None
        self._look: OpenLook | None = None
        earned = self._budget.earned(total_steps)
        if 3 * self._check_costs + self._glance_costs > earned:
            ledger.warn(
                "too short",
                f"overhead={overhead:g} of a run of total_steps={total_steps} pays for {earned:.0f} forward passes, "
                "too few for a single look: the rate will stay as it is. Raise overhead (the paper spends 0.17), or "
                "leave AutoLR out of runs so short.",
            )

    def phase(self, step: int) -> str:
        """The policy's, after so many steps."""
        return self.policy.phase(step, self.total_steps)

    def line(self, step: int) -> StepLine | None:
        """To be asked for before the coming step, counted from 1: to look along it; None: there is nothing to look for.

        A window is begun where none is open.
        """
        if self._window is None and step <= self.total_steps:
            self._begin_window(step - 1)
        if not self._may_glance(step):
            return None
        with self._ledger.cost.timing("looks"):
            return StepLine(held_parameters(self._base))

    def see(self, line: StepLine | None, step: int) -> None:
        """After ``step``, along which ``line`` lies: judge the window that ends with it; look; decide, and act.

        Whatever is raised, the next window begins anew: whoever catches it (out of memory, a bad example) and goes on
        has lost this look, not all the others.
        """
        try:
            if self._look is None and self._at_window_end(step):
                self._end_window(step)
            if self._look is not None:
                if line is not None:
                    self._glance(self._look, line, step)
                if self._look is not None and step == self.total_steps:
                    self._give_up(self._look, step)
        except BaseException:
            self._window = self._look = None
            raise

    def waited(self, step: int) -> None:
        """Training took no step: nothing ends with that."""

    def regrouped(self, step: int) -> None:  # noqa: ARG002 - the next window begins with the next step, whichever it is
        """The optimizer has another group, which what is kept does not know: a new window begins."""
        self._window = self._look = None

    @property
    def _check_costs(self) -> int:
        """Of one end of a window: its losses and, where it begins, a snapshot at most."""
        return self._check_size + self.policy.rollback

    @property
    def _glance_costs(self) -> int:
        """Of one step of a look."""
        return (len(self.eps) + len(self.validation_eps)) * self._plan.size

    def _affords(self, amount: int, step: int) -> bool:
        return self._budget.allows(amount, self._ledger.cost.forward_equivalents, step)

    def _may_glance(self, step: int) -> bool:
        """Whether a look can see the coming step: one is open, or may open with it, and can be paid."""
        if self._look is None:
            return self._at_window_end(step)
        return self._affords(self._glance_costs + self._check_costs, step)

    def _at_window_end(self, step: int) -> bool:
        if self._window is None:
            return False
        if step == self.total_steps:  # nothing to decide any more; but a window in which the run died is still undone
            return self.policy.rollback and self._affords(self._check_costs, step)
        # What its end may set off has to be paid too: the next window's beginning, and a look that cannot wait.
        look = 0 if self.policy.confidence is not None else self._glance_costs * self._plan.steps
        return step >= self._window.start + self.window and self._affords(2 * self._check_costs + look, step)

    def _begin_window(self, step: int, superbatch: int | None = None, losses: list[float] | None = None) -> None:
        """After so many steps; with ``losses`` of that superbatch if they are known."""
        self._window = self._look = None
        if step >= self.total_steps:
            return
        # The first window is on credit: its end waits until both are paid.
        cost = self._ledger.cost
        if cost.drop_rate and not self._affords(self._check_costs, step):
            return
        if superbatch is None or losses is None:
            superbatch = self._next_superbatch()
            losses = self._losses_here(superbatch)
        snapshot = None
        if self.policy.rollback:
            with cost.timing("snapshots"):
                snapshot = Snapshot.capture(self._model, self._base)
            cost.snapshots += 1
        self._window = OpenWindow(step, superbatch, losses, snapshot)

    def _end_window(self, step: int) -> None:
        """Measure the loss drop; then look along the next steps, roll back, or go on."""
        assert self._window is not None
        if not self._rates.check():
            self._begin_window(step)
            return
        losses = self._losses_here(self._window.superbatch)
        window = self._window.seen(step, self.total_steps, self._rates.lr, losses)
        decision = self._judge(window)
        if decision.verdict == "look":
            if step + self._plan.checkpoints[0] <= self.total_steps:
                self._look = OpenLook(window, why=decision.reason)
            else:  # it could not finish before the run does, or its verdict would come too late
                self._begin_window(step)
        else:
            self._carry_out(step, window, decision)

    def _glance(self, look: OpenLook, line: StepLine, step: int) -> None:
        """Look along the step just taken; where that was the last one needed, decide."""
        first = not self._has_looked()
        moved = first and line.moved()
        plan, superbatch, cost = self._plan, self._next_superbatch(), self._ledger.cost
        with cost.timing("looks"):
            look.add(self._probe.along(line, (*self.eps, *self.validation_eps), superbatch, plan.size))
            cost.looks += len(self.eps) * plan.size
            cost.validation_eps += len(self.validation_eps) * plan.size
            if first or several() or look.steps in plan.checkpoints:
                look.settle(plan, len(self.eps))
        if first:
            look.unmoved_steps += moved and len(set(look.observations[-1])) == 1
        if look.steps in plan.checkpoints:
            # A look along one step has measured where the next window begins: its own losses at eps = 0.
            here = look.losses[self.eps.index(0.0)] if plan.steps == 1 else None
            self._decide(look, step, superbatch, here)

    def _has_looked(self) -> bool:
        return any(record.eps for record in self._ledger.history)

    def _decide(self, look: OpenLook, step: int, superbatch: int, here: list[float] | None) -> None:
        if not self._rates.check():
            self._begin_window(step)
            return
        now = None if self.policy.confidence is None else step
        seen = look.seen(self._rates.lr, self.eps, self._plan, now)
        if not finite([seen.loss]) and self.policy.rollback:  # the run died while it was looked at
            assert self._window is not None
            died = self._window.seen(step, self.total_steps, self._rates.lr, [seen.loss])
            self._carry_out(step, died, self._judge(died))
            return
        state, decision = self.policy.decide(self._state, seen)
        if decision.verdict == "look":
            assert not seen.last, "a policy has to answer after the last of a look's steps"
            return
        self._state = state
        if look.unmoved_steps == look.steps and not self._has_looked():
            self._ledger.warn(
                "same loss",
                f"The loss is {number(seen.loss)} at every eps: moving the parameters along the last step makes no "
                "difference to loss_fn(model, batch). It must depend on the parameters of the model it is given, and "
                f"the step (LR {number(seen.lr)}) must be large enough to show in float32. The LR is left alone.",
            )
        self._carry_out(step, look.window, decision, self._samples(look, seen), superbatch, here)

    def _give_up(self, look: OpenLook, step: int) -> None:
        """The run ends with a look that is not sure yet: write down what it saw."""
        look.settle(self._plan, len(self.eps))
        lr = self._rates.lr
        decision = Decision("keep", lr, f"LR kept at {number(lr)}: {look.why}, and the run ended before a verdict")
        samples = self._samples(look, look.seen(lr, self.eps, self._plan)) if look.steps else {}
        self._carry_out(step, look.window, decision, samples)

    def _judge(self, window: Window) -> Decision:
        self._state, decision = self.policy.judge(self._state, window)
        return decision

    def _carry_out(
        self,
        step: int,
        window: Window,
        decision: Decision,
        samples: dict[str, Any] | None = None,
        superbatch: int | None = None,
        losses: list[float] | None = None,
    ) -> None:
        """Do what was decided, write it down, and begin the next window (with ``losses`` if they are known)."""
        if decision.verdict == "roll back":
            decision = self._roll_back(decision, step)
        self._rates.set(decision.lr)
        self._ledger.write(
            step, self.phase(window.step), window.lr, decision,
            loss=known(window.end_loss),
            drop_rate=window.drop.rate if window.drop else None,
            drop_rate_stderr=known(window.drop.stderr) if window.drop else None,
            **(samples or {}),
        )  # fmt: skip
        self._begin_window(step, superbatch, losses)

    def _roll_back(self, decision: Decision, step: int) -> Decision:
        """Undo the window; where that cannot be paid and the run lives, only its LR. Returns what was done."""
        assert self._window is not None
        assert self._window.snapshot is not None, "a policy that rolls back says so, and windows have snapshots"
        undone, lr, cost = step - self._window.start, self._rates.lr, self._ledger.cost
        if not (decision.died or self._budget.allows_undoing(undone, cost.forward_equivalents, step)):
            verdict: Verdict = "lower" if decision.lr < lr else "raise" if decision.lr > lr else "keep"
            told = f"only the LR is: overhead={self._budget.share:g} does not pay for undoing steps here"
            return Decision(
                verdict, decision.lr, f"{decision.reason}; {told}".replace("rolled back", "to be undone:", 1)
            )
        with cost.timing("snapshots"):
            self._window.snapshot.restore(self._model, self._base)
        cost.discarded_steps += undone
        return decision

    def _samples(self, look: OpenLook, seen: Look) -> dict[str, Any]:
        """A look's part of its record."""
        samples: dict[str, Any] = {
            "eps": tuple(e * seen.lr for e in self.eps),
            "observations": len(look.observations),
            "losses": tuple(known(mean(row)) for row in look.losses),
            "validation_eps": tuple(e * seen.lr for e in self.validation_eps),
            "validation_losses": tuple(known(mean(row)) for row in zip(*look.validation_eps, strict=True)),
        }
        if (fit := seen.quadratic) is not None:
            samples |= {"k0": fit.k0, "k1": fit.k1, "k2": fit.k2, "eps_min": fit.minimum, "eps_min_stderr": fit.stderr}
        return samples

    def _losses_here(self, superbatch: int) -> list[float]:
        cost = self._ledger.cost
        with cost.timing("drop_rate"):
            losses = gather_minibatches(self._probe.here(superbatch, self._check_size))[0]
        cost.drop_rate += self._check_size
        return losses

    def _next_superbatch(self) -> int:
        self._drawn += 1
        return self._drawn

    def state_dict(self) -> dict[str, Any]:
        """Plain containers and tensors."""
        if self._look is not None:
            self._look.settle(self._plan, len(self.eps))
        return {
            "policy_state": dataclasses.asdict(self._state),
            "drawn": self._drawn,
            "open_window": None if self._window is None else self._window.state_dict(),
            "open_look": None if self._look is None else self._look.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on as it was when the state was taken."""
        self._state = type(self.policy.begin())(**state["policy_state"])
        self._drawn = state["drawn"]
        window, look = state["open_window"], state["open_look"]
        self._window = None if window is None else OpenWindow.from_state_dict(window)
        self._look = None if look is None else OpenLook.from_state_dict(look)
