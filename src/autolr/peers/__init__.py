"""What others have made to do without a tuned rate, each as its authors document it.

A new peer is a `Peer` in a file here, and its name in `PEERS`.
"""

from autolr.peers.distance import D_ADAPTATION, DOG, LDOG, PRODIGY
from autolr.peers.greedy import GREEDY
from autolr.peers.hypergradient import HYPERGRADIENT
from autolr.peers.l4 import L4_PEER
from autolr.peers.line_search import PAL, SLS, SPS
from autolr.peers.lr_finder import LR_FINDER, LR_FINDER_ONE_CYCLE
from autolr.peers.mechanic import MECHANIC
from autolr.peers.momo import MOMO
from autolr.peers.peer import Peer
from autolr.peers.schedule_free import SCHEDULE_FREE
from autolr.peers.vsgd import VSGD

_ALL = (
    *(SCHEDULE_FREE, PRODIGY, D_ADAPTATION, DOG, LDOG, MOMO, MECHANIC, GREEDY, LR_FINDER, LR_FINDER_ONE_CYCLE),
    *(HYPERGRADIENT, L4_PEER, VSGD, SPS, SLS, PAL),
)
PEERS = {peer.name: peer for peer in _ALL}

__all__ = ["PEERS", "Peer"]
