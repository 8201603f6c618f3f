"""Lightning's manual optimization with a step every few minibatches: how long the fit is, also when it is resumed."""

from __future__ import annotations

import warnings

import pytest

pl = pytest.importorskip("lightning.pytorch")
from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402
from lightning_runs import Manual, Net, fit, loader, print_of  # noqa: E402

import autolr  # noqa: E402
from autolr.integrations.lightning import AutoLRCallback, FindPeakCallback  # noqa: E402
from autolr.numerics.shape import shape  # noqa: E402


class Resting(Manual):
    """Ten minibatches an epoch; what a step's number of them leaves over is a step, waits, or is counted on."""

    def __init__(self, each, rest):
        super().__init__(each)
        self.rest, self.seen, self.rates = rest, 0, []

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        optimizer.register_step_pre_hook(self.stepping)
        return optimizer

    def stepping(self, optimizer, *_):
        if not autolr.is_probing():
            self.rates.append(optimizer.param_groups[0]["lr"])

    def training_step(self, batch, batch_idx):
        self.manual_backward(self.loss(batch) / self.each)
        self.seen += 1
        counted = self.seen if self.rest == "on" else batch_idx + 1
        if counted % self.each == 0 or (self.rest == "step" and batch_idx == 9):
            self.optimizers().step()
            self.optimizers().zero_grad()


def known():
    return AutoLRCallback(autolr.PeakSearch(peak=0.01, guard=False))


BOTH = pytest.mark.parametrize("make", [known, FindPeakCallback], ids=["AutoLR", "find_peak"])


def length(callback):
    return (callback.optimizer if isinstance(callback, AutoLRCallback) else callback.schedule).total_steps


def peak(callback):
    return 0.01 if isinstance(callback, AutoLRCallback) else callback.peak.lr


def each_epoch(path):
    return ModelCheckpoint(path, filename="{epoch}", every_n_epochs=1, save_top_k=-1, save_on_train_epoch_end=True)


def fixed(**settings):
    return {"train": loader(shuffle=False), "validate": False} | settings


@BOTH
@pytest.mark.parametrize(
    ("each", "rest", "steps"),
    [(3, "step", 16), (3, "anew", 12), (3, "on", 13), (5, "anew", 8), (12, "on", 3), (1, "anew", 40)],
)
def test_a_fit_is_as_long_as_its_steps_are_many_whatever_an_epoch_leaves_over(make, each, rest, steps):
    module, callback = Resting(each, rest), make()
    trainer, _ = fit(module, callback, epochs=4, validate=False)
    assert trainer.global_step == length(callback) == len(module.rates) == steps
    late = range(steps // 2, steps)  # the second epoch's first step has told the length
    assert module.rates[steps // 2 :] == pytest.approx([peak(callback) * shape(step + 1, steps) for step in late])


@BOTH
@pytest.mark.parametrize("epoch", [0, 1, 2])
@pytest.mark.parametrize(("each", "rest"), [(2, "anew"), (3, "step"), (3, "anew")])
def test_a_resumed_fit_that_accumulates_by_itself_is_the_uninterrupted_one(make, each, rest, epoch, tmp_path):
    module, whole = Resting(each, rest), make()
    trainer, _ = fit(module, whole, each_epoch(tmp_path), **fixed(epochs=4))
    again, callback = Resting(each, rest), make()
    resumed, _ = fit(again, callback, ckpt_path=tmp_path / f"epoch={epoch}.ckpt", **fixed(epochs=4))
    assert length(callback) == length(whole) == trainer.global_step
    assert again.rates == module.rates[-len(again.rates) :]
    assert len(again.rates) == trainer.global_step * (3 - epoch) // 4
    if (each, rest) != (3, "anew"):  # its gradients wait for the next epoch: Lightning's checkpoints hold none
        assert print_of(again, resumed) == print_of(module, trainer)


@BOTH
def test_a_bare_fit_that_accumulates_by_itself_is_gone_on_from_for_the_steps_that_are_left(make, tmp_path):
    fit(Resting(2, "anew"), each_epoch(tmp_path), **fixed(epochs=2))
    callback = make()
    trainer, _ = fit(Resting(2, "anew"), callback, ckpt_path=tmp_path / "epoch=1.ckpt", **fixed(epochs=6))
    assert trainer.global_step == 30
    assert length(callback) == 20


@BOTH
def test_a_fit_that_max_steps_alone_ends_is_so_long_also_where_the_module_accumulates_by_itself(make):
    callback = make()
    fit(Resting(2, "anew"), callback, epochs=-1, max_steps=30, validate=False)
    assert length(callback) == 30


@BOTH
def test_a_checkpoint_that_is_loaded_to_validate_is_none_that_the_next_fit_goes_on_from(make, tmp_path):
    module, callback = Net(), make()
    trainer, _ = fit(module, callback, each_epoch(tmp_path / "own"), epochs=3)
    fit(Net(), make(), each_epoch(tmp_path / "other"), epochs=3, train=loader(shuffle=False), seed=9)
    found = callback.peak if isinstance(callback, FindPeakCallback) else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.validate(module, loader(), ckpt_path=tmp_path / "own" / "epoch=0.ckpt", verbose=False)
        trainer.validate(module, loader(), ckpt_path=tmp_path / "other" / "epoch=1.ckpt", verbose=False)
        trainer.fit_loop.max_epochs = 5
        trainer.fit(module, loader())
    assert trainer.global_step == 50
    if isinstance(callback, AutoLRCallback):
        assert callback.optimizer.total_steps == callback.optimizer.steps_taken == 20
    else:
        assert callback.peak == found
        assert callback.schedule.total_steps == 50
