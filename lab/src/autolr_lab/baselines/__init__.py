"""What others have made to do without a tuned rate, each as its authors document it.

A new peer is a `Peer` in a file here, and its name in `PEERS`.
"""

from autolr_lab.baselines.distance import D_ADAPTATION, DOG, LDOG, PRODIGY
from autolr_lab.baselines.greedy import GREEDY
from autolr_lab.baselines.hypergradient import HYPERGRADIENT
from autolr_lab.baselines.l4 import L4_PEER
from autolr_lab.baselines.line_search import PAL, SLS, SPS
from autolr_lab.baselines.lr_finder import LR_FINDER, LR_FINDER_ONE_CYCLE
from autolr_lab.baselines.mechanic import MECHANIC
from autolr_lab.baselines.momo import MOMO
from autolr_lab.baselines.peer import Peer
from autolr_lab.baselines.schedule_free import SCHEDULE_FREE
from autolr_lab.baselines.vsgd import VSGD

_ALL = (
    *(SCHEDULE_FREE, PRODIGY, D_ADAPTATION, DOG, LDOG, MOMO, MECHANIC, GREEDY, LR_FINDER, LR_FINDER_ONE_CYCLE),
    *(HYPERGRADIENT, L4_PEER, VSGD, SPS, SLS, PAL),
)
PEERS = {peer.name: peer for peer in _ALL}

__all__ = ["PEERS", "Peer"]
