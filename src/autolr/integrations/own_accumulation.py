"""How many minibatches a step takes of a Lightning module that optimizes by itself: only its steps tell."""

from __future__ import annotations

from typing import Any


class OwnAccumulation:
    """Counts minibatches from one optimizer step to the next, and tells from that how many steps a fit has.

    What an epoch leaves over may be a step of its own, which is assumed at first. Or it waits for more, and the first
    step of the next epoch tells how many: the module then counts anew in each epoch, as by ``(batch_idx + 1) % each``,
    or on from one epoch to the next.

    Attributes:
        each: minibatches of a step; 1 until one is taken.
        known: whether one was.
        rest: what becomes of an epoch's last minibatches: ``"step"``, ``"anew"`` or ``"on"``.
    """

    def __init__(self) -> None:
        self.each, self.known, self.rest = 1, False, "step"
        self._counted = self._place = 0

    def minibatch(self, place: int) -> None:
        """One begins, the ``place``-th of its epoch, from 0."""
        self._counted += 1
        self._place = place + 1

    def step(self) -> bool:
        """A step is about to be taken: whether it tells what was not known."""
        counted, self._counted = self._counted, 0
        before = self.known, self.rest
        if not self.known:
            self.each, self.known = max(1, counted), True
        if counted > self._place and self.rest == "step":  # some are of the epoch before
            self.rest = "on" if counted == self.each else "anew"
        return before != (self.known, self.rest)

    def steps(self, batches: int, epochs: int) -> int:
        """Of a fit of so many ``epochs`` with ``batches`` minibatches each."""
        if self.rest == "on":
            return batches * epochs // self.each
        return epochs * (batches // self.each if self.rest == "anew" else -(-batches // self.each))

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint; empty where nothing was counted."""
        if not self.known and not self._counted:
            return {}
        return {"each": self.each, "known": self.known, "rest": self.rest, "counted": self._counted}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Likewise."""
        self.each, self.known, self.rest = state_dict["each"], state_dict["known"], state_dict["rest"]
        self._counted = state_dict["counted"]
