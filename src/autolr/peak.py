"""What a search for the peak found: the rate, how sure it is, and all that was tried."""

from __future__ import annotations

import dataclasses
import html
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autolr.numerics.bracket import Bottom, ShortRun, level
from autolr.peak_file import FORMAT, fields_of, finite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.optim import Optimizer

    from autolr.policies.peak_search import PeakSearch
    from autolr.schedules import PeakSchedule

SIZE = 8.5, 4.4  # inches of a picture


@dataclass(frozen=True)
class Peak:
    """The peak rate of a run, and the short runs that tell it.

    Examples:
        >>> str(Peak(0.0021, 0.0012, 0.0035, 10_000, (), (2.3,), (), 1830.0, 0.061, 12.0, 1e-3, None, ()))
        "peak 0.0021 (0.0012 to 0.0035), 0 short runs, 6.1 % of the run's cost"
    """

    lr: float  # the largest over the parameter groups
    low: float  # between low and high lies the best peak, with a probability of 95 %
    high: float
    total_steps: int
    runs: tuple[ShortRun, ...]
    start_losses: tuple[float, ...]  # one for each evaluation minibatch
    bottoms: tuple[Bottom, ...]  # of each length, in octaves of the given rate
    cost: float  # [forward equivalents]
    share: float  # of the run's own cost
    seconds: float
    given: float  # the optimizer's own rate
    fallback: str | None  # why ``lr`` is a guess or the given rate, where nothing could be told
    notes: tuple[str, ...]
    # [octaves] by which the peak is lower than the short runs alone tell, as their steps are shorter than later ones.
    shortfall: float = 0.0

    @property
    def start_loss(self) -> float:
        """The mean loss where every short run starts."""
        return math.fsum(self.start_losses) / len(self.start_losses)

    @property
    def best_loss(self) -> float:
        """Where the best short run ended, the start's where none is better.

        By the plain or the trimmed mean, whichever gains less: what few evaluation minibatches gain others need not.
        """
        ends = [level(run, self.start_losses) for run in self.runs if not run.diverged]
        return self.start_loss + min(ends, default=0.0)

    def __str__(self) -> str:
        told = f"{self.low:.2g} to {self.high:.2g}"
        if self.fallback:
            told = (
                "the optimizer's own, nothing could be told"
                if self.lr == self.given
                else "a guess: the short runs tell too little"
            )
        return f"peak {self.lr:.2g} ({told}), {len(self.runs)} short runs, {100 * self.share:.1f} % of the run's cost"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{run.length}</td><td>{run.lr:.3g}</td>"
            f"<td>{'diverged' if run.diverged else f'{run.loss:.4g}'}</td></tr>"
            for run in sorted(self.runs, key=lambda run: (run.length, run.lr))
        )
        said = "".join(
            f"<p>{html.escape(text)}</p>" for text in (str(self), *([self.fallback or ""]), *self.notes) if text
        )
        return f"{said}<table><tr><th>steps</th><th>rate</th><th>loss</th></tr>{rows}</table>"

    def scheduler(self, optimizer: Optimizer | Sequence[Optimizer]) -> PeakSchedule:
        """The schedule that the peak is for: a torch ``LRScheduler``, to be stepped after each optimizer step.

        Several that were searched together come as the same list; their rates keep their ratio.
        """
        from autolr.runtime.together import as_one
        from autolr.schedules import PeakSchedule

        return PeakSchedule(as_one(optimizer), self.lr, self.total_steps)

    def policy(self, **settings: Any) -> PeakSearch:
        """`AutoLR`'s policy for a run with this peak: its schedule, and a guard that knows how far short runs came.

        Where `find_peak` was told of ``accumulation``, ``train_step`` or ``also``, tell `AutoLR` by ``search=``,
        and of ``clip`` here: the guard may try a lower peak, and takes steps as a search does.

        Args:
            settings: others of `PeakSearch`: ``clip``, ``guard``, ``decay``.
        """
        from autolr.policies.guard import ShortRuns
        from autolr.policies.peak_search import PeakSearch

        lengths = [run.length for run in self.runs]
        short = ShortRuns.told(self.start_loss, self.best_loss, lengths, found=self.fallback is None)
        return PeakSearch(peak=self.lr, short_runs=short, **settings)

    def plot(self, axes: Any = None) -> Any:
        """The losses of the short runs over their rates, a line for each length, and the peak: on ``axes``, or new.

        Raises:
            ImportError: matplotlib is not installed.
        """
        try:
            from matplotlib import pyplot
        except ImportError as error:
            raise ImportError(
                "Peak.plot() needs matplotlib, which is not installed: pip install matplotlib. The numbers are in "
                "Peak.runs and Peak.to_json()."
            ) from error
        from autolr.report.search import draw_search_on

        axes = axes or pyplot.subplots(figsize=SIZE, layout="constrained")[1]
        draw_search_on(axes, json.loads(self.to_json()))
        return axes

    def to_json(self) -> str:
        """All of it as text; `from_json` gives an equal one. What is not finite is null, and a loss NaN again."""
        return json.dumps(finite({"format": FORMAT, **dataclasses.asdict(self)}), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Peak:
        """The `Peak` that `to_json` wrote.

        Raises:
            ValueError: it is damaged, or in another format.
        """
        try:
            fields = fields_of(json.loads(text))
            return cls(**fields)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(
                f"This is no Peak that this version can read ({error!s:.200}). Write it with Peak.to_json()."
            ) from error
