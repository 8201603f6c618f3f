"""Accelerate: the right order, the right length, no step counted that only accumulates."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

accelerate = pytest.importorskip("accelerate")
from accelerate import Accelerator  # noqa: E402
from accelerate.state import AcceleratorState, GradientState  # noqa: E402
from accelerate.utils import GradientAccumulationPlugin  # noqa: E402
from torch.utils.data import DataLoader, IterableDataset, TensorDataset  # noqa: E402

import autolr  # noqa: E402
import autolr.integrations.accelerate as ours  # noqa: E402
from autolr.numerics.shape import shape  # noqa: E402
from training_runs import print_of_generators, print_of_training  # noqa: E402

KNOWN = autolr.PeakSearch(peak=0.05, guard=False)
pytestmark = [
    pytest.mark.filterwarnings("ignore:AutoLR, step 0"),
    pytest.mark.filterwarnings("ignore:.*find_peak returns the optimizer's own rate"),
]


@pytest.fixture(autouse=True)
def _fresh_states():
    yield
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


def loader(examples: int = 160, batch: int = 8) -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(examples, 6, generator=generator)
    labels = (inputs[:, :3] + 0.3 * torch.randn(examples, 3, generator=generator)).argmax(1)
    return DataLoader(TensorDataset(inputs, labels), batch_size=batch, shuffle=True)


def make():
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
    return model, torch.optim.AdamW(model.parameters(), lr=1e-3)


def loss_fn(model, batch):
    inputs, labels = batch
    return F.cross_entropy(model(inputs), labels)


def train(accelerator, model, optimizer, loader, epochs, first=0):
    """The loop of accelerate's documentation; the rate of each step that is one, and each loss."""
    rates, losses = [], []
    for epoch in range(first, first + epochs):
        torch.manual_seed(epoch)
        for batch in loader:
            with accelerator.accumulate(model):
                loss = loss_fn(model, batch)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                    rates.append(optimizer.param_groups[0]["lr"])
                optimizer.step()
                optimizer.zero_grad()
                losses.append(loss.item())
    return rates, losses


def schedule(peak, steps):
    return [peak * shape(step, steps) for step in range(1, steps + 1)]


@pytest.mark.parametrize("each", [1, 4])
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_monitoring_changes_no_bit_and_no_loss(precision, each):
    found = []
    for tune in (False, True):
        accelerator = Accelerator(cpu=True, mixed_precision=precision, gradient_accumulation_steps=each)
        model, base = make()
        torch.manual_seed(0)
        parts = model, base, loader()
        if tune:
            policy = autolr.Monitor(window=2, superbatch=3)
            parts = ours.prepare(accelerator, *parts, loss_fn, epochs=2, policy=policy)
        else:
            parts = accelerator.prepare(*parts)
        rates, losses = train(accelerator, *parts, epochs=2)
        found.append((print_of_training(model, base), losses, rates, print_of_generators()))
        if tune:
            assert len(parts[1].optimizer.history) >= 3
            assert parts[1].optimizer.steps_taken == len(rates)
        AcceleratorState._reset_state(True)
        GradientState._reset_state()
    assert found[0] == found[1]
    assert len(found[0][1]) == 40


@pytest.mark.parametrize(("examples", "each", "steps"), [(160, 1, 80), (160, 4, 20), (160, 3, 28), (164, 1, 84)])
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_the_run_has_the_prepared_loader_s_length_in_steps_that_are_steps(precision, examples, each, steps):
    accelerator = Accelerator(cpu=True, mixed_precision=precision, gradient_accumulation_steps=each)
    parts = ours.prepare(accelerator, *make(), loader(examples), loss_fn, epochs=4)
    rates, _ = train(accelerator, *parts, epochs=4)
    optimizer = parts[1].optimizer
    assert optimizer.total_steps == optimizer.steps_taken == steps
    assert rates[1:] == pytest.approx(schedule(optimizer.history[0].lr_after, steps)[1:])
    assert optimizer.history[0].search["total_steps"] == steps


