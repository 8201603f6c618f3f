"""MoMo and MomoAdam (Schaipp et al. 2024): momentum with a step from a model of the loss."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from autolr_lab.baselines.baseline import ADAM, SGD, Baseline, TrainingRun
from autolr_lab.training.stepper import ReplayBatch, Stepper


class _Momo(Stepper):
    """Hands the loss to the optimizer, and keeps what the package leaves out of its ``state_dict``."""

    optimizer: Any  # its `step` takes the loss
    clips = False
    _HIDDEN = ("loss_avg", "_number_steps", "lb")

    def step(self, loss: Tensor, replay: ReplayBatch | None) -> None:  # noqa: ARG002
        self.optimizer.step(loss=loss)
        self.optimizer.state["step_size_list"] = []  # it notes each step's size there: a list that grows with the run

    def state_dict(self) -> dict[str, Any]:
        hidden = {name: getattr(self.optimizer, name) for name in self._HIDDEN if hasattr(self.optimizer, name)}
        return {**super().state_dict(), "hidden": hidden}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        for name, value in state["hidden"].items():
            setattr(self.optimizer, name, self._here(value))


def _build(run: TrainingRun) -> Stepper:
    import momo

    if run.optimizer in SGD:
        made: Any = momo.Momo(run.model.parameters(), lr=run.lr, **run.decay)
    else:
        made = momo.MomoAdam(run.model.parameters(), lr=run.lr, **run.betas, **run.decay)
    return _Momo(made)


MOMO = Baseline(
    name="momo", title="MoMo", source="Schaipp et al. 2024, arXiv 2305.07583; the authors' package",
    usage="`Momo(lr=1)` with its momentum of 0.9, `MomoAdam(lr=1e-2)`, constant, loss bounded by 0 from below.",
    limits=(
        "The rate is only a cap and does not fall by itself. What its `state_dict` leaves out is kept by our adapter, "
        "so that its runs resume."
    ),
    build=_build, package="momo-opt", module="momo", rates=dict.fromkeys(SGD, 1.0) | dict.fromkeys(ADAM, 1e-2),
    seeded=True,
)  # fmt: skip
