"""What a picture shows, in a sentence: for who cannot see it, and for who wants to know what to look for."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autolr.policies.wording import number
from autolr.report.search_data import bottoms_of, ends_of, interval, lowered_by, start_loss
from autolr.report.training_record import Training, outcome, tells_peak
from autolr.report.words import counted, printable
from autolr.runtime.decision_log import DecisionRecord

EACH = 3  # trainings that are told of one by one; of more, the range


def rate_finding(trainings: Sequence[Training]) -> str:
    """Where the learning rate begins, is highest and ends."""
    told = []
    for training in trainings:
        rates = [(step, lr) for step, lr in training.rates() if lr is not None]
        if rates:
            top = max(rates, key=lambda point: point[1])
            told.append((training, rates[0], top, rates[-1]))
    if not told:
        return "No learning rate was logged."
    if len(told) > EACH:
        tops = [top for _, _, (_, top), _ in told]
        return f"The highest rates of {counted(len(told), 'run')} lie from {number(min(tops))} to {number(max(tops))}."
    sentences = (
        f"{_whose(training, trainings)}from {number(first)} at step {begin:,.0f} to {number(last)} at step {end:,.0f}; "
        f"highest {number(top)}, at step {at:,.0f}."
        for training, (begin, first), (at, top), (end, last) in told
    )
    return " ".join(sentence[0].upper() + sentence[1:] if len(trainings) == 1 else sentence for sentence in sentences)


def metric_finding(trainings: Sequence[Training], key: str, title: str) -> str:
    """Its first, last and best value."""
    told = []
    is_share = key.endswith(("accuracy", "acc")) and all((v or 0) <= 1 for t in trainings for _, v in t.curve(key))
    say: Callable[[float], str] = _percent if is_share else number
    for training in trainings:
        curve = [(step, value) for step, value in training.curve(key) if value is not None]
        if curve:
            best = (max if key.endswith(("accuracy", "acc")) else min)(curve, key=lambda point: point[1])
            told.append((training, curve[0], best, curve[-1]))
    if not told:
        return f"No finite {title} was logged."
    if len(told) > EACH:
        ends = [last for _, _, _, (_, last) in told]
        spread = f"{say(min(ends))} to {say(max(ends))}, {say(statistics.median(ends))} in the middle"
        return f"At the end of {counted(len(told), 'run')}, {title} is {spread}."
    return " ".join(
        f"{_whose(training, trainings)}{say(first)} at step {begin:,.0f}, {say(last)} at step {end:,.0f}; "
        f"best {say(best)}, at step {at:,.0f}."
        for training, (begin, first), (at, best), (end, last) in told
    )


def search_finding(search: Mapping[str, Any]) -> str:
    """Where the losses of each length are least, and what was chosen for the run."""
    ends, bottoms, start = ends_of(search), bottoms_of(search), start_loss(search)
    parts = []
    for length, runs in ends.items():
        finite = [(loss, rate) for rate, loss in runs if loss is not None]
        told = f"{counted(len(runs), 'run')} of {counted(length, 'step')}"
        if length in bottoms:
            told += f", best at {number(bottoms[length][0])}"
        elif finite:
            told += f", best at {number(min(finite)[1])}"
        diverged = len(runs) - len(finite)
        parts.append(told + (f" ({diverged} diverged)" if diverged else ""))
    begin = "" if start is None else f"The loss where all begin is {number(start)}. "
    low, high = interval(search)
    between = f", believed between {number(low)} and {number(high)}"
    chosen = f"Chosen peak: {number(search['lr'])}{between if low < high else ''}{_lowered(search)}."
    return f"{chosen} {begin}{'; '.join(parts).capitalize()}{'.' if parts else ''}"


def _lowered(search: Mapping[str, Any]) -> str:
    factor = lowered_by(search)
    told = f"; {factor:.2g} times lower than the short runs alone tell, as the optimizer's first steps are shorter"
    return told if factor > 1 else ""


def probe_finding(probe: DecisionRecord) -> str:
    """What the fit asks for."""
    if probe.k0 is None:
        return "no fit: a loss is not finite"
    if probe.eps_min is None:
        return "the fit has no minimum"
    return f"minimum at {number(probe.eps_min, signed=True)}"


def change_of(record: DecisionRecord) -> str:
    """What it did to the rate, with the rate."""
    return f"{outcome(record)}{' at' if record.lr_before == record.lr_after else ','} {rates_of(record)}"


def rates_of(record: DecisionRecord) -> str:
    """Before and after; one where they are the same."""
    before, after = number(record.lr_before), number(record.lr_after)
    if outcome(record) == "rolled back" and tells_peak(record):
        return f"{before} → peak {after}"
    return before if record.lr_before == record.lr_after else f"{before} → {after}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _whose(training: Training, trainings: Sequence[Training]) -> str:
    return f"{printable(training.name)}: " if len(trainings) > 1 else ""
