"""What is loaded is checked whole before anything is changed: a `state_dict` is taken, or refused and all stays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from autolr.measure.snapshot import held_parameters

PLACE = "saved"  # of the controller's: where to roll back to, tensors
OF_OTHERS = {"initial_lr", "param_names", "name"}  # of a group: a scheduler's, or only called so
WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # [bytes] of an element -> as whole numbers


def sealed(own: dict[str, Any], state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """With checksums of the tensors, and a digest of all of AutoLR's own numbers and words.

    ``torch.load`` verifies none: a bit that a disk or a copy has flipped would go on training.
    """
    own["sums"] = _sums(state_dict["state"], own["controller"][PLACE])
    own["settings"] = _settings(state_dict["param_groups"])
    return {**own, "digest": digest(own)}


def shapes_of(optimizer: Optimizer) -> list[list[int]]:
    """Of the parameters, in the order of the groups."""
    return [list(p.shape) for p in held_parameters(optimizer)]


def check_saved(state_dict: Any, plan: Mapping[str, Any], base: Optimizer) -> dict[str, Any]:
    """AutoLR's own part of a `state_dict` that fits this run and has not been altered.

    Args:
        state_dict: as it was loaded.
        plan: what a continued run must have in common with the one it continues.
        base: the wrapped optimizer, as it is before the load.

    Raises:
        ValueError: it is another optimizer's, another run's, or damaged.
    """
    own = state_dict.get("autolr") if isinstance(state_dict, Mapping) else None
    if not isinstance(own, Mapping):
        raise ValueError(
            "This state_dict has no 'autolr' entry: it was saved by another optimizer. To continue only the "
            "wrapped optimizer from it, call optimizer.base.load_state_dict(...). torch.distributed.checkpoint "
            "leaves the entry out: save and load autolr.integrations.checkpoint.TrainingState(model, optimizer)."
        )
    for name, mine in plan.items():
        if own.get(name) != mine:
            raise ValueError(
                f"This state_dict was saved with {name} {own.get(name)!r:.200}; this AutoLR has {mine!r}. A run is "
                f"continued with the same {name}. To go on differently, load only the wrapped optimizer's part, "
                "with optimizer.base.load_state_dict(...), and let AutoLR begin anew."
            )
    if own.get("digest") != digest(own):
        raise damaged("AutoLR's part is not what was saved")
    _check_shapes(own["shapes"], base)
    _check_base(state_dict, base)
    _check_sums(own, state_dict["state"])
    _check_settings(own, state_dict["param_groups"])
    return dict(own)


class Before:
    """A wrapped optimizer's state and groups before a load, by reference, to be put back where it fails.

    Not its ``state_dict``: that would call the hooks that users have registered there.
    """

    def __init__(self, base: Optimizer) -> None:
        self._base = base
        self._groups = [dict(group) for group in base.param_groups]
        self._state = {p: dict(held) if isinstance(held, dict) else held for p, held in base.state.items()}

    def restore(self) -> None:
        """Put both back."""
        for group, kept in zip(self._base.param_groups, self._groups, strict=True):
            group.clear()
            group.update(kept)
        self._base.state.clear()
        self._base.state.update(self._state)


def unshare(base: Optimizer, state_dict: Mapping[str, Any]) -> None:
    """Give an optimizer that was loaded tensors of its own, so that the same `state_dict` can be loaded once more."""
    given = {id(tensor) for _, tensor in _tensors(state_dict.get("state"), "state")}
    for held in base.state.values():
        _unshare(held, given)


def _unshare(held: Any, given: set[int]) -> None:
    places = held.items() if isinstance(held, dict) else enumerate(held) if isinstance(held, list) else ()
    for place, value in list(places):
        if id(value) in given:
            held[place] = value.clone()
        else:
            _unshare(value, given)


def damaged(why: str) -> ValueError:
    """What is said of a checkpoint that cannot be continued from."""
    return ValueError(
        f"This state_dict is damaged: {why}. Nothing was loaded. Continue from another checkpoint, or load only the "
        "wrapped optimizer's part, with optimizer.base.load_state_dict(...)."
    )


def digest(own: Mapping[str, Any]) -> str:
    """The same for what a file of JSON or of torch gives back: tuples there are lists."""
    told = {key: value for key, value in own.items() if key in KEYS}
    if isinstance(told.get("controller"), Mapping):
        place = told["controller"].get(PLACE)  # its tensors have their sums
        steps = place.get("steps") if isinstance(place, Mapping) else place
        told["controller"] = {**told["controller"], PLACE: steps}
    text = json.dumps(told, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode("utf8", "backslashreplace")).hexdigest()


# All of them; a framework's adapter may put keys of its own beside.
KEYS = frozenset({
    "version", "policy", "total_steps", "seed", "optimizer", "shapes", "steps", "ranks", "rates", "controller",
    "history", "cost", "recorded_forwards", "warned", "curves", "sums", "settings",
})  # fmt: skip


def _check_shapes(saved: Any, base: Optimizer) -> None:
    mine = shapes_of(base)
    if len(saved) != len(mine):
        raise ValueError(
            f"This state_dict was saved with {len(saved)} parameters; this optimizer holds {len(mine)}. A run is "
            "continued with the same model and the same parameters in the optimizer."
        )
    for place, (theirs, ours) in enumerate(zip(saved, mine, strict=True)):
        if list(theirs) != ours:
            raise ValueError(
                f"Parameter {place} was saved with shape {tuple(theirs)}; here it has {tuple(ours)}. A run is "
                "continued with the same model."
            )


def _check_base(state_dict: Mapping[str, Any], base: Optimizer) -> None:
    """Whether the wrapped optimizer's part has the form that `Optimizer.load_state_dict` takes for granted."""
    groups, state = state_dict.get("param_groups"), state_dict.get("state")
    if not isinstance(groups, (list, tuple)) or not isinstance(state, Mapping):
        raise damaged("the wrapped optimizer's part lacks 'state' or 'param_groups'")
    if len(groups) != len(base.param_groups):
        raise ValueError(
            f"This state_dict was saved with {len(groups)} parameter groups; this optimizer has "
            f"{len(base.param_groups)}. Add the groups that are missing, in the same order, before it is loaded."
        )
    for theirs, ours in zip(groups, base.param_groups, strict=True):
        held = theirs.get("params") if isinstance(theirs, Mapping) else None
        if not isinstance(held, (list, tuple)) or len(held) != len(ours["params"]):
            raise damaged("a parameter group holds another number of parameters than here")
        if missing := ours.keys() - theirs.keys() - OF_OTHERS:
            raise damaged(f"a parameter group lacks {', '.join(sorted(map(str, missing)))}")
    numbers = [number for group in groups for number in group["params"]]
    if len(set(map(repr, numbers))) != len(numbers) or not all(isinstance(number, (int, str)) for number in numbers):
        raise damaged("two parameters have one number, or one has none")
    for number, parameter in zip(numbers, held_parameters(base), strict=True):
        entries = state.get(number, {})
        if not isinstance(entries, Mapping):
            raise damaged(f"the state of parameter {number} is no dictionary")
        now = base.state.get(parameter, {})
        for name, value in entries.items():
            expected = now.get(name) if isinstance(now, Mapping) else None
            if isinstance(expected, Tensor) != isinstance(value, Tensor) and name in now:
                raise damaged(f"{name} of parameter {number} is a {type(value).__name__}")
            if isinstance(value, Tensor) and _misfits(value, expected, parameter):
                raise damaged(f"{name} of parameter {number} has shape {tuple(value.shape)}")


