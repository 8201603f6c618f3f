"""What AutoLR costs a training of any size, on paper: FLOPs, memory, traffic and share of the run.

The training: P parameters, B tokens a step over N ranks. A step takes 6 P B FLOPs, a forward pass 2 P B (Kaplan et al.
2020, without attention's part), which is the *forward equivalent* that all costs are counted in. Activations, data
loading and the optimizer's own arithmetic are left out: they are the training's with AutoLR as without.

Bytes and counts are exact, and a test holds them against what two and four ranks move and keep; seconds are estimates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from autolr.numerics.cost import FORWARDS_PER_STEP, PROBES_SHARE
from autolr.numerics.plan import (
    MANY,
    affordable_candidates,
    affordable_lengths,
    affordable_minibatches,
    affordable_share,
)

Strategy = Literal["ddp", "fsdp", "hsdp"]

# Of the guard: `autolr.policies.guard` has them, and a test holds these against those.
JUDGES, CHECKS_SHARE, FEWEST_CHECKS, MOST_CHECKS = 4, 0.01, 4, 40
LONGER, SOON = 8, 0.25
COPIES = 2  # of `autolr.measure.memory`, likewise
ADAPTIVE_SHARE = 0.02  # of `ExploreExploit.adaptive()`

NODE = 8  # ranks that share a copy of the parameters with hsdp
NUMBER = 8  # [bytes] of a loss, and of the count of them, in a gathering
HOP_SECONDS = 5e-6  # from a rank to its neighbour in the ring that gathers; an estimate
MUCH = 0.01  # share of a step from which on a cost is worth a word
LEAST, MOST = 1e-9, 1e33  # of any number: their products and ratios stay finite
DEAR = 1_000.0  # [GPU hours] likewise


@dataclass(frozen=True, slots=True)
class Training:
    """A training to be planned. Bytes are those of one parameter.

    Raises:
        ValueError: a number out of range, or another strategy.
    """

    params: float
    tokens: float  # in the whole run
    batch: float  # [tokens] of a step, over all ranks
    gpus: int
    strategy: Strategy
    weight_bytes: int = 4  # that the optimizer moves
    gradient_bytes: int = 4
    state_bytes: int = 8  # Adam's two moments
    compute_bytes: int = 2  # that FSDP gathers for a forward pass
    flops: float = 990e12  # [FLOP/s] of one GPU; H100, bfloat16
    utilisation: float = 0.4
    gpu_memory: float = 80e9  # [bytes]
    network: float = 50e9  # [bytes/s] that a GPU can send

    def __post_init__(self) -> None:
        for name in ("params", "tokens", "batch", "gpus", "flops", "utilisation", "gpu_memory", "network"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be a number above 0; got {value}.")
            most = 1.0 if name == "utilisation" else MOST
            if not LEAST <= value <= most:
                raise ValueError(f"{name} must be from {LEAST:g} to {most:g}; got {value}.")
        if not 0 <= self.state_bytes <= MOST:
            raise ValueError(f"state_bytes must be from 0 to {MOST:g}; got {self.state_bytes}.")
        if self.batch > self.tokens:
            raise ValueError(f"batch is the tokens of one step, at most the run's {self.tokens:g}; got {self.batch:g}.")
        if self.strategy not in {"ddp", "fsdp", "hsdp"}:
            raise ValueError(f"strategy must be ddp, fsdp or hsdp; got {self.strategy!r}.")

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        return math.ceil(self.tokens / self.batch)

    @property
    def forward_flops(self) -> float:
        """[FLOP] of one forward equivalent, over all ranks."""
        return 2 * self.params * self.batch

    @property
    def step_seconds(self) -> float:
        """[s] of computing a step."""
        return FORWARDS_PER_STEP * self.forward_flops / (self.gpus * self.flops * self.utilisation)

    @property
    def shards(self) -> int:
        """Ranks over which a copy of the parameters is spread."""
        return {"ddp": 1, "fsdp": self.gpus, "hsdp": min(NODE, self.gpus)}[self.strategy]

    @property
    def held(self) -> float:
        """[bytes] of weights, gradients and optimizer state on a GPU."""
        return self.params * (self.weight_bytes + self.gradient_bytes + self.state_bytes) / self.shards

    @property
    def forward_traffic(self) -> float:
        """[bytes] that a GPU receives in a forward pass: the other ranks' shards."""
        return _others(self.shards) * self.params * self.compute_bytes

    @property
    def step_traffic(self) -> float:
        """[bytes] that a GPU receives in a step: two gatherings and a reduction of gradients, or an all-reduce."""
        gathered = 2 * self.forward_traffic + _others(self.shards) * self.params * self.gradient_bytes
        copies = self.gpus / self.shards
        return gathered + 2 * _others(copies) * self.params / self.shards * self.gradient_bytes


def _others(ranks: float) -> float:
    """The share that the others of so many ranks have."""
    return (ranks - 1) / ranks


@dataclass(frozen=True, slots=True)
class Part:
    """What one of AutoLR's doors or policies costs."""

    name: str
    forwards: float  # [forward equivalents]
    share: float  # of the run
    flops: float  # [FLOP] over all ranks
    gpu_hours: float
    device_bytes: float  # on each GPU, beside the training's own
    host_bytes: float  # on each rank's host
    traffic: float  # [bytes] that each GPU receives in all of it
    gatherings: int  # of losses, each of which waits for all ranks
    gathering_seconds: float  # [s] in all of them, on each rank


