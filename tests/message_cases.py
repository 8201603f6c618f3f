"""One way to each message of the library, by a name; what a framework says is in integrations/test_messages.py."""

from __future__ import annotations

import builtins
import gc
import itertools
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, Sampler

import autolr
from autolr.policies.guard import ShortRuns
from autolr.schedules import PeakSchedule
from stuck_runs import Fragile, least_squares, squared
from training_runs import classification, cross_entropy, sgd

O = torch.optim  # noqa: E741
DATA = classification()
BATCHES = list(DataLoader(DATA, batch_size=8))
KNOWN = autolr.PeakSearch(peak=0.05)
LOOK = autolr.Monitor(window=2, superbatch=2)
CASES: dict[str, Callable[..., Any]] = {}


def case(run: Callable[..., Any]) -> Callable[..., Any]:
    """Kept by its name; its arguments are the fixtures it wants: ``tmp_path``, ``monkeypatch``."""
    CASES[run.__name__] = run
    return run


def net(width: int = 6) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, 2))


def wrap(model: Any = None, base: Any = None, loss_fn: Any = cross_entropy, batches: Any = BATCHES, **more: Any) -> Any:
    model = net() if model is None else model
    base = sgd(model) if base is None else base
    return autolr.AutoLR(base, model, loss_fn, batches, **{"total_steps": 40, "policy": KNOWN} | more)


def search(loss_fn: Any = cross_entropy, batches: Any = BATCHES, **more: Any) -> Any:
    model = net()
    return autolr.find_peak(model, sgd(model), loss_fn, batches, **{"total_steps": 300} | more)


def train(opt: Any, steps: int = 8, before: Callable[[int], Any] = lambda _: None, loss: Any = None) -> Any:
    model, loss = opt._model, loss or opt._loss_fn
    for i, batch in enumerate(itertools.islice(itertools.cycle(BATCHES), steps)):
        before(i)
        opt.zero_grad()
        loss(model, batch).backward()
        opt.step()
    return opt


def wrapped(make: Callable[[Any], Any]) -> Callable[[], Any]:
    """A case in which this optimizer of a model is wrapped."""

    def run() -> Any:
        model = net()
        return wrap(model, make(model))

    return run


def rates(*lrs: Any) -> Callable[[], Any]:
    def run() -> Any:
        model = net()
        base = O.SGD([{"params": [p]} for p in list(model.parameters())[: len(lrs)]], lr=0.1)
        for group, lr in zip(base.param_groups, lrs, strict=True):
            group["lr"] = lr
        return wrap(model, base)

    return run


ENGINE = type("DeepSpeedEngine", (nn.Sequential,), {"__module__": "deepspeed.runtime.engine"})

PARTICULAR = type(
    "Particular", (O.SGD,), {"__init__": lambda self, params, needed: O.SGD.__init__(self, params, needed, 0.9)}
)

# What cannot be tuned
CASES |= {
    "particular": lambda: autolr.find_peak(
        m := net(), PARTICULAR(m.parameters(), 0.1), cross_entropy, BATCHES, total_steps=300
    ),
    "lbfgs": wrapped(lambda m: O.LBFGS(m.parameters())),
    "radam": lambda: wrap(m := net(), O.RAdam(m.parameters()), policy=autolr.PeakSearch()),
    "wrapped already": wrapped(wrap),
    "no optimizer": wrapped(lambda m: m),
    "a list of parameters": wrapped(lambda m: list(m.parameters())),
    "an empty list": wrapped(lambda _: []),
    "held by two": wrapped(lambda m: [sgd(m), sgd(m)]),
    "strangers": wrapped(lambda m: O.SGD([*m.parameters(), *net().parameters()], lr=0.1)),
    "a group for several": wrapped(
        lambda m: wrap(m, [sgd(m[0]), sgd(m[2])]).add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    ),
    "maximize": wrapped(lambda m: O.SGD(m.parameters(), lr=0.1, maximize=True)),
    "a search of an AutoLR": lambda: autolr.find_peak(m := net(), wrap(m), cross_entropy, BATCHES, total_steps=300),
    "no module": lambda: wrap(3, O.SGD(net().parameters(), lr=0.1)),
    "deepspeed": lambda: wrap(ENGINE(*net())),
    "no rate": rates(0.1, None),
    "rates of nan": rates(math.nan),
    "rates of zero": lambda: PeakSchedule(O.SGD(net().parameters(), lr=0.0), 0.1, 10),
}