def _sums(state: Any, place: Any) -> dict[str, list[Any]]:
    """Of each plain tensor, by where it stands: its precision, and the sum of its elements taken for whole numbers.

    One bit more or less changes the sum. Shards have none: they are other ones on another number of ranks.
    """
    told: dict[str, list[Any]] = {}
    sums = []
    for name, tensor in (*_tensors(state, "state"), *_tensors(place, PLACE)):
        if type(tensor) in {Tensor, nn.Parameter} and tensor.layout is torch.strided and not tensor.is_meta:
            plain = torch.view_as_real(tensor) if tensor.is_complex() else tensor
            size = plain.element_size()
            sums.append(plain.detach().contiguous().view(WHOLE[size]).sum(dtype=torch.int64))
            told[name] = [str(tensor.dtype)]
    for entry, value in zip(told.values(), _values(sums), strict=True):
        entry.append(value)
    return told


def _values(sums: list[Tensor]) -> list[int]:
    """As numbers, waiting once for each device."""
    found: dict[int, int] = {}
    for device in {total.device for total in sums}:
        places = [place for place, total in enumerate(sums) if total.device == device]
        values = torch.stack([sums[place] for place in places]).tolist()
        found.update(zip(places, values, strict=True))
    return [found[place] for place in range(len(sums))]


def _tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _tensors(inner, f"{name}/{key}")
    elif isinstance(value, (list, tuple)):
        for key, inner in enumerate(value):
            yield from _tensors(inner, f"{name}/{key}")


def _settings(groups: Any) -> list[dict[str, str]]:
    """Each group's plain settings, as texts: the rate, momentum, and so on."""
    plain = (bool, int, float, str, tuple, list, type(None))
    return [{k: repr(v) for k, v in group.items() if k != "params" and isinstance(v, plain)} for group in groups]


def _check_settings(own: Mapping[str, Any], groups: Any) -> None:
    for saved, found in zip(own["settings"], _settings(groups), strict=True):
        for name in saved.keys() & found.keys():
            if saved[name] != found[name]:
                raise damaged(f"{name} of a parameter group is {found[name]:.60} and was {saved[name]:.60}")


def _check_sums(own: Mapping[str, Any], state: Any) -> None:
    found = _sums(state, own["controller"][PLACE])
    for name, saved in own["sums"].items():
        if name not in found:
            if name.startswith("state/") and not any(other.startswith(name.rpartition("/")[0]) for other in found):
                continue  # a shard by now, or left out on purpose by an adapter
            if name.startswith("state/"):
                raise damaged(f"{name} is missing")
        elif found[name][0] == saved[0] and found[name][1] != saved[1]:
            raise damaged(
                f"{name} is not what was saved, or training went on since: a state_dict shares its tensors with the "
                "optimizer, and copy.deepcopy(...) keeps it as it is"
            )


def _misfits(value: Tensor, expected: Any, parameter: Tensor) -> bool:
    """Whether a state's tensor cannot be this parameter's: of as many dimensions, and another shape than here."""
    if isinstance(expected, Tensor) and expected.shape == value.shape:
        return False
    return value.ndim == parameter.ndim > 0 and value.shape != parameter.shape and value.numel() != 1