def test_parts_that_are_prepared_already_are_taken():
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model, base = make()
    parts = ours.prepare(accelerator, *accelerator.prepare(model, base, loader()), loss_fn, epochs=2, policy=KNOWN)
    assert len(accelerator._optimizers) == 1
    rates, _ = train(accelerator, *parts, epochs=2)
    assert rates == pytest.approx([1e-3, *schedule(0.05, 20)[1:]])


def test_an_autolr_that_is_made_first_and_then_prepared_counts_no_micro_steps():
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=4)
    model, base = make()
    tuned = autolr.AutoLR(base, model, loss_fn, loader(), total_steps=10, policy=KNOWN, search={"accumulation": 4})
    parts = accelerator.prepare(model, tuned, loader())
    rates, _ = train(accelerator, *parts, epochs=2)
    assert tuned.steps_taken == 10
    assert rates[1:] == pytest.approx(schedule(0.05, 10)[1:])


def test_the_wrong_order_is_refused_with_the_right_one():
    accelerator = Accelerator(cpu=True)
    model, base, batches = accelerator.prepare(*make(), loader())
    with pytest.raises(
        TypeError, match=r"prepared already: got AcceleratedOptimizer.*integrations\.accelerate\.prepare"
    ):
        autolr.AutoLR(base, model, loss_fn, batches, total_steps=10)
    with pytest.raises(TypeError, match="prepared already"):
        autolr.find_peak(model, base, loss_fn, batches, total_steps=10)
    parts = ours.prepare(accelerator, model, base, batches, loss_fn, epochs=1, policy=KNOWN)
    with pytest.raises(TypeError, match="is an AutoLR already"):
        ours.prepare(accelerator, *parts, loss_fn, epochs=1)


@pytest.mark.parametrize("settings", [{}, {"epochs": 1, "total_steps": 3}])
def test_a_length_is_asked_for_once(settings):
    with pytest.raises(ValueError, match="Pass epochs or total_steps, one of the two"):
        ours.prepare(Accelerator(cpu=True), *make(), loader(), loss_fn, **settings)


@pytest.mark.parametrize(
    ("epochs", "error", "message"),
    [
        (2.5, TypeError, r"epochs must be a whole number, at least 1; got 2\.5"),
        (True, TypeError, "epochs must be a whole number"),
        (0, ValueError, "epochs must be at least 1 .* got 0"),
    ],
)
def test_epochs_that_are_no_whole_number_above_0_are_refused(epochs, error, message):
    accelerator = Accelerator(cpu=True)
    with pytest.raises(error, match=message):
        ours.prepare(accelerator, *make(), loader(), loss_fn, epochs=epochs)
    with pytest.raises(error, match=message):
        ours.find_peak(accelerator, *accelerator.prepare(*make(), loader()), loss_fn, epochs=epochs)


@pytest.mark.parametrize(("each", "steps"), [(3, 26), (15, 5), (4, 20)])
def test_where_minibatches_are_counted_on_over_epochs_the_run_is_as_long_as_its_steps_are_many(each, steps):
    plugin = GradientAccumulationPlugin(num_steps=each, sync_with_dataloader=False)
    accelerator = Accelerator(cpu=True, gradient_accumulation_plugin=plugin)
    parts = ours.prepare(accelerator, *make(), loader(), loss_fn, epochs=4, policy=KNOWN)
    rates, _ = train(accelerator, *parts, epochs=4)
    tuned = parts[1].optimizer
    assert tuned.total_steps == tuned.steps_taken == len(rates) == steps
    assert rates[1:] == pytest.approx(schedule(0.05, steps)[1:])


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(torch.randn(6), torch.tensor(1)) for _ in range(40)])