@case
def scripted() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return wrap(torch.jit.script(net()))


@case
def a_step_in_its_own_search() -> Any:
    def train_step(batch: Any) -> Any:
        optimizer.zero_grad()
        cross_entropy(model, batch).backward()
        optimizer.step()

    model = net()
    optimizer = wrap(model, policy=autolr.PeakSearch(), search={"train_step": train_step}, total_steps=300)
    return train(optimizer)


@case
def fsdp1() -> Any:
    from torch.distributed.fsdp import FullyShardedDataParallel

    model, sharded = net(), FullyShardedDataParallel.__new__(FullyShardedDataParallel)  # making one needs ranks
    nn.Module.__init__(sharded)
    base = sgd(model)
    model.add_module("sharded", sharded)
    return wrap(model, base)


@case
def a_pipeline(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("autolr.validation.alike", lambda _: False)
    return wrap()


# The loss
OTHER = net()
CASES |= {
    "a loss that is called": lambda: wrap(loss_fn=0.5),
    "a float": lambda: wrap(loss_fn=lambda m, b: cross_entropy(m, b).item()),
    "bfloat16": lambda: wrap(loss_fn=lambda m, b: cross_entropy(m, b).bfloat16()),
    "one for each": lambda: wrap(loss_fn=lambda m, b: F.cross_entropy(m(b[0]), b[1], reduction="none")),
    "nan": lambda: wrap(loss_fn=lambda m, b: cross_entropy(m, b) * math.nan),
    "no gradient": lambda: search(loss_fn=torch.no_grad()(cross_entropy)),
    "nan in a search": lambda: search(loss_fn=lambda m, b: cross_entropy(m, b) * math.nan),
    "elsewhere": lambda: train(wrap(loss_fn=lambda _, b: cross_entropy(OTHER, b), policy=LOOK), loss=cross_entropy),
}


@case
def written_late() -> Any:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.held, self.trained = net(), [torch.zeros(2_000_000)], 0

        def forward(self, x: Any) -> Any:
            if self.trained > 5:
                self.held[0] += 0.0
                self.held[0][0] += 1.0
            return self.net(x)

    model = Late()

    def count(_: int) -> None:
        model.trained += 1

    return train(wrap(model, policy=autolr.Monitor(window=1, superbatch=2)), 12, count)


# The minibatches
class Own(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return DATA[0]


class Once:
    def __init__(self) -> None:
        self.running = iter(BATCHES[:1])

    def __iter__(self) -> Any:
        return self.running


class Uncopyable(Sampler[int]):
    def __init__(self) -> None:
        self.source = (index for index in range(48))

    def __iter__(self) -> Any:
        return self.source


CASES |= {
    "no batches": lambda: wrap(batches=7),
    "a spent iterator": lambda: wrap(batches=iter(DataLoader(DATA, batch_size=8))),
    "empty": lambda: wrap(batches=[]),
    "only once": lambda: train(wrap(batches=Once(), policy=LOOK)),
    "its own iterator": lambda: wrap(batches=DataLoader(Own(), batch_size=4)),
    "a sampler": lambda: wrap(batches=DataLoader(DATA, batch_size=8, sampler=Uncopyable())),
    "a large superbatch": lambda: wrap(policy=autolr.Monitor(superbatch=50)),
    "no loader to peek": lambda: autolr.PeekableLoader(3),
}


@case
def numbers_drawn_in_between() -> Any:
    class Noisy(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 48

        def __getitem__(self, place: int) -> Any:
            return DATA[place][0] + torch.randn(6), DATA[place][1]

    loader = autolr.PeekableLoader(DataLoader(Noisy(), batch_size=8))
    running = iter(loader)
    next(running)
    loader.peek()
    torch.rand(())
    return next(running)


# The search
FLAT = {"loss_fn": lambda m, _: 0 * m[0].weight.sum() + 1.0}
CASES |= {
    "flat": lambda: search(**FLAT),
    "flat in a run": lambda: train(wrap(**FLAT, policy=autolr.PeakSearch()), 1),
    "no budget": lambda: train(wrap(total_steps=300, policy=autolr.PeakSearch(budget=1e-6)), 1),
    "never steps": lambda: search(train_step=lambda _: None),
    "a budget of nothing": lambda: search(budget=0),
    "a clip of nothing": lambda: search(clip=0),
    "search is no mapping": lambda: wrap(search=3),
    "search of other names": lambda: wrap(search={"clip": 1.0}),
    "no peak in it": lambda: autolr.Peak.from_json("{}"),
}


# While training
def spoilt(opt: Any, at: int) -> Callable[[int], None]:
    def before(step: int) -> None:
        if step == at:
            with torch.no_grad():
                next(iter(opt.param_groups[0]["params"])).fill_(math.nan)

    return before


@case
def diverged() -> Any:
    opt = wrap(total_steps=100)
    return train(opt, 100, spoilt(opt, 60))


@case
def units_died() -> Any:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))

    def error(model: Any, batch: Any) -> Any:
        x = batch[0]
        return (model(x) - (x[:, :1] * x[:, 1:2]).tanh() - x[:, 2:3]).square().mean()

    def kill(step: int) -> None:
        if step == 3:
            with torch.no_grad():
                model[0].bias.fill_(-1e3)

    return train(wrap(model, loss_fn=error, total_steps=200), 120, kill)


@case
def a_peak_at_which_the_run_stands() -> Any:
    torch.manual_seed(0)
    model, data = Fragile(), least_squares()
    policy = autolr.PeakSearch(peak=0.1, short_runs=ShortRuns(11.0, 1.6, 30))
    opt = wrap(model, O.SGD(model.parameters(), lr=0.1), squared, data, total_steps=1200, policy=policy)
    for batch in data[:260]:
        opt.zero_grad()
        squared(model, batch).backward()
        opt.step()
    return opt


@case
def short_runs_typed_by_hand() -> Any:
    return autolr.PeakSearch(peak=0.1, short_runs=(2.3, 1.0, 15))


@case
def lost() -> Any:
    class Remembering(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.seen = net(), torch.zeros(6)

        def forward(self, x: Any) -> Any:
            return self.net(x + self.seen)

    model = Remembering()

    def poison(step: int) -> None:
        model.seen[0] = math.nan if step == 15 else model.seen[0]

    return train(wrap(model), 40, poison)


@case
def at_its_floor() -> Any:
    model = net()
    policy = autolr.ExploreExploit(explore=0.0, saturation=1.0001, window=2, superbatch=6, floor=1.0, spread=1)
    return train(wrap(model, O.SGD(model.parameters(), lr=1.0), total_steps=120, policy=policy), 120)


@case
def no_room() -> Any:
    model = net()
    policy = autolr.ExploreExploit(explore=0.0, saturation=1.0001, window=2, superbatch=6, spread=1)
    return train(wrap(model, loss_fn=lambda m, b: cross_entropy(m, b) - 10, policy=policy), 40)


@case
def another_rate() -> Any:
    opt = train(wrap(), 3)
    opt.param_groups[0]["lr"] = 7.0
    return train(opt, 3)


@case
def out_of_memory() -> Any:
    full = []

    def loss(model: Any, batch: Any) -> Any:
        if full and autolr.is_probing():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return cross_entropy(model, batch)

    opt = wrap(loss_fn=loss, policy=LOOK)
    full.append(1)
    return train(opt, 8)


@case
def trial_failed() -> Any:
    opt = []

    def loss(model: Any, batch: Any) -> Any:
        if opt and opt[0]._searches.under_way:
            raise KeyError("labels")
        return cross_entropy(model, batch)

    opt.append(
        wrap(loss_fn=loss, total_steps=100, policy=autolr.PeakSearch(peak=1e-6, short_runs=ShortRuns(0.8, 0.79, 3)))
    )
    return train(opt[0], 30)


@case
def ended_early() -> Any:
    return train(wrap(), 10).end_run()


@case
def dead_weights_on_several_ranks(monkeypatch: pytest.MonkeyPatch) -> Any:
    opt = train(wrap(), 3)
    spoilt(opt, 0)(0)
    monkeypatch.setattr("autolr.optimizer.several", lambda: True)
    for _ in range(60):
        opt.zero_grad()


@case
def ranks_of_different_lengths(monkeypatch: pytest.MonkeyPatch) -> Any:
    gc.collect()  # a run that other tests left asks for its rank when it goes
    monkeypatch.setattr("autolr.runtime.distributed.several", lambda: True)
    monkeypatch.setattr("autolr.runtime.distributed._gathered", lambda own: torch.stack([own, own + (own == 40)]))
    monkeypatch.setattr("autolr.runtime.distributed.rank", lambda: 0)
    wrap()


CASES |= {
    "too short for a probe": lambda: wrap(policy=autolr.ExploreExploit.adaptive()),
    "too long": lambda: train(wrap(total_steps=10), 12),
    "no schedule": lambda: wrap(policy=LOOK).start_cooldown(3),
    "not begun": lambda: wrap().start_cooldown(3),
    "a long cooldown": lambda: train(wrap(), 10).start_cooldown(100),
    "an end in the past": lambda: train(wrap(), 10).change_length(5),
    "a second run": lambda: train(wrap(), 10).begin_after(5),
    "a class of policies": lambda: wrap(policy=autolr.PeakSearch),
    "no policy": lambda: wrap(policy="paper"),
    "a window too long": lambda: wrap(policy=autolr.Monitor(window=40)),
    "not in table 7": lambda: autolr.ExploreExploit.from_paper("digits"),
}


# Resuming and logs
def wide() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 2))


