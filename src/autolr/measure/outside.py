"""Modules outside the model that a user's function reaches: a criterion with running statistics, a frozen teacher.

A forward pass writes into their buffers, and a hook on the optimizer's step moves an average of the weights. They are
found where Python keeps what a function can name: in its closure, its defaults, the globals that its code names, and
the object whose method it is. What a function reaches by other ways (an attribute of a global object, an import within
it) is not found.
"""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn
from torch.optim import Optimizer

from autolr.measure.optimizer_parts import nested

HOOKS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")


class Outside(nn.Module):
    """Holds modules that are none of the model's, so that they can be looked after together."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        super().__init__()
        self.held = nn.ModuleList(modules)


def outside(model: nn.Module, *functions: Any) -> Outside:
    """The modules that ``functions`` reach and that are not the model's."""
    own = set(map(id, model.modules()))
    found = {id(module): module for function in functions for module in modules_behind(function)}
    return Outside(module for key, module in found.items() if key not in own)


def step_hooks(optimizer: Optimizer) -> list[Any]:
    """What is called before and after each of its steps, and each of those within it."""
    return [hook for part in nested(optimizer) for name in HOOKS for hook in vars(part).get(name, {}).values()]


def modules_behind(function: Any) -> Iterator[nn.Module]:
    """The modules that a function can name, and itself where it is one; each may come several times."""
    home = getattr(function, "__module__", None)
    seen: set[int] = set()
    pending: list[tuple[Any, int]] = [(function, 0)]
    while pending:
        value, depth = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, nn.Module):
            yield value
        elif isinstance(value, functools.partial):
            pending += [(part, depth) for part in (value.func, *value.args, *value.keywords.values())]
        elif isinstance(value, types.MethodType):
            pending += [(value.__func__, depth), (value.__self__, depth)]
        elif isinstance(value, types.FunctionType):
            if depth == 0 or value.__module__ == home:  # a helper beside it; not a library's function
                pending += [(part, depth + 1) for part in named_in(value)]
        elif type(value) in {list, tuple}:
            pending += [(part, depth + 1) for part in value if isinstance(part, nn.Module)]
        elif type(value) is dict:
            pending += [(part, depth + 1) for part in value.values() if isinstance(part, nn.Module)]
        elif depth == 0 and hasattr(value, "__dict__") and not isinstance(value, (type, types.ModuleType)):
            pending += [(part, depth + 1) for part in vars(value).values()]  # an object with a method of that name
            pending.append((vars(type(value)).get("__call__"), depth))


def named_in(function: types.FunctionType) -> Iterator[Any]:
    """What its code can name: closure, defaults, globals."""
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # not assigned yet
            yield cell.cell_contents
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    codes = [function.__code__]
    for code in codes:  # it grows by the functions that are defined within
        yield from (function.__globals__[name] for name in code.co_names if name in function.__globals__)
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
