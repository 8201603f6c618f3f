"""The rates of a logged run, also for a run of another length: plain numbers, for `autolr.Replay` and the command."""

from __future__ import annotations

import os

from autolr.runtime.run_log import read_run


def logged_rates(log: str | os.PathLike[str]) -> list[float]:
    """The rate of every step of a logged run.

    Raises:
        OSError: the log cannot be read.
        ValueError: a step is missing.
    """
    told = read_run(log).rates()
    missing = next((expected for expected, (step, _) in enumerate(told, start=1) if step != expected), None)
    if missing is not None or not told:
        lacks = "any step" if missing is None else f"step {missing}"
        raise ValueError(
            f"{os.fspath(log)!r} does not tell the rate of {lacks}. A log tells all of them where AutoLR(..., "
            "trace=...) wrote it from the run's first step on, and each resume began at a checkpoint of that run."
        )
    return [rate for _, rate in told]


def stretched(rates: list[float], step: int, total_steps: int) -> float:
    """The rate of a step of a run of ``total_steps``, where ``rates`` are those of another length: on a line between.

    Example:
        >>> [stretched([1.0, 0.5], step, 4) for step in (1, 2, 3, 4, 5)]
        [1.0, 0.875, 0.625, 0.5, 0.5]
    """
    if len(rates) == total_steps:
        return rates[min(step, total_steps) - 1]
    place = (step - 0.5) * len(rates) / total_steps - 0.5  # both runs' steps have their middle at a half
    place = min(max(place, 0.0), len(rates) - 1.0)
    below = int(place)
    above = min(below + 1, len(rates) - 1)
    return rates[below] + (place - below) * (rates[above] - rates[below])
