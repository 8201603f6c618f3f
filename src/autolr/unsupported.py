"""Optimizers whose rate cannot be tuned, and why: known by name, since most come from packages that are not there."""

from __future__ import annotations

from torch.optim import Optimizer

PROPORTION = (
    "Wrap an optimizer whose step is in proportion to its lr: SGD, Adam, AdamW, RMSprop, Adagrad and most others."
)
OF_TORCH = {
    "LBFGS": f"it searches along its own step and needs a closure. {PROPORTION}",
    "SparseAdam": f"it moves only the rows that a minibatch touched. {PROPORTION}",
    "Adafactor": f"its step is bounded by 1/sqrt(t), whatever the learning rate. {PROPORTION}",
    "Rprop": f"its steps do not depend on the learning rate after the first one. {PROPORTION}",
    "ZeroRedundancyOptimizer": (
        "its state lies in an optimizer within, a part on each rank, where AutoLR does not put it back. Wrap the "
        "optimizer itself; to spread its state over ranks take torch.distributed.fsdp.fully_shard."
    ),
}
# By the beginning of the class's name in small letters, whichever package it is from.
RATE_OF_ITS_OWN = (
    "prodigy", "dadapt", "dog", "ldog", "ladog", "mechanic", "mechanize", "alig", "sps", "l4", "adamg", "trac",
)  # fmt: skip
SEARCHING = ("sam", "bsam", "gsam", "wsam", "looksam", "friendlysam", "lbfgs")
RECTIFIED = ("radam",)


def why_not(optimizer: Optimizer) -> str | None:
    """Why an optimizer cannot be tuned, and what to do; None if nothing is known against it."""
    for kind in type(optimizer).__mro__:
        if kind.__module__.startswith(("torch.optim", "torch.distributed")) and kind.__name__ in OF_TORCH:
            return OF_TORCH[kind.__name__]
        if (why := _by_name(kind.__name__.lower())) is not None:
            return why
    if any(group.get("maximize") for group in optimizer.param_groups):
        return (
            "with maximize=True it climbs, and a falling loss is what a rate is judged by. Let loss_fn return the "
            "negative, and leave maximize out."
        )
    if any(group.get("relative_step") for group in optimizer.param_groups):
        return (
            "with relative_step its step follows 1/sqrt(t), whatever the learning rate. Give it relative_step=False, "
            "warmup_init=False and an lr."
        )
    return None


def caution(optimizer: Optimizer) -> str | None:
    """What to know before a peak is searched for an optimizer, from its first steps."""
    optimizers = getattr(optimizer, "optimizers", [optimizer])
    for name in [kind.__name__ for one in optimizers for kind in type(one).__mro__]:
        if name.lower().startswith(RECTIFIED):
            return (
                f"{name} scales its steps up over thousands of them, and does not scale the first five at all. A "
                "search allows for part of that growth: on 32 tasks the peak was still twice too high, on one seven "
                "times. Search with AdamW and keep that peak, by PeakSearch(peak=...) or find_peak(...).lr, or train "
                "with AdamW."
            )
    return None


def _by_name(name: str) -> str | None:
    if name.startswith(RATE_OF_ITS_OWN):
        return (
            "it finds its rate by itself, and its lr is a factor of that, best left at 1. Use it without AutoLR, or "
            "let AutoLR tune the optimizer that it is built on: AdamW, for instance."
        )
    if name in SEARCHING:
        return (
            "a step of it takes several forward and backward passes through a closure, which is not called here. Let "
            "AutoLR find the peak of the optimizer that it is built on."
        )
    return None
