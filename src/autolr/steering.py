"""A policy that sets the rate of every step, at work: what it sees along steps, and where a run that dies goes back to.

The other kind of policy decides at the end of windows; `AutoLR` itself carries that one out.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn
from torch.optim import Optimizer

from autolr.consensus import gather_minibatches
from autolr.cost import Cost
from autolr.line import Line
from autolr.policies import Decision, Sighting, SteeringPolicy
from autolr.probe import Probe
from autolr.quadratic import fit_quadratic
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
        self._kept: tuple[int, Snapshot] | None = None  # after so many steps

    def rate(self, step: int) -> float:
        """[lr] of the coming step, counted from 1."""
        return self.policy.rate(self._state, step, self.total_steps)

    def stage(self, step: int) -> str:
        """What the run is in after so many steps."""
        return self.policy.stage(self._state, step, self.total_steps)

    def scales(self, step: int) -> tuple[float, ...]:
        """Where to sample along the coming step, in multiples of it; empty: nowhere."""
        return self.policy.looks(self._state, step, self.total_steps)

    def line(self) -> Line:
        """To be asked for before a step that is to be looked along."""
        return Line(held_parameters(self._base))

    def see(
        self, line: Line, scales: tuple[float, ...], superbatch: int, step: int, lr: float, cost: Cost
    ) -> tuple[Decision, dict[str, Any]]:
        """Look along the step just taken, on one minibatch, and do as the policy decides, but for the rate.

        Returns:
            The decision, and what was sampled, as a `Record` has it.
        """
        eps = [scale - 1 for scale in scales]
        with cost.timing("looks"):
            losses = tuple(mean(row) for row in gather_minibatches(self._probe.along(line, eps, superbatch, 1)))
        cost.looks += len(eps)
        seen = Sighting(step, self.total_steps, lr, scales, losses)
        self._state, decision = self.policy.see(self._state, seen)
        self._go_back_or_keep(decision, step, cost)
        samples: dict[str, Any] = {
            "eps": tuple(e * lr for e in eps),
            "losses": tuple(map(known, losses)),
            "observations": int(len(eps) == 3),  # a parabola is not fitted to decades, nor to a point
            "loss": known(losses[eps.index(0.0)]) if 0.0 in eps else None,
        }
        if samples["observations"] and finite(losses):
            fit = fit_quadratic(samples["eps"], [[loss] for loss in losses])
            samples |= {"k0": fit.k0, "k1": fit.k1, "k2": fit.k2, "eps_min": fit.minimum}
        return decision, samples

    def finish(self, step: int, steps: int) -> None:
        """Let the rate fall to zero over so many ``steps`` from the one taken last.

        Raises:
            ValueError: the policy's, where that cannot be.
        """
        self._state = self.policy.finish(self._state, step, steps, self.total_steps)

    def _go_back_or_keep(self, decision: Decision, step: int, cost: Cost) -> None:
        if decision.verdict == "roll back" and self._kept is not None:
            then, snapshot = self._kept
            with cost.timing("snapshots"):
                snapshot.restore(self._model, self._base)
            cost.discarded_steps += step - then
        elif decision.verdict == "keep" and self.policy.rollback:
            with cost.timing("snapshots"):
                self._kept = step, Snapshot.capture(self._model, self._base)
            cost.snapshots += 1

    def state_dict(self) -> dict[str, Any]:
        """Plain containers and tensors."""
        kept = None if self._kept is None else {"step": self._kept[0], "snapshot": self._kept[1].state_dict()}
        return {"policy_state": dataclasses.asdict(self._state), "kept": kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on as it was when the state was taken."""
        self._state = type(self.policy.begin())(**state["policy_state"])
        kept = state["kept"]
        self._kept = None if kept is None else (kept["step"], Snapshot.from_state_dict(kept["snapshot"]))
