"""Minibatches on which a loss raises: corrupt samples, which users' loops catch and skip.

They count as those whose loss is not finite. A loss that raises on all that are looked at is a mistake, and what it
raised is raised on.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from autolr.measure.memory import ran_out_of_memory
from autolr.runtime.distributed import several

FAILURES = (RuntimeError, ValueError, ArithmeticError)  # that a loss raises at corrupt samples, or ruined weights
MISTAKES = (*FAILURES, LookupError, TypeError, AttributeError)  # that code raises; not a handler's request to stop


class TrialFailedError(Exception):
    """Steps that nobody asked for raised, in one process; what they did is put back."""


def is_alone(error: Exception) -> bool:
    """Whether one can go on without what raised: no other rank waits for it, and there was memory for it."""
    return not (several() or ran_out_of_memory(error))


def no_loss(model: nn.Module) -> Tensor:
    """What stands in the place of a loss that there is not."""
    device = next((p.device for p in model.parameters()), None)
    return torch.full((), math.nan, dtype=torch.float64, device=device)
