"""Decisions, searches and points for the tests of the report, as a training would have left them."""

import json

from autolr.runtime.decision_log import DecisionRecord

HOSTILE = "[/]\x1b[31m$x_{<b>&\udcff"


def a_record(step=10, lr=0.1, to=None, **other):
    fields = {
        "phase": "explore", "verdict": "keep", "trigger": "no change", "reason": f"because of step {step}",
        "loss": 0.6, "drop_rate": 0.01, "drop_rate_stderr": 0.002, "forwards": 7, "spent": 30, "seconds": 1.5,
    }  # fmt: skip
    return DecisionRecord(step=step, lr_before=lr, lr_after=lr if to is None else to, **fields | other)


def a_probe(step=10, lr=0.1, eps_min=0.2, **other):
    """A probe of a parabola of bend 3 with its bottom of 0.5 at ``eps_min``; or, for None, of an arch."""
    k2 = -3.0 if eps_min is None else 3.0
    k0, k1 = 0.5 + k2 * (eps_min or 0) ** 2, -2 * k2 * (eps_min or 0)
    eps = (-0.5, -0.25, 0.0, 0.25, 0.5)
    fitted = {
        "eps": eps, "losses": tuple(k0 + k1 * e + k2 * e**2 for e in eps), "k0": k0, "k1": k1, "k2": k2,
        "eps_min": eps_min, "eps_min_stderr": 0.1, "validation_eps": (-0.75, 0.75), "validation_losses": (0.7, 0.8),
        "observations": 4,
    }  # fmt: skip
    return a_record(step, lr, **fitted | other)


def a_search(**other):
    runs = [
        {"length": 10, "lr": 0.001, "losses": [1.9, 2.1]},
        {"length": 10, "lr": 0.004, "losses": [1.4, 1.6]},
        {"length": 10, "lr": 0.016, "losses": [1.7, 1.9]},
        {"length": 10, "lr": 1.0, "losses": []},
        {"length": 40, "lr": 0.002, "losses": [1.0, 1.2]},
        {"length": 40, "lr": 0.008, "losses": [700.0, 900.0]},
    ]
    peak = {"lr": 0.003, "low": 0.002, "high": 0.005, "total_steps": 1000, "runs": runs, "start_losses": [2.2, 2.4]}
    return peak | other


def a_found_peak(**other):
    found = {"phase": "search", "verdict": "lower", "trigger": "peak found", "spent": 183, "search": a_search()}
    return a_record(0, 0.1, to=0.003, **found | other)


def some_points(steps=(20, 40, 60), lr=0.1):
    fine = [{"step": step - 10, "lr": lr, "loss": 3.0 / step} for step in steps]
    return fine + [{"step": s, "train_loss": 2.0 / s, "test_loss": 4.0 / s, "test_accuracy": 0.9} for s in steps]


def write_lines(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        "".join((row.to_json() if isinstance(row, DecisionRecord) else json.dumps(row)) + "\n" for row in rows)
    )
    return file
