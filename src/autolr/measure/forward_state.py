"""What a forward pass may change in a model beside its output, and the way back.

Buffers, which parameters and submodules are registered, and all that a module holds in plain attributes: numbers,
containers, tensors, arrays, generators, and modules that are held without being registered. `ForwardState` keeps it all
and puts it back, to the bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.parallel import DistributedDataParallel

from autolr.measure.attributes import (
    CONTAINERS,
    NUMBERS,
    TORCHS_OWN,
    Attributes,
    Contents,
    inside,
    slots_of,
)
from autolr.measure.in_place import LAYOUTS, bytes_of, differs, put_back, same
from autolr.measure.rng import GENERATORS, generator_state, set_generator_state
from autolr.measure.sharded import own_part, plain_parts

SMALL = 2**16  # [bytes] a tensor or an array in a plain attribute is kept at every probe, whether written into or not

_HOLDING = (*CONTAINERS, tuple, frozenset)
_OWN_AFFAIRS = (DistributedDataParallel,)  # what it keeps count of, it must not be told twice

Place = tuple[nn.Module, str]  # an attribute of a module: which tensor stands there, and how deep, may change


def modules_of(model: nn.Module) -> list[nn.Module]:
    """The registered modules in their order; then those that they hold in plain attributes, however deep."""
    return _Reach(model).modules


@dataclass(frozen=True)
class Written:
    """What the first forward pass was seen to write into, beside buffers."""

    parameters: tuple[Tensor, ...] = ()  # nn.Embedding(max_norm=...), for instance
    places: frozenset[Place] = frozenset()  # attributes that hold tensors or arrays


class ForwardState:
    """A model's buffers and plain attributes as training left them.

    An attribute is followed through lists, dicts, sets, deques and tuples, also of kinds made from these, and into
    modules. Kept are

    - which object stands under the name of each attribute, buffer, parameter and submodule, whatever its type; what
      each container holds, and the state of each generator;
    - each buffer, also of modules that are not registered;
    - tensors and arrays in attributes, and parameters of modules that are not registered, where they are at most
      `SMALL` or the first forward pass wrote into them;
    - the registered parameters that it wrote into.

    Not kept: a parameter or a larger array that a later pass is the first to write into, memory-mapped files, what
    objects of other kinds hold, and the keys of dicts. Functions, hooks, files and threads that a pass puts in an
    attribute stay there. A larger tensor that is written into late is noticed.

    Args:
        model: its own mode and parameters are not kept.
        written: what else to keep. Where it is not known yet, all that a forward pass could write into is.
        outside: holds modules that are not the model's, of which all is kept but parameters.
        known: modules that are kept elsewhere.
    """

    def __init__(
        self, model: nn.Module, written: Written | None = None, outside: nn.Module | None = None,
        known: Sequence[nn.Module] = (),
    ) -> None:  # fmt: skip
        reach = _Reach(model, known)
        self._outside = None if outside is None else ForwardState(outside, written or Written(), known=reach.modules)
        # Also of modules that have no buffer yet: a forward pass may make one.
        self.modules = reach.modules
        self._registered = [Contents(names) for module in reach.modules for names in _registers(module)]
        held = {id(b): b for module in reach.modules for b in module._buffers.values() if b is not None}
        self._buffers = [(b, b.detach().clone()) for b in held.values()]
        self._attributes = [Attributes(module) for module in reach.modules if not _is_opaque(module)]
        self._contents = [Contents(container) for container in reach.containers]
        self._generators = [(generator, generator_state(generator)) for generator in reach.generators]

        parameters = reach.parameters if written is None else written.parameters
        self._parameters = [(p, p._version, p.detach().clone()) for p in parameters]
        self._tensors: list[tuple[Place, Tensor, int, Tensor, bool]] = []  # the last: written into for certain
        self._arrays: list[tuple[Place, np.ndarray, np.ndarray]] = []
        self._watched: list[tuple[Place, Tensor, int]] = []  # too large to be kept for nothing
        for place, value in reach.values():
            certain = written is not None and place in written.places
            size = bytes_of(value) if isinstance(value, Tensor) else value.nbytes
            if not (certain or written is None or size <= SMALL):
                if isinstance(value, Tensor):
                    self._watched.append((place, value, value._version))
            elif isinstance(value, Tensor):
                self._tensors.append((place, value, value._version, value.detach().clone(), certain))
            else:
                self._arrays.append((place, value, value.copy()))

    def restore(self) -> None:
        """Put everything back but parameters' values: what stood under each name and in each container, as it was."""
        if self._outside is not None:
            self._outside.restore()
        for names in self._registered:
            names.restore()
        for attributes in self._attributes:
            attributes.restore()
        for contents in self._contents:
            contents.restore()
        for generator, state in self._generators:
            set_generator_state(generator, state)
        put_back(self._buffers)
        # A tensor that was not written into may be saved for a backward pass: it must not seem to have changed.
        put_back([(t, value) for _, t, version, value, certain in self._tensors if certain or t._version != version])
        for _, array, values in self._arrays:
            np.copyto(array, values)

    def restore_parameters(self) -> None:
        """Put back the parameters that forward passes wrote into."""
        put_back([(p, value) for p, version, value in self._parameters if differs(p, version, value)])

    def parameters_moved(self) -> bool:
        """Whether any of the parameters that are kept has another value than then; of shards, this rank's."""
        return any(not same(own_part(p.detach()), own_part(value)) for p, _, value in self._parameters)

    def written(self) -> Written:
        """What was written into since; to be asked before anything is put back."""
        tensors = {place for place, t, version, value, _ in self._tensors if differs(t, version, value)}
        self._tensors = [(at, t, version, value, at in tensors) for at, t, version, value, _ in self._tensors]
        arrays = {place for place, a, values in self._arrays if a.tobytes() != values.tobytes()}
        parameters = tuple(p for p, version, value in self._parameters if differs(p, version, value))
        return Written(parameters, frozenset(tensors | arrays))

    def missed(self) -> frozenset[Place]:
        """Attributes with a tensor that was written into and cannot be put back: it is large, and was never before."""
        beside = frozenset[Place]() if self._outside is None else self._outside.missed()
        return beside | {place for place, t, version in self._watched if t._version != version}


