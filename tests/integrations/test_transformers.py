"""Transformers: the mixin, the callback, a plain Trainer that is given an AutoLR."""

from __future__ import annotations

import collections

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("accelerate")
from trainer_runs import (
    Numbers,
    Rates,
    Words,
    classifier,
    language_model,
    logged,
    print_of,
    train,
)
from transformers import Trainer, TrainerCallback

import autolr
from autolr.integrations.transformers import (
    AutoLRFactory,
    AutoLRMixin,
    AutoLRTrainer,
    FindPeakCallback,
    ReportRate,
)
from autolr.numerics.shape import shape
from training_runs import print_of_generators

KNOWN = {"policy": autolr.PeakSearch(peak=0.01, guard=False)}
WATCH = {"policy": autolr.Monitor(window=4, superbatch=3)}


def schedule(peak, steps):
    return [peak * shape(step, steps) for step in range(1, steps + 1)]


def told(trainer):
    return [row["learning_rate"] for row in logged(trainer) if "learning_rate" in row]


def of(trainer):
    return trainer.optimizer.optimizer


# Innocence
@pytest.mark.parametrize("each", [1, 3])
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(("make", "data"), [(classifier, Numbers), (language_model, Words)])
def test_monitoring_changes_no_bit_and_no_logged_value(make, data, bf16, each, tmp_path):
    settings = {"make": make, "data": data(), "bf16": bf16, "gradient_accumulation_steps": each, "num_train_epochs": 3}
    bare_rates, rates = Rates(), Rates()
    bare = train(Trainer, tmp_path, bare_rates, warmup_steps=3, **settings)
    generators = print_of_generators()
    tuned = train(AutoLRTrainer, tmp_path, rates, warmup_steps=3, autolr=WATCH, **settings)
    assert len(of(tuned).history) >= 1
    assert print_of(tuned) == print_of(bare)
    assert logged(tuned) == logged(bare)
    assert print_of_generators() == generators
    assert rates.rates == bare_rates.rates
    assert rates.rates[0] == 0.0  # the trainer's own warm-up
    assert getattr(tuned.model, "calls", 0) == getattr(bare.model, "calls", 0)


@pytest.mark.parametrize("kind", [AutoLRTrainer, Trainer])
def test_a_search_leaves_the_first_gradient_as_it_was(kind, tmp_path):
    class First(TrainerCallback):
        def on_optimizer_step(self, args, state, control, model=None, **_):
            self.gradients = [p.grad.clone() for p in model.parameters()]
            control.should_training_stop = True

    found = []
    for tune in (False, True):
        first = First()
        add = [FindPeakCallback] if tune and kind is Trainer else []
        with pytest.warns(UserWarning, match="after 1 of") if tune and kind is AutoLRTrainer else _nothing():
            train(kind if tune else Trainer, tmp_path, first, num_train_epochs=6, add=add)
        found.append(first.gradients)
    assert all(map(torch.equal, *found))


class _nothing:  # noqa: N801
    def __enter__(self):
        pass

    def __exit__(self, *_):
        pass


# The rate
@pytest.mark.parametrize("bf16", [False, True])
def test_the_rate_is_ours_and_logs_tell_it(bf16, tmp_path):
    rates = Rates()
    trainer = train(AutoLRTrainer, tmp_path, rates, num_train_epochs=8, bf16=bf16, warmup_steps=5)
    optimizer = of(trainer)
    assert optimizer.total_steps == optimizer.steps_taken == 96
    assert optimizer.history[0].search["given"] == 1e-3
    assert rates.rates == pytest.approx(schedule(optimizer.history[0].lr_after, 96))
    assert told(trainer) == rates.rates


