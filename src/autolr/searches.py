"""The short runs that a policy asks for, outside training: a search, and a comparison with another peak."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn
from torch.optim import Optimizer

from autolr.from_start import compare_from_start
from autolr.measure.evaluated import LossFunction
from autolr.measure.memory import has_room
from autolr.measure.sources import Batches
from autolr.peak import Peak
from autolr.peak_search import find_peak_quietly
from autolr.policies.base import ProbeRequest, Search
from autolr.runtime.distributed import several, smallest

Losses = tuple[float, ...]


class Searches:
    """For the controller, of one training.

    Attributes:
        under_way: whether one is running now.
        settings: further arguments of `autolr.find_peak`.
    """

    def __init__(
        self, model: nn.Module, base: Optimizer, loss_fn: LossFunction, batches: Batches, seed: int,
        settings: dict[str, Any],
    ) -> None:  # fmt: skip
        self._what, self._seed, self.settings, self.under_way = (model, base, loss_fn, batches), seed, settings, False

    def search(self, request: ProbeRequest, total_steps: int) -> Search:
        """A peak search from here, for a run of so many steps."""
        with self._running():
            peak = find_peak_quietly(  # what it would warn of, the decision tells the user
                *self._what, total_steps, clip=request.clip, budget=request.budget, seed=self._seed, **self.settings
            )
        return Search(
            lr=peak.lr, low=peak.low, high=peak.high, start_loss=peak.start_loss, best_loss=peak.best_loss,
            cost=round(peak.cost), found=peak.fallback is None, details=_details(peak),
        )  # fmt: skip

    def compare(
        self, request: ProbeRequest, to_start: Callable[[], None], keep: Callable[[], None]
    ) -> tuple[Losses, Losses, float] | None:
        """Losses after the request's steps from here, and after those from where ``to_start`` goes; and their cost.

        ``keep`` is called after `ProbeRequest.keep_after` of the latter, at the place that they have come to.

        None where one of several ranks has no room for it: alone it would fail, and the others wait.
        """
        if several() and not smallest(int(has_room(self._what[1]))):
            return None
        with self._running():
            return compare_from_start(
                *self._what,
                to_start=to_start,
                from_here=request.from_here,
                from_there=request.from_there,
                keep_after=request.keep_after,
                keep=keep,
                clip=request.clip,
                seed=self._seed,
                **self.settings,
            )

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        self.under_way = True
        try:
            yield
        finally:
            self.under_way = False


def _details(peak: Peak) -> dict[str, Any]:
    """For the log. Without its seconds, which are in `Cost`: no two runs have them alike."""
    details: dict[str, Any] = json.loads(peak.to_json())
    del details["seconds"]
    return details
