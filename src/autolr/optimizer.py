"""`AutoLR`: an optimizer that wraps another one and sets its learning rate, by a policy.

The file is long because `AutoLR` is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from autolr.measure.evaluated import LossFunction
from autolr.measure.probe import Probe
from autolr.measure.snapshot import held_parameters
from autolr.measure.sources import Batches, as_batches
from autolr.measure.superbatch import Superbatches, count_batches
from autolr.policies import PeakSearch, Policy
from autolr.policies.base import Run
from autolr.policies.other_ranks import forget_measured
from autolr.policies.settings import check_count
from autolr.policies.wording import number, numbers
from autolr.run_view import RunView
from autolr.runtime.controller import Controller
from autolr.runtime.decision_log import DamagedLogError, DecisionRecord
from autolr.runtime.distributed import agreed, only_makes_state, rank, ranks, several, smallest
from autolr.runtime.param_group_lrs import ParamGroupLRs
from autolr.runtime.recorder import Recorder
from autolr.runtime.run_end import RunEnd, watch
from autolr.runtime.saved_run import Before, check_saved, damaged, sealed, shapes_of, unshare
from autolr.runtime.together import Together, as_one
from autolr.searches import Searches
from autolr.unsupported import caution
from autolr.validation import check_held, check_optimizer, check_policy, check_search

IDLE = 50  # calls of zero_grad without a step that are worth a look at the run; a loop over tasks has a dozen
MALFORMED = KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError  # what damage leads to
VERSION = 13  # of the checkpoint's layout


class AutoLR(RunView):
    """Tunes the learning rate of another optimizer while it trains.

    It *is* a ``torch.optim.Optimizer``; ``param_groups``, ``state`` and ``defaults`` are the wrapped one's own. All
    parameter groups are scaled by one factor. By default it searches the peak rate before its first step (the first
    call of `step` takes longer), follows a schedule to zero, and brings back a run that diverges.

    Long because all that is asked of a run is asked of this one object; half of it is docstrings.

    Args:
        base: the optimizer to tune, any that moves its parameters in proportion to its ``lr``. A list of optimizers
            (Muon for matrices, AdamW for the rest) is stepped and tuned as one; their rates keep their ratio.
        model: the module that ``loss_fn`` calls. Call it as training does; its mode is left as it is.
        loss_fn: ``loss_fn(model, batch) -> scalar tensor``, the mean loss of one minibatch. It is called several times
            for one batch; it must not write into the batch or keep counts.
        batches: a ``DataLoader``, or an iterable of minibatches that can be iterated again. Give it the training data.
            Superbatches are random draws from a map-style data set or a sequence. Of any other iterable, and of a
            loader whose class makes or changes minibatches itself, they are the first of a pass, and as fresh as it
            makes them. A `PeekableLoader` shows probes what training sees next. A function without arguments makes a
            minibatch at each call. What such sources count in attributes is put back; an iterator that they have begun
            moves on. Of an iterator, a stream of its own that training does not read, the first minibatches are kept
            in memory and drawn from.
        total_steps: optimizer steps in the whole run.
        policy: what to measure, and what to do about it: `PeakSearch` by default; `ExploreExploit` is the paper's;
            `Monitor` measures and never changes the rate.
        seed: of the superbatches and of the dropout masks inside probes. Training's own randomness is never touched.
        trace: a file to which each decision is appended as a line of JSON. One that is there is continued.
        on_decision: called with each `DecisionRecord` as it is taken, on the first rank: for experiment trackers, see
            `autolr.integrations.trackers`. What it raises is raised by `step`.
        search: further arguments of `find_peak` for the policy's search, by name: ``accumulation``, ``train_step``
            (it must step ``base``), ``also``, ``evaluation``.

    Attributes:
        base: the wrapped optimizer.
        policy: as it was given.
        total_steps: likewise.

    Raises:
        TypeError: ``base`` cannot be tuned, or an argument is of the wrong kind.
        ValueError: an argument is out of range, ``base`` holds parameters that are not the model's, or the loss of a
            first minibatch is not a finite number.

    Examples:
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
        >>> optimizer.history[0].trigger
        'peak found'
    """

    def __init__(
        self,
        base: Optimizer | Sequence[Optimizer],
        model: nn.Module,
        loss_fn: LossFunction,
        batches: Batches,
        total_steps: int,
        *,
        policy: Policy | None = None,
        seed: int = 0,
        trace: str | os.PathLike[str] | None = None,
        on_decision: Callable[[DecisionRecord], Any] | None = None,
        search: Mapping[str, Any] | None = None,
    ) -> None:
        base = as_one(base)
        if isinstance(base, AutoLR):
            raise TypeError("base must be a torch.optim.Optimizer that is not wrapped yet; got an AutoLR.")
        check_optimizer(base, model)
        if not callable(loss_fn):
            raise TypeError(f"loss_fn must be callable as loss_fn(model, batch); got {type(loss_fn).__name__}.")
        self.policy: Policy = PeakSearch() if policy is None else check_policy(policy)
        self.total_steps = agreed("total_steps", check_count("total_steps", total_steps))
        self._seed = check_count("seed", seed, low=0)

        super().__init__(base)
        self._model, self._loss_fn, self._batches = model, loss_fn, (batches := as_batches(batches))
        self._searches = Searches(model, base, loss_fn, batches, self._seed, check_search(search))
        available = count_batches(batches)
        run = Run(
            self.total_steps,
            # Ranks with different numbers of minibatches take the same steps.
            None if available is None else smallest(available),
            any(p.requires_grad and p.dtype in {torch.bfloat16, torch.float16} for p in held_parameters(base)),
        )
        rates = ParamGroupLRs(base, told=None if self.policy.foreign_rate == "ignored" else self._tell_of_foreign_rate)
        # Ranks measure different data and share the losses.
        probe = Probe(model, loss_fn, Superbatches(batches, 1, self._seed + rank()))
        self._recorder = Recorder(trace, on_decision, self._about())
        if isinstance(self.policy, PeakSearch) and self.policy.peak is None and (text := caution(base)) is not None:
            self._recorder.warn("caution", text)
        self._controller = Controller(self.policy, run, model, base, probe, rates, self._recorder, self._searches)
        probe.check()
        self._rates = rates
        self.cost.first = 1
        self._steps = 0
        self._idle = [0]  # calls of zero_grad since the last step; in a list, for proxies that call it as their own
        self._end = RunEnd(self.total_steps)
        if self.policy.foreign_rate == "overwritten":  # the others' rates have no end to come to
            watch(self, self._end)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the wrapped optimizer; its rate keeps its ratio to the others from here on.

        Once the run has begun, the rate that is told stays that of the groups of before.
        """
        self.base.add_param_group(param_group)
        try:
            check_held(self.base, self._model)
            self._rates.regroup(keep=self._steps > 0)
        except ValueError:
            self.base.param_groups.pop()
            raise
        self._controller.regrouped(self._steps)

    def _follow_groups(self) -> None:
        """Somebody has changed the groups of the wrapped optimizer itself, or the parameters in them."""
        check_held(self.base, self._model)
        self._rates.regroup(keep=self._steps > 0)
        self._controller.regrouped(self._steps)

    # Not to be traced into a user's compiled function: what a probe does to generators and attributes is no graph's,
    # and the rest of that function is compiled around it. `torch.compiler.disable` would import the compiler with
    # autolr.
    @torch._disable_dynamo  # type: ignore[attr-defined]
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take the wrapped optimizer's step; measure, decide and set the rate as the policy wants it.

        Args:
            closure: computes the loss and its gradients, as `torch.optim` has it. It is called once, before the step.

        Returns:
            The closure's loss, or without one what the wrapped optimizer returns.
        """
        if only_makes_state():
            return self.base.step()
        if self._searches.under_way:
            raise RuntimeError(
                "AutoLR.step was called within its own search: the train_step that search= is given must step the "
                "wrapped optimizer, AutoLR.base."
            )
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self._steps == self.total_steps:
            self._recorder.warn(
                "run over",
                f"This is step {self._steps + 1} of a run of total_steps={self.total_steps}: AutoLR measures no "
                "more, and the rate stays as it is. total_steps counts optimizer steps: epochs * len(train_loader).",
            )
        self._idle[0] = 0
        if self._rates.others():
            self._follow_groups()
        line = self._controller.before(self._steps)
        lr = self._rates.taken()
        result = self.base.step()
        self._steps += 1
        self._recorder.rate(self._steps, lr, loss)
        self._controller.after(line, self._steps)
        self._end.at(self._steps, self._rates.lr)
        return result if closure is None else loss

    @torch._disable_dynamo  # type: ignore[attr-defined]
    def zero_grad(self, set_to_none: bool = True) -> None:
        """As the wrapped optimizer does. Once weights are NaN, a loop that skips such losses makes no other call."""
        self._idle[0] += 1
        idle = self._idle[0]
        if idle % IDLE == 0 and 0 < self._steps < self.total_steps:
            if several():  # a check is a collective, and the others may not be here
                self._controller.tell_of_dead_weights(idle)
            else:
                self._controller.idle(self._steps, idle)
        super().zero_grad(set_to_none)

    def start_cooldown(self, steps: int) -> None:
        """Let the rate fall to zero over the next ``steps`` steps: the end of a run whose length was not known.

        Raises:
            TypeError: the policy does not set the rate of every step, or ``steps`` is not a whole number.
            ValueError: the run has not begun, or more steps than are left.
        """
        self._controller.start_cooldown(self._steps, check_count("steps", steps))
        self._end.cooled = self._steps + steps

    def _tell_of_foreign_rate(self, before: float, now: float) -> None:
        was, found = (
            numbers(before, now) if before != now else (number(before), f"still {number(now)}, another group's")
        )
        done = "AutoLR goes on from the rate it found."
        if self.policy.foreign_rate == "overwritten":
            done = "AutoLR's own rate holds: it writes it again before each step."
        self._recorder.warn(
            "foreign rate",
            f"The learning rate was {was} when AutoLR last set it and is {found} now: a scheduler or other code steps "
            f"the same optimizer. {done} Let only one of the two set the rate: drop the scheduler, or measure only, by "
            "policy=autolr.Monitor().",
        )

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimizer's ``state`` and ``param_groups``, and all of AutoLR's own under ``autolr``.

        It holds plain containers and tensors, and loads with ``weights_only=True``. A run continued from it is, to the
        bit, the uninterrupted one, given that the model, the data order and the random generators continue too.
        """
        own = {
            **self._plan(),
            "shapes": shapes_of(self.base),
            "steps": self._steps,
            "ranks": ranks(),
            "cooled": self._end.cooled,
            "rates": self._rates.state_dict(),
            "controller": self._controller.state_dict(),
            **self._recorder.state_dict(),
        }
        base = self.base.state_dict()
        return {**base, "autolr": sealed(own, base)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a `state_dict`. What cannot be continued from is refused, and nothing is changed.

        Raises:
            ValueError: it is not AutoLR's, of a run with another plan (policy, length, seed, optimizer, shapes of the
                parameters), or damaged.
        """
        own = check_saved(state_dict, self._plan(), self.base)
        before = Before(self.base)
        try:
            take = [part.prepare(own) for part in (self._rates, self._controller, self._recorder)]
            self.base.load_state_dict({k: v for k, v in state_dict.items() if k != "autolr"})
            unshare(self.base, state_dict)
        except BaseException as error:
            before.restore()
            if isinstance(error, MALFORMED) and not isinstance(error, DamagedLogError):
                raise damaged(f"{type(error).__name__}, {error}") from error
            raise
        self._steps = own["steps"]
        for taken in take:
            taken()
        rates = [rate for _, rate in self._recorder.curves["lr"].drawn()]
        self._end.continues(self._steps, self._rates.lr, max([self._rates.lr, *rates]), own.get("cooled"))
        if own["ranks"] != ranks():
            self._controller.forget(forget_measured)

    def _plan(self) -> dict[str, Any]:
        """What a continued run must have in common with the one it continues."""
        return {
            "version": VERSION,
            "optimizer": repr(self.base) if isinstance(self.base, Together) else type(self.base).__name__,
            "policy": repr(self.policy),
            "total_steps": self.total_steps,
            "seed": self._seed,
        }
