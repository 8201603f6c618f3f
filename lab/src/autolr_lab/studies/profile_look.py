"""Where the time of a look goes, part by part, in forward passes of the same network; and whether vmap would be faster.

``python benchmarks/profile_look.py --data-dir DIR``. Training with a look along every step (one minibatch, 3 samples),
each part of the look under a stopwatch; a part's time is what is not spent in another part inside it. A forward pass of
the network is timed beside it, without gradients and outside of looks, in the same process. Medians over steps, of CPU
time, on one thread: a busy machine moves them little.

The second table asks whether the 3 samples are faster as one pass of ``torch.func.functional_call`` under ``vmap`` over
three stacked copies of the parameters. (It would need these copies, run no hooks and refuse whatever writes in place.)
"""

from __future__ import annotations

import contextlib
import itertools
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import torch
import typer
from torch.func import functional_call, stack_module_state, vmap

from autolr import AutoLR, Monitor, probe, snapshot, superbatch
from autolr.measure.forward_state import ForwardState
from autolr.measure.step_line import Line
from autolr.measure.snapshot import Snapshot
from autolr.measure.superbatch import Superbatches
from autolr.runtime.window_state import OpenLook
from autolr_lab.studies.networks import GROUNDS, Ground
from autolr_lab.studies.record import markdown, new_record, write_record

STEPS = {"Fashion-MNIST CNN, batch 64": 80, "CIFAR-10 ResNet-18, batch 32": 6, "Shakespeare GPT, batch 16": 24}
FEWEST = 3  # steps that only warm up
SAMPLES = 3
VMAPPED = ("Fashion-MNIST CNN, batch 64", "Shakespeare GPT, batch 16")  # small: where a forward's overhead could show
FORWARD, LINE, GENERATORS, STATE = "forward passes", "moving the parameters", "generators", "buffers, plain state"
DRAWING, DECISION, REST = "drawing the minibatch", "fit and decision", "everything else"
PARTS = (FORWARD, LINE, GENERATORS, STATE, DRAWING, DECISION, REST)


