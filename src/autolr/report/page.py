"""The page: one HTML file that needs nothing else, neither files beside it nor a network.

Its charts are drawn by Vega (vega.github.io), which the package vl-convert-python carries and gives as one script
(0.9 MB). Why this one: it draws SVG, so each mark can have a name for a screen reader, keyboard focus and colours from
CSS (the theme changes without a redraw), which the canvas of Bokeh (1 MB) has not, and ECharts (1 MB) in part; plotly
is 4.8 MB. The University of Washington's group has kept it since 2013, and an upgrade is a pin. The charts are in Vega
itself, not in Vega-Lite: one window for several charts is a signal there. All else is HTML's: buttons, boxes, tables.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from vl_convert import javascript_bundle

from autolr.report.page_data import data_of
from autolr.report.reading import ReportError
from autolr.report.summary import headline, overall
from autolr.report.training_record import Training
from autolr.report.words import counted, printable
from autolr.runtime.whole_file import write_whole

SCRIPTS = "chart.js", "axes.js", "curves.js", "search.js", "tables.js", "page.js"


def write_page(trainings: Sequence[Training], file: Path) -> Path:
    """Write the page of some trainings; an earlier one there is replaced once it is whole.

    Args:
        trainings: to be shown together.
        file: where to; its folder is made if need be.

    Returns:
        ``file``.

    Raises:
        ReportError: there are no trainings, or ``file`` cannot be written.
    """
    if not trainings:
        raise ReportError("A page needs at least one training; got none.")
    page = page_of(trainings)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, page, errors="backslashreplace")
    except OSError as error:
        raise ReportError(
            f"The page cannot be written to {file}: {error.strerror}. Name another file with --out."
        ) from error
    return file


def page_of(trainings: Sequence[Training]) -> str:
    """The page as text; the same for the same trainings."""
    environment = Environment(
        loader=PackageLoader("autolr.report", ""), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    one = trainings[0] if len(trainings) == 1 else None
    # Inside a script, "<" could end it; as \u003c it is the same JSON.
    data = json.dumps(data_of(trainings), allow_nan=False, separators=(",", ":")).replace("<", r"\u003c")
    return environment.get_template("page.html.jinja").render(
        name=printable(one.name) if one else counted(len(trainings), "run"),
        headline=headline(one) if one else overall(trainings),
        style=_part("page.css"), vega=_vega(), script="\n".join(map(_part, SCRIPTS)), data=data,
    )  # fmt: skip


def _part(name: str) -> str:
    return resources.files("autolr.report").joinpath(name).read_text(encoding="utf8")


@functools.cache
def _vega() -> str:
    """Vega as a script that sets ``window.vegaEmbed``, which draws a chart."""
    script: str = javascript_bundle("window.vegaEmbed = vegaEmbed;")  # takes seconds
    return script.replace("</script", r"<\/script")
