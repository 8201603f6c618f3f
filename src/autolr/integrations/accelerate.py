"""AutoLR and `find_peak` for Accelerate's loops: `prepare` in the place of ``accelerator.prepare``.

The order is what matters: the length is that of the prepared loader, short runs accumulate as the accelerator does, and
AutoLR stands inside accelerate's wrapper, which skips the steps that only accumulate.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer, patch_optimizer_step
from accelerate.utils import DistributedType, send_to_device
from torch import Tensor, nn
from torch.optim import Optimizer

from autolr.integrations.checkpoint import Memory, is_sharded
from autolr.integrations.common import accumulating, follow, loss_in_float
from autolr.optimizer import AutoLR
from autolr.peak import Peak
from autolr.peak_search import find_peak as _find_peak
from autolr.policies import Policy
from autolr.schedules import PeakSchedule
from autolr.validation import check_count

__all__ = ["find_peak", "prepare", "put_inside", "schedule"]


class _ShardedAutoLR(AutoLR):
    """One that accelerate loads the bare optimizer's state into, and then, as an object of its own, our `Memory`."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See above."""
        if "autolr" in state_dict:
            super().load_state_dict(state_dict)
        else:
            self.base.load_state_dict(state_dict)


LossFunction = Callable[[Any, Any], Tensor]
REFUSED = {DistributedType.DEEPSPEED: "DeepSpeed", DistributedType.MEGATRON_LM: "Megatron-LM"}


def prepare(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: Optimizer,
    loader: Any,
    loss_fn: LossFunction,
    *,
    epochs: int | None = None,
    total_steps: int | None = None,
    policy: Policy | None = None,
    seed: int = 0,
    trace: str | os.PathLike[str] | None = None,
) -> tuple[Any, Any, Any]:
    """Prepare model, optimizer and loader; the optimizer is tuned. Step it as any prepared one; no scheduler beside it.

    ``accelerator.save_state`` and ``load_state`` hold all of it.

    Args:
        accelerator: as the loop has it.
        model: not prepared yet, or prepared by this accelerator; likewise the others.
        optimizer: the bare one.
        loader: the training's.
        loss_fn: ``loss_fn(model, batch)``, the mean loss of a minibatch, by the prepared model.
        epochs: of training; the number of steps follows from the prepared loader's length.
        total_steps: optimizer steps, in its place: not counting those that only accumulate.
        policy: as `AutoLR`'s.
        seed: likewise.
        trace: likewise.

    Returns:
        The prepared model, optimizer and loader. The `AutoLR` itself is ``optimizer.optimizer``.

    Raises:
        TypeError: under DeepSpeed, Megatron-LM or FSDP's first version; an optimizer that is tuned already; ``epochs``
            that are no whole number.
        ValueError: neither or both of ``epochs`` and ``total_steps``; a loader of unknown length; no epoch.
    """
    _check(accelerator)
    model, accelerated, loader = _prepared(accelerator, model, optimizer, loader)
    base = accelerated.optimizer
    if isinstance(base, AutoLR):
        raise TypeError("This optimizer is an AutoLR already: accelerator.prepare is all that it needs.")
    steps = _steps(accelerator, loader, epochs, total_steps)
    loss, search = _parts(accelerator, model, base, loss_fn)
    sharded = is_sharded(model)
    kind = _ShardedAutoLR if sharded else AutoLR
    tuned = kind(base, model, loss, loader, steps, policy=policy, seed=seed, trace=trace, search=search)
    put_inside(accelerated, tuned)
    if sharded:  # accelerate keeps the bare optimizer alone, by torch's own functions
        accelerator.register_for_checkpointing(Memory(model, tuned))
    return model, accelerated, loader


def find_peak(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: AcceleratedOptimizer,
    loader: Any,
    loss_fn: LossFunction,
    *,
    epochs: int | None = None,
    total_steps: int | None = None,
    **settings: Any,
) -> Peak:
    """`autolr.find_peak` for what ``accelerator.prepare`` has returned; `schedule` then sets the rates.

    Args:
        accelerator: as the loop has it.
        model: prepared.
        optimizer: prepared.
        loader: prepared.
        loss_fn: ``loss_fn(model, batch)``, the mean loss of a minibatch.
        epochs: of training, or
        total_steps: its optimizer steps.
        **settings: further arguments of `autolr.find_peak`.

    Raises:
        TypeError, ValueError: as `prepare`.
    """
    _check(accelerator)
    steps = _steps(accelerator, loader, epochs, total_steps)
    base = optimizer.optimizer if isinstance(optimizer, AcceleratedOptimizer) else optimizer
    loss, search = _parts(accelerator, model, base, loss_fn)
    return _find_peak(model, base, loss, loader, steps, **{**search, **settings})


