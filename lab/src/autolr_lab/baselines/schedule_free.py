"""Schedule-free SGD and AdamW (Defazio et al. 2024): an average of the iterates in place of a decay."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from autolr.measure.in_place import copy_into
from autolr.measure.rng import random_state, set_random_state
from autolr_lab.baselines.baseline import ADAM, SGD, Baseline, TrainingRun
from autolr_lab.training.stepper import Stepper

WARM_UP = 0.05  # share of the run; "using learning rate warmup is recommended", no length is
STATISTICS = 50  # minibatches through the model before an evaluation, where it has BatchNorm: the README's


class _Averaged(Stepper):
    """Evaluates at the average x, trains at the interpolation y."""

    def __init__(self, optimizer: Optimizer, run: TrainingRun) -> None:
        super().__init__(optimizer)
        self._run = run
        self._statistics: tuple[int, list[Tensor]] = (-1, [])  # after how many steps they were gathered, and they
        self.optimizer.train()  # type: ignore[attr-defined]
        if run.has_batch_norm:
            # What an evaluation needs; those on the way are the benchmark's wish, and only the last is charged.
            self.reserve = min(STATISTICS, run.steps_per_epoch)

    @property
    def rate(self) -> float:
        groups = self.optimizer.param_groups
        return max(float(group.get("scheduled_lr") or group["lr"]) for group in groups)

    @contextlib.contextmanager
    def evaluation(self, model: nn.Module) -> Iterator[nn.Module]:
        """At x, with the running statistics of x; training goes on from y to the bit."""
        tensors = [*model.parameters(), *model.buffers()]
        here = [t.detach().clone() for t in tensors]
        self.optimizer.eval()  # type: ignore[attr-defined]
        try:
            if self.reserve:
                self._gather_statistics(model)
            yield model
        finally:
            self.optimizer.train()  # type: ignore[attr-defined]
            copy_into(tensors, here)  # the way there and back has rounded

    def _gather_statistics(self, model: nn.Module) -> None:
        """Once after a step, however often it is evaluated."""
        buffers, steps = list(model.buffers()), self.optimizer.param_groups[0]["k"]
        if self._statistics[0] != steps:
            here = random_state()  # the pass is not training's: its dropout masks stay as they would have been
            with torch.no_grad():
                for batch in itertools.islice(self._run.batches(), STATISTICS):
                    self._run.loss(model, batch)
            set_random_state(here)
            self._statistics = (steps, [b.clone() for b in buffers])
        copy_into(buffers, self._statistics[1])


def _build(run: TrainingRun) -> Stepper:
    import schedulefree

    parameters, warm_up = run.model.parameters(), int(WARM_UP * run.total_steps)
    if run.optimizer in SGD:
        made = schedulefree.SGDScheduleFree(parameters, lr=run.lr, warmup_steps=warm_up, **run.decay)
    else:
        made = schedulefree.AdamWScheduleFree(parameters, lr=run.lr, warmup_steps=warm_up, **run.betas, **run.decay)
    return _Averaged(made, run)


SCHEDULE_FREE = Baseline(
    name="schedule-free", title="Schedule-free", source="Defazio et al. 2024, arXiv 2405.15682; the authors' package",
    usage=(
        "`SGDScheduleFree(lr=1.0)`, `AdamWScheduleFree(lr=0.0025)`: the package's defaults; warm-up over 5 % of the "
        "run; `train()` and `eval()`; 50 minibatches through the model before an evaluation where it has BatchNorm."
    ),
    limits="Needs a rate; plain Adam gets decoupled weight decay; training itself is never at the weights evaluated.",
    build=_build, package="schedulefree", module="schedulefree",
    rates=dict.fromkeys(SGD, 1.0) | dict.fromkeys(ADAM, 0.0025), seeded=True,
)  # fmt: skip
