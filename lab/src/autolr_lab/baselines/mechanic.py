"""Mechanic (Cutkosky, Defazio and Mehta 2023): the scale of any optimizer's updates, learned online."""

from __future__ import annotations

from typing import Any

import torch
from torch import optim

from autolr_lab.baselines.baseline import ADAM, SGD, Baseline, TrainingRun, every
from autolr_lab.training.stepper import Stepper

STATE = "_mechanic"


class _Mechanized(Stepper):
    """Keeps Mechanic's state apart: torch would take its name for a parameter's, and could not load it."""

    optimizer: Any  # its state has a key that is no parameter

    @property
    def rate(self) -> float:
        """The learned scale times the schedule's rate."""
        state = self.optimizer.state.get(STATE)
        return super().rate * (float(torch.sum(state["s"])) if state else 0.0)

    def state_dict(self) -> dict[str, Any]:
        own = self.optimizer.state.pop(STATE, None)
        try:
            state = super().state_dict()
        finally:
            if own is not None:
                self.optimizer.state[STATE] = own
        if own is None:
            return {**state, "mechanic": None}
        plain = {name: value for name, value in own.items() if isinstance(name, str)}
        return {**state, "mechanic": {"plain": plain, "by_parameter": [own[p] for p in self._parameters()]}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if (own := state["mechanic"]) is not None:
            numbered = dict(zip(self._parameters(), self._here(own["by_parameter"]), strict=True))
            self.optimizer.state[STATE] = {**self._here(own["plain"]), **numbered}

    def _parameters(self) -> list[Any]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]


def _build(run: TrainingRun) -> Stepper:
    from mechanic_pytorch import mechanize

    parameters = run.model.parameters()
    if run.optimizer in SGD:
        made = mechanize(optim.SGD)(parameters, lr=run.lr, momentum=SGD[run.optimizer], **run.decay)
    else:
        kind = optim.AdamW if ADAM[run.optimizer] else optim.Adam
        made = mechanize(kind)(parameters, lr=run.lr, **run.betas, **run.decay)
    return _Mechanized(made, run.cosine(made))


MECHANIC = Baseline(
    name="mechanic", title="Mechanic",
    source="Cutkosky et al. 2023, arXiv 2306.00144; the authors' port to torch (their results are from the one to JAX)",
    usage="`mechanize(SGD)(lr=1.0)` with the workload's momentum, `mechanize(Adam)(lr=1.0)`; cosine to 0.",
    limits="The package cannot resume; our adapter carries its state. Two more copies of the weights a step.",
    build=_build, package="mechanic-pytorch", module="mechanic_pytorch", rates=every(1.0),
)  # fmt: skip