@pytest.mark.parametrize("bf16", [False, True])
def test_find_peak_s_schedule_holds_and_logs_tell_it(bf16, tmp_path):
    rates, callbacks = Rates(), []

    def add(trainer):
        callbacks.append(FindPeakCallback(trainer, seed=1))
        return callbacks[0]

    trainer = train(Trainer, tmp_path, rates, num_train_epochs=8, bf16=bf16, add=[add], warmup_steps=5)
    peak = callbacks[0].peak
    assert peak.total_steps == 96
    assert peak.given == 1e-3
    assert rates.rates == pytest.approx(schedule(peak.lr, 96))
    assert told(trainer) == rates.rates


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_accumulation_shortens_the_run_and_short_runs_accumulate_too(clip, tmp_path):
    rates = Rates()
    settings = {"num_train_epochs": 8, "gradient_accumulation_steps": 5, "max_grad_norm": clip}
    trainer = train(AutoLRTrainer, tmp_path, rates, **settings)
    optimizer = of(trainer)
    assert optimizer.total_steps == optimizer.steps_taken == 24  # twelve minibatches: five, five, two
    assert rates.rates == pytest.approx(schedule(optimizer.history[0].lr_after, 24))
    search = optimizer.history[0].search
    assert search["total_steps"] == 24
    assert all(run["length"] <= 24 for run in search["runs"])


def test_a_scheduler_that_is_given_is_replaced_and_that_is_said(tmp_path):
    model = classifier()
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    pair = base, torch.optim.lr_scheduler.StepLR(base, 2)
    rates = Rates()
    with pytest.warns(
        UserWarning, match=r"StepLR that the trainer was given no longer.*optimizers=\(optimizer, None\)"
    ):
        train(AutoLRTrainer, tmp_path, rates, make=lambda: model, optimizers=pair, autolr=KNOWN)
    assert rates.rates[1:] == pytest.approx(schedule(0.01, 24)[1:])


def test_a_second_call_of_train_is_another_run_from_the_rate_that_was_given(tmp_path):
    rates = Rates()
    trainer = train(AutoLRTrainer, tmp_path, rates, num_train_epochs=4)
    first = of(trainer)
    rates.hooked.remove()
    trainer.train()
    assert of(trainer) is not first
    assert of(trainer).base is first.base
    assert of(trainer).steps_taken == 48
    assert of(trainer).history[0].search["given"] == 1e-3


def test_training_that_is_stopped_early_is_told_of(tmp_path):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            control.should_training_stop = state.global_step == 8

    with pytest.warns(UserWarning, match="after 8 of total_steps=24"):
        train(AutoLRTrainer, tmp_path, Stop(), autolr=KNOWN)


# Resuming
SAVING = {"save_strategy": "steps", "save_steps": 24, "num_train_epochs": 4}


@pytest.mark.parametrize("policy", [autolr.PeakSearch(), autolr.ExploreExploit(window=6, superbatch=2)])
@pytest.mark.parametrize("bf16", [False, True])
def test_a_resumed_run_is_the_uninterrupted_one(bf16, policy, tmp_path):
    rates, more = Rates(), Rates()
    settings = {"autolr": {"policy": policy}, "bf16": bf16, **SAVING}
    whole = train(AutoLRTrainer, tmp_path, rates, **settings)
    again = train(AutoLRTrainer, tmp_path, more, resume=str(tmp_path / "checkpoint-24"), **settings)
    assert print_of(again) == print_of(whole)
    assert more.rates == rates.rates[24:]
    assert told(again) == told(whole)
    assert [row.get("loss") for row in logged(again)[:-1]] == [row.get("loss") for row in logged(whole)[:-1]]
    assert of(again).history == of(whole).history


def test_a_run_with_find_peak_is_resumed_with_the_peak_it_found(tmp_path):
    rates, more = Rates(), Rates()
    whole = train(Trainer, tmp_path, rates, add=[FindPeakCallback], **SAVING)
    again = train(Trainer, tmp_path, more, add=[FindPeakCallback], resume=str(tmp_path / "checkpoint-24"), **SAVING)
    assert print_of(again) == print_of(whole)
    assert more.rates == pytest.approx(rates.rates[24:])
    assert told(again) == pytest.approx(told(whole))


@pytest.mark.parametrize("kind", [AutoLRTrainer, Trainer])
def test_a_bare_run_s_checkpoint_is_gone_on_from_with_a_search_for_the_rest(kind, tmp_path):
    train(Trainer, tmp_path, **SAVING)
    rates, callbacks = Rates(), []

    def add(trainer):
        callbacks.append(FindPeakCallback(trainer))
        return callbacks[0]

    settings = SAVING | {"num_train_epochs": 8, "resume": str(tmp_path / "checkpoint-24")}
    trainer = train(kind, tmp_path, rates, add=[add] if kind is Trainer else [], **settings)
    if kind is AutoLRTrainer:
        assert of(trainer).total_steps == of(trainer).steps_taken == 72
        peak, given = of(trainer).history[0].lr_after, of(trainer).history[0].search["given"]
    else:
        peak, given = callbacks[0].peak.lr, callbacks[0].peak.given
    assert given == 1e-3
    assert rates.rates == pytest.approx(schedule(peak, 72))
    assert told(trainer)[-72:] == rates.rates


