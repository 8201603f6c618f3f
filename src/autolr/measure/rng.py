"""The states of random generators: of all that training draws from, for a checkpoint, and of single ones."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import torch

GENERATORS = frozenset({torch.Generator, np.random.Generator, np.random.RandomState, random.Random})  # no others' kinds


def random_state() -> dict[str, Any]:
    """Of torch on the CPU and on each GPU, of numpy's legacy generator and of Python; loads with ``weights_only``."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002 - the one that transforms may draw from
    return {
        "torch": torch.get_rng_state(),
        # Asking an uninitialised CUDA for its generators would initialise it.
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],  # type: ignore[no-untyped-call]
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "python": random.getstate(),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Go on from a `random_state`."""
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    random.setstate(state["python"])


def generator_state(generator: Any) -> Any:
    """Of one generator: torch's, numpy's or Python's."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return copy.deepcopy(generator.bit_generator.state)
    return generator.get_state() if isinstance(generator, np.random.RandomState) else generator.getstate()


def set_generator_state(generator: Any, state: Any) -> None:
    """Go on from a `generator_state`."""
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)
