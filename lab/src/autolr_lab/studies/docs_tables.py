"""Writes the tables of the documents from the results: ``python -m autolr_lab.studies.docs_tables``.

A document says where a table comes from, and what stands between the two marks is written by this command::

    <!-- table: 2026-11-25_table9_023205f3ee5a -->
    ...
    <!-- /table -->

A part of what a record shows follows its name: ``<!-- table: 2026-11-26_bench_4b620a04aaea | summary -->``. A picture
that a record draws is written where the image after its mark says::

    <!-- picture: 2026-11-29_figure17_50e9bf3 -->
    ![what it shows](img/figure17.png)

With ``--check`` nothing is changed, and it fails where a number in a document is not what the results say, to the
digits that it is printed with, and where a picture is not there or is of no record. How a table is laid out is not
checked, nor the points of a picture.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer

from autolr_lab.runner.experiment import Rendered
from autolr_lab.runner.results import Results
from autolr_lab.studies.records import render_record

ROOT = Path(__file__).parents[4]
MARKED = re.compile(r"<!-- table: (\S+)(?: \| ([^>]+?))? -->\n(.*?)<!-- /table -->", flags=re.DOTALL)
PICTURED = re.compile(r"<!-- picture: (\S+) -->\n!\[[^\]]*\]\(img/([^)]+)\)")
NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")


def pages() -> list[Path]:
    """The documents that may have tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def written(text: str, results: Results) -> str:
    """``text`` with what the results say between its marks.

    Raises:
        ValueError: a mark without its end, or of a part that its record does not have.
        KeyError: there is no such record.
    """
    check_marks(text)
    return MARKED.sub(lambda found: _block(found[1], found[2], results), text)


def check_marks(text: str) -> None:
    """Raise a ValueError where a mark has no end."""
    if text.count("<!-- table:") != len(MARKED.findall(text)):
        raise ValueError("Every <!-- table: NAME --> needs its <!-- /table --> before the next one.")


def _block(name: str, part: str | None, results: Results) -> str:
    mark = f"{name} | {part}" if part else name
    return f"<!-- table: {mark} -->\n\n{_body(name, part, results)}\n<!-- /table -->"


def _body(name: str, part: str | None, results: Results) -> str:
    parts = rendered(results.folder, name).parts
    if part is not None and part not in parts:
        raise ValueError(f"The record {name} has the parts {', '.join(parts)}; got {part!r}.")
    return "\n".join(body.strip("\n") + "\n" for key, body in parts.items() if part in {None, key})


@functools.cache
def rendered(folder: Path, name: str) -> Rendered:
    """A record of a folder of results; computed once."""
    return render_record(Results(folder), name)


def wrong_numbers(text: str, results: Results) -> Iterator[str]:
    """What the tables of a document say otherwise than the results, one sentence for each line of a table."""
    check_marks(text)
    for name, part, body in MARKED.findall(text):
        shown, computed = _table_lines(body), _table_lines(_body(name, part or None, results))
        if len(shown) != len(computed):
            yield f"{name}: {len(shown)} lines of tables, not the results' {len(computed)}"
            continue
        for mine, theirs in zip(shown, computed, strict=True):
            if not same_figures(mine, theirs):
                yield f"{name}: {mine!r}, not the results' {theirs!r}"


def pictured(text: str) -> list[tuple[str, str]]:
    """Record and file name of each picture that a document has from the results.

    Raises:
        ValueError: a mark without an image.
    """
    found = PICTURED.findall(text)
    if text.count("<!-- picture:") != len(found):
        raise ValueError("Every <!-- picture: NAME --> needs its ![...](img/FILE.png) on the next line.")
    return found


def wrong_pictures(text: str, folder: Path, results: Results) -> Iterator[str]:
    """What a document shows that its record does not draw, or that is not in the folder of its pictures."""
    for name, file in pictured(text):
        drawn = rendered(results.folder, name).pictures
        if file not in drawn:
            yield f"{name} draws {', '.join(drawn) or 'no picture'}; got {file!r}"
        elif not (folder / file).is_file():
            yield f"{folder / file} is not there: python -m autolr_lab.studies.docs_tables"


def draw(text: str, folder: Path, results: Results) -> Iterator[Path]:
    """Write the pictures of a document into a folder; those that were written."""
    for name, file in pictured(text):
        png = rendered(results.folder, name).pictures[file]()
        if not (folder / file).is_file() or (folder / file).read_bytes() != png:
            (folder / file).write_bytes(png)
            yield folder / file


def _table_lines(body: str) -> list[str]:
    return [line for line in body.splitlines() if line.startswith("|") and not set(line) <= set("|-: ")]


def same_figures(shown: str, computed: str) -> bool:
    """Whether two lines say the same: equal words, and numbers that agree to the digits that are shown."""
    words = [" ".join(NUMBER.sub("#", line).replace("|", " | ").split()) for line in (shown, computed)]
    numbers = [[Decimal(found.replace(",", "")) for found in NUMBER.findall(line)] for line in (shown, computed)]
    return words[0] == words[1] and all(abs(a - b) <= half_a_unit(a) for a, b in zip(*numbers, strict=True))


def half_a_unit(number: Decimal) -> Decimal:
    """Of the last digit that a number is printed with."""
    exponent = number.as_tuple().exponent
    return Decimal(5).scaleb(int(exponent) - 1)


def main(
    check: Annotated[bool, typer.Option("--check", help="Change nothing; fail on a wrong number.")] = False,
) -> None:
    """Write, or check."""
    results, wrong = Results(), 0
    for page in pages():
        text, images = page.read_text(encoding="utf8"), ROOT / "docs" / "img"
        if check:
            for told in (*wrong_numbers(text, results), *wrong_pictures(text, images, results)):
                wrong += 1
                print(f"{page.relative_to(ROOT)}: {told}")
            continue
        if (new := written(text, results)) != text:
            page.write_text(new, encoding="utf8")
            print(f"{page.relative_to(ROOT)} written")
        for path in draw(text, images, results):
            print(f"{path.relative_to(ROOT)} drawn")
    if wrong:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
