"""Decisions in experiment trackers: ``AutoLR(..., on_decision=to_tensorboard(writer))``.

Each is a function of a few lines over the tracker's own object; none of them is imported here. For another tracker pass
a function of your own: it is called with a `DecisionRecord`, whose numbers `numbers_of` has by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autolr.runtime.decision_log import DecisionRecord

OnDecision = Callable[[DecisionRecord], None]

SHOWN = {  # name in a tracker -> field of a decision
    "lr": "lr_after", "loss": "loss", "drop_rate": "drop_rate", "eps_min": "eps_min",
    "cost/forward_equivalents": "spent", "cost/seconds": "seconds",
}  # fmt: skip


def numbers_of(record: DecisionRecord, prefix: str = "autolr") -> dict[str, float]:
    """What is known of a decision, under ``prefix/name``; what is not is left out.

    Examples:
        >>> record = DecisionRecord(
        ...     step=10, phase="hold", verdict="keep", trigger="healthy", reason="the loss fell", lr_before=0.1,
        ...     lr_after=0.1, loss=1.5, drop_rate=None, drop_rate_stderr=None, forwards=4, spent=30,
        ... )
        >>> numbers_of(record)["autolr/loss"], "autolr/eps_min" in numbers_of(record)
        (1.5, False)
    """
    found = {name: getattr(record, field) for name, field in SHOWN.items()}
    return {f"{prefix}/{name}": float(value) for name, value in found.items() if value is not None}


def to_tensorboard(writer: Any, prefix: str = "autolr") -> OnDecision:
    """Scalars over steps, and the reasons as texts, by a ``torch.utils.tensorboard.SummaryWriter``."""

    def write(record: DecisionRecord) -> None:
        for name, value in numbers_of(record, prefix).items():
            writer.add_scalar(name, value, record.step)
        writer.add_text(f"{prefix}/decision", record.reason, record.step)

    return write


def to_mlflow(client: Any, run_id: str, prefix: str = "autolr") -> OnDecision:
    """Metrics over steps; the last decision of each kind, with its reason, as a tag; by an ``mlflow.MlflowClient``."""

    def write(record: DecisionRecord) -> None:
        for name, value in numbers_of(record, prefix).items():
            client.log_metric(run_id, name, value, step=record.step)
        client.set_tag(run_id, f"{prefix}.{record.verdict}", f"step {record.step}: {record.reason}")

    return write


def to_wandb(run: Any, prefix: str = "autolr") -> OnDecision:
    """Metrics over ``prefix/step``, a step of their own: W&B's own may be ahead; by what ``wandb.init()`` returns."""
    run.define_metric(f"{prefix}/step")
    run.define_metric(f"{prefix}/*", step_metric=f"{prefix}/step")

    def write(record: DecisionRecord) -> None:
        run.log({
            **numbers_of(record, prefix), f"{prefix}/step": record.step, f"{prefix}/decision": record.reason,
        })  # fmt: skip

    return write