def test_a_loader_without_a_length_needs_the_steps():
    accelerator = Accelerator(cpu=True)
    with pytest.raises(ValueError, match="length is not known: pass total_steps="):
        ours.prepare(accelerator, *make(), DataLoader(Stream(), batch_size=8), loss_fn, epochs=1)
    parts = ours.prepare(
        accelerator, *make(), DataLoader(Stream(), batch_size=8), loss_fn, total_steps=10, policy=KNOWN
    )
    train(accelerator, *parts, epochs=2)
    assert parts[1].optimizer.steps_taken == 10


@pytest.mark.parametrize("policy", [autolr.PeakSearch(), autolr.ExploreExploit(window=6, superbatch=2)])
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_a_state_that_is_saved_and_loaded_goes_on_to_the_bit(precision, policy, tmp_path):
    accelerator = Accelerator(cpu=True, mixed_precision=precision, gradient_accumulation_steps=2)
    model, optimizer, batches = ours.prepare(accelerator, *make(), loader(), loss_fn, epochs=6, policy=policy)
    train(accelerator, model, optimizer, batches, epochs=2)
    accelerator.save_state(str(tmp_path / "state"))
    ahead = train(accelerator, model, optimizer, batches, epochs=4, first=2)
    reached = print_of_training(model, optimizer.optimizer.base)

    AcceleratorState._reset_state(True)
    GradientState._reset_state()
    accelerator = Accelerator(cpu=True, mixed_precision=precision, gradient_accumulation_steps=2)
    again, tuned, batches = ours.prepare(accelerator, *make(), loader(), loss_fn, epochs=6, policy=policy)
    accelerator.load_state(str(tmp_path / "state"))
    assert train(accelerator, again, tuned, batches, epochs=4, first=2) == ahead
    found = print_of_training(again, tuned.optimizer.base)
    assert {k: v for k, v in found.items() if "mode" not in k} == {k: v for k, v in reached.items() if "mode" not in k}
    assert tuned.optimizer.history == optimizer.optimizer.history


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_find_peak_leaves_no_trace_and_its_schedule_steps_with_the_optimizer(precision):
    accelerator = Accelerator(cpu=True, mixed_precision=precision, gradient_accumulation_steps=3)
    model, base = make()
    model, optimizer, batches = accelerator.prepare(model, base, loader())
    before = print_of_training(model, base), print_of_generators()
    peak = ours.find_peak(accelerator, model, optimizer, batches, loss_fn, epochs=4, budget=0.5)
    assert (print_of_training(model, base), print_of_generators()) == before
    assert peak.total_steps == 28
    ours.schedule(optimizer, peak)
    rates, _ = train(accelerator, model, optimizer, batches, epochs=4)
    assert rates == pytest.approx(schedule(peak.lr, 28))


def test_a_schedule_goes_on_where_it_is_told():
    accelerator = Accelerator(cpu=True)
    model, optimizer, batches = accelerator.prepare(*make(), loader())
    peak = ours.find_peak(accelerator, model, optimizer, batches, loss_fn, epochs=2)
    ours.schedule(optimizer, peak)
    ours.schedule(optimizer, peak, taken=20)  # in the place of the first
    rates, _ = train(accelerator, model, optimizer, batches, epochs=1)
    assert rates == pytest.approx(schedule(peak.lr, 40)[20:])


def test_a_loss_in_bfloat16_is_measured_in_float32():
    accelerator = Accelerator(cpu=True)

    def low(model, batch):
        return loss_fn(model, batch).bfloat16()

    parts = ours.prepare(accelerator, *make(), loader(), low, epochs=8)
    optimizer = parts[1]
    for batch in parts[2]:
        accelerator.backward(loss_fn(parts[0], batch))
        optimizer.step()
        optimizer.zero_grad()
    assert optimizer.optimizer.history


def test_a_run_that_is_longer_than_was_said_is_told_of_once():
    accelerator = Accelerator(cpu=True)
    parts = ours.prepare(accelerator, *make(), loader(), loss_fn, epochs=1, policy=KNOWN)
    with pytest.warns(UserWarning, match="step 21 of a run of total_steps=20") as warned:
        train(accelerator, *parts, epochs=2)
    assert len(warned) == 1