def flipped(state: dict[str, Any]) -> dict[str, Any]:
    return state | {"autolr": state["autolr"] | {"steps": 3}}


CASES |= {
    "a bare state": lambda: wrap().load_state_dict(sgd(net()).state_dict()),
    "another seed": lambda: wrap(seed=1).load_state_dict(wrap().state_dict()),
    "other parameters": lambda: wrap(m := net(), sgd(m[0])).load_state_dict(wrap().state_dict()),
    "other groups": lambda: wrap().load_state_dict(
        wrap(m := net(), O.SGD([{"params": [p]} for p in m.parameters()], lr=0.1)).state_dict()
    ),
    "a number of AutoLR's own": lambda: wrap().log(lr=0.1),
    "a word for a number": lambda: wrap().log(val_loss="low"),
    "other shapes": lambda: wrap().load_state_dict(wrap(wide()).state_dict()),
    "a flipped bit": lambda: wrap().load_state_dict(flipped(wrap().state_dict())),
    "a state of two": lambda: wrap(m := net(), [sgd(m[0]), sgd(m[2])]).base.load_state_dict(sgd(m).state_dict()),
    "a trace in no folder": lambda tmp_path: wrap(trace=tmp_path / "nowhere" / "log.jsonl"),
}


class Told(autolr.PeakSearch):
    """A policy of one's own that does one thing wrong."""

    wrong = ""

    def begin(self, run: Any) -> Any:
        return {} if self.wrong == "state" else super().begin(run)

    def decide(self, state: Any, result: Any) -> Any:
        state, decision = super().decide(state, result)
        return state, decision and replace(decision, numbers={} if self.wrong == "numbers" else decision.numbers)

    def rate(self, state: Any, now: Any) -> float | None:
        return 0.0 if self.wrong == "rate" else super().rate(state, now)


