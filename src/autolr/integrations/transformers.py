"""AutoLR and `find_peak` for the Trainer of Transformers 5: a mixin, ready as `AutoLRTrainer`, and a callback.

The loss is the trainer's own ``compute_loss`` on what its ``_prepare_inputs`` makes of a batch; what that logs or
counts is left out. The trainer's scheduler is replaced by one that tells the rate, so that logs are right.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import ExportableState

from autolr.integrations.common import ReportedRate, continue_run, follow, given_rates
from autolr.integrations.transformers_step import TrainerLoss, train_step_of
from autolr.optimizer import AutoLR
from autolr.peak import Peak
from autolr.peak_search import find_peak
from autolr.schedules import PeakSchedule

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LRScheduler

__all__ = ["AutoLRFactory", "AutoLRMixin", "AutoLRTrainer", "FindPeakCallback", "ReportRate"]

SETTINGS = ("policy", "seed", "trace")


class _TrainersAutoLR(AutoLR):
    """One whose ``load_state_dict`` also takes a checkpoint of a bare run, or of one of another length."""

    place: tuple[int, int] | None = None  # optimizer steps of the trainer's run so far, and in all

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See `continue_run`."""
        place, self.place = self.place, None
        if place is None:
            super().load_state_dict(state_dict)
        else:
            continue_run(self, state_dict, *place)


