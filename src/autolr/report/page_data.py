"""What the page holds of its trainings: plain numbers and words, as its script (``page.js``) reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autolr.policies.wording import number
from autolr.report.findings import change_of, metric_finding, probe_finding, rate_finding, rates_of, search_finding
from autolr.report.search_data import bottoms_of, ends_of, interval, parabola, start_loss
from autolr.report.summary import DASH, NOT_FINITE, headline, table
from autolr.report.thinning import Curve, thinned
from autolr.report.training_record import Training, outcome
from autolr.report.words import printable
from autolr.runtime.decision_log import DecisionRecord

ENDS = 0.02, 0.1  # shares of a run at its two ends that do not make the rate's axis logarithmic: warm-up and decay
SPREAD = 20.0  # between the ends, what does
NARROW = 3.0  # a log axis over less than this ratio has hardly a tick to read it by
DIGITS = 5  # of a drawn number


def data_of(trainings: Sequence[Training]) -> dict[str, Any]:
    """All of it, ready for JSON; every text is harmless as text."""
    groups = list(dict.fromkeys(training.name for training in trainings))
    headings, rows = table(trainings)
    return {
        "runs": [_run(training, groups.index(training.name)) for training in trainings],
        "panels": list(_panels(trainings)),
        "summary": {"headings": headings, "rows": [[printable(cell) for cell in row] for row in rows]},
    }


def _run(training: Training, group: int) -> dict[str, Any]:
    keys = dict.fromkeys(["loss", "train_loss", *training.metrics])
    curves = {"lr": training.rates(), **{key: training.curve(key) for key in keys}}
    times = thinned(training.times)
    return {
        "name": printable(training.name),
        "group": group,
        "status": training.state,
        "headline": headline(training),
        "total": max(training.total_steps or 0, training.last_step, 1),
        "last": training.last_step,
        "curves": {key: _columns(thinned(curve)) for key, curve in curves.items() if curve},
        "times": _columns(times) if len(times) > 1 else None,
        "phases": _phases(training),
        "decisions": [_decision(record) for record in training.records],
        "searches": [_search(record.search) for record in training.records if record.search],
    }


def _columns(curve: Curve) -> list[list[float | None]]:
    return [[_short(x) for x, _ in curve], [_short(y) for _, y in curve]]


def _short(value: float | None) -> float | None:
    """Of as many digits as a drawing shows; a step as it is."""
    if value is None or isinstance(value, int):
        return value
    short = float(f"{value:.{DIGITS}g}") if abs(value) < 10**DIGITS else float(f"{value:.10g}")
    return int(short) if short.is_integer() and abs(short) < 2**53 else short


def _phases(training: Training) -> list[dict[str, Any]]:
    """(name, first step) of each. A decision's phase is taken to have lasted since the decision before."""
    phases: list[dict[str, Any]] = []
    before = 0
    for record in training.records:
        if not phases or phases[-1]["name"] != printable(record.phase):
            phases.append({"name": printable(record.phase), "from": before})
        before = record.step
    return phases


def _decision(record: DecisionRecord) -> dict[str, Any]:
    kind = outcome(record)
    return {
        "step": record.step,
        "phase": printable(record.phase),
        "kind": kind,
        "change": change_of(record),
        "rates": rates_of(record),
        "reason": printable(record.reason),
        "at": record.lr_before if kind == "rolled back" else record.lr_after,
        "loss": NOT_FINITE if record.loss is None else number(record.loss),
        "drop": _with_error(record.drop_rate, record.drop_rate_stderr),
        "minimum": _with_error(record.eps_min, record.eps_min_stderr),
        "probe": _probe(record) if record.eps else None,
    }


def _probe(record: DecisionRecord) -> dict[str, Any]:
    fit = [record.k0, record.k1, record.k2]
    return {
        "eps": record.eps, "losses": record.losses,
        "keptEps": record.validation_eps, "keptLosses": record.validation_losses,
        "fit": None if None in fit else fit, "minimum": record.eps_min,
        "change": record.lr_after / record.lr_before - 1 if record.lr_before else 0.0,
        "finding": probe_finding(record),
    }  # fmt: skip


def _search(search: Mapping[str, Any]) -> dict[str, Any]:
    bottoms = bottoms_of(search)
    lengths = [
        {
            "length": length,
            "ends": [[rate, loss] for rate, loss in ends],
            "parabola": [[_short(x), _short(y)] for x, y in parabola(search, length) or ()],
            "bottom": bottoms.get(length),
        }
        for length, ends in ends_of(search).items()
    ]
    low, high = interval(search)
    told = {"lr": float(search["lr"]), "low": low, "high": high}
    return {**told, "start": start_loss(search), "lengths": lengths, "finding": search_finding(search)}


def _with_error(value: float | None, error: float | None) -> str:
    if value is None:
        return DASH
    return number(value) if error is None else f"{number(value)} ± {number(error)}"


def _panels(trainings: Sequence[Training]) -> list[dict[str, Any]]:
    """The rate, the training loss, and each metric of an evaluation: titles, axes and findings."""
    keys = {key for training in trainings for point in training.points for key in point}
    panels = [{"keys": ["lr"], "title": "Learning rate", "finding": rate_finding(trainings), **_rate_axis(trainings)}]
    if loss := [key for key in ("loss", "train_loss") if key in keys]:
        finding = metric_finding(trainings, loss[-1], "loss")
        if any(training.curve("loss") and training.curve("train_loss") for training in trainings):
            finding += " Bold: means of epochs; thin: of the last steps."
        panels.append({"keys": loss, "title": "Training loss", "finding": finding})
    for key in dict.fromkeys(key for training in trainings for key in training.metrics):
        title = printable(key.replace("_", " "))
        panels.append({"keys": [key], "title": title[:1].upper() + title[1:],
                       "finding": metric_finding(trainings, key, title)})  # fmt: skip
    return [panels[0], *(panel | _metric_axis(panel["keys"], trainings) for panel in panels[1:])]


def _rate_axis(trainings: Sequence[Training]) -> dict[str, Any]:
    """Logarithmic where the rate moves far between warm-up and decay, which would stretch such an axis without end."""
    kept = []
    for training in trainings:
        start, end = ENDS[0] * training.last_step, (1 - ENDS[1]) * training.last_step
        kept += [lr for step, lr in training.rates() if lr and lr > 0 and start <= step <= end]
    log = bool(kept) and max(kept) > SPREAD * min(kept)
    return {"log": log, "least": min(kept) / 3 if log else 0, "percent": False}


def _metric_axis(keys: Sequence[str], trainings: Sequence[Training]) -> dict[str, Any]:
    """Logarithmic for losses that are positive and far enough apart; in % for an accuracy up to 1."""
    values = [v for t in trainings for key in keys for _, v in t.curve(key) if v is not None]
    positive = [v for v in values if v > 0]
    log = keys[-1].endswith(("loss", "perplexity")) and bool(positive) and max(positive) >= NARROW * min(positive)
    percent = keys[-1].endswith(("accuracy", "acc")) and max(values, default=2) <= 1
    return {"log": log, "least": None, "percent": percent}
