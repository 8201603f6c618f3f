"""Put back what was changed for a moment, wherever the way there or back is interrupted.

A context manager cannot: an exception that a signal handler raises as its ``__exit__`` begins leaves all as it is. Here
each way back is begun twice, the second time from outside the first, and the second does what the first has left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def certainly(body: Callable[[], T], back: Callable[[], None]) -> T:
    """What ``body`` returns; ``back`` has been done when this is left, by one interrupt at most.

    Args:
        body: changes things.
        back: puts them back. It may be called again after it was interrupted, or done.
    """
    try:
        try:
            return body()
        finally:
            back()
    finally:
        back()


class WayBack:
    """Steps back, each taken whatever becomes of the others; to be called again where it was interrupted.

    Args:
        steps: in their order; each may be taken again.
    """

    def __init__(self, steps: Sequence[Callable[[], object]]) -> None:
        self._steps, self._done = steps, False

    def __call__(self) -> None:
        """Take them.

        Raises:
            BaseException: the first that a step has raised, after all were taken.
        """
        if self._done:
            return
        error: BaseException | None = None
        for step in self._steps:
            try:
                step()
            except BaseException as raised:  # noqa: PERF203 - one that fails keeps none of the others from being taken
                error = error or raised
        if error is not None:
            raise error
        self._done = True
