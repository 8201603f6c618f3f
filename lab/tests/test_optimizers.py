"""The optimizers that have a name."""

import pytest
import torch

from autolr_lab.training.optimizers import OPTIMIZERS

EXPECTED = {  # class, and the settings in which it differs from torch's defaults
    "sgd": (torch.optim.SGD, {}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9}),
    "nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "adam": (torch.optim.Adam, {}),
    "adamw": (torch.optim.AdamW, {}),
    "rmsprop": (torch.optim.RMSprop, {}),
    "adagrad": (torch.optim.Adagrad, {}),
    "adadelta": (torch.optim.Adadelta, {}),
    "nadam": (torch.optim.NAdam, {}),
    "radam": (torch.optim.RAdam, {}),
    "adamax": (torch.optim.Adamax, {}),
}


def test_every_name_is_checked_here():
    assert OPTIMIZERS.keys() == EXPECTED.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_a_name_is_torchs_optimizer_with_torchs_defaults_but_for_momentum(name):
    kind, settings = EXPECTED[name]
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = OPTIMIZERS[name]([weight], 0.03)
    assert type(optimizer) is kind
    assert optimizer.defaults == kind([weight], lr=0.03, **settings).defaults
