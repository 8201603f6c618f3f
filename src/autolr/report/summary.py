"""What a training came to, in one sentence and in one row of a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from autolr.policies.wording import number
from autolr.report.training_record import Training, outcome, probes_of, tells_peak
from autolr.report.words import counted

DASH = "–"  # noqa: RUF001 - an empty cell
NOT_FINITE = "not finite"
CHANGES = {"raised": "rise", "lowered": "cut", "rolled back": "rollback"}


def headline(training: Training) -> str:
    """The finding first: which rate, found how, at what cost, and what happened since."""
    records = training.records
    at = next((i for i, record in enumerate(records) if record.search), None)
    outcomes = Counter(map(outcome, records if at is None else records[at + 1 :]))
    changes = [counted(outcomes[kind], noun) for kind, noun in CHANGES.items() if outcomes[kind]]
    if at is None:
        if not records and not _schedule(training):
            return "No decision is logged: AutoLR has not decided yet, or did not tune this training."
        probed = counted(len(probes_of(records)), "probe")
        done = [probed, *changes] if changes else [probed, "no change"] if records else ["no decision is logged"]
        return f"{_moved(training)}: {', '.join(done)}{f'; {_cost(training)}' if records else ''}."
    search = records[at].search or {}
    runs = counted(len(search["runs"]), "short run")
    if outcome(records[at]) == "peak found" and search["high"] is not None:
        found = f"Peak {number(search['lr'])} ({number(search['low'])} to {number(search['high'])}) found in {runs}"
    elif search["lr"] == records[at].lr_before:
        why = f"No rate gained anything in {runs}" if search["runs"] else "The budget pays for no short run"
        found = f"{why}, so the run keeps its own, {number(search['lr'])}"
    else:
        found = f"The peak {number(search['lr'])} is a guess, as too little was gained in {runs}"
    return f"{found}, {_price(training, records[at].spent)}; since then {', '.join(changes) or 'no change'}."


def _schedule(training: Training) -> list[float]:
    """The rates that were taken, where they moved and no decision was a jump of them; else empty."""
    jumped = any(record.lr_after != record.lr_before and not tells_peak(record) for record in training.records)
    rates = [rate for _, rate in training.curve("lr") if rate is not None]
    return rates if not jumped and rates and min(rates) < max(rates) else []


def _moved(training: Training) -> str:
    if rates := _schedule(training):
        return f"The learning rate follows a schedule up to {number(max(rates))}, at last {number(rates[-1])}"
    first, last = training.records[0].lr_before, training.records[-1].lr_after
    if any(outcome(record) in CHANGES for record in training.records):
        return f"The learning rate went from {number(first)} to {number(last)}"
    return f"The learning rate stayed at {number(first)}"


def overall(trainings: Sequence[Training]) -> str:
    """Several trainings in a sentence or two: how they stand, and which peaks were found."""
    states = Counter(training.state for training in trainings if training.state)
    told = ", ".join(f"{count:,} {state}" for state, count in states.items())
    tuned = sum(bool(training.records) for training in trainings)
    parts = [f"{counted(len(trainings), 'run')}{f': {told}' if told else ''}."]
    searches = [r.search for t in trainings for r in t.records if r.search and outcome(r) == "peak found"]
    if peaks := sorted(search["lr"] for search in searches):
        between = number(peaks[0]) if peaks[0] == peaks[-1] else f"from {number(peaks[0])} to {number(peaks[-1])}"
        parts.append(f"{counted(len(peaks), 'peak')} found, {between}.")
    if tuned < len(trainings):
        parts.append(f"AutoLR decided in {tuned:,} of them.")
    return " ".join(parts)


def _cost(training: Training) -> str:
    return f"AutoLR cost {_price(training, training.records[-1].spent)}"


def _price(training: Training, spent: int) -> str:
    """A share of the run where its length is known."""
    share = training.share(spent)
    return f"{spent:,} forward passes" if share is None else f"{100 * share:.2g} % of the run's own cost"


def table(trainings: Sequence[Training]) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row for each training: what it came to and what AutoLR did and spent."""
    losses = [key for key in ("loss", "train_loss") if any(key in training.final for training in trainings)]
    metrics = [*losses[-1:], *dict.fromkeys(key for training in trainings for key in training.metrics)]
    named = [{"loss": "train loss"}.get(key, key.replace("_", " ")) for key in metrics]
    headings = [
        "run",
        "status",
        "steps",
        *named,
        "probes",
        "changes",
        "rollbacks",
        "forward passes",
        "share",
        "seconds",
    ]
    return headings, [_row(training, metrics) for training in trainings]


def _row(training: Training, metrics: Sequence[str]) -> list[str]:
    done, planned = training.last_step, training.total_steps
    steps = f"{done:,}" if planned is None or done >= planned or training.result else f"{done:,} of {planned:,}"
    finals = [_final(training, key) for key in metrics]
    if not training.records:
        return [training.name, training.state or DASH, steps, *finals, *[DASH] * 6]
    kinds, last = Counter(map(outcome, training.records)), training.records[-1]
    share = training.share(last.spent)
    return [
        training.name, training.state or DASH, steps, *finals, str(len(probes_of(training.records))),
        str(kinds["peak found"] + kinds["raised"] + kinds["lowered"]), str(kinds["rolled back"]), f"{last.spent:,}",
        DASH if share is None else f"{100 * share:.2f} %", f"{last.seconds:,.1f}",
    ]  # fmt: skip


def _final(training: Training, key: str) -> str:
    if key not in training.final:
        return DASH
    value = training.final[key]
    if value is None:
        return NOT_FINITE
    return f"{100 * value:.2f} %" if "accuracy" in key and value <= 1 else f"{value:.4g}"
