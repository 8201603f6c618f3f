"""What the paper's tables take at full scale: runs, steps, arithmetic, and hours on eight GPUs.

Counted are the operations of a training step (three forward passes) of each of the paper's networks, with minibatches
of its size and no data; timed is the same step on the machine at hand, where it has a GPU at the paper's minibatch, and
on a CPU on a few examples; and how many of ImageNet's images a core decodes, which decides how many cores a GPU needs::

    python -m autolr_lab.studies.run_book --device cuda --precision bfloat16

on the GPU that is to do it tells its hours by its own throughput.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from autolr.numerics.cost import FORWARDS_PER_STEP
from autolr_lab.cli.choices import Device, Precision
from autolr_lab.paper.paper import FIND_PEAK, LITERAL, OURS, TABLE_3, TABLE_4, TABLE_5, TABLE_6, TABLE_8, TABLE_9
from autolr_lab.paper.tables import ResultTable
from autolr_lab.runner.experiment import RunSpec
from autolr_lab.runner.markdown import markdown_table
from autolr_lab.runner.results import Row
from autolr_lab.studies.study import Study
from autolr_lab.training.prepared import resolve_device
from autolr_lab.workloads import WORKLOADS
from autolr_lab.workloads.imagenet import random_view
from autolr_lab.workloads.workload import Batch, data_root

METHODS = ("baseline", LITERAL.label, OURS.label, FIND_PEAK.label)
PAPERS_OPTIMIZERS = ("sgd", "momentum", "adam", "adamw")
# Typical, of training's forward equivalents, for the paper's windows: docs/results.md.
SHARES = {LITERAL.label: 0.30, OURS.label: 0.20, FIND_PEAK.label: 0.10}
GPUS = 8
SUSTAINED = (20.0, 60.0)  # [TFLOP/s] of one GPU, assumed: low, and what ResNet-50 comes to on a good one in bfloat16
LEAST_STEP = 0.003  # [s] assumed: below it a GPU waits for the host
PRICE = 2.0  # [USD] of a GPU for an hour, assumed
STEPS = 5  # timed
LONGEST_OF_16, PAIR = 308, 28  # [tokens]


@dataclass(frozen=True)
class Full:
    """A workload at the paper's size, without its data."""

    table: ResultTable
    steps: int  # an epoch, of the published training set
    minibatch: Callable[[int], Batch]  # of so many examples
    examples: int  # of the paper's minibatch
    few: int  # that a CPU is timed on


def _images(channels: int, side: int, classes: int) -> Callable[[int], Batch]:
    return lambda n: (torch.randn(n, channels, side, side), torch.randint(classes, (n,)))


def _windows(n: int) -> Batch:
    """As long as the longest of sixteen of SQuAD's is in the mean: a minibatch is padded to it."""
    tokens = torch.randint(1000, 30_000, (n, LONGEST_OF_16))
    ones = torch.ones_like(tokens)
    return tokens, ones, ones, torch.randint(LONGEST_OF_16, (n,)), torch.randint(LONGEST_OF_16, (n,))


def _sentences(n: int) -> Batch:
    """Pairs of about IWSLT's mean length a side, of which 4,096 tokens make a minibatch."""
    return torch.randint(4, 8000, (n, PAIR)), torch.randint(4, 8000, (n, PAIR + 1))


