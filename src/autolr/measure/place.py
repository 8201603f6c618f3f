"""Where a source of minibatches of the user's own stands: its position, its epoch, its generators.

A function or an object that gives minibatches often counts how far it has come. What is read from it to measure must
not be missing from training, so what it holds is kept and put back. A plain loader and a list need none of that:
nothing is ever taken from them.
"""

from __future__ import annotations

import functools
import os
import queue
import sys
import threading
import types
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue, SimpleQueue
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset, Sampler

from autolr.measure.attributes import CONTAINERS, Contents, inside, put_back_slots, slots_of
from autolr.measure.in_place import differs, put_back
from autolr.measure.outside import named_in
from autolr.measure.peekable_loader import PeekableLoader
from autolr.measure.put_back import WayBack
from autolr.measure.rng import GENERATORS, generator_state, set_generator_state
from autolr.measure.sources import Kept, Made
from autolr.measure.superbatch import prepares

MANY = 1000  # items: larger containers are kept, and what their items hold is not
MOST = 10**6  # items: of still larger ones nothing is
LARGE = 2**24  # [bytes] of tensors and arrays that are kept: an order of two million examples
LIBRARIES = (str(Path(os.__file__).parent), str(Path(torch.__file__).parents[1]))  # Python's own, and what is installed
_MOVING = (
    threading.Thread, queue.Queue, queue.SimpleQueue, Executor, Future, BaseProcess, Queue, SimpleQueue,
)  # fmt: skip


class Place:
    """What sources hold now: attributes, containers, generators, and `LARGE` bytes of tensors and arrays.

    Kept of an object with a method that makes minibatches, of one that is iterated, and of those that a function can
    name; and of what they hold in turn, where it is the user's own or a loader. Not: models, data sets, iterators that
    have begun, counts in global variables, containers of more than `MOST` items, and an object with a thread, a process
    or a queue, which others move. Call `begin` and `back` by `put_back.certainly`.

    Attributes:
        back: puts all of it back; may be called again.
    """

    def __init__(self, *sources: Any) -> None:
        self._seen: set[int] = set()
        self._steps: list[Any] = []
        self._loaders: list[DataLoader[Any]] = []
        self._bytes = 0
        for source in sources:
            for root in _roots(source):
                self._keep_object(root)
        self.back = WayBack(self._steps)

    def begin(self) -> None:
        """From here on minibatches are taken, and none of those that training's own workers have begun to load."""
        for loader in self._loaders:
            vars(loader)["_iterator"] = None  # of persistent workers: a new pass would begin it anew

    def _keep_object(self, thing: Any) -> None:
        names, slots = getattr(thing, "__dict__", {}), slots_of(thing)
        values = [*names.values(), *slots.values()] if type(names) is dict else []
        if id(thing) in self._seen or not values or _move_by_themselves(values):
            return
        self._seen.add(id(thing))
        if names:
            self._steps.append(Contents(names).restore)
        if slots:
            self._steps.append(functools.partial(put_back_slots, thing, slots))
        if isinstance(thing, DataLoader) and names.get("_iterator") is not None:
            self._loaders.append(thing)
        for value in values:
            self._keep(value)

    def _keep(self, value: Any) -> None:
        kind = type(value)
        if kind in GENERATORS:
            self._steps.append(functools.partial(set_generator_state, value, generator_state(value)))
        elif isinstance(value, Tensor):
            if value.layout is torch.strided and not value.is_inference() and self._fits(value):
                self._steps.append(functools.partial(_put_back, value, value._version, value.detach().clone()))
        elif kind is np.ndarray:
            if value.flags.writeable and self._fits(value):
                self._steps.append(functools.partial(np.copyto, value, value.copy()))
        elif issubclass(kind, (*CONTAINERS, tuple)):
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
        if id(items) in self._seen or len(items) > MOST:
            return
        self._seen.add(id(items))
        if not isinstance(items, tuple):
            self._steps.append(Contents(items).restore)
        if len(items) <= MANY:
            for value in inside(items):
                self._keep(value)


def _roots(source: Any) -> Iterator[Any]:
    """The objects that a source reads from by code of the user's own."""
    while isinstance(source, Made | PeekableLoader):
        source = source.make if isinstance(source, Made) else source.loader
    if isinstance(source, types.FunctionType | types.MethodType | functools.partial):
        yield from _named(source)
    elif prepares(source) if isinstance(source, DataLoader) else not isinstance(source, Sequence | Kept | nn.Module):
        yield source


def _named(function: Any) -> Iterator[Any]:
    """The objects that a function reads from: its own, and those that it names, also by helpers beside it."""
    home, seen = getattr(function, "__module__", None), set[int]()
    pending: list[Any] = [function]
    for value in pending:  # it grows on the way
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, functools.partial):
            pending += [value.func, *value.args, *value.keywords.values()]
        elif isinstance(value, types.MethodType):
            yield value.__self__
        elif isinstance(value, types.FunctionType):
            if value is function or value.__module__ == home:  # and not a library's
                pending += named_in(value)
        elif _is_followed(value):
            yield value


def _is_followed(value: Any) -> bool:
    if isinstance(value, DataLoader | Sampler):
        return True
    if isinstance(value, nn.Module | Optimizer | Dataset | type | types.ModuleType | types.FunctionType):
        return False
    kind = type(value).__module__
    file = getattr(sys.modules.get(kind), "__file__", None)
    return kind == "__main__" or (file is not None and not file.startswith(LIBRARIES))


def _move_by_themselves(values: Iterable[Any]) -> bool:
    """Whether a thread, a process or a queue is among them, or one level deep in containers."""
    for value in values:
        held = inside(value) if isinstance(value, list | tuple | dict) and len(value) <= MANY else [value]
        if any(isinstance(part, _MOVING) for part in held):
            return True
    return False


def _put_back(tensor: Tensor, version: int, value: Tensor) -> None:
    if differs(tensor, version, value):  # also where NumPy wrote into the memory that they share
        put_back([(tensor, value)])
