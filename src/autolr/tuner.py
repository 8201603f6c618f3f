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


@dataclass
class _Looking:
    """The look that is running, over one step or several."""

    window: Window  # the one that ended with it
    losses: list[tuple[float, ...]] = dataclasses.field(default_factory=list)  # observations, one loss for each eps
    held_out: list[list[float]] = dataclasses.field(default_factory=list)  # a mean for each held-out eps, step by step
    steps: int = 0
    dead_steps: int = 0  # in which the parameters moved and no loss did


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
        self._looking: _Looking | None = None
        self._recorded_forwards = 0
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
        self._open = self._looking = None  # what they hold does not know the new group: a new window begins

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
        if self._open is None and self._looking is None and self._steps < self.total_steps:
            self._begin_window()
        ends = self._open is not None and self._steps + 1 == self._open.start + self.window < self.total_steps
        looks = ends or self._looking is not None
        before = [p.detach().clone() for p in held_parameters(self.base)] if looks else []
        result = self.base.step()
        self._steps += 1
        if ends:
            self._end_window(before)
        elif looks:
            self._sample(before)
        return result

    def _begin_window(self, superbatch: int | None = None, losses: list[float] | None = None) -> None:
        if superbatch is None or losses is None:
            superbatch = self._next_superbatch()
            losses = self._losses_here(superbatch)
        with self.cost.timing("snapshots"):
            snapshot = Snapshot.capture(self._model, self.base) if self.policy.rollback else None
        self._looking = None
        self._open = _Open(self._steps, superbatch, losses, snapshot)

    def _end_window(self, before: list[Tensor]) -> None:
        opened = self._open
        assert opened is not None
        if not self._rate_is_usable():
            self._begin_window()
            return
        end_losses = self._losses_here(opened.superbatch)
        window = _window(self._steps, self.total_steps, self._rates.lr, opened, end_losses)
        self._policy_state, decision = self.policy.judge(self._policy_state, window)
        if decision.verdict == "look":
            self._open, self._looking = None, _Looking(window)
            self._sample(before)
            return
        if decision.verdict == "roll back":
            self._roll_back(opened)
        self._rates.set(decision.lr)
        self._record(window, decision, {})
        self._begin_window()

    def _sample(self, before: list[Tensor]) -> None:
        """Look along the step just taken; with the last of a look's steps, decide."""
        looking = self._looking
        assert looking is not None
        steps = min(self.policy.spread, self.superbatch)
        superbatch, parameters = self._next_superbatch(), held_parameters(self.base)
        with self.cost.timing("looks"):
            losses = self._along(self.policy.eps, before, superbatch, self.superbatch // steps)
            self.cost.looks += len(self.policy.eps) * (self.superbatch // steps)
        if self.held_out:
            with self.cost.timing("held_out"):
                held_out = self._along(self.held_out, before, superbatch, self.superbatch // steps)
                self.cost.held_out += len(self.held_out) * (self.superbatch // steps)
            looking.held_out.append([_mean(row) for row in held_out])
        if all(row == losses[0] for row in losses):
            looking.dead_steps += any(not torch.equal(b, p) for b, p in zip(before, parameters, strict=True))
        # Minibatches along one step share its direction: with several steps, a step is one observation.
        looking.losses += zip(*losses, strict=True) if steps == 1 else [tuple(_mean(row) for row in losses)]
        looking.steps += 1
        if looking.steps == steps:
            # A look along one step has measured where the next window begins: its own losses at eps = 0.
            here = losses[self.policy.eps.index(0.0)] if steps == 1 else None
            self._decide(looking, superbatch, here)

    def _decide(self, looking: _Looking, superbatch: int, here: list[float] | None) -> None:
        if not self._rate_is_usable():
            self._begin_window()
            return
        eps, lr = self.policy.eps, self._rates.lr
        losses = [list(row) for row in zip(*looking.losses, strict=True)]
        quadratic = fit_quadratic([e * lr for e in eps], losses) if _finite(losses) else None
        look = Look(self._steps, self.total_steps, lr, _mean(losses[eps.index(0.0)]), quadratic)
        self._policy_state, decision = self.policy.decide(self._policy_state, look)
        if looking.dead_steps == looking.steps and not any(record.eps for record in self.history):
            self._warn(
                "same loss",
                f"The loss is {number(look.loss)} at every eps: moving the parameters along the last step makes no "
                "difference to loss_fn(model, batch). It must depend on the parameters of the model it is given, and "
                f"the step (LR {number(lr)}) must be large enough to show in float32. The LR is left alone.",
            )
        self._rates.set(decision.lr)
        self._record(
            looking.window,
            decision,
            _seen(eps, lr, losses, quadratic)
            | {
                "held_out_eps": tuple(e * lr for e in self.held_out),
                "held_out_losses": tuple(_mean(list(row)) for row in zip(*looking.held_out, strict=True)),
            },
        )
        self._begin_window(superbatch, here)

    def _along(self, eps: tuple[float, ...], before: list[Tensor], superbatch: int, size: int) -> list[list[float]]:
        return gather_minibatches(self._probe.along(held_parameters(self.base), before, eps, superbatch, size))

    def _roll_back(self, opened: _Open) -> None:
        assert opened.snapshot is not None, "a policy that rolls back says so, and then every window has a snapshot"
        with self.cost.timing("snapshots"):
            opened.snapshot.restore(self._model, self.base)
        self.cost.discarded_steps += self._steps - opened.start

    def _record(self, window: Window, decision: Decision, seen: dict[str, Any]) -> None:
        record = Record(
            step=self._steps,
            phase=self.phase,
            verdict=decision.verdict,
            reason=decision.reason,
            lr_before=window.lr,
            lr_after=decision.lr,
            loss=window.end_loss,
            drop_rate=window.drop.rate if window.drop else None,
            drop_rate_stderr=window.drop.stderr if window.drop else None,
            forwards=self.cost.forwards - self._recorded_forwards,
            **seen,
        )
        self._recorded_forwards = self.cost.forwards
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

    def _rate_is_usable(self) -> bool:
        """Notice a rate that somebody else set. A rate of 0 moves nothing: there is nothing to look at."""
        if (changed := self._rates.foreign()) is not None:
            self._warn(
                "foreign rate",
                f"The learning rate was {number(changed[0])} when AutoLR last set it and is {number(changed[1])} now: "
                "a scheduler or other code steps the same optimizer. AutoLR goes on from the rate it found. Let "
                "only one of the two set the rate: drop the scheduler, or look only, with policy=autolr.Hold().",
            )
        return self._rates.usable

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
            "looking": None if self._looking is None else dataclasses.asdict(self._looking),
            "recorded_forwards": self._recorded_forwards,
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
                "This state_dict has no 'autolr' entry: it was saved by another optimizer. To continue only the "
                "wrapped optimizer from it, call optimizer.base.load_state_dict(...)."
            )
        mine = {"version": VERSION, "policy": type(self.policy).__name__, "superbatch": self.superbatch}
        mine["seed"] = self._probe.superbatches.seed - rank()
        for name, value in mine.items():
            if own[name] != value:
                raise ValueError(
                    f"This state_dict was saved with {name} {own[name]!r}; this AutoLR has {value!r}. A run can only "
                    f"be continued with the same {name}."
                )
        self.base.load_state_dict({k: v for k, v in state_dict.items() if k != "autolr"})
        self._policy_state = type(self.policy.begin())(**own["policy_state"])
        self._steps, self._drawn = own["steps"], own["drawn"]
        self._rates.load_state_dict(own["rates"])
        self.history = [Record.from_dict(record) for record in own["history"]]
        self.cost = Cost(**own["cost"])
        self._warned = set(own["warned"])
        self._recorded_forwards = own["recorded_forwards"]
        self._looking = None if own["looking"] is None else _looking(own["looking"])
        window = own["window"]
        self._open = None
        if window is not None:
            snapshot = None if window["snapshot"] is None else Snapshot.from_state_dict(window["snapshot"])
            self._open = _Open(window["start"], window["superbatch"], list(window["losses"]), snapshot)


def _window(step: int, total_steps: int, lr: float, opened: _Open, end: list[float]) -> Window:
    steps = step - opened.start
    drop: LossDrop | None = loss_drop(opened.losses, end, steps) if _finite([opened.losses, end]) else None
    return Window(step, total_steps, lr, _mean(opened.losses), _mean(end), steps, drop)


def _looking(state: dict[str, Any]) -> _Looking:
    window = dict(state["window"])
    if window["drop"] is not None:
        window["drop"] = LossDrop(**window["drop"])
    losses, held_out = [tuple(row) for row in state["losses"]], [list(row) for row in state["held_out"]]
    return _Looking(Window(**window), losses, held_out, state["steps"], state["dead_steps"])


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