class Stopwatch:
    """Seconds by part; time inside a part that belongs to an inner one is the inner one's alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = 0.0

    def _turn(self) -> None:
        now = time.process_time()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now

    @contextlib.contextmanager
    def on(self, part: str) -> Iterator[None]:
        """The part that the time inside belongs to."""
        self._turn()
        self._open.append(part)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time counted."""

        def call(*args: Any, **kwargs: Any) -> Any:
            with self.on(part):
                return function(*args, **kwargs)

        return call

    def each_next(self, part: str, function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        """The generator function, the time inside it counted."""

        def call(*args: Any, **kwargs: Any) -> Iterator[Any]:
            items = function(*args, **kwargs)
            while True:
                with self.on(part):
                    item = next(items, _END)
                if item is _END:
                    return
                yield item

        return call

    def both_ends(self, part: str, manager: Callable[..., Any]) -> Callable[..., Any]:
        """The context manager, the time of its entry and exit counted, and not what goes on inside."""

        @contextlib.contextmanager
        def call(*args: Any, **kwargs: Any) -> Iterator[Any]:
            with contextlib.ExitStack() as stack:
                inner = manager(*args, **kwargs)
                with self.on(part):
                    value = inner.__enter__()
                stack.push(self.timed(part, inner.__exit__))
                yield value

        return call


_END = object()


@contextlib.contextmanager
def stopped(watch: Stopwatch) -> Iterator[None]:
    """Every part of a look under the stopwatch."""
    methods: list[tuple[Any, str, str]] = [
        *((Line, name, LINE) for name in ("__init__", "to", "back", "moved")),
        *((ForwardState, name, STATE) for name in ("__init__", "restore", "restore_parameters", "missed")),
        *((module, "seed_all", GENERATORS) for module in (probe, superbatch)),
        *((OpenLook, name, DECISION) for name in ("add", "settle", "seen")),
        (AutoLR, "_decide", DECISION), (AutoLR, "_end_window", DECISION), (AutoLR, "_glance", REST),
    ]  # fmt: skip
    with contextlib.ExitStack() as stack:
        for owner, name, part in methods:
            stack.enter_context(mock.patch.object(owner, name, watch.timed(part, getattr(owner, name))))
        draw = watch.each_next(DRAWING, Superbatches.draw)
        stack.enter_context(mock.patch.object(Superbatches, "draw", draw))
        undisturbed = watch.both_ends(GENERATORS, snapshot.undisturbed)
        stack.enter_context(mock.patch.object(probe, "undisturbed", undisturbed))
        yield


def profile(name: str, data_dir: Path) -> Iterator[dict[str, Any]]:
    """A row for each step: seconds of each part of its look, and of a forward pass, a step and a snapshot beside it."""
    ground = GROUNDS[name](data_dir)
    watch = Stopwatch()
    loss = watch.timed(FORWARD, ground.loss)
    optimizer = AutoLR(
        ground.optimizer, ground.model, loss, ground.batches, 10**6,
        policy=Monitor.adaptive(0.99), window=1, overhead=math.inf,
    )  # fmt: skip
    stream = itertools.chain.from_iterable(itertools.repeat(ground.batches))
    with stopped(watch):
        for step, batch in enumerate(itertools.islice(stream, STEPS[name] + FEWEST)):
            plain = forward(ground, batch)
            optimizer.zero_grad()
            ground.loss(ground.model, batch).backward()  # type: ignore[no-untyped-call]
            watch.seconds.clear()
            looks, checks = optimizer.cost.looks, optimizer.cost.drop_rate
            optimizer.step()
            if step >= FEWEST and optimizer.cost.looks == looks + SAMPLES:
                captured = seconds_of(lambda: Snapshot.capture(ground.model, ground.optimizer))
                parts = {part: watch.seconds[part] for part in PARTS}
                yield {"alone": checks == optimizer.cost.drop_rate, "forward": plain, "snapshot": captured, **parts}


@torch.no_grad()
def forward(ground: Ground, batch: Any) -> float:
    """Seconds of a bare forward pass, the model's state put back."""
    buffers = {k: v.clone() for k, v in ground.model.named_buffers()}
    taken = seconds_of(lambda: ground.loss(ground.model, batch))
    for key, buffer in ground.model.named_buffers():
        buffer.copy_(buffers[key])
    return taken


def seconds_of(function: Callable[[], Any]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    function()
    return time.process_time() - start


@torch.no_grad()
def vmapped(name: str, data_dir: Path, times: int = 12) -> Iterator[dict[str, Any]]:
    """Rows: seconds of three forward passes at three points, one by one and as one pass over stacked parameters."""
    ground = GROUNDS[name](data_dir)
    batch = next(iter(ground.batches))
    points, buffers = stack_module_state([ground.model] * SAMPLES)
    own = dict(ground.model.named_parameters())

    def at(parameters: Any, buffers: Any) -> Any:
        return ground.loss(At(ground.model, parameters, buffers), batch)  # type: ignore[arg-type]

    def one_by_one() -> list[Any]:
        return [ground.loss(ground.model, batch) for _ in range(SAMPLES)]

    def at_once() -> Any:
        return vmap(at, randomness="same")(points, buffers)

    apart = max(float((a - b).abs()) for a, b in zip(one_by_one(), at_once(), strict=True))
    for _ in range(times):
        row = {"one by one": seconds_of(one_by_one), "at once": seconds_of(at_once), "apart": apart}
        yield row | {"copies": SAMPLES * sum(p.nbytes for p in own.values())}


class At:
    """A model at another point than its own."""

    def __init__(self, model: Any, parameters: Any, buffers: Any) -> None:
        self._model, self._state = model, (parameters, buffers)
        self.parameters = model.parameters  # a loss asks on which device they are

    def __call__(self, inputs: Any) -> Any:
        """The model's output there."""
        return functional_call(self._model, self._state, (inputs,), tie_weights=True)


def main(
    data_dir: Annotated[Path, typer.Option(envvar="AUTOLR_DATA")],
    threads: int = 1,
    only: Annotated[str, typer.Option(help="A part of a network's name.")] = "",
) -> None:
    """Measure, print the tables, and write a record."""
    torch.set_num_threads(threads)
    rows: list[dict[str, Any]] = []
    for name in GROUNDS:
        if only in name:
            rows += [{"ground": name, "kind": "look", **row} for row in profile(name, data_dir)]
            if name in VMAPPED:
                rows += [{"ground": name, "kind": "vmap", **row} for row in vmapped(name, data_dir)]
    tables = look_table(rows) + "\n" + vmap_table(rows)
    path = new_record("profile-look")
    write_record(path, {"threads": threads, "steps": STEPS, "samples": SAMPLES}, rows, tables)
    print(tables, f"\nRecord: {path}")


def median_of(rows: list[dict[str, Any]], value: Callable[[dict[str, Any]], float]) -> float:
    """Over the rows."""
    return statistics.median(map(value, rows))


def of_kind(rows: list[dict[str, Any]], kind: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of one kind, by network."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["kind"] == kind:
            found[row["ground"]].append(row)
    return found


def look_table(rows: list[dict[str, Any]]) -> str:
    """Per forward equivalent of a look: each part in forward passes of the same step.

    Steps at which a window begins or ends are left out, but for the decision: it comes with some of them, and what it
    takes is spread over all steps.
    """
    lines = []
    for name, every in of_kind(rows, "look").items():
        some = [row for row in every if row["alone"]]
        decision = statistics.fmean(row[DECISION] for row in every)
        decision /= SAMPLES * median_of(some, lambda row: row["forward"])
        parts = [median_of(some, lambda row, part=part: row[part] / row["forward"] / SAMPLES) for part in PARTS]  # type: ignore[misc]
        parts[PARTS.index(DECISION)] = decision
        lines.append([
            name, f"{1000 * median_of(some, lambda row: row['forward']):.1f} ms", *(f"{part:.3f}" for part in parts),
            f"{sum(parts):.3f}", f"{median_of(some, lambda row: row['snapshot'] / row['forward']):.3f}",
        ])  # fmt: skip
    return markdown(["network", "forward pass", *PARTS, "together", "a snapshot"], lines)


def vmap_table(rows: list[dict[str, Any]]) -> str:
    """Three samples one by one beside three at once."""
    lines = [
        [
            name, f"{1000 * median_of(some, lambda row: row['one by one']):.1f} ms",
            f"{1000 * median_of(some, lambda row: row['at once']):.1f} ms",
            f"{median_of(some, lambda row: row['at once'] / row['one by one']):.2f}",
            f"{some[0]['copies'] / 2**20:.1f} MiB", f"{some[0]['apart']:.1e}",
        ]
        for name, some in of_kind(rows, "vmap").items()
    ]  # fmt: skip
    head = ["network", "3 forward passes", "vmap over 3 points", "ratio", "copies of parameters", "losses apart by"]
    return markdown(head, lines)


if __name__ == "__main__":
    typer.run(main)
