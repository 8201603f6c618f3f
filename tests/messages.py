"""The library's messages: as the source has them, and as the page Troubleshooting has them.

Both with `…` in the place of what differs from case to case.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "autolr"
PAGE = ROOT / "docs" / "troubleshooting.md"
HOLE = "…"
SAYS = {"warn", "warning", "_refuse", "secho", "exit", "ReportError", "_needs"}  # functions whose texts a user reads

# A message that is made elsewhere and only handed on where it is raised: the functions that make it.
MAKERS = {"caution", "complaint", "concern", "damaged", "_meet_another", "_needs", "_unknown_growth", "_write"}
INNER = {  # messages that nobody meets as they stand, by how they begin
    "Every eps needs": "arithmetic that is called with the library's own numbers",
    "A parabola needs": "likewise",
    "A loss-drop rate needs": "likewise",
    "A paired difference needs": "likewise",
    "step cannot be": "told within '..., is damaged or was written by another version'",
    "… cannot be …": "likewise",
    "… eps have": "likewise",
    "a rate of the search": "likewise",
    "it is not in format": "told within 'This is no Peak that this version can read'",
    "the rate of the search": "told within '..., is damaged or was written by another version'",
    "a line cannot be": "likewise",
    "it tells of": "told within 'Line … of … is none of this version's decision log'",
    "the place to roll back to": "told within 'This state_dict is damaged'",
    "… rates for": "likewise",
    "a sign of life cannot be": "likewise",
    "loss cannot be": "likewise",
    "rates cannot be": "likewise",
    "total_steps cannot be": "likewise",
    "…troubles[0]": "a ReportError that was raised before",
    "…str(error)": "likewise",
    "AutoLR, step …: ….": "the words are those of policies/wording.py: a case for each that is warned of",
    "…: find_peak returns": "begins with Peak.fallback, which a case has",
    "…: … is not installed.": "begins with what needs it, which is found where it is raised",
}
SILENT = {  # what is raised without a text of its own, or with Python's
    "AttributeError": "a misspelt name, in Python's own words",
    "NotImplementedError": "a policy of our own that is not finished",
    "AssertionError": "a mistake of ours",
    "typer.Exit": "an exit code",
}


def patterns(page: Path = PAGE) -> dict[str, list[str]]:
    """The messages of each section of the page: lines that are one span of code."""
    found: dict[str, list[str]] = {}
    for line in page.read_text(encoding="utf8").splitlines():
        if line.startswith("## "):
            section = found.setdefault(line[3:], [])
        elif re.fullmatch(r"`[^`]+`", line):
            section.append(line.strip("`"))
    return found


def told(pattern: str, message: str) -> bool:
    """Whether a message begins as a pattern of the page says."""
    pieces = [re.escape(piece) for piece in pattern.removesuffix(f" {HOLE}").split(HOLE)]
    return re.match(".*?".join(pieces), message, re.DOTALL) is not None


def template(node: ast.expr) -> str | None:
    """A text as it stands in the source, with a hole for whatever is put in; None where it is no text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(v.value) if isinstance(v, ast.Constant) else HOLE for v in node.values)
    if isinstance(node, ast.BinOp):
        parts = [template(node.left), template(node.right)]
        return "".join(part or HOLE for part in parts) if any(parts) else None
    return None


def messages(sources: Path = SOURCES) -> Iterator[tuple[str, str]]:
    """(where, text) of each message in the source."""
    for path in sorted(sources.rglob("*.py")):
        for where, node in _said(ast.parse(path.read_text(encoding="utf8"))):
            text = template(node)
            place = f"{path.relative_to(sources)}:{where}"
            yield place, text or f"{HOLE}{ast.unparse(node)}"


def _said(tree: ast.Module) -> Iterator[tuple[int, ast.expr]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            if ast.unparse(node.exc.func) not in {*SILENT, *MAKERS}:
                yield node.lineno, node.exc.args[0]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in SAYS:
            texts = [arg for arg in node.args if (template(arg) or "").count(" ") >= 2]
            if texts:
                yield node.lineno, texts[-1]
        elif isinstance(node, ast.FunctionDef) and node.name in MAKERS:
            yield from ((text.lineno, text) for text in _made(node))


def _made(maker: ast.FunctionDef) -> Iterator[ast.expr]:
    """What a function returns or sets, where that is a text, or an error with one."""
    for node in ast.walk(maker):
        value = node.value if isinstance(node, ast.Return | ast.Assign) else None
        if isinstance(value, ast.Call) and value.args:
            value = value.args[0]
        if value is not None and (template(value) or "").count(" ") > 4:
            yield value
