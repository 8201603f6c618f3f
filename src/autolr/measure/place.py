"""Where a source of minibatches of the user's own stands: its position, its epoch, its generators.

A function or an object that gives minibatches often counts how far it has come. What is read from it to measure must
not be missing from training, so what it holds is kept and put back. A plain loader and a list need none of that:
nothing is ever taken from them.
"""

from __future__ import annotations

import collections
import functools
import os
import queue
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset, Sampler

from autolr.measure.attributes import Contents
from autolr.measure.outside import named_in
from autolr.measure.peekable_loader import PeekableLoader
from autolr.measure.put_back import WayBack
from autolr.measure.rng import GENERATORS, generator_state, set_generator_state
from autolr.measure.sources import Kept, Made
from autolr.measure.superbatch import prepares

MANY = 1000  # items: larger containers are kept, and what their items hold is not
LARGE = 2**24  # [bytes] of tensors and arrays that are kept: an order of two million examples
LIBRARIES = (str(Path(os.__file__).parent), str(Path(torch.__file__).parents[1]))  # Python's own, and what is installed


class Place:
    """What sources hold now: attributes, containers, generators, and `LARGE` bytes of tensors and arrays.

    Kept of an object with a method that makes minibatches, of one that is iterated, and of those that a function can
    name; and of what they hold in turn, where it is the user's own or a loader. Not: models, data sets, iterators that
    have begun, counts in global variables, and an object with a thread or a queue, which others move.

    Attributes:
        back: puts all of it back; may be called again.
    """

    def __init__(self, *sources: Any) -> None:
        self._seen: set[int] = set()
        self._steps: list[Any] = []
        self._bytes = 0
        for source in sources:
            for root in _roots(source):
                self._keep_object(root)
        self.back = WayBack(self._steps)

    def _keep_object(self, thing: Any) -> None:
        names = getattr(thing, "__dict__", None)
        if id(thing) in self._seen or type(names) is not dict or _moves_by_itself(names):
            return
        self._seen.add(id(thing))
        self._steps.append(Contents(names).restore)
        for value in names.values():
            self._keep(value)

    def _keep(self, value: Any) -> None:
        if isinstance(value, GENERATORS):
            self._steps.append(functools.partial(set_generator_state, value, generator_state(value)))
        elif isinstance(value, Tensor):
            if value.layout is torch.strided and not value.is_inference() and self._fits(value):
                self._steps.append(functools.partial(_put_back_tensor, value, value._version, value.detach().clone()))
        elif type(value) is np.ndarray:
            if value.flags.writeable and self._fits(value):
                self._steps.append(functools.partial(np.copyto, value, value.copy()))
        elif type(value) in {list, dict, set, tuple, collections.deque}:
            self._keep_items(value)
        elif _is_followed(value):
            self._keep_object(value)

    def _fits(self, value: Any) -> bool:
        if id(value) in self._seen or self._bytes + value.nbytes > LARGE:
            return False
        self._seen.add(id(value))
        self._bytes += value.nbytes
        return True

    def _keep_items(self, items: Any) -> None:
        if id(items) in self._seen:
            return
        self._seen.add(id(items))
        if type(items) is not tuple:
            self._steps.append(Contents(items).restore)
        if len(items) <= MANY:
            for value in items.values() if type(items) is dict else items:
                self._keep(value)


def _roots(source: Any) -> Iterator[Any]:
    """The objects that a source reads from by code of the user's own."""
    if isinstance(source, Made):
        source = source.make
    while isinstance(source, PeekableLoader | functools.partial):
        source = source.loader if isinstance(source, PeekableLoader) else source.func
    if isinstance(source, types.MethodType):
        yield source.__self__
    elif isinstance(source, types.FunctionType):
        named = [value.__self__ if isinstance(value, types.MethodType) else value for value in named_in(source)]
        yield from filter(_is_followed, named)
    elif prepares(source) if isinstance(source, DataLoader) else not isinstance(source, Sequence | Kept | nn.Module):
        yield source


def _is_followed(value: Any) -> bool:
    if isinstance(value, DataLoader | Sampler):
        return True
    if isinstance(value, nn.Module | Optimizer | Dataset | type | types.ModuleType | types.FunctionType):
        return False
    kind = type(value).__module__
    file = getattr(sys.modules.get(kind), "__file__", None)
    return kind == "__main__" or (file is not None and not file.startswith(LIBRARIES))


def _moves_by_itself(names: dict[str, Any]) -> bool:
    return any(isinstance(value, threading.Thread | queue.Queue | queue.SimpleQueue) for value in names.values())


def _put_back_tensor(tensor: Tensor, version: int, value: Tensor) -> None:
    if tensor._version != version and tensor.shape == value.shape:
        with torch.no_grad():
            tensor.detach().copy_(value)
