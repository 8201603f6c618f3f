"""Writes the examples of `docs/frameworks.md` from the files that run: ``python scripts/write_frameworks_page.py``."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "frameworks.md"
EXAMPLE = re.compile(r"<!-- example: (\S+) -->\n.*?<!-- /example -->", re.DOTALL)
COUNT = re.compile(r"(\| \[`(loop_\w+\.py)`\]\([^)]*\) \|) *\d* *(?=\|)")
MARK = "  # +"  # at the end of a line that a user adds or changes


def written(page: str) -> str:
    """The page with each example, and each number of lines that a user changes, as they are in its file."""

    def block(found: re.Match[str]) -> str:
        text = source(found[1])
        return f"<!-- example: {found[1]} -->\n```python\n{text}```\n<!-- /example -->"

    counted = COUNT.sub(lambda found: f"{found[1]} {changed(found[2])} ", page)
    return EXAMPLE.sub(block, counted)


def source(name: str) -> str:
    """An example's text."""
    return (ROOT / "examples" / name).read_text(encoding="utf8")


def changed(name: str) -> int:
    """How many lines a user adds or changes."""
    return sum(MARK in line for line in source(name).splitlines())


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf8")), encoding="utf8")