class _Reach:
    """All that can be reached from a model by registered modules, attributes and containers, but by ``known`` ones."""

    def __init__(self, model: nn.Module, known: Sequence[nn.Module] = ()) -> None:
        strangers = set(map(id, known))
        self.modules = [m for m in model.modules() if id(m) not in strangers and not isinstance(m, ScriptModule)]
        # The optimizer can hold, and a probe move, those of registered modules only.
        self.parameters = list(model.parameters())
        self.containers: list[Any] = []
        self.generators: list[Any] = []
        self._found: list[tuple[Place, Any]] = []  # tensors and arrays
        self._seen = set(map(id, (*self.modules, *self.parameters, *known)))
        for module in self.modules:  # it grows on the way
            if not _is_opaque(module):
                for name, value in itertools.chain(vars(module).items(), slots_of(module).items()):
                    if type(value) not in NUMBERS and name not in TORCHS_OWN:
                        self._follow((module, name), value)

    def _follow(self, place: Place, value: Any) -> None:
        pending = [value]
        while pending:
            value = pending.pop()
            kind = type(value)
            if kind in NUMBERS or id(value) in self._seen:
                continue
            if issubclass(kind, _HOLDING):  # and not what only passes for one, as a weak reference's proxy
                self._seen.add(id(value))
                if issubclass(kind, CONTAINERS):
                    self.containers.append(value)
                    if kind.__dictoffset__:  # a subclass has attributes
                        pending.append(vars(value))
                items = inside(value)
                if not NUMBERS.issuperset(map(type, items)):
                    pending += reversed(items)
            elif kind in GENERATORS:
                self._seen.add(id(value))
                self.generators.append(value)
            elif isinstance(value, nn.Module):
                unseen = [module for module in value.modules() if id(module) not in self._seen]
                hidden = [module for module in unseen if not isinstance(module, ScriptModule)]
                self.modules += hidden
                self._seen.update(map(id, hidden))
                for module in hidden:
                    self._found += [((module, name), p) for name, p in module._parameters.items() if p is not None]
            elif kind is np.ndarray or isinstance(value, Tensor):
                self._seen.add(id(value))
                self._found.append((place, value))

    def values(self) -> Iterator[tuple[Place, Any]]:
        """Tensors and arrays that a forward pass could write into, and that are no registered parameter's memory."""
        if not self._found:
            return
        storages = [t.untyped_storage() for p in self.parameters for t in plain_parts(p) if t.layout is torch.strided]
        objects = {storage._cdata for storage in storages}
        memory = [(s.data_ptr(), s.data_ptr() + s.nbytes()) for s in storages if s.device.type == "cpu"]
        for place, value in self._found:
            if isinstance(value, Tensor):
                writable = value.layout in LAYOUTS and not value.is_inference()
                if writable and all(t.untyped_storage()._cdata not in objects for t in plain_parts(value)):
                    yield place, value
            elif value.flags.writeable:
                address = value.__array_interface__["data"][0]
                if not any(start <= address < end for start, end in memory):
                    yield place, value


def _is_opaque(module: nn.Module) -> bool:
    return isinstance(module, _OWN_AFFAIRS)


def _registers(module: nn.Module) -> list[dict[str, Any]]:
    """Where a module's buffers, submodules and parameters stand under their names.

    Shards stand where they are found: `fully_shard` puts gathered copies into their places, and knows when to go back.
    """
    found: list[dict[str, Any]] = [module._buffers, module._modules]
    sharded = any(type(p) is not nn.Parameter and hasattr(p, "to_local") for p in module._parameters.values())
    return found if sharded else [*found, module._parameters]
