"""One protocol, one controller: what answers a policy's questions drives a run; classes and words decide nothing."""

# ruff: noqa: ARG002 - a policy is told more than a toy needs

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import DataLoader

import autolr
from autolr.policies.base import Decision, Evidence, ProbeRequest, ProbeResult, Progress, Run, Trigger
from autolr.policies.wording import WORDS, explain
from autolr.runtime import recorder
from training_runs import bits, classification, cross_entropy, plain_update, seed_everything

BATCHES = list(DataLoader(classification(), batch_size=8))


# A policy of nobody's
@dataclass(frozen=True)
class ToyState:
    here: tuple[float, ...] = ()  # losses where the last question was asked
    asked: int = -1  # the step of the last question
    wants: str = ""
    undone: bool = False


@dataclass(frozen=True)
class Toy:
    """Sets the rate of each step, measures at every fourth, probes along the fifth, and goes back at the 12th."""

    told: list[ProbeResult] = field(default_factory=list, compare=False)
    foreign_rate: str = "overwritten"

    def begin(self, run: Run) -> ToyState:
        return ToyState()

    def restore(self, state: dict[str, Any]) -> ToyState:
        return ToyState(**{k: tuple(v) if isinstance(v, list) else v for k, v in state.items()})

    def concern(self, run: Run) -> str | None:
        return None

    def phase(self, state: ToyState, now: Progress) -> str:
        return "undone" if state.undone else "toying"

    def rate(self, state: ToyState, now: Progress) -> float | None:
        return 0.1 / (1 + now.step) / (2 if state.undone else 1)

    def check(self, state: ToyState, now: Progress) -> ProbeRequest | None:
        if now.step % 4 or now.step == state.asked:
            return None
        return ProbeRequest("here", now.step, 3, snapshot=now.step == 8 and not state.undone)

    def may_probe(self, state: ToyState, now: Progress) -> bool:
        return now.step == 4

    def along(self, state: ToyState, now: Progress) -> ProbeRequest | None:
        return ProbeRequest("along", 4, 3, (-1.0, 0.0), (0.5,)) if now.step == 5 else None

    def decide(self, state: ToyState, result: ProbeResult) -> tuple[ToyState, Decision | None]:
        self.told.append(result)
        now = result.now
        if result.request.kind == "along":
            return state, Decision("keep", now.lr, Trigger.MONITORING, evidence=Evidence("toying", now.lr))
        state = replace(state, here=tuple(result.here), asked=now.step)
        if now.step == 12 and not state.undone:
            seen = Evidence("toying", now.lr, loss=result.here[0])
            return replace(state, undone=True), Decision("roll back", now.lr / 2, Trigger.NO_CHANGE, evidence=seen)
        return state, None

    def reset(self, state: ToyState) -> ToyState:
        return state

    def cooldown(self, state: ToyState, now: Progress, steps: int) -> ToyState:
        raise TypeError("a toy has no cooldown")


def toyed(steps: int = 20) -> tuple[Toy, Any, list[float], list[list[Tensor]]]:
    """The policy, the optimizer, the rate of each step, and the parameters after it."""
    seed_everything(0)
    model = nn.Linear(6, 2)
    toy = Toy()
    optimizer = autolr.AutoLR(SGD(model.parameters(), lr=1.0), model, cross_entropy, BATCHES, steps, policy=toy)
    rates: list[float] = []
    optimizer.base.register_step_pre_hook(lambda base, *_: rates.append(base.param_groups[0]["lr"]))
    after, shown = [], []
    for i in range(steps):
        plain_update(model, optimizer, cross_entropy, BATCHES[i % 6], i)
        after.append([p.detach().clone() for p in model.parameters()])
        shown.append(optimizer.lr)
    assert shown[:-1] == rates[1:], "between two steps it shows the rate of the next one"
    return toy, optimizer, rates, after


def test_what_answers_the_questions_sets_the_rate_of_each_step():
    _, optimizer, rates, _ = toyed()
    assert rates == [0.1 / k for k in range(1, 13)] + [0.05 / k for k in range(13, 21)]
    assert optimizer.phase == "undone"


def test_it_gets_the_losses_that_it_asked_for_where_it_asked():
    toy, optimizer, _, _ = toyed()
    here = [result for result in toy.told if result.request.kind == "here"]
    assert [result.now.step for result in here] == [0, 4, 8, 12, 16, 20]
    assert {len(result.here) for result in here} == {3}
    (along,) = [result for result in toy.told if result.request.kind == "along"]
    (rows,) = along.losses
    before, after, beyond = rows
    assert before == tuple(here[1].here), "at eps = -1 it is what was measured before the step, on the same superbatch"
    assert before != after != beyond
    assert (optimizer.cost.probes, optimizer.cost.validation, optimizer.cost.drop_rate) == (6, 3, 18)
    assert [result.now.spent for result in toy.told] == sorted(result.now.spent for result in toy.told)


def test_a_rollback_goes_to_where_it_asked_for_a_snapshot_and_is_written_down():
    _, optimizer, _, after = toyed()
    assert all(torch.equal(a, b) for a, b in zip(after[7], after[11], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(after[7], after[10], strict=True))
    assert optimizer.cost.discarded_steps == 4
    assert [(r.step, r.verdict, r.trigger) for r in optimizer.history] == [
        (5, "keep", "monitoring"),
        (12, "roll back", "no change"),
    ]
    assert "rolled back 4 steps" in optimizer.history[1].reason


def test_something_without_one_of_the_answers_is_refused_by_its_name():
    class Mute(Toy):
        along = property()

    model = nn.Linear(6, 2)
    with pytest.raises(TypeError, match=r"policy must have along; got"):
        autolr.AutoLR(SGD(model.parameters(), lr=0.1), model, cross_entropy, BATCHES, 9, policy=Mute())


# Neither classes nor words
class Stranger:
    """Answers as another policy does, and is nothing that anybody knows."""

    def __init__(self, policy: Any) -> None:
        self._policy = policy

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._policy, name)


POLICIES = {
    "explore-exploit": autolr.ExploreExploit(explore=0.4, saturation=1.2, spread=2, window=3, superbatch=3, factor=8.0),
    "adaptive": autolr.ExploreExploit.adaptive(explore=0.5, window=3, superbatch=4, overhead=math.inf),
    "monitor": autolr.Monitor(window=3, superbatch=2),
    "peak search": autolr.PeakSearch(),
}


def squared(model: nn.Module, batch: Any) -> Tensor:
    x, y = batch
    return F.mse_loss(model(x)[:, 0], 2.0 * y)


def trained(policy: Any, steps: int = 90) -> tuple[list[Any], list[autolr.DecisionRecord]]:
    """Each step and each decision of a run. A scheduler meddles once, and the weights blow up once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        shown, history = _trained(policy, steps)
    return [*shown, *(str(warning.message).split(" ")[:3] for warning in caught)], history


def _trained(policy: Any, steps: int) -> tuple[list[Any], list[autolr.DecisionRecord]]:
    seed_everything(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    base = SGD(model.parameters(), lr=0.05, momentum=0.9)
    optimizer = autolr.AutoLR(base, model, squared, BATCHES, steps, policy=policy)
    shown: list[Any] = []
    for i in range(steps):
        if i == 45:
            optimizer.param_groups[0]["lr"] *= 0.9
        if i == 55:
            with torch.no_grad():
                model[2].weight.mul_(100)
        plain_update(model, optimizer, squared, BATCHES[i % 6], i)
        shown.append((optimizer.lr, optimizer.phase, [bits(p) for p in model.parameters()]))
    return shown, optimizer.history


@functools.cache
def plainly_trained(name: str) -> Any:
    return trained(POLICIES[name])


@pytest.mark.parametrize("name", POLICIES)
def test_no_verdict_and_no_rate_depends_on_a_policys_class_or_on_the_words(name: str, monkeypatch: pytest.MonkeyPatch):
    steps, history = plainly_trained(name)
    assert len({record.verdict for record in history}) > (name != "monitor"), "one verdict shows little"
    monkeypatch.setattr(recorder, "explain", lambda *_: "xyzzy")
    wordless = [dataclasses.replace(record, reason="xyzzy") for record in history]
    assert trained(Stranger(POLICIES[name])) == (steps, wordless)


# Words
NUMBERS = dict.fromkeys(
    ["rate", "began", "end", "rise", "noise", "asked", "stderr", "observations", "peak", "low", "high", "runs", "share",
     "loss", "best", "start", "here", "there", "age", "length", "short", "steps", "floor",
     "highest", "dead", "rate_before"], 0.125,
)  # fmt: skip


def test_every_trigger_has_words_of_its_own():
    told = {trigger: explain(Decision("keep", 0.1, trigger, numbers=NUMBERS), 0.1, "explore") for trigger in Trigger}
    assert all(text.startswith("LR kept at 0.1: ") and len(text) > 26 for text in told.values())
    # Two tell of a rise, and differ in a number that one of them has not.
    assert len(set(told.values())) == len(Trigger) - 1


def test_no_words_are_for_a_trigger_that_there_is_not():
    assert set(WORDS) == set(Trigger)


@pytest.mark.parametrize("name", POLICIES)
def test_every_decision_of_a_run_has_words_that_begin_with_what_was_done(name: str):
    done = {"keep": "LR kept", "raise": "LR raised", "lower": "LR lowered", "roll back": "rolled back"}
    _, history = plainly_trained(name)
    assert len(history) >= 5
    for record in history:
        assert record.reason.startswith(done[record.verdict])
        assert len(record.reason.split(": ", 1)[1].split()) >= 3


# A policy of one's own, with what docs/api/policies.md shows
@dataclasses.dataclass(frozen=True)
class Count:
    """What it carries."""

    looks: int = 0


@dataclasses.dataclass(frozen=True)
class Own:
    """A constant rate; every fifth step it looks, and says so."""

    trigger: autolr.policies.Trigger | str = "as I like it"
    last: float = 0.01
    state: Any = Count()
    foreign_rate = "overwritten"

    def begin(self, run: Any) -> Any:
        return self.state

    def restore(self, state: dict[str, Any]) -> Count:
        return Count(**state)

    def concern(self, run: Any) -> None: ...

    def phase(self, state: Count, now: Any) -> str:
        return "mine"

    def rate(self, state: Count, now: Any) -> float:
        return self.last if now.step == 9 else 0.01

    def check(self, state: Count, now: Any) -> Any:
        return autolr.policies.ProbeRequest("here", 0, 2) if now.step // 5 > state.looks else None

    def may_probe(self, state: Count, now: Any) -> bool:
        return False

    def along(self, state: Count, now: Any) -> None: ...

    def decide(self, state: Count, result: Any) -> Any:
        return Count(state.looks + 1), autolr.policies.Decision("keep", result.now.lr, self.trigger)

    def reset(self, state: Count) -> Count:
        return state

    def cooldown(self, state: Count, now: Any, steps: int) -> Count:
        raise TypeError


def test_a_policy_of_one_s_own_needs_nothing_but_the_protocol_and_its_own_words():
    (_, history) = trained(Own())
    assert history
    assert {record.reason for record in history} == {"LR kept at 0.01: as I like it"}
    assert {(record.trigger, record.phase) for record in history} == {("as I like it", "mine")}


@pytest.mark.parametrize(
    ("policy", "error", "told"),
    [
        (Own(autolr.policies.Trigger.HEALTHY), ValueError, r"needs numbers=\{'loss': ...\}, of which its words tell"),
        (Own(last=0.0), ValueError, r"asked for a learning rate of 0.0. It must be finite and above 0"),
        (Own(state={"looks": 0}), TypeError, r"must return its state as a frozen dataclass of plain values"),
    ],
    ids=["numbers that are missing", "a rate of 0", "a state that no checkpoint takes"],
)
def test_what_a_policy_of_one_s_own_does_wrong_is_said(policy: Own, error: type[Exception], told: str):
    with pytest.raises(error, match=told):
        trained(policy)
