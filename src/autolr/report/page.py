"""The page: one HTML file with everything in it, and the pictures beside it as PNG files."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autolr.policies.wording import number
from autolr.report.curves import draw_curves
from autolr.report.drawing import to_png
from autolr.report.fits import choose, draw_fits
from autolr.report.reading import ReportError
from autolr.report.search import draw_search
from autolr.report.summary import DASH, NOT_FINITE, headline, table
from autolr.report.training_record import Training, outcome, probes_of
from autolr.report.words import counted

OPEN_AT_MOST = 2  # trainings whose decisions are shown unfolded


@dataclass(frozen=True)
class Picture:
    """A PNG with its file name, what it shows, and how to read it."""

    file: str
    png: bytes
    text: str
    caption: str

    @property
    def source(self) -> str:
        """The picture itself as an ``src``: nothing is loaded from elsewhere."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


def write_report(trainings: Sequence[Training], out: Path) -> Path:
    """Write page and pictures of some trainings into a folder, made here if need be.

    Args:
        trainings: to be shown together.
        out: the folder. Files of an earlier report there are overwritten.

    Returns:
        The path of ``index.html``, which needs none of the files beside it.

    Raises:
        ReportError: there are no trainings, or ``out`` cannot be written.
    """
    if not trainings:
        raise ReportError("A report needs at least one training; got none.")
    curves = Picture("curves.png", to_png(draw_curves(trainings)), _curves_text(trainings), CURVES)
    chapters: list[dict[str, Any]] = [
        {"training": training, "headline": headline(training), "pictures": list(_pictures(i, training))}
        for i, training in enumerate(trainings, 1)
    ]
    headings, rows = table(trainings)
    page = _environment().get_template("page.html.jinja").render(
        curves=curves, chapters=chapters, headings=headings, rows=rows, unfolded=len(trainings) <= OPEN_AT_MOST
    )  # fmt: skip
    index = out / "index.html"
    try:
        out.mkdir(parents=True, exist_ok=True)
        for picture in [curves, *(picture for chapter in chapters for picture in chapter["pictures"])]:
            (out / picture.file).write_bytes(picture.png)
        index.write_text(page, encoding="utf8", errors="backslashreplace")
    except OSError as error:
        raise ReportError(
            f"The report cannot be written to {out}: {error.strerror}. Name another folder with --out."
        ) from error
    return index


CURVES = (
    "A marker is a decision: a star at the peak that was found, a triangle up or down at a change, a cross at "
    "the rate that a rollback gave up, a dot where it was kept. A dotted line is the first decision of a new phase."
)
SEARCH = (
    "Each marker is a short run that starts where the training does: the loss that it ended at, over its peak rate. "
    "Hollow triangles at the upper edge ended above it, or diverged."
)
FITS = (
    "The loss along the optimizer's step. ε is in multiples of that step: 0 is the step as it was taken, -1 none, "
    "1 twice as much. The minimum of the parabola is the change that it asks for, in multiples of the learning rate."
)


def _curves_text(trainings: Sequence[Training]) -> str:
    return " ".join(f"{training.name}: {headline(training)}" for training in trainings)


def _pictures(i: int, training: Training) -> Iterator[Picture]:
    """Those of one training: its searches, and chosen probes."""
    slug = re.sub(r"[^\w.-]+", "-", training.name).strip("-.")[:80]
    searches = [record.search for record in training.records if record.search]
    for n, search in enumerate(searches, 1):
        text = f"The search for the peak: {number(search['lr'])} from {counted(len(search['runs']), 'short run')}."
        yield Picture(f"search-{i}-{n}-{slug}.png", to_png(draw_search(search)), text, SEARCH)
    if probes := probes_of(training.records):
        chosen = choose(probes)
        text = f"{len(chosen)} of the {len(probes)} probes, spread over the run."
        if len(chosen) == len(probes):
            text = f"All of the {counted(len(probes), 'probe')}."
        yield Picture(f"fits-{i}-{slug}.png", to_png(draw_fits(chosen)), text, FITS)


def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # not needed by who wants a picture only

    environment = Environment(
        loader=PackageLoader("autolr.report", ""), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"number": _number, "with_error": _with_error, "outcome": outcome, "counted": counted}
    return environment


def _number(value: float | None) -> str:
    return NOT_FINITE if value is None else number(value)


def _with_error(value: float | None, error: float | None) -> str:
    if value is None:
        return DASH
    return number(value) if error is None else f"{number(value)} ± {number(error)}"
