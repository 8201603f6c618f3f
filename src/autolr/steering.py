"""A policy that sets the rate of every step, at work: what it sees along steps, and where a run that dies goes back to.

The other kind of policy decides at the end of windows; `AutoLR` itself carries that one out.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from typing import Any

from torch import nn
from torch.optim import Optimizer

from autolr.consensus import gather_minibatches
from autolr.cost import Cost
from autolr.line import Line
from autolr.policies import Decision, Sighting, Sounding, SteeringPolicy
from autolr.probe import Probe
from autolr.snapshot import Snapshot, held_parameters
from autolr.trace import known
from autolr.underway import finite, mean


class Steering:
    """The policy's state, and the snapshot that it would go back to."""

    def __init__(
        self, policy: SteeringPolicy, total_steps: int, model: nn.Module, base: Optimizer, probe: Probe
    ) -> None:
        self.policy, self.total_steps = policy, total_steps
        self._model, self._base, self._probe = model, base, probe
        self._state = policy.begin()
        self._kept: tuple[int, Snapshot] | None = None  # the place to come back to, and when the run was last there
        self._best: tuple[int, Snapshot] | None = None  # the best place that was gone back from, and its way in steps
        self._step_to_undo: Line | None = None
        self._same: int | None = None  # number of the superbatch whose minibatches are the same in the whole run, the
        # first one without a minibatch whose loss is not finite

    def rate(self, step: int) -> float:
        """[lr] of the coming step, counted from 1."""
        return self.policy.rate(self._state, step, self.total_steps)

    def stage(self, step: int) -> str:
        """What the run is in after so many steps."""
        return self.policy.stage(self._state, step, self.total_steps)

    def looks(self, step: int) -> Sounding | None:
        """Where to sample along the coming step; None: nowhere."""
        return self.policy.looks(self._state, step, self.total_steps)

    def line(self, sounding: Sounding) -> Line:
        """To be asked for before a step that is to be looked along."""
        if sounding.undone:
            # A line that was moved along finds its beginning again to rounding only, one that was not exactly.
            self._step_to_undo = Line(held_parameters(self._base))
        return Line(held_parameters(self._base))

    def see(
        self, line: Line, sounding: Sounding, superbatch: int, step: int, lr: float, cost: Cost
    ) -> tuple[Decision, dict[str, Any]]:
        """Look along the step just taken, and do as the policy decides, but for the rate.

        Args:
            line: through the step.
            sounding: where the policy wants the loss to be sampled.
            superbatch: number of one that was not drawn before.
            step: the one just taken, counted from 1.
            lr: its rate.
            cost: to be added to.

        Returns:
            The decision, and what was sampled, as a `Record` has it.
        """
        if sounding.minibatches > 1 and self._same is not None:
            superbatch = self._same
        size = min(sounding.minibatches, self._probe.superbatches.size)
        eps = [scale - 1 for scale in sounding.scales]
        with cost.timing("looks"):
            rows = gather_minibatches(self._probe.along(line, eps, superbatch, size))
        cost.looks += len(eps) * size
        if sounding.minibatches > 1 and self._same is None and all(map(finite, rows)):
            self._same = superbatch
        losses = tuple(map(mean, rows))
        deviations = tuple(statistics.stdev(row) if len(row) > 1 and finite(row) else math.inf for row in rows)
        seen = Sighting(step, self.total_steps, lr, sounding.scales, losses, deviations, size)
        self._state, decision = self.policy.see(self._state, seen)
        if self._step_to_undo is not None:
            self._step_to_undo.to(-1.0)
            self._step_to_undo = None
            cost.discarded_steps += 1
        with cost.timing("snapshots"):
            self._move(decision, step, cost)
        return decision, {
            "eps": tuple(e * lr for e in eps),
            "losses": tuple(map(known, losses)),
            "loss": known(losses[eps.index(0.0)]) if 0.0 in eps else None,
        }

    def stuck(self, step: int, cost: Cost) -> Decision | None:
        """After so many steps, where no more are taken: do as the policy decides, but for the rate; None: wait."""
        answer = self.policy.stuck(self._state, step, self.total_steps)
        if answer is None:
            return None
        self._state, decision = answer
        with cost.timing("snapshots"):
            self._move(decision, step, cost)
        return decision

    def finish(self, step: int, steps: int) -> None:
        """Let the rate fall to zero over so many ``steps`` from the one taken last.

        Raises:
            ValueError: the policy's, where that cannot be.
        """
        self._state = self.policy.finish(self._state, step, steps, self.total_steps)

    def keep_here(self, step: int, cost: Cost) -> None:
        """Come back to here, and no longer to a place that does not know the optimizer's present groups."""
        if self._kept is not None:
            self._kept, self._best = (step, self._capture(cost)), None

    def _move(self, decision: Decision, step: int, cost: Cost) -> None:
        """To another place, where the decision says so; what is to be found again is kept."""
        if decision.verdict in {"undo", "keep"} or (decision.verdict == "go on" and decision.best):
            self._kept, self._best = (step, self._capture(cost)), None
        elif decision.verdict in {"go back", "start over", "go on", "roll back"} and self._kept is not None:
            then, place = self._kept
            cost.discarded_steps += step - then
            if decision.verdict == "start over":
                self._best = None
            if decision.best:
                self._best = step - then, self._capture(cost)
            if decision.verdict == "go on" and self._best is not None:
                way, place = self._best
                cost.discarded_steps -= way  # they were not in vain
                self._best = None
            place.restore(self._model, self._base)
            self._kept = step, place  # what goes back there once more has lost the steps from here only

    def _capture(self, cost: Cost) -> Snapshot:
        cost.snapshots += 1
        return Snapshot.capture(self._model, self._base)

    def state_dict(self) -> dict[str, Any]:
        """Plain containers and tensors."""
        places = {
            name: None if place is None else {"steps": place[0], "snapshot": place[1].state_dict()}
            for name, place in (("kept", self._kept), ("best", self._best))
        }
        return {"policy_state": dataclasses.asdict(self._state), "same": self._same, **places}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on as it was when the state was taken."""
        self._state = type(self.policy.begin())(**state["policy_state"])
        self._same = state["same"]
        self._kept, self._best = (
            None if place is None else (place["steps"], Snapshot.from_state_dict(place["snapshot"]))
            for place in (state["kept"], state["best"])
        )
