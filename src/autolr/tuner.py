"""`AutoLR`: an optimizer that wraps another one and moves its learning rate. Where everything else meets."""

from __future__ import annotations

import dataclasses
import math
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from autolr import trace as decision_log
from autolr.consensus import gather_minibatches, rank
from autolr.cost import Cost, affordable_superbatch
from autolr.policies import Decision, Look, Paper, Policy, Window
from autolr.policies.sampling import number
from autolr.probe import LossFunction, Probe
from autolr.quadratic import Quadratic, fit_quadratic
from autolr.rates import Rates
from autolr.saturation import LossDrop, loss_drop
from autolr.snapshot import Snapshot, held_parameters
from autolr.superbatch import Superbatches, count_batches
from autolr.trace import Record

VERSION = 1  # of the checkpoint's layout
LONGEST_WINDOW, LARGEST_SUPERBATCH = 1000, 100  # the paper's (appendices B and C)
FEWEST_WINDOWS = 20  # in a short run: docs/method.md, "How often to look"

_UNSUPPORTED = {
    "LBFGS": "it searches along its own step and needs a closure",
    "SparseAdam": "it moves only the rows that a minibatch touched",
    "Rprop": "its steps do not depend on the learning rate after the first one",
}


@dataclass(frozen=True)
class _Open:
    """The window that is running: where it began, and what is needed to judge it and to undo it."""

    start: int  # steps taken when it began
    superbatch: int  # number of the superbatch that both its ends are measured on
    losses: list[float]  # of that superbatch's minibatches, where it began
    snapshot: Snapshot | None


