"""Writes the tables of the documents anew from the records: ``python benchmarks/write_results.py``.

A document says where a table comes from, and everything between the two marks is written by this command::

    <!-- record: 2026-11-25_table9_0123456789ab -->
    ...
    <!-- /record -->

``--check`` changes nothing and fails where a document is not what the records say.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).parent.parent
RECORDS = ROOT / "benchmarks" / "records"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MARKED = re.compile(r"<!-- record: (\S+) -->\n.*?<!-- /record -->", flags=re.DOTALL)


def written(text: str, records: Path = RECORDS) -> str:
    """``text`` with what its records say between the marks.

    Raises:
        ValueError: a record that is not there, or a mark without its end.
    """
    if text.count("<!-- record:") != len(MARKED.findall(text)):
        raise ValueError("Every <!-- record: NAME --> needs its <!-- /record --> before the next one.")
    return MARKED.sub(
        lambda found: f"<!-- record: {found[1]} -->\n\n{_body(found[1], records)}\n<!-- /record -->", text
    )


def _body(name: str, records: Path) -> str:
    path = records / name / "table.md"
    if not path.exists():
        raise ValueError(f"There is no record {name} under {records}.")
    lines = path.read_text(encoding="utf8").split("\n")
    return "\n".join(line for line in lines if not line.startswith("# ")).strip("\n") + "\n"


def main(check: Annotated[bool, typer.Option("--check", help="Change nothing; fail on a difference.")] = False) -> None:
    """Write, or check."""
    stale = [page for page in PAGES if page.read_text(encoding="utf8") != written(page.read_text(encoding="utf8"))]
    for page in stale:
        print(f"{page.relative_to(ROOT)} {'is not what the records say' if check else 'written'}")
        if not check:
            page.write_text(written(page.read_text(encoding="utf8")), encoding="utf8")
    if check and stale:
        raise typer.Exit(1)


if __name__ == "__main__":
    try:
        typer.run(main)
    except ValueError as error:  # a mark in a document that is none
        raise SystemExit(f"Error: {error}") from None
