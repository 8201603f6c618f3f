"""GreedyLR (AWS 2025), as Transformers ships it: the rate rises while a metric improves, and falls otherwise."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer

from autolr_lab.baselines.baseline import Baseline, TrainingRun
from autolr_lab.training.stepper import Stepper


class _Greedy(Stepper):
    """Steps on the evaluated loss, as the Trainer does after each evaluation."""

    def __init__(self, optimizer: Optimizer) -> None:
        from transformers.optimization import GreedyLR

        super().__init__(optimizer)
        self._greedy = GreedyLR(optimizer)

    def epoch(self, loss: float) -> None:
        self._greedy.step(loss)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "greedy": self._greedy.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._greedy.load_state_dict(state["greedy"])


def _build(run: TrainingRun) -> Stepper:
    return _Greedy(run.base())


GREEDY = Baseline(
    name="greedy", title="GreedyLR", source="AWS 2025, arXiv 2512.14527; transformers.optimization",
    usage="`GreedyLR(optimizer)` with its defaults, stepped on the evaluated loss after each epoch.",
    limits=(
        "By default it waits for ten evaluations and its lowest rate is 1e-3: in a run of few epochs, or at a smaller "
        "rate, it moves little or only upwards. It has the evaluated data's loss, which others have not."
    ),
    build=_build, package="transformers", module="transformers.optimization", seeded=True,
)  # fmt: skip
