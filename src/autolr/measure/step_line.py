"""The line through the optimizer's last step: moves the parameters along it, and back to the bit.

Paper -> code: theta - (eta + eps) d -> the point ``eps``, in multiples of eta: 0 is the step as taken, -1 undoes it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class StepLine:
    """Holds one copy of the parameters, whatever is sampled; made before the step, used after it.

    The parameters are at one point of the line and the copy at another; one of the two is always where the step ended,
    exactly. A point is found from another by scaling its distance to that one, so that no third copy is needed. Ends of
    the step, 0 and -1, are exact; other points are within rounding, a little more of it for each move.

    Args:
        parameters: that the optimizer is about to move; their addresses are those that the step leaves, for compiled
            and captured graphs. Whole numbers (frozen weights in 8 bits, an index) are on no line: they stay where they
            are.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._held = [p for p in parameters if p.is_floating_point() or p.is_complex()]
        self._copy = [p.clone() for p in self._parameters]
        self._point, self._copied = 0.0, -1.0  # where the parameters will be, and where the copy is
        self._ended = [True] * len(self._copy)  # whether a parameter, and not its copy, is where the step ended
        self._moving: tuple[int, Tensor] | None = None  # which one is being swapped, and where the step ended for it

    @property
    def _parameters(self) -> list[Tensor]:
        # Anew each time: a step that sets `p.data` leaves them in other memory.
        return [p.detach() for p in self._held]

    def to(self, eps: float) -> None:
        """Move the parameters to ``eps``."""
        if eps == self._point:
            return
        if eps == 0 or self._point == 0:
            self._swap()
        if eps != self._point:
            # From p to after + (eps / point) (p - after), the copy being `after`.
            torch._foreach_lerp_(self._parameters, self._copy, 1 - eps / self._point)
            self._point = eps

    def back(self) -> None:
        """Put the parameters where the step left them, to the bit.

        It may be called again, and wherever a move was interrupted, since what is about to move is noted before; after
        that the line leads nowhere else any more.
        """
        if self._moving is None and self._ended and not any(self._ended):
            self._swap()  # nothing was interrupted: both ends stay
        if self._moving is not None:
            place, end = self._moving
            self._parameters[place].copy_(end)
            self._ended[place] = True
            self._moving = None
        for place, (p, c) in enumerate(zip(self._parameters, self._copy, strict=True)):
            if not self._ended[place]:
                p.copy_(c)
                self._ended[place] = True

    def moved(self) -> bool:
        """Whether the step moved any parameter; to be asked before any other point."""
        return any(not torch.equal(p, c) for p, c in zip(self._parameters, self._copy, strict=True))

    def _swap(self) -> None:
        # One by one: a copy of one tensor more, not of all of them.
        for place, (p, c) in enumerate(zip(self._parameters, self._copy, strict=True)):
            end, other = (p, c) if self._ended[place] else (c, p)
            held = end.clone()
            self._moving = place, held
            end.copy_(other)
            other.copy_(held)
            self._ended[place] = not self._ended[place]
            self._moving = None
        self._point, self._copied = self._copied, self._point
