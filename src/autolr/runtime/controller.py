"""One controller for all policies: measures what a policy asks for, does what it decides, and writes it down.

The file is long because `Controller` is.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from autolr.measure.gradients import without_gradient
from autolr.measure.memory import make_room, ran_out_of_memory
from autolr.measure.probe import Probe
from autolr.measure.put_back import WayBack, certainly
from autolr.measure.refused import TrialFailedError
from autolr.measure.sharded import own_part
from autolr.measure.snapshot import Snapshot, held_parameters
from autolr.measure.step_line import StepLine
from autolr.policies.base import Decision, Evidence, Policy, ProbeRequest, ProbeResult, Progress, Run, Search, Trigger
from autolr.policies.wording import name_of, number
from autolr.runtime.distributed import gather_minibatches, several
from autolr.runtime.param_group_lrs import ParamGroupLRs
from autolr.runtime.recorder import Recorder

WARNED_OF = {  # each once in a run
    Trigger.DIVERGED, Trigger.DIED, Trigger.TOO_HIGH, Trigger.LOST, Trigger.NO_PEAK, Trigger.AT_FLOOR, Trigger.NO_ROOM,
}  # fmt: skip

T = TypeVar("T")
Losses = tuple[tuple[float, ...], ...]  # [eps][minibatch]


class Outside(Protocol):
    """Short runs outside training: `autolr.searches`."""

    def search(self, request: ProbeRequest, total_steps: int) -> Search:
        """A peak search from here."""

    def compare(
        self, request: ProbeRequest, to_start: Callable[[], None], keep: Callable[[], None]
    ) -> tuple[tuple[float, ...], tuple[float, ...], float] | None:
        """Losses here, and after the request's steps from where ``to_start`` goes; and their cost; None: no room.

        ``keep`` is called on the way from there.
        """


class Controller:
    """The policy's state, what is measured and not yet asked for, and the place to roll back to.

    Long because measuring, deciding, acting and writing down share this state, in one order for every policy.

    Args:
        policy: what to measure, and what to do with it.
        run: what the policy is told of it.
        model: the network, to be rolled back.
        base: its optimizer, likewise.
        probe: measures losses.
        rates: of the optimizer.
        recorder: where all of it is written down.
        searches: short runs, outside training.
    """

    def __init__(
        self,
        policy: Policy,
        run: Run,
        model: nn.Module,
        base: Optimizer,
        probe: Probe,
        rates: ParamGroupLRs,
        recorder: Recorder,
        searches: Outside,
    ) -> None:
        self.policy, self.run = policy, run
        self._model, self._base, self._probe, self._rates = model, base, probe, rates
        self._recorder, self._searches = recorder, searches
        self._state = policy.begin(run)
        if not dataclasses.is_dataclass(self._state):
            raise TypeError(
                "A policy's begin(run) must return its state as a frozen dataclass of plain values, which goes into "
                f"checkpoints; got {self._state!r:.60}."
            )
        self._idle = 0  # what the policy is told of calls without a step
        self._pending: list[Tensor] = []  # losses still on the device, those of validation in their last rows
        self._unreported: list[Losses] = []  # of each step since the last report
        self._saved: tuple[int, Snapshot] | None = None  # the place to roll back to, and when the run was last there
        self._kept: Snapshot | None = None  # on the way from there, in a comparison that is not decided yet
        self._has_probed = False  # whether a decision on a probe is on record
        self._no_effect = True  # whether no loss told of the steps of the first probe, although they moved parameters
        if (concern := policy.concern(run)) is not None:
            recorder.warn("concern", concern)

    def phase(self, step: int) -> str:
        """The policy's, after so many steps."""
        return self.policy.phase(self._state, self._now(step))

    def before(self, step: int) -> StepLine | None:
        """Before the step that follows ``step`` steps: a copy of the parameters, where it may be probed along."""
        if step >= self.run.total_steps:
            return None
        try:
            self._check(step)
            self._set_rate(step)
            if not self.policy.may_probe(self._state, self._now(step)):
                return None
            with self._recorder.cost.timing("probes"):
                moving = [p for p in held_parameters(self._base) if p.requires_grad or p.grad is not None]
                return self._unless_full(lambda: StepLine(moving))
        except BaseException:
            self.reset()
            raise

    def after(self, line: StepLine | None, step: int) -> None:
        """After ``step`` steps, along the last of which ``line`` lies: measure, decide, act; set the next step's rate.

        Whatever is raised, the policy forgets what is under way: whoever catches it (out of memory, a bad example) and
        goes on has lost this measurement, not all the others.
        """
        if step > self.run.total_steps:
            return
        try:
            self._check(step)
            request = self.policy.along(self._state, self._now(step))
            if request is not None and (line is not None or step == self.run.total_steps):
                self._along(request, line, step)
                self._check(step)
            if step < self.run.total_steps:
                self._set_rate(step)
        except BaseException:
            self.reset()
            raise

    def reset(self) -> None:
        """Forget what is under way; the place to roll back to stays."""
        self._state = self.policy.reset(self._state)
        self._pending, self._unreported, self._kept = [], [], None

    def forget(self, measured: Callable[[Any], Any]) -> None:
        """Leave what is under way, and of the policy's state what ``measured(state)`` leaves out."""
        self.reset()
        self._state = measured(self._state)

    def regrouped(self, step: int) -> None:
        """The optimizer has another group, which what is kept does not know: the place to roll back to is here now."""
        self.reset()
        if self._saved is not None:
            self._saved = step, self._capture()

    def start_cooldown(self, step: int, steps: int) -> None:
        """Let the rate fall to zero over so many ``steps`` from the one taken last."""
        self._state = self.policy.cooldown(self._state, self._now(step), steps)
        self._set_rate(step)

    def change_length(self, total_steps: int, step: int) -> None:
        """The run is of so many steps from here on; one that has not begun begins anew.

        What is under way is forgotten: a window of another length has other minibatches to be compared with.
        """
        run = dataclasses.replace(self.run, total_steps=total_steps)
        begun = self.policy.begin(run)  # it may refuse such a run
        if step == 0 and not self._has_probed:
            self._state = begun
        elif run != self.run:
            self.reset()
        self.run = run

    def idle(self, step: int, calls: int) -> None:
        """So many calls of ``zero_grad`` and no step: whether the policy wants to know if the run still lives."""
        self._idle = calls
        try:
            self._check(step)
        except BaseException:
            self.reset()
            raise
        finally:
            self._idle = 0

    def tell_of_dead_weights(self, calls: int) -> None:
        """Warn of weights that are no numbers, by this rank's alone: nobody waits for another."""
        if all(bool(torch.isfinite(own_part(p.detach())).all()) for p in held_parameters(self._base)):
            return
        self._recorder.warn(
            "dead weights",
            f"{calls} calls of zero_grad without a step, and weights are not finite: the run is lost, and a loop that "
            "skips losses of NaN goes on for ever. On several ranks AutoLR brings it back at a step only: load a "
            "checkpoint, or let step() be called for such losses too.",
        )

    def _now(self, step: int, lr: float | None = None) -> Progress:
        lr = self._rates.lr if lr is None else lr
        cost = self._recorder.cost
        return Progress(self.run, step, lr, cost.forward_equivalents, self._idle, cost.discarded_steps)

    def _set_rate(self, step: int) -> None:
        """Of the step that follows ``step`` steps."""
        rate = self.policy.rate(self._state, self._now(step))
        if rate is not None:
            self._rates.hold(rate)

    def _check(self, step: int) -> None:
        """Measure what the policy wants to know here, until it wants nothing."""
        while (request := self.policy.check(self._state, self._now(step))) is not None:
            losses: tuple[Losses, ...] = ()
            search = None
            still: tuple[int, ...] = ()
            if request.gradients:
                still = without_gradient(held_parameters(self._base), none=request.gradients == "zero or none")
            if request.kind == "search":
                search = self._searched(request)
            elif request.kind == "from snapshot":
                if (compared := self._unless_it_fails(partial(self._compared, request))) is None:
                    return
                losses = (compared,)
            elif request.minibatches:
                if (measured := self._unless_full(partial(self._measured, request))) is None:
                    return
                losses = (measured,)
            if request.snapshot:
                if (place := self._unless_full(self._capture)) is None:
                    return
                self._saved = step, place
            self._decide(request, step, losses, search, still)

    def _unless_full(self, measure: Callable[[], T]) -> T | None:
        """What was measured; None, and a warning once, where memory ran out: training itself may have enough."""
        try:
            return measure()
        except Exception as error:
            if several() or not ran_out_of_memory(error):  # the other ranks are waiting for what this one measures
                raise
            make_room()
            self._leave_out(f"{error!s:.200}")
            return None

    def _unless_it_fails(self, compare: Callable[[], Losses | None]) -> Losses | None:
        """What was compared; None, and a warning, where it failed: nobody asked for it, and training goes on."""
        try:
            return self._unless_full(compare)
        except TrialFailedError as error:
            cause = error.__cause__
            self.reset()
            self._recorder.warn(
                "trial failed",
                f"A trial of a lower peak failed ({type(cause).__name__}: {cause!s:.200}): it is left out, all is put "
                "back, and training goes on at the present rate. It calls loss_fn, or the train_step of search=, as a "
                "search before training does.",
            )
            return None

    def _leave_out(self, why: str) -> None:
        self.reset()
        self._recorder.warn(
            "memory",
            f"Memory ran out in a measurement ({why}): it is left out, and the next one is taken when it is due. "
            "Training goes on at the present rate. A smaller superbatch, or fewer minibatches in loss_fn at a time, "
            "take less.",
        )

    def _searched(self, request: ProbeRequest) -> Search:
        cost = self._recorder.cost
        self._recorder.flush()  # it may take long: whoever watches the log sees that it has begun
        self._rates.hold(self._rates.lr)  # a scheduler that warms up from 0 leaves no rate to begin with
        with cost.timing("search"):
            found = self._searches.search(request, self.run.total_steps)
        cost.search += found.cost
        return found

    def _compared(self, request: ProbeRequest) -> Losses | None:
        cost = self._recorder.cost
        self._recorder.flush()
        with cost.timing("search"):
            compared = self._searches.compare(request, self._restore_saved, self._keep)
        if compared is None:
            self._leave_out("one of the ranks has no room for a trial of a lower peak")
            return None
        here, there, spent = compared
        cost.search += round(spent)
        return here, there

    def _keep(self) -> None:
        self._kept = None  # of steps that had to be taken anew: not two of them at once
        self._recorder.cost.snapshots += 1
        self._kept = Snapshot.capture(self._model, self._base)  # in the trial's own seconds

    def _measured(self, request: ProbeRequest) -> Losses:
        """Losses where the parameters are, or where the last snapshot was taken."""
        cost = self._recorder.cost
        with cost.timing(request.purpose):
            if request.kind == "at snapshot":
                here = Snapshot.capture(self._model, self._base)
                back = WayBack([lambda: here.restore(self._model, self._base)])
                losses = certainly(lambda: self._losses_there(request), back)
            else:
                losses = self._losses_here(request)
        setattr(cost, request.purpose, getattr(cost, request.purpose) + request.minibatches)
        return tuple(map(tuple, losses))

    def _losses_here(self, request: ProbeRequest) -> list[list[float]]:
        return gather_minibatches(self._probe.here(request.superbatch, request.minibatches))

    def _losses_there(self, request: ProbeRequest) -> list[list[float]]:
        self._restore_saved()
        return self._losses_here(request)

    def _along(self, request: ProbeRequest, line: StepLine | None, step: int) -> None:
        """Measure along the step just taken; without a ``line`` only report what was measured along those before."""
        cost = self._recorder.cost
        if line is None:
            request = dataclasses.replace(request, minibatches=0)
        else:
            moved = self._has_probed or line.moved()
            with cost.timing("probes"):
                eps = (*request.eps, *request.validation_eps)
                size = request.minibatches
                losses = self._unless_full(lambda: self._probe.along(line, eps, request.superbatch, size))
                if losses is None:
                    return
                self._pending.append(losses)
                cost.probes += len(request.eps) * request.minibatches
                cost.validation += len(request.validation_eps) * request.minibatches
                if not self._has_probed or several() or request.report:
                    self._settle()
            if not self._has_probed:
                rows = self._unreported[-1][: len(request.eps)]
                self._no_effect = self._no_effect and moved and len(set(rows)) == 1
        reported: tuple[Losses, ...] = ()
        if request.report:
            self._settle()
            reported, self._unreported = tuple(self._unreported), []
        self._decide(request, step, reported)

    def _settle(self) -> None:
        """Fetch what is still on the device. Collective, where there are ranks."""
        if not self._pending:
            return
        rows = gather_minibatches(torch.cat(self._pending, dim=1))
        # Several ranks settle each step at once, since their minibatches come back side by side.
        widths = [len(rows[0])] if len(self._pending) == 1 else [block.shape[1] for block in self._pending]
        for end, width in zip(itertools.accumulate(widths), widths, strict=True):
            self._unreported.append(tuple(tuple(row[end - width : end]) for row in rows))
        self._pending = []

    def _decide(
        self, request: ProbeRequest, step: int, losses: tuple[Losses, ...], search: Search | None = None,
        without_gradient: tuple[int, ...] = (),
    ) -> None:  # fmt: skip
        usable = not request.report or self._rates.check()
        result = ProbeResult(request, self._now(step, None if usable else 0.0), losses, search, without_gradient)
        self._state, decision = self.policy.decide(self._state, result)
        if decision is not None:
            self._act(decision, step)

    def _act(self, decision: Decision, step: int) -> None:
        """Go where the decision says, and write it down."""
        seen = decision.evidence or Evidence(self.phase(step), self._rates.lr)
        if seen.eps and not self._has_probed:
            self._has_probed = True
            if self._no_effect:
                self._warn_of_no_effect(seen.losses[0], seen.lr)
        if decision.verdict == "roll back":
            lost = self._roll_back(step, to_kept=decision.to_kept)
            decision = dataclasses.replace(decision, numbers={**decision.numbers, "steps": float(lost)})
        self._kept = None
        # A schedule sets the rate of the next step for it. That of a snapshot, which came back with it, is not kept.
        scheduled = self.policy.rate(self._state, self._now(step)) is not None
        self._rates.set(self._rates.lr if scheduled else decision.lr)
        self._recorder.write(step, decision, seen)
        if decision.trigger in WARNED_OF:
            self._recorder.warn(name_of(decision.trigger), f"AutoLR, step {step}: {self._recorder.history[-1].reason}.")

    def _roll_back(self, step: int, *, to_kept: bool) -> int:
        """Go back to where the snapshot was taken, or on from there; how many steps of the loop that loses."""
        assert self._saved is not None, "a policy that rolls back has asked for a snapshot"
        lost = step - self._saved[0]
        if to_kept:
            assert self._kept is not None, "a policy that goes on from a comparison has asked to keep its place"
            self._saved = self._saved[0], self._kept  # whose steps stand for those that are undone, and are paid
        else:
            self._recorder.cost.discarded_steps += lost
        with self._recorder.cost.timing("snapshots"):
            self._restore_saved()
        self._saved = step, self._saved[1]  # what goes back there once more has lost the steps from here only
        return lost

    def _restore_saved(self) -> None:
        assert self._saved is not None
        place = self._saved[1]
        certainly(lambda: None, WayBack([lambda: place.restore(self._model, self._base)]))  # not half of it

    def _capture(self) -> Snapshot:
        cost = self._recorder.cost
        with cost.timing("snapshots"):
            cost.snapshots += 1
            return Snapshot.capture(self._model, self._base)

    def _warn_of_no_effect(self, loss: float, lr: float) -> None:
        self._recorder.warn(
            "same loss",
            f"The loss is {number(loss)} at every eps: moving the parameters along the last step makes no difference "
            "to loss_fn(model, batch). It must depend on the parameters of the model it is given, and the step (LR "
            f"{number(lr)}) must be large enough to show in float32. The LR is left alone.",
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain containers and tensors."""
        self._settle()
        saved = None if self._saved is None else {"steps": self._saved[0], "snapshot": self._saved[1].state_dict()}
        return {
            "policy_state": _plain(dataclasses.asdict(self._state)),
            "unreported": [[list(row) for row in step] for step in self._unreported],
            "has_probed": self._has_probed,
            "no_effect": self._no_effect,
            "saved": saved,
        }

    def prepare(self, own: Mapping[str, Any]) -> Callable[[], None]:
        """What goes on as it was when the state was taken; nothing is changed before it is called.

        Raises:
            KeyError, TypeError, ValueError: it is not of this form.
        """
        state = own["controller"]
        policy_state = self.policy.restore(state["policy_state"])
        unreported = [tuple(map(tuple, step)) for step in state["unreported"]]
        flags = bool(state["has_probed"]), bool(state["no_effect"])
        saved = state["saved"]
        place = None if saved is None else (int(saved["steps"]), Snapshot.from_state_dict(saved["snapshot"]))
        if place is not None:
            place[1].check(self._base)

        def take() -> None:
            self._state, self._pending, self._unreported, self._saved = policy_state, [], unreported, place
            self._has_probed, self._no_effect = flags

        return take


def _plain(value: Any) -> Any:
    """With its enumerations as their values, so that it loads with ``weights_only=True``."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value.value if isinstance(value, Enum) else value
