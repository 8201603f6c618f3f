"""Parameters that FSDP2 (``fully_shard``) keeps in shards: what a forward pass reads are gathered copies of them.

After a forward pass without gradients the root's copies stay, and are what the next forward pass reads, whatever was
written into the shards meanwhile. So they are given up wherever a probe ends, and wherever we move parameters.
"""

from __future__ import annotations

import sys

from torch import nn


def reshard(model: nn.Module) -> None:
    """Give up gathered copies: the next forward pass gathers anew, and ``parameters()`` are the optimizer's again."""
    fsdp = sys.modules.get("torch.distributed.fsdp")  # whoever has a sharded module has imported it
    if fsdp is None or not hasattr(fsdp, "FSDPModule"):
        return
    for module in model.modules():
        if isinstance(module, fsdp.FSDPModule):
            module.reshard()