def plan_parts(training: Training) -> list[Part]:
    """The search, the guard, its trial of a lower peak, and explore-exploit, by what each may take at most."""
    steps, copy = training.steps, training.params * training.weight_bytes / training.shards
    moved = training.params * (training.weight_bytes + training.state_bytes) / training.shards
    share = affordable_share(steps)
    search = share * FORWARDS_PER_STEP * steps
    checks = min(max(round(CHECKS_SHARE * FORWARDS_PER_STEP * steps / (JUDGES + 1)), FEWEST_CHECKS), MOST_CHECKS, steps)
    parts = [_part(training, "search", search, trained=True, device=moved, host=0.0)]
    guard = (1 + checks) * (JUDGES + 1.0)
    parts.append(_part(training, "guard", guard, trained=False, device=0.0, host=moved, gatherings=1 + checks))
    length = short_runs(training)[-1]
    if LONGER * length <= SOON * steps:
        tried = _part(
            training, "a trial", trial_forwards(length), trained=True, device=COPIES * training.held, host=moved
        )
        parts.append(tried)
    for name, most, together in (("adaptive probes", ADAPTIVE_SHARE, 3), ("the paper's probes", PROBES_SHARE, 500)):
        spent = most * FORWARDS_PER_STEP * steps
        looks = math.ceil(spent / together)  # samples of one minibatch; of a superbatch of 100
        parts.append(_part(training, name, spent, trained=False, device=copy, host=moved, gatherings=looks))
    return parts


def _part(
    training: Training, name: str, forwards: float, *, trained: bool, device: float, host: float,
    gatherings: int | None = None,
) -> Part:  # fmt: skip
    """``trained``: of training steps, not of forward passes alone."""
    units = forwards / FORWARDS_PER_STEP if trained else forwards
    count = math.ceil(units) if gatherings is None else gatherings  # one a step of a short run, or a look
    flops = forwards * training.forward_flops
    return Part(
        name, forwards, forwards / (FORWARDS_PER_STEP * training.steps), flops,
        flops / (training.flops * training.utilisation) / 3600, device, host,
        units * (training.step_traffic if trained else training.forward_traffic), count,
        count * gathering_seconds(training.gpus),
    )  # fmt: skip


def gathering_bytes(ranks: int, losses: int = 1) -> int:
    """[bytes] that each rank receives, its own counted, when so many losses of each are gathered: counts, then losses.

    Example:
        >>> gathering_bytes(1), gathering_bytes(1_000)
        (0, 16000)
    """
    return NUMBER * (1 + losses) * ranks if ranks > 1 else 0


def gathering_seconds(ranks: int) -> float:
    """[s] that one such gathering takes to go round a ring twice."""
    return 2 * HOP_SECONDS * (ranks - 1)


def short_runs(training: Training) -> tuple[int, ...]:
    """[steps] The lengths of the search's short runs."""
    budget = affordable_share(training.steps) * FORWARDS_PER_STEP * training.steps
    judges = affordable_minibatches(budget)
    return affordable_lengths(budget - affordable_candidates(budget, judges) * judges, judges, training.steps)


def trial_forwards(length: int) -> int:
    """[forward equivalents] Of a trial of a lower peak, after short runs of so many steps.

    From the start as many steps as the run has had, and as many as a short run's, there and from here, down to zero;
    both are judged where they begin and where they end.

    Example:
        >>> trial_forwards(length=15)
        482
    """
    return FORWARDS_PER_STEP * (LONGER + 2) * length + 4 * MANY


def advice(training: Training, parts: Sequence[Part]) -> list[str]:
    """What stops being cheap, and what to do about it."""
    search = next(part for part in parts if part.name == "search")
    said = []
    if training.held > training.gpu_memory:
        said.append(
            f"The training itself needs {training.held / 1e9:,.0f} GB a GPU of {training.gpu_memory / 1e9:,.0f}: "
            "spread it over more (fsdp)."
        )
    elif training.held + search.device_bytes > training.gpu_memory:
        said.append(
            f"The search keeps another {search.device_bytes / 1e9:,.0f} GB on each GPU beside the training's "
            f"{training.held / 1e9:,.0f}, of {training.gpu_memory / 1e9:,.0f} in all: search with a smaller width."
        )
    trial = next((part for part in parts if part.name == "a trial"), None)
    room = training.gpu_memory - training.held
    if trial is not None and search.device_bytes <= room < trial.device_bytes:
        said.append(
            f"A trial of a lower peak may need {trial.device_bytes / 1e9:,.0f} GB more on each GPU, of which "
            f"{room / 1e9:,.0f} are free: where it does not fit it is left out, and said."
        )
    gathering = gathering_seconds(training.gpus) / training.step_seconds
    if gathering > MUCH:
        said.append(
            f"Gathering the losses of {training.gpus:,} ranks takes {gathering:.0%} of a step: search on fewer ranks, "
            "each with more minibatches, and accumulate."
        )
    if search.gpu_hours > DEAR:
        said.append(
            f"The search takes {search.gpu_hours:,.0f} GPU hours, {search.share:.1%} of the run: search at a tenth of "
            f"the width, about {search.gpu_hours / 100:,.3g} GPU hours for as many tokens, carry the peak over by muP "
            "(or 1/width for matrices), and pass PeakSearch(peak=...)."
        )
    if training.steps < 1_000:
        said.append(
            f"A run of {training.steps} steps leaves short runs of {short_runs(training)[-1]}: read the interval."
        )
    return said
