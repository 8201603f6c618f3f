"""A checkpoint is taken whole, or refused with a sentence, and then nothing of the training has changed."""

from __future__ import annotations

import copy
import io
import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import autolr
from training_runs import BATCHES_OF_LINES, cross_entropy, seed_everything

pytestmark = pytest.mark.long

POLICIES = {
    "search": autolr.PeakSearch(peak=0.02),
    "windowed": autolr.ExploreExploit(window=4, superbatch=3, spread=2),
    "monitor": autolr.Monitor(window=4, superbatch=3),
}


def made(policy, optimizer=torch.optim.AdamW, hidden=8, **settings):
    seed_everything(0)
    model = nn.Sequential(nn.Linear(6, hidden), nn.Tanh(), nn.Linear(hidden, 2))
    base = optimizer(model.parameters(), lr=0.01, **settings)
    return model, autolr.AutoLR(base, model, cross_entropy, BATCHES_OF_LINES, 24, policy=policy)


def train(model, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        cross_entropy(model, BATCHES_OF_LINES[optimizer.steps_taken % len(BATCHES_OF_LINES)]).backward()
        optimizer.step()


@pytest.fixture(scope="module", params=POLICIES)
def saved(request):
    """A policy, and a checkpoint of a run in its middle."""
    model, optimizer = made(POLICIES[request.param])
    train(model, optimizer, 14)
    return POLICIES[request.param], optimizer.state_dict()


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in nested containers."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def altered(state: dict[str, Any], path: tuple[Any, ...], change: Any) -> dict[str, Any]:
    """A copy with one place changed, or taken away."""
    state = copy.deepcopy(state)
    inside, trail = state, []
    for key in path[:-1]:
        trail.append((inside, key))
        inside = inside[key]
    if isinstance(inside, tuple):
        changed = list(inside)
        if change is REMOVED:
            changed.pop(path[-1])
        else:
            changed[path[-1]] = change
        holder, key = trail[-1]
        if isinstance(holder, tuple):
            return {}
        holder[key] = tuple(changed)
    elif change is REMOVED:
        inside.pop(path[-1])
    else:
        inside[path[-1]] = change
    return state


REMOVED = object()
CHANGES = [REMOVED, None, "x", -1, 1e300, [], {}, [[1]], torch.zeros(3, 3)]


def told(model, optimizer):
    return copy.deepcopy([list(model.state_dict().values()), optimizer.state_dict()])


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


def test_whatever_is_altered_in_autolrs_part_is_noticed_and_nothing_is_loaded(saved):
    policy, state = saved
    model, optimizer = made(policy)
    train(model, optimizer, 3)
    before, chosen = told(model, optimizer), random.Random(0)
    where = [path for path in places(state) if path[0] == "autolr" and "snapshot" not in path]
    tried = 0
    for path in chosen.sample(where, min(len(where), 150)):
        change = chosen.choice(CHANGES)
        wrong = altered(state, path, change)
        if wrong and not same(wrong, state):
            tried += 1
            with pytest.raises(ValueError, match=r"damaged|saved with|no 'autolr' entry"):
                optimizer.load_state_dict(wrong)
    assert tried > 40
    assert same(told(model, optimizer), before)


def test_whatever_is_altered_in_the_wrapped_optimizers_part_is_refused_or_taken_whole(saved):
    policy, state = saved
    chosen, refused = random.Random(1), 0
    where = [path for path in places(state) if path[0] != "autolr" or "snapshot" in path]
    for path in chosen.sample(where, min(len(where), 80)):
        wrong = altered(state, path, chosen.choice(CHANGES))
        if not wrong:
            continue
        model, optimizer = made(policy)
        before = told(model, optimizer)
        try:
            optimizer.load_state_dict(wrong)
        except ValueError:
            refused += 1
            assert same(told(model, optimizer), before)
    assert refused > 20


def test_a_bit_flipped_in_a_file_is_noticed(saved, tmp_path):
    policy, state = saved
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content, chosen, refused = buffer.getvalue(), random.Random(2), 0
    for _ in range(60):
        flipped = bytearray(content)
        flipped[chosen.randrange(len(content))] ^= 1 << chosen.randrange(8)
        model, optimizer = made(policy)
        before = told(model, optimizer)
        try:
            loaded = torch.load(io.BytesIO(bytes(flipped)), weights_only=True)
        except Exception:  # torch's own checksums: RuntimeError, UnpicklingError and others
            refused += 1
            continue
        try:
            optimizer.load_state_dict(loaded)
        except ValueError:
            refused += 1
            assert same(told(model, optimizer), before)
        else:
            assert same(loaded, state)  # it was in the file's padding or its names
    assert refused > 20


def test_another_optimizers_state_other_shapes_and_another_version_are_refused_by_name(saved):
    policy, state = saved
    for settings, said in (
        ({"optimizer": torch.optim.SGD}, "optimizer 'AdamW'; this AutoLR has 'SGD'"),
        ({"hidden": 9}, r"Parameter 0 was saved with shape \(8, 6\); here it has \(9, 6\)"),
    ):
        model, optimizer = made(policy, **settings)
        before = told(model, optimizer)
        with pytest.raises(ValueError, match=said):
            optimizer.load_state_dict(state)
        assert same(told(model, optimizer), before)
    model, optimizer = made(policy)
    with pytest.raises(ValueError, match="version 3; this AutoLR has"):
        optimizer.load_state_dict({**state, "autolr": {**state["autolr"], "version": 3}})


def test_an_optimizer_that_fails_in_the_middle_of_its_own_load_is_put_back(saved, monkeypatch):
    policy, state = saved
    model, optimizer = made(policy)
    train(model, optimizer, 5)
    before = told(model, optimizer)
    load = torch.optim.AdamW.load_state_dict
    calls = []

    def breaks(self, state_dict):
        load(self, state_dict)
        calls.append(state_dict)
        if len(calls) == 1:
            raise RuntimeError("half-way")

    monkeypatch.setattr(torch.optim.AdamW, "load_state_dict", breaks)
    with pytest.raises(ValueError, match="damaged: RuntimeError, half-way"):
        optimizer.load_state_dict(state)
    assert same(told(model, optimizer), before)