class AutoLR(Optimizer):
    """Tunes the learning rate of another optimizer while it trains.

    It *is* a ``torch.optim.Optimizer``; ``param_groups``, ``state`` and ``defaults`` are the wrapped one's own. All
    parameter groups are scaled by one factor. It looks after each full window of steps; between looks a step is the
    wrapped optimizer's and nothing else.

    Args:
        base: the optimizer to tune, any that moves its parameters in proportion to its ``lr``.
        model: the module that ``loss_fn`` calls. Call it as training does; its mode is left as it is.
        loss_fn: ``loss_fn(model, batch) -> scalar tensor``, the mean loss of one minibatch. It is called without
            gradients, several times for one batch; it must not write into the batch or keep counts.
        batches: a ``DataLoader``, or an iterable of minibatches that can be iterated again. Give it the training data.
        total_steps: optimizer steps in the whole run.
        policy: what to do with what is seen; the paper's by default. ``Hold()`` looks and never changes the rate.
        window: steps between looks. By default a twentieth of the run, at most 1,000.
        superbatch: minibatches that a loss is averaged over. By default as many as keep looks at a sixth of the
            training's cost, as in the paper, at most 100 and at most what ``batches`` has.
        seed: of the superbatches and of the dropout masks inside looks. Training's own randomness is never touched.
        trace: a file to which each decision is appended as a line of JSON.
        held_out: further eps to sample at each look, in multiples of the rate, kept from the fit: for judging it.

    Attributes:
        base: the wrapped optimizer.
        history: a `Record` for the end of each window.
        cost: what all of it cost so far.

    Raises:
        TypeError: ``base`` cannot be tuned, or an argument is of the wrong kind.
        ValueError: an argument is out of range, ``base`` holds parameters that are not the model's, or the loss of a
            first minibatch is not a finite number.

    Example:
        >>> import torch, autolr
        >>> model = torch.nn.Linear(2, 1)
        >>> data = [torch.randn(8, 2) for _ in range(10)]
        >>> loss_fn = lambda model, x: (model(x) - x.sum(1, keepdim=True)).square().mean()
        >>> base = torch.optim.SGD(model.parameters(), lr=0.001)
        >>> optimizer = autolr.AutoLR(base, model, loss_fn, data, total_steps=100)
        >>> for batch in data * 10:
        ...     optimizer.zero_grad()
        ...     loss_fn(model, batch).backward()
        ...     optimizer.step()
        >>> optimizer.lr > 0.001
        True
    """

    def __init__(
        self,
        base: Optimizer,
        model: nn.Module,
        loss_fn: LossFunction,
        batches: Iterable[Any],
        total_steps: int,
        *,
        policy: Policy | None = None,
        window: int | None = None,
        superbatch: int | None = None,
        seed: int = 0,
        trace: str | os.PathLike[str] | None = None,
        held_out: tuple[float, ...] = (),
    ) -> None:
        _check_base(base, model)
        if not callable(loss_fn):
            raise TypeError(f"loss_fn must be callable as loss_fn(model, batch); got {type(loss_fn).__name__}.")
        self.policy: Policy = Paper() if policy is None else policy
        self.total_steps = _count("total_steps", total_steps)
        default_window = min(LONGEST_WINDOW, max(1, total_steps // FEWEST_WINDOWS))
        self.window = default_window if window is None else _count("window", window)
        if superbatch is None:
            affordable = affordable_superbatch(self.window, len(self.policy.eps))
            superbatch = min(LARGEST_SUPERBATCH, affordable, count_batches(batches) or LARGEST_SUPERBATCH)
        self.held_out = tuple(float(e) for e in held_out)

        self.base = base
        # Not Optimizer.__init__: the groups are the base's. Hooks are registered there, so that they fire once.
        vars(self).update({name: value for name, value in vars(base).items() if name.startswith("_optimizer_")})
        self.history: list[Record] = []
        self.cost = Cost()
        self._model = model
        self._rates = Rates(base)
        # Ranks look at different data and share the losses.
        superbatches = Superbatches(batches, _count("superbatch", superbatch), _count("seed", seed, low=0) + rank())
        self._probe = Probe(model, loss_fn, superbatches)
        self._probe.check()
        self._log = None if trace is None or rank() else decision_log.open_log(trace)
        self._policy_state = self.policy.begin()
        self._steps = 0
        self._drawn = 0  # superbatches
        self._open: _Open | None = None
        self._warned: set[str] = set()

    # What a torch.optim.Optimizer has: the base's own.
    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The wrapped optimizer's parameter groups."""
        return self.base.param_groups

    @property
    def state(self) -> Any:  # type: ignore[override]
        """The wrapped optimizer's state."""
        return self.base.state

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        """The wrapped optimizer's defaults."""
        return self.base.defaults

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As the wrapped optimizer does."""
        self.base.zero_grad(set_to_none=set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the wrapped optimizer; its rate keeps its ratio to the others from here on."""
        self.base.add_param_group(param_group)
        _check_held(self.base, self._model)
        self._rates = Rates(self.base)
        self._open = None  # the snapshot of the open window does not know the new group: a new window begins

    def __repr__(self) -> str:
        return f"AutoLR({self.base!r}, policy={self.policy!r}, window={self.window}, superbatch={self.superbatch})"

    @property
    def lr(self) -> float:
        """The present learning rate: the largest over the parameter groups."""
        return self._rates.lr

    @property
    def phase(self) -> str:
        """The policy's present phase."""
        return self.policy.phase(self._steps, self.total_steps)

    @property
    def superbatch(self) -> int:
        """Minibatches that a loss is averaged over (on each rank)."""
        return self._probe.superbatches.size

    def step(self, closure: None = None) -> Any:  # type: ignore[override]
        """Take the wrapped optimizer's step, and at a window's end judge, look and decide.

        Returns:
            What the wrapped optimizer returns.

        Raises:
            TypeError: a closure was given. AutoLR has the loss function and needs none.
        """
        if closure is not None:
            raise TypeError("AutoLR.step() takes no closure: call loss.backward() first, then step().")
        if self._open is None and self._steps < self.total_steps:
            self._begin_window()
        ends = self._open is not None and self._steps + 1 == self._open.start + self.window < self.total_steps
        before = [p.detach().clone() for p in held_parameters(self.base)] if ends else []
        result = self.base.step()
        self._steps += 1
        if ends:
            self._end_window(before)
        return result

    def _begin_window(self, superbatch: int | None = None, losses: list[float] | None = None) -> None:
        if superbatch is None or losses is None:
            superbatch, losses = self._next_superbatch(), None
        if losses is None:
            losses = self._losses_here(superbatch)
        with self.cost.timing("snapshots"):
            snapshot = Snapshot.capture(self._model, self.base) if self.policy.rollback else None
        self._open = _Open(self._steps, superbatch, losses, snapshot)

    def _end_window(self, before: list[Tensor]) -> None:
        assert self._open is not None
        spent = self.cost.looks + self.cost.drop_rate + self.cost.held_out
        self._notice_foreign_rate()
        lr, opened = self._rates.lr, self._open
        end_losses = self._losses_here(opened.superbatch)
        window = _window(self._steps, self.total_steps, lr, opened, end_losses)
        self._policy_state, decision = self.policy.judge(self._policy_state, window)

        look: Look | None = None
        seen: dict[str, Any] = {}
        superbatch: int | None = None
        losses: list[float] | None = None
        if decision.verdict == "roll back":
            self._roll_back(opened)
        elif decision.verdict == "look":
            superbatch = self._next_superbatch()
            look, losses, seen = self._look(before, superbatch, lr)
            self._policy_state, decision = self.policy.decide(self._policy_state, look)
        self._rates.set(decision.lr)
        # The look's own loss at eps = 0 is where the next window begins: no forward pass is spent twice.
        self._begin_window(superbatch, losses)
        self._record(window, decision, seen, self.cost.looks + self.cost.drop_rate + self.cost.held_out - spent)

    def _look(self, before: list[Tensor], superbatch: int, lr: float) -> tuple[Look, list[float], dict[str, Any]]:
        parameters = held_parameters(self.base)
        eps = self.policy.eps
        with self.cost.timing("looks"):
            losses = gather_minibatches(self._probe.along(parameters, before, eps, superbatch))
        self.cost.looks += len(eps) * self.superbatch
        held_out: list[list[float]] = []
        if self.held_out:
            with self.cost.timing("held_out"):
                held_out = gather_minibatches(self._probe.along(parameters, before, self.held_out, superbatch))
            self.cost.held_out += len(self.held_out) * self.superbatch
        moved = any(not torch.equal(b, p) for b, p in zip(before, parameters, strict=True))
        if moved and not any(len(set(losses)) > 1 for losses in [record.losses for record in self.history]) and all(row == losses[0] for row in losses):
            self._warn(
                "same loss",
                f"The loss is {number(losses[0][0])} at every eps: moving the parameters along the last step makes no "
                "difference to loss_fn(model, batch). It must depend on the parameters of the model it is given, and "
                f"the step (LR {number(lr)}) must be large enough to show in float32. The LR is left alone.",
            )
        quadratic = fit_quadratic([e * lr for e in eps], losses) if _finite(losses) else None
        here = losses[eps.index(0.0)]
        seen = _seen(eps, lr, losses, quadratic) | {
            "held_out_eps": tuple(e * lr for e in self.held_out),
            "held_out_losses": tuple(_mean(row) for row in held_out),
        }
        return Look(self._steps, self.total_steps, lr, _mean(here), quadratic), here, seen

    def _roll_back(self, opened: _Open) -> None:
        assert opened.snapshot is not None, "a policy that rolls back says so, and then every window has a snapshot"
        with self.cost.timing("snapshots"):
            opened.snapshot.restore(self._model, self.base)
        self.cost.discarded_steps += self._steps - opened.start

    def _record(self, window: Window, decision: Decision, seen: dict[str, Any], forwards: int) -> None:
        record = Record(
            step=self._steps,
            phase=self.policy.phase(self._steps, self.total_steps),
            verdict=decision.verdict,
            reason=decision.reason,
            lr_before=window.lr,
            lr_after=decision.lr,
            loss=window.end_loss,
            drop_rate=window.drop.rate if window.drop else None,
            drop_rate_stderr=window.drop.stderr if window.drop else None,
            forwards=forwards,
            **seen,
        )
        self.history.append(record)
        if self._log is not None:
            decision_log.append(self._log, record)

    def _losses_here(self, superbatch: int) -> list[float]:
        with self.cost.timing("drop_rate"):
            losses = gather_minibatches([self._probe.here(superbatch)])[0]
        self.cost.drop_rate += self.superbatch
        return losses

    def _next_superbatch(self) -> int:
        self._drawn += 1
        return self._drawn

    def _notice_foreign_rate(self) -> None:
        if (changed := self._rates.foreign()) is not None:
            self._warn(
                "foreign rate",
                f"The learning rate was {number(changed[0])} when AutoLR last set it and is {number(changed[1])} now: a "
                "scheduler or other code steps the same optimizer. AutoLR goes on from the rate it found. Let only one "
                "of the two set the rate: drop the scheduler, or pass policy=autolr.Hold() to look without changing it.",
            )

    def _warn(self, key: str, text: str) -> None:
        if key not in self._warned:
            self._warned.add(key)
            warnings.warn(text, stacklevel=2)

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimizer's ``state`` and ``param_groups``, and all of AutoLR's own under ``autolr``.

        It holds plain containers and tensors, and loads with ``weights_only=True``. A run continued from it is, to the
        bit, the uninterrupted one, given that the model, the data order and the random generators continue too.
        """
        opened = self._open
        own = {
            "version": VERSION,
            "policy": type(self.policy).__name__,
            "policy_state": dataclasses.asdict(self._policy_state),
            "superbatch": self.superbatch,
            "seed": self._probe.superbatches.seed - rank(),
            "steps": self._steps,
            "drawn": self._drawn,
            "rates": self._rates.state_dict(),
            "window": None
            if opened is None
            else {
                "start": opened.start,
                "superbatch": opened.superbatch,
                "losses": list(opened.losses),
                "snapshot": None if opened.snapshot is None else opened.snapshot.state_dict(),
            },
            "history": [dataclasses.asdict(record) for record in self.history],
            "cost": self.cost.to_dict(),
            "warned": sorted(self._warned),
        }
        return {**self.base.state_dict(), "autolr": own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a `state_dict`.

        Raises:
            ValueError: it is not AutoLR's, of another version, or of a run with another policy, superbatch or seed.
        """
        own = state_dict.get("autolr")
        if own is None:
            raise ValueError(
                "This state_dict has no 'autolr' entry: it was saved by another optimizer. To continue only the wrapped "
                "optimizer from it, call optimizer.base.load_state_dict(...)."
            )
        mine = {"version": VERSION, "policy": type(self.policy).__name__, "superbatch": self.superbatch}
        mine["seed"] = self._probe.superbatches.seed - rank()
        for name, value in mine.items():
            if own[name] != value:
                raise ValueError(
                    f"This state_dict was saved with {name} {own[name]!r}; this AutoLR has {value!r}. A run can only be "
                    f"continued with the same {name}."
                )
        self.base.load_state_dict({k: v for k, v in state_dict.items() if k != "autolr"})
        self._policy_state = type(self.policy.begin())(**own["policy_state"])
        self._steps, self._drawn = own["steps"], own["drawn"]
        self._rates.load_state_dict(own["rates"])
        self.history = [Record.from_dict(record) for record in own["history"]]
        self.cost = Cost(**own["cost"])
        self._warned = set(own["warned"])
        window = own["window"]
        self._open = None
        if window is not None:
            snapshot = None if window["snapshot"] is None else Snapshot.from_state_dict(window["snapshot"])
            self._open = _Open(window["start"], window["superbatch"], list(window["losses"]), snapshot)


def _window(step: int, total_steps: int, lr: float, opened: _Open, end: list[float]) -> Window:
    steps = step - opened.start
    drop: LossDrop | None = loss_drop(opened.losses, end, steps) if _finite([opened.losses, end]) else None
    return Window(step, total_steps, lr, _mean(opened.losses), _mean(end), steps, drop)


def _seen(eps: tuple[float, ...], lr: float, losses: list[list[float]], quadratic: Quadratic | None) -> dict[str, Any]:
    seen: dict[str, Any] = {"eps": tuple(e * lr for e in eps), "losses": tuple(_mean(row) for row in losses)}
    if quadratic is not None:
        seen |= {"k0": quadratic.k0, "k1": quadratic.k1, "k2": quadratic.k2}
        seen |= {"eps_min": quadratic.minimum, "eps_min_stderr": quadratic.stderr}
    return seen


def _mean(losses: list[float]) -> float:
    return math.fsum(losses) / len(losses) if all(map(math.isfinite, losses)) else math.nan


def _finite(rows: list[list[float]]) -> bool:
    return all(math.isfinite(loss) for row in rows for loss in row)


def _count(name: str, value: int, low: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, at least {low}; got {value!r}.")
    if value < low:
        raise ValueError(f"{name} must be at least {low}; got {value}.")
    return value


def _check_base(base: Optimizer, model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module; got {type(model).__name__}.")
    if isinstance(base, AutoLR) or not isinstance(base, Optimizer):
        raise TypeError(
            f"base must be a torch.optim.Optimizer other than AutoLR, made before it is wrapped; got "
            f"{type(base).__name__}. For instance AutoLR(torch.optim.SGD(model.parameters(), lr=0.1), model, ...)."
        )
    for kind in type(base).__mro__:
        if kind.__module__.startswith("torch.optim") and kind.__name__ in _UNSUPPORTED:
            raise TypeError(
                f"{kind.__name__} cannot be tuned: {_UNSUPPORTED[kind.__name__]}. Wrap an optimizer whose step is in "
                "proportion to its lr: SGD, Adam, AdamW, RMSprop, Adagrad and most others."
            )
    _check_held(base, model)


def _check_held(base: Optimizer, model: nn.Module) -> None:
    own = {id(p) for p in model.parameters()}
    strangers = sum(id(p) not in own for p in held_parameters(base))
    if strangers:
        raise ValueError(
            f"base holds {strangers} parameters that are not the model's: a look would move them without effect on "
            "loss_fn(model, batch). Pass the module that has all of the optimizer's parameters."
        )
