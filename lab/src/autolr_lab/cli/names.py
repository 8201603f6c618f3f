"""Names that the command line knows, without what they stand for: that would import torch, and help should be quick.

A test holds them to the registries.
"""

from __future__ import annotations

WORKLOADS = (
    *("digits", "mnist", "fashion-mnist", "cifar10", "cifar10-small", "imagenet", "tiny-imagenet-10"),
    *("shakespeare", "shakespeare-10m", "squad", "squad-small", "squad-minilm", "iwslt14", "multi30k"),
)
OPTIMIZERS = (
    *("sgd", "momentum", "momentum-0.5", "nesterov", "adam", "adamw", "rmsprop", "adagrad", "adadelta", "nadam"),
    *("radam", "adamax"),
)
POLICIES = ("find-peak", "find-peak-paid", "explore-exploit", "literal", "adaptive", "monitor")
SCHEDULES = (
    *("fixed", "staircase", "exponential", "polynomial", "linear", "cosine", "inverse-sqrt", "one-cycle"),
    *("warmup-stable-decay", "plateau", "knee"),
)
BASELINES = (
    *("schedule-free", "prodigy", "d-adaptation", "dog", "ldog", "momo", "mechanic", "greedy", "lr-finder"),
    *("lr-finder-one-cycle", "hypergradient", "l4", "vsgd", "sps", "sls", "pal", "gen"),
)
EXPERIMENTS = (
    *(f"table{number}" for number in range(1, 10)),
    *(f"figure{number}" for number in range(1, 20)),
    *("hypothesis", "appendix-c", "differences", "differences-literal", "shakespeare", "digits", "squad-minilm"),
)
