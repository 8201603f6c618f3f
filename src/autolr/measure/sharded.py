"""Parameters that FSDP2 (``fully_shard``) keeps in shards: what a forward pass reads are gathered copies of them.

After a forward pass without gradients the root's copies stay, and are what the next forward pass reads, whatever was
written into the shards meanwhile. So they are given up wherever a probe ends, and wherever we move parameters.
"""

from __future__ import annotations

import sys

from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


def own_part(tensor: Tensor) -> Tensor:
    """The memory behind a tensor: of a sharded one (``DTensor``), this rank's part."""
    to_local = getattr(tensor, "to_local", None)
    return tensor if to_local is None else to_local()  # type: ignore[no-any-return]


def plain_parts(tensor: Tensor) -> list[Tensor]:
    """The plain tensors that a sharded or quantized one is made of; a plain one is its own."""
    if not is_traceable_wrapper_subclass(tensor):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()
    held = [getattr(tensor, name) for name in names]  # a mesh of devices may be among them
    return [part for inner in held if isinstance(inner, Tensor) for part in plain_parts(inner)]


def reshard(model: nn.Module) -> None:
    """Give up gathered copies: the next forward pass gathers anew, and ``parameters()`` are the optimizer's again."""
    fsdp = sys.modules.get("torch.distributed.fsdp")  # whoever has a sharded module has imported it
    if fsdp is None or not hasattr(fsdp, "FSDPModule"):
        return
    for module in model.modules():
        if isinstance(module, fsdp.FSDPModule):
            module.reshard()
