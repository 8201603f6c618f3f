r"""On bowls whose best learning rate is known, the paper's policy finds it from far below and survives from far above.

On :math:`\tfrac12 \sum_i h_i (w_i - c_i)^2` gradient descent is stable up to 2 / max(h) and best near 1 / max(h):
exactly there, in one step, where all h are equal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import autolr
from training_runs import seed_everything, tuned_by

pytestmark = pytest.mark.long

SEEDS = range(2)
STEPS = 120


class Bowl(nn.Module):
    """Each minibatch shifts the centre; all of them together leave it at ``centre``."""

    def __init__(self, curvature: list[float], centre: float, start: Tensor) -> None:
        super().__init__()
        self.curvature, self.centre = torch.tensor(curvature), centre
        self.w = nn.Parameter(start.clone())

    def forward(self, shift: Tensor) -> Tensor:
        return 0.5 * (self.curvature * (self.w - self.centre - shift).square()).sum()


def loss_fn(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch)


@dataclass
class Outcome:
    optimizer: Any
    start: float  # the true loss, of the centred bowl
    end: float


def descend(
    curvature: list[float],
    lr: float,
    *,
    seed: int,
    noise: float = 0.0,
    tuned: bool = True,
    centre: float = 0.0,
    steps: int = STEPS,
) -> Outcome:
    seed_everything(seed)
    width = len(curvature)
    shifts = noise * torch.randn(16, width)
    batches = list(shifts - shifts.mean(0))
    model = Bowl(curvature, centre, centre + 5 + torch.randn(width))
    optimizer: Any = torch.optim.SGD(model.parameters(), lr=lr)
    if tuned:
        # Eq. 3 is absolute in units of the rate, so that it would decide differently in each unit: out of the way. The
        # floor too, for rates a million times too high.
        policy = autolr.ExploreExploit(explore=0.3, epsilon=1e15, floor=0.0, spread=1, eps=(-0.5, 0.0, 0.5))
        settings: dict[str, Any] = {"policy": policy, "window": 2, "superbatch": 4, "seed": seed}
        optimizer = tuned_by(optimizer, model, loss_fn, batches, steps, **settings)
    with torch.no_grad():
        start = model(torch.zeros(width)).item()
    for step in range(steps):
        optimizer.zero_grad()
        loss_fn(model, batches[step % 16]).backward()
        optimizer.step()
    with torch.no_grad():
        return Outcome(optimizer, start, model(torch.zeros(width)).item())


def rates_explored(outcome: Outcome) -> list[float]:
    return [record.lr_after for record in outcome.optimizer.history if record.phase == "explore"]


@pytest.mark.parametrize(("unit", "centre"), [(1e-2, 0.0), (1e2, -3.0)])
def test_on_a_round_bowl_a_rate_100_times_too_small_rises_to_the_best_one_and_never_beyond(unit: float, centre: float):
    best = 1 / unit
    outcome = descend([unit] * 4, best / 100, seed=0, centre=centre)
    rates = rates_explored(outcome)
    assert rates == sorted(rates), "in explore the rate may only rise"
    assert rates[-1] == pytest.approx(best, rel=0.02)
    assert max(rates) <= best * 1.02
    assert rates[:6] == pytest.approx([best / 100 * 2**k for k in range(1, 7)]), "factor 2 at each look"
    assert outcome.end < 1e-9 * outcome.start


@pytest.mark.parametrize(("seed", "unit"), [(0, 1e-2), (1, 1e2)])
@pytest.mark.parametrize("shape", [[1.0, 1.0, 1.0, 1.0], [10.0, 5.0, 2.0, 1.0]], ids=["round", "stretched"])
def test_with_noisy_minibatches_the_rate_explored_from_far_below_is_within_a_factor_of_4_of_the_best(
    shape: list[float], seed: int, unit: float
):
    curvature = [unit * h for h in shape]
    best = 1 / max(curvature)
    outcome = descend(curvature, best / 100, seed=seed, noise=0.5)
    explored = rates_explored(outcome)
    assert best / 4 < explored[-1] < best * 4
    # Noise keeps any constant rate at a floor in proportion to it; one that falls in the end gets below that.
    constant = descend(curvature, best, seed=seed, noise=0.5, tuned=False)
    too_small = descend(curvature, best / 100, seed=seed, noise=0.5, tuned=False)
    assert outcome.end < constant.end
    assert outcome.end < too_small.end


@pytest.mark.parametrize("times", [3.0, 1e6], ids="{:g} times".format)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_rate_that_diverges_is_rolled_back_and_the_run_ends_far_below_where_it_began(seed: int, times: float):
    curvature = [10.0, 5.0, 2.0, 1.0]
    alone = descend(curvature, times / 10, seed=seed, noise=0.5, tuned=False)
    assert not alone.end < alone.start, "a rate that does not diverge proves nothing"
    outcome = descend(curvature, times / 10, seed=seed, noise=0.5)
    verdicts = [record.verdict for record in outcome.optimizer.history]
    assert verdicts[0] == "roll back"
    assert outcome.optimizer.cost.discarded_steps == 2 * verdicts.count("roll back")
    assert math.isfinite(outcome.end)
    assert outcome.end < 0.01 * outcome.start
    assert outcome.optimizer.lr < 2 / 10, "the rate ends where descent is stable"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_good_rate_is_not_walked_away_from_by_noise_in_explore(seed: int):
    curvature = [1.0, 1.0, 1.0, 1.0]
    outcome = descend(curvature, 1.0, seed=seed, noise=0.5)
    assert max(rates_explored(outcome)) < 2.0, "at 2 / h descent stops being stable"
    assert outcome.end < 0.01 * outcome.start


def test_the_same_seed_gives_the_same_rates_and_another_seed_other_ones():
    def rates(seed: int) -> list[float]:
        return [r.lr_after for r in descend([2.0, 1.0], 0.01, seed=seed, noise=0.5, steps=40).optimizer.history]

    assert rates(1) == rates(1) != rates(2)
