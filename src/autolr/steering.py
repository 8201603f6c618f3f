"""A policy that sets the rate of every step, at work: what it sees along steps, and where a run that dies goes back to.

The other kind of policy decides at the ends of windows (`windows`).
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from typing import Any

from torch import nn
from torch.optim import Optimizer

from autolr.consensus import gather_minibatches
from autolr.ledger import Ledger
from autolr.line import Line
from autolr.policies import Decision, Sighting, Sounding, SteeringPolicy
from autolr.probe import Probe
from autolr.rates import Rates
from autolr.snapshot import Snapshot, held_parameters
from autolr.trace import known
from autolr.underway import finite, mean

SKIPPED = 8  # steps in a row that a GradScaler may skip: it looks for its scale by halves


class Steering:
    """The policy's state, and the places that it would go back to.

    Args:
        policy: what to do with what is seen.
        total_steps: of the run.
        model: the network, to be brought back.
        base: its optimizer, likewise.
        probe: samples losses.
        rates: of the optimizer, which are set for its first step here.
        ledger: where all of it is written down.
    """

    def __init__(
        self,
        policy: SteeringPolicy,
        total_steps: int,
        model: nn.Module,
        base: Optimizer,
        probe: Probe,
        rates: Rates,
        ledger: Ledger,
    ) -> None:
        self.policy, self.total_steps = policy, total_steps
        self._model, self._base, self._probe, self._rates, self._ledger = model, base, probe, rates, ledger
        self._state = policy.begin()
        self._drawn = self._skipped = 0  # superbatches; steps in a row that training did not take
        self._steers = True  # whether the step under way is the policy's affair
        self._sounding: Sounding | None = None  # along it
        self._step_to_undo: Line | None = None
        self._kept: tuple[int, Snapshot] | None = None  # the place to come back to, and when the run was last there
        self._best: tuple[int, Snapshot] | None = None  # the best place that was gone back from, and its way in steps
        self._same: int | None = None  # number of the superbatch whose minibatches are the same in the whole run, the
        # first one without a minibatch whose loss is not finite
        self._set_rate(1)

    def phase(self, step: int) -> str:
        """What the run is in after so many steps."""
        return self.policy.stage(self._state, step, self.total_steps)

    def line(self, step: int) -> Line | None:
        """To be asked for before the coming step, counted from 1: to look along it; None: nothing is to be seen."""
        self._steers = self._rates.check() and step <= self.total_steps
        self._sounding = self.policy.looks(self._state, step, self.total_steps) if self._steers else None
        if self._sounding is None:
            return None
        with self._ledger.cost.timing("looks"):
            if self._sounding.undone:
                # A line that was moved along finds its beginning again to rounding only, one that was not exactly.
                self._step_to_undo = Line(held_parameters(self._base))
            return Line(held_parameters(self._base))

    def see(self, line: Line | None, step: int) -> None:
        """After ``step``, along which ``line`` lies: look, do as the policy decides, and set the next step's rate."""
        self._skipped = 0
        if line is not None:
            assert self._sounding is not None, "a line is made to look along"
            self._look(line, self._sounding, step)
        if self._steers and step < self.total_steps:
            self._set_rate(step + 1)

    def waited(self, step: int) -> None:
        """Training took no step after so many: a trial in which a GradScaler skips each is given up here."""
        if step >= self.total_steps or not self._rates.check():
            return
        self._skipped += 1
        if self._skipped <= SKIPPED:
            return
        answer = self.policy.stuck(self._state, step, self.total_steps)
        if answer is None:
            return
        self._skipped = 0
        phase, lr = self.phase(step), self._rates.lr
        self._state, decision = answer
        self._act(decision, step, phase, lr, loss=None)
        self._set_rate(step + 1)

    def regrouped(self, step: int) -> None:
        """Come back to here, and no longer to a place that does not know the optimizer's present groups."""
        if self._kept is not None:
            self._kept, self._best = (step, self._capture()), None

    def finish(self, step: int, steps: int) -> None:
        """Let the rate fall to zero over so many ``steps`` from the one taken last.

        Raises:
            ValueError: the policy's, where that cannot be.
        """
        self._state = self.policy.finish(self._state, step, steps, self.total_steps)
        if self._rates.check():
            self._set_rate(step + 1)

    def _set_rate(self, step: int) -> None:
        """Of the coming step."""
        self._rates.set(self.policy.rate(self._state, step, self.total_steps))

    def _look(self, line: Line, sounding: Sounding, step: int) -> None:
        phase, lr, cost = self.phase(step), self._rates.lr, self._ledger.cost
        self._drawn += 1
        shared = sounding.minibatches > 1
        superbatch = self._same if shared and self._same is not None else self._drawn
        size = min(sounding.minibatches, self._probe.superbatches.size)
        eps = [scale - 1 for scale in sounding.scales]
        with cost.timing("looks"):
            rows = gather_minibatches(self._probe.along(line, eps, superbatch, size))
        cost.looks += len(eps) * size
        if shared and self._same is None and all(map(finite, rows)):
            self._same = superbatch
        losses = tuple(map(mean, rows))
        deviations = tuple(statistics.stdev(row) if len(row) > 1 and finite(row) else math.inf for row in rows)
        seen = Sighting(step, self.total_steps, lr, sounding.scales, losses, deviations, size)
        self._state, decision = self.policy.see(self._state, seen)
        if self._step_to_undo is not None:
            self._step_to_undo.to(-1.0)
            self._step_to_undo = None
            cost.discarded_steps += 1
        self._act(
            decision, step, phase, lr,
            eps=tuple(e * lr for e in eps), losses=tuple(map(known, losses)),
            loss=known(losses[eps.index(0.0)]) if 0.0 in eps else None,
        )  # fmt: skip

    def _act(self, decision: Decision, step: int, phase: str, lr: float, **seen: Any) -> None:
        """Go where the decision says, and write it down."""
        with self._ledger.cost.timing("snapshots"):
            self._move(decision, step)
        self._ledger.write(step, phase, lr, decision, drop_rate=None, drop_rate_stderr=None, **seen)

    def _move(self, decision: Decision, step: int) -> None:
        """To another place, where the decision says so; what is to be found again is kept."""
        cost = self._ledger.cost
        if decision.verdict in {"undo", "keep"} or (decision.verdict == "go on" and decision.best):
            self._kept, self._best = (step, self._capture()), None
        elif decision.verdict in {"go back", "start over", "go on", "roll back"} and self._kept is not None:
            then, place = self._kept
            cost.discarded_steps += step - then
            if decision.verdict == "start over":
                self._best = None
            if decision.best:
                self._best = step - then, self._capture()
            if decision.verdict == "go on" and self._best is not None:
                way, place = self._best
                cost.discarded_steps -= way  # they were not in vain
                self._best = None
            place.restore(self._model, self._base)
            self._kept = step, place  # what goes back there once more has lost the steps from here only

    def _capture(self) -> Snapshot:
        self._ledger.cost.snapshots += 1
        return Snapshot.capture(self._model, self._base)

    def state_dict(self) -> dict[str, Any]:
        """Plain containers and tensors."""
        places = {
            name: None if place is None else {"steps": place[0], "snapshot": place[1].state_dict()}
            for name, place in (("kept", self._kept), ("best", self._best))
        }
        return {
            "policy_state": dataclasses.asdict(self._state),
            "drawn": self._drawn,
            "skipped": self._skipped,
            "same": self._same,
            **places,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on as it was when the state was taken."""
        self._state = type(self.policy.begin())(**state["policy_state"])
        self._drawn, self._skipped, self._same = state["drawn"], state["skipped"], state["same"]
        self._kept, self._best = (
            None if place is None else (place["steps"], Snapshot.from_state_dict(place["snapshot"]))
            for place in (state["kept"], state["best"])
        )