@pytest.mark.parametrize("kind", [AutoLRTrainer, Trainer])
def test_a_run_goes_on_for_more_epochs_on_the_longer_schedule(kind, tmp_path):
    add = [FindPeakCallback] if kind is Trainer else []
    ours = {} if kind is Trainer else {"autolr": KNOWN}
    first, rates = Rates(), Rates()
    train(kind, tmp_path, first, add=add, **ours, **SAVING)
    peak = max(first.rates)
    settings = SAVING | {"num_train_epochs": 8}
    train(kind, tmp_path, rates, add=add, resume=str(tmp_path / "checkpoint-24"), **ours, **settings)
    assert rates.rates == pytest.approx(schedule(peak, 96)[24:])


def test_our_checkpoint_can_be_gone_on_from_without_us(tmp_path):
    train(AutoLRTrainer, tmp_path, autolr=KNOWN, **SAVING)
    trainer = train(Trainer, tmp_path, resume=str(tmp_path / "checkpoint-24"), **SAVING)
    assert trainer.state.global_step == 48


# Trainers of one's own
def test_what_a_loss_logs_and_counts_is_left_out_in_probes(tmp_path):
    class Own(Trainer):
        def __init__(self, *args, **kwargs):
            self.numbers, self.count = collections.defaultdict(list), 0  # as TRL's trainers keep their metrics
            super().__init__(*args, **kwargs)

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            self.count += 1
            self.numbers["loss"].append(loss.item())
            self.log({"seen": float(self.count)})
            return loss

    class Tuned(AutoLRMixin, Own):
        pass

    bare = train(Own, tmp_path)
    tuned = train(Tuned, tmp_path, autolr=WATCH)
    assert logged(tuned) == logged(bare)
    assert (tuned.count, tuned.numbers) == (bare.count, bare.numbers)
    assert tuned.count == 24
    assert "log" not in vars(tuned)


def test_whatever_a_loss_keeps_on_the_trainer_is_left_out_in_probes(tmp_path):
    class Meter:
        def __init__(self):
            self.n, self.seen = 0, []

    class Own(Trainer):
        def __init__(self, *args, history=None, **kwargs):
            self.history = [] if history is None else history
            super().__init__(*args, **kwargs)

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            self.history.append(loss.item())
            if not hasattr(self, "first"):  # made by the first call
                self.first, self.mean, self.meter = loss.item(), torch.zeros(()), Meter()
                self.last = collections.deque(maxlen=3)
            self.mean = 0.9 * self.mean + 0.1 * loss.detach()
            self.meter.n += 1
            self.meter.seen.append(loss.item())
            self.last.append(loss.item())
            return loss / (1 + self.mean)  # so that training shows what it holds

    class Tuned(AutoLRMixin, Own):
        pass

    bare = train(Own, tmp_path)
    tuned = train(Tuned, tmp_path, autolr=WATCH)
    for name in ("first", "mean", "last", "history"):
        assert getattr(tuned, name) == getattr(bare, name), name
    assert vars(tuned.meter) == vars(bare.meter)
    assert tuned.meter.n == 24
    assert print_of(tuned) == print_of(bare)


class Modes(torch.optim.SGD):
    calls: list = []  # noqa: RUF012

    def train(self):
        self.calls.append("train")

    def eval(self):
        self.calls.append("eval")


@pytest.mark.parametrize("kind", [torch.optim.SGD, Modes])
def test_an_optimizer_s_modes_are_passed_on_where_it_has_them(kind, tmp_path):
    Modes.calls.clear()
    trainer = train(
        AutoLRTrainer, tmp_path, num_train_epochs=1, autolr=KNOWN, optimizer_cls_and_kwargs=(kind, {"lr": 0.1})
    )
    assert Modes.calls.count("train") == (12 if kind is Modes else 0)
    trainer.evaluate(Numbers(8))
    assert Modes.calls.count("eval") == (1 if kind is Modes else 0)
    assert isinstance(of(trainer).base, kind)


