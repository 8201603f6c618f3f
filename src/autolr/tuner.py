"""`AutoLR`: an optimizer that wraps another one and moves its learning rate. Where everything else meets."""

from __future__ import annotations

import dataclasses
import math
import os
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from autolr import trace as decision_log
from autolr.budget import Budget
from autolr.consensus import gather_minibatches, rank, several, smallest
from autolr.cost import Cost, affordable_superbatch
from autolr.line import Line
from autolr.policies import Decision, Hold, Look, Paper, Policy, SteeringPolicy, Window
from autolr.policies.protocol import Verdict
from autolr.policies.wording import number
from autolr.probe import LossFunction, Probe
from autolr.rates import Rates
from autolr.snapshot import Snapshot, held_parameters
from autolr.steering import Steering
from autolr.superbatch import Superbatches, count_batches
from autolr.supported import (
    check_count,
    check_held,
    check_held_out,
    check_optimizer,
    check_overhead,
    check_policy,
    steers,
)
from autolr.trace import Record, known
from autolr.underway import LookPlan, OpenLook, OpenWindow, finite, mean
from autolr.wrapped import WrappedOptimizer

VERSION = 4  # of the checkpoint's layout
LONGEST_WINDOW, LARGEST_SUPERBATCH = 1000, 100  # the paper's (appendices B and C)
DEFAULT_OVERHEAD = 0.02
CHECKED = 4  # minibatches of a drop-rate check under a budget: few, and a standard error of their differences
WHOLE_STEPS = (-1.0, 0.0, 1.0)  # in bfloat16 and float16 the ends of the step are exact, and points between are rounded
SKIPPED = 8  # steps in a row that a GradScaler may skip: it looks for its scale by halves
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
            first minibatches, and as fresh as it makes them. A `LendingLoader` lends looks what training sees next.
        total_steps: optimizer steps in the whole run.
        policy: what to do with what is seen; by default the paper's, sure of its verdicts: ``Paper.adaptive()``.
            ``Hold()`` looks and never changes the rate.
        window: steps between looks. By default a twentieth of the run, at most 1,000.
        superbatch: minibatches of a look. With a policy that looks until it is sure, the most of them: 100, or what
            ``batches`` has. Otherwise as many as keep looks at a sixth of the training's cost, as in the paper, at
            most those; a look takes the same number at each of its policy's ``spread`` steps, and leaves out what
            does not divide: 2 of 46 at each of 20.
        seed: of the superbatches and of the dropout masks inside looks. Training's own randomness is never touched.
        trace: a file to which each decision is appended as a line of JSON. One that is there is continued.
        overhead: the share of the training's own forward equivalents that looks, drop-rate checks, snapshots and undone
            steps may take together. It is earned step by step and holds from the first window's end on; what cannot be
            paid yet waits. Only a run that died is brought back whatever it costs. By default 0.02, or without bound
            (``math.inf``) where the policy asks for the paper's superbatch of a fixed size (no ``confidence``).
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
        >>> optimizer = autolr.AutoLR(base, model, loss_fn, data, total_steps=100, overhead=1.0)
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
        policy: Policy | SteeringPolicy | None = None,
        window: int | None = None,
        superbatch: int | None = None,
        seed: int = 0,
        trace: str | os.PathLike[str] | None = None,
        overhead: float | None = None,
        held_out: tuple[float, ...] = (),
    ) -> None:
        if isinstance(base, AutoLR):
            raise TypeError("base must be a torch.optim.Optimizer that is not wrapped yet; got an AutoLR.")
        check_optimizer(base, model)
        if not callable(loss_fn):
            raise TypeError(f"loss_fn must be callable as loss_fn(model, batch); got {type(loss_fn).__name__}.")
        self.policy: Policy | SteeringPolicy = Paper.adaptive() if policy is None else check_policy(policy)
        self.total_steps = check_count("total_steps", total_steps)
        default_window = min(LONGEST_WINDOW, max(1, self.total_steps // FEWEST_WINDOWS))
        self.window = default_window if window is None else check_count("window", window)
        if window is not None and self.window >= self.total_steps:
            raise ValueError(
                f"window must be below total_steps ({self.total_steps}), or there is never a look; got {self.window}. "
                "Both count optimizer steps."
            )
        steered = steers(
            self.policy, window=window, superbatch=superbatch, overhead=overhead, held_out=held_out or None
        )
        # Under a policy that steers there are no windows, and nobody asks the one that stands here for it.
        self._decides: Policy = self.policy if steered is None else Hold()  # type: ignore[assignment]
        adaptive = self._decides.confidence is not None
        if superbatch is None:
            superbatch = count_batches(batches) or LARGEST_SUPERBATCH
            if not adaptive and steered is None:
                superbatch = min(superbatch, affordable_superbatch(self.window, len(self._decides.eps)))
            superbatch = min(superbatch, LARGEST_SUPERBATCH)
            superbatch = smallest(superbatch)  # ranks with different numbers of minibatches take the same steps
        self.held_out = check_held_out(held_out)
        self.overhead = check_overhead(overhead, default=DEFAULT_OVERHEAD if adaptive else math.inf)
        self._budget = Budget(self.overhead)

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
        self.cost.trial = 1
        low_precision = any(p.dtype in {torch.bfloat16, torch.float16} for p in held_parameters(base))
        self.eps = WHOLE_STEPS if low_precision else self._decides.eps
        self._plan_of_looks = LookPlan.of(self._decides, self.superbatch)
        self._check_size = min(CHECKED, self.superbatch) if adaptive else self.superbatch
        self._log = None if trace is None or rank() else decision_log.open_log(trace)
        self._policy_state = self._decides.begin()
        self._steps = self._skipped = 0  # the second counts zero_grad since the last step
        self._drawn = 0  # superbatches
        self._window: OpenWindow | None = None
        self._look: OpenLook | None = None
        self._recorded_forwards = 0
        self._warned: set[str] = set()
        self._steering: Steering | None = None
        if steered is not None:
            self._steering = Steering(steered, self.total_steps, model, base, self._probe)
            self._rates.set(self._steering.rate(1))
        if 3 * self._check_costs + self._glance_costs > self._budget.earned(self.total_steps):
            self._warn(
                "too short",
                f"overhead={self.overhead:g} of a run of total_steps={self.total_steps} pays for "
                f"{self._budget.earned(self.total_steps):.0f} forward passes, too few for a single look: the rate will "
                "stay as it is. Raise overhead (the paper spends 0.17), or leave AutoLR out of runs so short.",
            )

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
        if self._steering is not None:
            self._steering.keep_here(self._steps, self.cost)

    def __repr__(self) -> str:
        return f"AutoLR({self.base!r}, policy={self.policy!r}, window={self.window}, superbatch={self.superbatch})"

    @property
    def lr(self) -> float:
        """The present learning rate: the largest over the parameter groups."""
        return self._rates.lr

    @property
    def phase(self) -> str:
        """The policy's present phase."""
        if self._steering is not None:
            return self._steering.stage(self._steps)
        return self._decides.phase(self._steps, self.total_steps)

    @property
    def superbatch(self) -> int:
        """Minibatches that a loss is averaged over (on each rank)."""
        return self._probe.superbatches.size

    # Not to be traced into a user's compiled function: what a look does to generators and attributes is no graph's, and
    # the rest of that function is compiled around it. `torch.compiler.disable` would import the compiler with autolr.
    @torch._disable_dynamo  # type: ignore[attr-defined]
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
        if self._steering is not None:
            return self._steer(self._steering)
        if self._window is None and self._steps < self.total_steps:
            self._begin_window()
        looks = self._may_glance(self._steps + 1)
        line = None
        if looks:
            with self.cost.timing("looks"):
                line = Line(held_parameters(self.base))
        result = self.base.step()
        self._steps += 1
        try:
            if self._look is None and self._at_window_end(self._steps):
                self._end_window()
            if self._look is not None:
                if line is not None:
                    self._glance(self._look, line)
                if self._look is not None and self._steps == self.total_steps:
                    self._give_up(self._look)
        except BaseException:
            # Whoever catches it (out of memory, a bad example) and goes on has lost this look, not all the others.
            self._window = self._look = None
            raise
        return result

    def _steer(self, steering: Steering) -> Any:
        """Take a step under a policy that sets the rate of each, look along it where it wants to, set the next rate."""
        usable, step = self._rate_is_usable(), self._steps + 1
        within = usable and step <= self.total_steps
        line = None
        sounding = steering.looks(step) if within else None
        if sounding is not None:
            with self.cost.timing("looks"):
                line = steering.line(sounding)
        result = self.base.step()
        self._steps, self._skipped = step, 0
        if line is not None and sounding is not None:
            stage, lr = self.phase, self._rates.lr
            decision, samples = steering.see(line, sounding, self._next_superbatch(), step, lr, self.cost)
            self._write_steered(decision, stage, lr, **samples)
        if within and step < self.total_steps:
            self._rates.set(steering.rate(step + 1))
        return result

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As the wrapped optimizer does. A trial in which a GradScaler skips each step is given up here."""
        super().zero_grad(set_to_none)
        if self._steering is None or self._steps >= self.total_steps or not self._rate_is_usable():
            return
        self._skipped += 1
        if self._skipped <= SKIPPED:
            return
        stage, lr = self.phase, self._rates.lr
        if (decision := self._steering.stuck(self._steps, self.cost)) is not None:
            self._skipped = 0
            self._write_steered(decision, stage, lr, loss=None)
            self._rates.set(self._steering.rate(self._steps + 1))

    def _write_steered(self, decision: Decision, stage: str, lr: float, **samples: Any) -> None:
        self._write_down(Record(
            step=self._steps, phase=stage, verdict=decision.verdict, reason=decision.reason, lr_before=lr,
            lr_after=decision.lr, drop_rate=None, drop_rate_stderr=None,
            forwards=self.cost.forwards - self._recorded_forwards, spent=self.cost.forward_equivalents,
            seconds=self.cost.seconds, **samples,
        ))  # fmt: skip

    def finish(self, steps: int) -> None:
        """Let the rate fall to zero over the next ``steps`` steps, under a policy that steers: a run's end, unforeseen.

        Raises:
            TypeError: the policy decides at the end of windows, and knows no end but ``total_steps``; or ``steps`` is
                not a whole number.
            ValueError: too early in the run, or more steps than are left.
        """
        if self._steering is None:
            raise TypeError(
                f"finish needs a policy that sets the rate of every step, such as Auto(hold=1); got {self.policy!r}."
            )
        self._steering.finish(self._steps, check_count("steps", steps))
        if self._rate_is_usable():
            self._rates.set(self._steering.rate(self._steps + 1))

    @property
    def _check_costs(self) -> int:
        """Of one end of a window: its losses and, where it begins, a snapshot at most."""
        return self._check_size + self._decides.rollback

    @property
    def _glance_costs(self) -> int:
        """Of one step of a look."""
        return (len(self.eps) + len(self.held_out)) * self._plan_of_looks.size

    def _affords(self, amount: int, step: int) -> bool:
        return self._budget.allows(amount, self.cost.forward_equivalents, step)

    def _may_glance(self, step: int) -> bool:
        """Whether a look can see the coming step: one is open, or may open with it, and can be paid."""
        if self._look is None:
            return self._at_window_end(step)
        return self._affords(self._glance_costs + self._check_costs, step)

    def _at_window_end(self, step: int) -> bool:
        if self._window is None:
            return False
        if step == self.total_steps:  # nothing to decide any more; but a window in which the run died is still undone
            return self._decides.rollback and self._affords(self._check_costs, step)
        # What its end may set off has to be paid too: the next window's beginning, and a look that cannot wait.
        look = 0 if self._decides.confidence is not None else self._glance_costs * self._plan_of_looks.steps
        return step >= self._window.start + self.window and self._affords(2 * self._check_costs + look, step)

    def _begin_window(self, superbatch: int | None = None, losses: list[float] | None = None) -> None:
        self._window = self._look = None
        if self._steps >= self.total_steps:
            return
        # The first window is on credit: its end waits until both are paid.
        if self.cost.drop_rate and not self._affords(self._check_costs, self._steps):
            return
        if superbatch is None or losses is None:
            superbatch = self._next_superbatch()
            losses = self._losses_here(superbatch)
        snapshot = None
        if self._decides.rollback:
            with self.cost.timing("snapshots"):
                snapshot = Snapshot.capture(self._model, self.base)
            self.cost.snapshots += 1
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
            if self._steps + self._plan_of_looks.checkpoints[0] <= self.total_steps:
                self._look = OpenLook(window, why=decision.reason)
            else:  # it could not finish before the run does, or its verdict would come too late
                self._begin_window()
        else:
            self._carry_out(window, decision)

    def _glance(self, look: OpenLook, line: Line) -> None:
        """Look along the step just taken; where that was the last one needed, decide."""
        first = not any(record.eps for record in self.history)
        moved = first and line.moved()
        plan, superbatch = self._plan_of_looks, self._next_superbatch()
        with self.cost.timing("looks"):
            look.add(self._probe.along(line, (*self.eps, *self.held_out), superbatch, plan.size))
            self.cost.looks += len(self.eps) * plan.size
            self.cost.held_out += len(self.held_out) * plan.size
            if first or several() or look.steps in plan.checkpoints:
                look.settle(plan, len(self.eps))
        if first:
            look.unmoved_steps += moved and len(set(look.observations[-1])) == 1
        if look.steps in plan.checkpoints:
            # A look along one step has measured where the next window begins: its own losses at eps = 0.
            here = look.losses[self.eps.index(0.0)] if plan.steps == 1 else None
            self._decide(look, superbatch, here)

    def _decide(self, look: OpenLook, superbatch: int, here: list[float] | None) -> None:
        if not self._rate_is_usable():
            self._begin_window()
            return
        now = None if self._decides.confidence is None else self._steps
        seen = look.seen(self._rates.lr, self.eps, self._plan_of_looks, now)
        if not finite([seen.loss]) and self._decides.rollback:  # the run died while it was looked at
            assert self._window is not None
            died = self._window.seen(self._steps, self.total_steps, self._rates.lr, [seen.loss])
            self._carry_out(died, self._judge(died))
            return
        state, decision = self._decides.decide(self._policy_state, seen)
        if decision.verdict == "look":
            assert not seen.last, "a policy has to answer after the last of a look's steps"
            return
        self._policy_state = state
        if look.unmoved_steps == look.steps and not any(record.eps for record in self.history):
            self._warn(
                "same loss",
                f"The loss is {number(seen.loss)} at every eps: moving the parameters along the last step makes no "
                "difference to loss_fn(model, batch). It must depend on the parameters of the model it is given, and "
                f"the step (LR {number(seen.lr)}) must be large enough to show in float32. The LR is left alone.",
            )
        self._carry_out(look.window, decision, self._samples(look, seen), superbatch, here)

    def _give_up(self, look: OpenLook) -> None:
        """The run ends with a look that is not sure yet: write down what it saw."""
        look.settle(self._plan_of_looks, len(self.eps))
        lr = self._rates.lr
        decision = Decision("keep", lr, f"LR kept at {number(lr)}: {look.why}, and the run ended before a verdict")
        samples = self._samples(look, look.seen(lr, self.eps, self._plan_of_looks)) if look.steps else {}
        self._carry_out(look.window, decision, samples)

    def _judge(self, window: Window) -> Decision:
        self._policy_state, decision = self._decides.judge(self._policy_state, window)
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
            decision = self._roll_back(decision)
        self._rates.set(decision.lr)
        self._record(window, decision, samples or {})
        self._begin_window(superbatch, losses)

    def _roll_back(self, decision: Decision) -> Decision:
        """Undo the window; where that cannot be paid and the run lives, only its LR. Returns what was done."""
        assert self._window is not None
        assert self._window.snapshot is not None, "a policy that rolls back says so, and windows have snapshots"
        undone, lr = self._steps - self._window.start, self._rates.lr
        if not (decision.died or self._budget.allows_undoing(undone, self.cost.forward_equivalents, self._steps)):
            verdict: Verdict = "lower" if decision.lr < lr else "raise" if decision.lr > lr else "keep"
            told = f"only the LR is: overhead={self.overhead:g} does not pay for undoing steps here"
            return Decision(
                verdict, decision.lr, f"{decision.reason}; {told}".replace("rolled back", "to be undone:", 1)
            )
        with self.cost.timing("snapshots"):
            self._window.snapshot.restore(self._model, self.base)
        self.cost.discarded_steps += undone
        return decision

    def _samples(self, look: OpenLook, seen: Look) -> dict[str, Any]:
        """A look's part of its record."""
        samples: dict[str, Any] = {
            "eps": tuple(e * seen.lr for e in self.eps),
            "observations": len(look.observations),
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
            phase=self._decides.phase(window.step, self.total_steps),
            verdict=decision.verdict,
            reason=decision.reason,
            lr_before=window.lr,
            lr_after=decision.lr,
            loss=known(window.end_loss),
            drop_rate=window.drop.rate if window.drop else None,
            drop_rate_stderr=known(window.drop.stderr) if window.drop else None,
            forwards=self.cost.forwards - self._recorded_forwards,
            spent=self.cost.forward_equivalents,
            seconds=self.cost.seconds,
            **samples,
        )
        self._write_down(record)

    def _write_down(self, record: Record) -> None:
        self._recorded_forwards = self.cost.forwards
        self.history.append(record)
        if self._log is not None:
            decision_log.append(self._log, record)

    def _losses_here(self, superbatch: int) -> list[float]:
        with self.cost.timing("drop_rate"):
            losses = gather_minibatches(self._probe.here(superbatch, self._check_size))[0]
        self.cost.drop_rate += self._check_size
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
        if self._look is not None:
            self._look.settle(self._plan_of_looks, len(self.eps))
        own = {
            "version": VERSION,
            **self._plan(),
            "policy_state": dataclasses.asdict(self._policy_state),
            "steps": self._steps,
            "skipped": self._skipped,
            "drawn": self._drawn,
            "rates": self._rates.state_dict(),
            "open_window": None if self._window is None else self._window.state_dict(),
            "open_look": None if self._look is None else self._look.state_dict(),
            "steering": None if self._steering is None else self._steering.state_dict(),
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
        self._policy_state = type(self._decides.begin())(**own["policy_state"])
        self._steps, self._drawn, self._skipped = own["steps"], own["drawn"], own["skipped"]
        self._rates.load_state_dict(own["rates"])
        self.history = [Record.from_dict(record) for record in own["history"]]
        self.cost = Cost(**own["cost"])
        self._warned = set(own["warned"])
        self._recorded_forwards = own["recorded_forwards"]
        window, look = own["open_window"], own["open_look"]
        self._window = None if window is None else OpenWindow.from_state_dict(window)
        self._look = None if look is None else OpenLook.from_state_dict(look)
        if self._steering is not None:
            self._steering.load_state_dict(own["steering"])
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
            "overhead": self.overhead,
        }


def _users_frame() -> int:
    """The stack level, for a warning, of the first frame that is neither ours nor torch's."""
    inside = (str(Path(__file__).parent), str(Path(torch.__file__).parent))
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(inside):
        frame, level = frame.f_back, level + 1
    return level
