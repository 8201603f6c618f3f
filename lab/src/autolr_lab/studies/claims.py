"""Follows each number that a document's text claims to the results that it is from.

After a paragraph stands where its numbers are from, in a comment that no reader sees::

    It gains 3.9 points with momentum, in a tenth of the 50 epochs.
    <!-- claims 2026-11-26_differences_cb78c1e28349: 3.9 = gain [fashion-mnist | momentum | baseline] -->
    <!-- no record: 50, the paper's -->

A claim names a column of one of the record's tables, and cells of the one line that is meant. ``#2`` takes the second
number of a cell (``95 % interval #2``, the upper end), and ``[one] - [other]`` is a difference of two lines. Where a
record has several tables, ``RECORD/part`` is one of them; in its place a page may stand whose tables are checked
themselves (``benchmark.md``). Several claims are parted by ``;``. In a page that is `COVERED`, every number with a
decimal point or a per cent sign has a claim, or the reason why there is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from autolr_lab.runner.results import Results
from autolr_lab.studies.docs_tables import MARKED, NUMBER, ROOT, half_a_unit, rendered

COVERED = (ROOT / "README.md", ROOT / "docs" / "results.md")
CLAIMS = re.compile(r"<!-- claims (\S+): (.*?) -->", flags=re.DOTALL)
UNRECORDED = re.compile(r"<!-- no record: (.*?) -->", flags=re.DOTALL)
CLAIM = re.compile(r"\s*(\S+) = ([^\[]+?)(?: #(\d))? \[([^\]]+)\](?: - \[([^\]]+)\])?\s*")
MEASURED = re.compile(r"(?<![\w.,-])[-+]?(?:\d[\d,]*\.\d+|\.\d+|\d[\d,]*(?= %))(?![\w]|\.\d)")
Line = dict[str, str]  # of a table: cells by their heading


@dataclass(frozen=True)
class Claim:
    """A number of a text, and where it is from."""

    number: str
    source: str
    column: str
    place: int  # of the number in its cell, from 0
    cells: tuple[str, ...]  # that the line has
    less: tuple[str, ...] = ()  # likewise, of a line that is taken from it


def wrong_claims(page: Path, results: Results) -> Iterator[str]:
    """What a page claims otherwise than its sources, and, of a page that is covered, what has no source."""
    for paragraph in paragraphs(page.read_text(encoding="utf8")):
        text = _shown(paragraph)
        claims = list(claims_of(paragraph))
        for claim in claims:
            if (told := _wrong(claim, text, results)) is not None:
                yield f"{page.name}: {claim.number}: {told}"
        if page in COVERED:
            excused = {number for reason in UNRECORDED.findall(paragraph) for number in _numbers(reason)}
            for number in _numbers(text):
                if number not in {claim.number for claim in claims} | excused:
                    yield f"{page.name}: {number} has no source, in: {' '.join(text.split())[:80]}"


def paragraphs(text: str) -> list[str]:
    """The parts of a page between empty lines, without its tables, code and headings."""
    text = re.sub(r"^```.*?^```$", "", MARKED.sub("", text), flags=re.DOTALL | re.MULTILINE)
    return [part for part in re.split(r"\n\s*\n", text) if part.strip() and not part.startswith(("#", "|", "!["))]


def claims_of(paragraph: str) -> Iterator[Claim]:
    """What a paragraph says its numbers are.

    Raises:
        ValueError: a claim is not of the form that the module's description gives.
    """
    for source, listed in CLAIMS.findall(paragraph):
        for one in " ".join(listed.split()).split(";"):
            if not (found := CLAIM.fullmatch(one)):
                raise ValueError(f"A claim is NUMBER = COLUMN [CELL | CELL]; got {one.strip()!r}.")
            number, column, place, cells, less = found.groups()
            wanted, other = (tuple(cell.strip() for cell in (part or "").split("|") if cell) for part in (cells, less))
            yield Claim(number, source, column.strip(), int(place or 1) - 1, wanted, other)


def _shown(paragraph: str) -> str:
    """Without comments, code and links' addresses."""
    return re.sub(r"<!--.*?-->|`[^`]*`|\]\([^)]*\)", " ", paragraph, flags=re.DOTALL)


def _numbers(text: str) -> list[str]:
    return MEASURED.findall(text)


def _wrong(claim: Claim, text: str, results: Results) -> str | None:
    """Why a claim does not hold; None where it does."""
    if claim.number not in {*_numbers(text), *NUMBER.findall(text)}:
        return "claimed, and not in its paragraph"
    try:
        kept = _kept(claim, claim.cells, results) - (_kept(claim, claim.less, results) if claim.less else 0)
    except LookupError as error:
        return str(error)
    shown = Decimal(claim.number.replace(",", ""))
    if abs(abs(shown) - abs(kept)) > half_a_unit(shown) or (shown * kept < 0 and claim.number[0] in "+-"):
        return f"the results have {kept}"
    return None


def _kept(claim: Claim, cells: tuple[str, ...], results: Results) -> Decimal:
    """The number of the one line that has these cells; raises a LookupError where there is none."""
    lines = [
        line for line in lines_of(claim.source, results) if claim.column in line and set(cells) <= set(line.values())
    ]
    if len(lines) != 1:
        raise LookupError(f"{len(lines)} lines of {claim.source} have {claim.column!r} and {', '.join(cells)}")
    numbers = NUMBER.findall(lines[0][claim.column])
    if claim.place >= len(numbers):
        raise LookupError(f"{claim.column!r} is {lines[0][claim.column]!r} there")
    return Decimal(numbers[claim.place].replace(",", ""))


def lines_of(source: str, results: Results) -> list[Line]:
    """The lines of all tables of a record, or of a page.

    Raises:
        KeyError: there is no such record.
    """
    if source.endswith(".md"):
        return list(_lines((ROOT / "docs" / source).read_text(encoding="utf8")))
    name, _, part = source.partition("/")
    texts = rendered(results.folder, name).parts
    return [line for key, text in texts.items() if part in {"", key} for line in _lines(text)]


def _lines(text: str) -> Iterator[Line]:
    heads: list[str] | None = None
    for line in text.splitlines():
        if not line.startswith("|"):
            heads = None
        elif heads is None:
            heads = _cells(line)
        elif not set(line) <= set("|-: "):
            yield dict(zip(heads, _cells(line), strict=True))


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]
