"""MNIST with the paper's network and settings (appendix E.1, Tables 7 and 8)."""

from __future__ import annotations

import functools
from collections import OrderedDict

from torch import nn

from autolr.policies import ExploreExploit
from autolr_lab.workloads.idx import load_idx
from autolr_lab.workloads.workload import Classification

PAPER_RATES = {"sgd": 0.1, "momentum": 0.1, "nesterov": 0.1, "default": 1e-3}


def network() -> nn.Module:
    """Two convolutions and two fully connected layers: pytorch/examples/mnist of the paper's time."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 20, 5),
            pool1=nn.MaxPool2d(2),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(20, 50, 5),
            pool2=nn.MaxPool2d(2),
            relu2=nn.ReLU(),
            flatten=nn.Flatten(),
            fc1=nn.Linear(4 * 4 * 50, 500),
            relu3=nn.ReLU(),
            fc2=nn.Linear(500, 10),
        )
    )


MNIST = Classification(
    name="mnist",
    batch_size=64,
    epochs=50,
    rates=PAPER_RATES,
    policy=ExploreExploit.from_paper("mnist"),
    images=True,
    datasets=functools.partial(
        load_idx, folder="mnist", mean=0.1307, std=0.3081, source="https://yann.lecun.com/exdb/mnist/"
    ),
    model=network,
)