for wrong in ("state", "rate", "numbers"):
    CASES[f"a policy of one's own: {wrong}"] = lambda wrong=wrong: train(
        wrap(policy=type("Told", (Told,), {"wrong": wrong})(peak=0.1)), 30
    )


@case
def no_autolr_to_save() -> Any:
    from autolr.integrations.checkpoint import TrainingState

    return TrainingState(m := net(), sgd(m))


@case
def a_trace_that_is_something_else(tmp_path: Path) -> Any:
    (tmp_path / "notes.txt").write_text("To do.\n")
    return wrap(trace=tmp_path / "notes.txt")


def logged(tmp_path: Path, steps: int = 40) -> Path:
    train(wrap(trace=tmp_path / "log.jsonl"), steps)
    return tmp_path / "log.jsonl"


@case
def a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    opt = train(wrap(trace=tmp_path / "log.jsonl"), 3)

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("autolr.runtime.log_writer.Path.open", full)
    return train(opt, 37)


@case
def log_of_a_process_that_runs(tmp_path: Path) -> Any:
    log = tmp_path / "log.jsonl"
    train(wrap(trace=log, policy=LOOK), 8)
    first, *others = log.read_text().splitlines()
    about = json.loads(first)["run"] | {"pid": os.getppid(), "time": time.time()}
    log.write_text("".join(f"{line}\n" for line in (json.dumps({"run": about}), *others)))
    return wrap(trace=log)


