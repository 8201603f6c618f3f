"""The full grid: runs of the task's own horizons over all rates that have a chance."""

from autolr_lab.zoo.lattice import bracket, octave
from autolr_lab.zoo.registry import Pair
from autolr_lab.zoo.store import Store, row
from autolr_lab.zoo.training import start, train


def grid(store: Store, pair: Pair, seed: int) -> None:
    """All full runs of a pair and seed that the store does not hold yet, bracketed by the evaluation loss."""
    begun = start(pair.task, seed)
    for steps in pair.task.horizons:

        def attempt(k: int, steps: int = steps) -> float:
            key = ("grid", pair.task.name, pair.optimizer, seed, steps, k)
            if key not in store.rows:
                store.add(row("grid", pair, begun, steps, k, train(pair, seed, 2.0**k, steps)))
            return store.rows[key].eval_loss

        bracket(attempt, begun.eval_loss, octave(pair.customary))
