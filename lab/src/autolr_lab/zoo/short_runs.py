"""Short runs: whole runs in small, at many rates and six lengths, so that a search can be tried offline."""

from collections.abc import Sequence

from autolr_lab.zoo.lattice import bracket, octave
from autolr_lab.zoo.registry import Pair
from autolr_lab.zoo.store import Store, row
from autolr_lab.zoo.training import start, train

LENGTHS = (5, 10, 20, 40, 80, 160)
WARM_UP = 0.4  # share of the steps, as in the library's short runs


def short_runs(store: Store, pair: Pair, seed: int, lengths: Sequence[int] = LENGTHS) -> None:
    """All short runs of a pair and seed that the store does not hold yet, bracketed by the judges' mean loss."""
    begun = start(pair.task, seed)
    for steps in lengths:

        def attempt(k: int, steps: int = steps) -> float:
            key = ("short", pair.task.name, pair.optimizer, seed, steps, k)
            if key not in store.rows:
                store.add(row("short", pair, begun, steps, k, train(pair, seed, 2.0**k, steps, WARM_UP)))
            return store.rows[key].train_loss

        bracket(attempt, sum(begun.judge_losses) / len(begun.judge_losses), octave(pair.customary))
