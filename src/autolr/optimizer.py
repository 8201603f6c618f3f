"""`AutoLR`: an optimizer that wraps another one and moves its learning rate, by a policy of either kind."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from autolr.runtime.distributed import rank, smallest
from autolr.numerics.cost import Cost, affordable_superbatch
from autolr.runtime.recorder import Recorder
from autolr.policies import Monitor, ExploreExploit, Policy, SteeringPolicy
from autolr.policies.wording import number
from autolr.measure.probe import LossFunction, Probe
from autolr.runtime.param_group_lrs import ParamGroupLRs
from autolr.runtime.steering import Steering
from autolr.measure.superbatch import Superbatches, count_batches
from autolr.validation import (
    check_count,
    check_held,
    check_validation_eps,
    check_optimizer,
    check_overhead,
    check_policy,
    check_window,
    steers,
)
from autolr.runtime.decision_log import Record
from autolr.runtime.windows import Windows
from autolr.runtime.wrapped import WrappedOptimizer

VERSION = 5  # of the checkpoint's layout
LONGEST_WINDOW, LARGEST_SUPERBATCH = 1000, 100  # the paper's (appendices B and C)
DEFAULT_OVERHEAD = 0.02
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
            first minibatches, and as fresh as it makes them. A `PeekableLoader` lends looks what training sees next.
        total_steps: optimizer steps in the whole run.
        policy: what to do with what is seen; by default the paper's, sure of its verdicts: ``ExploreExploit.adaptive()``.
            ``Monitor()`` looks and never changes the rate.
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
        validation_eps: further eps to sample at each look, in multiples of the rate, kept from the fit: for judging it.

    Attributes:
        base: the wrapped optimizer.

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
        validation_eps: tuple[float, ...] = (),
    ) -> None:
        if isinstance(base, AutoLR):
            raise TypeError("base must be a torch.optim.Optimizer that is not wrapped yet; got an AutoLR.")
        check_optimizer(base, model)
        if not callable(loss_fn):
            raise TypeError(f"loss_fn must be callable as loss_fn(model, batch); got {type(loss_fn).__name__}.")
        self.policy: Policy | SteeringPolicy = ExploreExploit.adaptive() if policy is None else check_policy(policy)
        self.total_steps = check_count("total_steps", total_steps)
        self.window = check_window(window, self.total_steps, min(LONGEST_WINDOW, self.total_steps // FEWEST_WINDOWS))
        steered = steers(
            self.policy, window=window, superbatch=superbatch, overhead=overhead, validation_eps=validation_eps or None
        )
        windowed: Policy | None = None if steered is not None else self.policy  # type: ignore[assignment]
        sure = windowed is not None and windowed.confidence is not None
        if superbatch is None:
            superbatch = count_batches(batches) or LARGEST_SUPERBATCH
            if windowed is not None and not sure:
                superbatch = min(superbatch, affordable_superbatch(self.window, len(windowed.eps)))
            superbatch = min(superbatch, LARGEST_SUPERBATCH)
            superbatch = smallest(superbatch)  # ranks with different numbers of minibatches take the same steps
        self.validation_eps = check_validation_eps(validation_eps)
        self.overhead = check_overhead(overhead, default=DEFAULT_OVERHEAD if sure else math.inf)

        super().__init__(base)
        self._model = model
        self._rates = ParamGroupLRs(base, told=None if isinstance(self.policy, Monitor) else self._tell_of_foreign_rate)
        # Ranks look at different data and share the losses.
        superbatches = Superbatches(
            batches, check_count("superbatch", superbatch), check_count("seed", seed, low=0) + rank()
        )
        self._probe = Probe(model, loss_fn, superbatches)
        self._probe.check()
        self._ledger = Recorder(trace)
        self.cost.trial = 1
        self._steps = 0
        self._tuning: Steering | Windows
        if windowed is None:
            assert steered is not None, "a policy is of one kind or the other"
            self._tuning = Steering(steered, self.total_steps, model, base, self._probe, self._rates, self._ledger)
        else:
            self._tuning = Windows(
                windowed, self.total_steps, self.window, self.overhead, self.validation_eps, model, base, self._probe,
                self._rates, self._ledger,
            )  # fmt: skip

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the wrapped optimizer; its rate keeps its ratio to the others from here on."""
        self.base.add_param_group(param_group)
        try:
            check_held(self.base, self._model)
            self._rates.regroup()
        except ValueError:
            self.base.param_groups.pop()
            raise
        self._tuning.regrouped(self._steps)

    def __repr__(self) -> str:
        return f"AutoLR({self.base!r}, policy={self.policy!r}, window={self.window}, superbatch={self.superbatch})"

    @property
    def history(self) -> list[Record]:
        """A `Record` for each decision so far."""
        return self._ledger.history

    @property
    def cost(self) -> Cost:
        """What all of it cost so far."""
        return self._ledger.cost

    @property
    def lr(self) -> float:
        """The present learning rate: the largest over the parameter groups."""
        return self._rates.lr

    @property
    def phase(self) -> str:
        """The policy's present phase."""
        return self._tuning.phase(self._steps)

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
            self._ledger.warn(
                "run over",
                f"This is step {self._steps + 1} of a run of total_steps={self.total_steps}: AutoLR has stopped "
                "is_probing, and the rate stays as it is. total_steps counts optimizer steps: epochs * len(train_loader).",
            )
        line = self._tuning.line(self._steps + 1)
        result = self.base.step()
        self._steps += 1
        self._tuning.see(line, self._steps)
        return result

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As the wrapped optimizer does. A trial of `Auto` in which a GradScaler skips each step is given up here."""
        super().zero_grad(set_to_none)
        self._tuning.waited(self._steps)

    def finish(self, steps: int) -> None:
        """Let the rate fall to zero over the next ``steps`` steps, under a policy that steers: a run's end, unforeseen.

        Raises:
            TypeError: the policy decides at the end of windows, and knows no end but ``total_steps``; or ``steps`` is
                not a whole number.
            ValueError: too early in the run, or more steps than are left.
        """
        if not isinstance(self._tuning, Steering):
            raise TypeError(
                f"finish needs a policy that sets the rate of every step, such as Auto(hold=1); got {self.policy!r}."
            )
        self._tuning.finish(self._steps, check_count("steps", steps))

    def _tell_of_foreign_rate(self, before: float, now: float) -> None:
        self._ledger.warn(
            "foreign rate",
            f"The learning rate was {number(before)} when AutoLR last set it and is {number(now)} now: "
            "a scheduler or other code steps the same optimizer. AutoLR goes on from the rate it found. Let "
            "only one of the two set the rate: drop the scheduler, or look only, with policy=autolr.Monitor().",
        )

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimizer's ``state`` and ``param_groups``, and all of AutoLR's own under ``autolr``.

        It holds plain containers and tensors, and loads with ``weights_only=True``. A run continued from it is, to the
        bit, the uninterrupted one, given that the model, the data order and the random generators continue too.
        """
        own = {
            "version": VERSION,
            **self._plan(),
            "steps": self._steps,
            "rates": self._rates.state_dict(),
            "tuning": self._tuning.state_dict(),
            **self._ledger.state_dict(),
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
        self._steps = own["steps"]
        self._rates.load_state_dict(own["rates"])
        self._tuning.load_state_dict(own["tuning"])
        self._ledger.load_state_dict(own)

    def _plan(self) -> dict[str, Any]:
        """What a continued run must have in common with the one it continues."""
        return {
            "version": VERSION,
            "policy": repr(self.policy),
            "total_steps": self.total_steps,
            "window": self.window,
            "superbatch": self.superbatch,
            "seed": self._probe.superbatches.seed - rank(),
            "validation_eps": list(self.validation_eps),
            "overhead": self.overhead,
        }
