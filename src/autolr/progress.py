"""A progress bar for a terminal or a notebook, from the standard library alone."""

from __future__ import annotations

import sys
from types import TracebackType

WIDTH = 24


class ProgressBar:
    """Writes one line to stderr, again and again in the same place, and takes it away at the end.

    Args:
        name: that the line begins with.
        shown: None where it is shown on a terminal or in a notebook only.
    """

    def __init__(self, name: str, shown: bool | None) -> None:
        self._name, self._longest = name, 0
        # A notebook's stderr is no terminal, and understands a carriage return all the same.
        self._shown = (sys.stderr.isatty() or "ipykernel" in sys.modules) if shown is None else shown

    def show(self, share: float, text: str) -> None:
        """``share`` of the work is done, and ``text`` is what comes now."""
        if not self._shown:
            return
        done = round(WIDTH * min(max(share, 0.0), 1.0))
        line = f"{self._name} [{'#' * done}{' ' * (WIDTH - done)}] {text}"
        self._longest = max(self._longest, len(line))
        print("\r" + line.ljust(self._longest), end="", file=sys.stderr, flush=True)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._longest:
            print("\r" + " " * self._longest + "\r", end="", file=sys.stderr, flush=True)
