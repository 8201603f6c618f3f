"""``quadratic_deep``: a quadratic of 100 dimensions in minibatches, with the eigenvalues of a deep network's Hessian.

The loss of an example x is (theta - x)^T Q (theta - x) / 2, theta begins at all ones. Of Q's eigenvalues 90 are uniform
in (0, 1) and 10 in (30, 60); its eigenvectors are a rotation drawn uniformly (Diaconis and Shahshahani 1987), always
the same one, of numpy's old generator with seed 42. A thousand examples train and a thousand test, normal with a
standard deviation of 0.6.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from autolr_lab.studies.deepobs.problem import Problem
from autolr_lab.zoo.task import Batch

DIMENSIONS, EXAMPLES, SCATTER = 100, 1000, 0.6
TRAIN_SEED, TEST_SEED = 42, 43


class Theta(nn.Module):
    """The parameters, shape ``(100,)``."""

    hessian: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.ones(DIMENSIONS))
        self.register_buffer("hessian", torch.tensor(hessian(), dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """The loss of each row of ``x``."""
        away = self.theta - x
        return 0.5 * ((away @ self.hessian) * away).sum(1)


def hessian() -> np.ndarray:
    """Q: symmetric, shape ``(100, 100)``."""
    draws = np.random.RandomState(42)
    eigenvalues = np.concatenate([draws.uniform(0.0, 1.0, 90), draws.uniform(30.0, 60.0, 10)])
    turn = rotation(DIMENSIONS, draws)
    found: np.ndarray = turn.T @ np.diag(eigenvalues) @ turn
    return found


def rotation(size: int, draws: np.random.RandomState) -> np.ndarray:
    """A rotation of the uniform distribution, by the subgroup algorithm: one dimension more at a time."""
    angle = 2 * np.pi * draws.uniform()
    found = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    for have in range(2, size):
        # A reflection takes the first axis to a direction drawn at random, after the rotation of the others.
        direction = draws.normal(size=have + 1)
        mirror = np.eye(have + 1)[0] - direction / np.linalg.norm(direction)
        mirror /= np.linalg.norm(mirror)
        wider = np.eye(have + 1)
        wider[1:, 1:] = found
        found = wider - 2 * np.outer(mirror, mirror @ wider)
    return -found


def _examples(seed: int) -> Batch:
    draws = np.random.RandomState(seed)
    return (torch.from_numpy(draws.normal(0.0, SCATTER, (EXAMPLES, DIMENSIONS)).astype(np.float32)),)


def _losses(model: nn.Module, batch: Batch) -> Tensor:
    found: Tensor = model(batch[0])
    return found


def quadratic_deep() -> Problem:
    """The problem."""
    train = _examples(TRAIN_SEED)
    return Problem("quadratic_deep", 128, 100, train, EXAMPLES, _examples(TEST_SEED), Theta, _losses)
