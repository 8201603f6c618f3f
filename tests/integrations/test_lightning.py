"""Lightning: both callbacks, both modes of optimization, every precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

pl = pytest.importorskip("lightning.pytorch")
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, StochasticWeightAveraging  # noqa: E402
from lightning_runs import Manual, Net, Rates, data, fit, loader, print_of  # noqa: E402
from torch.utils.data import DataLoader, IterableDataset  # noqa: E402

import autolr  # noqa: E402
from autolr.integrations.lightning import AutoLRCallback, FindPeakCallback  # noqa: E402
from autolr.numerics.shape import shape  # noqa: E402
from training_runs import print_of_generators  # noqa: E402

PRECISIONS = ["32-true", "bf16-mixed", "bf16-true", "64-true"]
KNOWN = autolr.PeakSearch(peak=0.01, guard=False)


def monitor() -> autolr.Monitor:
    return autolr.Monitor(window=4, superbatch=3)


def schedule(peak: float, steps: int) -> Any:
    return pytest.approx([peak * shape(step, steps) for step in range(1, steps + 1)])


# Innocence
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", [Net, Manual])
def test_monitoring_changes_no_bit_and_no_logged_value(kind, precision):
    bare = kind()
    trainer, logged = fit(bare, precision=precision)
    generators = print_of_generators()
    module, callback = kind(), AutoLRCallback(monitor())
    tuned, also_logged = fit(module, callback, precision=precision)
    assert len(callback.optimizer.history) >= 3
    assert len(callback.optimizer.history[-1].losses) == (3 if precision == "bf16-true" else 5)
    assert print_of(module, tuned) == print_of(bare, trainer)
    assert also_logged.rows == logged.rows
    assert len(logged.rows) > 100
    assert print_of_generators() == generators
    assert (module.calls, module.outputs) == (bare.calls, bare.outputs)
    assert "log" not in vars(module)
    assert tuned.loggers == [also_logged]


@pytest.mark.parametrize("kind", [Net, Manual])
@pytest.mark.parametrize("callback", [AutoLRCallback, FindPeakCallback])
def test_a_search_leaves_the_first_step_and_what_it_logs_as_they_were(kind, callback):
    class Tiny(pl.Callback):
        """All rates are so small that a step changes nothing that can be logged."""

        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            self.grads = [p.grad.clone() for p in pl_module.parameters()]
            trainer.should_stop = True

    found = []
    for extra in ([], [callback()]):
        module, first = kind(), Tiny()
        _, logged = fit(module, first, *extra, epochs=6, limit_train_batches=1, validate=False)
        found.append((first.grads, [row for row in logged.rows if row[1] != "lr"][:6], module.calls))
    (grads, rows, calls), (grads_too, rows_too, calls_too) = found
    assert all(map(torch.equal, grads, grads_too))
    assert rows == rows_too
    assert rows
    assert calls == calls_too


# The rate
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_optimizer_is_wrapped_and_follows_the_schedule_of_the_trainer_s_own_length(precision):
    callback, rates = AutoLRCallback(), Rates()
    module = Net(lambda parameters: torch.optim.SGD(parameters, lr=0.01))
    fit(module, callback, rates, epochs=8, precision=precision)
    optimizer = callback.optimizer
    assert optimizer.history[0].search["total_steps"] == 80
    assert optimizer.steps_taken == optimizer.total_steps == 80
    assert (
        rates.rates[1:] == schedule(optimizer.history[0].lr_after, 80).expected[1:]
    )  # the search precedes the first step
    assert len(optimizer.history[0].search["runs"]) >= 2


@pytest.mark.parametrize("kind", [Net, Manual])
def test_find_peak_s_schedule_is_stepped_with_the_optimizer(kind):
    callback, rates = FindPeakCallback(seed=1, budget=0.3), Rates()
    fit(kind(), callback, rates, epochs=4)
    steps = rates.rates if kind is Net else rates.rates[1:]
    expected = schedule(callback.peak.lr, 40).expected
    assert steps == pytest.approx(expected if kind is Net else expected[1:])
    assert callback.peak.total_steps == 40


def test_with_accumulation_the_length_is_that_of_optimizer_steps_and_short_runs_accumulate_too():
    callback, rates = AutoLRCallback(autolr.PeakSearch(budget=1.0)), Rates()
    fit(Net(), callback, rates, epochs=4, accumulate_grad_batches=3)
    optimizer = callback.optimizer
    assert optimizer.steps_taken == optimizer.total_steps == 16  # ten minibatches: three of three, one of one
    longest = max(run["length"] for run in optimizer.history[0].search["runs"])
    assert longest <= 16
    assert optimizer._searches.settings["accumulation"] == 3


@pytest.mark.parametrize("callback", [AutoLRCallback, FindPeakCallback])
def test_a_module_that_accumulates_by_itself_has_its_steps_counted_before_the_first(callback):
    door, rates = callback(), Rates()
    fit(Manual(each=5), door, rates, epochs=8)
    total = door.optimizer.total_steps if callback is AutoLRCallback else door.peak.total_steps
    peak = door.optimizer.history[0].lr_after if callback is AutoLRCallback else door.peak.lr
    assert total == 16  # not 80, which the trainer estimates
    assert rates.rates[5::5] == pytest.approx(schedule(peak, 16).expected[1:])
    assert rates.rates[-1] < 0.2 * peak


class WithoutBatchNorm(Net):
    """Its averaged weights need no more minibatches."""

    def __init__(self):
        super().__init__()
        self.net[1] = torch.nn.LayerNorm(16)


@pytest.mark.filterwarnings("ignore:The learning rate was", "ignore:Swapping scheduler")
@pytest.mark.parametrize(("each", "steps"), [(1, 40), (3, 16)])
@pytest.mark.parametrize("module", [Net, WithoutBatchNorm])
def test_the_epoch_that_averaged_weights_add_for_batchnorm_has_one_step(module, each, steps):
    callback = AutoLRCallback(KNOWN)
    fit(module(), callback, StochasticWeightAveraging(1e-2, swa_epoch_start=2), epochs=4, accumulate_grad_batches=each)
    tuned = callback.optimizer
    assert tuned.steps_taken == tuned.total_steps == steps + (module is Net)


def test_a_length_that_is_given_is_taken():
    callback = AutoLRCallback(KNOWN, total_steps=20)
    fit(Manual(each=1), callback, epochs=2)
    assert callback.optimizer.total_steps == 20


def test_a_fit_that_ends_early_with_its_rate_up_is_told_of():
    class Stop(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = True

    with pytest.warns(UserWarning, match="after 10 of total_steps=40"):
        fit(Net(), AutoLRCallback(KNOWN), Stop(), epochs=4)


def test_short_runs_clip_as_the_trainer_does():
    clipped = []

    class Clipping(Net):
        def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
            clipped.append((autolr.is_probing(), gradient_clip_val, gradient_clip_algorithm))
            self.log("clipped", 1.0)
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    _, logged = fit(
        Clipping(),
        AutoLRCallback(autolr.PeakSearch(budget=1.0)),
        epochs=8,
        gradient_clip_val=0.1,
        gradient_clip_algorithm="value",
    )
    assert clipped.count((True, 0.1, "value")) > 4
    assert clipped.count((False, 0.1, "value")) == 80
    assert len(logged.of("clipped")) == 80


# Schedulers and loggers
def halving(optimizer):
    return torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)


def test_a_scheduler_of_the_module_is_replaced_by_one_that_tells_our_rate():
    callback, rates = AutoLRCallback(KNOWN), Rates()
    with pytest.warns(UserWarning, match="The module's StepLR no longer sets the learning rate"):
        trainer, logged = fit(Net(scheduler=halving), callback, rates, LearningRateMonitor("step"))
    assert rates.rates[1:] == schedule(0.01, 20).expected[1:]
    assert logged.of("lr-AdamW")[1:] == rates.rates[1:]
    assert trainer.lr_scheduler_configs[0].scheduler.get_last_lr() == [trainer.optimizers[0].param_groups[0]["lr"]]


def test_monitoring_leaves_the_module_s_scheduler_its_rate_and_its_name():
    _, bare = fit(Net(scheduler=halving), LearningRateMonitor("step"))
    _, logged = fit(Net(scheduler=halving), AutoLRCallback(monitor()), LearningRateMonitor("step"))
    assert logged.rows == bare.rows
    assert {name for _, name, _ in logged.rows if name.startswith("lr")} == {"lr-AdamW"}


@pytest.mark.parametrize("ours_first", [True, False])
@pytest.mark.parametrize("callback", [AutoLRCallback, FindPeakCallback])
def test_learning_rates_are_logged_under_the_bare_optimizer_s_name(callback, ours_first):
    pair = [callback(), LearningRateMonitor("step")]
    _, logged = fit(Net(), *(pair if ours_first else pair[::-1]))
    assert {name for _, name, _ in logged.rows if name.startswith("lr")} == {"lr-AdamW"}
    assert len(logged.of("lr-AdamW")) == 20


# Resuming
def each_epoch(path):
    return ModelCheckpoint(path, filename="{epoch}", every_n_epochs=1, save_top_k=-1, save_on_train_epoch_end=True)


def fixed(**settings):
    return {"train": loader(shuffle=False), "validate": False} | settings


@pytest.mark.parametrize("kind", [Net, Manual])
@pytest.mark.parametrize(
    "make",
    [AutoLRCallback, FindPeakCallback, lambda: AutoLRCallback(autolr.ExploreExploit(window=6, superbatch=2))],
    ids=["peak search", "find_peak", "explore-exploit"],
)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_resumed_fit_is_the_uninterrupted_one(precision, kind, make, tmp_path):
    settings = fixed(epochs=4, precision=precision)
    module, rates = kind(), Rates()
    trainer, logged = fit(module, make(), rates, each_epoch(tmp_path), **settings)
    again, more = kind(), Rates()
    resumed, also = fit(again, make(), more, ckpt_path=tmp_path / "epoch=1.ckpt", seed=5, **settings)
    assert print_of(again, resumed) == print_of(module, trainer)
    assert more.rates == rates.rates[20:]
    assert also.of("loss") == logged.of("loss")[20:]
    if isinstance(resumed.optimizers[0], autolr.AutoLR):
        assert resumed.optimizers[0].history == trainer.optimizers[0].history


def test_a_fit_goes_on_for_more_epochs_on_the_longer_schedule(tmp_path):
    fit(Net(), AutoLRCallback(KNOWN), each_epoch(tmp_path), epochs=2, **fixed())
    callback, rates = AutoLRCallback(KNOWN), Rates()
    fit(Net(), callback, rates, epochs=6, ckpt_path=tmp_path / "epoch=1.ckpt", **fixed())
    assert callback.optimizer.total_steps == callback.optimizer.steps_taken == 60
    assert rates.rates[1:] == schedule(0.01, 60).expected[21:]


def test_find_peak_goes_on_for_more_epochs_with_the_peak_it_found(tmp_path):
    first = FindPeakCallback()
    fit(Net(), first, each_epoch(tmp_path), epochs=2, **fixed())
    callback, rates = FindPeakCallback(), Rates()
    fit(Net(), callback, rates, epochs=6, ckpt_path=tmp_path / "epoch=1.ckpt", **fixed())
    assert callback.peak == first.peak
    assert rates.rates == schedule(first.peak.lr, 60).expected[20:]


@pytest.mark.filterwarnings("ignore:.*StepLR no longer sets")
@pytest.mark.parametrize("scheduler", [None, halving])
@pytest.mark.parametrize("callback", [AutoLRCallback, FindPeakCallback])
def test_a_bare_fit_s_checkpoint_is_gone_on_from_with_a_search_for_the_rest(callback, scheduler, tmp_path):
    fit(Net(scheduler=scheduler), each_epoch(tmp_path), epochs=4, **fixed())
    door, rates = callback(), Rates()
    fit(Net(scheduler=scheduler), door, rates, epochs=8, ckpt_path=tmp_path / "epoch=3.ckpt", **fixed())
    if callback is AutoLRCallback:
        total, peak, given = (
            door.optimizer.total_steps,
            door.optimizer.history[0].lr_after,
            door.optimizer.history[0].lr_before,
        )
    else:
        total, peak, given = door.peak.total_steps, door.peak.lr, door.peak.given
    assert total == 40
    assert given == pytest.approx(1e-3)  # not what the bare fit's scheduler had left of it
    assert rates.rates[1:] == schedule(peak, 40).expected[1:]


def test_our_checkpoint_can_be_gone_on_from_without_us(tmp_path):
    module = Net(scheduler=lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 0.5**step))
    with pytest.warns(UserWarning, match="LambdaLR no longer"):
        fit(module, AutoLRCallback(KNOWN), each_epoch(tmp_path), epochs=2, **fixed())
    module = Net(scheduler=lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 0.5**step))
    trainer, _ = fit(module, epochs=3, ckpt_path=tmp_path / "epoch=1.ckpt", **fixed())
    assert trainer.global_step == 30


def test_a_checkpoint_of_another_policy_is_refused_with_what_to_do(tmp_path):
    fit(Net(), AutoLRCallback(KNOWN), each_epoch(tmp_path), epochs=2, **fixed())
    with pytest.raises(ValueError, match=r"saved with policy .*base\.load_state_dict"):
        fit(Net(), AutoLRCallback(monitor()), epochs=3, ckpt_path=tmp_path / "epoch=1.ckpt", **fixed())


# Other ways to give a loss
def own_loss(module, batch):
    return F.cross_entropy(module.net(batch[0]), batch[1])


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_a_loss_and_batches_of_one_s_own_are_taken(precision):
    asked = []

    def batches():
        asked.append(1)
        place = torch.randint(160, (16,))
        return data()[place]

    callback = AutoLRCallback(loss_fn=own_loss, batches=batches)
    fit(Net(), callback, epochs=4, precision=precision)
    assert len(asked) > 10
    assert callback.optimizer.history[0].trigger in {"peak found", "no peak"}


@pytest.mark.parametrize("kind", [Net, Manual])
def test_an_autolr_that_the_module_makes_itself_trains_without_a_callback(kind):
    class Own(kind):
        def configure_optimizers(self):
            base = torch.optim.AdamW(self.parameters(), lr=1e-3)
            return autolr.AutoLR(base, self, own_loss, loader(shuffle=True), total_steps=80, policy=KNOWN)

    module = Own()
    trainer, logged = fit(module, LearningRateMonitor("step"), epochs=8)
    assert trainer.optimizers[0].steps_taken == 80
    assert logged.of("lr-AdamW")[1:] == schedule(0.01, 80).expected[1:]


def test_a_step_that_returns_nothing_is_skipped_by_short_runs_too():
    class Skipping(Net):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return None if batch[1][0] == 0 else {"loss": loss, "more": 1}

    module, callback = Skipping(), AutoLRCallback()
    with pytest.warns(UserWarning, match="returned `None`"):
        fit(module, callback, epochs=4)
    assert callback.optimizer.steps_taken == 40


# Refused, with what to do
class Stream(IterableDataset):
    def __iter__(self):
        return iter(data(64))


class TwoOptimizers(Manual):
    def configure_optimizers(self):
        parts = list(self.parameters())
        return [torch.optim.SGD(parts[:2], lr=0.1), torch.optim.SGD(parts[2:], lr=0.1)]


class TwiceTuned(Net):
    def configure_optimizers(self):
        base = torch.optim.AdamW(self.parameters(), lr=1e-3)
        return autolr.AutoLR(base, self, own_loss, loader(), total_steps=80, policy=KNOWN)


class Silent(Manual):
    def training_step(self, batch, batch_idx):
        own_loss(self, batch).backward()
        self.optimizers().step()


class Twice(Manual):
    def training_step(self, batch, batch_idx):
        for _ in range(2):
            self.manual_backward(self.loss(batch))
            self.optimizers().step()


class Loading(Net):
    def training_step(self, dataloader_iter):
        return self.loss(next(dataloader_iter)[0])


@pytest.mark.parametrize("callback", [AutoLRCallback, FindPeakCallback])
@pytest.mark.parametrize(
    ("module", "settings", "error", "message"),
    [
        (TwoOptimizers, {}, TypeError, r"tunes one optimizer; this module has 2.*AutoLR\(\[first, second\]"),
        (TwiceTuned, {}, TypeError, "returns an AutoLR already.*bare AdamW"),
        (Net, {"train": {"a": loader(), "b": loader()}}, TypeError, r"several training loaders.*batches=\.\.\."),
        (Net, {"train": DataLoader(Stream(), 16)}, ValueError, r"knows no end.*total_steps=\.\.\."),
        (Silent, {}, (TypeError, RuntimeError), r"neither calls self\.manual_backward|does not require grad"),
        (Twice, {}, TypeError, r"takes 2 optimizer steps for one batch.*loss_fn="),
        (Loading, {}, TypeError, r"dataloader_iter.*loss_fn= and batches="),
    ],
    ids=["two optimizers", "tuned twice", "two loaders", "no end", "silent", "two steps", "loads itself"],
)
def test_what_cannot_be_tuned_is_refused_with_what_to_do(callback, module, settings, error, message):
    with pytest.raises(error, match=message):
        fit(module(), callback(), **settings)


@pytest.mark.parametrize("callback", [AutoLRCallback, FindPeakCallback])
def test_a_fast_dev_run_is_left_alone(callback):
    door = callback()
    trainer, _ = fit(Net(), door, fast_dev_run=True)
    assert not isinstance(trainer.optimizers[0], autolr.AutoLR)


def test_a_stream_trains_for_max_steps():
    callback = AutoLRCallback(KNOWN)
    fit(Net(), callback, train=DataLoader(Stream(), 16), epochs=-1, max_steps=12)
    assert callback.optimizer.steps_taken == callback.optimizer.total_steps == 12


def test_one_callback_serves_two_fits():
    callback = AutoLRCallback(KNOWN)
    fit(Net(), callback, epochs=2)
    first = callback.optimizer
    fit(Net(), callback, epochs=4)
    assert callback.optimizer is not first
    assert callback.optimizer.steps_taken == callback.optimizer.total_steps == 40
