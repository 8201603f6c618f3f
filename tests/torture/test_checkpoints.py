"""A run continued from a checkpoint at any step is the uninterrupted run, to the bit: by the thousand."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_runs import OPTIMIZERS, POLICIES, Run, loaded, saved, unequal
from torch import Tensor

SHARE = int(os.environ.get("AUTOLR_TORTURE_SHARE", "1"))
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of a run that diverges, or is too short to search


def in_safetensors(state: dict[str, Any]) -> bytes:
    """The tensors in safetensors, all else as JSON in its metadata."""
    tensors: dict[str, Tensor] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor):
            tensors[str(len(tensors))] = value.detach().clone().contiguous()
            return {"tensor": len(tensors) - 1}
        if isinstance(value, dict):  # keys may be numbers, which JSON has not
            return {"items": [[key, plain(v)] for key, v in value.items()]}
        if isinstance(value, (list, tuple)):
            return {"list" if isinstance(value, list) else "tuple": [plain(v) for v in value]}
        return {"value": value}

    safetensors = pytest.importorskip("safetensors.torch", reason="the extra torture has it")
    told = json.dumps(plain(state))
    return safetensors.save(tensors, {"rest": told})


def from_safetensors(content: bytes) -> dict[str, Any]:
    tensors = pytest.importorskip("safetensors.torch").load(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])

    def built(value: dict[str, Any]) -> Any:
        ((kind, held),) = value.items()
        if kind == "tensor":
            return tensors[str(held)]
        if kind == "items":
            return {key: built(v) for key, v in held}
        if kind in {"list", "tuple"}:
            return (list if kind == "list" else tuple)(built(v) for v in held)
        return held

    state: dict[str, Any] = built(json.loads(header["__metadata__"]["rest"]))
    return state


FORMATS: dict[str, tuple[Callable[[dict[str, Any]], bytes], Callable[[bytes], dict[str, Any]]]] = {
    "torch.save, weights_only": (saved, loaded),
    "safetensors": (in_safetensors, from_safetensors),
}


def resumed(policy: str, optimizer: str, written: str, every: int = 1) -> tuple[int, list[str]]:
    """How many checkpoints were continued to the end, and what differed there."""
    save, load = FORMATS[written]
    run = Run(policy, optimizer)
    checkpoints = [save(run.state())]
    while run.tuned.steps_taken < run.steps:
        run.step()
        checkpoints.append(save(run.state()))
    expected, found = run.end(), []
    chosen = list(enumerate(checkpoints))[::every]
    for at, content in chosen:
        again = Run(policy, optimizer)
        with torch.no_grad():
            for p in again.model.parameters():  # all must come from the checkpoint
                p.add_(1.0)
        again.load(load(content))
        found += [f"from step {at}: {name}" for name in unequal(expected, again.to_end().end())]
    return len(chosen), found


@pytest.mark.torture
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("policy", POLICIES)
def test_a_run_continued_from_any_of_its_steps_is_the_uninterrupted_one(
    policy: str, optimizer: str, record_property: Any
) -> None:
    done, found = resumed(policy, optimizer, "torch.save, weights_only", SHARE)
    record_property("checkpoints", done)
    assert found == []


@pytest.mark.torture
@pytest.mark.parametrize("policy", POLICIES)
def test_a_run_continued_from_safetensors_is_the_uninterrupted_one(policy: str, record_property: Any) -> None:
    done, found = resumed(policy, "AdamW, amsgrad", "safetensors", SHARE)
    record_property("checkpoints", done)
    assert found == []


@pytest.mark.long
@pytest.mark.parametrize("written", FORMATS)
def test_a_few_checkpoints_are_continued_to_the_bit(written: str) -> None:
    assert resumed("ExploreExploit()", "momentum", written, 17)[1] == []
