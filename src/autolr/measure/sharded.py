"""Parameters that FSDP2 (``fully_shard``) keeps in shards: what a forward pass reads are gathered copies of them.

After a forward pass without gradients the root's copies stay, and are what the next forward pass reads, whatever was
written into the shards meanwhile. So they are given up wherever a probe ends, and wherever we move parameters.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

PIPELINE = (
    "each rank has some of the layers and the last one alone a loss, so that no rank can measure by itself what a rate "
    "does. Search with the whole model on each rank, by DDP or fully_shard (FSDP2), at a smaller width if need be, and "
    "pass the peak on: peak.scheduler(optimizer) on each stage."
)


def check_sharding(model: nn.Module) -> None:
    """Refuse what spreads a model over ranks in a way that a probe cannot follow.

    Raises:
        TypeError: FSDP's first version, DeepSpeed, or tensor parallelism.
    """
    reshard(model)
    fsdp = sys.modules.get("torch.distributed.fsdp")
    first = getattr(fsdp, "FullyShardedDataParallel", None)
    if (name := _tensor_parallel(model, fsdp)) is not None:
        raise TypeError(
            f"The parameter {name} is split by tensor parallelism, which cannot be tuned: its ranks must see the same "
            "minibatches and masks, and AutoLR gives each rank its own. Search with the whole model on each rank, by "
            "DDP or fully_shard (FSDP2, also on a 2-D mesh), at a smaller width if need be, and pass the peak on: "
            "peak.scheduler(optimizer)."
        )
    for module in model.modules():
        if first is not None and isinstance(module, first):
            raise TypeError(
                "FullyShardedDataParallel cannot be tuned: it moves flat copies of the parameters and frees them "
                "behind their back, so that a probe would measure others than it moves. Shard with "
                "torch.distributed.fsdp.fully_shard (FSDP2), which AutoLR knows."
            )
        if type(module).__module__.partition(".")[0] == "deepspeed":
            raise TypeError(
                f"A model of DeepSpeed ({type(module).__name__}) cannot be tuned: its engine steps the optimizer and "
                "keeps the parameters in pieces. Search without it, on one rank or by fully_shard, and give DeepSpeed "
                "the peak."
            )


def _tensor_parallel(model: nn.Module, fsdp: Any) -> str | None:
    """The name of a parameter that is split, and not by ``fully_shard`` alone; None if there is none."""
    kind = getattr(fsdp, "FSDPModule", ())
    ours: set[int] = set()
    for module in model.modules():
        if isinstance(module, kind):
            ours |= {id(p) for p in module.parameters()}
    for name, p in model.named_parameters():
        splits = [one for one in getattr(p, "placements", ()) if not one.is_replicate()]
        if len(splits) > 1 or (splits and id(p) not in ours):
            return name
    return None


def own_part(tensor: Tensor) -> Tensor:
    """The memory behind a tensor: of a sharded one (``DTensor``), this rank's part."""
    to_local = getattr(tensor, "to_local", None)
    return tensor if to_local is None else to_local()


def plain_parts(tensor: Tensor) -> list[Tensor]:
    """The plain tensors that a sharded, quantized or sparse one is made of; a plain one is its own."""
    whole: Any = tensor
    if tensor.layout is torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if not is_traceable_wrapper_subclass(whole):
        return [tensor]
    names, _ = whole.__tensor_flatten__()
    held = [getattr(whole, name) for name in names]  # a mesh of devices may be among them
    return [part for inner in held if isinstance(inner, Tensor) for part in plain_parts(inner)]


def reshard(model: nn.Module) -> None:
    """Give up gathered copies: the next forward pass gathers anew, and ``parameters()`` are the optimizer's again."""
    fsdp = sys.modules.get("torch.distributed.fsdp")  # whoever has a sharded module has imported it
    if fsdp is None or not hasattr(fsdp, "FSDPModule"):
        return
    for module in model.modules():
        if isinstance(module, fsdp.FSDPModule):
            module.reshard()
