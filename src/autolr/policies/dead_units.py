"""Have units died? Parameters whose gradient is exactly zero, step after step, where nothing is gained.

One minibatch tells little: an expert that nothing is routed to, a layer that is skipped, another task's head have no
gradient in it either. Where units died, what lies nearest to the data has none, which is the first parameter, and never
has one again. Where it has none after the run was brought back, it was not for the rate: a hook holds it, for instance.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

STEPS = 10  # in a row, each with a minibatch of its own


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What is known of parameters without a gradient, by their numbers; plain values, for a checkpoint.

    Example:
        >>> seen = Suspicion(still=(0,)).roused({0, 1, 4}, step=7)
        >>> seen.suspects
        (1, 4)
        >>> for step in range(8, 17):
        ...     seen = seen.looked_again({1}, step)
        >>> seen.dead
        1
    """

    still: tuple[int, ...] = ()  # those that had none where the run began, or have none wherever it goes back to
    suspects: tuple[int, ...] = ()
    looks: int = 0  # steps in a row without
    looked: int = -1  # the step of the last look
    brought_back: bool = False  # for these suspects already
    dead: int = 0  # of them, once it is sure

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Suspicion:
        """From ``dataclasses.asdict``."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in state.items()}
        return cls(**values)

    def roused(self, without_gradient: Collection[int], step: int) -> Suspicion:
        """Nothing is gained, and these have no gradient: those among them that may be dead are looked at again."""
        if self.suspects:
            return self
        return replace(self, suspects=self._may_be_dead(without_gradient), looks=1, looked=step)

    def looked_again(self, without_gradient: Collection[int], step: int) -> Suspicion:
        """One step later; with ``dead`` where it is sure now."""
        suspects = self._may_be_dead(set(self.suspects) & set(without_gradient))
        if not suspects:
            return self.dropped()
        here = replace(self, suspects=suspects, looks=self.looks + 1, looked=step)
        if here.looks < STEPS:
            return here
        if self.brought_back:
            return replace(here, still=tuple(sorted({*self.still, *suspects}))).dropped()
        return replace(here, dead=len(suspects))

    def returned(self, step: int) -> Suspicion:
        """The run has gone back for the dead: whether they have a gradient there is still to be seen."""
        return replace(self, dead=0, looks=0, looked=step, brought_back=True)

    def dropped(self) -> Suspicion:
        """Nobody is suspected any more."""
        return Suspicion(self.still)

    def _may_be_dead(self, without_gradient: Collection[int]) -> tuple[int, ...]:
        """None where the first that can be has a gradient."""
        first = next(number for number in itertools.count() if number not in self.still)
        return tuple(sorted(set(without_gradient) - set(self.still))) if first in without_gradient else ()
