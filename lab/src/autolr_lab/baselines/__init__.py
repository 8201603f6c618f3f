"""What others have made to do without a tuned rate, each used as its authors document it.

A new one is a `Baseline` in a file here, and its name in `BASELINES` and in `cli.names`.
"""

from autolr_lab.baselines.baseline import Baseline
from autolr_lab.baselines.distance import D_ADAPTATION, DOG, LDOG, PRODIGY
from autolr_lab.baselines.gen import GEN
from autolr_lab.baselines.greedy import GREEDY
from autolr_lab.baselines.hypergradient import HYPERGRADIENT
from autolr_lab.baselines.l4 import L4_BASELINE
from autolr_lab.baselines.line_search import PAL, SLS, SPS
from autolr_lab.baselines.lr_finder import LR_FINDER, LR_FINDER_ONE_CYCLE
from autolr_lab.baselines.mechanic import MECHANIC
from autolr_lab.baselines.momo import MOMO
from autolr_lab.baselines.schedule_free import SCHEDULE_FREE
from autolr_lab.baselines.vsgd import VSGD

_ALL = (
    *(SCHEDULE_FREE, PRODIGY, D_ADAPTATION, DOG, LDOG, MOMO, MECHANIC, GREEDY, LR_FINDER, LR_FINDER_ONE_CYCLE),
    *(HYPERGRADIENT, L4_BASELINE, VSGD, SPS, SLS, PAL, GEN),
)
BASELINES = {baseline.name: baseline for baseline in _ALL}

__all__ = ["BASELINES", "Baseline"]