def schedule(optimizer: AcceleratedOptimizer, peak: Peak, taken: int = 0) -> PeakSchedule:
    """The peak's schedule, which steps by itself whenever the optimizer really does. Do not step or prepare it.

    A prepared scheduler takes a step for each process, and reaches its end after a share of the run.

    Args:
        optimizer: prepared.
        peak: what `find_peak` found.
        taken: optimizer steps already taken, where a run goes on.
    """
    base = optimizer.optimizer if isinstance(optimizer, AcceleratedOptimizer) else optimizer
    return follow(base, peak.lr, peak.total_steps, taken)


def put_inside(accelerated: AcceleratedOptimizer, tuned: AutoLR) -> None:
    """Let accelerate's wrapper step ``tuned`` in the place of its base."""
    accelerated.optimizer = tuned
    if accelerated.scaler is not None:
        accelerated._optimizer_original_step_method = tuned.step
        accelerated._optimizer_patched_step_method = patch_optimizer_step(accelerated, tuned.step)


def _prepared(accelerator: Accelerator, *parts: Any) -> list[Any]:
    """Each part once. Those that are not yet, together: FSDP2 wants model and optimizer in one call."""
    new = [place for place, part in enumerate(parts) if not _is_prepared(part)]
    result = list(parts)
    if new:
        made = accelerator.prepare(*[parts[place] for place in new])
        for place, part in zip(new, made if len(new) > 1 else [made], strict=True):
            result[place] = part
    return result


def _is_prepared(part: Any) -> bool:
    return isinstance(part, AcceleratedOptimizer) or bool(getattr(part, "_is_accelerate_prepared", False))


def _check(accelerator: Accelerator) -> None:
    """Refuse what owns the optimizer's step or the parameters, before anything is prepared."""
    kind, does = REFUSED.get(accelerator.distributed_type), "owns the optimizer's step"
    if accelerator.distributed_type == DistributedType.FSDP and not accelerator.is_fsdp2:
        kind, does = "FSDP's first version", "moves flat copies of the parameters"
    if kind is not None:
        raise TypeError(
            f"AutoLR does not train under {kind}, which {does}. Use one process, DDP, or FSDP2: "
            "FullyShardedDataParallelPlugin(fsdp_version=2)."
        )


def _steps(accelerator: Accelerator, loader: Any, epochs: int | None, total_steps: int | None) -> int:
    if total_steps is not None and epochs is None:
        return total_steps
    if epochs is None or total_steps is not None:
        raise ValueError(f"Pass epochs or total_steps, one of the two; got epochs={epochs}, total_steps={total_steps}.")
    epochs = check_count("epochs", epochs)
    each = int(accelerator.gradient_accumulation_steps)
    try:
        batches = len(loader)
    except TypeError:
        raise ValueError("This loader's length is not known: pass total_steps= in the place of epochs=.") from None
    if accelerator.gradient_state.sync_with_dataloader:  # at a loader's end the gradients that are there make a step
        return epochs * -(-batches // each)
    return epochs * batches // each  # minibatches are counted on from one epoch to the next


def _parts(
    accelerator: Accelerator, model: nn.Module, base: Optimizer, loss_fn: LossFunction
) -> tuple[LossFunction, dict[str, Any]]:
    """The loss of a batch as the data set gives it, and what a search is told beside the run."""

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return loss_in_float(loss_fn(model, send_to_device(batch, accelerator.device)))

    each, scaler = accelerator.gradient_accumulation_steps, accelerator.scaler
    if scaler is None:
        return loss, {"accumulation": each}
    place = accumulating(each, base)

    def train_step(batch: Any) -> Tensor:
        first, last = place()
        if first:
            base.zero_grad()
        measured = loss(model, batch)
        scaler.scale(measured / each).backward()
        if last:
            scaler.step(base)
            scaler.update()
            base.zero_grad()
        return measured.detach()

    return loss, {"accumulation": each, "train_step": train_step, "also": [scaler]}
