"""Files as a disk, a kill or somebody else may leave them, and everything that reads them."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

import autolr
from autolr.cli.app import app
from autolr.cli.watch import state_of
from autolr.report.explain import explain_run, explain_step
from autolr.report.logged import training_of
from autolr.report.reading import read_trainings
from autolr.runtime.replayed_rates import logged_rates
from report_inputs import a_found_peak, a_probe, a_record, a_search

DOCUMENTED = (ValueError, TypeError, OSError)  # of every reader

HOSTILE: list[Any] = [
    None, True, 0, -1, 1, 0.5, -0.5, 10**400, -(10**30), 2**63, 1e308, 5e-324, float("nan"), float("inf"),
    -float("inf"), "", "x", "[/]\x1b[31m$x_{<b>&", "\udcff", "\x00", "<script>alert(1)</script>", "1e5", [], {}, [[]],
    [None], [0.1], {"": {}}, ["x"] * 5, [[0.1, 10**12]], {"step": 3}, [{"length": 3}],
]  # fmt: skip


def a_run_log() -> list[Any]:
    """The lines of a whole log."""
    about = {"optimizer": "SGD", "policy": "PeakSearch()", "seed": 0, "total_steps": 60}
    found = json.loads(a_found_peak(search=a_search()).to_json())
    records = [json.loads(record.to_json()) for record in (a_probe(20), a_record(40, 0.1, to=0.05))]
    beats = [
        {"beat": step, "time": 1.7e9 + step, "rates": [[0.1, 12], [0.05, 8]], "loss": 1.5} for step in (20, 40, 60)
    ]
    run = {"run": {**about, "host": "here", "pid": 1, "time": 1.7e9}}
    return [run, found, beats[0], records[0], {"point": {"step": 20, "val_loss": 0.3}}, beats[1], records[1], beats[2]]


def a_decision_log() -> list[Any]:
    return [json.loads(r.to_json()) for r in (a_found_peak(search=a_search()), a_probe(20), a_record(40, to=0.05))]


def some_points() -> list[Any]:
    return [{"step": 10, "lr": 0.1, "loss": 0.4}, {"step": 20, "train_loss": 0.3, "test_accuracy": 0.9}]


def a_peak() -> list[Any]:
    runs = [{**run, "cost": 3.0} for run in a_search()["runs"]]
    bottoms = [{"length": 10, "place": 1.0, "stderr": 0.2, "share": 0.4}]
    more = {"bottoms": bottoms, "cost": 9.0, "share": 0.1, "seconds": 1.0, "given": 0.1, "fallback": None, "notes": []}
    return [{"format": 1, **a_search(runs=runs), **more}]


def as_text(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value in nested containers."""
    found = [path]
    if isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            found += places(inner, (*path, key))
    return found


def altered(rows: list[Any], dice: random.Random) -> list[Any]:
    """One value replaced, removed, or put where it does not belong."""
    rows = copy.deepcopy(rows)
    path = dice.choice([p for p in places(rows) if p])
    holder = rows
    for key in path[:-1]:
        holder = holder[key]
    kind = dice.randrange(4)
    if kind == 0:
        del holder[path[-1]]
    elif kind == 1 and isinstance(holder, list):
        holder.insert(path[-1], copy.deepcopy(dice.choice(HOSTILE)))
    elif kind == 2 and isinstance(holder, dict):
        holder[dice.choice(["", "x", "beat", "run", "point", "step", "search"])] = copy.deepcopy(dice.choice(HOSTILE))
    else:
        holder[path[-1]] = copy.deepcopy(dice.choice(HOSTILE))
    return rows


def damaged(rows: list[Any], dice: random.Random) -> bytes:
    """A file's bytes, damaged in one of the ways there are."""
    if dice.random() < 0.6:
        for _ in range(dice.choice([1, 1, 2, 5])):
            rows = altered(rows, dice) if rows else rows
        return as_text(rows)
    content = bytearray(as_text(rows))
    kind = dice.randrange(6)
    if kind == 0:  # bits flipped
        for _ in range(dice.choice([1, 1, 3, 20])):
            content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    elif kind == 1:  # cut off
        del content[dice.randrange(len(content)) :]
    elif kind == 2:  # a block of another file
        at = dice.randrange(len(content))
        content[at : at + dice.randrange(64)] = dice.randbytes(dice.randrange(64))
    elif kind == 3:  # zeros, as a crash leaves them
        at = dice.randrange(len(content))
        content[at : at + 40] = bytes(40)
    elif kind == 4:  # lines in another order, some twice
        lines = bytes(content).splitlines(keepends=True)
        content = bytearray(b"".join(dice.choices(lines, k=dice.randrange(1, 12))))
    else:
        at = dice.randrange(len(content))
        content[at:at] = dice.choice([b"[" * 100_000, b"9" * 5000, b"\xff\xfe", b"\r\n", b"NaN", b"\\ud800"])
    return bytes(content)


def read_as_run(path: Path) -> None:
    """All that is made of a log."""
    run = autolr.read_run(path)
    run.rates(), run.status(), repr(run)
    shown = [*explain_run(run, training_of("it", run)), json.dumps(state_of("it", run))]
    if run.steps:
        shown += explain_step(run, min(run.steps, 7))
    check_shown("\n".join(shown))


def read_as_log(path: Path) -> None:
    for record in autolr.read_log(path):
        str(record), record.to_json()


def read_as_trainings(path: Path) -> None:
    for training in read_trainings([path]):
        training.rates(), training.final, training.metrics, training.last_step


def read_beside(path: Path) -> None:
    """The folder, as points are read."""
    for training in read_trainings([path.parent]):
        training.rates(), training.final, training.metrics, training.last_step


def read_as_peak(path: Path) -> None:
    peak = autolr.Peak.from_json(path.read_text(encoding="utf8", errors="surrogateescape"))
    str(peak), peak._repr_html_(), peak.to_json()


def read_rates(path: Path) -> None:
    logged_rates(path)


READERS: dict[str, tuple[Callable[[], list[Any]], Callable[[Path], None]]] = {
    "read_run, explain, watch": (a_run_log, read_as_run),
    "read_log": (a_decision_log, read_as_log),
    "read_trainings, log": (a_decision_log, read_as_trainings),
    "read_trainings, run log": (a_run_log, read_as_trainings),
    "read_trainings, points": (some_points, read_beside),
    "Replay's rates": (a_run_log, read_rates),
    "Peak.from_json": (a_peak, read_as_peak),
}


def check_shown(text: str) -> None:
    """Nothing that a terminal would obey, and nothing that cannot be printed."""
    text.encode()
    assert not any(ord(c) < 32 and c not in "\n\t" for c in text), "a control code is shown as it is"


COMMANDS: list[tuple[str, list[str]]] = [
    ("explain", []), ("explain", ["--step", "3"]), ("explain", ["--json"]), ("replay", []), ("replay", ["--json"]),
    ("replay", ["--total-steps", "7"]), ("watch", ["--json"]),
]  # fmt: skip


def command(arguments: list[str]) -> None:
    """Run a command in this process: it ends with 0, 1 or 2, and what it says can be shown."""
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise AssertionError(f"{arguments}: {result.exception!r}") from result.exception
    assert result.exit_code in {0, 1, 2}, arguments
    check_shown(result.output)


def quietly(call: Callable[[], Any]) -> str:
    """What a call raised that is documented, by its kind; all else is raised."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            call()
    except DOCUMENTED as error:
        return type(error).__name__ if str(error) else "without a word"
    return "read"
