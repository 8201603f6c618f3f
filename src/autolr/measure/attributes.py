"""Which objects stand under names and in containers: kept without a copy of them, and put back in place."""

from __future__ import annotations

import collections
import functools
import io
import operator
import threading
import types
from collections.abc import Collection
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

NUMBERS = frozenset({bool, int, float, complex, str, bytes, type(None)})
CONTAINERS = (collections.OrderedDict, dict, list, set, collections.deque)  # the first keeps an order of its own
TORCHS_OWN = frozenset(vars(nn.Module())) | {"_is_full_backward_hook"}

# What a pass may have made once and for all: to forget a hook or a file would have the next pass make another.
_LEFT = (
    types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial, RemovableHandle, io.IOBase,
    threading.Thread,
)  # fmt: skip


class Attributes:
    """Which object stands under each name of a module. Functions, and handles to what lies outside, are left alone."""

    def __init__(self, module: nn.Module) -> None:
        self._module, self._then = module, dict(vars(module))
        self._slots = slots_of(module) if slot_names(module) else None

    def restore(self) -> None:
        now, then = vars(self._module), self._then
        if not (_same(now, then) and _same(now.values(), then.values())):
            for name in [name for name, value in now.items() if name not in then and _is_kept(name, value)]:
                del now[name]
            for name, value in then.items():
                there = now.get(name, _ABSENT)
                if there is not value and _is_kept(name, value) and _is_kept(name, there):
                    now[name] = value
        if self._slots is not None:
            put_back_slots(self._module, self._slots)


class Contents:
    """What a container holds, one level deep.

    Read and written by the methods of Python's own containers: those that a subclass puts in their place may do more,
    as a cache's do that counts what is read.
    """

    def __init__(self, container: Any) -> None:
        self._container, self._kind = container, kind_of(container)
        self._then = [list(part) for part in self._now()]

    def restore(self) -> None:
        container, kind, then = self._container, self._kind, self._then
        if all(map(_same, self._now(), then)):
            return
        kind.clear(container)
        if issubclass(kind, dict):
            for key, value in zip(*then, strict=True):
                kind.__setitem__(container, key, value)
        elif kind is set:
            set.update(container, *then)
        else:
            kind.extend(container, *then)

    def _now(self) -> list[Collection[Any]]:
        container, kind = self._container, self._kind
        if issubclass(kind, dict):
            return [kind.keys(container), kind.values(container)]
        return [list(kind.__iter__(container))]


_ABSENT = object()


def kind_of(container: Any) -> Any:
    """Which of Python's own containers it is, or is made from."""
    return next(kind for kind in (*CONTAINERS, tuple, frozenset) if issubclass(type(container), kind))


def inside(container: Any) -> list[Any]:
    """What it holds, without its keys."""
    kind = kind_of(container)
    return list(kind.values(container) if issubclass(kind, dict) else kind.__iter__(container))


def _same(now: Collection[Any], then: Collection[Any]) -> bool:
    return len(now) == len(then) and all(map(operator.is_, now, then))


def _is_kept(name: str, value: Any) -> bool:
    return name not in TORCHS_OWN and not issubclass(type(value), _LEFT)


def slots_of(thing: Any) -> dict[str, Any]:
    """The attributes that an object of a class with ``__slots__`` has now."""
    return {name: getattr(thing, name) for name in slot_names(thing) if hasattr(thing, name)}


def put_back_slots(thing: Any, slots: dict[str, Any]) -> None:
    """They are again what they were, also of an object that is frozen for others."""
    for name, value in slots_of(thing).items():
        if name not in slots:
            object.__delattr__(thing, name)
        elif value is not slots[name]:
            object.__setattr__(thing, name, slots[name])
    for name in slots.keys() - slots_of(thing).keys():
        object.__setattr__(thing, name, slots[name])


def slot_names(thing: Any) -> list[str]:
    """The names of its class's ``__slots__``, and of the classes above."""
    kind: Any = type(thing)  # which can be hashed
    return _slot_names(kind)


@functools.lru_cache(maxsize=1024)  # asked at every probe, of every module
def _slot_names(kind: type) -> list[str]:
    told = [(one, vars(one).get("__slots__", ())) for one in kind.__mro__]
    names = [(one, name) for one, slots in told for name in ([slots] if isinstance(slots, str) else slots)]
    names = [(one, name) for one, name in names if name not in {"__dict__", "__weakref__"}]
    private = {name for _, name in names if name.startswith("__") and not name.endswith("__")}
    return [f"_{one.__name__.lstrip('_')}{name}" if name in private else name for one, name in names]
