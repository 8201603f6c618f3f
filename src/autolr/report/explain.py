"""What happened in a run and why, in sentences."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from autolr.policies.wording import number
from autolr.report.search_data import ends_of
from autolr.report.summary import headline
from autolr.report.training_record import Training, outcome, tells_peak
from autolr.report.words import counted, printable
from autolr.runtime.decision_log import DecisionRecord
from autolr.runtime.run_log import LoggedRun


def explain_run(run: LoggedRun, training: Training) -> list[str]:
    """What was run, what came of it, and each decision in order; checks that changed nothing are told together."""
    return [_place(run), headline(training), *map(_told, _together(run.records))]


def explain_step(run: LoggedRun, step: int) -> list[str]:
    """The rate of one step: which decision it goes back to, what that rests on, and what came next.

    Raises:
        ValueError: a step that the run has not taken.
    """
    if not 1 <= step <= run.steps:
        raise ValueError(f"step must be one of the {run.steps:,} that the run has taken, from 1; got {step}.")
    rates, (steps, decisions) = dict(run.rates()), run.before
    if step <= steps or (rates and step not in rates):
        since = f"it begins after step {steps:,} of its run" if step <= steps else "lines of it are missing"
        raise ValueError(f"This log does not tell of step {step}: {since}. Name a log that has the step.")
    taken = rates.get(step)
    before = [record for record in run.records if record.step < step]
    changes = [record for record in before if record.lr_after != record.lr_before or tells_peak(record)]
    after = next((record for record in run.records if record.step >= step), None)
    lines = [f"Step {step:,} was taken at a learning rate of {number(taken)}." if taken else f"Step {step:,}."]
    if not changes and decisions:
        lines.append(f"It may go back to a decision that is not here{_late(run)}.")
    elif not changes:
        why = "it follows the schedule" if _moves(run, step) else "it is the one that the optimizer was given"
        lines.append(f"No decision had changed the rate by then: {why}.")
    else:
        last = changes[-1]
        lines.append(f"It goes back to {last}.")
        lines += _rests_on(last)
        if taken and tells_peak(last) and taken != last.lr_after:
            lines.append(
                f"That is {100 * taken / last.lr_after:.3g} % of the peak: the schedule "
                f"{'climbs' if _moves(run, step) > 0 else 'falls'} there."
            )
    if before and (not changes or before[-1] is not changes[-1]):
        lines.append(f"The last decision before it: {before[-1]}.")
    lines.append("No decision followed." if after is None else f"The next one: {after}.")
    return [printable(line) for line in lines]


def _place(run: LoggedRun) -> str:
    of = f" of {run.total_steps:,}" if run.total_steps is not None else ""
    what = f"{run.about.get('optimizer', 'An optimizer')} under {run.about.get('policy', 'a policy')}"
    return printable(f"{what}: {run.steps:,}{of} steps taken, {run.status()}{_late(run)}.")


def _late(run: LoggedRun) -> str:
    """That the log begins in the middle of its run, where it does."""
    steps, decisions = run.before
    return f"; the log begins after step {steps:,}, with {counted(decisions, 'decision')} before it" if steps else ""


def _together(records: Sequence[DecisionRecord]) -> Iterator[list[DecisionRecord]]:
    """Decisions in a row that changed nothing, for one and the same trigger, in one list."""

    def kind(record: DecisionRecord) -> object:
        same = outcome(record) == "kept" and record.search is None
        return (record.trigger, record.phase) if same else id(record)

    for _, group in itertools.groupby(records, kind):
        yield list(group)


def _told(group: Sequence[DecisionRecord]) -> str:
    first, last = group[0], group[-1]
    if len(group) == 1:
        return printable(f"{str(first)[0].upper()}{str(first)[1:]}.")
    told = f"Steps {first.step:,} to {last.step:,} ({first.phase}): {counted(len(group), 'decision')} to keep the rate"
    return printable(f"{told}, for the same reason. The last: {last.reason}.")


def _moves(run: LoggedRun, step: int) -> float:
    """By how much the rate changes about a step, as it is logged."""
    rates = dict(run.rates())
    here = rates.get(step, 0.0)
    return rates.get(step + 1, here) - rates.get(step - 1, here)


def _rests_on(record: DecisionRecord) -> list[str]:
    """The measurements behind a decision."""
    lines = []
    if record.search:
        for length, runs in ends_of(record.search).items():
            ends = ", ".join(f"{number(rate)}: {'diverged' if loss is None else number(loss)}" for rate, loss in runs)
            lines.append(f"Losses at the end of short runs of {length:,} steps, by peak rate: {ends}.")
    if record.eps:
        samples = ", ".join(
            f"{number(eps, signed=True)}: {'not finite' if loss is None else number(loss)}"
            for eps, loss in zip(record.eps, record.losses, strict=True)
        )
        lines.append(f"Losses along the step, by eps in multiples of it: {samples}.")
        if record.eps_min is not None:
            sure = f" +- {number(record.eps_min_stderr)}" if record.eps_min_stderr is not None else ""
            lines.append(f"The parabola through them has its minimum at {number(record.eps_min, signed=True)}{sure}.")
    if record.drop_rate is not None:
        lines.append(f"The loss fell by {number(record.drop_rate)} a step before it.")
    return lines
