"""Rates from the distance travelled: D-Adaptation, Prodigy, DoG and its layer-wise form LDoG."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from autolr_lab.baselines.baseline import ADAM, SGD, Baseline, TrainingRun, every
from autolr_lab.training.stepper import ReplayBatch, Stepper


class _Scaled(Stepper):
    """The distance ``d`` multiplies the rate of the schedule."""

    @property
    def rate(self) -> float:
        return max(float(group["lr"] * group["d"]) for group in self.optimizer.param_groups)


def _dadaptation(run: TrainingRun) -> Stepper:
    import dadaptation

    parameters: Any = run.model.parameters()
    if run.optimizer in SGD:
        made: Any = dadaptation.DAdaptSGD(parameters, lr=run.lr, momentum=SGD[run.optimizer], **run.decay)
    else:
        decoupled = ADAM[run.optimizer]
        with contextlib.redirect_stdout(io.StringIO()):  # it prints that weight decay is decoupled
            made = dadaptation.DAdaptAdam(parameters, lr=run.lr, decouple=decoupled, **run.betas, **run.decay)
    return _Scaled(made, run.cosine(made))


def _prodigy(run: TrainingRun) -> Stepper:
    import prodigyopt

    decoupled = ADAM.get(run.optimizer, False)
    with contextlib.redirect_stdout(io.StringIO()):  # likewise
        made = prodigyopt.Prodigy(run.model.parameters(), lr=run.lr, decouple=decoupled, **run.betas, **run.decay)
    return _Scaled(made, run.cosine(made))


class _Averaging(Stepper):
    """DoG: evaluates a polynomially decaying average of the weights."""

    def __init__(self, optimizer: Any, model: nn.Module) -> None:
        from dog import PolynomialDecayAverager

        super().__init__(optimizer)
        self._averager = PolynomialDecayAverager(model)

    @property
    def rate(self) -> float:
        """Of the step before: it is found in the step."""
        return max((float(eta) for group in self.optimizer.param_groups for eta in group.get("eta", ())), default=0.0)

    def step(self, loss: Tensor, replay: ReplayBatch | None) -> None:
        super().step(loss, replay)
        self._averager.step()

    @contextlib.contextmanager
    def evaluation(self, model: nn.Module) -> Iterator[nn.Module]:  # noqa: ARG002 - the average stands in for it
        yield self._averager.averaged_model

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "average": self._averager.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        for group in self.optimizer.param_groups:  # the package leaves them on the host
            group.update({name: self._here(group[name]) for name in ("rbar", "G", "eta") if name in group})
        self._averager.load_state_dict(state["average"])


def _dog(run: TrainingRun, kind: str) -> Stepper:
    import dog

    relative = 1e-4 if run.has_batch_norm else 1e-6
    made = getattr(dog, kind)(run.model.parameters(), reps_rel=relative, lr=run.lr, **run.decay)
    return _Averaging(made, run.model)


_ONE_RATE = "One rate for all parameter groups."

D_ADAPTATION = Baseline(
    name="d-adaptation", title="D-Adaptation",
    source="Defazio and Mishchenko 2023, arXiv 2301.07733; the authors' package",
    usage=(
        "`DAdaptSGD(lr=1.0)` with the workload's momentum, `DAdaptAdam(lr=1.0)`, decoupled for AdamW; cosine to 0, as "
        "it asks for the schedule that is usual."
    ),
    limits=_ONE_RATE, build=_dadaptation, package="dadaptation", module="dadaptation", rates=every(1.0),
)  # fmt: skip

PRODIGY = Baseline(
    name="prodigy", title="Prodigy", source="Mishchenko and Defazio 2024, arXiv 2306.06101; the authors' package",
    usage="`Prodigy(lr=1.0)` with cosine to 0, one of the two schedules it recommends; decoupled for AdamW.",
    limits=f"{_ONE_RATE} There is only Adam inside: it stands in for SGD all the same.", build=_prodigy,
    package="prodigyopt", module="prodigyopt", rates=every(1.0),
)  # fmt: skip


def _of_dog(name: str, kind: str) -> Baseline:
    return Baseline(
        name=name,
        title=kind,
        source="Ivgi et al. 2023, arXiv 2302.12022; the authors' package",
        usage=f"`{kind}(reps_rel=1e-6)`, 1e-4 where the model has BatchNorm, with its `PolynomialDecayAverager`.",
        limits="There is only SGD without momentum inside: it stands in for Adam all the same.",
        build=functools.partial(_dog, kind=kind),
        package="dog-optimizer",
        module="dog",
        rates=every(1.0),
    )


DOG, LDOG = _of_dog("dog", "DoG"), _of_dog("ldog", "LDoG")
