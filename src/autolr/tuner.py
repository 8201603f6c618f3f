"""`AutoLR`: an optimizer that wraps another one and moves its learning rate. Where everything else meets."""

from __future__ import annotations

import dataclasses
import os
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from autolr import trace as decision_log
from autolr.consensus import gather_minibatches, rank, smallest
from autolr.cost import Cost, affordable_superbatch
from autolr.policies import Decision, Hold, Look, Paper, Policy, Window
from autolr.policies.wording import number
from autolr.probe import LossFunction, Probe
from autolr.rates import Rates
from autolr.snapshot import Snapshot, held_parameters
from autolr.superbatch import Superbatches, count_batches
from autolr.supported import check_count, check_held, check_held_out, check_optimizer, check_policy
from autolr.trace import Record, known
from autolr.underway import OpenLook, OpenWindow, finite, mean
from autolr.wrapped import WrappedOptimizer

VERSION = 1  # of the checkpoint's layout
LONGEST_WINDOW, LARGEST_SUPERBATCH = 1000, 100  # the paper's (appendices B and C)
FEWEST_WINDOWS = 20  # in a short run: docs/method.md, "How often to look"


class AutoLR(WrappedOptimizer):
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
            Superbatches are random draws from a map-style data set or a sequence. Of any other iterable they are its
            first minibatches, and as fresh as it makes them.
        total_steps: optimizer steps in the whole run.
        policy: what to do with what is seen; the paper's by default. ``Hold()`` looks and never changes the rate.
        window: steps between looks. By default a twentieth of the run, at most 1,000.
        superbatch: minibatches that a loss is averaged over. By default as many as keep looks at a sixth of the
            training's cost, as in the paper, at most 100 and at most what ``batches`` has. A look takes the same
            number at each of its policy's ``spread`` steps, and leaves out what does not divide: 2 of 46 at each of 20.
        seed: of the superbatches and of the dropout masks inside looks. Training's own randomness is never touched.
        trace: a file to which each decision is appended as a line of JSON. One that is there is continued.
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
        if isinstance(base, AutoLR):
            raise TypeError("base must be a torch.optim.Optimizer that is not wrapped yet; got an AutoLR.")
        check_optimizer(base, model)
        if not callable(loss_fn):
            raise TypeError(f"loss_fn must be callable as loss_fn(model, batch); got {type(loss_fn).__name__}.")
        self.policy: Policy = Paper() if policy is None else check_policy(policy)
        self.total_steps = check_count("total_steps", total_steps)
        default_window = min(LONGEST_WINDOW, max(1, self.total_steps // FEWEST_WINDOWS))
        self.window = default_window if window is None else check_count("window", window)
        if window is not None and self.window >= self.total_steps:
            raise ValueError(
                f"window must be below total_steps ({self.total_steps}), or there is never a look; got {self.window}. "
                "Both count optimizer steps."
            )
        if superbatch is None:
            affordable = affordable_superbatch(self.window, len(self.policy.eps))
            superbatch = min(LARGEST_SUPERBATCH, affordable, count_batches(batches) or LARGEST_SUPERBATCH)
            superbatch = smallest(superbatch)  # ranks with different numbers of minibatches take the same steps
        self.held_out = check_held_out(held_out)

        super().__init__(base)
        self.history: list[Record] = []
        self.cost = Cost()
        self._model = model
        self._rates = Rates(base)
        # Ranks look at different data and share the losses.
        superbatches = Superbatches(
            batches, check_count("superbatch", superbatch), check_count("seed", seed, low=0) + rank()
        )
        self._probe = Probe(model, loss_fn, superbatches)
        self._probe.check()
        self._log = None if trace is None or rank() else decision_log.open_log(trace)
        self._policy_state = self.policy.begin()
        self._steps = 0
        self._drawn = 0  # superbatches
        self._window: OpenWindow | None = None
        self._look: OpenLook | None = None
        self._recorded_forwards = 0
        self._warned: set[str] = set()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the wrapped optimizer; its rate keeps its ratio to the others from here on."""
        self.base.add_param_group(param_group)
        try:
            check_held(self.base, self._model)
            self._rates = Rates(self.base)
        except ValueError:
            self.base.param_groups.pop()
            raise
        self._window = self._look = None  # what they hold does not know the new group: a new window begins

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
        if self._steps == self.total_steps:
            self._warn(
                "run over",
                f"This is step {self._steps + 1} of a run of total_steps={self.total_steps}: AutoLR has stopped "
                "looking, and the rate stays as it is. total_steps counts optimizer steps: epochs * len(train_loader).",
            )
        if self._window is None and self._steps < self.total_steps:
            self._begin_window()
        looks = self._look is not None or self._at_window_end(self._steps + 1)
        before = [p.detach().clone() for p in held_parameters(self.base)] if looks else []
        result = self.base.step()
        self._steps += 1
        try:
            if self._look is None and self._at_window_end(self._steps):
                self._end_window()
            if self._look is not None:
                self._sample(self._look, before)
        except BaseException:
            # Whoever catches it (out of memory, a bad example) and goes on has lost this look, not all the others.
            self._window = self._look = None
            raise
        return result

    def _at_window_end(self, step: int) -> bool:
        if self._window is None:
            return False
        if step == self.total_steps:  # nothing to decide any more; but a window in which the run died is still undone
            return self.policy.rollback
        return step == self._window.start + self.window

    @property
    def _look_steps(self) -> int:
        """Steps that a look takes: each sees one minibatch at least."""
        return min(self.policy.spread, self.superbatch)

    def _begin_window(self, superbatch: int | None = None, losses: list[float] | None = None) -> None:
        self._window = self._look = None
        if self._steps >= self.total_steps:
            return
        if superbatch is None or losses is None:
            superbatch = self._next_superbatch()
            losses = self._losses_here(superbatch)
        with self.cost.timing("snapshots"):
            snapshot = Snapshot.capture(self._model, self.base) if self.policy.rollback else None
        self._window = OpenWindow(self._steps, superbatch, losses, snapshot)

    def _end_window(self) -> None:
        """Measure the loss drop; then look along the next steps, roll back, or go on."""
        assert self._window is not None
        if not self._rate_is_usable():
            self._begin_window()
            return
        losses = self._losses_here(self._window.superbatch)
        window = self._window.seen(self._steps, self.total_steps, self._rates.lr, losses)
        decision = self._judge(window)
        if decision.verdict == "look":
            if self._steps + self._look_steps <= self.total_steps:
                self._look = OpenLook(window, why=decision.reason)
            else:  # it could not finish before the run does, or its verdict would come too late
                self._begin_window()
        else:
            self._carry_out(window, decision)

    def _sample(self, look: OpenLook, before: list[Tensor]) -> None:
        """Look along the step just taken; with the last of a look's steps, decide."""
        steps = self._look_steps
        superbatch, size = self._next_superbatch(), self.superbatch // steps
        with self.cost.timing("looks"):
            losses = self._along(self.policy.eps, before, superbatch, size)
            self.cost.looks += len(self.policy.eps) * size
        with self.cost.timing("held_out"):
            held_out = self._along(self.held_out, before, superbatch, size) if self.held_out else []
            self.cost.held_out += len(self.held_out) * size
        look.add(losses, held_out, alone=steps == 1)
        if all(row == losses[0] for row in losses):
            now = held_parameters(self.base)
            look.unmoved_steps += any(not torch.equal(b, p) for b, p in zip(before, now, strict=True))
        if look.steps == steps:
            # A look along one step has measured where the next window begins: its own losses at eps = 0.
            here = losses[self.policy.eps.index(0.0)] if steps == 1 else None
            self._decide(look, superbatch, here)

    def _decide(self, look: OpenLook, superbatch: int, here: list[float] | None) -> None:
        if not self._rate_is_usable():
            self._begin_window()
            return
        seen = look.seen(self._rates.lr, self.policy.eps)
        if not finite([seen.loss]) and self.policy.rollback:  # the run died while it was looked at
            assert self._window is not None
            died = self._window.seen(self._steps, self.total_steps, self._rates.lr, [seen.loss])
            self._carry_out(died, self._judge(died))
            return
        self._policy_state, decision = self.policy.decide(self._policy_state, seen)
        if look.unmoved_steps == look.steps and not any(record.eps for record in self.history):
            self._warn(
                "same loss",
                f"The loss is {number(seen.loss)} at every eps: moving the parameters along the last step makes no "
                "difference to loss_fn(model, batch). It must depend on the parameters of the model it is given, and "
                f"the step (LR {number(seen.lr)}) must be large enough to show in float32. The LR is left alone.",
            )
        self._carry_out(look.window, decision, self._samples(look, seen), superbatch, here)

    def _judge(self, window: Window) -> Decision:
        self._policy_state, decision = self.policy.judge(self._policy_state, window)
        return decision

    def _carry_out(
        self,
        window: Window,
        decision: Decision,
        samples: dict[str, Any] | None = None,
        superbatch: int | None = None,
        losses: list[float] | None = None,
    ) -> None:
        """Do what was decided, write it down, and begin the next window (with ``losses`` if they are known)."""
        if decision.verdict == "roll back":
            assert self._window is not None
            assert self._window.snapshot is not None, "a policy that rolls back says so, and windows have snapshots"
            with self.cost.timing("snapshots"):
                self._window.snapshot.restore(self._model, self.base)
            self.cost.discarded_steps += self._steps - self._window.start
        self._rates.set(decision.lr)
        self._record(window, decision, samples or {})
        self._begin_window(superbatch, losses)

    def _along(self, eps: tuple[float, ...], before: list[Tensor], superbatch: int, size: int) -> list[list[float]]:
        return gather_minibatches(self._probe.along(held_parameters(self.base), before, eps, superbatch, size))

    def _samples(self, look: OpenLook, seen: Look) -> dict[str, Any]:
        """A look's part of its record."""
        samples: dict[str, Any] = {
            "eps": tuple(e * seen.lr for e in self.policy.eps),
            "losses": tuple(known(mean(row)) for row in look.losses),
            "held_out_eps": tuple(e * seen.lr for e in self.held_out),
            "held_out_losses": tuple(known(mean(row)) for row in zip(*look.held_out, strict=True)),
        }
        if (fit := seen.quadratic) is not None:
            samples |= {"k0": fit.k0, "k1": fit.k1, "k2": fit.k2, "eps_min": fit.minimum, "eps_min_stderr": fit.stderr}
        return samples

    def _record(self, window: Window, decision: Decision, samples: dict[str, Any]) -> None:
        record = Record(
            step=self._steps,
            phase=self.policy.phase(window.step, self.total_steps),
            verdict=decision.verdict,
            reason=decision.reason,
            lr_before=window.lr,
            lr_after=decision.lr,
            loss=known(window.end_loss),
            drop_rate=window.drop.rate if window.drop else None,
            drop_rate_stderr=known(window.drop.stderr) if window.drop else None,
            forwards=self.cost.forwards - self._recorded_forwards,
            **samples,
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
        if (changed := self._rates.foreign()) is not None and not isinstance(self.policy, Hold):
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
            warnings.warn(text, stacklevel=_users_frame())

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimizer's ``state`` and ``param_groups``, and all of AutoLR's own under ``autolr``.

        It holds plain containers and tensors, and loads with ``weights_only=True``. A run continued from it is, to the
        bit, the uninterrupted one, given that the model, the data order and the random generators continue too.
        """
        own = {
            "version": VERSION,
            **self._plan(),
            "policy_state": dataclasses.asdict(self._policy_state),
            "steps": self._steps,
            "drawn": self._drawn,
            "rates": self._rates.state_dict(),
            "open_window": None if self._window is None else self._window.state_dict(),
            "open_look": None if self._look is None else self._look.state_dict(),
            "recorded_forwards": self._recorded_forwards,
            "history": [dataclasses.asdict(record) for record in self.history],
            "cost": self.cost.to_dict(),
            "warned": sorted(self._warned),
        }
        return {**self.base.state_dict(), "autolr": own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a `state_dict`.

        Raises:
            ValueError: it is not AutoLR's, or of a run with another plan (policy, length, window, superbatch or seed).
        """
        own = state_dict.get("autolr")
        if own is None:
            raise ValueError(
                "This state_dict has no 'autolr' entry: it was saved by another optimizer. To continue only the "
                "wrapped optimizer from it, call optimizer.base.load_state_dict(...)."
            )
        for name, mine in self._plan().items():
            if own.get(name) != mine:
                raise ValueError(
                    f"This state_dict was saved with {name} {own.get(name)!r}; this AutoLR has {mine!r}. A run is "
                    f"continued with the same {name}. To go on differently, load only the wrapped optimizer's part, "
                    "with optimizer.base.load_state_dict(...), and let AutoLR begin anew."
                )
        self.base.load_state_dict({k: v for k, v in state_dict.items() if k != "autolr"})
        self._policy_state = type(self.policy.begin())(**own["policy_state"])
        self._steps, self._drawn = own["steps"], own["drawn"]
        self._rates.load_state_dict(own["rates"])
        self.history = [Record.from_dict(record) for record in own["history"]]
        self.cost = Cost(**own["cost"])
        self._warned = set(own["warned"])
        self._recorded_forwards = own["recorded_forwards"]
        window, look = own["open_window"], own["open_look"]
        self._window = None if window is None else OpenWindow.from_state_dict(window)
        self._look = None if look is None else OpenLook.from_state_dict(look)
        if self._log is not None:
            decision_log.cut_back(self._log, self.history)

    def _plan(self) -> dict[str, Any]:
        """What a continued run must have in common with the one it continues."""
        return {
            "version": VERSION,
            "policy": repr(self.policy),
            "total_steps": self.total_steps,
            "window": self.window,
            "superbatch": self.superbatch,
            "seed": self._probe.superbatches.seed - rank(),
            "held_out": list(self.held_out),
        }


def _users_frame() -> int:
    """The stack level, for a warning, of the first frame that is neither ours nor torch's."""
    inside = (str(Path(__file__).parent), str(Path(torch.__file__).parent))
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(inside):
        frame, level = frame.f_back, level + 1
    return level
