"""``autolr watch``: runs as they go, in the terminal."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autolr.policies.wording import number
from autolr.report.logged import training_of
from autolr.report.training_record import Training
from autolr.report.words import printable
from autolr.runtime.run_log import LoggedRun, RunReader

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

LAST = 3  # decisions that are shown
RECENT = 20  # signs of life that tell how fast a run is
SIZES = 32, 160, 8  # of a curve: fewest and most columns, rows


@dataclass
class Watched:
    """The runs of some logs, read anew when a log has changed.

    Args:
        paths: logs, or folders with logs in them.

    Raises:
        ValueError: one is not there. A folder may be empty: its runs may come.
    """

    paths: Sequence[Path]
    runs: dict[Path, LoggedRun] = field(default_factory=dict)
    troubles: dict[Path, str] = field(default_factory=dict)  # why a log could not be read
    _readers: dict[Path, RunReader] = field(default_factory=dict)
    _seen: dict[Path, tuple[int, int]] = field(default_factory=dict)  # size and time of a file when it was read

    def __post_init__(self) -> None:
        for path in self.paths:
            if not path.exists():
                raise ValueError(f"{path} does not exist. Name a decision log, or a folder that holds some.")

    def read(self) -> bool:
        """Whether anything has changed since the last call."""
        changed = False
        for log in self._logs():
            found = log.stat()
            if self._seen.get(log) == (found.st_size, found.st_mtime_ns):
                continue
            self._seen[log], changed = (found.st_size, found.st_mtime_ns), True
            try:
                run = self._readers.setdefault(log, RunReader(log)).read()
                self.troubles.pop(log, None)
                self.runs.pop(log, None)
                if run != LoggedRun():  # nothing is in it yet
                    self.runs[log] = run
            except (OSError, ValueError) as error:
                self.troubles[log] = str(error)
        return changed

    def _logs(self) -> Iterator[Path]:
        for path in self.paths:
            files = sorted(path.rglob("*.jsonl")) if path.is_dir() else [path]
            yield from (file for file in files if not path.is_dir() or _is_log(file))

    def statuses(self) -> dict[Path, str]:
        """Of each run."""
        return {log: run.status() for log, run in self.runs.items()}

    def settled(self) -> bool:
        """Whether there were runs, or logs that nobody can read, and none is running any more."""
        return bool(self.runs or self.troubles) and "running" not in self.statuses().values()

    def trainings(self) -> list[Training]:
        """As the report draws them."""
        return [training_of(name, run) for name, run in zip(_names(self.runs), self.runs.values(), strict=True)]


def _is_log(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(9) in {b'{"run": {', b'{"step": '}


def _names(logs: Sequence[Path] | dict[Path, Any]) -> list[str]:
    """The last part of a path, or all of it where two would be the same."""
    stems = [log.stem for log in logs]
    return [printable(stem if stems.count(stem) == 1 else str(log)) for stem, log in zip(stems, logs, strict=True)]


def time_left(run: LoggedRun) -> float | None:
    """[s] that the rest of the run takes at its recent speed; None where nothing tells."""
    beats = run.beats[-RECENT:]
    if run.total_steps is None or len(beats) < 2 or run.status() != "running":
        return None
    steps, seconds = beats[-1].step - beats[0].step, beats[-1].time - beats[0].time
    if steps <= 0 or seconds <= 0:
        return None
    since = max(0.0, time.time() - beats[-1].time)
    return max(0.0, (run.total_steps - run.steps) * seconds / steps - since)


def state_of(name: str, run: LoggedRun) -> dict[str, Any]:
    """What is shown of a run, as plain values."""
    rates = run.rates()
    return {
        "name": name, "status": run.status(), "step": run.steps, "total_steps": run.total_steps,
        "phase": run.records[-1].phase if run.records else "search" if run.beats == () else None,
        "lr": rates[-1][1] if rates else None, "seconds_left": time_left(run),
        "last": [printable(str(record)) for record in run.records[-LAST:]],
    }  # fmt: skip


def watch(watched: Watched, console: Console, every: float) -> bool:
    """Show the runs until none is running any more; whether all logs could be read, and their runs came to their end.

    Ctrl-C ends the view; the runs go on.
    """
    from rich.live import Live

    try:
        with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
            while True:
                watched.read()
                live.update(shown(watched, console.width), refresh=True)
                if watched.settled():
                    break
                time.sleep(every)
    except KeyboardInterrupt:
        return True
    console.print()
    return not watched.troubles and all(status == "finished" for status in watched.statuses().values())


def print_state(watched: Watched) -> None:
    """Once, as JSON."""
    watched.read()
    print(
        json.dumps([state_of(name, run) for name, run in zip(_names(watched.runs), watched.runs.values(), strict=True)])
    )


def shown(watched: Watched, width: int) -> RenderableType:
    """A table of the runs; of a single one its curves and last decisions too."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(expand=False)
    for heading in ("run", "status", "step", "phase", "rate", "time left"):
        table.add_column(heading, overflow="fold")
    states = _states(watched)
    if not states and not watched.troubles:
        return Text("Nothing is there yet. Waiting for the log of a run: AutoLR(..., trace=FILE) writes one.")
    for state in states:
        table.add_row(*map(Text, _row(state)))
    parts: list[RenderableType] = [table]
    if len(states) == 1:
        (training,) = watched.trainings()
        parts += [Text.from_ansi(drawn) for drawn in _curves(training, width)]
        parts += [Text(f"- {told}") for told in states[0]["last"]]
    parts += [Text(f"{printable(str(log))}: {printable(why)}", style="red") for log, why in watched.troubles.items()]
    return Group(*parts)


def _states(watched: Watched) -> list[dict[str, Any]]:
    return [state_of(name, run) for name, run in zip(_names(watched.runs), watched.runs.values(), strict=True)]


def _row(state: dict[str, Any]) -> list[str]:
    of = "" if state["total_steps"] is None else f" of {state['total_steps']:,}"
    lr = "" if state["lr"] is None else number(state["lr"])
    return [
        state["name"], state["status"], f"{state['step']:,}{of}", state["phase"] or "", lr,
        "" if state["seconds_left"] is None else duration(state["seconds_left"]),
    ]  # fmt: skip


def duration(seconds: float) -> str:
    """In the two largest units.

    Example:
        >>> duration(42), duration(3725), duration(200_000)
        ('42 s', '1 h 2 min', '2 d 7 h')
    """
    whole = math.ceil(seconds)
    units = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")]
    parts = []
    for size, unit in units:
        count, whole = divmod(whole, size)
        parts.append(f"{count} {unit}" if count else "")
    first = next((i for i, part in enumerate(parts) if part), len(parts) - 1)
    return " ".join(part for part in parts[first : first + 2] if part) or "0 s"


def _curves(training: Training, width: int) -> Iterator[str]:
    """The rate, and each loss and metric that is there, as text."""
    import plotext  # type: ignore[import-untyped]

    fewest, most, rows = SIZES
    curves = {"learning rate": training.rates(), "loss": training.curve("loss")}
    curves["loss of checks"] = [(r.step, r.loss) for r in training.records] if not curves["loss"] else []
    curves |= {name.replace("_", " "): training.curve(name) for name in training.metrics}
    for title, points in curves.items():
        known = [(step, value) for step, value in points if value is not None and math.isfinite(value)]
        if not known:
            continue
        plotext.clear_figure()
        plotext.plotsize(min(max(fewest, width - 1), most), rows)
        plotext.theme("clear")
        plotext.plot([step for step, _ in known], [value for _, value in known], marker="braille")
        plotext.title(title)
        yield plotext.build()