@case
def log_that_a_second_one_has_taken(tmp_path: Path) -> Any:
    first = train(wrap(trace=tmp_path / "log.jsonl"), 2)
    second = wrap(trace=tmp_path / "log.jsonl")
    train(first, 38)
    return second


@case
def log_that_somebody_else_has_written_to(tmp_path: Path) -> Any:
    tuned = train(wrap(trace=tmp_path / "log.jsonl", policy=LOOK), 8)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"point": {"step": 8}}\n')
    return train(tuned, 32)


@case
def log_that_is_renamed(tmp_path: Path) -> Any:
    tuned = train(wrap(trace=tmp_path / "log.jsonl", policy=LOOK), 8)
    (tmp_path / "log.jsonl").rename(tmp_path / "log.1")
    return train(tuned, 32)


@case
def a_damaged_line(tmp_path: Path) -> Any:
    log = logged(tmp_path)
    log.write_text(log.read_text() + "{}\n")
    return autolr.read_log(log)


@case
def a_log_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    log = logged(tmp_path)
    monkeypatch.setattr("autolr.runtime.decision_log.LARGEST", 100)
    return autolr.read_log(log)


@case
def a_log_that_is_no_text(tmp_path: Path) -> Any:
    (tmp_path / "log.jsonl").write_bytes(b"\xff\xfe\n")
    return autolr.read_log(tmp_path / "log.jsonl")


@case
def a_log_without_its_beginning(tmp_path: Path) -> Any:
    log = logged(tmp_path)
    log.write_text("\n".join(line for line in log.read_text().splitlines() if '"beat"' not in line) + "\n")
    return autolr.Replay(sgd(net()), log)


@case
def a_step_before_the_log(tmp_path: Path) -> Any:
    log = logged(tmp_path)
    first, _, *others = log.read_text().splitlines()
    log.write_text("\n".join([first.replace('"from": 0', '"from": 20'), *others]) + "\n")
    return command("explain", log, "--step", 7)


# Pictures, pages, the command line
def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """As if these packages were not installed."""
    real = builtins.__import__

    def importing(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] in names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.partition(".")[0])
        return real(name, *rest, **more)

    for loaded in list(sys.modules):
        if loaded.partition(".")[0] in names or loaded.startswith(("autolr.report", "autolr.cli")):
            monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setattr(builtins, "__import__", importing)


def command(*words: Any) -> None:
    from autolr.cli.app import app

    app([str(word) for word in words])


