"""Warnings left out for a moment, by one thread at a time."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator

_ONE_AT_A_TIME = threading.RLock()


@contextlib.contextmanager
def quiet(message: str = "") -> Iterator[None]:
    """Leave out warnings that begin with a ``message`` (a pattern).

    Python's filters are of the process, and two threads that put them back in another order than they changed them
    leave a filter behind for good. So this is for moments only, not around a search.
    """
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message)
        yield
