"""What a run shows of itself while it runs: a line, a summary, a picture, a page."""

from __future__ import annotations

import html
import os
from pathlib import Path
from typing import TYPE_CHECKING

from autolr.numerics.cost import Cost
from autolr.policies.wording import number
from autolr.run_length import RunLength
from autolr.runtime.decision_log import DecisionRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from autolr.report.training_record import Training

LAST = 3  # decisions that a summary tells


class RunView(RunLength):
    """The properties and methods of `AutoLR` that show the run."""

    def __repr__(self) -> str:
        return (
            f"AutoLR({type(self.base).__name__}, {type(self.policy).__name__}, step {self._steps} of "
            f"{self.total_steps}, {self.phase}, lr {number(self.lr)}, "
            f"{100 * self.cost.share(self.total_steps):.2g} % spent)"
        )

    @property
    def history(self) -> list[DecisionRecord]:
        """A `DecisionRecord` for each decision so far."""
        return self._recorder.history

    @property
    def cost(self) -> Cost:
        """What all of it cost so far."""
        return self._recorder.cost

    @property
    def lr(self) -> float:
        """The present learning rate: the largest over the parameter groups."""
        return self._rates.lr

    @property
    def phase(self) -> str:
        """The policy's present phase."""
        return self._controller.phase(self._steps)

    def log(self, **numbers: float) -> None:
        """Keep numbers of your own with the run, ``optimizer.log(val_loss=0.3)``, for its picture, page and log.

        Names that begin with ``val_``, ``valid_``, ``test_`` or ``eval_`` are evaluation metrics and get a panel each;
        ``loss`` is the training loss of the last steps, ``train_loss`` its mean over an epoch.

        Raises:
            TypeError, ValueError: a value is no number, or a name is one that AutoLR keeps itself: ``step``, ``lr``.
        """
        self._recorder.log(self._steps, numbers)

    def summary(self) -> str:
        """A few lines in words: what was found and decided, where the run is, what all of it cost."""
        from autolr.report.summary import headline

        last = [str(record) for record in self.history[-LAST:]]
        return "\n".join([repr(self), headline(self._training()), *last])

    def plot(self) -> Figure:
        """The rate over the steps with its decisions, and what was given to `log`, as a matplotlib figure.

        Raises:
            ImportError: matplotlib is not installed.
        """
        try:
            from autolr.report.curves import draw_curves
        except ImportError as error:
            raise _needs(error, "AutoLR.plot() needs matplotlib", "torch-autolr[plot]") from error
        return draw_curves([self._training()])

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write one page of HTML with everything in it: curves, search, probes, decisions, costs.

        Args:
            path: of the file.

        Raises:
            ImportError: what the extra ``report`` installs is missing.
        """
        try:
            from autolr.report.page import write_page
        except ImportError as error:
            raise _needs(error, "AutoLR.report() needs more than torch", "torch-autolr[report]") from error
        return write_page([self._training()], Path(path))

    def _repr_html_(self) -> str:
        """For a notebook: the summary, and where matplotlib is installed the curve."""
        told = "".join(f"<p>{html.escape(line)}</p>" for line in self.summary().splitlines())
        try:
            from autolr.report.drawing import to_svg

            return told + to_svg(self.plot())
        except ImportError:
            return told

    def _training(self) -> Training:
        """The run as the report draws it."""
        from autolr.report.training_record import Training

        points: dict[int, dict[str, float | None]] = {}
        for name, curve in self._recorder.curves.items():
            for step, value in curve.drawn():
                points.setdefault(step, {"step": step})[name] = value
        name = f"{type(self.base).__name__}, {type(self.policy).__name__}"
        status = "running" if self._steps < self.total_steps else "finished"
        return Training(
            name, self.history, [points[step] for step in sorted(points)], self.total_steps, status=status
        )  # fmt: skip


def _needs(error: ImportError, what: str, extra: str) -> ImportError:
    return ImportError(f"{what}: {error.name} is not installed. pip install '{extra}'; AutoLR.summary() needs nothing.")
