"""The graphs behind what a model remembers from one minibatch to the next, as a recurrent network its hidden state.

A loop that cuts them itself, after its step (truncated backpropagation through time), has not done so yet where
``step()`` looks or searches: the graph is there and spent, and a backward pass through it is an error. So short runs,
and losses that need gradients, begin without.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from autolr.measure.attributes import TORCHS_OWN

DEEP, MANY = 3, 1000  # a hidden state lies no deeper in containers, and in none with so many items


def cut_graphs(modules: Iterable[nn.Module]) -> None:
    """Put tensors of the same memory and without a graph in buffers and attributes, also in containers.

    Call it where a `ForwardState` is kept, which puts the very objects back.
    """
    for module in modules:
        if not isinstance(module, DistributedDataParallel):  # its own affairs
            for names in (module._buffers, vars(module)):
                cut = {name: _cut(value) for name, value in names.items() if name not in TORCHS_OWN}
                names.update({name: value for name, value in cut.items() if value is not names[name]})


def _cut(value: Any, depth: int = DEEP) -> Any:
    """``value`` itself, where there is no graph in it."""
    if type(value) is Tensor:
        return value if value.grad_fn is None else value.detach()
    if type(value) not in {list, tuple, dict} or depth == 0 or len(value) > MANY:
        return value
    parts = value.values() if type(value) is dict else value
    cut = [_cut(part, depth - 1) for part in parts]
    if all(map(operator.is_, cut, parts)):
        return value
    return dict(zip(value, cut, strict=True)) if type(value) is dict else type(value)(cut)
