"""The list of situations."""

from __future__ import annotations

import torch

import autolr
from autolr_lab.studies.ruined_runs.case import Case, adam, momentum
from autolr_lab.studies.ruined_runs.digits import (
    accumulating,
    averaged,
    changed,
    classifier,
    poisoned,
    pruned,
    resumed,
    scheduled,
    second_objective,
    spectral,
)
from autolr_lab.studies.ruined_runs.elsewhere import (
    ctc,
    diffusion,
    frozen,
    nan_rows,
    rare_positives,
    surgery,
    tasks,
)
from autolr_lab.studies.ruined_runs.optimizers import Adopt, Collecting, Preparing

ERROR, LOSS, MISRANKED = "test error [%]", "loss", "1 - AUC [%]"
ADAPTIVE = autolr.ExploreExploit.adaptive()

CASES = (
    Case("digits", classifier(), momentum, 0.1, 0.1, 300, ERROR),
    Case("digits", classifier(), momentum, 0.1, 0.1, 1000, ERROR),
    Case("deep ReLU", classifier(hidden=4), momentum, 0.05, 0.01, 300, ERROR),
    Case("deep ReLU", classifier(hidden=4), momentum, 0.05, 0.01, 1000, ERROR),
    Case("rare positives, Adam", rare_positives, adam, 2e-3, 1e-3, 400, MISRANKED),
    Case("rare positives, SGD", rare_positives, momentum, 5e-3, 1e-2, 400, MISRANKED),
    Case("diffusion, batch 64", diffusion(64), adam, 3e-3, 1e-3, 400, LOSS),
    Case("diffusion, batch 2", diffusion(2), adam, 1e-3, 1e-3, 400, LOSS),
    Case("one NaN row in 2,000", nan_rows, momentum, 0.05, 0.05, 4000, LOSS),
    Case("infinite CTC losses", ctc, adam, 3e-3, 1e-3, 300, LOSS),
    Case("averaged weights", averaged, momentum, 0.05, 0.01, 500, ERROR),
    Case("ten tasks, zero_grad for each", tasks, adam, 1e-2, 1e-3, 400, LOSS, loop=surgery),
    Case("frozen uint8", frozen(torch.uint8), adam, 1e-2, 1e-3, 200, LOSS),
    Case("frozen int64", frozen(torch.int64), adam, 1e-2, 1e-3, 200, LOSS),
    Case("frozen bfloat16", frozen(torch.bfloat16), adam, 1e-2, 1e-3, 200, LOSS),
    Case("pruned at 30 %", changed(pruned), adam, 3e-3, 1e-3, 300, ERROR),
    Case("spectral norm at 30 %", changed(spectral), adam, 3e-3, 1e-3, 300, ERROR),
    Case("a loss term at 30 %", second_objective, adam, 3e-3, 1e-3, 300, ERROR),
    Case("a scheduler beside it", classifier(), adam, 3e-3, 1e-3, 300, ERROR, loop=scheduled),
    Case("first step prepares", classifier(), Preparing, 3e-3, 1e-3, 300, ERROR),
    Case("ADOPT", classifier(), Adopt, 3e-3, 1e-3, 300, ERROR),
    Case("the optimizer accumulates", classifier(batch=8), Collecting, 3e-3, 1e-3, 1200, ERROR),
    Case("the loop accumulates", classifier(batch=8), adam, 3e-3, 1e-3, 300, ERROR, loop=accumulating),
    Case("a NaN gradient at 70 %", poisoned, momentum, 0.1, 0.1, 300, ERROR),
    Case("trained before", resumed, momentum, 0.05, 0.05, 2000, LOSS),
    Case("loss times 1e-4", classifier(scale=1e-4), momentum, 1e3, 0.1, 300, ERROR),
    Case("loss times 1e4", classifier(scale=1e4), momentum, 1e-5, 0.1, 300, ERROR),
    Case("converged, adaptive", classifier(), momentum, 0.1, 0.1, 30_000, ERROR, policy=ADAPTIVE),
)
