"""The page: one HTML file with everything in it, and the pictures beside it as PNG files."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from autolr import __version__
from autolr.policies.wording import number
from autolr.report.advice import draw_advice
from autolr.report.curves import draw_curves
from autolr.report.drawing import to_png
from autolr.report.fits import choose, draw_fits, looks_of
from autolr.report.groups import Group, group_runs, run_names
from autolr.report.search import draw_search, search_of
from autolr.report.summary import DASH, NOT_FINITE, summarise
from autolr_lab.training.runs import Run, RunError
from autolr.runtime.decision_log import Record

OPEN_AT_MOST = 2  # runs whose log is shown unfolded
PROVENANCE = ("started", "command", "version", "commit", "torch", "machine", "cuda", "threads")


@dataclass(frozen=True)
class Picture:
    """A PNG with its file name and the words beside it."""

    file: str
    png: bytes
    text: str

    @property
    def source(self) -> str:
        """The picture itself as an ``src``: nothing is loaded from elsewhere."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


@dataclass(frozen=True)
class Chapter:
    """What one tuned run decided."""

    name: str
    settings: str
    finished: bool
    decisions: Sequence[Record]
    pictures: Sequence[Picture]


def write_report(runs: Sequence[Run], out: Path) -> Path:
    """Write pictures and page of some runs into a folder, made here if need be.

    Args:
        runs: whole or cut off, of any workloads; repeats with other seeds are put together.
        out: the folder. Files of an earlier report there are overwritten.

    Returns:
        The path of ``index.html``, which needs none of the files beside it.

    Raises:
        ValueError: there are no runs.
        RunError: ``out`` cannot be written.
    """
    if not runs:
        raise ValueError("A report needs at least one run; got none. `autolr runs` lists the runs there are.")
    names = {id(run): name for run, name in zip(runs, run_names(runs), strict=True)}
    groups = group_runs(runs)
    curves = _curves(groups)
    chapters = [_chapter(i, run, names[id(run)]) for i, run in enumerate(runs, 1) if run.decisions]
    page = _environment().get_template("page.html.jinja").render(
        title=_title(runs),
        version=__version__,
        cut_off=[names[id(run)] for run in runs if run.result is None],
        summary=summarise(groups, names),
        curves=curves,
        chapters=chapters,
        unfolded=len(chapters) <= OPEN_AT_MOST,
        provenance=[_provenance(run, names[id(run)]) for run in runs],
        provenance_headings=("run", "seed", *PROVENANCE, "settings"),
    )  # fmt: skip
    return _write(out, page, [*curves, *(picture for chapter in chapters for picture in chapter.pictures)])


def _write(out: Path, page: str, pictures: Sequence[Picture]) -> Path:
    index = out / "index.html"
    try:
        out.mkdir(parents=True, exist_ok=True)
        for picture in pictures:
            (out / picture.file).write_bytes(picture.png)
        index.write_text(page, encoding="utf8")
    except OSError as error:
        raise RunError(
            f"The report cannot be written to {out}: {error.strerror}. Name another folder with --out."
        ) from error
    return index


def _title(runs: Sequence[Run]) -> str:
    return "AutoLR report: " + ", ".join(dict.fromkeys(run.settings.workload for run in runs))


def _curves(groups: Sequence[Group]) -> list[Picture]:
    """A picture for each workload and optimizer: losses and rates of others are not to be compared with them."""
    panels: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        settings = group.runs[0].settings
        panels.setdefault((settings.workload, settings.optimizer), []).append(group)
    return [
        Picture(f"curves-{i}-{_slug('-'.join(key))}.png", to_png(draw_curves(panel)), f"Curves of {' with '.join(key)}")
        for i, (key, panel) in enumerate(panels.items(), 1)
    ]


def _chapter(i: int, run: Run, name: str) -> Chapter:
    pictures, looks = [], looks_of(run)
    if (search := search_of(run.decisions)) is not None:
        pictures.append(Picture(f"search-{i}-{_slug(name)}.png", to_png(draw_search(search)), f"the search of {name}"))
    if (advice := draw_advice(looks)) is not None:
        text = f"ε_min over LR for each look of {name}"
        pictures.append(Picture(f"advice-{i}-{_slug(name)}.png", to_png(advice), text))
    if looks:
        chosen = choose(looks)
        text = f"{len(chosen)} of the {len(looks)} looks of {name}, spread over the run"
        if len(chosen) == len(looks):
            text = f"all looks of {name}"
        pictures.append(Picture(f"fits-{i}-{_slug(name)}.png", to_png(draw_fits(chosen)), text))
    return Chapter(name, run.settings.label, run.result is not None, run.decisions, pictures)


def _provenance(run: Run, name: str) -> list[str]:
    known = [str(run.provenance.get(key) or DASH) for key in PROVENANCE]
    chosen = (f"{key} {json.dumps(value)}" for key, value in _chosen(run).items())
    return [name, str(run.settings.seed), *known, ", ".join(chosen)]


def _chosen(run: Run) -> dict[str, Any]:
    """The settings that the summary does not show, with what AutoLR made of those left to it."""
    settings, result = run.settings, run.result or {}
    chosen = {key: getattr(settings, key) for key in ("batch_size", "device")}
    chosen |= {key: result.get(key, getattr(settings, key)) for key in ("window", "superbatch")}
    chosen |= {"validation_eps": settings.validation_eps or None, **settings.policy}
    return {key: value for key, value in chosen.items() if value is not None}


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("autolr.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    environment.filters["with_error"] = _with_error
    return environment


def _number(value: float | None, absent: str = NOT_FINITE) -> str:
    return absent if value is None else number(value)


def _with_error(value: float | None, error: float | None) -> str:
    if value is None:
        return DASH
    return number(value) if error is None else f"{number(value)} ± {number(error)}"
