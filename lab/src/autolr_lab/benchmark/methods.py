"""The methods of the benchmark, each as somebody uses it who does not tune."""

from __future__ import annotations

import dataclasses

from autolr_lab.baselines import BASELINES
from autolr_lab.benchmark.tasks import Task
from autolr_lab.runner.experiment import Method, RunSpec
from autolr_lab.training.runs import Settings

RATES = (0.01, 1.0, 100.0)  # seed rates, times a method's own: four decades
WARMED = ("cosine", "knee")  # schedules that are used with the task's warm-up

OURS = (
    Method("PeakSearch", "find-peak-paid", seeded=False),
    Method("ExploreExploit, adaptive", "adaptive"),
    Method("ExploreExploit", "explore-exploit", table_7=True),
)
UNTUNED = (
    Method("fixed", "fixed"),
    Method("staircase", "staircase"),
    Method("cosine", "cosine"),
    Method("Knee", "knee"),
    Method("one-cycle", "one-cycle"),
)
THEIRS = tuple(Method(one.title, name, seeded=one.seeded) for name, one in BASELINES.items())
METHODS = (*OURS, *UNTUNED, *THEIRS)
LABELS_OF_OURS = frozenset(method.label for method in OURS)


def run_of(method: Method, task: Task, spec: RunSpec, seed: int, times: float = 1.0) -> Settings:
    """A run, at ``times`` the rate that the method is used with: its authors', or the workload's."""
    rate = task.seed_rate
    if method.schedule in BASELINES:
        rate = BASELINES[method.schedule].rate(task.optimizer, rate)
    return task.settings(spec, with_warm_up(method, task), seed, rate * times)


def with_warm_up(method: Method, task: Task) -> Method:
    """The method with the task's warm-up, where its schedule is used with one."""
    return dataclasses.replace(method, options={"warmup": task.warm_up}) if method.schedule in WARMED else method