@case
def no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> Any:
    peak = autolr.Peak(0.1, 0.05, 0.2, 100, (), (2.3,), (), 1.0, 0.1, 1.0, 1e-3, None, ())
    without(monkeypatch, "matplotlib")
    return peak.plot()


@case
def no_matplotlib_for_a_run(monkeypatch: pytest.MonkeyPatch) -> Any:
    opt = train(wrap(), 3)
    without(monkeypatch, "matplotlib")
    return opt.plot()


@case
def no_jinja_for_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    opt = train(wrap(), 3)
    without(monkeypatch, "jinja2")
    return opt.report(tmp_path / "run.html")


@case
def no_jinja(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    log = logged(tmp_path)
    without(monkeypatch, "jinja2")
    return command("report", log)


@case
def no_typer(monkeypatch: pytest.MonkeyPatch) -> Any:
    without(monkeypatch, "typer")
    from autolr.cli import main

    return main()


@case
def a_folder_in_the_way(tmp_path: Path) -> Any:
    log = logged(tmp_path)
    (tmp_path / "taken").write_text("")
    return command("report", log, "--out", tmp_path / "taken" / "page.html")


@case
def nothing_to_draw(tmp_path: Path) -> Any:
    from autolr.report import write_page

    return write_page([], tmp_path / "page.html")


@case
def a_log_with_one_bad_line(tmp_path: Path) -> Any:
    log = logged(tmp_path)
    log.write_text(log.read_text().replace('"lr_after": 0', '"lr_after": "high", "was": 0', 1))
    return command("report", log)


@case
def a_damaged_result(tmp_path: Path) -> Any:
    logged(tmp_path)
    (tmp_path / "result.json").write_text("{")
    return command("report", tmp_path)


@case
def a_port_that_is_taken(tmp_path: Path) -> Any:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        return command("watch", logged(tmp_path), "--serve", "--port", taken.getsockname()[1])


CASES |= {
    "no such log": lambda tmp_path: command("report", tmp_path / "nowhere"),
    "no such run": lambda tmp_path: command("watch", tmp_path / "nowhere"),
    "no log in it": lambda tmp_path: command("report", tmp_path),
    "cannot be read": lambda tmp_path: command("explain", tmp_path),
    "no such step": lambda tmp_path: command("explain", logged(tmp_path), "--step", 41),
    "no place for rates": lambda tmp_path: command("replay", logged(tmp_path), "--out", tmp_path / "no" / "a.csv"),
}

# Arguments out of range
MONITOR = autolr.Monitor
CASES |= {
    "half a step": lambda: wrap(total_steps=1.5),
    "no step": lambda: wrap(total_steps=0),
    "a saturation that is a word": lambda: autolr.ExploreExploit(saturation="a"),
    "a saturation of 1": lambda: autolr.ExploreExploit(saturation=1),
    "eps that is a number": lambda: MONITOR(eps=0.5),
    "eps without 0": lambda: MONITOR(eps=(-0.5, 0.5)),
    "validation eps that is a number": lambda: MONITOR(validation_eps=0.5),
    "validation eps before the step": lambda: MONITOR(validation_eps=(-1.5,)),
    "overhead that is a word": lambda: MONITOR(overhead="2 %"),
    "no overhead": lambda: MONITOR(overhead=0),
    "a peak that is a word": lambda: PeakSchedule(sgd(net()), "0.1", 10),
    "half a step of a schedule": lambda: PeakSchedule(sgd(net()), 0.1, 2.5),
    "half a step of a log": lambda tmp_path: autolr.Replay(sgd(net()), logged(tmp_path), total_steps=2.5),
    "a peak of 0": lambda: PeakSchedule(sgd(net()), 0.0, 10),
    "a strategy of ours": lambda: command(
        "plan", "--params", 1e9, "--tokens", 1e9, "--batch", 1e6, "--strategy", "ours"
    ),
    "a batch above the run": lambda: command("plan", "--params", 1e9, "--tokens", 1e9, "--batch", 1e12),
}
