"""Fashion-MNIST with the paper's network and settings (appendix E.2, Tables 7 and 9)."""

from __future__ import annotations

import functools

from autolr.policies import ExploreExploit
from autolr_lab.workloads.idx import load_idx
from autolr_lab.workloads.mnist import PAPER_RATES, network
from autolr_lab.workloads.workload import Classification

FASHION_MNIST = Classification(
    name="fashion-mnist",
    batch_size=64,
    epochs=50,
    rates=PAPER_RATES,
    policy=ExploreExploit.from_paper("fashion-mnist"),
    images=True,
    datasets=functools.partial(
        load_idx,
        folder="fashion-mnist",
        mean=0.2860,
        std=0.3530,
        source="https://github.com/zalandoresearch/fashion-mnist",
    ),
    model=network,
)
