"""What is measured of a trained network: its training loss, the width of its minimum, how superbatches scatter."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from autolr.measure.evaluated import LossFunction
from autolr.measure.in_place import copy_into
from autolr.measure.snapshot import undisturbed
from autolr.measure.superbatch import Superbatches, count_batches
from autolr_lab.workloads.workload import evaluation_mode

RADIUS = 0.05  # of a filter's norm
DIRECTIONS, MINIBATCHES = 10, 20
SAMPLE = 50  # minibatches of a training loss
SIZES = (1, 2, 5, 10, 20, 50, 100, 200)  # minibatches in a superbatch
SUPERBATCHES = 10  # the paper's


def train_loss(loss: LossFunction, model: nn.Module, batches: Any, seed: int) -> dict[str, Any]:
    """``final_train_loss``: of the trained network in evaluation mode, over `SAMPLE` minibatches, the same for a seed.

    The mean over the last epoch's steps is another thing: of networks on the way, and with dropout.
    """
    superbatches = Superbatches(batches, min(SAMPLE, count_batches(batches) or SAMPLE), seed)
    with undisturbed(model), evaluation_mode(model):
        return {"final_train_loss": _mean_loss(loss, model, list(superbatches.draw(0)))}


def width(loss: LossFunction, model: nn.Module, batches: Any, seed: int) -> dict[str, Any]:
    """``loss_rise``: how much the training loss rises a little way off (part 2.1); the narrower the minimum, the more.

    Each filter (a first-dimension slice of a weight with two dimensions or more) moves at random by `RADIUS` times its
    own norm, so that rescaling a network's layers does not change the answer (Li et al. 2018). In evaluation mode, on
    the same minibatches, `DIRECTIONS` times. The network is as before afterwards.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = [p for p in model.parameters() if p.ndim > 1]
    kept = [p.detach().clone() for p in weights]
    superbatches = Superbatches(batches, min(MINIBATCHES, count_batches(batches) or MINIBATCHES), seed)
    with undisturbed(model), evaluation_mode(model):
        chosen = list(superbatches.draw(0))
        here = _mean_loss(loss, model, chosen)
        rises = []
        for _ in range(DIRECTIONS):
            copy_into(weights, [w + RADIUS * _direction(w, generator) for w in kept])
            rises.append(_mean_loss(loss, model, chosen) - here)
        copy_into(weights, kept)
    return {"loss_here": here, "loss_rise": statistics.fmean(rises), "loss_rise_sd": statistics.stdev(rises)}


def _direction(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian, each filter with the norm of the weight's own."""
    noise = torch.randn(weight.shape, generator=generator).to(weight)
    filters, own = noise.flatten(1), weight.flatten(1)
    scaled: Tensor = filters * own.norm(dim=1, keepdim=True) / filters.norm(dim=1, keepdim=True)
    return scaled.view_as(weight)


def _mean_loss(loss: LossFunction, model: nn.Module, batches: list[Any]) -> float:
    return statistics.fmean(float(loss(model, batch).double()) for batch in batches)


def superbatch_noise(loss: LossFunction, model: nn.Module, batches: Any, seed: int) -> dict[str, Any]:
    """``superbatch_sd``: by size, the standard deviation of the mean loss over `SUPERBATCHES` random superbatches.

    Appendix B's, in training mode as a probe has it. The smaller superbatches are the beginnings of the larger ones.
    """
    most = min(SIZES[-1], count_batches(batches) or SIZES[-1])
    superbatches = Superbatches(batches, most, seed)
    losses = []
    with undisturbed(model) as kept:
        for number in range(SUPERBATCHES):
            each = []
            for batch in superbatches.draw(number):
                each.append(float(loss(model, batch).double()))
                kept.restore()
            losses.append(each)
    sizes = [size for size in SIZES if size <= most]
    return {"superbatch_sd": {str(n): statistics.stdev(statistics.fmean(each[:n]) for each in losses) for n in sizes}}


MEASURES: dict[str, Callable[[LossFunction, nn.Module, Any, int], dict[str, Any]]] = {
    "train_loss": train_loss,
    "width": width,
    "superbatch": superbatch_noise,
}
