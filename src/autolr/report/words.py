"""How the report writes counts, and text that came from a file."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """``1 probe``, ``2 probes``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def printable(text: str) -> str:
    r"""The text on one line, with escape codes, line breaks and broken characters written out, as in ``\x1b``."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def label(text: str) -> str:
    """The text as matplotlib draws it: ``$`` is no mathematics, and a leading ``_`` does not hide it from a legend."""
    shown = printable(text).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown
