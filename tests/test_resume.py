"""A run continued from a checkpoint is the uninterrupted run, and a rollback goes back, both to the bit."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

import autolr
from autolr.measure.snapshot import Snapshot
from training_runs import (
    Print,
    Script,
    bits,
    classification,
    cross_entropy,
    differences,
    full_print,
    plain_update,
    print_of_training,
    seed_everything,
    tuned_by,
)

pytestmark = pytest.mark.long

O = torch.optim  # noqa: E741
BATCHES = list(DataLoader(classification(), batch_size=8))


class Blowing(nn.Module):
    """A network that can be blown up: its loss grows without bound with its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 2))
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) * self.gain.square()


def squared(model: nn.Module, batch: Any) -> Tensor:
    x, y = batch
    return F.mse_loss(model(x)[:, 0], y.float() * 2)


@dataclass(frozen=True)
class Case:
    base: Callable[[nn.Module], Optimizer]
    policy: Any
    window: int = 3
    steps: int = 28
    superbatch: int = 2
    seeing: frozenset[str] = frozenset()  # verdicts that the run must hold, or it proves nothing


ALL = frozenset({"raise", "lower", "roll back", "keep"})
SCRIPT = ("raise", "raise", "roll back", "look", "lower", "keep", "roll back")

CASES = {
    "script, momentum": Case(
        lambda m: O.SGD(m.parameters(), lr=0.02, momentum=0.9), Script(verdicts=SCRIPT), seeing=ALL
    ),
    "script, Adam, probes over 3 steps": Case(
        lambda m: O.Adam(m.parameters(), lr=0.003), Script(verdicts=SCRIPT, spread=3), steps=40, seeing=ALL
    ),
    "script, NAdam, rate in a tensor, groups": Case(
        lambda m: O.NAdam(
            [
                {"params": m.net.parameters(), "lr": torch.tensor(0.003)},
                {"params": [m.gain], "lr": 0.001},
            ]
        ),
        Script(verdicts=SCRIPT),
        seeing=ALL,
    ),
    "script, without snapshots": Case(
        lambda m: O.AdamW(m.parameters(), lr=0.003, amsgrad=True),
        Script(verdicts=("raise", "keep", "lower", "raise"), rollback=False),
        seeing=ALL - {"roll back"},
    ),
    "paper, diverging": Case(
        lambda m: O.SGD(m.parameters(), lr=40.0),
        autolr.ExploreExploit(explore=0.4, saturation=1.2, spread=2, factor=8.0),
        window=2,
        steps=28,
        seeing=frozenset({"roll back", "raise", "lower"}),
    ),
    "paper, from far below": Case(
        lambda m: O.RMSprop(m.parameters(), lr=3e-4, momentum=0.5, centered=True),
        autolr.ExploreExploit(explore=0.5, saturation=1.01, spread=1),
        window=2,
        steps=28,
        seeing=frozenset({"raise", "keep"}),
    ),
}


def build(case: Case, start: int = 0, **settings: Any) -> tuple[nn.Module, Any]:
    seed_everything(start)
    model = Blowing()
    windows = {"window": case.window, "superbatch": case.superbatch, "validation_eps": (0.75,)}
    settings = {"policy": case.policy} | windows | settings
    optimizer = tuned_by(case.base(model), model, squared, BATCHES, case.steps, **settings)
    return model, optimizer


def state_of(model: nn.Module, optimizer: Any) -> Print:
    """All that a checkpoint must carry: training, generators, and what AutoLR shows of itself."""
    shown = {
        "lr": repr(optimizer.lr),
        "phase": optimizer.phase,
        "history": repr(optimizer.history),
        "forwards": repr(optimizer.cost.forwards),
        "discarded": repr(optimizer.cost.discarded_steps),
    }
    return without_gradients(full_print(model, optimizer)) | shown


def without_gradients(all_there_is: Print) -> Print:
    """No checkpoint and no rollback holds them: the next backward pass makes new ones."""
    return {name: value for name, value in all_there_is.items() if not name.startswith("gradient/")}


def step(model: nn.Module, optimizer: Any, i: int) -> str:
    loss = plain_update(model, optimizer, squared, BATCHES[i * 5 % len(BATCHES)], i)
    return f"loss {bits(loss)}, rate {optimizer.lr!r}, decisions {len(optimizer.history)}"


def save(model: nn.Module, optimizer: Any) -> bytes:
    file = io.BytesIO()
    checkpoint = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state()}
    torch.save(checkpoint, file)
    return file.getvalue()


def load(saved: bytes, case: Case) -> tuple[nn.Module, Any]:
    model, optimizer = build(case, start=99)  # other weights, other generators: all must come from the checkpoint
    checkpoint = torch.load(io.BytesIO(saved), weights_only=True)
    model.load_state_dict(checkpoint["model"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    seed_everything(0)
    torch.set_rng_state(checkpoint["rng"])
    return model, optimizer


@pytest.mark.parametrize("name", CASES)
def test_a_run_continued_from_any_place_of_a_window_is_the_uninterrupted_run(name: str):
    case = CASES[name]
    model, optimizer = build(case)
    seed_everything(0)
    checkpoints, states = [save(model, optimizer)], [state_of(model, optimizer)]
    steps = []
    for i in range(case.steps):
        steps.append(step(model, optimizer, i))
        checkpoints.append(save(model, optimizer))
        states.append(state_of(model, optimizer))
    seen = {record.verdict for record in optimizer.history}
    assert seen >= case.seeing, [record.reason for record in optimizer.history]

    every = 2 if case.window == 3 else 3  # no divisor of the window: every place of one, though not of every one
    for at, saved in list(enumerate(checkpoints))[::every]:
        model, optimizer = load(saved, case)
        assert differences(state_of(model, optimizer), states[at]) == [], f"loaded at step {at}"
        # Past the next window's end; from every fourteenth step to the end of the run.
        end = case.steps if at % 14 == 0 else min(case.steps, at + case.window + 2)
        for i in range(at, end):
            assert step(model, optimizer, i) == steps[i], f"continued from step {at}, at step {i + 1}"
        assert differences(state_of(model, optimizer), states[end]) == [], f"continued from step {at}"


def test_a_checkpoint_of_a_checkpoint_is_the_same_checkpoint():
    case = CASES["script, Adam, probes over 3 steps"]
    model, optimizer = build(case)
    for i in range(17):
        step(model, optimizer, i)
    saved = optimizer.state_dict()
    _, again = load(save(model, optimizer), case)
    assert bits(again.state_dict()) == bits(saved)


def test_a_state_dict_that_was_loaded_is_not_changed_by_the_run_that_goes_on_from_it():
    case = CASES["script, momentum"]
    model, optimizer = build(case)
    for i in range(7):
        step(model, optimizer, i)
    state = copy.deepcopy(optimizer.state_dict())
    before = bits(state["autolr"])
    other_model, other = build(case)
    other_model.load_state_dict(model.state_dict())
    other.load_state_dict(state)
    for i in range(7, 25):  # through rollbacks
        step(other_model, other, i)
    assert other.cost.discarded_steps > 0
    assert bits(state["autolr"]) == before


def test_a_log_continued_after_a_crash_holds_each_decision_once(tmp_path: Any):
    case = CASES["script, momentum"]
    log = tmp_path / "trace.jsonl"
    model, optimizer = build(case, trace=log)
    saved = b""
    for i in range(14):
        step(model, optimizer, i)
        if i == 9:
            saved = save(model, optimizer)
    del model, optimizer  # killed at step 14, to be continued from step 10

    model, optimizer = build(case, start=99, trace=log)
    checkpoint = torch.load(io.BytesIO(saved), weights_only=True)
    model.load_state_dict(checkpoint["model"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    torch.set_rng_state(checkpoint["rng"])
    for i in range(10, case.steps):
        step(model, optimizer, i)
    steps = [record.step for record in autolr.read_log(log)]
    assert steps == [record.step for record in optimizer.history]


# Rollback
ROLLED = {
    "SGD": lambda m: O.SGD(m.parameters(), lr=0.02),
    "momentum": lambda m: O.SGD(m.parameters(), lr=0.02, momentum=0.9),
    "momentum, foreach": lambda m: O.SGD(m.parameters(), lr=0.02, momentum=0.9, foreach=True),
    "Adam": lambda m: O.Adam(m.parameters(), lr=0.003),
    "Adam, tensor": lambda m: O.Adam(m.parameters(), lr=torch.tensor(0.003)),
    "AdamW, fused": lambda m: O.AdamW(m.parameters(), lr=0.003, fused=True, amsgrad=True),
    "RMSprop": lambda m: O.RMSprop(m.parameters(), lr=0.003, centered=True, momentum=0.5),
    "Adagrad": lambda m: O.Adagrad(m.parameters(), lr=0.01, lr_decay=0.01),
    "Adadelta": lambda m: O.Adadelta(m.parameters()),
    "NAdam": lambda m: O.NAdam(m.parameters()),
    "RAdam": lambda m: O.RAdam(m.parameters()),
    "Adamax": lambda m: O.Adamax(m.parameters()),
    "ASGD": lambda m: O.ASGD(m.parameters(), t0=3),
}


def train_windows(
    model: nn.Module, optimizer: Any, loss_fn: Any, lengths: tuple[int, ...]
) -> list[tuple[Print, Print]]:
    """What was there where each window began and where it ended, gradients left out.

    A run's first window begins with its first step, when the forward pass before it is done; every other one begins
    where the one before it ended.
    """
    ends: list[tuple[Print, Print]] = []
    i = 0
    for length in lengths:
        start = print_of_training(model, optimizer)
        for _ in range(length):
            optimizer.zero_grad()
            loss_fn(model, BATCHES[i * 5 % len(BATCHES)]).backward()
            start = print_of_training(model, optimizer) if i == 0 else start
            optimizer.step()
            i += 1
        ends.append((start, print_of_training(model, optimizer)))
    return [(without_gradients(start), without_gradients(end)) for start, end in ends]


@pytest.mark.parametrize("name", ROLLED)
@pytest.mark.parametrize("first", [0, 1], ids=["first window", "second window"])
def test_a_rollback_restores_where_the_window_began_at_the_rate_of_the_decision(name: str, first: int):
    verdicts = ("keep",) * first + ("roll back", "roll back", "keep")
    case = Case(ROLLED[name], Script(verdicts=verdicts, factor=2.0), window=4)
    model, optimizer = build(case)
    windows = train_windows(model, optimizer, squared, (4,) * len(verdicts))
    assert [record.verdict for record in optimizer.history] == list(verdicts)
    began = windows[first][0]
    rates = [record.lr_after for record in optimizer.history]
    for times in (0, 1):  # the second time from the window that began where the first one went back to
        record = optimizer.history[first + times]
        assert record.lr_after == record.lr_before / 2
        assert differences(began, windows[first + times][1]) == ["group/0.lr"]
    assert rates[-1] == optimizer.lr == rates[first] / 2
    assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(optimizer.lr, rel=1e-6)  # a tensor is float32
    assert optimizer.cost.discarded_steps == 8
    went_on = differences(began, windows[-1][1])
    assert any(n.startswith("parameter/") for n in went_on)
    assert any(n.startswith("buffer/") for n in went_on)


def train_on(model: nn.Module, base: Optimizer) -> None:
    for i in range(3):
        plain_update(model, base, squared, BATCHES[i], i)
    base.zero_grad()


@pytest.mark.parametrize("name", ROLLED)
def test_a_snapshot_restored_twice_restores_the_same_twice(name: str):
    seed_everything(0)
    model = Blowing()
    base = ROLLED[name](model)
    train_on(model, base)
    started, snapshot = print_of_training(model, base), Snapshot.capture(model, base)
    addresses = [p.data_ptr() for p in model.parameters()]
    for _ in range(2):
        train_on(model, base)
        assert differences(started, print_of_training(model, base)) != []
        snapshot.restore(model, base)
        assert differences(started, print_of_training(model, base)) == []
        assert [p.data_ptr() for p in model.parameters()] == addresses
    through_file = Snapshot.from_state_dict(snapshot.state_dict())
    train_on(model, base)
    through_file.restore(model, base)
    assert differences(started, print_of_training(model, base)) == []


@pytest.mark.parametrize("name", ["momentum", "Adam", "RMSprop"])
def test_a_snapshot_restores_a_state_that_was_cleared_and_stays_its_own(name: str):
    seed_everything(0)
    model = Blowing()
    base = ROLLED[name](model)
    train_on(model, base)
    started, snapshot = print_of_training(model, base), Snapshot.capture(model, base)
    for _ in range(2):
        base.state.clear()
        snapshot.restore(model, base)
        assert differences(started, print_of_training(model, base)) == []
        train_on(model, base)
        assert differences(started, print_of_training(model, base)) != []


class Counting(O.SGD):
    """Keeps a number in its group that its next step depends on, as Prodigy and Schedule-Free do."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["k"] = group.get("k", 0) + 1
            group["weight_decay"] = 0.01 * group["k"]
        return super().step(closure)


def test_a_rollback_restores_what_an_optimizer_keeps_in_its_groups():
    case = Case(
        lambda m: Counting(m.parameters(), lr=0.02), Script(verdicts=("keep", "roll back"), factor=2.0), window=3
    )
    model, optimizer = build(case)
    began, ended = train_windows(model, optimizer, squared, (3, 3))[1]
    assert optimizer.history[-1].verdict == "roll back"
    assert differences(began, ended) == ["group/0.lr"]
    assert optimizer.param_groups[0]["k"] == 3


def test_a_rollback_keeps_the_tensor_that_holds_the_rate():
    case = Case(ROLLED["Adam, tensor"], Script(verdicts=("roll back",), factor=2.0), window=2)
    model, optimizer = build(case)
    held = optimizer.param_groups[0]["lr"]
    for i in range(2):
        step(model, optimizer, i)
    assert optimizer.history[-1].verdict == "roll back"
    assert optimizer.param_groups[0]["lr"] is held
    assert float(held) == pytest.approx(0.0015, rel=1e-6)


def test_a_rollback_keeps_the_users_own_objects_in_a_group():
    tag = object()
    case = Case(ROLLED["Adam"], Script(verdicts=("roll back",)), window=2)
    model, optimizer = build(case)
    optimizer.param_groups[0]["tag"] = tag
    for i in range(2):
        step(model, optimizer, i)
    assert optimizer.history[-1].verdict == "roll back"
    assert optimizer.param_groups[0]["tag"] is tag


class Remembering(nn.Module):
    """Keeps what it has seen in a buffer that grows, and makes another one only when it is first called."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(6, 2)
        self.register_buffer("seen", torch.zeros(0, 6))
        self.register_buffer("last", None)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = torch.cat([self.seen, x.detach()])
        self.last = x.detach().mean(0)
        return self.net(x) + 0.01 * self.seen.mean()


@pytest.mark.parametrize("first", [0, 1], ids=["first window", "second window"])
def test_a_rollback_restores_buffers_that_grew_or_were_not_there(first: int):
    seed_everything(0)
    model = Remembering()
    policy = Script(verdicts=("keep",) * first + ("roll back",))
    base = O.SGD(model.parameters(), lr=0.02)
    optimizer = tuned_by(base, model, cross_entropy, BATCHES, 20, policy=policy, window=2, superbatch=2)
    began, ended = train_windows(model, optimizer, cross_entropy, (2,) * (first + 1))[first]
    assert optimizer.history[-1].verdict == "roll back"
    assert differences(began, ended) == ["group/0.lr"]


# What cannot be continued
def saved_run() -> tuple[Case, dict[str, Any]]:
    case = CASES["paper, from far below"]
    model, optimizer = build(case)
    for i in range(5):
        step(model, optimizer, i)
    return case, optimizer.state_dict()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"superbatch": 3}, "superbatch=3"),
        ({"seed": 7}, "seed"),
        ({"policy": autolr.Monitor()}, "policy"),
        ({"policy": autolr.ExploreExploit(explore=0.9, saturation=1.01, spread=1)}, "policy"),
        ({"policy": autolr.ExploreExploit(explore=0.5, saturation=1.01, spread=2)}, "policy"),
        ({"window": 5}, "window=5"),
    ],
    ids=str,
)
def test_a_state_of_another_run_is_refused_by_name_and_changes_nothing(settings: dict[str, Any], named: str):
    case, state = saved_run()
    model, optimizer = build(case, start=5, **settings)
    before = state_of(model, optimizer)
    with pytest.raises(ValueError, match=named):
        optimizer.load_state_dict(state)
    assert differences(before, state_of(model, optimizer)) == []


def test_a_state_of_a_run_of_another_length_is_refused():
    case, state = saved_run()
    _, optimizer = build(replace(case, steps=400))
    with pytest.raises(ValueError, match="total_steps"):
        optimizer.load_state_dict(state)


def test_a_state_of_another_model_is_refused_and_changes_nothing():
    case, state = saved_run()
    seed_everything(0)
    model = nn.Linear(6, 2)
    optimizer = tuned_by(
        O.SGD(model.parameters(), lr=0.1),
        model,
        cross_entropy,
        BATCHES,
        case.steps,
        policy=autolr.ExploreExploit(explore=0.5, saturation=1.01, spread=1),
        window=2,
        superbatch=case.superbatch,
        validation_eps=(0.75,),
    )
    before = state_of(model, optimizer)
    with pytest.raises(ValueError, match="saved with optimizer 'RMSprop'"):
        optimizer.load_state_dict(state)
    assert differences(before, state_of(model, optimizer)) == []


def test_the_state_of_the_bare_optimizer_is_refused_and_the_error_says_where_it_belongs():
    case, state = saved_run()
    model, optimizer = build(case)
    bare = {k: v for k, v in state.items() if k != "autolr"}
    before = state_of(model, optimizer)
    with pytest.raises(ValueError, match=r"optimizer\.base\.load_state_dict"):
        optimizer.load_state_dict(bare)
    assert differences(before, state_of(model, optimizer)) == []
    optimizer.base.load_state_dict(bare)


@pytest.mark.parametrize("broken", [{"version": 0}, {}], ids=["another version", "no version"])
def test_a_state_of_another_version_is_refused_in_words(broken: dict[str, Any]):
    case, state = saved_run()
    _, optimizer = build(case)
    own = {k: v for k, v in state["autolr"].items() if k != "version"} | broken
    with pytest.raises(ValueError, match="version"):
        optimizer.load_state_dict({**state, "autolr": own})