class AutoLRMixin:
    """``class MyTrainer(AutoLRMixin, Trainer)``: its optimizer, whichever it makes, is wrapped in `AutoLR`.

    The learning rate of the arguments is where the search begins; their scheduler and warm-up have no effect (unless
    the policy is `Monitor`, which leaves them alone). Checkpoints hold all of it: ``resume_from_checkpoint`` goes on,
    also for more epochs, and also from a checkpoint of a run without AutoLR, whose rest is then the run.

    Args:
        *args: the trainer's.
        autolr: `AutoLR`'s ``policy``, ``seed`` and ``trace``, by name.
        **kwargs: the trainer's.

    Raises:
        TypeError: another name in ``autolr``; DeepSpeed, FSDP or DataParallel.

    Examples:
        ``trainer = AutoLRTrainer(model, args, train_dataset=data, autolr={"policy": autolr.Monitor()})``
    """

    def __init__(self, *args: Any, autolr: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        unknown = sorted(set(autolr or ()) - set(SETTINGS))
        if unknown:
            raise TypeError(f"autolr may hold {', '.join(SETTINGS)}; got {', '.join(unknown)}.")
        self._autolr_settings, self._autolr_loader = dict(autolr or {}), None
        self._autolr_given: list[float] = []
        super().__init__(*args, **kwargs)
        _check(self)

    def get_train_dataloader(self) -> Any:
        """The trainer's, which searches draw from too."""
        self._autolr_loader = super().get_train_dataloader()  # type: ignore[misc]
        return self._autolr_loader

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> LRScheduler:
        """Wrap the optimizer, which the trainer has prepared by now; the scheduler is one that only tells the rate."""
        trainer: Any = self
        inner = _unwrapped(trainer.optimizer if optimizer is None else optimizer)
        again = isinstance(inner, AutoLR)
        base: Optimizer = inner.base if isinstance(inner, AutoLR) else inner
        if again:  # another call of `train`, which is another run
            for group, rate in zip(base.param_groups, self._autolr_given, strict=False):
                group["lr"] = rate
        given = [float(group["lr"]) for group in base.param_groups]
        self._autolr_given = given
        told, created = trainer.lr_scheduler, trainer._created_lr_scheduler
        if told is None or isinstance(told, ReportedRate):
            trainer.lr_scheduler = None
            told = super().create_scheduler(num_training_steps, base)  # type: ignore[misc]
            created = True
        tuned = self._autolr_wrap(base, num_training_steps, given)
        _put(trainer, tuned)
        if tuned.policy.foreign_rate == "ignored":
            trainer.lr_scheduler = told
        else:
            if not created:
                warnings.warn(
                    f"The {type(told).__name__} that the trainer was given no longer sets the learning rate: AutoLR "
                    "does. Pass optimizers=(optimizer, None).",
                    stacklevel=2,
                )
            trainer.lr_scheduler = ReportedRate(base, told)
        trainer._created_lr_scheduler = created
        return trainer.lr_scheduler  # type: ignore[no-any-return]

    def _autolr_wrap(self, base: Optimizer, steps: int, given: list[float]) -> AutoLR:
        trainer: Any = self
        monitors = getattr(self._autolr_settings.get("policy"), "foreign_rate", "") == "ignored"
        warmed = [float(group["lr"]) for group in base.param_groups]
        _set(base, given)  # the trainer's scheduler has set the first rate of its warm-up, which may be 0
        model, loss, search = _parts(trainer, base)
        loader = self._autolr_loader if self._autolr_loader is not None else self.get_train_dataloader()
        tuned = _TrainersAutoLR(base, model, loss, loader, steps, search=search, **self._autolr_settings)
        tuned.place = trainer.state.global_step, steps
        if monitors:
            _set(base, warmed)
        return tuned

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """The trainer's; says so if the schedule had not come to its end."""
        output = super().train(*args, **kwargs)  # type: ignore[misc]
        inner = _unwrapped(self.optimizer)  # type: ignore[attr-defined]
        if isinstance(inner, AutoLR):
            inner.end_run()
        return output


class AutoLRTrainer(AutoLRMixin, Trainer):
    """``transformers.Trainer`` with `AutoLRMixin`."""


class FindPeakCallback(TrainerCallback, ExportableState):
    """Searches the peak rate where training begins, and sets its schedule: warm-up, hold, a line to zero.

    ``trainer.add_callback(FindPeakCallback(trainer))``. Training that is resumed goes on with the peak that was found;
    from a checkpoint without one it is searched for the steps that are left.

    Args:
        trainer: whose loss and loader it uses.
        **settings: further arguments of `find_peak`: ``budget``, ``evaluation``, ``seed``, ``progress``.

    Attributes:
        peak: what was found.
    """

    def __init__(self, trainer: Any, **settings: Any) -> None:
        _check(trainer)
        self._trainer, self._settings, self._began = trainer, settings, 0
        self.peak: Peak | None = None
        self.schedule: PeakSchedule | None = None

    def state(self) -> dict[str, Any]:
        """For the trainer's checkpoint."""
        found = None if self.peak is None else self.peak.to_json()
        return {"args": {}, "attributes": {"found": found, "began": self._began}}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Search; everything is prepared, and a checkpoint is loaded."""
        trainer, taken = self._trainer, state.global_step
        base = _unwrapped(trainer.optimizer)
        if isinstance(base, AutoLR):
            raise TypeError("This trainer tunes by AutoLR already, which searches a peak itself. Drop one of the two.")
        books = state.stateful_callbacks = state.stateful_callbacks or {}
        books.setdefault(type(self).__name__, self.state())  # the trainer saves only what was there from the start
        saved = books[type(self).__name__] if taken else {}
        saved = (saved[-1] if isinstance(saved, list) else saved).get("attributes", {})
        self.peak = Peak.from_json(saved["found"]) if saved.get("found") else None
        self._began = saved["began"] if self.peak else taken
        planned = state.max_steps - self._began
        if self.peak is None:
            given_rates(base)  # the trainer's scheduler has moved them
            model, loss, search = _parts(trainer, base)
            loader = kwargs.get("train_dataloader") or trainer.get_train_dataloader()
            self.peak = find_peak(model, base, loss, loader, planned, **search, **self._settings)
        self.schedule = follow(base, self.peak.lr, planned, taken - self._began)
        trainer.lr_scheduler = ReportedRate(base, trainer.lr_scheduler)
        trainer.callback_handler.lr_scheduler = trainer.lr_scheduler
        trainer._created_lr_scheduler = True


class ReportRate(TrainerCallback):
    """For ``Trainer(optimizers=(AutoLR(...), None))``: the trainer's scheduler sets nothing and tells AutoLR's rate."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Silence the scheduler that the trainer has made."""
        inner, scheduler = _unwrapped(kwargs["optimizer"]), kwargs["lr_scheduler"]
        base = inner.base if isinstance(inner, AutoLR) else inner
        told, kind = ReportedRate(base), type(scheduler)
        # Of its class, not of itself: whatever a scheduler holds goes into the trainer's checkpoints.
        silent = {"step": lambda *_, **__: told.step(), "get_last_lr": lambda _: told.get_last_lr()}
        scheduler.__class__ = type(kind.__name__, (kind,), silent)
        if not state.global_step:  # else the rate is the checkpoint's
            given_rates(base)


class AutoLRFactory:
    """For a plain Trainer: ``optimizer_cls_and_kwargs=(AutoLRFactory, {...})``, beside ``callbacks=[ReportRate()]``.

    The keywords are ``base`` (an optimizer's class), ``loss_fn``, ``batches``, ``total_steps``, any of `AutoLR`'s, and
    the rest for the base: ``lr``, ``weight_decay``. `AutoLRTrainer` needs none of this.
    """

    def __call__(
        self,
        model: nn.Module,
        *,
        base: Callable[..., Optimizer],
        loss_fn: Callable[[Any, Any], Tensor],
        batches: Any,
        total_steps: int,
        **settings: Any,
    ) -> AutoLR:
        """The optimizer of a model's parameters that want a gradient."""
        ours = {name: settings.pop(name) for name in (*SETTINGS, "search") if name in settings}
        parameters = [p for p in model.parameters() if p.requires_grad]
        return AutoLR(base(parameters, **settings), model, loss_fn, batches, total_steps, **ours)


def _check(trainer: Any) -> None:
    """Refuse what owns the step or the parameters, or averages over devices by itself."""
    found = {
        "DeepSpeed": trainer.is_deepspeed_enabled,
        "the trainer's FSDP": trainer.is_fsdp_enabled,
        f"DataParallel (one process with {trainer.args.n_gpu} devices)": trainer.args.n_gpu > 1,
    }
    if kinds := [kind for kind, there in found.items() if there]:
        raise TypeError(
            f"AutoLR does not train under {kinds[0]}. Use one process with one device, or DDP by torchrun or "
            "accelerate launch; for FSDP2, a loop of your own with autolr.integrations.accelerate.prepare. Or search "
            "in one of these, and give this trainer the peak as learning_rate."
        )


def _parts(trainer: Any, base: Optimizer) -> tuple[nn.Module, TrainerLoss, dict[str, Any]]:
    """The model as the trainer has prepared it, its loss, and what a search is told beside the run."""
    _check(trainer)
    prepared = trainer.accelerator._models
    model = prepared[-1] if prepared else trainer.model
    loss = TrainerLoss(trainer)
    each = trainer.args.gradient_accumulation_steps
    step, also = train_step_of(trainer, base, model, loss, each)
    return model, loss, {"accumulation": each} | ({} if step is None else {"train_step": step, "also": also})


def _unwrapped(optimizer: Any) -> Optimizer:
    """What accelerate has wrapped."""
    from accelerate.optimizer import AcceleratedOptimizer

    return optimizer.optimizer if isinstance(optimizer, AcceleratedOptimizer) else optimizer  # type: ignore[no-any-return]


def _put(trainer: Any, tuned: AutoLR) -> None:
    """Inside accelerate's wrapper, which skips the steps that only accumulate."""
    from autolr.integrations.accelerate import put_inside

    if trainer.optimizer is tuned.base or isinstance(trainer.optimizer, AutoLR):
        trainer.optimizer = tuned
    else:
        put_inside(trainer.optimizer, tuned)


def _set(base: Optimizer, rates: Iterable[float]) -> None:
    for group, rate in zip(base.param_groups, rates, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