def own_loss(model, batch):
    return model(**batch)["loss"]


def test_a_plain_trainer_makes_an_autolr_by_the_factory_and_logs_its_rate(tmp_path):
    batches = [{"x": Numbers()[i : i + 8]["x"], "labels": Numbers()[i : i + 8]["labels"]} for i in range(0, 96, 8)]
    kwargs = {
        "base": torch.optim.AdamW, "lr": 1e-3, "weight_decay": 0.1, "loss_fn": own_loss, "batches": batches,
        "total_steps": 96, "policy": autolr.PeakSearch(guard=False),
    }  # fmt: skip
    rates = Rates()
    trainer = train(
        Trainer, tmp_path, rates, ReportRate(), num_train_epochs=8, warmup_steps=5,
        optimizer_cls_and_kwargs=(AutoLRFactory, kwargs),
    )  # fmt: skip
    assert of(trainer).base.defaults["weight_decay"] == 0.1
    assert of(trainer).history[0].search["given"] == 1e-3
    assert rates.rates == pytest.approx(schedule(of(trainer).history[0].lr_after, 96))
    assert told(trainer) == rates.rates


def test_a_plain_trainer_that_is_given_an_autolr_logs_its_rate(tmp_path):
    model = classifier()
    batches = [{"x": Numbers()[i : i + 8]["x"], "labels": Numbers()[i : i + 8]["labels"]} for i in range(0, 96, 8)]
    tuned = autolr.AutoLR(torch.optim.AdamW(model.parameters()), model, own_loss, batches, 24, **KNOWN)
    rates = Rates()
    trainer = train(Trainer, tmp_path, rates, ReportRate(), make=lambda: model, optimizers=(tuned, None))
    assert rates.rates[1:] == pytest.approx(schedule(0.01, 24)[1:])
    assert told(trainer) == rates.rates


def given_an_autolr(tmp_path, policy, *callbacks, **settings):
    model = classifier()
    batches = [{"x": Numbers()[i : i + 8]["x"], "labels": Numbers()[i : i + 8]["labels"]} for i in range(0, 96, 8)]
    tuned = autolr.AutoLR(torch.optim.AdamW(model.parameters()), model, own_loss, batches, 48, policy=policy)
    pair = {"make": lambda: model, "optimizers": (tuned, None)}
    return train(Trainer, tmp_path, ReportRate(), *callbacks, **pair, **SAVING, **settings)


@pytest.mark.parametrize("scheduler", ["linear", "cosine"])
@pytest.mark.parametrize("policy", [autolr.PeakSearch(peak=0.01), autolr.ExploreExploit(window=6, superbatch=2)])
def test_a_plain_trainer_with_an_autolr_is_resumed_to_the_bit(policy, scheduler, tmp_path):
    rates, more, settings = Rates(), Rates(), {"lr_scheduler_type": scheduler, "warmup_steps": 3}
    whole = given_an_autolr(tmp_path, policy, rates, **settings)
    saved = torch.load(tmp_path / "checkpoint-24" / "scheduler.pt", weights_only=True)
    assert not {"step", "get_last_lr"} & set(saved)
    again = given_an_autolr(tmp_path, policy, more, resume=str(tmp_path / "checkpoint-24"), **settings)
    assert print_of(again) == print_of(whole)
    assert more.rates == rates.rates[24:]
    assert told(again) == told(whole)
    assert of(again).history == of(whole).history


# Refused
def test_what_cannot_be_is_refused_with_what_can(tmp_path):
    with pytest.raises(TypeError, match="autolr may hold policy, seed, trace; got peak"):
        train(AutoLRTrainer, tmp_path, autolr={"peak": 1.0})
    with pytest.raises(TypeError, match="tunes by AutoLR already"):
        train(AutoLRTrainer, tmp_path, autolr=KNOWN, add=[FindPeakCallback])
    train(AutoLRTrainer, tmp_path, autolr=KNOWN, **SAVING)
    with pytest.raises(ValueError, match="with policy"):
        train(AutoLRTrainer, tmp_path, autolr=WATCH, resume=str(tmp_path / "checkpoint-24"), **SAVING)