FULL = {
    "mnist": Full(TABLE_8, 938, _images(1, 28, 10), 64, 64),
    "fashion-mnist": Full(TABLE_9, 938, _images(1, 28, 10), 64, 64),
    "cifar10": Full(TABLE_4, 391, _images(3, 32, 10), 128, 16),
    "imagenet": Full(TABLE_3, 5005, _images(3, 224, 1000), 256, 4),
    "squad": Full(TABLE_5, 5538, _windows, 16, 2),  # 88,600 windows: workloads.squad
    "iwslt14": Full(TABLE_6, 1100, _sentences, 4096 // PAIR, 16),  # 160,000 pairs, 146 a minibatch
}


def measure(data_dir: Path | None) -> Iterator[Row]:
    """On one CPU core."""
    return timed(data_dir, torch.device("cpu"), "float32")


def timed(data_dir: Path | None, device: torch.device, precision: str) -> Iterator[Row]:
    """Operations and seconds of a step of each workload; then images that a core decodes in a second."""
    for name, full in FULL.items():
        examples = full.examples if device.type == "cuda" else full.few
        flops, seconds = _step(name, full, examples, device, precision)
        yield {
            "workload": name, "flops": flops * full.examples / examples, "seconds": seconds * full.examples / examples,
            "examples": examples, "device": _called(device), "precision": precision,
        }  # fmt: skip
    decoded = images_a_second(data_root(data_dir) / "imagenet-samples")
    if decoded is not None:
        yield {"workload": "imagenet", "images_a_second": decoded}


def _called(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "one CPU core"


def _step(name: str, full: Full, examples: int, device: torch.device, precision: str) -> tuple[float, float]:
    """Floating-point operations, two a multiplication, and median seconds of a training step."""
    workload = WORKLOADS[name]
    torch.manual_seed(0)
    # ImageNet's network asks its data for the number of classes.
    made = workload.model(classes=1000) if name == "imagenet" else workload.model()  # type: ignore[call-arg]
    model, batch = made.to(device), tuple(part.to(device) for part in full.minibatch(examples))
    optimizer = torch.optim.SGD(model.parameters(), 1e-6, momentum=0.9)

    def loss() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            return workload.loss(model, batch)

    # One attention that is counted on every device: the CPU's own kernel counts for nothing.
    with FlopCounterMode(display=False) as counted, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        loss()
    seconds = []
    for _ in range(1 + STEPS):  # the first one allocates
        begun = time.perf_counter()
        optimizer.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - begun)
    return FORWARDS_PER_STEP * float(counted.get_total_flops()), statistics.median(seconds[1:])


def images_a_second(folder: Path) -> float | None:
    """Images of ImageNet that one core reads, decodes and makes a training view of; None where there are none."""
    from PIL import Image

    files = sorted(folder.glob("*.JPEG"))
    if not files:
        return None
    begun = time.perf_counter()
    for file in files:
        with Image.open(file) as picture:
            random_view(picture.convert("RGB"), side=224)
    return len(files) / (time.perf_counter() - begun)


@dataclass(frozen=True)
class Work:
    """What a table takes."""

    runs: int
    steps: int  # of a run of the workload's epochs
    weighted: float  # runs of training alone that come to the same, with what methods spend and the shorter ones


def work(full: Full) -> Work:
    """Every method of `METHODS` with the paper's optimizers, at the paper's number of seeds."""
    spec = RunSpec(methods=METHODS, optimizers=PAPERS_OPTIMIZERS)
    lines = full.table.wanted(spec)
    seeds = full.table.papers_seeds
    weighted = sum((1 + SHARES.get(method.label, 0.0)) * method.length for _, method in lines)
    return Work(seeds * len(lines), WORKLOADS[full.table.workload].epochs * full.steps, seeds * weighted)


def tables(rows: list[Row]) -> dict[str, str]:
    """What is to be run, how fast it was here, and hours on eight GPUs."""
    steps = {row["workload"]: row for row in rows if "flops" in row}
    lines = []
    for name, row in steps.items():
        full = FULL[name]
        needed = work(full)
        hours = [needed.weighted * needed.steps * _seconds(row["flops"], rate) / 3600 / GPUS for rate in SUSTAINED]
        here = needed.weighted * needed.steps * row["seconds"] / 3600 / GPUS
        lines.append([
            full.table.name, name, str(needed.runs), f"{needed.steps:,}", f"{row['flops'] / 1e12:.3g}",
            f"{row['flops'] / row['seconds'] / 1e12:.3g}", f"{here:,.3g}", *(f"{h:.3g}" for h in hours),
            " to ".join(dict.fromkeys(f"{GPUS * PRICE * h:,.0f}" for h in reversed(hours))),
        ])  # fmt: skip
    low, high = SUSTAINED
    head = [
        "table", "workload", "runs", "steps a run", "TFLOP a step", "TFLOP/s here", "hours, eight like this one",
        f"hours, eight GPUs at {low:g} TFLOP/s", f"at {high:g}", "cost, USD",
    ]  # fmt: skip
    where = ", ".join(sorted({f"{row['device']}, {row['precision']}" for row in steps.values()}))
    notes = (
        f"- Methods: {', '.join(METHODS)}; the paper's optimizers and numbers of seeds; what the methods spend beside "
        f"training is in the hours, {', '.join(f'{100 * share:g} % for {label}' for label, share in SHARES.items())}.\n"
        f"- Here: {where}. Assumed, not measured: what a GPU sustains, at least {1000 * LEAST_STEP:g} ms a step, "
        f"{PRICE:g} USD for an hour of one. Work over {GPUS} GPUs, which a list of few runs does not fill to its end.\n"
    )
    decoded = [row["images_a_second"] for row in rows if "images_a_second" in row]
    if decoded and "imagenet" in steps:
        images = FULL["imagenet"].examples / _seconds(steps["imagenet"]["flops"], high)
        notes += (
            f"- A core decodes {decoded[0]:.0f} of ImageNet's images in a second; a GPU at {high:g} TFLOP/s trains on "
            f"{images:,.0f}, so it wants {math.ceil(images / decoded[0])} cores of its own (`--workers`).\n"
        )
    return {"table": markdown_table(head, lines), "notes": notes}


def _seconds(flops: float, tflops: float) -> float:
    return max(LEAST_STEP, flops / (1e12 * tflops))


RUN_BOOK = Study("run-book", "What the paper's tables take at full scale", measure, tables, {"gpus": GPUS})


def main(
    device: Annotated[Device, typer.Option()] = Device.auto,
    precision: Annotated[Precision, typer.Option()] = Precision.float32,
    data_dir: Annotated[Path | None, typer.Option(envvar="AUTOLR_DATA")] = None,
) -> None:
    """Time a step of each workload on this machine, and tell the hours."""
    torch.set_num_threads(1)
    print("\n".join(tables(list(timed(data_dir, resolve_device(device.value), precision.value))).values()))


if __name__ == "__main__":
    typer.run(main)
