"""Several optimizers as one: Muon for matrices and AdamW for the rest. Their rates keep their ratio."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer


def without_schedulers(held: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer's attributes but for the ``step`` that a torch scheduler counts by, which steps this very object."""
    return {name: value for name, value in held.items() if not hasattr(value, "_wrapped_by_lr_sched")}


class Together(Optimizer):
    """Steps each of the ``optimizers`` in turn; groups and state are theirs, side by side.

    Its `state_dict` is that of one optimizer with all their groups. Hooks are registered with the last of them.

    Args:
        optimizers: two or more, none of which holds a parameter of another.

    Raises:
        TypeError: something that is no optimizer.
        ValueError: none, or a parameter that two of them hold.
    """

    _opt_called = True  # a torch scheduler asks whether it has stepped: loops step those that it is made of

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        # Not Optimizer.__init__: the groups are theirs.
        for optimizer in optimizers:
            if not isinstance(optimizer, Optimizer):
                raise TypeError(
                    "base must be a torch.optim.Optimizer, or a list of them to be tuned together; got list with a "
                    f"{type(optimizer).__name__} in it. For instance AutoLR(torch.optim.SGD(model.parameters(), "
                    "lr=0.1), model, ...)."
                )
        if not optimizers:
            raise ValueError("A list of optimizers to tune together must not be empty.")
        self.optimizers = list(optimizers)
        held = [id(p) for group in self.param_groups for p in group["params"]]
        if len(held) != len(set(held)):
            raise ValueError(
                f"{len(held) - len(set(held))} parameters are held by two of the optimizers: both would move them at "
                "each step. Give each parameter to one of them."
            )
        self.defaults = dict(self.optimizers[0].defaults)

    def __getattr__(self, name: str) -> Any:
        """``train`` and ``eval`` of those that have them, where one has."""
        if name in {"train", "eval"} and "optimizers" in vars(self):
            theirs = [getattr(optimizer, name) for optimizer in self.optimizers if hasattr(optimizer, name)]
            if theirs:
                return lambda: [switch() for switch in theirs] and None
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """All their groups, in their order."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        for optimizer in self.optimizers:
            count = len(optimizer.param_groups)
            optimizer.param_groups, groups = groups[:count], groups[count:]

    @property
    def state(self) -> Any:
        """The state of a parameter, wherever it is held."""
        return _States(self.optimizers)

    @state.setter
    def state(self, state: Any) -> None:
        held, state = _States(self.optimizers), dict(state)
        held.clear()
        held.update(state)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Each takes its step. A closure is called once, before the first."""
        loss = None if closure is None else closure()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Of all of them."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:  # noqa: ARG002
        """Refused: nobody knows to which of them."""
        raise TypeError(
            "These are several optimizers: add the group to the one that is to move it, before AutoLR is made."
        )

    def register_step_post_hook(self, hook: Any) -> Any:
        """Called when the last of them has stepped."""
        return self.optimizers[-1].register_step_post_hook(hook)

    def register_step_pre_hook(self, hook: Any) -> Any:
        """Called when the first of them is about to step."""
        return self.optimizers[0].register_step_pre_hook(hook)

    def state_dict(self) -> dict[str, Any]:
        """As of one optimizer that has all the groups: parameters are numbered through."""
        state: dict[int, Any] = {}
        groups: list[dict[str, Any]] = []
        for optimizer in self.optimizers:
            first = sum(len(group["params"]) for group in groups)
            own = optimizer.state_dict()
            state.update({first + i: value for i, value in own["state"].items()})
            groups += [{**group, "params": [first + i for i in group["params"]]} for group in own["param_groups"]]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a `state_dict`.

        Raises:
            ValueError: another number of groups.
        """
        groups = list(state_dict["param_groups"])
        if len(groups) != len(self.param_groups):
            raise ValueError(
                f"This state_dict has {len(groups)} parameter groups; these optimizers have {len(self.param_groups)}."
            )
        for optimizer in self.optimizers:
            own, groups = groups[: len(optimizer.param_groups)], groups[len(optimizer.param_groups) :]
            place = {number: i for i, number in enumerate(i for group in own for i in group["params"])}
            optimizer.load_state_dict({
                "state": {place[i]: value for i, value in state_dict["state"].items() if i in place},
                "param_groups": [{**group, "params": [place[i] for i in group["params"]]} for group in own],
            })  # fmt: skip

    def __repr__(self) -> str:
        return " + ".join(type(optimizer).__name__ for optimizer in self.optimizers)

    def __getstate__(self) -> dict[str, Any]:
        return without_schedulers(vars(self))

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


class _States(MutableMapping[Tensor, Any]):
    """The optimizers' ``state`` side by side: what is written goes to the one that holds the parameter."""

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self._states = [optimizer.state for optimizer in optimizers]
        self._owner = {
            id(p): optimizer.state
            for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]
        }  # fmt: skip

    def _of(self, p: Tensor) -> Any:
        """Whose it is; the first one's, of what none of them holds."""
        return self._owner.get(id(p), self._states[0])

    def __getitem__(self, p: Tensor) -> Any:
        return self._of(p)[p]

    def __setitem__(self, p: Tensor, value: Any) -> None:
        self._of(p)[p] = value

    def __delitem__(self, p: Tensor) -> None:
        del self._of(p)[p]

    def __contains__(self, p: object) -> bool:
        return isinstance(p, Tensor) and p in self._of(p)

    def get(self, p: Tensor, default: Any = None) -> Any:
        """Without making an entry, as a lookup in an optimizer's own state would."""
        return self._of(p).get(p, default)

    def pop(self, p: Tensor, *default: Any) -> Any:
        """Likewise."""
        return self._of(p).pop(p, *default)

    def __iter__(self) -> Iterator[Tensor]:
        return (p for state in self._states for p in state)

    def __len__(self) -> int:
        return sum(map(len, self._states))


def as_one(optimizer: Any) -> Optimizer:
    """A list or tuple of optimizers as `Together`; anything else as it is."""
    if isinstance(optimizer, (list, tuple)):
        optimizer = optimizer[0] if len(optimizer) == 1 else Together(optimizer)
    one: Optimizer = optimizer
    return one
